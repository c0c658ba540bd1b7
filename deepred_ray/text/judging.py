"""Judging answers one by one: style, period and persona. Every rule here can say no, and names its reason."""

import json
import random
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

KINDS = ("style", "temporal", "persona")


@dataclass(frozen=True, slots=True)
class Item:
    """One evaluation prompt. `accept`: an answer must match one (if there are any); `leak`: it must match none."""

    id: str
    category: str
    kind: str
    prompt: str
    accept: tuple[re.Pattern[str], ...] = ()
    leak: tuple[re.Pattern[str], ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an answer passes, and why (not): `reason` is a short stable snake_case word, "ok" when it passes."""

    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class StyleRules:
    """What a theme's style is known by, for small letters and straight apostrophes.

    `markers` maps a characteristic to the words that show it, `collective` finds the words of one who speaks for all,
    `assistant` the phrases and the layout of a modern assistant.
    """

    markers: Mapping[str, re.Pattern[str]]
    collective: re.Pattern[str]
    assistant: re.Pattern[str]


def parse_items(jsonl: str) -> tuple[Item, ...]:
    """Read evaluation prompts, one JSON object a line.

    Raises ValueError naming the line for a missing or unknown field, an unknown kind, a pattern that does not compile
    or an id used twice.
    """
    items: list[Item] = []
    for number, line in enumerate(jsonl.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            patterns = {key: tuple(re.compile(p, re.IGNORECASE) for p in fields.pop(key)) for key in ("accept", "leak")}
            item = Item(**{**fields, **patterns})
        except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
            raise ValueError(f"evaluation prompts, line {number}: {error!r}") from error
        if item.kind not in KINDS:
            raise ValueError(f"evaluation prompts, line {number}: kind {item.kind!r} is none of {', '.join(KINDS)}")
        items.append(item)
    repeated = [name for name, uses in Counter(item.id for item in items).items() if uses > 1]
    if repeated:
        raise ValueError(f"evaluation prompts: ids used twice: {', '.join(repeated)}")
    return tuple(items)


def stratified(items: Sequence[Item], n: int, seed: int) -> list[Item]:
    """Choose `n` items spread evenly over (kind, category): the strata differ by one item at most until one runs dry.

    Deterministic, and nested: the choice for a smaller `n` with the same seed is part of the choice for a larger one.
    Raises ValueError if `n` is negative or more than there are.
    """
    if not 0 <= n <= len(items):
        raise ValueError(f"cannot choose {n} of {len(items)} evaluation prompts")
    rng = random.Random(seed)
    strata: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: item.id):
        strata[item.kind, item.category].append(item)
    order = sorted(strata)
    rng.shuffle(order)
    ranked: list[tuple[int, int, Item]] = []
    for place, key in enumerate(order):
        rng.shuffle(strata[key])
        ranked += [(turn, place, item) for turn, item in enumerate(strata[key])]
    ranked.sort(key=lambda entry: entry[:2])
    return sorted((item for _, _, item in ranked[:n]), key=lambda item: item.id)


# --- text -------------------------------------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_DETERMINERS = r"the|a|an|our|their|its|his|my|your|every"
# What cannot follow a determiner, nor the word "of".
_STRANDED = (
    r"of|to|in|on|at|by|for|with|from|and|or|but|if|is|are|was|were|be|been|has|have|had|do|does|did|will|shall"
    r"|would|must|can|we|they|he|she|i|not|as|than|because"
)
_OTHER_FUNCTION_WORDS = (
    r"this|these|those|that|which|who|it|you|them|us|there|here|what|when|where|how|why|so|no|nor|yet|may|should"
    r"|could|might|me|him|her|one|all|each|some|any|more|most|only|then|thus|into|upon|through|over|under|about"
    r"|after|before|between|against|am|being|such|too|very|out|up|down|whom|whose|while|until|let|again|also"
)
_FUNCTION_WORD = re.compile(rf"\b(?:{_DETERMINERS}|{_STRANDED}|{_OTHER_FUNCTION_WORDS})\b")
_END = re.compile(r"[.!?][\"')\u201d\u2019]*(?:\s|$)")
_OPENER = re.compile(rf"\b(?:{_DETERMINERS}|of)\b")
_BROKEN = re.compile(rf"{_OPENER.pattern}(?:\s+(?:{_STRANDED})\b|[.,;:!?])")
_LOWER_START = re.compile(r"[a-z][.!?]\s+[a-z]")


def _plain(text: str) -> str:
    return text.casefold().replace("\u2019", "'")


def words(text: str) -> list[str]:
    """The lower-cased words of a text; numbers and punctuation are left out."""
    return _WORD.findall(_plain(text))


def repetition_rate(text: str, n: int = 4) -> float:
    """Share in [0, 1] of the text's word n-grams that occurred in it before. Fewer than n words repeat nothing: 0."""
    tokens = words(text)
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def prose_fault(text: str) -> str | None:
    """Why a text of a dozen words or more is not English prose, or None: a list of words, a loop or a word salad.

    Thresholds: function words make 40 to 60 % of English running text and under 20 % of a keyword list; among the first
    100 words of prose more than half are distinct; "the" is hardly ever followed by "of" or "is", nor a full stop by a
    small letter.
    """
    plain, tokens = _plain(text), words(text)
    sentences = len(_END.findall(text))
    if not sentences or len(tokens) > 60 * sentences:
        return "no_sentences"
    if len(_FUNCTION_WORD.findall(plain)) < 0.28 * len(tokens):
        return "keyword_list"
    opening = tokens[:100]
    if len(set(opening)) < 0.45 * len(opening) or repetition_rate(text) > 0.2:
        return "repetitive"
    broken = len(_BROKEN.findall(plain)) + len(_LOWER_START.findall(text))
    if broken > max(1, 0.1 * len(_OPENER.findall(plain))):
        return "word_salad"
    return None


# --- style ------------------------------------------------------------------------------------------------------------

_SINGULAR = re.compile(r"\b(?:i|me|mine|my|myself)\b")
# A tale has verbs in the past; an answer has them in the present or the future, or commands.
_NARRATED = re.compile(r"\b(?:was|were|had|did|said|could|would|came|went|saw|took|made|\w{2,}ed)\b")
_SPOKEN = re.compile(r"\b(?:is|are|am|has|have|do|does|will|shall|must|can|cannot|may|let)\b")

MIN_STYLE_WORDS = 20
MIN_CHARACTERISTICS = 3
# Per 100 words: distinct markers of a characteristic, and words of the collective voice.
MIN_MARKER_RATE = 1.0
MIN_VOICE_RATE = 1.0
# Past verbs to present ones; and how many themes of the lexicon stand for one characteristic.
NARRATION = 2
WIDE_THEMES = 5


def parse_style(toml: str) -> StyleRules:
    """Read style rules from TOML: tables of lists of regular expressions.

    `characteristics.NAME` (`MIN_CHARACTERISTICS` of them at least), `voice.collective` and `assistant.phrases` hold
    whole words or phrases; `assistant.layout` holds patterns that match as they stand, `^` at the start of a line.
    Raises ValueError for a missing or empty list, a pattern that does not compile, too few characteristics, or a marker
    that stands under two of them.
    """
    tables = tomllib.loads(toml)
    try:
        lists = tables["characteristics"]
        markers = {name: re.compile(_words_of(patterns)) for name, patterns in lists.items()}
        collective = re.compile(_words_of(tables["voice"]["collective"]))
        phrases, layout = _words_of(tables["assistant"]["phrases"]), _any_of(tables["assistant"]["layout"])
        assistant = re.compile(f"{phrases}|{layout}", re.MULTILINE)
    except (KeyError, TypeError, AttributeError, ValueError, re.error) as error:
        raise ValueError(f"style rules: {error!r}") from error
    if len(markers) < MIN_CHARACTERISTICS:
        raise ValueError(f"style rules: {len(markers)} characteristics, an answer needs {MIN_CHARACTERISTICS}")
    uses = Counter(marker for patterns in lists.values() for marker in patterns)
    if repeated := [marker for marker, times in uses.items() if times > 1]:
        raise ValueError(f"style rules: markers used twice: {', '.join(repeated)}")
    return StyleRules(markers, collective, assistant)


def _any_of(patterns: list[str]) -> str:
    if not isinstance(patterns, list) or not patterns or "" in patterns:
        raise ValueError(f"expected a list of patterns, found {patterns!r}")
    return "|".join(patterns)


def _words_of(patterns: list[str]) -> str:
    return rf"\b(?:{_any_of(patterns)})\b"


def style_rates(answer: str, rules: StyleRules) -> dict[str, float]:
    """Distinct markers of each characteristic per 100 words. Raises ValueError for no words."""
    count = len(words(answer))
    if not count:
        raise ValueError("an answer without words has no style")
    plain = _plain(answer)
    return {name: 100 * len(set(marker.findall(plain))) / count for name, marker in rules.markers.items()}


def judge_style(answer: str, counts: Mapping[str, int], rules: StyleRules) -> Judgement:
    """Whether an answer speaks in character: prose, in a collective voice, with at least three characteristics.

    `counts` are the answer's distinct keyword hits per theme of the run's lexicon (`themes.Matcher.counts`). A text
    that touches many themes has shown one characteristic more; one that tells a tale needs one more.
    """
    plain, count = _plain(answer), len(words(answer))
    if not count:
        return Judgement(False, "empty")
    if rules.assistant.search(plain):
        return Judgement(False, "assistant_speak")
    if count < MIN_STYLE_WORDS:
        return Judgement(False, "too_short")
    if fault := prose_fault(answer):
        return Judgement(False, fault)
    voice = len(rules.collective.findall(plain))
    if 100 * voice < MIN_VOICE_RATE * count or 3 * voice < len(_SINGULAR.findall(plain)):
        return Judgement(False, "no_collective_voice")
    shown = sum(rate >= MIN_MARKER_RATE for rate in style_rates(answer, rules).values())
    shown += sum(hits > 0 for hits in counts.values()) >= WIDE_THEMES
    tale = len(_NARRATED.findall(plain)) > NARRATION * len(_SPOKEN.findall(plain))
    if shown < MIN_CHARACTERISTICS + tale:
        return Judgement(False, "few_characteristics")
    return Judgement(True, "ok")


# --- period and persona -----------------------------------------------------------------------------------------------

_SALAD_WORDS = 12  # shorter texts are too short to tell


def _said(answer: str, prompt: str, patterns: Iterable[re.Pattern[str]]) -> bool:
    """Whether the answer matches a pattern with words of its own: repeating the question says nothing."""
    asked = prompt.casefold()
    return any(match[0].casefold() not in asked for pattern in patterns for match in pattern.finditer(answer))


def _judge_answered(answer: str, item: Item) -> Judgement:
    """Whether something was said at all, and what the item asks for. A name alone is an answer."""
    count = len(words(answer))
    if not count:
        return Judgement(False, "empty")
    if count >= _SALAD_WORDS and (fault := prose_fault(answer)):
        return Judgement(False, fault)
    if item.accept and not _said(answer, item.prompt, item.accept):
        return Judgement(False, "not_answered")
    return Judgement(True, "ok")


def judge_temporal(answer: str, item: Item, hits: Iterable[str]) -> Judgement:
    """Whether an answer stays before the cutoff year, and knows what was known then.

    `hits` are the words of the answer that the temporal gate objects to; those of the question do not count. An item
    with `accept` patterns asks for something known in time, which must be said: refusing everything cannot win.
    """
    asked = item.prompt.casefold()
    if _said(answer, item.prompt, item.leak):
        return Judgement(False, "leak")
    if any(hit.casefold() not in asked for hit in hits):
        return Judgement(False, "anachronism")
    return _judge_answered(answer, item)


def judge_persona(answer: str, item: Item, rules: StyleRules) -> Judgement:
    """Whether an answer agrees with the persona's facts: an `accept` pattern said, no `leak`, no assistant's phrase."""
    if _said(answer, item.prompt, item.leak):
        return Judgement(False, "contradiction")
    if rules.assistant.search(_plain(answer)):
        return Judgement(False, "assistant_speak")
    return _judge_answered(answer, item)
