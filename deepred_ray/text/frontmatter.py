"""Where a stripped book's front matter ends and its publisher's advertisements begin."""

import re

from deepred_ray.text.boilerplate import is_note, next_paragraph, skip_notes

_FRONT_CHARS = 60_000
_VERSE_LINES = 16  # more than an epigraph has, a sonnet included
_ADVERT_CHARS = 60_000
_CONTENTS = re.compile(
    r"[\s_*]*(?:table of )?(?:contents|table|inhalt|sommaire|sisältö|оглавленіе)(?: of volume \w+)?[.:_\s]*\Z", re.I
)
_CONTENTS_AHEAD = re.compile(r"^(?:[^\S\n]|[_*])*(?:table of )?contents[.:_\s]*$", re.I | re.M)
_PREFACE = re.compile(r"[\s_*]*(?:[\w.'\u2019]+ ){0,3}(?:preface|introduction|foreword|prologue)\b.{0,40}\Z", re.I)
_HEADING = re.compile(
    r"[\s_*=]*(?:(?:the )?(?:chapter|book|part|volume|section|act|scene|letter|canto|lecture|article|stave)\b.{0,80}"
    r"|(?!with\b)(?:[\w.'\u2019]+ ){0,4}(?:preface|introduction|introductory|foreword|forward|prologue|proem"
    r"|note to the reader|prefatory note)\b.{0,60}|[ivxlc]+[.:]?|\d{1,3}[.:]?|[ivxlc]+[.:)] .{0,60})[\s_*=]*\Z",
    re.I | re.S,
)
_PUBLISHER = re.compile(
    r"all rights reserved|no part of this|copyright|entered according|publishers? (?:of|will)|printed (?:in|by|at)"
    r"|royalt|\A[\s]*\[|price \d|_?by the same author|amateurs?\b.{0,40}\bprofession|profession\w*\b.{0,20}\bamateur"
    r"|programs, printing and advertising|right of performance|for your production|\bASCII\b|e-?text\b",
    re.I | re.S,
)
_END_OF_BOOK = re.compile(r"^(?:[^\w\n]|_)*(?:the end|end|finis|fin|ende)(?:[\W_]|of (?:the )?book)*$", re.I | re.M)
_PRICE = re.compile(r"\b\d+s\.|\$ ?\d|\b\d+ cents\b|\b(?:\d+mo|8vo|octavo)\b|\bcloth\b|\bpost[- ]free\b|\bnet\b", re.I)
_PUFF = re.compile(r"press opinions|booksellers|publish|editions?\b|illustrat|by the (?:same )?author|volumes?\b|\bvols?\.", re.I)
_APPARATUS = re.compile(
    r"^(?:[^\w\n]|_)*(?:(?:foot)?notes?|index|appendix|glossary)[\W_]*$|^[ \t]*[\[{(]\w{1,3}[\])}]|\[Footnote", re.I | re.M
)
_OPENING_QUOTES = tuple("\"'\u201c\u2018«»„\u2014")


def front_matter_end(body: str) -> int:
    """Offset of the first heading or sentence of the book proper; 0 when nothing before it can be told apart.

    A table of contents ends where its first entry comes again. The first paragraph of running prose is looked for, and
    the heading over it, or the short speeches before it, are part of the book.
    """
    blocks: list[tuple[int, int]] = []
    poem: list[tuple[int, int]] = []
    position = skip_to = verse_lines = 0
    while (paragraph := next_paragraph(body, position)) and paragraph[0] < _FRONT_CHARS:
        position = paragraph[1]
        block = body[slice(*paragraph)]
        if is_note(block):
            position = max(position, skip_notes(body, paragraph[0], len(body)))
            continue
        if not skip_to and _CONTENTS.match(block.strip().split("\n")[0]):
            skip_to = _after_contents(body, paragraph)
            blocks.clear()
            verse_lines = 0
        prefaced = any(_PREFACE.match(body[slice(*above)]) for above in blocks)
        if paragraph[0] < skip_to and not (prefaced and _is_prose(block, True)):
            blocks[:] = [*blocks[-1:], paragraph]  # a preface that the contents do not list is not skipped
            continue
        if blocks and blocks[-1][0] < skip_to <= paragraph[0]:
            blocks.clear()
        headed = any(_HEADING.match(body[slice(*above)]) for above in blocks[-3:])
        blocks.append(paragraph)
        if verse := _verse_lines(block):
            poem = poem if verse_lines else blocks[:]
            verse_lines += verse
        prose = _is_prose(block, headed)
        if prose or verse_lines >= _VERSE_LINES:
            start = _section_start(body, poem if verse_lines >= _VERSE_LINES else blocks)
            ahead = (start == paragraph[0] or not prose) and _CONTENTS_AHEAD.search(body, position, position + 4_000)
            if skip_to or not ahead:  # else an epigraph or a dedication before the contents
                return start
    return skip_to


