"""synthesize with an engine that is scripted: every slot once, every attempt told, a run that grows keeps its rows."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Configure
from scripted import FLAWS, ScriptedEngine, StubbornEngine, write_model

from deepred_ray.config import Config
from deepred_ray.engine import EngineSettings
from deepred_ray.errors import ShortfallError
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import CANDIDATES, EXAMPLES, REJECTS, SLOTS
from deepred_ray.stages import synthesize
from deepred_ray.theme import Theme

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
Row = dict[str, Any]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "model"))


def synthesized(run: Run, config: Config, engine: synthesize.MakeEngine = ScriptedEngine) -> Manifest:
    manifest = synthesize.run(run, config, Theme.find(config.theme), make_engine=engine)
    manifest.check()
    return manifest


def no_engine(settings: EngineSettings) -> None:
    raise AssertionError("nothing is left to do")


def rows(run: Run, table: str) -> list[Row]:
    schema = {"slots": SLOTS, "candidates": CANDIDATES, "examples": EXAMPLES, "rejects/synthesize": REJECTS}[table]
    found: list[Row] = run.table(table).read_table(schema).to_pylist(maps_as_pydicts="strict")
    return found


def unfilled(run: Run) -> list[str]:
    return [row["id"] for row in rows(run, "rejects/synthesize") if row["reason"] == "unfilled"]


def lines(run: Run, name: str) -> list[Row]:
    return [json.loads(line) for line in (run.folder / "dataset" / name).read_bytes().decode().split("\n")[:-1]]


def check_whole(run: Run, manifest: Manifest, count: int) -> None:
    """What holds of every whole stage of `count` slots."""
    slots, examples, candidates = rows(run, "slots"), rows(run, "examples"), rows(run, "candidates")
    ids = [slot["example_id"] for slot in slots]
    assert len(ids) == len(set(ids)) == count
    assert [example["example_id"] for example in examples] == ids
    assert manifest.rows_in == len(candidates) == len({(row["example_id"], row["attempt"]) for row in candidates})
    assert manifest.kept == count
    by_attempt = {(row["example_id"], row["attempt"]): row for row in candidates}
    split_of: dict[str, str] = {}
    for slot, example in zip(slots, examples, strict=True):
        chosen = by_attempt[example["example_id"], example["attempt"]]
        roles = [turn["role"] for turn in example["messages"]]
        assert roles == ["system", *["user", "assistant"] * int(chosen["axes"]["turns"])]
        assert example["messages"] == chosen["messages"]
        assert (example["messages"][0]["content"], example["messages"][1]["content"]) == (chosen["system"], chosen["question"])
        assert all(turn["content"].strip() for turn in example["messages"])
        assert chosen["reason"] is None
        assert {key: slot[key] for key in ("component", "source", "persona", "chunk_id", "book_id")}.items() <= example.items()
        assert split_of.setdefault(example["book_id"], example["split"]) == example["split"]
    assert set(split_of.values()) == {"train", "val"}
    assert len({example["messages"][1]["content"] for example in examples}) == count

    for name, splits in (("", {"train", "val"}), ("_train", {"train"}), ("_val", {"val"})):
        wanted = [{"id": row["example_id"], "messages": row["messages"]} for row in examples if row["split"] in splits]
        assert lines(run, f"theme_dataset{name}.jsonl") == wanted
    stats = (run.folder / "dataset" / "stats.json").read_json()
    assert stats["examples"] == count
    assert stats["splits"] == Counter(example["split"] for example in examples)
    assert stats["rejected_attempts"] == manifest.rejected


def test_a_run_fills_every_slot_once_and_grows(sample_run: Run, configure: Configure, model: str) -> None:
    config = configure(model=model, synthesize={"examples": 40})
    manifest = synthesized(sample_run, config)
    check_whole(sample_run, manifest, 40)
    # Each flaw is seen for what it is; what else is rejected are repeats that only the choice can see.
    assert set(FLAWS) <= set(manifest.rejected) | {"duplicate_question"}
    refused = Counter(row["reason"] for row in rows(sample_run, "candidates") if row["reason"])
    assert refused.items() <= Counter(manifest.rejected).items()
    assert all(row["messages"] is None for row in rows(sample_run, "candidates") if row["reason"])
    assert unfilled(sample_run) == []
    small, attempts = rows(sample_run, "examples"), rows(sample_run, "candidates")

    grown = synthesized(sample_run, configure(model=model, synthesize={"examples": 80}))
    check_whole(sample_run, grown, 80)
    examples = {row["example_id"]: row for row in rows(sample_run, "examples")}
    assert [examples[row["example_id"]] for row in small] == small
    assert all(row in rows(sample_run, "candidates") for row in attempts)

    # Nothing is left to do, so no engine is made.
    assert synthesized(sample_run, configure(model=model, synthesize={"examples": 80}), no_engine) == grown


def test_a_shortfall_keeps_what_there_is_and_is_made_up_for(sample_run: Run, configure: Configure, model: str) -> None:
    config = configure(model=model, synthesize={"examples": 24, "attempts": 1, "contract": "json"})
    with pytest.raises(ShortfallError, match="of 24 slots"):
        synthesized(sample_run, config, StubbornEngine)
    tried, examples = rows(sample_run, "candidates"), rows(sample_run, "examples")
    assert 24 < len(tried) <= 24 * synthesize.PASSES
    assert 0 < len(examples) < 24 * 0.95
    assert len(unfilled(sample_run)) + len(examples) == 24
    assert len(lines(sample_run, "theme_dataset.jsonl")) == len(examples)

    more = configure(model=model, synthesize={"examples": 24, "contract": "json"})
    check_whole(sample_run, synthesized(sample_run, more), 24)
    assert all(row in rows(sample_run, "candidates") for row in tried)
    assert all(row in rows(sample_run, "examples") for row in examples)
    assert unfilled(sample_run) == []
