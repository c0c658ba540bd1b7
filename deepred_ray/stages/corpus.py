"""corpus: chunks of the books, scored by the theme's lexicon; a kept chunk is a passage.

INPUT   books/
OUTPUT  chunks/ (schema.CHUNKS), rejects/corpus/ (books without a chunk)
fan-out one row a chunk; a dropped chunk is a row with `kept` false and its reason

First every book by itself, on all CPUs: chunk, score, decide, and sign the passages for the search of twins. Then all
signatures in the order in which the books came, in one task: near-duplicates are dropped, with their twin named.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from deepred_ray import logs, metrics, models, placement
from deepred_ray.config import Config, CorpusConfig
from deepred_ray.console import Meter, counts_text
from deepred_ray.errors import InputError
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import BOOKS, CHUNKS, REJECTS
from deepred_ray.stages.tables import Row, score_columns
from deepred_ray.storage import Folder, rows_table, shard_name
from deepred_ray.text.chunking import Chunk, Measure, characters, chunk_overlap, chunk_paragraphs
from deepred_ray.text.dedup import PERMUTATIONS, NearDuplicates, signature
from deepred_ray.text.themes import Scorer, verdicts
from deepred_ray.theme import Theme

COLUMNS = ["book_id", "title", "text", "body_start"]
VERDICTS = pa.schema([CHUNKS.field(name) for name in ("chunk_id", "kept", "reason", "twin_of")])
SIGNATURE_BYTES = 4 * PERMUTATIONS
BOOKS_A_REPORT = 20


@dataclass(frozen=True)
class Tables:
    """Where the stage reads and writes. `signatures` has a file a book: those of its passages, twins included, in order."""

    books: Folder
    chunks: Folder
    signatures: Folder
    rejects: Folder

    @classmethod
    def of(cls, run: Run) -> "Tables":
        return cls(run.table("books"), run.table("chunks"), run.table("corpus/signatures"), run.table("rejects/corpus"))


def run(run: Run, config: Config, theme: Theme) -> Manifest:
    """Chunk the books that have no chunks yet; each book's chunks are one shard, so that a killed run goes on by book.

    Raises:
        InputError: no passage was kept.
    """
    tables, settings = Tables.of(run), config.corpus
    tokenizer = models.resolve(settings.tokenizer) if settings.tokenizer else None
    finished = [*tables.chunks.files(".parquet"), *tables.rejects.files(".parquet")]
    done = frozenset(file.name.removesuffix(".parquet") for file in finished)
    shards = tables.books.files(".parquet")
    total = tables.books.read_table(BOOKS, ["book_id"]).num_rows
    # One task a shard of books: a task's rows are whole books, and a book is never split over tasks.
    tasks = ray.data.from_items([{"path": shard.path} for shard in shards], override_num_blocks=max(1, len(shards)))
    chunk = partial(chunk_shard, tables=tables, done=done, settings=settings, theme=theme, tokenizer=tokenizer)
    chunked = tasks.flat_map(chunk, **placement.options(settings.resources))
    seen = kept = 0
    with Meter("corpus", total, "books") as meter:
        meter.update(seen := len(done))
        for batch in chunked.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            seen += batch.num_rows
            kept += pc.sum(batch["kept"]).as_py() or 0
            meter.update(seen, f"{kept} passages kept")
    counts: Counter[str] = Counter()
    growing = metrics.Growing()
    with Meter("twins", total, "books") as meter:
        task = mark_twins.options(**placement.options(settings.resources))
        for report in task.remote(tables, settings.near_duplicates, settings.remembered):
            seen, counts = ray.get(report)
            growing.rows(counts)
            meter.update(seen, f"{counts['twin']} twins")
    passages = counts.pop("", 0)
    if not passages:
        raise InputError(
            f"corpus kept no passage ({counts_text(counts) or 'there were no books'})",
            "Lower --min-score or --corpus.minimum, or acquire more books.",
        )
    outputs = {"books": total, "books_without_chunks": tables.rejects.read_table(REJECTS).num_rows}
    return Manifest("corpus", "chunks", passages + counts.total(), passages, dict(counts), 0.0, outputs=outputs)


def chunk_shard(
    row: Row, tables: Tables, done: frozenset[str], settings: CorpusConfig, theme: Theme, tokenizer: str | None
) -> Iterator[Row]:
    """INPUT path of a shard of books; OUTPUT book_id and kept, once a book's chunks are written; fan-out 1:n."""
    logs.enter("corpus")
    shard = Folder(tables.books.filesystem, row["path"])
    for book in shard.read_shard(pa.schema([BOOKS.field(name) for name in COLUMNS])).to_pylist():
        name = shard_name([book["book_id"]])
        if name in done:
            continue
        pieces = cut(book, settings, measure_of(tokenizer))
        kept = 0
        if pieces:
            table = chunk_table(book, pieces, settings, theme.scorer)
            passages = table.filter(table["kept"])["text"].to_pylist()
            kept = len(passages)
            if kept:
                signatures = np.stack([signature(text) for text in passages])
                (tables.signatures / name).write_bytes(signatures.tobytes())
            tables.chunks.write_table(table, name)  # last: a book with chunks is done
        else:
            reject = {"id": book["book_id"], "reason": "no_chunk", "detail": f"{book['title']}: shorter than a chunk", "raw": None}
            tables.rejects.write_table(rows_table([reject], REJECTS), name)
        logs.note("rows written", rows=max(1, len(pieces)))
        yield {"book_id": book["book_id"], "kept": kept}


