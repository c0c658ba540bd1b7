"""Books from local files, as the rows that the mirror's actor gives."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from deepred_ray.errors import InputError
from deepred_ray.stages.selection import Wish
from deepred_ray.stages.tables import Row
from deepred_ray.storage import refuse_extensions
from deepred_ray.text.jsonl import json_value

LOCAL_SUFFIXES = (".txt", ".jsonl", ".parquet")
COLUMNS = ("id", "title", "author", "text")  # and `year`, which may be missing
ROWS_AT_ONCE = 64
BLOCK_BYTES = 8 * 2**20  # of raw books that the next step gets at once: small, so that several can work
NO_BOOK = re.compile(r".*-readme|readme|licen[cs]e", re.I)  # stems of files that lie beside books
VARIANT = re.compile(r"(?P<book>\d+)(?P<variant>-0|-8|)")  # Project Gutenberg's names of one book in several encodings
VARIANTS = ("-0", "-8", "")  # UTF-8 first


def local_rows(inputs: tuple[str, ...]) -> ray.data.Dataset:
    """Rows of all books in files and folders, read one after another. Raises InputError as `local_files` does."""
    files = local_files(inputs)
    rows = ray.data.from_items([{"path": str(path)} for path in files], override_num_blocks=min(len(files), 4000)).flat_map(
        ReadLocal,
        compute=ray.data.ActorPoolStrategy(size=1),  # the one that knows all ids
        num_cpus=0.1,
    )
    rows.context.target_max_block_size = BLOCK_BYTES
    return rows


def local_files(inputs: tuple[str, ...]) -> list[Path]:
    """The files, each once; of a folder those that can be books, one variant of each.

    Raises:
        InputError: a path is missing, a folder has no book, or a table lacks a column.
    """
    files: list[Path] = []
    for name in inputs:
        path = Path(name).expanduser().resolve()
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix in LOCAL_SUFFIXES and not NO_BOOK.fullmatch(file.stem))
            if not found:
                raise InputError(f"{path} has no {', '.join(LOCAL_SUFFIXES)} file")
            files += best_variants(found)
        elif path.is_file() and path.suffix in LOCAL_SUFFIXES:
            files.append(path)
        else:
            raise InputError(f"{path} is no {', '.join(LOCAL_SUFFIXES)} file or folder of such")
    files = list(dict.fromkeys(files))
    for path in files:
        if path.suffix == ".parquet":
            refuse_columns(path)
    return files


def best_variants(files: list[Path]) -> list[Path]:
    """Without the 8-bit and ASCII files of a book whose UTF-8 file lies in the same folder."""
    best: dict[Any, Path] = {}
    for path in files:
        match = VARIANT.fullmatch(path.stem) if path.suffix == ".txt" else None
        key = (path.parent, match["book"]) if match else path
        other = best.get(key)
        if match is None or other is None or VARIANTS.index(match["variant"]) < VARIANTS.index(other.stem[len(match["book"]) :]):
            best[key] = path
    return list(best.values())


def refuse_columns(path: Path) -> None:
    """Raises InputError unless the file is Parquet with the columns of books, and no column that runs code."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no Parquet file: {error}") from error
    refuse_extensions(schema, path)
    if missing := [name for name in COLUMNS if name not in schema.names]:
        raise InputError(f"{path} has no column {', '.join(missing)}", f"A table of books has the columns {', '.join(COLUMNS)}.")


class ReadLocal:
    """INPUT path; OUTPUT the same columns as FetchBooks; fan-out 1:n. Of several books with one id the first is the book."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}  # where an id was first seen

    def __call__(self, row: Row) -> Iterator[Row]:
        path = Path(row["path"])
        try:
            for where, url, item in items(path):
                yield self.read(path, where, url, item)
        except (OSError, pa.ArrowException) as error:
            yield raw_row(Wish(str(path)), b"", f"{path}: {error}", "unreadable_file")

    def read(self, path: Path, where: str, url: str, item: Any) -> Row:
        """One book, or a reject whose id is the place it was read from."""
        try:
            wish, body = (Wish(path.stem), item) if path.suffix == ".txt" else parse(item)
        except ValueError as error:
            return raw_row(Wish(where), item if isinstance(item, bytes) else b"", f"{where}: {error}", "malformed_row")
        first = self.first.setdefault(wish.book_id, where)
        if first != where:
            return raw_row(Wish(where), b"", f"{where}: id {wish.book_id!r} is that of {first}", "duplicate_id")
        return raw_row(wish, body, url)


def items(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Place, URL and content of each book in a file: bytes of a .txt or of a line of JSON, or a row of a table.

    No more than a line, or a batch of rows, is in memory at once.
    """
    if path.suffix == ".txt":
        yield str(path), path.as_uri(), path.read_bytes()
    elif path.suffix == ".jsonl":
        with path.open("rb") as lines:  # of bytes: a text may hold what Unicode takes for a line end
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}:{number}", f"{path.as_uri()}#{number}", line
    else:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**16) as table:  # else it is in memory as a whole
            columns = [name for name in (*COLUMNS, "year") if name in table.schema_arrow.names]
            batches = table.iter_batches(ROWS_AT_ONCE, columns=columns)
            for number, fields in enumerate((fields for batch in batches for fields in batch.to_pylist()), 1):
                yield f"{path}:{number}", f"{path.as_uri()}#{number}", fields


def parse(item: bytes | Row) -> tuple[Wish, bytes]:
    """Wish and text of a line of JSON, or of a row of a table.

    Raises:
        ValueError: it is no JSON object, or a field is missing or of another type.
    """
    fields = json_value(item) if isinstance(item, bytes) else item
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    if isinstance(fields.get("id"), int) and not isinstance(fields["id"], bool):
        fields["id"] = str(fields["id"])
    for name in COLUMNS:
        if not isinstance(fields.get(name), str) or (name == "id" and not fields[name].strip()):
            raise ValueError(f"no {name}" if fields.get(name) in (None, "") else f"{name} is no text: {fields[name]!r:.40}")
        fields[name].encode()  # a lone surrogate, which JSON can spell, is no text either
    year = fields.get("year")
    if isinstance(year, float) and year.is_integer():
        year = int(year)  # as pandas writes a column in which some are missing
    if year is not None and (not isinstance(year, int) or isinstance(year, bool) or abs(year) > 9999):
        raise ValueError(f"year is no year: {year!r:.40}")
    authors = (fields["author"],) if fields["author"] else ()
    return Wish(fields["id"], fields["title"], authors, year=year), fields["text"].encode()


def raw_row(wish: Wish, body: bytes, url: str, problem: str = "") -> Row:
    return {"wish": json.dumps(asdict(wish)), "raw": body, "url": url, "problem": problem, "fetched_at": int(time.time())}


def is_new(row: Row, done: frozenset[str]) -> bool:
    return json.loads(row["wish"])["book_id"] not in done
