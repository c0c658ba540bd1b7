"""The header that Project Gutenberg puts before a book: the marker that ends it, and its fields."""

import re
from dataclasses import dataclass

HEAD_CHARS = 40_000
START = re.compile(
    r"^[ \t]*(?:\*+[ \t]*)?START OF (?:(?:THE|THIS)\s+)?(?:COPYRIGHTED\s+)?PROJECT\s+GUTENBERG"
    r"(?:(?:(?!\n[ \t]*\n|\*\*\*).){0,400}?\*\*\*[^\n]*|[^\n]*)\n?",
    re.I | re.S | re.M,
)
_FIELD = re.compile(r"^[ \t]*([A-Z][A-Za-z]+(?: [A-Za-z]+){0,6}):[ \t]*(.*)$")
_OLD_TITLE = re.compile(
    r"^[ \t*]*(?:The |This is the )?Project Gutenberg(?:'s)? (?:(?:E-?text|E-?book)(?: of|,)? )?"
    r"((?:(?!\n[ \t]*\n|\*\*).){3,200})",
    re.I | re.M | re.S,
)
_ID = re.compile(r"\[(?:e-?book|e-?text)\s*#\s*(\d+)\]", re.I)
_RELEASE = re.compile(r"^[ \t]*(?:Release Date:[ \t]*)?((?:\w+ )*\w+,? \d{4})[ \t]*\[(?:e-?book|e-?text)\s*#", re.I | re.M)
_PUBLICATION = ("original publication", "date of first publication", "edition used as base for this ebook")


@dataclass(frozen=True, slots=True)
class Header:
    """Fields of the file's own header as they stand there; None, or no author, where the header does not say."""

    title: str | None
    authors: tuple[str, ...]
    language: str | None
    release: str | None
    encoding: str | None
    ebook_id: str | None


def parse_header(text: str) -> Header:
    """Read the header above the START marker; values may go on over several lines up to a blank one.

    Older files have no fields: their first line ("The Project Gutenberg Etext of TITLE, by AUTHOR") serves instead.
    The release date is the date of the file, never of the book.
    """
    start = START.search(text, 0, HEAD_CHARS)
    head = text[: start.start() if start else 5_000]
    fields = _fields(head)

    def first(name: str) -> str | None:
        return next((value for value in fields.get(name, []) if value), None)

    title = first("title")
    names = [value for key in ("author", "authors") for value in fields.get(key, []) if value]
    old = _OLD_TITLE.search(head)
    if old and (title is None or not names):
        line = re.sub(r"[\s*]+", " ", old[1]).strip(" .")
        old_title, _, by = line.rpartition(", by ")
        title = title or re.sub(r"\s*[\[#].*", "", old_title or line)
        names = names or ([re.sub(r"\s*[\[#(].*", "", by)] if old_title else [])
    release = first("release date")
    release = re.sub(r"^Release Date:\s*|\s*\[.*", "", release) if release else None
    old_release = _RELEASE.search(head)
    number = _ID.search(head)
    return Header(
        title=title or None,
        authors=tuple(name for value in names for name in re.split(r"\s*;\s*|\s+and\s+", value) if name),
        language=first("language"),
        release=release or (old_release[1] if old_release else None),
        encoding=first("character set encoding"),
        ebook_id=number[1] if number else None,
    )


def publication_notes(head: str) -> str:
    """What a header says of the first print, one field a line; most headers say nothing of it."""
    fields = _fields(head)
    return "\n".join(f"{name.capitalize()}: {value}" for name in _PUBLICATION for value in fields.get(name, []) if value)


def _fields(head: str) -> dict[str, list[str]]:
    """Every "Name: value" of a header under its name in lower case."""
    fields: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in head.split("\n"):
        match = _FIELD.match(line)
        if match:
            current = fields.setdefault(" ".join(match[1].lower().split()), [])
            current.append(match[2].strip())
        elif not line.strip():
            current = None
        elif current is not None:
            current[-1] = f"{current[-1]} {line.strip()}".strip()
    return fields
