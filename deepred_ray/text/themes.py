"""Theme matching: a lexicon, a matcher that looks tokens up in a set, a score and a keep rule.

A keyword hits a text when it occurs between word boundaries of the lower-cased text, exactly as
`re.search(rf"\\b{re.escape(keyword)}\\b", text.lower())` says.
It counts once, however often it stands there.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from deepred_ray.text.reject import Reject

_HEADER = ["theme", "keyword"]
_WORD = re.compile(r"\w+")
# cp1252 holds nearly all that English books are set in, a byte a character, and bytes are split fastest: what is no \w
# becomes a space in this table.
_CODEC: Final = "cp1252"
_CP1252_WORDS: Final = bytes(c if _WORD.fullmatch(bytes([c]).decode(_CODEC, "replace")) else 32 for c in range(256))


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Keywords by theme.

    `keywords` maps a theme's name to its distinct lower-case keywords, in the order of the file. One keyword may stand
    under several themes, and then it counts for each.
    """

    keywords: Mapping[str, tuple[str, ...]]

    @property
    def themes(self) -> tuple[str, ...]:
        """Names of the themes, in the order of the file."""
        return tuple(self.keywords)


def parse_lexicon(tsv: str) -> Lexicon:
    """Read a lexicon from tab-separated text: a header `theme<TAB>keyword`, then one pair a line.

    Blank lines are skipped. Raises ValueError that names the line when the header is another, a line has not two
    fields, a field is empty or padded, a keyword is not lower-case (it could never hit), or a pair is repeated; and
    ValueError when there is no pair at all.
    """
    lines = tsv.splitlines()
    if not lines or lines[0].split("\t") != _HEADER:
        raise ValueError(f"lexicon line 1: expected the header 'theme<TAB>keyword', found {lines[0] if lines else ''!r}")
    pairs: dict[str, dict[str, None]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) != 2:
            raise ValueError(f"lexicon line {number}: expected two fields parted by a tab, found {line!r}")
        theme, keyword = fields
        if not theme or not keyword or theme != theme.strip() or keyword != keyword.strip():
            raise ValueError(f"lexicon line {number}: a field is empty or padded with space: {line!r}")
        if keyword != keyword.lower():
            raise ValueError(f"lexicon line {number}: keyword {keyword!r} is not lower-case, so it could never hit")
        known = pairs.setdefault(theme, {})
        if keyword in known:
            raise ValueError(f"lexicon line {number}: {keyword!r} is already a keyword of {theme!r}")
        known[keyword] = None
    if not pairs:
        raise ValueError("lexicon holds no keyword, only a header")
    return Lexicon({theme: tuple(known) for theme, known in pairs.items()})


class Matcher:
    """Finds which keywords of a lexicon occur in a text. Built once, then read-only; it can be pickled."""

    def __init__(self, lexicon: Lexicon) -> None:
        """Index the lexicon: plain words by token, any other keyword by the tokens that must be there for it to hit."""
        self.lexicon = lexicon
        self._themes_of: dict[str, list[int]] = {}
        for index, words in enumerate(lexicon.keywords.values()):
            for word in words:
                self._themes_of.setdefault(word, []).append(index)
        self._words = frozenset(word for word in self._themes_of if _WORD.fullmatch(word))
        self._phrases = [
            (keyword, frozenset(_WORD.findall(keyword)), re.compile(rf"\b{re.escape(keyword)}\b"))
            for keyword in self._themes_of
            if keyword not in self._words
        ]
        # A keyword of no token at all ("--") leaves nothing to look up; only its own search can tell.
        self._gates = frozenset(chain.from_iterable(tokens for _, tokens, _ in self._phrases))
        self._ungated = any(not tokens for _, tokens, _ in self._phrases)
        self._vocabulary = self._words | self._gates
        encoded = ((token.encode(_CODEC, "ignore"), token) for token in self._vocabulary)
        self._by_bytes = {raw: token for raw, token in encoded if raw.decode(_CODEC) == token}
        self._bytes = frozenset(self._by_bytes)

    def _seen(self, lowered: str) -> set[str]:
        """Return the tokens of the vocabulary that lower-cased text holds; a token is a maximal run of \\w."""
        try:
            raw = lowered.encode(_CODEC)
        except UnicodeEncodeError:
            return set(self._vocabulary.intersection(_WORD.findall(lowered)))
        return {self._by_bytes[token] for token in self._bytes.intersection(raw.translate(_CP1252_WORDS).split())}

    def _found(self, text: str) -> set[str]:
        """Return the distinct keywords that occur in the text."""
        lowered = text.lower()
        seen = self._seen(lowered)
        if not self._ungated and self._gates.isdisjoint(seen):
            return seen
        phrases = {keyword for keyword, tokens, regex in self._phrases if tokens <= seen and regex.search(lowered)}
        return (seen & self._words) | phrases

    def counts(self, text: str) -> dict[str, int]:
        """Count the distinct keywords that hit, by theme: themes with at least one, in the lexicon's order."""
        counts = [0] * len(self.lexicon.keywords)
        for keyword in self._found(text):
            for index in self._themes_of[keyword]:
                counts[index] += 1
        return {theme: count for theme, count in zip(self.lexicon.keywords, counts, strict=True) if count}

    def hits(self, text: str) -> dict[str, tuple[str, ...]]:
        """Return the distinct keywords that hit, by theme: themes with at least one, all in the lexicon's order."""
        found = self._found(text)
        by_theme = {theme: tuple(w for w in words if w in found) for theme, words in self.lexicon.keywords.items()}
        return {theme: words for theme, words in by_theme.items() if words}


def score(counts: Mapping[str, int], length: int = 1000) -> float:
    """Rate how much of the lexicon a text holds: higher is more on theme, 0.0 is nothing.

    score = sum over themes of ln(1 + count), per 1,000 characters of text: 1000 / max(length, 1000) times the sum.
    The logarithm makes the second theme worth more than the second keyword of one theme; the divisor takes from a
    longer text what it owes to its length alone, and grants a short one nothing. `counts` is what `Matcher.counts`
    returned, `length` the text's characters. The formula is this project's own.
    Raises ValueError for a negative count or length.
    """
    if length < 0 or any(count < 0 for count in counts.values()):
        raise ValueError(f"counts and length cannot be negative: {dict(counts)}, {length}")
    return 1000 / max(length, 1000) * sum(math.log1p(count) for count in counts.values())


def decide(counts: Mapping[str, int], total: int, *, min_matches: int, min_themes: int) -> Reject | None:
    """Keep a text (None) when `total >= min_matches` and at least `min_themes` themes have a hit; else say why not.

    `total` is the sum of `counts`, so a keyword of three themes counts three times. `min_themes=0` is the plan's own
    rule, a plain count, which hardly filters at the plan's 3; a text on theme has many matches in many themes at once.
    Reasons: `few_matches`, `few_themes`. Raises ValueError for a negative threshold.
    """
    if min_matches < 0 or min_themes < 0:
        raise ValueError(f"thresholds cannot be negative: min_matches={min_matches}, min_themes={min_themes}")
    if total < min_matches:
        return Reject("few_matches", f"{total} of {min_matches} keyword matches")
    themes = sum(count > 0 for count in counts.values())
    if themes < min_themes:
        return Reject("few_themes", f"{themes} of {min_themes} themes")
    return None
