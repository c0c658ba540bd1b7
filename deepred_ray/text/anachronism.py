"""The temporal gate: does a text use words, names, senses or dates that its cutoff year cannot know?

The lexicon is data (`anachronisms.tsv`); this module reads it and looks it up word by word. A word that is older
than its modern sense ("cloud", "mouse") hits only near a word of the modern sense. What no list of words can hold, such
as addresses of the web, are patterns. Years are read by rules of their own.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from deepred_ray.text.reject import Reject

Kind = Literal["coinage", "name", "sense", "pattern"]

COLUMNS: Final = ("term", "year", "kind", "case", "source", "context", "note")
SENSE_REACH: Final = 12
"""Words on each side of a `sense` term in which one of its context words must stand."""
LAST_YEAR: Final = 2030
"""Explicit years above this are taken for prophecy: period fiction is full of them."""

_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a about after again all an and another any are as at back be been before being both but by called came can come "
        "could day did do does down each even every few first for from get give go gone good had has have he her here him "
        "himself his how hundred i if in into is it its just know last like little long made make man many may me men more "
        "most much must my never new no not now number of off old on one only or other our out over own people power put "
        "round said same second see set she should so some still such take than that the their them themselves then there "
        "these they thing this those thousand three through time to too took turned two under up upon us was way we well went "
        "were what when where which while who will with without work working world would year years you your ",
    )
)
"""Words that are in every text, and so no key of a phrase."""
_WORD = re.compile(r"[^\W_]+")
_DOUBLED = re.compile(r"[^aeiou]*[aeiou][bdgklmnprt]")
"""A verb of one syllable that doubles its last letter."""
_JOIN = re.compile(r"[:\s\-\u2010-\u2013/&'\u2019]*|(?<=\b\w)\.\s?|\.")
_SHOUT = re.compile(r"\b[A-Z]{2,}[,:]?\s+$")
_SHOUTS = re.compile(r"[,:]?\s+[A-Z]{2,}\b")
_YEAR = re.compile(r"(?:1[89]|20)\d\d(?!\d|[.,]\d|(?!s\b)[^\W_])")
_INSIDE = re.compile(r"[^\W_]$|[\d.,:$\u00a3#\u2013-]$")
"""Before a year: it is the end of a longer number, of a range or of a sum."""
# "In 1984", "July 20, 1984" and "© 1984" are dates however round the number; other numbers are unless they look counted.
_DATED = re.compile(
    r"(?:\b(?:Jan(?:uary|\.)|Feb(?:ruary|\.)|Mar(?:ch|\.)|Apr(?:il|\.)|May|June|July|Aug(?:ust|\.)|Sept?(?:ember|\.)"
    r"|Oct(?:ober|\.)|Nov(?:ember|\.)|Dec(?:ember|\.))\s+(?:\d{1,2}(?:st|nd|rd|th)?,?\s+)?(?:of\s+)?"
    r"|\b(?i:year|summer|autumn|fall|winter|spring|since|circa|copyright|until|during|after|before|from|between"
    r"|(?<!one )in)\s+(?:of\s+)?(?:early\s+|late\s+|mid-?)?|©\s*)$"
)
_NUMBERED = re.compile(
    r"(?:\b(?:nos?|pp?|pages?|lines?|numbers?|numbered|some|about|over|nearly|almost|than|only|least|full|or|at|to)\.?"
    r"|[\u00a7=+*|])\s*$",
    re.IGNORECASE,
)
_DETERMINED = re.compile(r"\b(?:the|a|its|this|that)\s+$", re.IGNORECASE)
_DECADE_END = re.compile(r"['\u2019]?s\b")
_COUNTED = re.compile(
    r"\s+(?:(?!(?:was|is|his|this|its|has|as|us|across|always|perhaps|less|unless|besides|thus|yes|plus|minus|versus|does"
    r"|\w+wards)\b)[a-z]+s|people)\b"
)
_MEASURED = re.compile(
    r"[\s-]+(?:feet|foot|ft|lbs?|miles?|yards?|yds?|tons?|years|days|hours|men|women|million|per|square|cubic|B\.?C)\b"
    r"|\s*[\u00b0%=+*|]"
)
# A date that the speaker looks forward to or tells tales of betrays no knowledge, and our era needs no name for its years.
_FUTURE = re.compile(
    r"\b(?:will|shall|someday|tomorrow|tale|romance|prophecy|prophes\w+|foretold|imagined?)\b"
    r"|\bby (?:the )?(?:year|beginning|middle|end|close)?(?: of)?\s*$",
    re.IGNORECASE,
)
_ERA = re.compile(r"\bA\.?\s?D\b\.?")
_THE_YEAR = re.compile(r"\byear\s+(?:of\s+)?$", re.IGNORECASE)
_TITLE = re.compile(r"\bOrwell\b|\bOdyssey\b|\bKubrick\b")
"""Beside the number of a book of 1949 or a film of 1968."""
_CLAUSE = re.compile(r"[!?;]|\.(?!\d)")


@dataclass(frozen=True, slots=True)
class Term:
    """One row of the lexicon: a word, a phrase or a pattern, the first year of its use, and how to recognise it.

    `context` holds lower-case words: for a sense those of which one must stand near it, for a pattern those of which one
    must be in the text, or it is not tried. `case` says that letter case matters. The `term` of a pattern is a regular
    expression.
    """

    term: str
    year: int
    kind: Kind
    case: bool
    source: str
    context: frozenset[str]
    note: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One anachronism: `text[start:end]` as `term`, its first year, and why: a `Kind` or "year".

    For patterns and years `term` is the text itself.
    """

    term: str
    year: int
    start: int
    end: int
    reason: str


