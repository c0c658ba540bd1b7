"""corpus: chunks of the books, scored by the theme's lexicon; a kept chunk is a passage.

INPUT   books/
OUTPUT  chunks/ (schema.CHUNKS), rejects/corpus/ (books without a chunk)
fan-out one row a chunk; a dropped chunk is a row with `kept` false and its reason
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from deepred_ray.config import Config, CorpusConfig
from deepred_ray.console import Meter, counts_text
from deepred_ray.errors import InputError
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import BOOKS, CHUNKS, REJECTS
from deepred_ray.stages.tables import Row
from deepred_ray.storage import Folder, count_values, rows_table, shard_name
from deepred_ray.text.chunking import chunk_overlap, chunk_paragraphs
from deepred_ray.text.dedup import exact_key
from deepred_ray.text.themes import decide, score
from deepred_ray.theme import Theme

COLUMNS = ["book_id", "title", "text", "body_start"]


def run(run: Run, config: Config, theme: Theme) -> Manifest:
    """Chunk the books that have no chunks yet; each book's chunks are one shard, so that a killed run goes on by book.

    Raises:
        InputError: no passage was kept.
    """
    books, chunks = run.table("books"), run.table("chunks")
    done = {
        file.name.removesuffix(".parquet") for file in [*chunks.files(".parquet"), *run.table("rejects/corpus").files(".parquet")]
    }
    shards = books.files(".parquet")
    total = books.read_table(BOOKS, ["book_id"]).num_rows
    # One task a shard of books: a task's rows are whole books, and a book is never split over tasks.
    tasks = ray.data.from_items([{"path": shard.path} for shard in shards], override_num_blocks=max(1, len(shards)))
    counted = tasks.flat_map(
        partial(
            chunk_shard,
            folder=books,
            chunks=chunks,
            rejects=run.table("rejects/corpus"),
            done=frozenset(done),
            settings=config.corpus,
            theme=theme,
        )
    )
    seen = kept = 0
    with Meter("corpus", total, "books") as meter:
        meter.update(seen := len(done))
        for batch in counted.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                seen += 1
                kept += row["kept"]
                meter.update(seen, f"{kept} passages kept")
    mark_twins(books, chunks)
    table = chunks.read_table(CHUNKS, ["kept", "reason"])
    dropped = count_values(table["reason"])
    passages = pc.sum(table["kept"]).as_py() or 0
    if not passages:
        raise InputError(
            f"corpus kept no passage ({counts_text(dropped) or 'there were no books'})",
            "Lower --corpus.min-matches or --corpus.minimum, or acquire more books.",
        )
    unused = run.table("rejects/corpus").read_table(REJECTS).num_rows
    return Manifest(
        "corpus", "chunks", table.num_rows, passages, dropped, 0.0, outputs={"books": total, "books_without_chunks": unused}
    )


def chunk_shard(
    row: Row, folder: Folder, chunks: Folder, rejects: Folder, done: frozenset[str], settings: CorpusConfig, theme: Theme
) -> Iterator[Row]:
    """INPUT path of a shard of books; OUTPUT book_id and kept, once a book's chunks are written; fan-out 1:n."""
    shard = Folder(folder.filesystem, row["path"])
    for book in shard.read_shard(pa.schema([BOOKS.field(name) for name in COLUMNS])).to_pylist():
        name = shard_name([book["book_id"]])
        if name in done:
            continue
        rows = list(chunk_book(book, settings, theme))
        if rows:
            chunks.write_table(rows_table(rows, CHUNKS), name)
        else:
            reject = {"id": book["book_id"], "reason": "no_chunk", "detail": f"{book['title']}: shorter than a chunk", "raw": None}
            rejects.write_table(rows_table([reject], REJECTS), name)
        yield {"book_id": book["book_id"], "kept": sum(chunk["kept"] for chunk in rows)}


def chunk_book(book: Row, settings: CorpusConfig, theme: Theme) -> Iterator[Row]:
    """The scored chunks of one book; a chunk that repeats an earlier one of the book is its twin."""
    if settings.method == "paragraph":
        pieces = chunk_paragraphs(book["text"], start=book["body_start"], size=settings.size, minimum=settings.minimum)
    else:
        pieces = chunk_overlap(
            book["text"], start=book["body_start"], size=settings.size, overlap=settings.overlap, minimum=settings.minimum
        )
    for piece in pieces:
        counts = theme.matcher.counts(piece.text)
        total = sum(counts.values())
        refused = decide(counts, total, min_matches=settings.min_matches, min_themes=settings.min_themes)
        reason = "too_short" if len(piece.text) < settings.minimum else refused.reason if refused else None
        yield {
            "chunk_id": f"{book['book_id']}:{piece.start}-{piece.end}",
            "book_id": book["book_id"],
            "title": book["title"],
            "start": piece.start,
            "end": piece.end,
            "text": piece.text,
            "themes": counts,
            "total": total,
            "score": score(counts, len(piece.text)),
            "kept": reason is None,
            "reason": reason,
            "twin_of": None,
        }


def mark_twins(books: Folder, chunks: Folder) -> None:
    """Drop passages whose normalised text an earlier one has, in the order in which the books came: the first stays.

    So a book that is added later changes no chunk of those before it.
    """
    first: dict[str, str] = {}
    came = books.read_table(BOOKS, ["fetched_at", "book_id"]).sort_by([("fetched_at", "ascending"), ("book_id", "ascending")])
    shards = {shard.name: shard for shard in chunks.files(".parquet")}
    for book_id in came["book_id"].to_pylist():
        shard = shards.get(f"{shard_name([book_id])}.parquet")
        if shard is None:
            continue
        table = shard.read_shard(CHUNKS)
        rows: list[dict[str, Any]] = table.to_pylist(maps_as_pydicts="strict")
        changed = False
        for row in rows:
            if not (row["kept"] or row["reason"] == "twin"):
                continue
            original = first.setdefault(exact_key(row["text"]), row["chunk_id"])
            twin = original if original != row["chunk_id"] else None
            if twin != row["twin_of"]:
                row |= {"kept": twin is None, "reason": "twin" if twin else None, "twin_of": twin}
                changed = True
        if changed:
            chunks.write_table(rows_table(rows, CHUNKS), shard.name.removesuffix(".parquet"))
