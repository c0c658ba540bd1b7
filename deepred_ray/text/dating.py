"""The year in which a work was published, from what the book itself and its author's life say, and the temporal rule.

Gutenberg's release dates are never taken: callers pass the front matter and the transcribers' notes, not the header,
and what those notes say of posting and updating the file is left out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from deepred_ray.text.reject import Reject

CONFIDENCES = ("title_page", "magazine", "metadata", "edition", "author_life", "none")
"""From best to worst. `edition` and `author_life` give the latest year that the work can be of, not the first print."""

_OLDEST_PRINT = 1450
_YOUNGEST_AUTHOR = 10
_SNIPPET = 100


@dataclass(frozen=True, slots=True)
class Dating:
    """A year (negative for BCE), the words that gave it, and one of `CONFIDENCES`; year None goes with "none"."""

    year: int | None
    evidence: str
    confidence: str


_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?|Spring|Summer|Autumn|Fall|Winter"
_YEAR = r"(?<![\d.,-])(1[4-9]\d\d|20\d\d)(?![\d]|-\d)"
_TRANSLATION = re.compile(rf"translat[^.;\n]{{0,40}}(?:copyright|©|\(c\))[^.;\n]{{0,40}}?{_YEAR}", re.I)
_FIRST = re.compile(
    rf"(?:first|originally|original) (?:published|publication|printed|issued|appeared)[^.;]{{0,80}}?{_YEAR}"
    rf"|original publication:[^\n]{{0,160}}?{_YEAR}"
    rf"|(?:^|\n)[\s_(]*published(?:,| in| by|,? (?:{_MONTH})){{0,2}}[^.;\n]{{0,40}}?{_YEAR}"
    rf"|{_YEAR},? original title",
    re.I,
)
_COPYRIGHT = re.compile(rf"(?:copyright(?:ed)?|©|\(c\)|entered according to act[^.;]{{0,60}}?year)[^;\n\d]{{0,60}}{_YEAR}", re.I)
_MAGAZINE = re.compile(
    rf"(?:produced|transcribed|prepared|taken|reprinted|made|created) from\s(?P<name>[^.]{{4,80}}?)"
    rf"(?:No\. ?\d+ |Vol[^.]{{0,12}}\. ?)?(?P<months>(?:\b(?:{_MONTH})[\s,]*(?:and )?)*){_YEAR}",
    re.I,
)
_ISSUE = re.compile(
    rf"^[\W_]*(?P<name>[A-Z][^.\n]{{0,60}}?)[\W_]+(?:Vol[^\n]{{0,20}}[\s,]|No\. ?\d+[\s,]+)?"
    rf"(?:(?:{_MONTH})[\s,/-]*)+{_YEAR}[\W_]*$",
    re.I | re.M,
)
_MAGAZINE_NAME = re.compile(
    r"\b(?:stories|fiction|magazine|monthly|weekly|quarterly|review|journal|galaxy|amazing|astounding|analog|fantastic"
    r"|worlds|tales|adventures)\b|^if\b",
    re.I,
)
_EDITION = re.compile(
    rf"from (?:the |an? )?[^.\n\d]{{0,30}}?\b{_YEAR}(?! ?(?:to|and|-|–) ?\d).{{0,50}}?(?:edition|book|printing|reprint|volume)"
    rf"|(?:edition|printing|reprint|anthology)[^.]{{0,50}}?{_YEAR}|{_YEAR} edition",
    re.I,
)
_RENEWED = re.compile(r"[\s,(]*renew(?:ed|al)\b(?![^;\n]{0,20}\d{4})", re.I)
_LATER_PRINT = re.compile(
    r"\b(?:second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|new|revised|\d+th) (?:and \w+ )?"
    r"(?:edition|impression)|\breprint",
    re.I,
)
_IMPRINT = re.compile(rf"^[\s_(\[]*(?:[A-Z][\w&.,:;'\u2019·\u2013\u2014 -]{{2,60}}[\s,.:]+(?:\w+ )?)?{_YEAR}[\s_)\].]*$")
_BRACKETED = re.compile(rf"[\[(]{_YEAR}[\])]\s*$")
_PRINTED = re.compile(rf"^[^.;]{{0,30}}\bprinted\b[^.;]{{0,60}}?{_YEAR}", re.I)
# Of print years only: M, then hundreds, tens and ones in order, with the dots and blanks that printers like.
_ROMAN = re.compile(
    r"\bM(?=[. ]*[MDCLXVI][. ]*[MDCLXVI])[. ]{0,2}(?:CM|CD|D|M(?![MDC])|(?=C))?[. ]{0,2}(?:C[. ]{0,2}){0,4}"
    r"(?:XC|XL|L?[. ]{0,2}(?:X[. ]{0,2}){0,4})[. ]{0,2}(?:IX|IV|V?[. ]{0,2}I{0,4})(?![A-Za-z])"
)
_NOT_IMPRINT = re.compile(
    r"\b(?:tale|story|stories|romance|chapter|book|part|in the year|from|to|before|after|a\.d)\b|\bin \d{4}", re.I
)
_FILE_DATE = re.compile(
    r"\b(?:electronic (?:version|edition|text)|e-?text|e-?book|digital edition)\b(?![^.,;>]{0,80}translat)[^.,;>]{0,80}?"
    r"(?:copyright|©|\(c\))[^.;>\n]{0,40}?\d{4}(?:-\d{4})?"
    r"|\b(?:posted|(?:re-?)?released?|updated|uploaded|corrections? made|scanned|digiti[sz]ed)\b[^.;]{0,60}?\d{4}",
    re.I,
)
_DATE_LINE = re.compile(rf"\b(?:{_MONTH})(?:\s+\d{{1,2}}\w*)?,?\s", re.I)
_YEARBOOK = re.compile(
    rf"\b(?:factbook|yearbook|almanac|annual report)\b.*?{_YEAR}|{_YEAR}.*?\b(?:factbook|yearbook|almanac)\b", re.I
)


def date_work(title: str, front_matter: str, birth_year: int | None, death_year: int | None) -> Dating:
    """Date a work: what its pages print, else its author's death.

    `front_matter` is the title page and the transcribers' notes. In order: the copyright of a translation, "first
    published", a magazine's issue, a copyright line, the imprint, a year in the name of a yearbook, the edition that
    was transcribed, the author's death. Within one kind the earliest year counts. Years of the story are kept out: a
    year in the title, a year before the author was ten, a year in a sentence, and ranges of years are no imprint.
    Roman years are read, and quoted, in figures. A translation's imprint is its own date, also after the author's death.
    """
    title_years = set(re.findall(r"\d{4}", title))
    text = _FILE_DATE.sub(" ", re.sub(r"[ \t]*[|+][-| \t]*", " ", front_matter))
    text = _ROMAN.sub(_figures, text)
    candidates = list(_candidates(text, title_years, death_year))
    yearbook = _YEARBOOK.search(title)
    if yearbook:
        candidates.append((4, _year(yearbook), "metadata", title))
    earliest = _OLDEST_PRINT if birth_year is None else max(_OLDEST_PRINT, birth_year + _YOUNGEST_AUTHOR)
    plausible = [candidate for candidate in candidates if candidate[1] >= earliest]
    if plausible:
        _, year, confidence, evidence = min(plausible)
        return Dating(year, evidence, confidence)
    if death_year is not None:
        return Dating(death_year, f"the author died in {death_year}", "author_life")
    return Dating(None, "no year in the front matter and no death year", "none")


def temporal_rule(dating: Dating, death_year: int | None, cutoff_year: int) -> Reject | None:
    """None when the work may stay, else why not; `cutoff_year` itself is out.

    - A year that is known (title page, magazine, metadata) decides.
    - The year of an edition before the cutoff decides too. A later one only says when it was reprinted, so the author's
      death decides.
    - An author who died before the cutoff published before it.
    - All else is undatable.

    Rejects: `published_after_cutoff`, `undatable`.
    """
    known = dating.confidence in ("title_page", "magazine", "metadata")
    if dating.year is not None and known and dating.year >= cutoff_year:
        return Reject("published_after_cutoff", f"{dating.year} by {dating.confidence}: {dating.evidence}")
    if dating.year is not None and dating.confidence != "author_life" and dating.year < cutoff_year:
        return None
    if death_year is not None and death_year < cutoff_year:
        return None
    return Reject("undatable", f"{dating.confidence}: {dating.evidence}; death year {death_year}")


def _candidates(text: str, title_years: set[str], death_year: int | None) -> Iterator[tuple[int, int, str, str]]:
    """(rank, year, confidence, evidence) of every statement of a year in the front matter."""
    flat = re.sub(r"\s+", " ", text)
    for match in _TRANSLATION.finditer(text):
        yield 0, _year(match), "title_page", _snippet(match[0])
    for match in _FIRST.finditer(text):
        yield 1, _year(match), "title_page", _snippet(match[0])
    for match in _MAGAZINE.finditer(flat):
        if match["months"] or re.search(r"No\. ?\d+ |stories|fiction|magazine", match[0], re.I):
            yield 1, _year(match), "magazine", _snippet(match[0])
    for match in _ISSUE.finditer(text):
        if _MAGAZINE_NAME.search(match["name"]):
            yield 1, _year(match), "magazine", _snippet(match[0])
    for match in _COPYRIGHT.finditer(text):
        if not re.search("renew", match[0], re.I) and not _RENEWED.match(text, match.end()):
            yield 2, _year(match), "title_page", _snippet(match[0])
    for match in _EDITION.finditer(flat):
        yield 5, _year(match), "edition", _snippet(match[0])
    later_print = _LATER_PRINT.search(text) is not None
    translated = re.search(r"\btranslat(?:ed|ion|or)\b", text, re.I) is not None
    for line in text.split("\n"):
        year = _imprint_year(line)
        if year is not None and str(year) not in title_years:
            posthumous = death_year is not None and year > death_year and not translated
            first = not (later_print or posthumous)
            yield 3 if first else 5, year, "title_page" if first else "edition", _snippet(line)


def _imprint_year(line: str) -> int | None:
    """The year of a line that is an imprint or a byline with a year, else None."""
    if len(line.strip()) > 90 or _DATE_LINE.search(line):
        return None
    match = _BRACKETED.search(line) or _PRINTED.search(line)
    if match is None and not _NOT_IMPRINT.search(line):
        match = _IMPRINT.match(line)
    return _year(match) if match else None


def _figures(numeral: re.Match[str]) -> str:
    """A Roman numeral with dots or blanks in it ("M.DCCC.LIX.") in figures; unchanged when it is no year of print."""
    values = {"M": 1000, "D": 500, "C": 100, "L": 50, "X": 10, "V": 5, "I": 1}
    digits = [values[char] for char in numeral[0] if char.isalpha()]
    value = sum(-digit if digit < max(digits[index:]) else digit for index, digit in enumerate(digits))
    return f"{value} " if _OLDEST_PRINT <= value < 2100 else numeral[0]


def _year(match: re.Match[str]) -> int:
    """The year that one of the alternatives of a pattern caught."""
    return next(int(group) for group in reversed(match.groups()) if group and group.isdigit())


def _snippet(text: str) -> str:
    """Evidence on one line, cut at `_SNIPPET` characters from the left, where a year stands last."""
    return re.sub(r"\s+", " ", text).strip()[-_SNIPPET:]
