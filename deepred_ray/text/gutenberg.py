"""Project Gutenberg files: the book without what was put round it.

Only windows at the head and the tail are searched with regular expressions; the body is copied, never rewritten.
"""

import re
from dataclasses import dataclass

from deepred_ray.text.boilerplate import SMALL_PRINT_END, cut_tail, skip_header, skip_notes
from deepred_ray.text.frontmatter import advertisements_start, front_matter_end
from deepred_ray.text.header import HEAD_CHARS, START, Header, parse_header, publication_notes
from deepred_ray.text.reject import Reject

__all__ = ["MIN_BODY_CHARS", "Header", "Stripped", "parse_header", "strip"]

MIN_BODY_CHARS = 1_000
_TAIL_CHARS = 45_000
_END_LINE_REACH = 6_000
_END = re.compile(
    r"^[ \t]*(?:(?P<modern>\*{2,}[ \t]*END OF (?:(?:THE|THIS)\s+)?(?:COPYRIGHTED\s+)?PROJECT\s+GUTENBERG)"
    r"|(?P<licence>\*{2,}[ \t]*START: FULL LICENSE)"
    r"|(?P<smallprint>\*+[ \t]*START[ \t*]*(?:THE )?SMALL PRINT))",
    re.I | re.M,
)
_END_LINE = re.compile(
    r"^[ \t*_\[(]*(?:(?:This is )?(?:the )?End (?:of )?(?:the |this )?|Ende (?:dieses )?|Fine? (?:du |de |del |di )?|Fim (?:do )?"
    r"|Einde van )(?:Project|Projekt|Projet|Proyecto|Progetto|Projeto)(?:'s)? Gutenberg"
    r"|^[ \t]*This site is full of FREE ebooks|^[ \t]*Project Gutenberg(?: of)? Australia[ \t]*$",
    re.I | re.M,
)
_LICENCE = re.compile(
    r"Project Gutenberg(?:-tm|™| ?\(tm\)|(?: of)? (?:Australia|Canada) e-?book|\s+Licen[sc]e|\s+Literary\s+Archive"
    r"|(?:'s)?\s+E-?(?:text|book))|(?:START|END)\s+OF\s+(?:THE\s+|THIS\s+)?PROJECT\s+GUTENBERG"
    r"|Project Gutenberg(?:'s)?,? (?:is a registered|volunteers and)|SMALL PRINT!"
    r"|gutenberg\.(?:org|net|net\.au|ca)/\S*licen[sc]e",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Stripped:
    """The book alone.

    `text` is one unchanged slice of the input; front matter (title page, contents, publishers' lists) ends at
    `body_start`, an offset in `text`. `rule` names the rules that cut, joined by "+". `notes` is what was cut as
    credits and transcribers' notes, after what the header says of the first print: it often tells what was transcribed,
    and holds nothing else of Gutenberg's header, and no licence.
    """

    text: str
    body_start: int
    rule: str
    notes: str = ""


def strip(text: str) -> Stripped | Reject:
    """Cut header, licence, credits, transcribers' notes and advertisements away, and mark where the front matter ends.

    Generations known: START and END markers in all spellings (also wrapped over lines), the Small Print at the top or
    the bottom, one header after another, the bare "End of Project Gutenberg's ..." line also in other languages,
    headers of paragraphs with no marker at all, and the Australian and the Canadian project's files.

    Rejects: `truncated` (a START marker, but neither an end nor a licence), `several_works` (a second START after the
    end), `licence_remains`, `too_short` (fewer than `MIN_BODY_CHARS` characters).
    """
    begin, rule = _begin(text)
    head_end, reached = -1, begin
    notes: list[str] = []
    while reached > head_end:  # older files have credits between two pieces of header
        head_end = skip_header(text, reached, len(text))
        if head_end > reached:
            rule = rule or "start:legacy"
        reached = skip_notes(text, head_end, len(text))
        notes.append(text[head_end:reached].strip())
    end, end_rule = _end(text, head_end)
    if end_rule is None and rule == "start:modern":
        return Reject("truncated", "a START marker, but no end marker and no licence")
    if "START OF" in text[end:] and (second := START.search(text, end)):
        return Reject("several_works", f"{second[0].strip()[:80]!r} after the end of the first")
    tail_start = cut_tail(text, head_end, end)
    book_end = advertisements_start(text, head_end, tail_start)
    rules = (
        rule,
        end_rule,
        "credits" if any(notes) else None,
        "notes" if tail_start < end else None,
        "advertisements" if book_end < tail_start else None,
    )
    applied = "+".join(name for name in rules if name) or "none"
    body = text[head_end:book_end]
    licence = _LICENCE.search(body) if any(word in body for word in ("utenberg", "UTENBERG", "SMALL PRINT")) else None
    if licence:
        return Reject("licence_remains", f"{licence[0]!r} after rules {applied}")
    lead = len(body) - len(body.lstrip())
    body = body[body.rfind("\n", 0, lead) + 1 :].rstrip()
    if len(body) < MIN_BODY_CHARS:
        return Reject("too_short", f"{len(body)} characters are left")
    notes = [publication_notes(text[:head_end]), *notes, text[tail_start:end].strip()]
    return Stripped(body, front_matter_end(body), applied, "\n\n".join(filter(None, notes)))


def _begin(text: str) -> tuple[int, str | None]:
    """Offset after the first header, as its marker tells, and the name of the rule."""
    if start := START.search(text, 0, HEAD_CHARS):
        return start.end(), "start:modern"
    if small := SMALL_PRINT_END.search(text, 0, HEAD_CHARS):
        return small.end(), "start:smallprint"
    return 0, None


def _end(text: str, begin: int) -> tuple[int, str | None]:
    """Offset of the first end marker, or of the "End of" line shortly before it, and the name of the rule."""
    mark = _END.search(text, max(begin, len(text) - _TAIL_CHARS))
    end = mark.start() if mark else len(text)
    line = _END_LINE.search(text, max(begin, end - _END_LINE_REACH), end)
    if line:
        return line.start(), "end:line"
    return end, f"end:{mark.lastgroup}" if mark else None
