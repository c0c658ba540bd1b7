"""Project Gutenberg files: header fields, and the book without what was put round it.

Only windows at the head and the tail are searched with regular expressions; the body is copied, never rewritten.
"""

import re
from dataclasses import dataclass

from deepred_ray.text.reject import Reject

MIN_BODY_CHARS = 1_000
_HEAD_CHARS = 40_000
_TAIL_CHARS = 45_000


# Header --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Header:
    """Fields of the file's own header as they stand there; None, or no author, where the header does not say."""

    title: str | None
    authors: tuple[str, ...]
    language: str | None
    release: str | None
    encoding: str | None
    ebook_id: str | None


_START = re.compile(
    r"^[ \t]*\*{2,}[ \t]*START OF (?:THE|THIS) PROJECT GUTENBERG"
    r"(?:(?:(?!\n[ \t]*\n|\*\*\*).){0,400}?\*\*\*[^\n]*|[^\n]*)\n?",
    re.I | re.S | re.M,
)
_FIELD = re.compile(r"^[ \t]*([A-Z][A-Za-z]+(?: [A-Za-z]+){0,2}):[ \t]*(.*)$")
_OLD_TITLE = re.compile(
    r"^[ \t*]*(?:The |This is the )?Project Gutenberg(?:'s)? (?:(?:E-?text|E-?book)(?: of|,)? )?"
    r"((?:(?!\n[ \t]*\n|\*\*).){3,200})",
    re.I | re.M | re.S,
)
_ID = re.compile(r"\[(?:e-?book|e-?text)\s*#\s*(\d+)\]", re.I)
_RELEASE = re.compile(r"^[ \t]*(?:Release Date:[ \t]*)?((?:\w+ )*\w+,? \d{4})[ \t]*\[(?:e-?book|e-?text)\s*#", re.I | re.M)


def parse_header(text: str) -> Header:
    """Read the header above the START marker; values may go on over several lines up to a blank one.

    Older files have no fields: their first line ("The Project Gutenberg Etext of TITLE, by AUTHOR") serves instead.
    The release date is the date of the file, never of the book.
    """
    start = _START.search(text, 0, _HEAD_CHARS)
    head = text[: start.start() if start else 5_000]
    fields: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in head.split("\n"):
        match = _FIELD.match(line)
        if match:
            current = fields.setdefault(match[1].lower(), [])
            current.append(match[2].strip())
        elif not line.strip():
            current = None
        elif current is not None:
            current[-1] = f"{current[-1]} {line.strip()}".strip()

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


# Stripping -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stripped:
    """The book alone.

    `text` is one unchanged slice of the input; front matter (title page, contents, publishers' lists) ends at
    `body_start`, an offset in `text`. `rule` names the rules that cut, joined by "+". `notes` is what was cut as
    credits and transcribers' notes: it often says what was transcribed, and holds neither Gutenberg's header nor its
    licence.
    """

    text: str
    body_start: int
    rule: str
    notes: str = ""


_SMALL_PRINT_END = re.compile(r"^[ \t]*\*+[ \t]*END[ \t*]*THE SMALL PRINT!?[^\n]*\n?", re.I | re.M)
_END = re.compile(
    r"^[ \t]*(?:(?P<modern>\*{2,}[ \t]*END OF (?:THE|THIS) PROJECT GUTENBERG)"
    r"|(?P<line>(?:This is )?(?:the )?End of (?:the |this )?Project Gutenberg)"
    r"|(?P<licence>\*{2,}[ \t]*START: FULL LICENSE)"
    r"|(?P<smallprint>\*+[ \t]*START[ \t*]*THE SMALL PRINT))",
    re.I | re.M,
)
_LICENCE = re.compile(
    r"Project Gutenberg(?:-tm|™| ?\(tm\)|\s+Licen[sc]e|\s+Literary\s+Archive|(?:'s)?\s+E-?(?:text|book))"
    r"|(?:START|END)\s+OF\s+(?:THE\s+|THIS\s+)?PROJECT\s+GUTENBERG|SMALL PRINT!|gutenberg\.(?:org|net)/licen[sc]e",
    re.I,
)
_LEGACY = re.compile(
    r"Project Gutenberg|^[ \t*]*(?:Title|Author|Translator|Editor|Language|Release Date|Posting Date|Edition"
    r"|Character set encoding):|\[E-?(?:text|book) *#|This file should be named|Welcome to the World of|Copyright laws",
    re.I | re.M,
)
_CREDIT = re.compile(
    r"[\s\[(*_]*(?:(?:Produced|Typed|Scanned|Digiti[sz]ed|Proofread|Prepared|Transcribed|Etext) (?:and \w+ )?by\b"
    r"|Transcribed from\b|HTML version by|Updated editions?\b|An? Anonymous Volunteer"
    r"|(?:This|The) (?:e-?text|e-?book|electronic text|file|book) (?:was|is|has been)\b.{0,40}\b(?:produced|prepared"
    r"|made|created|done|converted|transcribed|typed|scanned)|Note: (?:Project Gutenberg|Images of the original))",
    re.I,
)
_CREDIT_WORDS = re.compile(r"Project Gutenberg|\be-?texts?\b|pgdp\.net|Distributed Proofread", re.I)
_NOTE = re.compile(
    r"[ \t\[|*_=~(]*(?:Transcriber|Redactor|Preparer|Poster|(?:PG|E-?text) Editor|Producer)(?:['\u2019]?s['\u2019]?)?"
    r"[ _]+(?:end[ -])?notes?\b",
    re.I,
)
_NOTE_WORDS = re.compile(
    r"\b(?:typograph|spelling|hyphenat|italic|e-?text|e-?book|transcri|footnote|correct|ligature|underscore|bold\b|punctuat"
    r"|printer|misprint|uppercase|small cap|blank page|original|unicode|utf-8|ascii|html|copyright on this)",
    re.I,
)
_BLANK = re.compile(r"\n[ \t]*(?=\n)")
_BORDER = re.compile(r"[ \t]*[+|]")
_RULE_LINE = re.compile(r"[\s*_=.-]*\Z")
_RULE_LINES = re.compile(r"\A(?:[ \t*_=.-]*\n)+")
_NOTE_REACH = 12_000


