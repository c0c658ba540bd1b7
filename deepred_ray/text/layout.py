"""What the blank lines, line ends and columns of a book mean, and its paragraphs in legible form.

Paragraphs are what blank lines part, and lines end in "\\n". Hard-wrapped prose is joined to one line; verse, diagrams,
tables and lists keep their lines.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

BETWEEN: Final = "\n\n"
"""What stands between two paragraphs in legible form."""

_BLANKS: Final = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_GAP = re.compile(r"\n[^\S\n]*\n\s*")

# A dash that ends a wrapped line stood inside a line before the wrapping: no space belongs after it.
_WRAPPED_DASH = re.compile(r"(?<=\w[-\u2014]|--)\n[ \t]*(?=\w)")
_COLUMNS = re.compile(r"\S(?: {3,}|\t+)\S|\|.*\||[-=+_]{8}|(?:[.#*o+] ){7}")
_STARTS_LOWER = re.compile(r"\n[a-z]")

# Titles: "Chapter 7", "BOOK THE FIRST. Of the sea", "Epilogue", "XII", "IV. The Landing", "3.", "THE LANDING".
_SECTION = re.compile(
    r"(?:(?:chapter|book|part|act|scene|section|letter|volume|canto|stave|appendix)\s+(?:the\s+)?"
    r"(?:[ivxlc]+|\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|first|second|third|last|\w+th|\w+teen)\b"
    r"|(?:prologue|epilogue|preface|foreword|introduction|conclusion|appendix)\.?\Z|[IVXLC]+\.\s+[A-Z]|(?:[ivxlc]+|\d+)\.?\Z)",
    re.IGNORECASE,
)
_CAPTION = re.compile(r"(?:diag|diagram|fig|figure)\b\.?\s+\d", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{3}")
_OPENING: Final = "\"'\u201c\u2018([_"
_INDENT: Final = 40
_HEADING_LENGTH: Final = 80
_HEADINGS_LENGTH: Final = 200

# The end of a sentence: closed quotes or brackets after the stop, or else no abbreviation before it.
_SENTENCE_END = re.compile(
    r"([.!?\u2026](?:[\"'\u201d\u2019)\]_]+|(?<!\b[A-Zp]\.)(?<!\b(?:Mr|Ms|Dr|St|Jr|No|pp|cf|vs)\.)"
    r"(?<!\b(?:Mrs|Mme|Rev|Hon|Col|Gen|Nos|Vol|Fig|viz|i\.e|e\.g)\.)(?<!\b(?:Mlle|Prof|Capt|Chap)\.)"
    r"(?<!\bLieut\.)(?<!\bMessrs\.)))\s+"
)
_LINE_START = re.compile(r"\n\s*")


class Layout:
    """A text from offset `start` on, and the width to which it was wrapped."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self._start = start
        self._flat = text
        for blank in _BLANKS:
            self._flat = self._flat.replace(blank, " ")
        # Four lines of five are at most as long.
        lengths = sorted(map(len, filter(None, text[start:].split("\n"))))
        self._width = lengths[len(lengths) * 4 // 5] if lengths else 0

    def paragraphs(self) -> Iterator[tuple[int, int, str, bool, bool]]:
        """Yield of each paragraph its span, its legible text, whether it is laid out and whether it is a heading.

        A long run of headings is a table of contents, and only its first are headings.
        """
        run = 0
        apart = True
        for begin, raw, newlines in self._raw_paragraphs():
            end = begin + len(raw)
            laid_out = ("\n" in raw or "   " in raw) and _is_laid_out(raw, self._width)
            legible = self._with_lines(begin, end) if laid_out else self.in_one_line(begin, end)
            heading = len(raw) <= _HEADING_LENGTH and _is_heading(legible, apart)
            run = run + len(legible) + len(BETWEEN) if heading else 0
            yield begin, end, legible, laid_out, heading and run <= _HEADINGS_LENGTH
            apart = newlines > 2

    def _raw_paragraphs(self) -> Iterator[tuple[int, str, int]]:
        """Yield where each paragraph begins, the paragraph, blank ends trimmed off, and the line ends that follow it."""
        text = self.text
        begin = len(text) - len(text[self._start :].lstrip())
        for gap in _GAP.finditer(text, begin):
            at, following = gap.span()
            yield begin, text[begin:at].rstrip(), text.count("\n", at, following)
            begin = following
        if begin < len(text):
            yield begin, text[begin:].rstrip(), 0

    def in_one_line(self, start: int, end: int) -> str:
        """Return a span without blank ends joined to one line."""
        text = self.text
        if text.find("-\n", start, end) >= 0 or text.find("\u2014\n", start, end) >= 0:
            return " ".join(_WRAPPED_DASH.sub("", text[start:end]).split())
        line = self._flat[start:end]
        return " ".join(line.split()) if "  " in line else line

    def _with_lines(self, start: int, end: int) -> str:
        """Return a paragraph with its lines, less their common indent."""
        line = max(self.text.rfind("\n", 0, start) + 1, start - _INDENT)
        rows = self.text[start if self.text[line:start].strip() else line : end].split("\n")
        indent = min(len(row) - len(row.lstrip()) for row in rows)
        return "\n".join(row[indent:].rstrip() for row in rows)

    def sentences(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the span of each sentence of a span without blank ends."""
        for match in _SENTENCE_END.finditer(self.text, start, end):
            following = match.end()
            if not self.text[following].islower():
                yield start, match.end(1)
                start = following
        yield start, end

    def lines(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the span of each line, blank ends trimmed off, of a paragraph."""
        cuts = (match.end() for match in _LINE_START.finditer(self.text, start, end))
        for begin, after in pairwise([start, *cuts, end]):
            yield begin, begin + len(self.text[begin:after].rstrip())


def _is_laid_out(raw: str, width: int) -> bool:
    """Say whether the line ends of a paragraph mean something (verse, table, diagram, list, address), or its columns.

    They mean nothing where they are where wrapping put them: there, the first word of the next line had no room left.
    """
    lines = raw.split("\n")
    if len(lines) == 1:
        return _COLUMNS.search(raw) is not None and any(map(str.isalnum, raw))
    if "   " not in raw and "|" not in raw and _STARTS_LOWER.search(raw) and min(map(len, lines[:-1])) >= 0.75 * width:
        return False
    rows = [line.strip() for line in lines]
    if 2 * sum(_COLUMNS.search(row) is not None for row in rows) >= len(rows):
        return True
    capitals = sum(not row.lstrip(_OPENING)[:1].islower() for row in rows)
    if capitals >= 0.9 * len(rows) and (len(rows) >= 5 or width < 60):
        return True
    if 2 * _roomy(rows, width) <= len(rows) - 1:
        return False
    # Narrower than the book: a quotation wrapped to a measure of its own is still prose.
    quotation = len(rows) > 3 and capitals < 0.6 * len(rows) and 5 * _roomy(rows, max(map(len, rows))) <= len(rows) - 1
    return not quotation


def _roomy(rows: list[str], width: int) -> int:
    """Count the rows that the next row's first word would have fitted on, with 15 % of the width to spare."""
    return sum(len(row) + 1 + len(below.split(None, 1)[0]) < 0.85 * width for row, below in pairwise(rows))


def _is_heading(legible: str, apart: bool) -> bool:
    """Say whether a short paragraph heads what follows; `apart` when two blank lines or more stand before it."""
    if _SECTION.match(legible):
        return True
    if legible[0] in _OPENING or legible[-1] in ",;:?!-\u2014" or not _WORD.search(legible) or _CAPTION.match(legible):
        return False
    return legible.isupper() or (apart and legible[-1] != "." and "\n" not in legible)
