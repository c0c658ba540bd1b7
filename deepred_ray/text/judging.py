"""Judging answers one by one. Every rule here can say no, and names its reason."""

import re
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass

from deepred_ray.text.items import Item
from deepred_ray.text.prose import MIN_PROSE_WORDS, prose_fault, words
from deepred_ray.text.style import StyleRules, keyword_share, speaks_as_assistant, speaks_otherwise


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an answer passes, and why (not): `reason` is a short stable snake_case word, "ok" when it passes."""

    ok: bool
    reason: str


def _said(answer: str, item: Item, patterns: Iterable[re.Pattern[str]]) -> bool:
    """Whether the answer matches a pattern with words of its own: repeating the question says nothing."""
    return any(match[0].casefold() not in item.asked for pattern in patterns for match in pattern.finditer(answer))


def _judge_answered(answer: str, item: Item) -> Judgement:
    """Whether something was said at all, and what the item asks for. A name alone is an answer."""
    count = len(words(answer))
    if not count:
        return Judgement(False, "empty")
    if count >= MIN_PROSE_WORDS and (fault := prose_fault(answer)):
        return Judgement(False, fault)
    if item.accept and not _said(answer, item, item.accept):
        return Judgement(False, "not_answered")
    return Judgement(True, "ok")


MIN_STYLE_WORDS = 20
MIN_SHOWN = 1
"""Characteristics that an answer must show beyond neutral texts of its length; all six weigh in the classifier."""


MOST_KEYWORDS = 0.3


def judge_style(
    answer: str, item: Item, rules: StyleRules, keywords: Iterable[str], shown: Collection[str], persona: bool
) -> Judgement:
    """Whether an answer speaks in character: prose, not in a voice of its own, with the theme's characteristics, and more like
    the persona than like neutral prose.

    `keywords` are the theme's in the answer, `shown` the characteristics by `Reference.shown`, `persona` is the classifier's word.
    """
    count = len(words(answer))
    if not count:
        return Judgement(False, "empty")
    if _said(answer, item, item.leak):
        return Judgement(False, "stepped_out")
    if speaks_as_assistant(answer, rules):
        return Judgement(False, "assistant_speak")
    if count < MIN_STYLE_WORDS:
        return Judgement(False, "too_short")
    if fault := prose_fault(answer):
        return Judgement(False, fault)
    if keyword_share(answer, keywords) > MOST_KEYWORDS:
        return Judgement(False, "keyword_list")
    if speaks_otherwise(answer, rules):
        return Judgement(False, "another_voice")
    if len(shown) < MIN_SHOWN:
        return Judgement(False, "few_characteristics")
    return Judgement(True, "ok") if persona else Judgement(False, "neutral_style")


MOST_SAME = 2


def repeated_answers(answers: Sequence[tuple[Hashable, int, str]]) -> list[int]:
    """Places of answers that a system gave, word for word, to more than `MOST_SAME` prompts of a draw: a text that fits every
    question answers none. Each is (system, draw, text)."""
    places: dict[tuple[Hashable, int, tuple[str, ...]], list[int]] = defaultdict(list)
    for place, (system, draw, text) in enumerate(answers):
        places[system, draw, tuple(words(text))].append(place)
    return sorted(place for same in places.values() if len(same) > MOST_SAME for place in same)


def judge_temporal(answer: str, item: Item, hits: Iterable[str]) -> Judgement:
    """Whether an answer stays before the cutoff year, and knows what was known then.

    `hits` are the words of the answer that the temporal gate objects to; those of the question do not count. An item
    with `accept` patterns asks for something known in time, which must be said: refusing everything cannot win.
    """
    if _said(answer, item, item.leak):
        return Judgement(False, "leak")
    if any(hit.casefold() not in item.asked for hit in hits):
        return Judgement(False, "anachronism")
    return _judge_answered(answer, item)


def judge_persona(answer: str, item: Item, rules: StyleRules) -> Judgement:
    """Whether an answer agrees with the persona's facts: an `accept` pattern said, no `leak`, no assistant's phrase."""
    if _said(answer, item, item.leak):
        return Judgement(False, "contradiction")
    if speaks_as_assistant(answer, rules):
        return Judgement(False, "assistant_speak")
    return _judge_answered(answer, item)