def strip(text: str) -> Stripped | Reject:
    """Cut header, licence, credits and transcribers' notes away, and mark where the front matter ends.

    Generations known: START and END markers in all spellings (also wrapped over lines), the Small Print at the top or
    the bottom, the bare "End of Project Gutenberg's ..." line, and headers of paragraphs with no marker at all.

    Rejects: `truncated` (a START marker, but neither an end nor a licence), `licence_remains`, `too_short` (fewer than
    `MIN_BODY_CHARS` characters).
    """
    rules: list[str] = []
    begin = 0
    start = _START.search(text, 0, _HEAD_CHARS)
    small = None if start else _SMALL_PRINT_END.search(text, 0, _HEAD_CHARS)
    if start:
        begin = start.end()
        rules.append("start:modern")
    elif small:
        begin = small.end()
        rules.append("start:smallprint")
    else:
        while (paragraph := _next_paragraph(text, begin)) and _LEGACY.search(text, *paragraph):
            begin = paragraph[1]
        if begin:
            rules.append("start:legacy")
    end = len(text)
    mark = _END.search(text, max(begin, len(text) - _TAIL_CHARS))
    if mark:
        end = mark.start()
        rules.append(f"end:{mark.lastgroup}")
    elif start:
        return Reject("truncated", "a START marker, but no end marker and no licence")
    head_end, tail_start = _skip_notes(text, begin, end), end
    tail_start = _cut_tail_notes(text, head_end, end)
    if head_end > begin:
        rules.append("credits")
    if tail_start < end:
        rules.append("notes")
    body = text[head_end:tail_start]
    licence = _LICENCE.search(body) if any(word in body for word in ("utenberg", "UTENBERG", "SMALL PRINT")) else None
    if licence:
        return Reject("licence_remains", f"{licence[0]!r} after rules {'+'.join(rules) or 'none'}")
    lead = len(body) - len(body.lstrip())
    body = body[body.rfind("\n", 0, lead) + 1 :].rstrip()
    if len(body) < MIN_BODY_CHARS:
        return Reject("too_short", f"{len(body)} characters are left")
    notes = f"{text[begin:head_end].strip()}\n\n{text[tail_start:end].strip()}".strip()
    return Stripped(body, _front_matter_end(body), "+".join(rules) or "none", notes)


def _next_paragraph(text: str, position: int, end: int | None = None) -> tuple[int, int] | None:
    """Start and end of the first paragraph at or after `position`, or None."""
    first = re.compile(r"\S").search(text, position, len(text) if end is None else end)
    if first is None:
        return None
    stop = _BLANK.search(text, first.start(), len(text) if end is None else end)
    return text.rfind("\n", 0, first.start()) + 1, stop.start() if stop else len(text) if end is None else end


def _skip_notes(text: str, position: int, end: int) -> int:
    """Where the run of credits and transcribers' notes that begins at `position` ends."""
    in_note = False
    reached = position
    while paragraph := _next_paragraph(text, position, end):
        start, stop = paragraph[0], paragraph[1]
        block = text[start:stop]
        if _RULE_LINE.match(block):
            position = stop  # dropped only when a note follows it
            in_note = False
            continue
        if "[" in block[: len(block) - len(block.lstrip()) + 1] and _NOTE.match(block):
            stop = _closing_bracket(text, text.index("[", start), min(end, start + _NOTE_REACH))
        elif _BORDER.match(_RULE_LINES.sub("", block)) and _NOTE_WORDS.search(block):
            pass
        elif _NOTE.match(block):
            in_note = True
        elif not (
            _CREDIT.match(block)
            or (len(block) < 1_500 and _CREDIT_WORDS.search(block))
            or (in_note and len(block) < 1_500 and _NOTE_WORDS.search(block))
        ):
            break
        position = reached = stop
    return reached


