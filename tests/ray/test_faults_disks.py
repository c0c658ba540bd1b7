"""Disks that are full, or turn read-only, in the middle of a stage: it says so, keeps what it has, and goes on from there."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from faults import Disk, Whole, begin_before, bring, same, scripted_engines, some_nightly, told, when_begun

from deepred_ray.config import Config
from deepred_ray.runs import STAGES, Run
from deepred_ray.schema import ANSWERS
from deepred_ray.storage import rows_table

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
MARK = 4321  # tokens; no answer has so many
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
    tables = ("books", "chunks", "candidates")
    return {file.path: file.read_bytes() for table in tables for file in run.table(table).files(".parquet")}


def mark_answers(run: Run) -> int:
    """Give the evaluation's answers so far a mark, which they lose if they are asked for again; their number."""
    rows = run.table("answers").read_table(ANSWERS).to_pylist()
    run.table("answers").delete()
    run.table("answers").write_table(rows_table([row | {"tokens": MARK} for row in rows], ANSWERS), "kept")
    return len(rows)


def marked(run: Run) -> int:
    tokens = pq.read_table(run.scratch / "evaluation" / "responses.parquet")["tokens"].to_pylist()
    return tokens.count(MARK)


@pytest.mark.parametrize("stage", some_nightly(STAGES, always=["acquire", "corpus"]))
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
    kept = mark_answers(run) if stage == "evaluate" else 0
    bring(small, stage)
    assert written.items() <= shards(run).items()
    assert stage != "evaluate" or marked(run) == kept
    assert same(run, undisturbed, stage)
