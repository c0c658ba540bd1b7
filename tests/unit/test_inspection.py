"""What `inspect` and `status` say of a run folder, and what the exports hold."""

import json
import os
import socket
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from deepred_ray import console, inspection
from deepred_ray.errors import InputError
from deepred_ray.runs import STAGES, Manifest, Run
from deepred_ray.schema import BOOKS, CANDIDATES, CHUNKS, EXAMPLES, REJECTS, RESPONSES, SLOTS, TOKENS
from deepred_ray.storage import rows_table

FETCHED = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.console, "_width", 160)


def row(schema: pa.Schema, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(schema.names) | values


def write(run: Run, table: str, schema: pa.Schema, *shards: list[dict[str, Any]]) -> None:
    for number, rows in enumerate(shards):
        run.table(table).write_table(rows_table(rows, schema), f"{number:03d}")


def example(number: int, split: str = "train", component: str = "core", persona: str = "primary") -> dict[str, Any]:
    messages = [
        {"role": "system", "content": "You are Deep Red."},
        {"role": "user", "content": f"Question {number}?"},
        {"role": "assistant", "content": f"Answer {number}."},
    ]
    values = {"split": split, "component": component, "persona": persona, "messages": messages}
    return row(EXAMPLES, example_id=f"{component}-{number:06d}", attempt=0, **values)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two books, one reject, five chunks, three examples."""
    made = Run(str(tmp_path), "demo")
    (made.folder / "config.json").write_json({"run": "demo"})
    book = row(BOOKS, book_id="900001", title="A [bold]Voyage", authors=["Ann Author", "Bo Writer"], year=1901)
    book |= {"text": "The pump\nsang. " * 100, "fetched_at": FETCHED}
    write(made, "books", BOOKS, [book], [book | {"book_id": "900002", "title": "Esc \x1b[31mape"}])
    write(made, "rejects/acquire", REJECTS, [row(REJECTS, id="900003", reason="not_on_mirror", detail="A Book: gone")])
    chunk = row(CHUNKS, book_id="900001", text="We build.", themes=[("mars", 2), ("labour", 1)], total=3, kept=True)
    chunks = [chunk | {"chunk_id": f"900001:{number}-{number + 9}"} for number in range(5)]
    dropped = [
        item | {"kept": False, "reason": reason}
        for item, reason in zip(chunks[2:], ["off_theme", "off_theme", "twin"], strict=True)
    ]
    write(made, "chunks", CHUNKS, chunks[:2], dropped)
    write(made, "examples", EXAMPLES, [example(0), example(1, persona="young")], [example(0, "val", "chess")])
    return made


def manifest(stage: str, inputs: dict[str, str] | None = None, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "unit": "books",
        "rows_in": 3,
        "kept": 2,
        "rejected": {"not_on_mirror": 1},
        "seconds": 12.0,
    }
    finished = "2024-05-01T12:31:00+00:00"
    return Manifest(**({"stage": stage, "inputs": inputs or {}, "finished_at": finished} | values | changes))


def finish(run: Run, stage: str, *sources: str) -> None:
    """Mark a stage as begun and whole, made of the stages `sources` as they are."""
    inputs = {name: found.fingerprint for name in sources if (found := run.manifest(name))}
    run.begin(stage, {}, {}, inputs)
    (run.folder / stage / "manifest.json").write_json(asdict(manifest(stage, inputs)))


def lines_of(captured: str) -> dict[str, str]:
    """First cell -> the rest of the line, of a printed table."""
    cells = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in captured.splitlines() if "│" in line]
    return {first: " | ".join(rest) for first, *rest in cells if first}


# --- inspect


def test_all_tables_with_counts(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.table("books") / ".half.parquet.0123").write_bytes(b"being written")
    assert inspection.show(run, None, 3, None, "jsonl") == 0
    printed = capsys.readouterr().out
    lines = lines_of(printed)
    assert list(lines) == ["books", "chunks", "examples", "rejects/acquire"]
    size = Path(run.table("rejects/acquire").path, "000.parquet").stat().st_size
    assert lines["books"].startswith(" | 2 | 2 | ")
    assert lines["chunks"].startswith("by reason: 2 kept, 2 off_theme, 1 twin | 5 | 2 |")
    assert lines["examples"].startswith("by split: 2 train, 1 val | 3 | 2 |")
    assert "by component: 2 core, 1 chess" in printed
    assert "by persona: 2 primary, 1 young" in printed
    assert lines["rejects/acquire"] == f"by reason: 1 not_on_mirror | 1 | 1 | {inspection.size_text(size)}"


def test_other_tables_are_counted(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tries = [("core-0", None), ("core-0", "copied"), ("core-1", "copied"), ("core-2", None)]
    write(run, "candidates", CANDIDATES, [row(CANDIDATES, example_id=slot, attempt=0, reason=why) for slot, why in tries])
    write(
        run,
        "tokens",
        TOKENS,
        [row(TOKENS, example_ids=["core-0"], lengths=[40], split="val", input_ids=list(range(40)), trained=[True] * 40)],
    )
    answers = [row(RESPONSES, system=system, reason="ok", ok=True) for system in ("base", "tuned", "tuned")]
    run.table("evaluation").write_table(rows_table(answers, RESPONSES), "responses")
    inspection.show(run, None, 0, None, "jsonl")
    printed = capsys.readouterr().out
    assert "by reason: 2 accepted, 2 copied" in printed
    assert lines_of(printed)["tokens"].startswith("by split: 1 val | 1 |")
    assert lines_of(printed)["responses"].startswith("by system: 2 tuned, 1 base | 3 |")
    inspection.show(run, "tokens", 1, None, "jsonl")
    assert "12; 13; 14; 15 … (40 values)" in capsys.readouterr().out


def test_one_table_is_legible(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    inspection.show(run, "books", 5, None, "jsonl")
    printed = capsys.readouterr().out
    assert printed.startswith("books: 2 rows in 2 files, ")
    assert "large_string" in printed
    assert "timestamp[ms, tz=UTC]" in printed
    assert "row 2" in printed
    assert "row 3" not in printed
    assert "Ann Author; Bo Writer" in printed
    assert "A [bold]Voyage" in printed
    assert "\x1b" not in printed
    assert "The pump sang. The pump" in printed
    assert "(1,500 characters)" in printed
    assert "2024-05-01T12:30:00+00:00" in printed
    assert "(none)" in printed


def test_messages_are_a_dialogue_and_maps_pairs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    inspection.show(run, "examples", 1, None, "jsonl")
    dialogue = [line.strip() for line in capsys.readouterr().out.splitlines() if "Question" in line or "Answer" in line]
    assert dialogue == ["user: Question 0?", "assistant: Answer 0."]
    inspection.show(run, "chunks", 1, None, "jsonl")
    assert "mars: 2, labour: 1" in capsys.readouterr().out


def test_no_rows_are_shown_when_none_are_asked_for(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    inspection.show(run, "chunks", 0, None, "jsonl")
    printed = capsys.readouterr().out
    assert "map<string, int16" in printed
    assert "row 1" not in printed


@pytest.mark.parametrize("name", ["nonsense", "slots", "rejects/corpus", "../demo/books"])
def test_an_unknown_table_names_the_known(run: Run, name: str) -> None:
    with pytest.raises(InputError, match=r"no table .*\n  It has: books, chunks, examples, rejects/acquire\."):
        inspection.show(run, name, 3, None, "jsonl")


def test_an_unknown_run_names_the_known(run: Run, tmp_path: Path) -> None:
    (tmp_path / "not_a_run").mkdir()
    for ask in (lambda other: inspection.show(other, None, 3, None, "jsonl"), inspection.status):
        with pytest.raises(InputError, match=r"no run demp in .*\n  Runs there: demo\."):
            ask(Run(str(tmp_path), "demp"))
        with pytest.raises(InputError, match="GUTENBERG_DATA"):
            ask(Run(str(tmp_path / "elsewhere"), "demo"))


def test_a_broken_file_is_named(run: Run) -> None:
    (run.table("chunks") / "000.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match=r"table chunks cannot be read: .*000\.parquet"):
        inspection.show(run, "chunks", 3, None, "jsonl")


# --- export


def test_export_as_jsonl(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    assert inspection.show(run, "chunks", 3, target, "jsonl") == 0
    rows = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert len(rows) == 5
    assert set(rows[0]) == set(CHUNKS.names)
    assert rows[0]["themes"] == {"mars": 2, "labour": 1}
    assert [item["reason"] for item in rows] == [None, None, "off_theme", "off_theme", "twin"]
    assert "5 rows of chunks in" in capsys.readouterr().out
    inspection.show(run, "books", 3, target, "jsonl")
    assert json.loads(target.read_text("utf-8").splitlines()[0])["fetched_at"] == "2024-05-01T12:30:00+00:00"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "out.jsonl"]


def test_export_as_sharegpt(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    inspection.show(run, "examples", 3, target, "sharegpt")
    rows = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert [item["id"] for item in rows] == ["core-000000", "core-000001", "chess-000000"]
    assert rows[1] == {
        "id": "core-000001",
        "conversations": [
            {"from": "system", "value": "You are Deep Red."},
            {"from": "human", "value": "Question 1?"},
            {"from": "gpt", "value": "Answer 1."},
        ],
    }


def test_exports_that_are_refused_leave_nothing(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match="no conversations"):
        inspection.show(run, "chunks", 3, target, "sharegpt")
    with pytest.raises(InputError, match="no table is named"):
        inspection.show(run, None, 3, target, "jsonl")
    with pytest.raises(InputError, match="cannot write"):
        inspection.show(run, "chunks", 3, tmp_path / "missing" / "out.jsonl", "jsonl")
    with pytest.raises(InputError, match="is no file"):
        inspection.show(run, "chunks", 3, tmp_path, "jsonl")
    stranger = example(9) | {"messages": [{"role": "tool", "content": "x"}]}
    write(run, "examples", EXAMPLES, [example(0), stranger])
    target.write_text("old")
    with pytest.raises(InputError, match="core-000009: ShareGPT has no role 'tool'"):
        inspection.show(run, "examples", 3, target, "sharegpt")
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "out.jsonl"]


# --- status


def test_status_of_an_interrupted_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    finish(run, "acquire")
    run.begin("corpus", {}, {}, {})
    assert inspection.status(run) == 0
    printed = capsys.readouterr().out
    lines = lines_of(printed)
    assert list(lines) == list(STAGES)
    assert lines["acquire"] == "whole | 2 of 3 books kept, rejected: 1 not_on_mirror"
    assert "2024-05-01T12:31:00+00:00, 12 s" in printed
    assert lines["corpus"] == "interrupted | 5 chunks of 2 of 2 books"
    assert lines["synthesize"] == "not begun | "
    assert printed.endswith("safe: repeating the command goes on from here\n")


def test_progress_of_each_stage(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for stage in STAGES:
        run.begin(stage, {}, {}, {})
    slots = [row(SLOTS, example_id=f"core-{number}") for number in range(4)]
    write(run, "slots", SLOTS, slots)
    tries = [("core-0", None), ("core-0", None), ("core-1", "copied"), ("core-2", None)]
    write(run, "candidates", CANDIDATES, [row(CANDIDATES, example_id=slot, attempt=0, reason=why) for slot, why in tries])
    metrics = b'{"step": 20, "loss": 3.5}\n{"step": 40, "loss": 3.1}\n{"step": 6'
    (run.folder / "train" / "metrics.jsonl").write_bytes(metrics)
    (run.folder / "gguf" / "deepred-q8_0" / "deepred-q8_0.gguf").write_bytes(b"GGUF")
    inspection.status(run)
    lines = lines_of(capsys.readouterr().out)
    assert lines["acquire"] == "interrupted | 2 books kept, 1 rejected"
    assert lines["synthesize"] == "interrupted | 2 of 4 slots have an accepted reply, 4 tries"
    assert lines["train"] == "interrupted | step 40"
    assert lines["export"] == "interrupted | GGUF: deepred-q8_0"
    assert lines["evaluate"] == "interrupted | 0 answers"


def test_a_stage_begun_without_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = Run(str(tmp_path), "empty")
    (empty.folder / "config.json").write_json({})
    for stage in STAGES:
        empty.begin(stage, {}, {}, {})
    inspection.status(empty)
    lines = lines_of(capsys.readouterr().out)
    assert lines["corpus"] == "interrupted | 0 chunks of 0 of 0 books"
    assert lines["synthesize"] == "interrupted | 0 of 0 slots have an accepted reply, 0 tries"
    assert lines["train"] == "interrupted | no step is logged"
    inspection.show(empty, None, 3, None, "jsonl")
    assert capsys.readouterr().out == "run empty has no table yet\n"


def test_a_stage_whose_source_changed_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for stage, *sources in (["acquire"], ["corpus", "acquire"], ["synthesize", "corpus"], ["train", "synthesize"]):
        finish(run, stage, *sources)
    finish(run, "export", "train")
    finish(run, "evaluate", "train")
    inspection.status(run)
    printed = capsys.readouterr().out
    assert {line.split(" | ")[0] for line in lines_of(printed).values()} == {"whole"}
    assert printed.endswith("safe: repeating the command skips every stage\n")
    (run.folder / "acquire" / "manifest.json").write_json(asdict(manifest("acquire", kept=3, rejected={})))
    inspection.status(run)
    printed = capsys.readouterr().out
    assert lines_of(printed)["corpus"].startswith("whole, but `acquire` changed |")
    assert lines_of(printed)["synthesize"].startswith("whole |")
    assert printed.endswith("safe: repeating the command goes on from here\n")


def test_who_writes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    finish(run, "acquire")
    run.begin("corpus", {}, {}, {})
    run.begin("synthesize", {}, {}, {})
    with run.lease():
        inspection.status(run)
    printed = capsys.readouterr().out
    assert lines_of(printed)["corpus"].startswith("running |")
    assert lines_of(printed)["synthesize"].startswith("interrupted |")
    assert f"not now: process {os.getpid()} on host {socket.gethostname()} is writing (last heartbeat 0 s ago)" in printed
    inspection.status(run)
    assert capsys.readouterr().out.endswith("safe: repeating the command goes on from here\n")


@pytest.mark.parametrize(("host", "beat_age_s", "alive"), [("elsewhere", 5, True), ("elsewhere", 3600, False), ("here", 5, False)])
def test_a_lease_of_another_process(
    run: Run, capsys: pytest.CaptureFixture[str], host: str, beat_age_s: float, alive: bool
) -> None:
    """On another host the heartbeat tells; on this one the system does: no process has our id and another start."""
    name = socket.gethostname() if host == "here" else "elsewhere.example"
    lease = {"host": name, "pid": os.getpid(), "started": psutil.Process().create_time() - 1000}
    (run.folder / "lease.json").write_json(lease | {"beat": time.time() - beat_age_s})
    inspection.status(run)
    printed = capsys.readouterr().out
    if alive:
        assert f"not now: process {os.getpid()} on host {name} is writing (last heartbeat 5 s ago)" in printed
        assert "safe:" not in printed
    else:
        assert f"process {os.getpid()} on host {name} ended without giving the run back" in printed
        assert printed.endswith("safe: repeating the command goes on from here\n")
