"""Passages that no book of the run gave: ready ones, and those of folders of scripts, chess literature and speeches.

INPUT   files of passages; folders of .fountain and .txt files
OUTPUT  chunks/ (ready passages), sources/ (passages of folders, whose book_id begins with the kind of folder), rejects/sources/
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepred_ray.console import say
from deepred_ray.errors import InputError
from deepred_ray.runs import Run
from deepred_ray.schema import CHUNKS, REJECTS
from deepred_ray.stages.tables import Row, score_columns
from deepred_ray.storage import file_sha256, refuse_extensions, rows_table, shard_name
from deepred_ray.text.chunking import chunk_paragraphs
from deepred_ray.text.decoding import decode
from deepred_ray.text.gutenberg import strip
from deepred_ray.text.jsonl import json_value
from deepred_ray.text.language import language
from deepred_ray.text.reject import Reject
from deepred_ray.text.scripts import Excerpt, excerpts
from deepred_ray.theme import Theme

KINDS = ("scripts", "chess", "speeches")
SUFFIXES = {"scripts": (".fountain", ".txt"), "chess": (".txt",), "speeches": (".txt",)}
MINIMUM = 256  # characters of a passage
SIZE = 1024
INDEX = "synthesize/sources.json"
DATED = re.compile(r"^\s*(?:date|delivered|held)\s*:.*?\b(\d{4})\b", re.I | re.M)
HEADER_CHARS = 600


def import_passages(run: Run, files: Iterable[str], theme: Theme) -> None:
    """Make chunks/ of ready passages: rows with `id` (which `corpus` calls `chunk_id`) and `text`, each a work of its own unless it
    names a `book_id`; what `corpus` did not keep is left out.

    Raises:
        InputError: a row without them; the message names file and row.
    """
    for name in files:
        path = Path(name).expanduser()
        lines: Any = rows_of(path) if path.suffix == ".parquet" else path.read_text("utf-8").removesuffix("\n").split("\n")
        rows: list[Row] = []
        for number, line in enumerate(lines, 1):
            try:
                fields = json_value(line) if isinstance(line, str) else line
                if not fields.get("kept", True):
                    continue
                fields.setdefault("id", fields.get("chunk_id"))
                if missing := [key for key in ("id", "text") if fields[key] is None]:
                    raise ValueError(f"no {' and no '.join(missing)}")
                row = {"chunk_id": str(fields["id"]), "title": str(fields.get("title") or ""), "text": str(fields["text"])}
                work = fields.get("book_id")
            except (AttributeError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}, row {number}: no passage with id and text: {error!r}") from error
            row["book_id"] = row["chunk_id"] if work is None else str(work)
            rows.append(row | {"start": 0, "end": len(row["text"]), "kept": True, "reason": None, "twin_of": None})
        run.table("chunks").write_table(passage_table(rows, theme), shard_name([str(path.resolve())]))


def rows_of(path: Path) -> list[Row]:
    """Raises InputError for a file that is no table, or one with a column that runs code."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no Parquet file: {error}") from error
    refuse_extensions(table.schema, path)
    rows: list[Row] = table.to_pylist()
    return rows


def import_sources(run: Run, folders: Mapping[str, str], theme: Theme) -> None:
    """Add the passages of folders (kind of source -> folder) to sources/. A file is read once; what cannot be used is a reject.

    Raises:
        InputError: no such folder, nothing in it, or a file that has changed since its passages were taken.
    """
    index = run.folder / INDEX
    known: dict[str, str] = index.read_json() if index.exists() else {}
    for kind, folder in folders.items():
        root = Path(folder).expanduser()
        files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES[kind] and path.is_file())
        if not files:
            raise InputError(f"--synthesize.{kind} {root}: no folder with {' or '.join(SUFFIXES[kind])} files")
        for path in files:
            work, sha = f"{kind}/{path.relative_to(root)}", file_sha256(path)
            if known.get(work, sha) != sha:
                raise InputError(
                    f"{path} has changed since its passages were taken",
                    "Give it another name, use another --run NAME, or --fresh to make this stage again.",
                )
            if work in known:
                continue
            rows, rejects = read_source(kind, work, path.read_bytes(), theme)
            name = shard_name([work])
            run.table("rejects/sources").write_table(rows_table(rejects, REJECTS), name)
            if rows:
                run.table("sources").write_table(passage_table(rows, theme), name)
            known[work] = sha
            index.write_json(known)
            dropped = f", {len(rejects)} rejected" if rejects else ""
            say(f"  {work}: {len(rows)} passages{dropped}")


def read_source(kind: str, work: str, raw: bytes, theme: Theme) -> tuple[list[Row], list[Row]]:
    """Passages of one file without their scores, and rejects: of the file as a whole, or of a passage."""
    pieces = cut(kind, raw, theme.cutoff_year)
    if isinstance(pieces, Reject):
        return [], [reject(work, pieces)]
    rows, rejects = [], []
    for piece in pieces:
        chunk_id = f"{work}:{piece.start}-{piece.end}"
        if refused := unfit(piece.text, theme):
            rejects.append(reject(chunk_id, refused) | {"raw": piece.text})
            continue
        rows.append(
            {
                "chunk_id": chunk_id,
                "book_id": work,
                "title": piece.title or work.partition("/")[2],
                "text": piece.text,
                "start": piece.start,
                "end": piece.end,
                "kept": True,
                "reason": None,
                "twin_of": None,
            }
        )
    return rows, rejects


def cut(kind: str, raw: bytes, cutoff_year: int) -> list[Excerpt] | Reject:
    """One file in pieces, or why it gives none."""
    decoded = decode(raw)
    if isinstance(decoded, Reject):
        return decoded
    text = decoded.text
    if kind == "scripts":
        try:
            return excerpts(text, SIZE, MINIMUM)
        except ValueError as error:
            return Reject("no_script", str(error))
    if kind == "speeches" and (dated := DATED.search(text[:HEADER_CHARS])) and int(dated[1]) >= cutoff_year:
        return Reject("published_after_cutoff", dated[0].strip())
    body = strip(text)
    start = 0
    if isinstance(body, Reject) and body.reason != "too_short":  # a speech may be as short as it likes
        return body
    if not isinstance(body, Reject):
        text, start = body.text, body.body_start
    return [
        Excerpt("", chunk.text, chunk.start, chunk.end) for chunk in chunk_paragraphs(text, start=start, size=SIZE, minimum=MINIMUM)
    ]


def unfit(text: str, theme: Theme) -> Reject | None:
    """Why a passage cannot be shown to a model."""
    if len(text) < MINIMUM:
        return Reject("too_short", f"{len(text)} characters, {MINIMUM} wanted")
    code, _ = language(text)
    if code != "en":
        return Reject("wrong_language", code)
    return theme.era.check(text)


def passage_table(rows: list[Row], theme: Theme) -> pa.Table:
    """Passages with their scores, in the columns of chunks/."""
    scored = theme.scorer.score([row["text"] for row in rows])
    columns = {name: [row[name] for row in rows] for name in CHUNKS.names if rows and name in rows[0]}
    return pa.table(columns | score_columns(scored, theme.scorer.lexicon.themes)).select(CHUNKS.names).cast(CHUNKS)


def reject(name: str, why: Reject) -> Row:
    return {"id": name, "reason": why.reason, "detail": why.detail, "raw": None}
