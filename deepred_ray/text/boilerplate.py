"""What transcribers put before and after a book: credits, notes on the transcription, and the older headers."""

import re

from deepred_ray.text.header import HEAD_CHARS, START

_PROJECT = r"Project|Projekt|Projet|Proyecto|Progetto|Projeto"
_HEADER = re.compile(
    rf"(?:{_PROJECT}) Gutenberg|^[ \t*]*(?:Title|Author|Translator|Editor|Illustrator|Language|Release Date|Posting Date|Edition"
    r"|Character set encoding|Date (?:first|last|most|of)[^\n:]*|e-?(?:book|text) No\.):|\[E-?(?:text|book) *#"
    r"|This file should be named|Welcome to the World of|Copyright laws|copyright laws (?:are|for)|Etexts Readable By"
    r"|Etexts? (?:Are|Were|Is) Prepared|These Etexts Prepared|made available at no cost|(?:DOWNLOAD|download)\s+(?:OR|or)\s+"
    r"(?:REDISTRIBUTE|redistribut)|in the Canadian public domain|Distributed Proofreaders Canada",
    re.M | re.I,
)
_SMALL_PRINT = re.compile(r"[ \t*]*START[ \t*]*(?:THE )?SMALL PRINT", re.I)
SMALL_PRINT_END = re.compile(
    r"^[ \t]*\*+[ \t]*END[ \t*]*(?:THE )?SMALL PRINT[^\n]*(?:\n(?![ \t]*\n)[^\n]*\*END\*[^\n]*)?\n?", re.I | re.M
)
_CREDIT = re.compile(
    r"[\s\[(*_<]*(?:(?:Produced|Typed|Scanned|Digiti[sz]ed|Proofread|Proofed|Prepared|Transcribed|E-?text|E-?book|OCR\w*)\b"
    r"(?:,? (?:and )?\w+){0,4} by\b|Credits?:|Transcribed from\b|(?:HTML|Text) (?:version|file)\b|Updated editions?\b"
    r"|An? Anonymous Volunteer|(?:This|The) (?:Project Gutenberg )?"
    r"(?:e-?text|e-?book|electronic text|file|book) (?:was|is|has been)\b"
    r".{0,40}\b(?:produced|prepared|made|created|done|converted|transcribed|typed|scanned)|THIS ELECTRONIC VERSION\b"
    r"|Note: (?:Project Gutenberg|Images of the original)|(?:Produit|Produziert|Erstellt|Prodotto|Producido|Produzido) "
    r"(?:par|von|da|por)\b|End of [^\]]{3,200}\]\Z)",
    re.I,
)
_CREDIT_WORDS = re.compile(
    r"\be-?texts?\b|pgdp\.net|Distributed Proofread|[\w.+-]+@[\w-]+\.\w|https?://|\bwww\.\w"
    r"|Internet Archive|Google (?:Books|Print)|\bpage images\b|anonymous volunteer",
    re.I,
)
_NAMED = re.compile(rf"(?:{_PROJECT})\s+Gutenberg", re.I)
_NOTE = re.compile(
    r"[ \t\[|*_=~(]*(?:(?:Transcri(?:b|pt)\w*|Redactor|Preparer|Poster|(?:PG|E-?text) Editor|Producer)"
    r"(?:['\u2019]?s['\u2019]?)?[ _]+(?:end[ -])?(?:notes?|amendments?|corrections?|errata|remarks?|comments?)\b"
    r"|(?:notes?|nota|notas|anmerkung(?:en)?|hinweise?|bemerkung(?:en)?|opmerking(?:en)?)[ _](?:[\w']+[ _]){0,3}(?:l')?"
    r"(?:trans[ck]ri|trascri|bewerker|bearbeiter)|Au lecteur de ce fichier"
    r"|(?:Typographical|Printer's) errors (?:corrected|fixed)"
    r"|Notes? (?:on|about|to) (?:the|this) (?:e-?text|e-?book|transcription))",
    re.I,
)
_NOTE_WORDS = re.compile(
    r"\b(?:typogra(?:ph|f)|spelling|hyphenat|italic|italique|e-?text|e-?book|trans[ck]ri|trascri|footnote|[ck]orre[ck]t|corrig|korrig"
    r"|ligature|underscore|bold\b|punctuat|printer|misprint|uppercase|small cap|blank page|original|unicode|utf-8|ascii|html"
    r"|orthogra|Schreibweise|Druckfehler|gesperrt|coquille|errat[ua]|copyright on this)",
    re.I,
)
# A note that a transcriber did not sign says "I" or speaks of changes, under a heading that an author's notes have too.
_BARE_NOTE = re.compile(r"[ \t*\[_-]*Notes?[:.]", re.I)
_CHANGES = re.compile(r"changes (?:made )?(?:to|in) the text|have been (?:changed|corrected)|\bI (?:have|originally)\b")
_EDITING = re.compile(r"changes (?:made )?(?:to|in) the text|typograph|spelling|hyphenat|italic|e-?text|proofread|ascii", re.I)
_BOOK_HEADING = re.compile(
    r"^[ \t_*=]*(?:(?:chapter|book|part|volume|act|canto) (?:[ivxlc]+|\d+|one|two|three)|index|appendix|footnotes|glossary)"
    r"\b[.: _*=]*$",
    re.I | re.M,
)
_BLANK = re.compile(r"\n[ \t]*(?=\n)")
_VISIBLE = re.compile(r"\S")
_BORDER = re.compile(r"[ \t]*[+|]")
_RULE_LINE = re.compile(r"[\s*_=.#~-]*\Z")
_RULE_LINES = re.compile(r"\A(?:[ \t*_=.-]*\n)+")
_BOX_AT_END = re.compile(r"(?:^[ \t]*[+|][^\n]*\n(?:[ \t]*\n)*){2,}[\s*]*\Z", re.M)
_NOTE_LINE = re.compile(r"^(?=[^\n]*(?:not[ae]|anmerk|hinweis|bemerk|opmerk|lecteur|errors|trans[ck]ri))", re.I | re.M)
_CREDIT_CHARS = 1_500
_NOTE_REACH = 12_000


