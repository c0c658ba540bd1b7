"""`deepred explain`: where one example comes from, from the book to the split, with every attempt and every verdict."""

import difflib
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape

from deepred_ray import review
from deepred_ray.config import load
from deepred_ray.console import console
from deepred_ray.errors import DeepredError, InputError
from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS, CANDIDATES, CHUNKS, EXAMPLES, JUDGEMENTS, REJECTS, SLOTS, TOKENS
from deepred_ray.text.prompts import as_turns
from deepred_ray.theme import Theme

Row = dict[str, Any]


def explain(run: Run, example_id: str, *, as_json: bool) -> int:
    """Print the lineage, for a person or as one JSON object.

    Raises:
        InputError: the run has no such slot; the message names near ones.
    """
    found = lineage(run, example_id)
    if as_json:
        console.print(json.dumps(found, ensure_ascii=False, indent=2, default=str), markup=False, soft_wrap=True)
    else:
        show(found)
    return 0


def lineage(run: Run, example_id: str) -> Row:
    """Everything that the run's tables know of a slot; None for what does not exist."""
    slot = first(run, "slots", SLOTS, "example_id", example_id)
    if slot is None:
        ids = run.table("slots").read_table(SLOTS, ["example_id"])["example_id"].to_pylist()
        near = ", ".join(difflib.get_close_matches(example_id, ids, 3, 0.5))
        raise InputError(
            f"run {run.name} has no example {example_id!r}", f"It has {near}." if near else "Run `deepred synthesize`."
        )
    passage = None
    if slot["chunk_id"]:
        table = "chunks" if slot["source"] == "books" else "sources"
        passage = first(run, table, CHUNKS, "chunk_id", slot["chunk_id"])
    book = first(run, "books", BOOKS, "book_id", slot["book_id"], without="text")
    attempts = sorted(all_rows(run, "candidates", CANDIDATES, "example_id", example_id), key=lambda row: int(row["attempt"]))
    judgements = all_rows(run, "judgements", JUDGEMENTS, "example_id", example_id)
    verdicts = [row for (name, _), row in review.latest(run).items() if name == example_id]
    example = first(run, "examples", EXAMPLES, "example_id", example_id)
    for row in attempts:
        passed_over = first(run, "rejects/synthesize", REJECTS, "id", f"{example_id}/{row['attempt']}")
        row["reason"] = row["reason"] or (passed_over and passed_over["reason"])
    return {
        "slot": slot,
        "book": book,
        "passage": passage,
        "attempts": attempts,
        "prompt": rebuilt_prompt(run, slot, passage, attempts, example),
        "judgements": judgements,
        "reviews": verdicts,
        "example": example,
        "reject": first(run, "rejects/synthesize", REJECTS, "id", example_id),
        "tokens": trained_tokens(run, example_id),
    }


def all_rows(run: Run, table: str, schema: pa.Schema, column: str, value: str, without: str = "") -> list[Row]:
    names = [name for name in schema.names if name != without]
    rows: list[Row] = []
    for file in run.table(table).files(".parquet"):
        shard = file.read_shard(pa.schema([schema.field(name) for name in names]))
        rows += shard.filter(pc.equal(shard[column], value)).to_pylist(maps_as_pydicts="strict")
    return rows


def first(run: Run, table: str, schema: pa.Schema, column: str, value: str, without: str = "") -> Row | None:
    return next(iter(all_rows(run, table, schema, column, value, without)), None)


def trained_tokens(run: Run, example_id: str) -> Row | None:
    """How many tokens training has of the example, and how many of them it trains on; None if it has none."""
    table = run.table("tokens").read_table(TOKENS, ["example_ids", "lengths", "trained"])
    for row in table.to_pylist():
        if example_id in row["example_ids"]:
            place = row["example_ids"].index(example_id)
            start, length = sum(row["lengths"][:place]), row["lengths"][place]
            return {"total": length, "trained": sum(row["trained"][start : start + length])}
    return None


