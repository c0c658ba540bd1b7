"""Theme scoring: a lexicon of weighted terms, what it finds in texts, a score and the rule that keeps a chunk.

Some terms of the lexicon are keywords of the plan. Counted alone, each once however often it stands there, they give
the plan's own number of matches; all terms together, weighted, give the score.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepred_ray.text.matching import Matcher
from deepred_ray.text.reject import Reject

COLUMNS = ("theme", "term", "strength", "rarity", "plan")
STRENGTHS: Final = range(4)
# The weight at which one more term of a theme has lost half of its worth: that of a rare, unmistakable term.
_ENOUGH: Final = 10.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a lexicon.

    `strength`, 0 to 3, says how surely a text with this term is about the theme; `rarity` is minus the logarithm to the
    base 10 of the share of English passages that hold the term; `plan` marks the plan's keywords.
    """

    theme: str
    term: str
    strength: int
    rarity: float
    plan: bool


class Lexicon:
    """Weighted terms by theme. One term may stand under several themes, and then it counts for each."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self.themes = tuple(dict.fromkeys(entry.theme for entry in entries))
        self.terms = tuple(dict.fromkeys(entry.term for entry in entries))

    @cached_property
    def keywords(self) -> Mapping[str, tuple[str, ...]]:
        """The plan's keywords by theme, in the order of the file."""
        return {theme: tuple(e.term for e in self.entries if e.plan and e.theme == theme) for theme in self.themes}


def parse_lexicon(tsv: str) -> Lexicon:
    """Read a lexicon from tab-separated text: the header `COLUMNS`, then one entry a line; `plan` is 1 or 0.

    Blank lines are skipped. Raises ValueError that names the line when the header is another, a line has not five
    fields, a field is empty or padded, a term is not lower-case (it could never hit), a number is none or out of
    bounds, or a pair of theme and term is repeated; and ValueError when there is no entry at all.
    """
    lines = tsv.splitlines()
    if not lines or tuple(lines[0].split("\t")) != COLUMNS:
        raise ValueError(f"lexicon line 1: expected the header {'<TAB>'.join(COLUMNS)!r}, found {lines[0] if lines else ''!r}")
    entries: dict[tuple[str, str], Entry] = {}
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            try:
                entry = _parse_entry(line)
                if (entry.theme, entry.term) in entries:
                    raise ValueError(f"{entry.term!r} is already a term of {entry.theme!r}")
            except ValueError as error:
                raise ValueError(f"lexicon line {number}: {error}") from error
            entries[entry.theme, entry.term] = entry
    if not entries:
        raise ValueError("lexicon holds no term, only a header")
    return Lexicon(tuple(entries.values()))


def _parse_entry(line: str) -> Entry:
    fields = line.split("\t")
    if len(fields) != len(COLUMNS):
        raise ValueError(f"expected {len(COLUMNS)} fields parted by tabs, found {line!r}")
    if any(not field or field != field.strip() for field in fields):
        raise ValueError(f"a field is empty or padded with space: {line!r}")
    theme, term, strength, rarity, plan = fields
    if term != term.lower():
        raise ValueError(f"term {term!r} is not lower-case, so it could never hit")
    entry = Entry(theme, term, int(strength), float(rarity), plan == "1")
    if entry.strength not in STRENGTHS or not 0 <= entry.rarity < 10 or plan not in ("0", "1"):
        raise ValueError(f"strength must be 0 to 3, rarity 0 to 10, plan 0 or 1: {line!r}")
    return entry


class Scored(NamedTuple):
    """What a scorer says of n texts, theme by theme."""

    counts: NDArray[np.int16]
    """Distinct keywords of the plan that hit, shape (n, themes)."""
    weights: NDArray[np.float32]
    """Weight of the terms that hit, shape (n, themes)."""
    scores: NDArray[np.float32]
    """Shape (n,)."""

    @property
    def totals(self) -> NDArray[np.int64]:
        """The plan's matches of each text: its counts summed, so a keyword of three themes counts three times."""
        totals: NDArray[np.int64] = self.counts.sum(axis=1, dtype=np.int64)
        return totals