def _section_start(body: str, blocks: list[tuple[int, int]]) -> int:
    """Start of the heading or the first short speech that leads to the prose of the last block."""
    first = len(blocks) - 1
    for index in range(first - 1, max(-1, first - 13), -1):
        if _HEADING.match(body[slice(*blocks[index])]):
            while index and _HEADING.match(body[slice(*blocks[index - 1])]):
                index -= 1
            return blocks[index][0]
    while first and _is_sentence(body[slice(*blocks[first - 1])]):
        first -= 1
    return blocks[first][0]


def _after_contents(body: str, heading: tuple[int, int]) -> int:
    """Where the first entries of a table of contents come again as headings; the end of its heading when none does."""
    entries: list[str] = []
    for line in body[heading[0] : heading[0] + 2_000].split("\n")[1:40]:
        entry = _entry_key(line)
        if len(entry) > 3 and entry not in {"page", "chapter", "chap", "contents"} and entry not in entries:
            entries.append(entry)
    offset = heading[0]
    lines: list[tuple[int, str]] = []
    for line in body[heading[0] : heading[0] + _FRONT_CHARS].split("\n"):
        lines.append((offset, _entry_key(line)))
        offset += len(line) + 1
    for index, entry in enumerate(entries[:3]):
        found = [at for at, key in lines if key == entry]
        # When not the first entry came again, the first chapter may stand before it.
        if len(found) > 1 and not (index and _has_chapter(body, heading[1], found[1])):
            return found[1]
    return heading[1]


def _has_chapter(body: str, position: int, end: int) -> bool:
    """True when three paragraphs of running text on end stand in a range: more than any entry's description."""
    run = 0
    while run < 3 and (paragraph := next_paragraph(body, position, end)):
        position = paragraph[1]
        block = body[slice(*paragraph)]
        run = run + 1 if _is_prose(block, False) and not block.startswith(" ") else 0
    return run == 3


def _entry_key(line: str) -> str:
    """A heading without number, page and punctuation, for comparing a contents entry with its chapter."""
    line = re.sub(r"(?:\s{2,}|[\s.]*\.)\s*(?:\d+|[ivxlc]+)$", "", line.strip(), flags=re.I)
    bare = re.sub(r"^(?:chapter\s+)?(?:[ivxlc]+|\d+)\b[.:)\u2014-]*\s*", "", line, flags=re.I)
    return re.sub(r"\W+", "", bare or line).casefold()


def _is_prose(block: str, headed: bool) -> bool:
    """True for a paragraph of running text: long lines, mostly lower case, with sentences in it.

    Under a heading it may be short or indented; elsewhere such a block is an epigraph, a blurb or a title.
    """
    lines = [line.strip() for line in block.strip().split("\n")]
    letters = [char for char in block if char.isalpha()]
    if len(letters) < (80 if headed else 200) or _PUBLISHER.search(block):
        return "。" in block and len(letters) >= 10
    words = re.findall(r"[^\W\d_]{4,}", block)
    if not headed and len(lines) > 1 and all(line.startswith("   ") for line in block.strip("\n").split("\n")):
        return False
    wide = len(lines) == 1 or sum(map(len, lines[:-1])) / (len(lines) - 1) >= 45
    lower = sum(word.islower() for word in words) >= 0.6 * len(words)
    return wide and lower and re.search(r"[.!?;:,]", block) is not None


def _verse_lines(block: str) -> int:
    """The number of lines of a stanza: short lines of lower-case words, most with a stop at their end; 0 for all else."""
    lines = [line.strip() for line in block.strip().split("\n")]
    words = re.findall(r"[^\W\d_]+", block)
    stops = sum(line.endswith(tuple(",;:.!?\u2014-\"'\u201d\u2019")) for line in lines)
    lower = sum(word.islower() for word in words)
    short = sum(map(len, lines)) < 55 * len(lines)
    return len(lines) if len(lines) >= 4 and short and stops >= len(lines) / 2 and lower >= 0.6 * len(words) else 0


def _is_sentence(block: str) -> bool:
    """True for a short speech or sentence that belongs to the prose after it."""
    words = re.findall(r"[^\W\d_]+", block)
    lower = sum(word.islower() for word in words)
    ends = re.search(r"[.!?][\"'\u201d\u2019»_)]*\s*\Z", block) is not None
    spoken = block.lstrip()[:1] in _OPENING_QUOTES
    return ends and (spoken or (len(words) > 1 and lower >= len(words) / 2)) and not _PUBLISHER.search(block)


# Advertisements ------------------------------------------------------------------------------------------------------


def advertisements_start(text: str, begin: int, end: int) -> int:
    """Offset where the publisher's advertisements at the end of `text[begin:end]` begin; `end` where that is not sure.

    Only what follows the last "THE END" is looked at, and only when prices and formats stand close together there and
    neither notes nor an index.
    """
    marks = list(_END_OF_BOOK.finditer(text, max(begin, end - _ADVERT_CHARS), end))
    if not marks:
        return end
    start = marks[-1].end()
    after = text[start:end]
    prices = len(_PRICE.findall(after))
    if prices < 2 or prices + len(_PUFF.findall(after)) < max(4, len(after) // 700) or _APPARATUS.search(after):
        return end
    return start
