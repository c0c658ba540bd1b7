"""Placement: what finds room on which nodes, and what is said where nothing does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.config import Config, Resources
from deepred_ray.placement import GIB, Demand, amounts, demands, fits, options, shortage

SMALL = {"CPU": 2.0, "memory": 4.0 * GIB}
LARGE = {"CPU": 8.0, "GPU": 4.0, "memory": 64.0 * GIB}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepred_ray.placement.has_accelerators", lambda: False)


def on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepred_ray.placement.has_accelerators", lambda: True)


def steps(stage: str, **sections: Any) -> list[list[str]]:
    return [[str(demand) for demand in step] for step in demands(Config.model_validate(sections), stage)]


def test_the_defaults_fit_a_node_of_two_cpus() -> None:
    for stage in ("acquire", "corpus", "synthesize", "train", "export", "evaluate"):
        assert all(fits(step, [{"CPU": 2.0}]) for step in demands(Config(), stage))


def test_engines_and_workers_take_accelerators_where_there_are_any_and_text_work_none(monkeypatch: pytest.MonkeyPatch) -> None:
    sections = {"synthesize": {"engines": 2, "tensor_parallel": 2}, "train": {"workers": 3}}
    assert steps("synthesize", **sections) == [["2 engines of 1 CPU"]]
    on_gpus(monkeypatch)
    assert steps("synthesize", **sections) == [["2 engines of 1 CPU, 2 GPU"]]
    assert steps("evaluate", **sections) == [["2 engines of 1 CPU, 2 GPU"]]
    assert steps("train", **sections) == [["1 tokenizing actor of 0.5 CPU"], ["3 training workers of 1 CPU, 1 GPU"]]
    assert steps("acquire") == [["1 fetching actor of 0.1 CPU", "1 reading task of 0.5 CPU"]]
    assert steps("corpus") == [["1 chunking task of 1 CPU"]]
    assert steps("export") == [["1 merging task of 1 CPU"]]


def test_what_is_asked_for_is_what_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(monkeypatch)
    asked = Resources(cpus=4, gpus=0.5, memory_gib=16, custom={"text": 1})
    assert options(asked, 1) == {"num_cpus": 4, "num_gpus": 0.5, "memory": 16 * GIB, "resources": {"text": 1}}
    assert options(Resources(), 1) == {"num_cpus": 1, "num_gpus": 1}
    assert options(Resources()) == {"num_cpus": 1, "num_gpus": 0}
    assert steps("train", train={"resources": {"cpus": 4, "memory_gib": 16, "custom": {"text": 1}}})[1] == [
        "1 training worker of 4 CPU, 1 GPU, 16 GiB of memory, 1 text"
    ]


def test_a_server_elsewhere_wants_no_accelerator_and_a_pool_that_grows_wants_its_least(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(monkeypatch)
    assert steps("synthesize", synthesize={"endpoint": "http://x/v1", "engines": 4, "engines_least": 2}) == [["2 engines of 1 CPU"]]


@pytest.mark.parametrize(
    ("count", "bundle", "nodes", "said"),
    [
        (1, {"CPU": 4.0}, [SMALL, SMALL], "no node with more than 2 CPU"),
        (1, {"CPU": 1.0, "text": 1.0}, [SMALL], "no node with more than 0 text"),
        (1, {"CPU": 1.0, "memory": 8.0 * GIB}, [SMALL], "no node with more than 4 GiB of memory"),
        (1, {"CPU": 9.0, "GPU": 1.0}, [LARGE, {"CPU": 16.0}], "no node with 9 CPU, 1 GPU together"),
        (5, {"CPU": 1.0, "GPU": 1.0}, [LARGE, SMALL], "room for 4"),
        (5, {"CPU": 1.0}, [SMALL, SMALL], "room for 4"),
        (1, {"CPU": 1.0}, [], "no node with more than 0 CPU"),
    ],
)
def test_what_is_missing_is_named(count: int, bundle: dict[str, float], nodes: list[dict[str, float]], said: str) -> None:
    step = [Demand("thing", count, bundle, "")]
    assert not fits(step, nodes)
    assert shortage(step, nodes) == said


def test_what_is_beside_it_is_named_too() -> None:
    step = [Demand("actor", 1, {"CPU": 0.1}, ""), Demand("task", 1, {"CPU": 2.0}, "")]
    assert not fits(step, [SMALL])
    assert shortage(step, [SMALL]) == "room for 0 beside 1 actor of 0.1 CPU"
    assert fits(step, [SMALL, SMALL])


@given(st.integers(1, 40), st.lists(st.integers(0, 8), max_size=8), st.sampled_from([0.1, 0.5, 1.0, 2.0]))
def test_units_of_one_size_fit_exactly_where_there_is_so_much_room(count: int, cpus: list[int], each: float) -> None:
    room = sum(int(node * 10) // int(each * 10) for node in cpus)
    nodes = [{"CPU": float(node)} for node in cpus]
    assert fits([Demand("unit", count, {"CPU": each}, "")], nodes) == (count <= room)


def test_nothing_is_taken_from_the_nodes_that_are_asked_about() -> None:
    nodes = [dict(SMALL)]
    assert fits([Demand("unit", 2, {"CPU": 1.0}, "")], nodes)
    assert nodes == [SMALL]


def test_amounts_in_words() -> None:
    assert amounts({"CPU": 0.5, "memory": 1.5 * GIB, "text": 2.0}) == "0.5 CPU, 1.5 GiB of memory, 2 text"
    assert amounts({}) == "nothing"


@pytest.mark.parametrize("value", [1.5, -1])
def test_gpus_are_a_share_or_whole(value: float) -> None:
    with pytest.raises(ValueError, match=r"gpus"):
        Resources(gpus=value)
