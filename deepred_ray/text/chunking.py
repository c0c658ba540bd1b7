"""Chunks of a book: paragraphs gathered to a size, or overlapping windows, with offsets back into the source.

Paragraphs are what blank lines part, and lines end in "\\n". Hard-wrapped prose is joined to one line; verse, diagrams,
tables and lists keep their lines. All sizes are in characters of a chunk's legible text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

_GAP = re.compile(r"\n[^\S\n]*\n\s*")
_BETWEEN: Final = "\n\n"

# A dash that ends a wrapped line stood inside a line before the wrapping: no space belongs after it.
_WRAPPED_DASH = re.compile(r"(?<=\w[-\u2014]|--)\n[ \t]*(?=\w)")
_COLUMNS = re.compile(r"\S(?: {3,}|\t+)\S|\|.*\||[-=+_]{8}|(?:[.#*o+] ){7}")
_STARTS_LOWER = re.compile(r"\n[a-z]")

_SENTENCE_END = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]_]*\s+")
_ABBREVIATED = re.compile(
    r"\b(?:Mr|Mrs|Ms|Messrs|Mme|Mlle|Dr|Prof|St|Rev|Hon|Capt|Col|Gen|Lieut|Jr|Nos?|Vol|Chap|Fig|pp?|cf|viz|vs|i\.e|e\.g"
    r"|[A-Z])\.\s+\Z"
)
_LONGEST_ABBREVIATION: Final = 12

# Titles: "Chapter 7", "BOOK THE FIRST. Of the sea", "Epilogue", "XII", "IV. The Landing", "3.", "THE LANDING".
_SECTION = re.compile(
    r"(?:(?:chapter|book|part|act|scene|section|letter|volume|canto|stave|appendix)\s+(?:the\s+)?"
    r"(?:[ivxlc]+|\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|first|second|third|last|\w+th|\w+teen)\b"
    r"|(?:prologue|epilogue|preface|foreword|introduction|conclusion|appendix)\.?\Z|[IVXLC]+\.\s+[A-Z]|(?:[ivxlc]+|\d+)\.?\Z)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]{3}")
_BLANK = re.compile(r"\s")
_NON_BLANK = re.compile(r"\S")
_LINE_START = re.compile(r"\n\s*")
_OPENING: Final = "\"'\u201c\u2018([_"
_INDENT: Final = 40
_HEADING_LENGTH: Final = 80
_HEADINGS_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a source text: its characters `start` to `end` (end excluded), and `text`, the same made legible."""

    start: int
    end: int
    text: str


class _Block(NamedTuple):
    """A paragraph or a part of one: its span, its legible text, and `joint`, what stands before it in a chunk."""

    start: int
    end: int
    text: str
    laid_out: bool
    heading: bool = False
    joint: str = _BETWEEN


