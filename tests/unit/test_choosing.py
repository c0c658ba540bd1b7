"""Which attempt becomes the example of its slot, what is asked for again, and what is left when nothing was accepted."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runfolder import CHESS_SLOT, EMPTY, GAP, MAIN, MODEL, NAME, PASSAGE, THEME, attempt, synthesized, write

from deepred_ray.config import Config
from deepred_ray.review import record
from deepred_ray.runs import Run
from deepred_ray.schema import CANDIDATES, EXAMPLES, REJECTS
from deepred_ray.stages.choosing import TODO, Choice, conclude, settle
from deepred_ray.text.prompts import Turn, as_messages

CONFIG = Config(run=NAME)
WORDS = ("pumps", "lamps", "looms", "wells", "barns", "gates", "kilns", "masts")


def said(number: int, question: int | None = None) -> list[dict[str, str]]:
    """A conversation that resembles none of another number."""
    about = [f"{word}{number}" for word in WORDS]
    asked = [f"{word}{number if question is None else question}" for word in WORDS]
    return as_messages("We.", [Turn(f"Who minds {' '.join(asked)}?", f"We mind {' '.join(about)} together, comrade.")])


def accepted(slot: dict[str, Any], number: int, messages: list[dict[str, str]]) -> dict[str, Any]:
    return attempt(slot, number) | {"messages": messages, "question": messages[1]["content"]}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return synthesized(tmp_path)


def candidates(run: Run, *rows: dict[str, Any]) -> None:
    for table in ("candidates", "examples", "rejects/synthesize"):
        run.table(table).delete()
    # In the order in which engines happened to be done.
    for number, row in enumerate(reversed(rows)):
        write(run, "candidates", CANDIDATES, [row], f"{number:03d}")


# --- the choice


def test_the_first_accepted_attempt_that_repeats_nobody(run: Run) -> None:
    rejected = attempt(MAIN, 0, "markup", "**")
    candidates(
        run,
        rejected,
        accepted(MAIN, 1, said(1)),
        accepted(MAIN, 2, said(2)),
        # The same question, then the same answer, then one of its own.
        accepted(EMPTY, 0, said(3, question=1)),
        accepted(EMPTY, 1, said(1, question=4)),
        accepted(EMPTY, 2, said(5)),
        accepted(GAP, 0, said(6)),
    )
    settled = conclude(run, CONFIG, THEME, MODEL)
    rows = run.table("examples").read_table(EXAMPLES).to_pylist()
    assert {row["example_id"]: row["attempt"] for row in rows} == {"core-000000": 1, "core-000001": 2, "mission-000000": 0}
    assert settled.attempts == {
        ("core", ""): 2,
        ("core", "markup"): 1,
        ("core", "superseded"): 1,
        ("core", "duplicate_question"): 1,
        ("core", "duplicate_answer"): 1,
        ("mission", ""): 1,
    }
    assert (settled.slots, settled.filled) == ({"core": 2, "chess": 1, "mission": 1}, {"core": 2, "chess": 0, "mission": 1})
    rejects = run.table("rejects/synthesize").read_table(REJECTS).to_pylist()
    told = {row["id"]: (row["reason"], row["detail"]) for row in rejects}
    assert told.pop("chess-000000") == ("unfilled", "0 attempts, none accepted")
    # What a validator refused has its reason in candidates/.
    assert sorted(reason for reason, _ in told.values()) == ["duplicate_answer", "duplicate_question", "superseded"]
    assert told["core-000000/2"] == ("superseded", "an attempt that passed the validators")


def test_what_resembles_the_other_split_is_no_example(run: Run) -> None:
    # The second work of a plan is held out.
    candidates(run, accepted(MAIN, 0, said(1)), accepted(CHESS_SLOT, 0, said(1)), accepted(CHESS_SLOT, 1, said(2)))
    first = Choice([MAIN, CHESS_SLOT], 0.5, None, 3.0)
    bridging = as_messages("We.", [Turn("And who else?", f"{said(1)[1]['content']} {said(1)[2]['content']} So.")])
    assert first.take(MAIN, row := {"attempt": 0, "messages": said(1)}) is None
    assert (row["split"], row["cluster"]) == ("train", "core-000000")
    assert first.take(CHESS_SLOT, {"attempt": 0, "messages": bridging}) == "near_other_split"
    assert first.take(CHESS_SLOT, row := {"attempt": 1, "messages": said(2)}) is None
    assert row["split"] == "val"


def test_a_judge_has_the_last_word() -> None:
    scores: dict[tuple[str, int], dict[str, Any]] = {
        ("core-000000", 0): {"score": None},
        ("core-000000", 1): {"score": 2.9},
        ("core-000000", 2): {"score": 3.0},
    }
    choice = Choice([MAIN], 0.1, scores, 3.0)
    found = [choice.take(MAIN, {"attempt": number, "messages": said(number)}) for number in (3, 0, 1, 2)]
    assert found == ["not_judged", "not_judged", "judged_low", None]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12), st.integers(0, 12))
def test_a_plan_that_grows_chooses_for_its_old_slots_what_it_chose(drawn: list[tuple[int, int]], cut: int) -> None:
    slots = [GAP | {"example_id": f"mission-{number:06d}", "book_id": f"work-{number % 4}"} for number in range(len(drawn))]

    def choices(count: int) -> list[str | None]:
        choice = Choice(slots[:count], 0.5, None, 3.0)
        rows = [{"attempt": 0, "messages": said(answer, question=question + 9)} for question, answer in drawn[:count]]
        return [choice.take(slot, row) for slot, row in zip(slots, rows, strict=False)]

    assert choices(len(drawn))[:cut] == choices(min(cut, len(drawn)))


# --- what is left to do


def test_empty_slots_are_asked_for_again_with_their_passages(run: Run) -> None:
    candidates(
        run, accepted(MAIN, 0, said(1)), attempt(EMPTY, 0, "markup"), attempt(EMPTY, 4, "copied"), accepted(CHESS_SLOT, 0, said(2))
    )
    todo = run.folder / "todo"
    settled = settle(run, CONFIG, todo, crashed=True)
    assert settled.empty == 2
    rows = {row["example_id"]: row for row in todo.read_table(TODO).to_pylist()}
    assert rows == {
        "core-000001": EMPTY | {"text": PASSAGE, "attempt": 5},
        "mission-000000": GAP | {"text": None, "attempt": 0},
    }


def test_slots_that_killed_the_engine_are_asked_for_again_only_in_another_run(run: Run) -> None:
    candidates(
        run, attempt(MAIN, 0, "engine_crash"), *(accepted(slot, 0, said(n)) for n, slot in enumerate((EMPTY, CHESS_SLOT, GAP)))
    )
    for crashed, names in ((True, ["core-000000"]), (False, [])):
        todo = run.folder / f"todo-{crashed}"
        assert settle(run, CONFIG, todo, crashed=crashed).empty == 1
        assert todo.read_table(TODO)["example_id"].to_pylist() == names


def test_nothing_is_left_of_a_whole_plan(run: Run) -> None:
    candidates(run, *(accepted(slot, 0, said(number)) for number, slot in enumerate((MAIN, EMPTY, CHESS_SLOT, GAP))))
    assert settle(run, CONFIG, run.folder / "todo", crashed=True).empty == 0
    assert not (run.folder / "todo").exists()


# --- the end


def test_a_run_in_which_nothing_was_accepted_ends_with_its_account(run: Run) -> None:
    candidates(run, attempt(MAIN, 0, "markup"), attempt(EMPTY, 0, "copied"))
    settled = conclude(run, CONFIG, THEME, MODEL)
    assert (settled.filled.total(), settled.rejected) == (0, {"markup": 1, "copied": 1})
    assert run.table("examples").read_table(EXAMPLES).num_rows == 0
    assert run.table("rejects/synthesize").read_table(REJECTS).num_rows == 4


def test_what_was_rejected_by_hand_is_an_example_but_not_in_the_dataset(run: Run) -> None:
    candidates(run, accepted(MAIN, 0, said(1)), accepted(GAP, 0, said(2)))
    record(run, MAIN | {"attempt": 0}, "reject", "stiff")
    conclude(run, CONFIG, THEME, MODEL)
    assert run.table("examples").read_table(EXAMPLES)["example_id"].to_pylist() == ["core-000000", "mission-000000"]
    lines = (run.folder / "dataset" / "theme_dataset.jsonl").read_bytes().decode().splitlines()
    assert len(lines) == 1
    assert "mission-000000" in lines[0]
    # Of an earlier dataset nothing is left when the last example goes.
    record(run, GAP | {"attempt": 0}, "reject", "stiff")
    conclude(run, CONFIG, THEME, MODEL)
    assert not (run.folder / "dataset").exists()
