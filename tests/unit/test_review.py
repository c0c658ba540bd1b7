"""Rejecting examples by hand: every verdict is kept, the last one on what an example now is counts."""

import io
import random
import sys
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runfolder import CHESS, GAP, MAIN, NAME, PASSAGE, example, row, synthesized, write

from deepred_ray.cli import main
from deepred_ray.review import chosen, latest, rejected_by_hand
from deepred_ray.runs import Run
from deepred_ray.schema import EXAMPLES, REVIEWS
from deepred_ray.storage import rows_table

OPTIONS = Namespace(component=None, persona=None, all=False, sample=None, lowest=False)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return synthesized(tmp_path)


def review(run: Run, *words: str) -> int:
    return main(["review", NAME, "--data-root", run.root, *words])


def verdicts(run: Run) -> list[tuple[str, str, str]]:
    rows = sorted(run.table("reviews").read_table(REVIEWS).to_pylist(), key=lambda row: row["reviewed_at"])
    return [(row["example_id"], row["verdict"], row["note"]) for row in rows]


# --- by id


def test_reject_list_and_restore(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert review(run, "--reject", "mission-000000", "core-000000", "--note", "too [stiff]") == 0
    assert capsys.readouterr().out.startswith("0 kept, 2 rejected by hand\n")
    assert rejected_by_hand(run) == {"core-000000", "mission-000000"}
    assert review(run, "--list") == 0
    assert capsys.readouterr().out == "core-000000  too [stiff]\nmission-000000  too [stiff]\n"
    assert review(run, "--restore", "core-000000") == 0
    assert capsys.readouterr().out.startswith("1 kept, 1 rejected by hand\n")
    assert rejected_by_hand(run) == {"mission-000000"}
    assert review(run, "--restore", "mission-000000") == 0
    assert capsys.readouterr().out == "2 kept, 0 rejected by hand\n"
    # Nothing that was said is forgotten.
    assert [verdict for _, verdict, _ in verdicts(run)] == ["reject", "reject", "keep", "keep"]
    reviewed = run.table("reviews").read_table(REVIEWS).to_pylist()
    assert all(row["reviewer"] and row["attempt"] in (0, 2) for row in reviewed)


def test_what_follows_from_a_rejection_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    review(run, "--reject", "core-000000")
    said = capsys.readouterr().out
    assert f"deepred train --run {NAME} leaves them out" in said
    assert f"deepred synthesize --run {NAME}" in said


@pytest.mark.parametrize("flag", ["--reject", "--restore"])
def test_an_unknown_id_changes_nothing(run: Run, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    # A slot that is empty is no example.
    assert review(run, flag, "core-000000", "core-000001") == 1
    assert capsys.readouterr().err == (
        f"deepred: run {NAME} has no example 'core-000001'\n  `deepred inspect RUN examples` lists them.\n"
    )
    assert verdicts(run) == []


def test_a_run_without_examples_says_how_to_make_them(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.table("examples").delete()
    for words in ([], ["--list"], ["--reject", "core-000000"]):
        assert review(run, *words) == 1
        assert f"deepred synthesize --run {NAME}" in capsys.readouterr().err


def test_a_verdict_is_on_an_attempt_and_not_on_its_slot(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    review(run, "--reject", "core-000000", "mission-000000")
    write(run, "examples", EXAMPLES, [example(MAIN, 5), example(GAP, 0)])
    assert rejected_by_hand(run) == {"mission-000000"}
    capsys.readouterr()
    review(run, "--list")
    assert capsys.readouterr().out == "mission-000000  \n"
    review(run, "--restore", "core-000000")
    assert capsys.readouterr().out.startswith("1 kept, 1 rejected by hand\n")


@given(
    st.lists(st.tuples(st.sampled_from(["core-000000", "mission-000000"]), st.sampled_from([0, 2]), st.booleans()), max_size=12),
    st.randoms(use_true_random=False),
)
@settings(max_examples=30)
def test_the_last_verdict_on_each_attempt_counts(
    tmp_path_factory: pytest.TempPathFactory, spoken: list[tuple[str, int, bool]], rng: random.Random
) -> None:
    run = Run(str(tmp_path_factory.mktemp("runs")), NAME)
    write(run, "examples", EXAMPLES, [example(MAIN, 2), example(GAP, 0)])
    names = rng.sample(range(100), len(spoken))
    for number, (example_id, attempt, keep) in enumerate(spoken):
        said = row(REVIEWS, example_id=example_id, attempt=attempt, verdict="keep" if keep else "reject", note=str(number))
        said |= {"reviewed_at": datetime(2024, 5, 1, tzinfo=UTC) + timedelta(seconds=number)}
        # The names of files tell no order.
        run.table("reviews").write_table(rows_table([said], REVIEWS), f"{names[number]:03d}")
    last = {(example_id, attempt): keep for example_id, attempt, keep in spoken}
    assert {key: found["verdict"] == "keep" for key, found in latest(run).items()} == last
    present = {"core-000000": 2, "mission-000000": 0}
    assert rejected_by_hand(run) == {name for name, attempt in present.items() if last.get((name, attempt)) is False}


# --- at the keyboard


def typed(run: Run, monkeypatch: pytest.MonkeyPatch, keys: str, *words: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
    return review(run, *words)


def test_verdicts_at_the_keyboard(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(run, monkeypatch, "k\nr too long \n\n") == 0
    assert verdicts(run) == [("core-000000", "keep", ""), ("chess-000000", "reject", "too long"), ("mission-000000", "keep", "")]
    said = capsys.readouterr().out
    assert "1 of 3  core-000000  primary  judged 3.5" in said
    assert "2 of 3  chess-000000" in said
    assert "2 kept, 1 rejected by hand" in said
    # The passage as it is, only shorter; and what the judge said.
    assert PASSAGE[:500] + "…" in said
    assert PASSAGE[:501] not in said
    assert CHESS in said
    assert "Q Who minds the pumps by the furnace?\nA We do, comrade [all of us], and :crown: the king of them never sleeps." in said
    assert "hope 4: a plan [sure]" in said


def test_going_back_means_judging_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(run, monkeypatch, "b\nk\nb\nr\ns\nq\n")
    assert verdicts(run) == [("core-000000", "keep", ""), ("core-000000", "reject", "")]
    assert rejected_by_hand(run) == {"core-000000"}


def test_the_end_of_the_input_ends_it_and_the_next_time_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(run, monkeypatch, "k\n")
    capsys.readouterr()
    typed(run, monkeypatch, "")
    assert "1 of 2  chess-000000" in capsys.readouterr().out
    typed(run, monkeypatch, "q\n", "--all")
    assert "1 of 3  core-000000" in capsys.readouterr().out


def test_a_key_that_is_none_shows_the_keys_and_p_the_passage(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(run, monkeypatch, "x\np\ns\ns\np\nq\n")
    said = capsys.readouterr().out
    assert said.count("Enter or k keep") == 1
    assert PASSAGE in said
    assert "\nno passage\n" in said
    assert said.count("1 of 3") == 1
    assert verdicts(run) == []


# --- which examples


def test_those_that_are_asked_for(run: Run) -> None:
    rows = [example(MAIN, 2, score=3.5), example(GAP, 0), example(MAIN | {"example_id": "core-000009"}, 0, score=1.5)]

    def shown(**changes: object) -> list[str]:
        return [row["example_id"] for row in chosen(run, rows, Namespace(**vars(OPTIONS) | changes))]

    assert shown() == ["core-000000", "mission-000000", "core-000009"]
    assert shown(component="core") == ["core-000000", "core-000009"]
    assert shown(persona="primary", component="mission") == ["mission-000000"]
    # Those without a score come last.
    assert shown(lowest=True) == ["core-000009", "core-000000", "mission-000000"]
    assert len(shown(sample=2)) == 2
    assert shown(sample=2) == shown(sample=2)
    assert shown(sample=9, lowest=True) == shown(lowest=True)
    review(run, "--reject", "core-000000")
    assert shown() == ["mission-000000", "core-000009"]
    assert shown(all=True) == ["core-000000", "mission-000000", "core-000009"]


@pytest.mark.parametrize("words", [["--component", "poems"], ["--persona", "nobody"]])
def test_nothing_that_matches_is_an_error(run: Run, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert review(run, *words) == 1
    assert "no such example that was not reviewed yet\n  --all" in capsys.readouterr().err
