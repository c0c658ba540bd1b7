"""`deepred review`: look at the examples of a run one by one and reject some by hand. Every verdict is written as it is given."""

import argparse
import getpass
import random
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape

from deepred_ray.console import console
from deepred_ray.errors import InputError
from deepred_ray.runs import Run
from deepred_ray.schema import CHUNKS, EXAMPLES, REVIEWS
from deepred_ray.storage import rows_table
from deepred_ray.text.prompts import as_turns

Row = dict[str, Any]
KEYS = "Enter or k keep, r reject, b back, s skip, p whole passage, q quit"
PASSAGE_CHARS = 500


def rejected_by_hand(run: Run) -> set[str]:
    """Examples whose present attempt was last judged `reject`."""
    return {example_id for example_id, row in present(run).items() if row["verdict"] == "reject"}


def present(run: Run) -> dict[str, Row]:
    """The last verdict on the present attempt of each example; what was said of another attempt does not count."""
    verdicts = latest(run)
    if not verdicts:
        return {}
    examples = run.table("examples").read_table(EXAMPLES, ["example_id", "attempt"]).to_pylist()
    return {
        row["example_id"]: verdicts[row["example_id"], row["attempt"]]
        for row in examples
        if (row["example_id"], row["attempt"]) in verdicts
    }


def latest(run: Run) -> dict[tuple[str, int], Row]:
    """The last verdict on each example and attempt."""
    rows = run.table("reviews").read_table(REVIEWS).to_pylist()
    return {(row["example_id"], row["attempt"]): row for row in sorted(rows, key=lambda row: row["reviewed_at"])}


def review(run: Run, options: argparse.Namespace) -> int:
    """What the command's options ask for: list, reject or restore by id, or go through examples at the keyboard.

    Raises:
        InputError: the run has no examples, an id is unknown, or nothing matches.
    """
    examples = {row["example_id"]: row for row in run.table("examples").read_table(EXAMPLES).to_pylist(maps_as_pydicts="strict")}
    if not examples:
        raise InputError(f"run {run.name} has no examples to review", f"Make them first: deepred synthesize --run {run.name}")
    if options.list:
        for example_id, row in sorted(present(run).items()):
            if row["verdict"] == "reject":
                console.print(f"{example_id}  {escape(row['note'] or '')}", soft_wrap=True)
        return 0
    if options.reject or options.restore:
        for verdict, ids in (("reject", options.reject or ()), ("keep", options.restore or ())):
            for example_id in ids:
                if example_id not in examples:
                    raise InputError(f"run {run.name} has no example {example_id!r}", "`deepred inspect RUN examples` lists them.")
            for example_id in ids:
                record(run, examples[example_id], verdict, options.note or "")
        conclude(run)
        return 0
    at_keyboard(run, chosen(run, list(examples.values()), options), read_key)
    conclude(run)
    return 0


def chosen(run: Run, examples: list[Row], options: argparse.Namespace) -> list[Row]:
    """The examples to show, in order. Raises InputError if there is none."""
    seen = latest(run)
    wanted = [
        row
        for row in examples
        if (options.component in (None, row["component"]))
        and (options.persona in (None, row["persona"]))
        and (options.all or (row["example_id"], row["attempt"]) not in seen)
    ]
    if options.lowest:
        wanted.sort(key=lambda row: (row["score"] is None, row["score"], row["example_id"]))
    if options.sample:
        keep = {row["example_id"] for row in random.Random(0).sample(wanted, min(options.sample, len(wanted)))}
        wanted = [row for row in wanted if row["example_id"] in keep]
    if not wanted:
        raise InputError(f"run {run.name} has no such example that was not reviewed yet", "--all shows the reviewed ones too.")
    return wanted


def at_keyboard(run: Run, examples: Sequence[Row], read: Callable[[], str]) -> None:
    """Show one example after the other, and write each verdict at once."""
    passages = texts(run, {row["chunk_id"] for row in examples if row["chunk_id"]})
    place, shown = 0, -1
    while place < len(examples):
        row = examples[place]
        passage = passages.get(row["chunk_id"], "")
        if place != shown:
            show(row, passage[:PASSAGE_CHARS] + ("…" if len(passage) > PASSAGE_CHARS else ""), f"{place + 1} of {len(examples)}")
            shown = place
        key = read()
        if key in ("", "k"):
            record(run, row, "keep", "")
            place += 1
        elif key.startswith("r"):
            record(run, row, "reject", key[1:].strip())
            place += 1
        elif key == "s":
            place += 1
        elif key == "b":
            place = max(0, place - 1)
        elif key == "p":
            console.print(escape(passage) or "no passage", soft_wrap=True)
        elif key == "q":
            return
        else:
            console.print(KEYS)


def read_key() -> str:
    """A line: a key, or `r` and a note. The end of the input is `q`."""
    try:
        return input("keep [k], reject [r NOTE], back, skip, passage, quit: " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return "q"


def show(row: Row, passage: str, progress: str) -> None:
    score = "" if row["score"] is None else f"  judged {row['score']:.1f}"
    console.rule(f"{progress}  {row['example_id']}  {row['persona']}{score}", align="left")
    axes = ", ".join(f"{name}: {value}" for name, value in row["axes"].items())
    console.print(
        f"[dim]{escape(row['chunk_id'] or 'no passage')}; {escape(axes)}[/dim]\n[dim]{escape(passage)}[/dim]", soft_wrap=True
    )
    for turn in as_turns(row["messages"]):
        console.print(f"[bold]Q[/bold] {escape(turn.question)}\n[bold]A[/bold] {escape(turn.answer)}", soft_wrap=True)
    for axis, reason in (row["reasons"] or {}).items():
        console.print(f"  [dim]{axis} {row['scores'][axis]}: {escape(reason)}[/dim]", soft_wrap=True)


def texts(run: Run, wanted: set[str]) -> dict[str, str]:
    found = {}
    for name in ("chunks", "sources"):
        for row in run.table(name).read_table(CHUNKS, ["chunk_id", "text"]).to_pylist():
            if row["chunk_id"] in wanted:
                found[row["chunk_id"]] = row["text"]
    return found


def record(run: Run, example: Row, verdict: str, note: str) -> None:
    """Write one verdict, a file of its own: nothing is lost, whatever happens next."""
    row = {
        "example_id": example["example_id"],
        "attempt": example["attempt"],
        "verdict": verdict,
        "note": note,
        "reviewer": getpass.getuser(),
        "reviewed_at": datetime.now(UTC),
    }
    run.table("reviews").write_table(rows_table([row], REVIEWS), f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:6]}")


def conclude(run: Run) -> None:
    counts = Counter(row["verdict"] for row in present(run).values())
    console.print(f"{counts['keep']} kept, {counts['reject']} rejected by hand")
    if counts["reject"]:
        console.print(
            f"deepred train --run {run.name} leaves them out; deepred synthesize --run {run.name} makes dataset/ without them"
        )
