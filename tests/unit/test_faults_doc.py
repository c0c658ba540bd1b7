"""docs/faults.md: every fault at every stage is either tested, by tests that exist, or cannot happen for a reason that is told."""

import re
from itertools import product
from pathlib import Path

import pytest

from deepred_ray.runs import STAGES

ROOT = Path(__file__).parents[2]
FAULTS = (
    "driver killed",
    "worker killed",
    "node lost",
    "object store full",
    "disk full",
    "storage read-only",
    "mirror gone",
    "engine crash",
    "training worker lost",
)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def table(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    text = (ROOT / "docs" / "faults.md").read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def pairs(rows: list[list[str]]) -> list[tuple[str, str]]:
    """(fault, stage) of each row; a row may tell of several stages."""
    return [(row[0], stage) for row in rows for stage in row[1].split(", ")]


def test_every_fault_is_told_of_at_every_stage_once() -> None:
    told = pairs(table("What happens")) + pairs(table("What cannot happen"))
    assert sorted(told) == sorted(product(FAULTS, STAGES))


def test_what_cannot_happen_has_a_reason() -> None:
    assert all(len(reason) > 20 for _, _, reason in table("What cannot happen"))


def test_with_vllm_there_is_a_case_of_each_fault() -> None:
    assert [fault for fault, _ in table("With real vLLM and real training")] == [*FAULTS]


@pytest.mark.parametrize("heading", ["What happens", "With real vLLM and real training"])
def test_every_row_names_tests_that_exist(heading: str) -> None:
    for row in table(heading):
        named = TEST.findall(row[-1])
        assert named or row[-1].startswith("none: "), row
        for file, name in named:
            assert re.search(rf"^def {name}\(", (ROOT / file).read_text("utf-8"), re.M), f"{file} has no {name}"
