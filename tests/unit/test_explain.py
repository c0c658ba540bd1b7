"""The lineage of an example: from the book to the tokens, by every table of the run."""

import json
from pathlib import Path
from typing import Any

import pytest
from runfolder import CHESS, GAP, MAIN, MODEL, NAME, PASSAGE, TURNS, attempt, recipe, synthesized, write

from deepred_ray.cli import main
from deepred_ray.explain import lineage
from deepred_ray.runs import Run
from deepred_ray.schema import CANDIDATES, SLOTS
from deepred_ray.text.prompts import as_turns


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return synthesized(tmp_path)


def explained(run: Run, example_id: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(["explain", NAME, example_id, "--json", "--data-root", run.root]) == 0
    said, errors = capsys.readouterr()
    assert errors == ""
    return json.loads(said)


def told(run: Run, example_id: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["explain", NAME, example_id, "--data-root", run.root]) == 0
    return capsys.readouterr().out


def test_the_whole_lineage(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    main(["review", NAME, "--reject", "core-000000", "--note", "stiff", "--data-root", run.root])
    capsys.readouterr()
    found = explained(run, "core-000000", capsys)
    assert found["slot"] == MAIN
    assert (found["book"]["title"], found["book"]["year"]) == ("The Pumps", 1911)
    assert "text" not in found["book"]
    assert (found["passage"]["text"], found["passage"]["weights"]) == (PASSAGE, {"labour": 1.5, "chess": 2.25})
    assert [(row["attempt"], row["reason"]) for row in found["attempts"]] == [(0, "off_theme"), (1, "duplicate_answer"), (2, None)]
    assert found["attempts"][2]["replies"] == [f"{turn.answer} (of attempt 2)" for turn in TURNS]
    assert [(row["attempt"], row["score"]) for row in found["judgements"]] == [(2, 3.5)]
    assert [(row["verdict"], row["note"]) for row in found["reviews"]] == [("reject", "stiff")]
    assert (found["example"]["attempt"], found["example"]["split"]) == (2, "train")
    assert as_turns(found["example"]["messages"]) == TURNS
    assert (found["reject"], found["tokens"]) == (None, {"total": 4, "trained": 2})


def test_the_prompt_is_that_of_the_attempt_that_was_chosen(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    # The second attempt passed the validators too, and was no example.
    prompt = explained(run, "core-000000", capsys)["prompt"]
    made = recipe().prompt(MAIN | {"text": PASSAGE}, 2)
    assert prompt == {"attempt": 2, "messages": made.messages(), "opening": list(made.openings[:1]), "same": True}


def test_a_prompt_that_the_theme_no_longer_gives_is_said_to_be_another(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write(run, "candidates", CANDIDATES, [attempt(MAIN, 2) | {"prompt_sha": "before"}], "all")
    assert explained(run, "core-000000", capsys)["prompt"]["same"] is False
    assert "prompt of attempt 2: the theme has changed since" in told(run, "core-000000", capsys)


def test_without_its_theme_or_persona_there_is_no_prompt(run: Run) -> None:
    file = run.folder / "config.json"
    config = file.read_json()
    file.write_json(config | {"theme": "gone"})
    found = lineage(run, "core-000000")
    assert found["prompt"] is None
    assert len(found["attempts"]) == 3
    file.write_json(config)
    assert lineage(run, "core-000000")["prompt"]
    write(run, "slots", SLOTS, [MAIN | {"persona": "nobody"}])
    assert lineage(run, "core-000000")["prompt"] is None


def test_an_extra_source_a_gap_and_an_empty_slot(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    chess = explained(run, "chess-000000", capsys)
    assert (chess["book"], chess["passage"]["text"], chess["prompt"]["same"]) == (None, CHESS, True)
    gap = explained(run, "mission-000000", capsys)
    assert (gap["book"], gap["passage"], gap["slot"], gap["prompt"]["same"]) == (None, None, GAP, True)
    empty = explained(run, "core-000001", capsys)
    assert (empty["example"], empty["tokens"], empty["reject"]["reason"]) == (None, None, "unfilled")
    assert empty["prompt"]["attempt"] == 0


def test_a_slot_without_attempts(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.table("candidates").delete()
    run.table("rejects/synthesize").delete()
    found = explained(run, "core-000001", capsys)
    assert (found["attempts"], found["prompt"], found["reject"]) == ([], None, None)
    assert "no example yet" in told(run, "core-000001", capsys)


def test_what_a_person_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(run, "core-000000", capsys).splitlines()
    for line in (
        "core-000000: core, persona primary, source books",
        "book: b1  The Pumps, A. Wright, B. Stoker",
        "year: 1911 (title_page: London, 1911)",
        "from: http://mirror/1  sha256 abababababababab",
        f"passage: b1:0-660, characters 0 to {len(PASSAGE)}, score 2.50",
        "themes: chess 2.2, labour 1.5",
        PASSAGE.rstrip(),
        "prompt of attempt 2",
        "attempt 0: rejected, off_theme: 1 theme keyword [of 2]",
        "attempt 1: rejected, duplicate_answer:",
        f'model: {MODEL}, {{"temperature": 0.8}}',
        "cost: 80 + 40 tokens, 1.5 s, ended by stop",
        f"reply: {TURNS[0].answer} (of attempt 0)",
        "judged, attempt 2, by the/judge: 3.5",
        "hope: 4  a plan [sure]",
        "example: attempt 2, split train, cluster core-000000",
        f"question: {TURNS[1].question}",
        f"answer: {TURNS[0].answer}",
        "trained on: 2 of 4 tokens",
    ):
        assert line in [each.rstrip() for each in lines]
    assert "work: chess/lasker.txt" in told(run, "chess-000000", capsys)
    assert "passage: none: the slot fills a gap" in told(run, "mission-000000", capsys)
    assert "no example: unfilled, 1 attempts, none accepted" in told(run, "core-000001", capsys)


@pytest.mark.parametrize(
    ("example_id", "cure"),
    [
        ("core-00000", "It has core-00000"),
        ("misson-000000", "It has mission-000000"),
        ("CHESS", "Run `deepred synthesize`."),
    ],
)
def test_an_unknown_id_names_near_ones(run: Run, capsys: pytest.CaptureFixture[str], example_id: str, cure: str) -> None:
    assert main(["explain", NAME, example_id, "--data-root", run.root]) == 1
    said, errors = capsys.readouterr()
    assert said == ""
    assert errors.startswith(f"deepred: run {NAME} has no example '{example_id}'\n  {cure}")


def test_an_unknown_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "other", "core-000000", "--data-root", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("deepred: no run other in ")
