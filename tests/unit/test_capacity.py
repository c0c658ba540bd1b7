"""The model of large runs: exact where the truth is a plane, never cheaper for more; what a plan waits for follows from figures."""

import json
from dataclasses import replace

import books
import capacity
import cluster_growth
import pytest
from capacity import Costs, Plan, Plane, fit, fit_and_check, take
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text import gutenberg

CLUSTERS = [(nodes, rows) for nodes in (1, 2, 4, 8) for rows in (1_500.0, 6_000.0)]
amounts = st.floats(0, 100) | st.just(0.0)
planes = st.builds(Plane, amounts, amounts, amounts, amounts)
values = st.lists(st.floats(0, 1e6), min_size=len(CLUSTERS), max_size=len(CLUSTERS))


def points_of(plane: Plane) -> list[tuple[float, float, float]]:
    return [(nodes, rows, plane(nodes, rows)) for nodes, rows in CLUSTERS]


@given(planes)
def test_a_plane_is_found_from_few_nodes_and_foretells_the_others(truth):
    found, errors = fit_and_check(points_of(truth))
    assert found(64, 1e6) == pytest.approx(truth(64, 1e6), rel=1e-4, abs=1e-2)
    assert all(abs(error) < 1e-4 or truth(8, 1_500) < 1e-3 for error in errors)


@given(values, st.integers(1, 64), st.integers(1, 64), st.floats(0, 1e6), st.floats(0, 1e6))
def test_more_nodes_and_rows_never_cost_less_whatever_was_measured(measured, nodes, more_nodes, rows, more_rows):
    plane = fit([(nodes, rows, value) for (nodes, rows), value in zip(CLUSTERS, measured, strict=True)])
    assert min(plane.once, plane.node, plane.row, plane.both) >= 0
    assert plane(nodes + more_nodes, rows + more_rows) >= plane(nodes, rows) >= 0


@given(values)
def test_no_plane_without_negative_terms_is_nearer(measured):
    points = [(nodes, rows, value) for (nodes, rows), value in zip(CLUSTERS, measured, strict=True)]
    best = fit(points)

    def off(plane: Plane) -> float:
        return sum((plane(nodes, rows) - value) ** 2 for nodes, rows, value in points)

    steps = {"once": 1.0, "node": 0.1, "row": 1e-4, "both": 1e-5}
    for name, step in steps.items():
        for moved in (getattr(best, name) + step, max(0.0, getattr(best, name) - step)):
            assert off(best) <= off(replace(best, **{name: moved})) * (1 + 1e-9) + 1e-6


def test_the_largest_cluster_is_held_out():
    truth = Plane(10, 2, 0.01, 0)
    points = [(nodes, rows, value * (1.25 if nodes == 8 else 1)) for nodes, rows, value in points_of(truth)]
    plane, errors = fit_and_check(points)
    assert plane(64, 1e6) == pytest.approx(truth(64, 1e6))
    assert errors == pytest.approx((-0.2, -0.2))


def test_an_idle_cluster_is_a_line_of_its_nodes():
    plane, errors = fit_and_check([(nodes, 0, 0.1 + 0.02 * nodes) for nodes in (1, 2, 4, 8)])
    assert (plane.once, plane.node) == pytest.approx((0.1, 0.02))
    assert (plane.row, plane.both) == (0, 0)
    assert errors == pytest.approx((0.0,), abs=1e-9)


# What is asked of it -------------------------------------------------------------------------------------------------

COSTS = Costs(Plane(0, 0, 0.001, 0), Plane(0, 0, 0.01, 0), attempts=1.5, tokens=150, requests=1)
PLAN = Plan(books=1_800, examples=1_000_000, gpus=10, cores=8, generating=1_000, training=5_000)


def test_the_hours_of_a_plan_follow_from_its_figures():
    taken = take(PLAN, COSTS)
    assert taken.download == 3_600
    assert taken.synthesis == pytest.approx(150e6 / 10_000)
    assert taken.training == pytest.approx(1e6 * 178.125 * 3 / 50_000)
    assert (taken.waits_for, taken.bottleneck) == ("GPUs", "synthesis")


@pytest.mark.parametrize(
    ("changed", "waits_for", "seconds"),
    [
        ({"gpus": 1_000}, "driver", 1_500),
        ({"generating": 1e6, "gpus": 5, "cores": 1}, "cores", 3_000),
        ({"gpus": 100}, "GPUs", 1_500),
    ],
)
def test_synthesis_waits_for_the_slowest(changed, waits_for, seconds):
    taken = take(replace(PLAN, **changed), COSTS)
    assert (taken.waits_for, taken.synthesis) == (waits_for, pytest.approx(seconds))


@given(st.integers(1, 500), st.integers(1, 500))
def test_more_gpus_never_lengthen_what_only_gpus_do(gpus, more):
    few, many = (take(replace(PLAN, gpus=count), COSTS) for count in (gpus, gpus + more))
    assert many.total <= few.total
    assert many.download == few.download


def test_the_driver_keeps_so_many_gpus_busy_and_no_more():
    # 10 attempts a second and GPU, at a millisecond each.
    assert capacity.most_engines(COSTS, 1_000) == 100
    growing = replace(COSTS, driver=Plane(0, 0, 0.001, 0.0001))
    count = capacity.most_engines(growing, 1_000)
    assert count * 10 * growing.driver.a_row(count) <= 1 < (count + 1) * 10 * growing.driver.a_row(count + 1)
    assert capacity.most_engines(replace(COSTS, driver=Plane(0, 0, 1, 0)), 1_000) == 0


# What was measured ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ray::MapWorker(MapBatches(FillSlots)).submit", "workers"),
        ("default_worker.py", "workers"),
        ("ray::IDLE", "workers"),
        ("gcs_server", "gcs"),
        ("raylet", "raylets"),
        ("log_monitor.py", "agents"),
        ("ray::DashboardAgent", "agents"),
        ("ray::RuntimeEnvAgent", "agents"),
    ],
)
def test_a_process_is_of_one_kind(name, kind):
    assert cluster_growth.kind_of(name) == kind


def test_a_synthetic_book_reads_like_gutenbergs_own(tmp_path):
    samples = list(books.read_books(capacity.RESULTS.parent.parent / "deepred_ray" / "data" / "samples" / "mirror"))
    cluster_growth.make_mirror(samples, len(samples) + 2, tmp_path)
    paths = sorted(tmp_path.rglob("pg*.txt"))
    assert [path.stem for path in paths] == [f"pg{800_001 + number}" for number in range(len(samples) + 2)]
    texts = [path.read_text("utf-8") for path in paths]
    assert len(set(texts)) == len(texts)
    header = gutenberg.parse_header(texts[0])
    assert (header.ebook_id, header.title) == ("800001", f"{samples[0].title}, 1")
    read = books.open_book("800001", paths[0].read_bytes())
    assert isinstance(read, books.Book)
    assert "PROJECT GUTENBERG" not in read.text


def test_the_model_is_made_of_what_was_measured():
    measured = json.loads((capacity.RESULTS / "cluster_growth.json").read_text("utf-8"))["measured"]
    assert {(each["nodes"], each["stage"]) for each in measured} == {
        (nodes, stage) for nodes in (1, 2, 4, 8) for stage in ("idle", *cluster_growth.STAGES)
    }
    fitted = list(capacity.fit_all(measured))
    assert {each.stage for each in fitted} == {"idle", *cluster_growth.STAGES}
    costs = capacity.costs_of(measured, fitted)
    assert costs.requests == pytest.approx(1)
    assert costs.attempts == pytest.approx(1.25, abs=0.05)
