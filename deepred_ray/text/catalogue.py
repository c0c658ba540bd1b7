"""Project Gutenberg's catalogue: one CSV row a book."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

COLUMNS = ("Text#", "Type", "Title", "Language", "Authors", "Subjects", "Bookshelves")
# "Verne, Jules, 1828-1905", "Plato, 428? BCE-348? BCE", "Bellamy, Edward, 1850-"; a role may follow in brackets.
_LIFE = re.compile(r",\s*(?P<birth>\d{1,4}\??(?:\s*BCE)?)?-(?P<death>\d{1,4}\??(?:\s*BCE)?)?\s*(?:\[[^\]]*\])?$")
_ROLE = re.compile(r"\s*\[[^\]]*\]$")
_GZIP = b"\x1f\x8b"
LARGEST = 2**28  # bytes of CSV; the whole catalogue has some 2**25


@dataclass(frozen=True, slots=True)
class Entry:
    """A book of the catalogue. Years are the first author's, negative before our era, None where unknown."""

    book_id: int
    title: str
    authors: tuple[str, ...]
    birth_year: int | None
    death_year: int | None
    languages: tuple[str, ...]
    subjects: tuple[str, ...]
    bookshelves: tuple[str, ...]


def unpack(data: bytes) -> bytes:
    """The catalogue's CSV out of what a mirror sent, gzipped or not. Raises ValueError for a gzip that is damaged, or that unpacks
    to more than any catalogue."""
    if not data.startswith(_GZIP):
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            text = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"damaged gzip: {error}") from error
    if len(text) > LARGEST:
        raise ValueError(f"the gzip unpacks to more than {LARGEST:,} bytes")
    return text


def read(data: bytes) -> dict[int, Entry]:
    """Entries of type Text by id, out of what a mirror sent. Raises ValueError as `unpack` and `parse` do, and for no UTF-8."""
    try:
        return parse(unpack(data).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"catalogue line {line}: byte {error.object[error.start]:#04x} is not UTF-8") from error


def parse(text: str) -> dict[int, Entry]:
    """Entries of type Text by id, out of the catalogue's CSV.

    Raises:
        ValueError: this is not the catalogue, it breaks off, it has no book, or a row is no book or contradicts another;
            the message names the line.
    """
    if "\0" in text:
        raise ValueError(f"catalogue line {text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL byte")
    rows = _rows(text)
    _, header = next(rows, (1, []))
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise ValueError(f"not Gutenberg's catalogue: no column {', '.join(missing)}; it begins {text[:40]!r}")
    columns = [header.index(column) for column in COLUMNS]
    entries: dict[int, Entry] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"catalogue line {line}: the row has {len(row)} columns of {len(header)}")
        number, kind, title, language, authors, subjects, bookshelves = (row[column] for column in columns)
        if kind != "Text":
            continue
        if not (number.isascii() and number.isdigit()):
            raise ValueError(f"catalogue line {line}: Text# is {number!r}")
        entry = _entry(int(number), title, language, authors, subjects, bookshelves)
        if entries.setdefault(entry.book_id, entry) != entry:
            raise ValueError(f"catalogue line {line}: Text# {number} has another row that says otherwise")
    if not text.endswith("\n"):
        raise ValueError(f"catalogue line {text.count(chr(10)) + 1}: the file breaks off here")
    if not entries:
        raise ValueError("the catalogue has no row of type Text")
    return entries


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line it begins at, cells) of every row. Raises ValueError where the text is not CSV."""
    # Strict, or a file that breaks off inside quotes would pass for a long last cell.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"catalogue line {line}: {error}") from error


def _entry(book_id: int, title: str, language: str, authors: str, subjects: str, bookshelves: str) -> Entry:
    headings = split(authors)
    birth, death = life(headings[0]) if headings else (None, None)
    return Entry(
        book_id,
        " ".join(title.split()),
        tuple(_LIFE.sub("", _ROLE.sub("", heading)) for heading in headings),
        birth,
        death,
        split(language),
        split(subjects),
        split(bookshelves),
    )


def split(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(";") if part.strip())


def life(author: str) -> tuple[int | None, int | None]:
    """Birth and death year out of an author's heading."""
    found = _LIFE.search(author)
    return (year(found["birth"]), year(found["death"])) if found else (None, None)


def year(text: str | None) -> int | None:
    if not text:
        return None
    number = int(re.sub(r"\D", "", text))
    return -number if "BCE" in text else number
