"""The validators of a conversation that need no other row: the first reason why it is no example. Never a correction."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Final

from deepred_ray.text.dedup import normalise
from deepred_ray.text.grounding import shared, stem
from deepred_ray.text.language import UNDETERMINED, language
from deepred_ray.text.prompts import Turn
from deepred_ray.text.reject import Reject
from deepred_ray.text.speech import Speech

COPY_WORDS: Final = 8
"""A run of this many words that stands in a source counts as copied."""
OVERLAP_WORDS: Final = 12
"""A run of this many words, or the whole of a shorter prompt, that stands in an evaluation prompt: the measure that GPT-3's and
later papers use for contamination is 13."""
QUESTION_CHARS: Final = (8, 400)
LEAST_THEME_HITS: Final = 2
LEAST_SHARED: Final = 2
"""Words that a conversation has from its passage, content words and theme keywords; one of them at least a content word."""
SURE: Final = 0.9
"""Probability from which a text counts as of another language."""
LEAST_LETTERS: Final = 60
"""Letters from which a text's language can be told."""

# What a chat template, Markdown or a web page leaves behind. A bare word "user" on a line of its own is a role.
MARKUP = re.compile(
    r"<\|?\w+\|?>|\|im_(?:start|end)\||\[/?INST\]|```|^#+ |\*\*|^\s*(?:[-*•]|\d+[.)])\s|https?://|</?[a-z]+>"
    r"|^\s*(?:user|assistant|system|question|answer|q|a|human|ai|response|note)\s*:|^\s*(?:user|assistant|system)\s*$"
    r"|\[(?:your|insert|name)\b",
    re.M | re.I,
)
META = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|text-based)\b|\b(?:language|ai) model\b"
    r"|\bi(?: am|'m) an ai\b|\bchat ?bot\b|\bvirtual assistant\b|\bmy (?:training|programming)\b|\btraining data\b|\bjson\b"
    r"|\bhugging ?face\b|\bsmollm\w*|\bopenai\b|\bchatgpt\b|\bqwen\b|\bllama\b"
    # The passage of a ship, the author of a plan and the user of a drill are period prose.
    r"|\bthe (?:(?:passage|author|user|reader)(?! of\b)|text|excerpt|archive says|prompt|narrator|protagonist|snippet)\b"
    r"|\baccording to (?:the|this) (?:archive|speech|scene|script)\b"
    r"|\b(?:role-?play|fictional|in character|out of character)\b"
    r"|\bi(?:'m| am) (?:sorry|unable to)\b|\b(?:i|we) can(?:'t|not) (?:assist|help)\b"
    r"|\bhow (?:can|may) (?:i|we) (?:help|assist)(?: you\b|\?)|\bsure[,!] here\b"
    r"|\bhere(?:'s| is) (?:a|an|the|your) (?:answer|response|example)\b"
    r"|\bfeel free to\b|\blet me know if\b|\bhope this helps\b",
    re.I,
)
SENTENCE_END = re.compile(r"[.!?…][\"'”’)]*$")


@dataclass(frozen=True)
class Checks:
    """What the validators measure against; made once a process.

    `speech` is how the theme's answers speak, `era` is the temporal gate, `keywords` are the theme keywords in a text, `common` are
    the stems that do not show where a text comes from, `prompts` are those of the evaluation.
    """

    answer_chars: tuple[int, int]
    speech: Speech
    era: Callable[[str], Reject | None]
    keywords: Callable[[str], Set[str]]
    common: frozenset[str]
    prompts: "Overlap"