def parse_terms(tsv: str) -> tuple[Term, ...]:
    """The rows of a lexicon whose first line is the header `COLUMNS`, in order.

    Raises:
        ValueError: a wrong header or number of cells, a year that is no number, an unknown kind or case, a missing
            source, a context that is missing for a sense, given for a coinage or name, or not of single words, a pattern
            that is no regular expression or matches nothing at all, a row that repeats an earlier one.
            The message names the line.
    """
    lines = tsv.splitlines()
    if not lines or tuple(lines[0].split("\t")) != COLUMNS:
        raise ValueError(f"line 1: the header must be {' '.join(COLUMNS)}, separated by tabs")
    terms: list[Term] = []
    seen: set[tuple[str, bool]] = set()
    for number, line in enumerate(lines[1:], start=2):
        term = _parse_row(line, number)
        key = (term.term if term.case else term.term.lower(), term.case)
        if key in seen:
            raise ValueError(f"line {number}: {term.term!r} is in the lexicon twice")
        seen.add(key)
        terms.append(term)
    return tuple(terms)


def _parse_row(line: str, number: int) -> Term:
    cells = line.split("\t")
    if len(cells) != len(COLUMNS):
        raise ValueError(f"line {number}: {len(cells)} cells, wanted {len(COLUMNS)}")
    term, year, kind, case, source, context, note = (cell.strip() for cell in cells)
    if kind == "pattern":
        _check_pattern(term, number)
    elif not _WORD.search(term):
        raise ValueError(f"line {number}: no word in the term {term!r}")
    if not re.fullmatch(r"\d{4}", year):
        raise ValueError(f"line {number}: {year!r} is not a year")
    if kind not in get_args(Kind):
        raise ValueError(f"line {number}: unknown kind {kind!r}")
    if case not in ("yes", "no"):
        raise ValueError(f"line {number}: case must be yes or no, not {case!r}")
    if not source:
        raise ValueError(f"line {number}: {term!r} has no source")
    words = frozenset(word for word in context.lower().split("|") if word)
    if (kind == "sense" and not words) or (kind in ("coinage", "name") and words):
        raise ValueError(f"line {number}: a sense must have context words, and a coinage or name has none ({term!r})")
    if not all(_WORD.fullmatch(word) for word in words):
        raise ValueError(f"line {number}: the context of {term!r} must be single words between bars")
    return Term(term, int(year), cast(Kind, kind), case == "yes", source, words, note)