class _Draft:
    """A chunk in the making: blocks that follow each other in the source."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.length = 0

    def _length_with(self, block: _Block) -> int:
        return self.length + len(block.text) + (len(block.joint) if self.blocks else 0)

    def fits(self, block: _Block, size: int) -> bool:
        """Say whether the draft with `block` at its end is no longer than `size`."""
        return self._length_with(block) <= size

    def add(self, block: _Block) -> None:
        """Put `block` at the end."""
        self.length = self._length_with(block)
        self.blocks.append(block)

    def can_end(self, minimum: int) -> bool:
        """Say whether the draft can stand as a chunk: it is long enough and no heading ends it."""
        return bool(self.blocks) and self.length >= minimum and not self.blocks[-1].heading

    def chunk(self) -> Chunk:
        """Return the finished chunk."""
        first, *others = self.blocks
        text = first.text + "".join(block.joint + block.text for block in others)
        return Chunk(first.start, self.blocks[-1].end, text)


def chunk_paragraphs(text: str, *, start: int = 0, size: int = 1024, minimum: int = 256) -> list[Chunk]:
    """Gather the paragraphs of `text` from offset `start` on into chunks of at most `size` characters.

    Every non-blank character from `start` on lies in exactly one chunk, in order. A heading begins a new chunk and
    stays with what follows it. A paragraph is cut, at the end of a sentence, only when it is longer than `size` or the
    chunk before it would else be shorter than `minimum`; a sentence, between words, only when it alone exceeds `size`.

    What would be shorter than `minimum` goes beyond `size` instead: it takes the next sentence, verse or diagram whole,
    or, at the end of a section or of the text, joins the chunk before. So no chunk is longer than
    `size + 3 * (minimum + 2) + 250` (250 for headings and an indentation), and none is shorter than `minimum` but the
    only chunk of a short text: its length is its mark.
    Raises ValueError for a size below 1, a minimum outside 0..size or a start outside the text.
    """
    _check(text, start, size, minimum)
    drafts = [_Draft()]
    headings: list[_Block] = []
    for block in _blocks(text, start):
        if block.heading:
            headings.append(block)
            continue
        _begin_section(drafts, headings, minimum)
        headings.clear()
        fits = drafts[-1].fits(block, size)
        if not fits and drafts[-1].can_end(minimum):
            drafts.append(_Draft())
            fits = len(block.text) <= size
        if fits or (block.laid_out and len(block.text) <= size):
            drafts[-1].add(block)
            continue
        for part in _parts(text, block, size):
            if drafts[-1].can_end(minimum) and not drafts[-1].fits(part, size):
                drafts.append(_Draft())
            drafts[-1].add(part)
    _begin_section(drafts, headings, minimum)
    if len(drafts) > 1 and drafts[-1].length < minimum:
        _join_last(drafts)
    return [draft.chunk() for draft in drafts if draft.blocks]


def _begin_section(drafts: list[_Draft], headings: list[_Block], minimum: int) -> None:
    """Put headings, if there are any, at the start of a new draft; into the last one while that is itself too short."""
    if not headings:
        return
    last = drafts[-1]
    if last.length < minimum and len(drafts) > 1 and not last.blocks[0].heading:
        _join_last(drafts)
        drafts.append(_Draft())
    elif last.blocks and last.length >= minimum:
        drafts.append(_Draft())
    for heading in headings:
        drafts[-1].add(heading)


def _join_last(drafts: list[_Draft]) -> None:
    """Add the last draft to the one before it."""
    last = drafts.pop()
    for block in last.blocks:
        drafts[-1].add(block)


def chunk_overlap(text: str, *, start: int = 0, size: int = 1024, overlap: int = 128, minimum: int = 256) -> list[Chunk]:
    """Cut `text` from offset `start` on into windows of whole sentences, each beginning inside the one before it.

    Here sizes are those of spans in the source, of which a window's text can fall short. A window takes sentences, and
    diagrams or verses whole, while they stay within `size` together; it takes one more while it is shorter than
    `minimum`, and a rest of the text shorter than `minimum` goes into the last window. The next window repeats the last
    whole sentences, at least `overlap` characters of them; fewer where those and the next sentence exceed `size`. Every
    non-blank character lies in a window.
    Raises ValueError as `chunk_paragraphs` does, and for an overlap outside 0..size-1.
    """
    _check(text, start, size, minimum)
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be at least 0 and less than the chunk size {size}, not {overlap}")
    atoms: list[_Block] = []
    for block in _blocks(text, start):
        whole = block.heading or (block.laid_out and block.end - block.start <= size)
        atoms.extend([block] if whole else _parts(text, block, size))
    chunks: list[Chunk] = []
    first = fresh = 0
    while fresh < len(atoms):
        after = _window_end(atoms, first, fresh, size, minimum)
        draft = _Draft()
        for atom in atoms[first:after]:
            draft.add(atom)
        chunks.append(draft.chunk())
        if after == len(atoms):
            break
        end = atoms[after - 1].end
        back = after
        while back > first + 1 and end - min(atoms[back].start, end) < overlap:
            back -= 1
        while back < after and atoms[after].end - atoms[back].start > size:
            back += 1
        first, fresh = back, after
    return chunks


def _window_end(atoms: list[_Block], first: int, fresh: int, size: int, minimum: int) -> int:
    """Return the index after the last atom of a window from atom `first`; those before `fresh` had one already."""

    def span(after: int) -> int:
        return atoms[after - 1].end - atoms[first].start

    after = fresh + 1
    while after < len(atoms) and (span(after + 1) <= size or span(after) < minimum):
        after += 1
    if after < len(atoms) and atoms[-1].end - atoms[after].start < minimum:
        return len(atoms)
    # A heading at the end belongs to the next window.
    trimmed = after
    while after < len(atoms) and trimmed > fresh + 1 and atoms[trimmed - 1].heading:
        trimmed -= 1
    return trimmed if span(trimmed) >= minimum else after


def _check(text: str, start: int, size: int, minimum: int) -> None:
    if size < 1:
        raise ValueError(f"chunk size must be at least 1, not {size}")
    if not 0 <= minimum <= size:
        raise ValueError(f"minimum must be from 0 to the chunk size {size}, not {minimum}")
    if not 0 <= start <= len(text):
        raise ValueError(f"start must lie in the text of {len(text)} characters, not at {start}")


def _blocks(text: str, start: int) -> Iterator[_Block]:
    """Yield the paragraphs of the text from `start` on, in order."""
    width = _line_width(text, start)
    run = 0
    apart = True
    for begin, end, newlines in _paragraphs(text, start):
        raw = text[begin:end]
        laid_out = ("\n" in raw or "   " in raw) and _is_laid_out(raw, width)
        legible = _legible(text, begin, end, laid_out)
        heading = len(raw) <= _HEADING_LENGTH and _is_heading(legible, apart)
        run = run + len(legible) + len(_BETWEEN) if heading else 0
        # A long run of headings is a table of contents, and is gathered like any other text.
        yield _Block(begin, end, legible, laid_out, heading and run <= _HEADINGS_LENGTH)
        apart = newlines > 2


def _paragraphs(text: str, start: int) -> Iterator[tuple[int, int, int]]:
    """Yield the span of each paragraph, blank ends trimmed off, and the line ends that part it from the next."""
    begin = len(text) - len(text[start:].lstrip())
    for gap in _GAP.finditer(text, begin):
        yield begin, begin + len(text[begin : gap.start()].rstrip()), gap.group().count("\n")
        begin = gap.end()
    if begin < len(text):
        yield begin, begin + len(text[begin:].rstrip()), 0


def _line_width(text: str, start: int) -> int:
    """Return the width to which the text was wrapped: four lines of five are at most as long."""
    lengths = sorted(len(line) for line in text[start:].split("\n") if line)
    return lengths[len(lengths) * 4 // 5] if lengths else 0


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
    if legible[0] in _OPENING or legible[-1] in ",;:?!-\u2014" or not _WORD.search(legible):
        return False
    return legible.isupper() or (apart and legible[-1] != "." and "\n" not in legible)


def _legible(text: str, start: int, end: int, laid_out: bool) -> str:
    """Return a span of the source legibly: joined to one line, or with its lines, less their common indent."""
    if not laid_out:
        raw = text[start:end]
        if "-\n" in raw or "\u2014\n" in raw:
            raw = _WRAPPED_DASH.sub("", raw)
        return " ".join(raw.split())
    line = max(text.rfind("\n", 0, start) + 1, start - _INDENT)
    rows = text[start if text[line:start].strip() else line : end].split("\n")
    indent = min(len(row) - len(row.lstrip()) for row in rows)
    return "\n".join(row[indent:].rstrip() for row in rows)


def _parts(text: str, block: _Block, size: int) -> Iterator[_Block]:
    """Yield a block cut into sentences (lines, where laid out), and into words what exceeds `size` even so."""
    cuts = _line_cuts(text, block) if block.laid_out else _sentence_cuts(text, block)
    rows = block.text.split("\n") if block.laid_out else []
    joint = block.joint
    for index, (start, after) in enumerate(pairwise([block.start, *cuts, block.end])):
        end = start + len(text[start:after].rstrip())
        if end - start <= size:
            row = rows[index] if rows else _legible(text, start, end, laid_out=False)
            yield _Block(start, end, row, block.laid_out, joint=joint)
        else:
            yield from _words(text, start, end, size, joint, block.laid_out)
        joint = "\n" if block.laid_out else " "


def _words(text: str, start: int, end: int, size: int, joint: str, laid_out: bool) -> Iterator[_Block]:
    """Yield a span cut after the last blank within each `size` characters; in a longer word, at `size`."""
    while start < end:
        cut = end
        if end - start > size:
            blanks = [match.start() for match in _BLANK.finditer(text, start + 1, start + size + 1)]
            cut = blanks[-1] if blanks else start + size
        stop = start + len(text[start:cut].rstrip())
        yield _Block(start, stop, _legible(text, start, stop, laid_out=False), laid_out, joint=joint)
        following = next((match.start() for match in _NON_BLANK.finditer(text, cut, end)), end)
        joint = " " if following > stop else ""
        start = following


def _sentence_cuts(text: str, block: _Block) -> Iterator[int]:
    """Yield where a sentence begins after another within the block."""
    for match in _SENTENCE_END.finditer(text, block.start, block.end):
        cut = match.end()
        before = text[max(block.start, match.start() - _LONGEST_ABBREVIATION) : cut]
        if not text[cut].islower() and not _ABBREVIATED.search(before):
            yield cut


def _line_cuts(text: str, block: _Block) -> Iterator[int]:
    """Yield where the text of a line begins after another within the block."""
    return (match.end() for match in _LINE_START.finditer(text, block.start, block.end))