def rebuilt_prompt(run: Run, slot: Row, passage: Row | None, attempts: list[Row], example: Row | None) -> Row | None:
    """The first request of the attempt that was chosen, or of the last, made again from the theme as it is now; `same` says whether
    that is what the engine was asked then."""
    if not attempts:
        return None
    from deepred_ray.stages.filling import Recipe, prompt_sha

    attempt = next((row for row in attempts if example and row["attempt"] == example["attempt"]), attempts[-1])
    config = load((run.folder / "config.json").read_json(), "config.json")
    try:
        recipe = Recipe(Theme.find(config.theme), config.synthesize, attempt["axes"]["contract"], attempt["model"])
        prompt = recipe.prompt(slot | {"text": passage["text"] if passage else None}, attempt["attempt"])
    except (DeepredError, KeyError, ValueError):  # the theme is gone, or has lost a persona: then there is no prompt to show
        return None
    same = prompt_sha(prompt) == attempt["prompt_sha"]
    return {"attempt": attempt["attempt"], "messages": prompt.messages(), "opening": prompt.openings[:1], "same": same}


# --- for a person


def show(found: Row) -> None:
    slot, book, passage, example = found["slot"], found["book"], found["passage"], found["example"]
    head(f"{slot['example_id']}: {slot['component']}, persona {slot['persona']}, source {slot['source']}")
    if book:
        authors = ", ".join(book["authors"])
        line("book", f"{book['book_id']}  {book['title']}, {authors}")
        line("year", f"{book['year']} ({book['year_confidence']}: {book['year_evidence']})")
        line("from", f"{book['source_url']}  sha256 {book['sha256'][:16]}")
    elif slot["chunk_id"]:
        line("work", slot["book_id"])
    if passage:
        line("passage", f"{passage['chunk_id']}, characters {passage['start']} to {passage['end']}, score {passage['score']:.2f}")
        themes = sorted(passage["weights"].items(), key=lambda item: -item[1])
        line("themes", ", ".join(f"{theme} {weight:.1f}" for theme, weight in themes))
        console.print(f"[dim]{escape(passage['text'])}[/dim]", soft_wrap=True)
    else:
        line("passage", "none: the slot fills a gap")
    if prompt := found["prompt"]:
        head(
            f"prompt of attempt {prompt['attempt']}"
            + ("" if prompt["same"] else ": the theme has changed since, this is what it gives now")
        )
        for message in prompt["messages"]:
            line(message["role"], message["content"])
        if prompt["opening"]:
            line("opening", prompt["opening"][0])
    for row in found["attempts"]:
        verdict = f"rejected, {row['reason']}: {row['detail'] or ''}" if row["reason"] else "accepted"
        head(f"attempt {row['attempt']}: {verdict}")
        line("model", f"{row['model']}, {row['sampling']}")
        line("axes", ", ".join(f"{name}: {value}" for name, value in row["axes"].items()))
        line("cost", f"{row['prompt_tokens']} + {row['tokens']} tokens, {row['seconds']:.1f} s, ended by {row['finish_reason']}")
        for reply in row["replies"]:
            line("reply", reply)
    for row in found["judgements"]:
        head(f"judged, attempt {row['attempt']}, by {row['model']}: {row['score'] if row['score'] is not None else row['reason']}")
        for axis, score in (row["scores"] or {}).items():
            line(axis, f"{score}  {row['reasons'][axis]}")
    for row in found["reviews"]:
        head(f"reviewed, attempt {row['attempt']}, by {row['reviewer']}: {row['verdict']} {row['note'] or ''}")
    if example:
        head(f"example: attempt {example['attempt']}, split {example['split']}, cluster {example['cluster']}")
        for turn in as_turns(example["messages"]):
            line("question", turn.question)
            line("answer", turn.answer)
    else:
        reject = found["reject"]
        head(f"no example: {reject['reason']}, {reject['detail']}" if reject else "no example yet")
    if tokens := found["tokens"]:
        line("trained on", f"{tokens['trained']} of {tokens['total']} tokens")


def head(text: str) -> None:
    console.print(f"\n[bold]{escape(text)}[/bold]", soft_wrap=True)


def line(name: str, text: str) -> None:
    console.print(f"[dim]{name}:[/dim] {escape(str(text))}", soft_wrap=True)