def _cut_tail_notes(text: str, begin: int, end: int) -> int:
    """Where the transcribers' notes at the end of `text[begin:end]` begin; `end` when there are none."""
    floor = max(begin, end - _NOTE_REACH)
    box = re.compile(r"(?:^[ \t]*[+|][^\n]*\n(?:[ \t]*\n)*){2,}[\s*]*\Z", re.M).search(text, floor, end)
    if box and len(_NOTE_WORDS.findall(box[0])) > 1:
        return box.start()
    for match in re.finditer(r"(?:^|(?<=\n))(?=[^\n]*notes?\b)", text[floor:end], re.I):
        at = floor + match.start()
        if not _NOTE.match(text, at, end):
            continue
        line = text[at : text.find("\n", at)]
        if line.lstrip().startswith("["):
            if text[_closing_bracket(text, text.index("[", at), end) : end].strip():
                continue
        elif not _NOTE_WORDS.search(text, at + len(line) - 40, at + 1_000):
            continue
        return at
    return end


def _closing_bracket(text: str, position: int, end: int) -> int:
    """Offset just after the bracket that closes the one at `position`; `position` when none does before `end`."""
    depth = 0
    for match in re.compile(r"[\[\]]").finditer(text, position, end):
        depth += 1 if match[0] == "[" else -1
        if depth == 0:
            return match.end()
    return position


# Front matter --------------------------------------------------------------------------------------------------------

_FRONT_CHARS = 60_000
_CONTENTS = re.compile(
    r"[\s_*]*(?:table of )?(?:contents|table|inhalt|sommaire|sisältö|оглавленіе)(?: of volume \w+)?[.:_\s]*\Z", re.I
)
_CONTENTS_AHEAD = re.compile(r"^[\s_*]*(?:table of )?contents[.:_\s]*$", re.I | re.M)
_PREFACE = re.compile(r"[\s_*]*(?:[\w.'\u2019]+ ){0,3}(?:preface|introduction|foreword|prologue)\b.{0,40}\Z", re.I)
_HEADING = re.compile(
    r"[\s_*=]*(?:(?:the )?(?:chapter|book|part|volume|section|act|scene|letter|canto|lecture|article|stave)\b.{0,80}"
    r"|(?!with\b)(?:[\w.'\u2019]+ ){0,4}(?:preface|introduction|introductory|foreword|forward|prologue|proem"
    r"|note to the reader|prefatory note)\b.{0,60}|[ivxlc]+[.:]?|\d{1,3}[.:]?|[ivxlc]+[.:)] .{0,60})[\s_*=]*\Z",
    re.I | re.S,
)
_PUBLISHER = re.compile(
    r"all rights reserved|no part of this|copyright|entered according|publishers? (?:of|will)|printed (?:in|by|at)"
    r"|royalt|\A[\s]*\[|price \d|_?by the same author",
    re.I,
)
_OPENING_QUOTES = tuple("\"'\u201c\u2018«»„\u2014")


def _front_matter_end(body: str) -> int:
    """Offset of the first heading or sentence of the book proper; 0 when nothing before it can be told apart.

    A table of contents ends where its first entry comes again. The first paragraph of running prose is looked for, and
    the heading over it, or the short speeches before it, are part of the book.
    """
    blocks: list[tuple[int, int]] = []
    position = skip_to = 0
    while (paragraph := _next_paragraph(body, position)) and paragraph[0] < _FRONT_CHARS:
        position = paragraph[1]
        block = body[slice(*paragraph)]
        if _NOTE.match(block):
            position = max(position, _skip_notes(body, paragraph[0], len(body)))
            continue
        if not skip_to and _CONTENTS.match(block.strip().split("\n")[0]):
            skip_to = _after_contents(body, paragraph)
            blocks.clear()
        prefaced = any(_PREFACE.match(body[slice(*above)]) for above in blocks)
        if paragraph[0] < skip_to and not (prefaced and _is_prose(block, True)):
            blocks[:] = [*blocks[-1:], paragraph]  # a preface that the contents do not list is not skipped
            continue
        if blocks and blocks[-1][0] < skip_to <= paragraph[0]:
            blocks.clear()
        headed = any(_HEADING.match(body[slice(*above)]) for above in blocks[-3:])
        blocks.append(paragraph)
        if _is_prose(block, headed):
            start = _section_start(body, blocks)
            ahead = start == paragraph[0] and _CONTENTS_AHEAD.search(body, position, position + 4_000)
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
    for entry in entries[:3]:
        found = [at for at, key in lines if key == entry]
        if len(found) > 1:
            return found[1]
    return heading[1]


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


def _is_sentence(block: str) -> bool:
    """True for a short speech or sentence that belongs to the prose after it."""
    words = re.findall(r"[^\W\d_]+", block)
    lower = sum(word.islower() for word in words)
    ends = re.search(r"[.!?][\"'\u201d\u2019»_)]*\s*\Z", block) is not None
    spoken = block.lstrip()[:1] in _OPENING_QUOTES
    return ends and (spoken or (len(words) > 1 and lower >= len(words) / 2)) and not _PUBLISHER.search(block)
