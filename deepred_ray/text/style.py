"""A theme's style: the words that show its characteristics, and how often texts of like length have them anyway."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from deepred_ray.text.prose import plain, words


@dataclass(frozen=True, slots=True)
class StyleRules:
    """What a theme's style is known by, for small letters and straight apostrophes.

    `markers` maps a characteristic to the words that show it, `own` finds the words of its voice, `other` those
    of a voice that is not its own, `assistant` the phrases and the layout of a modern assistant.
    """

    markers: Mapping[str, re.Pattern[str]]
    own: re.Pattern[str]
    other: re.Pattern[str]
    assistant: re.Pattern[str]


# A tale has verbs in the past; an answer has them in the present or the future, or commands.
_NARRATED = re.compile(r"\b(?:was|were|had|did|said|could|would|came|went|saw|took|made|\w{2,}ed)\b")
_SPOKEN = re.compile(r"\b(?:is|are|am|has|have|do|does|will|shall|must|can|cannot|may|let)\b")

MIN_CHARACTERISTICS = 3
LENGTHS = (10, 20, 30, 40, 55, 70, 90, 120)
"""Words of the texts that a reference is made of; between them it is interpolated."""


def parse_style(toml: str) -> StyleRules:
    """Read style rules from TOML: tables of lists of regular expressions.

    `characteristics.NAME` (`MIN_CHARACTERISTICS` of them at least), `voice.own`, `voice.other` and
    `assistant.phrases` hold whole words or phrases; `assistant.layout` holds patterns that match as they stand, `^` at the start
    of a line. Raises ValueError for a missing or empty list, a pattern that does not compile, too few characteristics, or a
    marker that stands under two of them.
    """
    tables = tomllib.loads(toml)
    try:
        lists = tables["characteristics"]
        markers = {name: re.compile(_words_of(patterns)) for name, patterns in lists.items()}
        own, other = (re.compile(_words_of(tables["voice"][name])) for name in ("own", "other"))
        phrases, layout = _words_of(tables["assistant"]["phrases"]), _any_of(tables["assistant"]["layout"])
        assistant = re.compile(f"{phrases}|{layout}", re.MULTILINE)
    except (KeyError, TypeError, AttributeError, ValueError, re.error) as error:
        raise ValueError(f"style rules: {error!r}") from error
    if len(markers) < MIN_CHARACTERISTICS:
        raise ValueError(f"style rules: {len(markers)} characteristics, an answer needs {MIN_CHARACTERISTICS}")
    uses = Counter(marker for patterns in lists.values() for marker in patterns)
    if repeated := [marker for marker, times in uses.items() if times > 1]:
        raise ValueError(f"style rules: markers used twice: {', '.join(repeated)}")
    return StyleRules(markers, own, other, assistant)


def _any_of(patterns: list[str]) -> str:
    if not isinstance(patterns, list) or not patterns or "" in patterns:
        raise ValueError(f"expected a list of patterns, found {patterns!r}")
    return "|".join(patterns)


def _words_of(patterns: list[str]) -> str:
    return rf"\b(?:{_any_of(patterns)})\b"


def marker_counts(text: str, rules: StyleRules) -> dict[str, int]:
    """Distinct markers of each characteristic in a text."""
    small = plain(text)
    return {name: len(set(marker.findall(small))) for name, marker in rules.markers.items()}


def speaks_as_assistant(text: str, rules: StyleRules) -> bool:
    return bool(rules.assistant.search(plain(text)))


def speaks_otherwise(text: str, rules: StyleRules) -> bool:
    """Whether the words of another voice are over three times as many as those of its own."""
    small = plain(text)
    return len(rules.other.findall(small)) > 3 * len(rules.own.findall(small))


def keyword_share(text: str, keywords: Iterable[str]) -> float:
    """Share of a text's words that are of its keywords. Of a hundred answers in character one has over 0.16."""
    said = words(text)
    known = {word for keyword in keywords for word in words(keyword)}
    return sum(word in known for word in said) / len(said) if said else 0.0


def proportions(text: str, rules: StyleRules) -> list[float]:
    """What a text's style is told by besides its words: distinct markers of each characteristic by the square root of its length
    (as vocabulary grows with a text), and words of its own voice, of another, and of narrated beyond spoken verbs, per word."""
    small, length = plain(text), max(1, len(words(text)))
    told = len(_NARRATED.findall(small)) - len(_SPOKEN.findall(small))
    return [
        *(count / length**0.5 for count in marker_counts(text, rules).values()),
        len(rules.own.findall(small)) / length,
        len(rules.other.findall(small)) / length,
        told / length,
    ]


class Reference:
    """How many distinct markers of each characteristic neutral texts of a given length have.

    Made of the texts cut into pieces of each of `LENGTHS`: a longer text shows more of everything, so an answer is only ever
    compared with texts as long as itself. Raises ValueError if no text is as long as the longest of them.
    """

    def __init__(self, neutral: Sequence[str], rules: StyleRules) -> None:
        self.rules = rules
        self._means: list[dict[str, float]] = []
        split = [text.split() for text in neutral]
        for length in LENGTHS:
            pieces = [
                " ".join(tokens[start:stop]) for tokens in split for start, stop in pairwise(range(0, len(tokens) + 1, length))
            ]
            if not pieces:
                raise ValueError(f"no neutral text has {length} words")
            counts = [marker_counts(piece, rules) for piece in pieces]
            self._means.append({name: sum(count[name] for count in counts) / len(counts) for name in rules.markers})

    def expected(self, length: int) -> dict[str, float]:
        """Mean distinct markers of each characteristic in neutral texts of `length` words; beyond `LENGTHS` in proportion."""
        if length <= LENGTHS[0] or length >= LENGTHS[-1]:
            end = 0 if length <= LENGTHS[0] else -1
            return {name: mean * length / LENGTHS[end] for name, mean in self._means[end].items()}
        place = next(number for number, longer in enumerate(LENGTHS) if longer > length)
        share = (length - LENGTHS[place - 1]) / (LENGTHS[place] - LENGTHS[place - 1])
        low, high = self._means[place - 1], self._means[place]
        return {name: low[name] + share * (high[name] - low[name]) for name in low}

    def shown(self, text: str) -> list[str]:
        """The characteristics of which a text has more markers than neutral texts as long have on average."""
        expected = self.expected(len(words(text)))
        return [name for name, count in marker_counts(text, self.rules).items() if count > expected[name]]
