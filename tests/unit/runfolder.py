"""A small run folder after synthesis: four slots, their attempts, and what came of them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepred_ray.config import Config
from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS, CANDIDATES, CHUNKS, EXAMPLES, JUDGEMENTS, REJECTS, SLOTS, TOKENS
from deepred_ray.stages.filling import Recipe, prompt_sha
from deepred_ray.storage import rows_table
from deepred_ray.text.prompts import Turn, as_messages
from deepred_ray.theme import Theme

NAME = "mine"
MODEL = "some/model"
PASSAGE = "The stoker nursed the pumps all night by the [old] furnace, and nobody left the long gallery before the morning. " * 6
CHESS = "Whoever trades the good bishop for a pawn has sold the roof to mend the floor, said the old master to the boy."
STARTED = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
THEME = Theme.find("deepred")


def row(schema: pa.Schema, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(schema.names) | values


def write(run: Run, table: str, schema: pa.Schema, rows: list[dict[str, Any]], name: str = "all") -> None:
    run.table(table).write_table(rows_table(rows, schema), name)


def slot(component: str, number: int, source: str, chunk_id: str | None, book_id: str, persona: str) -> dict[str, Any]:
    return {
        "example_id": f"{component}-{number:06d}",
        "component": component,
        "number": number,
        "source": source,
        "chunk_id": chunk_id,
        "book_id": book_id,
        "persona": persona,
    }


MAIN = slot("core", 0, "books", "b1:0-660", "b1", "primary")
EMPTY = slot("core", 1, "books", "b1:0-660", "b1", "utopian")
CHESS_SLOT = slot("chess", 0, "chess", "chess/lasker.txt:0-110", "chess/lasker.txt", "tactician")
GAP = slot("mission", 0, "none", None, "mission-000000", "primary")
TURNS = [
    Turn("Who minds the pumps by the furnace?", "We do, comrade [all of us], and :crown: the king of them never sleeps."),
    Turn("And if the others do not agree?", "Then we ask them again."),
]


def recipe() -> Recipe:
    return Recipe(THEME, Config(run=NAME).synthesize, "plain", MODEL)


def attempt(slot: dict[str, Any], number: int, reason: str | None = None, detail: str | None = None) -> dict[str, Any]:
    """A row of candidates/ with the hash of the prompt that the theme gives now."""
    text = {"books": PASSAGE, "chess": CHESS}.get(slot["source"])
    prompt = recipe().prompt(slot | {"text": text}, number)
    return row(
        CANDIDATES,
        example_id=slot["example_id"],
        attempt=number,
        system=prompt.system,
        question=TURNS[0].question,
        messages=None if reason else as_messages(prompt.system, TURNS),
        replies=[f"{turn.answer} (of attempt {number})" for turn in TURNS],
        finish_reason="stop",
        prompt_tokens=80,
        tokens=40,
        started_at=STARTED + timedelta(seconds=number),
        seconds=1.5,
        model=MODEL,
        sampling=json.dumps({"temperature": 0.8}),
        prompt_sha=prompt_sha(prompt),
        axes=prompt.axes,
        reason=reason,
        detail=detail,
    )


def example(slot: dict[str, Any], number: int, **values: Any) -> dict[str, Any]:
    made = {name: slot[name] for name in ("example_id", "component", "source", "persona", "chunk_id", "book_id")}
    messages = as_messages("You are Deep Red.", TURNS)
    made |= {"attempt": number, "axes": {"contract": "plain", "form": "open"}, "messages": messages}
    return row(EXAMPLES, **made, split="train", cluster=slot["example_id"], **values)


def chunk(chunk_id: str, book_id: str, title: str, text: str) -> dict[str, Any]:
    weights = {"labour": 1.5, "chess": 2.25}
    made = row(CHUNKS, chunk_id=chunk_id, book_id=book_id, title=title, text=text, themes={"labour": 1}, total=1, weights=weights)
    return made | {"start": 0, "end": len(text), "score": 2.5, "kept": True}


def synthesized(root: Path) -> Run:
    """The main slot is filled by its third attempt, the second being a duplicate; one slot is empty; the others have no book."""
    run = Run(str(root), NAME)
    (run.folder / "config.json").write_json(Config(run=NAME).model_dump(mode="json"))
    book = row(BOOKS, book_id="b1", title="The Pumps", authors=["A. Wright", "B. Stoker"], year=1911, text=PASSAGE)
    book |= {"year_confidence": "title_page", "year_evidence": "London, 1911", "source_url": "http://mirror/1", "sha256": "ab" * 32}
    write(run, "books", BOOKS, [book])
    write(run, "chunks", CHUNKS, [chunk("b1:0-660", "b1", "The Pumps", PASSAGE)])
    write(run, "sources", CHUNKS, [chunk("chess/lasker.txt:0-110", "chess/lasker.txt", "lasker.txt", CHESS)])
    write(run, "slots", SLOTS, [MAIN, EMPTY, CHESS_SLOT, GAP])
    attempts = [attempt(MAIN, 2), attempt(MAIN, 0, "off_theme", "1 theme keyword [of 2]"), attempt(MAIN, 1)]
    attempts += [attempt(EMPTY, 0, "markup", "**"), attempt(CHESS_SLOT, 0), attempt(GAP, 0)]
    write(run, "candidates", CANDIDATES, attempts)
    scores = {"hope": 4, "voice": 3}
    judged = row(JUDGEMENTS, example_id="core-000000", attempt=2, model="the/judge", score=3.5, scores=scores, reply="{}")
    reasons = {"hope": "a plan [sure]", "voice": "it says we"}
    write(run, "judgements", JUDGEMENTS, [judged | {"reasons": reasons}])
    made = [
        example(MAIN, 2, score=3.5, scores=scores, reasons=reasons),
        example(CHESS_SLOT, 0, score=2.5, scores={"hope": 2}, reasons={"hope": "none"}),
        example(GAP, 0),
    ]
    write(run, "examples", EXAMPLES, made)
    rejects = [("core-000001", "unfilled", "1 attempts, none accepted"), ("core-000000/1", "duplicate_answer", "an attempt")]
    write(run, "rejects/synthesize", REJECTS, [row(REJECTS, id=name, reason=why, detail=detail) for name, why, detail in rejects])
    tokens = row(
        TOKENS,
        example_ids=["core-000002", "core-000000"],
        lengths=[2, 4],
        split="train",
        input_ids=[3, 4, 5, 6, 7, 8],
        trained=[False, True, False, False, True, True],
    )
    write(run, "tokens", TOKENS, [tokens])
    return run
