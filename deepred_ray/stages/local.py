"""Books from local files, as the rows that the mirror's actor gives."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from deepred_ray.errors import InputError
from deepred_ray.stages.selection import Wish
from deepred_ray.stages.tables import Row

LOCAL_SUFFIXES = (".txt", ".jsonl", ".parquet")


def local_files(inputs: tuple[str, ...]) -> list[Path]:
    """Raises InputError for a path that is missing or a folder without books."""
    files: list[Path] = []
    for name in inputs:
        path = Path(name).expanduser().resolve()
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix in LOCAL_SUFFIXES)
            if not found:
                raise InputError(f"{path} has no {', '.join(LOCAL_SUFFIXES)} file")
            files += found
        elif path.is_file() and path.suffix in LOCAL_SUFFIXES:
            files.append(path)
        else:
            raise InputError(f"{path} is no {', '.join(LOCAL_SUFFIXES)} file or folder of such")
    return files


def read_local(row: Row) -> Iterator[Row]:
    """INPUT path; OUTPUT the same columns as FetchBooks; fan-out 1:n. JSONL and Parquet rows have id, title, author, text."""
    path = Path(row["path"])
    if path.suffix == ".txt":
        yield raw_row(Wish(path.stem), path.read_bytes(), path.as_uri())
        return
    if path.suffix == ".parquet":
        numbered: Iterator[tuple[int, Any]] = enumerate(pq.read_table(path).to_pylist(), 1)
    else:
        numbered = enumerate(path.read_bytes().splitlines(), 1)  # of bytes: a text may hold what Unicode takes for a line end
    for number, item in numbered:
        where = f"{path.name}:{number}"
        try:
            fields = json.loads(item) if isinstance(item, bytes) else item
            if missing := [name for name in ("id", "title", "author", "text") if fields[name] is None]:
                raise ValueError(f"no {', '.join(missing)}")
            wish = Wish(str(fields["id"]), str(fields["title"]), (str(fields["author"]),))
            body = str(fields["text"]).encode()
        except (ValueError, KeyError, TypeError) as error:
            yield raw_row(Wish(where), b"", f"{where}: {error!r}", "malformed_row")
        else:
            yield raw_row(wish, body, f"{path.as_uri()}#{number}")


def raw_row(wish: Wish, body: bytes, url: str, problem: str = "") -> Row:
    return {"wish": json.dumps(asdict(wish)), "raw": body, "url": url, "problem": problem, "fetched_at": int(time.time())}


def is_new(row: Row, done: frozenset[str]) -> bool:
    return json.loads(row["wish"])["book_id"] not in done