def cut(book: Row, settings: CorpusConfig, measure: Measure) -> list[Chunk]:
    """The chunks of one book."""
    by_method: dict[str, Callable[..., list[Chunk]]] = {
        "paragraph": chunk_paragraphs,
        "overlap": partial(chunk_overlap, overlap=settings.overlap),
    }
    chunks = by_method[settings.method]
    return chunks(book["text"], start=book["body_start"], size=settings.size, minimum=settings.minimum, measure=measure)


@cache
def measure_of(tokenizer: str | None) -> Measure:
    """How a chunk's length is told: in the tokens of a resolved model, or in characters."""
    if tokenizer is None:
        return characters
    from transformers import AutoTokenizer

    encoder = AutoTokenizer.from_pretrained(models.here(tokenizer), **models.loading()).backend_tokenizer
    return lambda texts: [len(encoding) for encoding in encoder.encode_batch_fast(list(texts), add_special_tokens=False)]


def chunk_table(book: Row, pieces: Sequence[Chunk], settings: CorpusConfig, scorer: Scorer) -> pa.Table:
    """The rows of chunks/ for one book."""
    texts = [piece.text for piece in pieces]
    scored = scorer.score(texts)
    refused = verdicts(scored, min_score=settings.min_score, min_matches=settings.min_matches)
    reasons = [
        "too_short" if piece.length < settings.minimum else reject.reason if reject else None
        for piece, reject in zip(pieces, refused, strict=True)
    ]
    columns = {
        "chunk_id": [f"{book['book_id']}:{piece.start}-{piece.end}" for piece in pieces],
        "book_id": [book["book_id"]] * len(pieces),
        "title": [book["title"]] * len(pieces),
        "start": [piece.start for piece in pieces],
        "end": [piece.end for piece in pieces],
        "text": texts,
        **score_columns(scored, scorer.lexicon.themes),
        "kept": [reason is None for reason in reasons],
        "reason": reasons,
        "twin_of": [None] * len(pieces),
    }
    return pa.table(columns, schema=CHUNKS)


@ray.remote(num_returns="streaming")
def mark_twins(tables: Tables, threshold: float, remembered: int) -> Iterator[tuple[int, Counter[str]]]:
    """Drop passages that repeat an earlier one, in the order in which the books came: the first stays.

    So a book that is added later changes no chunk of those before it. Yields, every few books, how many are through, and
    how many of their chunks were dropped for which reason ("" for the kept ones).
    """
    came = tables.books.read_table(BOOKS, ["fetched_at", "book_id"])
    came = came.sort_by([("fetched_at", "ascending"), ("book_id", "ascending")])["book_id"].to_pylist()
    signed = {file.name: file.size // SIGNATURE_BYTES for file in tables.signatures.files()}
    index = NearDuplicates(threshold, max(1, min(remembered, sum(signed.values()))))
    chunked = {file.name.removesuffix(".parquet") for file in tables.chunks.files(".parquet")}
    counts: Counter[str] = Counter()
    for number, name in enumerate((shard_name([book_id]) for book_id in came), 1):
        if name in chunked:
            verdicts = (tables.chunks / f"{name}.parquet").read_shard(VERDICTS)
            if name in signed:
                signatures = np.frombuffer((tables.signatures / name).read_bytes(), dtype=np.uint32).reshape(-1, PERMUTATIONS)
                marked = mark(verdicts, signatures, index)
                if not marked.equals(verdicts):
                    whole = (tables.chunks / f"{name}.parquet").read_shard(CHUNKS)
                    tables.chunks.write_table(with_columns(whole, marked), name)
                    verdicts = marked
            counts += Counter(reason or "" for reason in verdicts["reason"].to_pylist())
        if number % BOOKS_A_REPORT == 0 or number == len(came):
            yield number, counts


def mark(verdicts: pa.Table, signatures: np.ndarray, index: NearDuplicates) -> pa.Table:
    """A book's verdicts with its twins marked; `signatures` has a row for each passage, twins included, in order."""
    rows = verdicts.to_pylist()
    passages = (row for row in rows if row["kept"] or row["reason"] == "twin")
    for row, values in zip(passages, signatures, strict=True):
        twin = index.add_signature(row["chunk_id"], values)
        row |= {"kept": twin is None, "reason": "twin" if twin else None, "twin_of": twin}
    return rows_table(rows, VERDICTS)


def with_columns(table: pa.Table, columns: pa.Table) -> pa.Table:
    """The table with some of its columns replaced."""
    for name in columns.column_names:
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), columns[name])
    return table
