"""Disks that are full, or turn read-only, in the middle of a stage: it says so, keeps what it has, and goes on from there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import Disk, Whole, begin_before, bring, same, scripted_engines, told, when_begun

from deepred_ray.config import Config
from deepred_ray.runs import STAGES, Run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
FULL, READ_ONLY = "No space left on device", "Read-only file system"
# Bytes: enough for a part of what a stage writes.
LEFT = {"acquire": 30_000, "corpus": 100_000, "synthesize": 350_000, "train": 150_000, "export": 400_000, "evaluate": 160_000}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "runs")
    yield disk
    disk.remove()


def shards(run: Run) -> dict[str, bytes]:
    """The rows that a stage had written, which it must keep."""
    tables = ("books", "chunks", "candidates", "answers")
    return {file.path: file.read_bytes() for table in tables for file in run.table(table).files(".parquet")}


@pytest.mark.nightly
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("said", [FULL, READ_ONLY])
def test_a_disk_that_fails_in_a_stage_costs_nothing_but_time(
    said: str,
    stage: str,
    small: Config,
    whole: Whole,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted_engines(monkeypatch)
    undisturbed = whole.until(stage)
    run = begin_before(undisturbed, disk.folder, stage)
    strike, mend = (lambda: disk.fill(LEFT[stage]), disk.make_room) if said == FULL else (disk.forbid, disk.permit)
    with when_begun(run, stage, strike):
        message = told(small, stage, capsys)
    print(message)
    assert said in message
    assert run.manifest(stage) is None
    written = shards(run)
    mend()
    bring(small, stage)
    assert written.items() <= shards(run).items()
    assert same(run, undisturbed, stage)