class Scorer:
    """Rates texts by a lexicon. Built once, then read-only; it can be pickled."""

    def __init__(self, lexicon: Lexicon, relevance: Mapping[str, float]) -> None:
        """`relevance` says of each theme how much it counts. Raises ValueError unless it names just the lexicon's themes."""
        if set(relevance) != set(lexicon.themes) or min(relevance.values()) < 0:
            odd = sorted(set(relevance) ^ set(lexicon.themes)) or [name for name in relevance if relevance[name] < 0]
            raise ValueError(f"every theme of the lexicon needs a relevance of 0 or more, and no other: {', '.join(odd)}")
        self.lexicon = lexicon
        self.matcher = Matcher(lexicon.terms)
        self._relevance = np.array([relevance[name] for name in lexicon.themes], dtype=np.float32)
        shape = (len(lexicon.terms), len(lexicon.themes))
        self._planned = np.zeros(shape, dtype=np.int16)
        self._weights = np.zeros(shape, dtype=np.float32)
        theme, term = ({name: n for n, name in enumerate(names)} for names in (lexicon.themes, lexicon.terms))
        for entry in lexicon.entries:
            self._planned[term[entry.term], theme[entry.theme]] = entry.plan
            self._weights[term[entry.term], theme[entry.theme]] = entry.strength * entry.rarity

    def score(self, texts: Sequence[str]) -> Scored:
        """Rate how much of the lexicon each text holds: higher is more on theme, 0.0 is nothing.

        score = sum over themes of relevance * ln(1 + weight / 10), per 1,000 characters: 1000 / max(length, 1000) times the
        sum, where a theme's weight is the sum over its terms of strength * rarity * (1 + ln(count)).
        So a rare term says more than a common one, another term more than the same again, and another theme more than
        another term of a theme that has said enough; the divisor takes from a longer text what it owes to its length
        alone, and grants a short one nothing. The formula is this project's own; rarity and 1 + ln(count) are those of
        tf-idf (Salton and Buckley 1988).
        """
        hits = self.matcher.find(texts)
        counts = np.zeros((len(texts), len(self.lexicon.themes)), dtype=np.int16)
        weights = np.zeros(counts.shape, dtype=np.float32)
        if len(hits.text):
            first = np.flatnonzero(np.diff(hits.text, prepend=-1))  # of each text that has any
            there = hits.text[first]
            counts[there] = np.add.reduceat(self._planned[hits.term], first)
            often = 1 + np.log(hits.often, dtype=np.float32)
            weights[there] = np.add.reduceat(self._weights[hits.term] * often[:, None], first)
        lengths = np.array([max(len(text), 1000) for text in texts], dtype=np.float32)
        return Scored(counts, weights, 1000 / lengths * (np.log1p(weights / _ENOUGH) @ self._relevance))

    def counts(self, text: str) -> dict[str, int]:
        """Distinct keywords of the plan that hit, by theme: themes with at least one, in the lexicon's order."""
        (row,) = self.score([text]).counts.tolist()
        return {theme: count for theme, count in zip(self.lexicon.themes, row, strict=True) if count}

    def hits(self, text: str) -> dict[str, tuple[str, ...]]:
        """The plan's keywords that hit, by theme: themes with at least one, all in the lexicon's order."""
        found = {self.lexicon.terms[term] for term in self.matcher.find([text]).term.tolist()}
        by_theme = {theme: tuple(w for w in words if w in found) for theme, words in self.lexicon.keywords.items()}
        return {theme: words for theme, words in by_theme.items() if words}


def verdicts(scored: Scored, *, min_score: float, min_matches: int | None) -> Iterator[Reject | None]:
    """For each text None, to keep it, or why not.

    With `min_matches` the plan's rule decides, a number of matches, which hardly filters at the plan's 3; else the score.
    Reasons: `few_matches`, `low_score`. Raises ValueError for a negative threshold.
    """
    if min_score < 0 or (min_matches or 0) < 0:
        raise ValueError(f"thresholds cannot be negative: min_score={min_score}, min_matches={min_matches}")
    for total, score in zip(scored.totals.tolist(), scored.scores.tolist(), strict=True):
        if min_matches is None:
            yield Reject("low_score", f"{score:.2f} of {min_score:g}") if score < min_score else None
        else:
            yield Reject("few_matches", f"{total} of {min_matches} keyword matches") if total < min_matches else None
