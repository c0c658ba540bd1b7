"""Project Gutenberg's catalogue: one CSV row a book, and the selection of books by subject."""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

COLUMNS = ("Text#", "Type", "Title", "Language", "Authors", "Subjects", "Bookshelves")
# "Verne, Jules, 1828-1905", "Plato, 428? BCE-348? BCE", "Bellamy, Edward, 1850-"; a role may follow in brackets.
_LIFE = re.compile(r",\s*(?P<birth>\d{1,4}\??(?:\s*BCE)?)?-(?P<death>\d{1,4}\??(?:\s*BCE)?)?\s*(?:\[[^\]]*\])?$")
_ROLE = re.compile(r"\s*\[[^\]]*\]$")


@dataclass(frozen=True, slots=True)
class Entry:
    """A book of the catalogue. Years are the first author's, negative before our era, None where unknown."""

    book_id: int
    title: str
    authors: tuple[str, ...]
    birth_year: int | None
    death_year: int | None
    language: str
    subjects: tuple[str, ...]


def parse(text: str) -> dict[int, Entry]:
    """Entries of type Text by id.

    Raises:
        ValueError: a column is missing, or a row is no book; the message names it.
    """
    reader = csv.DictReader(io.StringIO(text))
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"not Gutenberg's catalogue: no column {', '.join(missing)}")
    entries = {}
    for row in reader:
        if None in row.values():
            raise ValueError(f"catalogue line {reader.line_num}: the row breaks off")
        if row["Type"] != "Text":
            continue
        try:
            book_id = int(row["Text#"])
        except ValueError as error:
            raise ValueError(f"catalogue line {reader.line_num}: Text# is {row['Text#']!r}") from error
        authors = split(row["Authors"])
        birth, death = life(authors[0]) if authors else (None, None)
        entries[book_id] = Entry(
            book_id,
            " ".join(row["Title"].split()),
            tuple(_LIFE.sub("", _ROLE.sub("", author)) for author in authors),
            birth,
            death,
            row["Language"],
            split(row["Subjects"]) + split(row["Bookshelves"]),
        )
    return entries


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


def select(
    entries: Mapping[int, Entry], priority: Sequence[int], subjects: Collection[str], language: str, limit: int
) -> list[int]:
    """The priority ids, then the entries with the most of `subjects` in their headings, up to `limit` ids in all."""
    if not subjects:
        return list(priority)
    # Not \b: a heading such as "Mars (Planet)" ends in no letter.
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, subjects))})(?!\w)", re.I)
    first = set(priority)
    scored = [
        (-len({hit.lower() for hit in pattern.findall(" ; ".join(entry.subjects))}), entry.book_id)
        for entry in entries.values()
        if entry.book_id not in first and language in entry.language.split("; ")
    ]
    fitting = [book_id for score, book_id in sorted(scored) if score < 0]
    return [*priority, *fitting][: max(limit, len(priority))]