def _check_pattern(pattern: str, number: int) -> None:
    try:
        empty = re.compile(pattern).search("")
    except re.error as error:
        raise ValueError(f"line {number}: {pattern!r} is no regular expression: {error}") from error
    if empty:
        raise ValueError(f"line {number}: the pattern {pattern!r} would hit every text")


@dataclass(frozen=True, slots=True)
class _Form:
    """A surface form of a term: its words, as written and in lower case, and which of them is looked up (`key`)."""

    words: list[str]
    lowered: list[str]
    key: int
    term: Term
    context: frozenset[str]


def _with_plural(word: str) -> tuple[str, ...]:
    """The word and, where it ends in a letter, its regular plural."""
    if not word[-1].isalpha() or word[-1] in "sS":
        return (word,)
    if word.endswith(("x", "ch", "sh", "z")):
        return (word, word + "es")
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return (word, word[:-1] + "ies")
    return (word, word + "s")


def _inflected(word: str) -> tuple[str, ...]:
    """The word with its plural and the regular forms of a verb: "tap", "taps", "tapped", "tapping".

    Most words have not all of them; what nobody writes does no harm.
    """
    forms = _with_plural(word)
    if not word.isalpha() or len(word) < 3 or word.endswith(("ed", "ing", "s")):
        return forms
    if word.endswith("e"):
        return (*forms, word + "d", word[:-1] + "ing")
    if word.endswith("y") and word[-2] not in "aeiou":
        return (*forms, word[:-1] + "ied", word + "ing")
    stem = word + word[-1] if _DOUBLED.fullmatch(word) else word
    return (*forms, stem + "ed", stem + "ing")


def _forms(term: Term) -> Iterator[_Form]:
    *head, last = _WORD.findall(term.term)
    context = frozenset(form for word in term.context for form in _inflected(word))
    # Names and phrases are not conjugated, and what is made of a short coinage is often an old word ("lol", "lolled").
    verb = not term.case and (term.kind == "sense" or (term.kind == "coinage" and not head and len(last) > 4))
    for ending in _inflected(last) if verb else _with_plural(last):
        words = [*head, ending]
        lowered = [word.lower() for word in words]
        # The longest word is the rarest often enough, which keeps the look-up cheap.
        key = max(range(len(words)), key=lambda i: (lowered[i] not in _COMMON, len(words[i])))
        yield _Form(words, lowered, key, term, context)