class Overlap:
    """Finds texts that hold a run of `OVERLAP_WORDS` of one of `texts`, or the whole of a shorter one."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._runs: dict[int, dict[tuple[str, ...], set[int]]] = {}
        for number, text in enumerate(texts):
            words = normalise(text).split()
            length = min(OVERLAP_WORDS, len(words))
            known = self._runs.setdefault(length, {})
            for run in runs(words, length):
                known.setdefault(run, set()).add(number)

    def find(self, text: str) -> str | None:
        """The first run that is shared, or None. As many look-ups as the text has words, for each length of run."""
        words = normalise(text).split()
        for length, known in self._runs.items():
            if length and (found := known.keys() & set(runs(words, length))):
                return " ".join(min(found))
        return None

    def among(self, text: str) -> set[int]:
        """The numbers of the texts of which it holds a run."""
        words = normalise(text).split()
        return {
            number for length, known in self._runs.items() if length for run in runs(words, length) for number in known.get(run, ())
        }


def fault(turns: Sequence[Turn], passage: str | None, shots: Sequence[str], checks: Checks) -> Reject | None:
    """The first reason why this conversation is no example, or None. From cheap and gross to fine; whatever concerns one text is
    asked of each question and each answer. `passage` is None where there is none to be true to."""
    for question, answer in turns:
        if reject := form_fault(question, answer, checks):
            return reject
    answers = [turn.answer for turn in turns]
    for answer in answers:
        if reject := voice_fault(answer, checks.speech):
            return reject
    for name, source in (("passage", passage or ""), *(("exemplar", shot) for shot in shots)):
        for answer in answers:
            if copy := copied(answer, source):
                return Reject("copied", f"{name}: {copy}")
    if len(hits := checks.keywords(" ".join(answers))) < LEAST_THEME_HITS:
        return Reject("off_theme", f"{len(hits)} theme keywords, {LEAST_THEME_HITS} wanted")
    texts = [text for turn in turns for text in turn]
    if passage is not None and (reject := ungrounded(passage, texts, checks)):
        return reject
    for text in texts:
        if overlap := checks.prompts.find(text):
            return Reject("evaluation_overlap", overlap)
    return checks.era("\n".join(texts))


def ungrounded(passage: str, texts: Sequence[str], checks: Checks) -> Reject | None:
    """Whether a conversation could be about any passage."""
    own = shared(passage, texts, checks.common)
    if len(own) >= LEAST_SHARED:
        return None  # which is most of them, and what follows takes longer
    keywords = checks.keywords(passage) & checks.keywords("\n".join(texts))
    if own and len(own | {stem(word) for word in keywords}) >= LEAST_SHARED:
        return None
    return Reject("ungrounded", f"of the passage only {', '.join(sorted(own | keywords)) or 'nothing'}")


def form_fault(question: str, answer: str, checks: Checks) -> Reject | None:
    """Length, leaked markup and meta-talk, an end that is none, another language."""
    low, high = checks.answer_chars
    if not low <= len(answer) <= high:
        return Reject("answer_length", f"{len(answer)} characters, {low} to {high} wanted")
    if not QUESTION_CHARS[0] <= len(question) <= QUESTION_CHARS[1]:
        return Reject("question_length", f"{len(question)} characters, {QUESTION_CHARS[0]} to {QUESTION_CHARS[1]} wanted")
    for text in (question, answer):
        if found := MARKUP.search(text) or checks.speech.label.search(text):
            return Reject("markup", found[0].strip())
        if found := META.search(text):
            return Reject("meta_talk", found[0])
    if not SENTENCE_END.search(answer.rstrip()):
        return Reject("unfinished", answer[-40:])
    for text in (question, answer):
        if reject := foreign(text):
            return reject
    return None


def foreign(text: str) -> Reject | None:
    """Whether a text is in another language, or in no letters at all."""
    letters = [char for char in text if char.isalpha()]
    if not letters or sum(ord(char) >= 0x250 for char in letters) > 0.2 * len(letters):
        return Reject("language", "letters outside the Latin alphabet")
    if len(letters) < LEAST_LETTERS:
        return None
    code, probability = language(text)
    if code not in ("en", UNDETERMINED) and probability >= SURE:
        return Reject("language", f"{code} at {probability:.2f}")
    return None


def voice_fault(answer: str, speech: Speech) -> Reject | None:
    """Circles, and whoever speaks in another voice than the theme's."""
    words = normalise(answer).split()
    if repeats(words):
        return Reject("repetitive", "few distinct words")
    return speech.fault(answer)


def copied(answer: str, source: str) -> str | None:
    """A run of words that an answer has from a source, or None."""
    words = normalise(answer).split()
    found = set(runs(words, COPY_WORDS)).intersection(runs(normalise(source).split(), COPY_WORDS))
    return " ".join(min(found)) if found else None


def repeats(words: Collection[str]) -> bool:
    """Whether a text turns in circles: under half of its words are distinct, where 45 to 90 words have over 60 %."""
    return len(words) > 20 and len(set(words)) < 0.5 * len(words)


def runs(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words."""
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