def next_paragraph(text: str, position: int, end: int | None = None) -> tuple[int, int] | None:
    """Start and end of the first paragraph at or after `position`, or None."""
    stop = len(text) if end is None else end
    first = _VISIBLE.search(text, position, stop)
    if first is None:
        return None
    blank = _BLANK.search(text, first.start(), stop)
    return text.rfind("\n", 0, first.start()) + 1, blank.start() if blank else stop


def skip_header(text: str, position: int, end: int) -> int:
    """Where the run of header paragraphs and small print that begins at `position` ends."""
    reached = position
    while paragraph := next_paragraph(text, position, end):
        block = text[slice(*paragraph)]
        if _RULE_LINE.match(block):
            position = paragraph[1]  # dropped only when more header follows it
            continue
        if _SMALL_PRINT.match(block):
            small = SMALL_PRINT_END.search(text, paragraph[0], min(end, paragraph[0] + HEAD_CHARS))
            stop = small.end() if small else paragraph[1]
        elif start := START.match(text, paragraph[0], end):
            stop = start.end()
        elif _HEADER.search(block) and not _CREDIT.match(block):
            stop = paragraph[1]
        else:
            break
        position = reached = stop
    return reached


def skip_notes(text: str, position: int, end: int) -> int:
    """Where the run of credits and transcribers' notes that begins at `position` ends."""
    in_note = False
    reached = position
    while paragraph := next_paragraph(text, position, end):
        start, stop = paragraph
        block = text[start:stop]
        if _RULE_LINE.match(block):
            position = stop  # dropped only when a note follows it
            in_note = False
            continue
        if "[" in block[: len(block) - len(block.lstrip()) + 1] and is_note(block):
            opened = text.index("[", start)
            closed = _closing_bracket(text, opened, min(end, start + _NOTE_REACH))
            stop = closed if closed > opened else stop
        elif _BORDER.match(_RULE_LINES.sub("", block)) and _NOTE_WORDS.search(block):
            pass
        elif is_note(block):
            in_note = True
        elif START.match(block) or not (_is_credit(block) or _is_more(block, in_note)):
            break
        if stop <= position:  # more of a line that began with a note in brackets
            break
        position = reached = stop
    return reached


def cut_tail(text: str, begin: int, end: int) -> int:
    """Where the credits and transcribers' notes at the end of `text[begin:end]` begin; `end` when there are none."""
    while (start := _last_note(text, begin, _last_credit(text, begin, end))) < end:
        end = start
    return end


def is_note(block: str) -> bool:
    """True for a paragraph that begins a transcriber's note."""
    return _NOTE.match(block) is not None


def _is_credit(block: str) -> bool:
    return _CREDIT.match(block) is not None or (len(block) < _CREDIT_CHARS and _CREDIT_WORDS.search(block) is not None)


def _is_more(block: str, in_note: bool) -> bool:
    """True for what is boilerplate only at the head of a file: the project's name, or the second paragraph of a note."""
    words = _NOTE_WORDS if in_note else _NAMED
    return len(block) < _CREDIT_CHARS and (words.search(block) or _NAMED.search(block)) is not None


def _last_credit(text: str, begin: int, end: int) -> int:
    """Where the run of credits at the end begins."""
    floor = max(begin, end - _NOTE_REACH)
    reached = end
    for blank in reversed(list(_BLANK.finditer(text, floor, end))):
        block = text[blank.end() : end]
        end = blank.start()
        if _RULE_LINE.match(block):
            continue
        if not _is_credit(block.strip()):
            break
        reached = end
    return reached


def _last_note(text: str, begin: int, end: int) -> int:
    """Where the first transcriber's note begins that reaches to the end."""
    floor = max(begin, end - _NOTE_REACH)
    box = _BOX_AT_END.search(text, floor, end)
    if box and len(_NOTE_WORDS.findall(box[0])) > 1:
        return box.start()
    for match in _NOTE_LINE.finditer(text, floor, end):
        at = match.start()
        if _NOTE.match(text, at, end):
            line = text[at : text.find("\n", at)]
            if line.lstrip().startswith("["):
                if text[_closing_bracket(text, text.index("[", at), end) : end].strip():
                    continue
            elif not _NOTE_WORDS.search(text, at + len(line) - 40, at + 1_000):
                continue
        elif not _is_bare_note(text[at : min(end, at + 3_000)]):
            continue
        if not _BOOK_HEADING.search(text, at, end):  # else the book goes on after the note
            return at
    return end


def _is_bare_note(text: str) -> bool:
    """True for a note on the editing of the file under the plain heading "Note:" or "Notes:"."""
    if not _BARE_NOTE.match(text) or not _CHANGES.search(text):
        return False
    return re.search("changes (?:made )?(?:to|in) the text", text) is not None or (
        len({match.lower() for match in _EDITING.findall(text)}) > 1
    )


def _closing_bracket(text: str, position: int, end: int) -> int:
    """Offset just after the bracket that closes the one at `position`; `position` when none does before `end`."""
    depth = 0
    for match in re.compile(r"[\[\]]").finditer(text, position, end):
        depth += 1 if match[0] == "[" else -1
        if depth == 0:
            return match.end()
    return position
