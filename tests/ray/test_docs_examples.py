"""The worked examples of docs/data.md, run as they stand there, on a run of the sample books with a scripted engine."""

import contextlib
import io
import json
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from conftest import make_config
from scripted import ScriptedEngine, write_model

from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS, CANDIDATES, CHUNKS, EXAMPLES, SLOTS
from deepred_ray.stages import synthesize
from deepred_ray.text.conversations import parse
from deepred_ray.theme import Theme

pytestmark = pytest.mark.ray
PAGE = Path(__file__).parents[2] / "docs" / "data.md"
# A block of Python, and what the page says that it prints.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)
SLOTS_MADE = 24


@pytest.fixture
def demo(sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """runs/demo in the current folder: the demo's books and chunks, and conversations of a scripted engine."""
    shutil.copytree(sample_root / "test", tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    run = Run(str(tmp_path / "runs"), "demo")
    config = make_config(tmp_path / "runs", model=str(write_model(tmp_path / "model")), synthesize={"examples": SLOTS_MADE})
    synthesize.run(run, config, Theme.find(config.theme), make_engine=ScriptedEngine)
    return run


def rows(run: Run, table: str, schema: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.table(table).read_table(schema).to_pylist(maps_as_pydicts="strict")
    return found


def test_the_worked_examples_say_what_the_tables_hold(demo: Run) -> None:
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    assert len(blocks) == 5
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = []
    for code, told in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, str(PAGE), "exec"), names)
        printed.append(out.getvalue())
        if told:
            assert out.getvalue() == told

    books, chunks = rows(demo, "books", BOOKS), rows(demo, "chunks", CHUNKS)
    assert sorted((book["year"], book["title"]) for book in names["dated"].take_all()) == sorted(
        (book["year"], book["title"]) for book in books
    )
    kept = Counter(chunk["title"] for chunk in chunks if chunk["kept"])
    assert {row["title"]: row["count()"] for row in names["by_book"].take_all()} == kept
    assert names["totals"] == sum((Counter(chunk["themes"]) for chunk in chunks), Counter())

    persona = {slot["example_id"]: slot["persona"] for slot in rows(demo, "slots", SLOTS)}
    accepted = defaultdict(list)
    for attempt in rows(demo, "candidates", CANDIDATES):
        accepted[persona[attempt["example_id"]]].append(attempt["reason"] is None)
    expected = {f"{sum(oks) / len(oks):4.0%} of {len(oks):3} attempts  {name}" for name, oks in accepted.items()}
    assert set(printed[3].splitlines()) == expected
    assert len(expected) > 3

    core = [row for row in rows(demo, "examples", EXAMPLES) if row["split"] == "train" and row["component"] == "core"]
    lines = Path("core.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"id": row["example_id"], "messages": row["messages"]} for row in core]
    assert len(lines) > 3
    assert all(parse(line) for line in lines)
