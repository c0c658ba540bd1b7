"""What the benchmarks share about books: a folder of Project Gutenberg texts in, the books table of a run out."""

import argparse
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepred_ray.config import Config
from deepred_ray.runs import Manifest, Run, settings_of
from deepred_ray.schema import BOOKS
from deepred_ray.stages.acquire import BOOKS_A_SHARD
from deepred_ray.storage import rows_table, shard_name
from deepred_ray.text import decoding, gutenberg
from deepred_ray.text.reject import Reject
from deepred_ray.theme import SHIPPED, Theme

THEME = "deepred"
PRIORITY = SHIPPED / THEME / "priority_works.tsv"
_FILE = re.compile(r"(?:pg)?(\d+)(?:-[08])?\.txt")
_VARIANTS = ("{id}-0.txt", "pg{id}.txt", "{id}-8.txt", "{id}.txt")  # best first: those in UTF-8, then one byte a character


@dataclass(frozen=True, slots=True)
class Book:
    """A book without boilerplate; its chunks begin at `body_start`, an offset in `text`."""

    book_id: str
    title: str
    text: str
    body_start: int

    @property
    def body(self) -> str:
        return self.text[self.body_start :]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `chosen_books` reads."""
    parser.add_argument("folder", type=Path, help="folder of Project Gutenberg .txt files, such as a mirror's files/")
    parser.add_argument(
        "--ids",
        type=Path,
        default=PRIORITY,
        help="TSV file with a header, whose first column has the ids to take, or `all` (default: the theme's priority works)",
    )
    parser.add_argument("--books", type=int, help="take only the first so many of them, for a quick try")


def chosen_books(options: argparse.Namespace) -> list[Book]:
    """The books that the arguments ask for. Ends the program if there are none."""
    ids = None if str(options.ids) == "all" else read_ids(options.ids)
    books = list(read_books(options.folder, ids, options.books))
    if not books:
        sys.exit(f"{options.folder} has none of the books of {options.ids}")
    return books


def read_ids(path: Path) -> list[str]:
    return [line.split("\t")[0] for line in path.read_text("utf-8").splitlines()[1:]]


def read_books(folder: Path, ids: Iterable[str] | None = None, most: int | None = None) -> Iterator[Book]:
    """The books with these ids that the folder has, in the order of the ids, or all of them by number; `most` of them at most.

    Of several variants the best is taken. A file that is refused is named on stderr.
    """
    variants: dict[str, dict[str, Path]] = {}
    for path in folder.rglob("*.txt"):
        if match := _FILE.fullmatch(path.name):
            variants.setdefault(match[1], {})[path.name] = path
    read = 0
    for book_id in sorted(variants, key=int) if ids is None else ids:
        if read == most:
            return
        there = variants.get(book_id, {})
        best = next((there[name] for name in (variant.format(id=book_id) for variant in _VARIANTS) if name in there), None)
        if best is None:
            continue
        book = open_book(book_id, best.read_bytes())
        if isinstance(book, Reject):
            print(f"left out {best}: {book.reason}, {book.detail}", file=sys.stderr)
            continue
        read += 1
        yield book


def open_book(book_id: str, raw: bytes) -> Book | Reject:
    decoded = decoding.decode(raw)
    if isinstance(decoded, Reject):
        return decoded
    stripped = gutenberg.strip(decoded.text)
    if isinstance(stripped, Reject):
        return stripped
    return Book(book_id, gutenberg.parse_header(decoded.text).title or book_id, stripped.text, stripped.body_start)


def write_run(root: Path, name: str, books: Iterable[Book]) -> Run:
    """A run whose acquire is whole, so that `deepred corpus --data-root ROOT --run NAME` can go on from there.

    Shards are as acquire writes them; one at a time is held in memory.
    """
    run = Run(str(root), name)
    identity, growth = settings_of(Config(run=name), "acquire", Theme.find(THEME).hashes())
    run.begin("acquire", identity, growth, {})
    written = 0
    shard: list[Book] = []
    for book in books:
        shard.append(book)
        written += 1
        if len(shard) == BOOKS_A_SHARD:
            write_shard(run, shard)
            shard = []
    if shard:
        write_shard(run, shard)
    run.finish(Manifest("acquire", "books", written, written, {}, 0.0, identity=identity, growth=growth))
    return run


def write_shard(run: Run, books: list[Book]) -> None:
    now = int(time.time())
    rows: list[dict[str, Any]] = [
        dict.fromkeys(BOOKS.names)
        | {"book_id": book.book_id, "title": book.title, "text": book.text, "body_start": book.body_start, "fetched_at": now}
        for book in books
    ]
    run.table("books").write_table(rows_table(rows, BOOKS), shard_name(book.book_id for book in books))