class Gate:
    """Finds what a text of before `cutoff_year` cannot say: lexicon terms of that year or later, and explicit years.

    With `years`, a date from `cutoff_year` to `LAST_YEAR` hits too, unless its clause looks forward to it
    ("by the year 2000 we shall"). Plurals of terms are found, verb forms of senses and of coinages of one word, and
    hyphens and line ends between the words of a term.
    """

    def __init__(self, terms: Iterable[Term], cutoff_year: int, years: bool = True) -> None:
        """Index the terms of `cutoff_year` or later; earlier ones are allowed words."""
        self.cutoff_year = cutoff_year
        self.years = years
        self._index: dict[str, list[_Form]] = defaultdict(list)
        self._patterns: list[tuple[re.Pattern[str], int, frozenset[str]]] = []
        for term in terms:
            if term.year < cutoff_year:
                continue
            if term.kind == "pattern":
                self._patterns.append((re.compile(term.term, 0 if term.case else re.IGNORECASE), term.year, term.context))
                continue
            for form in _forms(term):
                self._index[form.lowered[form.key]].append(form)

    def hits(self, text: str) -> list[Hit]:
        """Every anachronism in `text`, by position; offsets are characters. Overlapping terms all count."""
        # U+0130 alone has a longer lower case; without it, offsets are those of `text`.
        words = _WORD.findall(text.replace("\u0130", "I").lower())
        found = [*self._terms(text, words), *self._matches(text, frozenset(words))]
        if self.years:
            found.extend(self._dates(text))
        return sorted(found, key=lambda hit: (hit.start, hit.end))

    def check(self, text: str) -> Reject | None:
        """None for a text that the cutoff year could have written, else a reject that names each term and its year."""
        named = dict.fromkeys(f"{hit.term} ({hit.reason}, {hit.year})" for hit in self.hits(text))
        return Reject("anachronism", "; ".join(named)) if named else None

    def _terms(self, text: str, words: list[str]) -> Iterator[Hit]:
        found: list[tuple[_Form, range]] = []
        for at, word in enumerate(words):
            if word not in self._index:
                continue
            for form in self._index[word]:
                first, stop = at - form.key, at - form.key + len(form.words)
                if first < 0 or form.lowered != words[first:stop]:
                    continue
                around = words[max(0, first - SENSE_REACH) : first] + words[stop : stop + SENSE_REACH]
                if not form.context or not form.context.isdisjoint(around):
                    found.append((form, range(first, stop)))
        if not found:
            return
        # Offsets cost several times what the words do, and most texts need none.
        wanted = {at for _, span in found for at in span}
        tokens = {at: token for at, token in enumerate(_WORD.finditer(text)) if at in wanted}
        for form, span in found:
            seen = [tokens[at] for at in span]
            if _spelled(form, text, seen):
                yield Hit(form.term.term, form.term.year, seen[0].start(), seen[-1].end(), form.term.kind)

    def _matches(self, text: str, words: frozenset[str]) -> Iterator[Hit]:
        # One search a pattern is faster than one for all: the others begin with a rare character.
        for pattern, year, context in self._patterns:
            if context and context.isdisjoint(words):
                continue
            for match in pattern.finditer(text):
                yield Hit(match[0], year, match.start(), match.end(), "pattern")

    def _dates(self, text: str) -> Iterator[Hit]:
        for match in _YEAR.finditer(text):
            year = int(match[0])
            if self.cutoff_year <= year <= LAST_YEAR and _is_date(text, match):
                yield Hit(match[0], year, match.start(), match.end(), "year")


def _spelled(form: _Form, text: str, tokens: list[re.Match[str]]) -> bool:
    """Whether the words have the term's letter case, where it matters, and no sentence ends between them.

    In a line of capitals no word is an abbreviation.
    """
    if form.term.case and [token[0] for token in tokens] != form.words:
        return False
    start, end = tokens[0].start(), tokens[-1].end()
    if (
        form.term.case
        and form.term.term.isupper()
        and (_SHOUT.search(text[max(0, start - 20) : start]) or _SHOUTS.match(text, end))
    ):
        return False
    return all(_JOIN.fullmatch(text, left.end(), right.start()) for left, right in itertools.pairwise(tokens))


def _is_date(text: str, year: re.Match[str]) -> bool:
    """Whether the number is a date that its writer looks back on or lives in."""
    before = text[max(0, year.start() - 120) : year.start()]
    after = text[year.end() : year.end() + 120]
    if _INSIDE.search(before) and not before.endswith("mid-"):
        return False
    decade = year[0].endswith("0") and _DECADE_END.match(after) is not None
    if not decade and not _looks_dated(year[0], before, after):
        return False
    clause = _CLAUSE.split(before)[-1]
    # "The year 2000" was the favourite stage of period prophecy.
    if year[0] == "2000" and _THE_YEAR.search(clause):
        return False
    return not (_FUTURE.search(clause) or _FUTURE.search(_CLAUSE.split(after, maxsplit=1)[0]))


def _looks_dated(year: str, before: str, after: str) -> bool:
    """Whether the number between these texts is rather a year than a count, a page or a title."""
    if _MEASURED.match(after) or _ERA.match(after.lstrip()) or _ERA.search(before[-6:]) or _TITLE.search(before[-60:] + after[:60]):
        return False
    counted = _COUNTED.match(after) is not None
    if _DATED.search(before):
        return not counted
    if year == "2000" or _NUMBERED.search(before):
        return False
    return not counted or _DETERMINED.search(before) is not None
