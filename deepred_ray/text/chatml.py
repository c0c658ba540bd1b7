"""A model's reply becomes a question and an answer, or a named reason for rejecting it. Never a default."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from deepred_ray.text.dedup import normalise
from deepred_ray.text.prompts import PASSAGE_MARK, Prompt
from deepred_ray.text.reject import Reject

COPY_WORDS = 8
"""A run of this many words that stands in a source counts as copied."""
LEAST_COLLECTIVE = 2
LEAST_THEME_HITS = 2
MARKUP = re.compile(r"<\|?\w+\|?>|\|im_(?:start|end)\||```|^#+ |\*\*|^\s*(?:user|assistant|system)\s*:?\s*$|https?://", re.M | re.I)
META = re.compile(
    r"\bas an? (?:ai|artificial intelligence|language model)\b|\blanguage model\b|\bi am an ai\b|\bchatbot\b"
    r"|\bhugging ?face\b|\bsmollm\b|\bopenai\b|\bthe (?:passage|text|excerpt|archive says|user|prompt|author|narrator|reader)\b"
    r"|\bi(?:'m| am) sorry\b"
    r"|\bi can(?:'t|not) (?:assist|help)\b|\bhow (?:can|may) i (?:help|assist)\b|\bsure[,!] here\b"
    r"|\bjson\b|\brole-?play\b|\bfictional\b",
    re.I,
)
FIRST_PERSON = re.compile(r"\b(?:I|I'm|I've|I'll|my|me|myself)\b")
COLLECTIVE = re.compile(r"\b(?:we|our|ours|us|ourselves|together|comrades?|collective|people|citizens)\b", re.I)
SENTENCE_END = re.compile(r"[.!?…][\"'”’)]?$")
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


@dataclass(frozen=True, slots=True)
class Checks:
    """What the validators measure against. `era` is the temporal gate, `theme_hits` counts a text's theme keywords."""

    answer_chars: tuple[int, int]
    era: Callable[[str], Reject | None]
    theme_hits: Callable[[str], Mapping[str, int]]
    forbidden: frozenset[str]  # normalised questions of the evaluation, which no example may ask


def parse_reply(reply: str, finish_reason: str, prompt: Prompt) -> tuple[str, str] | Reject:
    """Question and answer out of a reply, by the contract of its prompt."""
    if finish_reason == "error":
        return Reject("engine_error", reply[:200])
    if not reply.strip():
        return Reject("empty")
    if prompt.question is not None:
        # Past its first paragraph a small model starts over.
        paragraph, *more = (prompt.opening + reply).strip().split("\n\n")
        answer = whole_sentences(paragraph) if finish_reason == "length" and not more else paragraph
        return (prompt.question, answer) if answer else Reject("truncated", "no sentence ends before the token limit")
    if finish_reason != "stop":
        return Reject("truncated", f"finish reason {finish_reason}")
    try:
        parsed = json.loads(reply)
        json.dumps(parsed, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
    except (ValueError, RecursionError) as error:
        return Reject("malformed_json", str(error))
    if not isinstance(parsed, dict) or not all(isinstance(parsed.get(key), str) for key in ("question", "answer")):
        return Reject("malformed_json", "no question and answer strings")
    return parsed["question"].strip(), parsed["answer"].strip()


def whole_sentences(text: str) -> str:
    """The text up to its last complete sentence; empty if none is complete."""
    ends = [match.end() for match in re.finditer(r"[.!?…][\"”’]?(?=\s)", text)]
    return text[: ends[-1]] if ends else ""


def judge(question: str, answer: str, passage: str, prompt: Prompt, checks: Checks) -> Reject | None:
    """The first reason why this exchange is no example, or None. The order is from cheap and gross to fine."""
    low, high = checks.answer_chars
    if not low <= len(answer) <= high:
        return Reject("answer_length", f"{len(answer)} characters, {low} to {high} wanted")
    if not 8 <= len(question) <= 400:
        return Reject("question_length", f"{len(question)} characters")
    for text in (question, answer):
        if found := MARKUP.search(text):
            return Reject("markup", found[0])
        if found := META.search(text):
            return Reject("meta_talk", found[0])
    if PASSAGE_MARK in answer or not SENTENCE_END.search(answer):
        return Reject("unfinished", answer[-40:])
    if not is_latin(answer):
        return Reject("language", "letters outside the Latin alphabet")
    words = [word.lower() for word in WORD.findall(answer)]
    if repeats(words):
        return Reject("repetitive", "few distinct words")
    if found := FIRST_PERSON.search(answer):
        return Reject("out_of_character", f"speaks as {found[0]}")
    if len(COLLECTIVE.findall(answer)) < LEAST_COLLECTIVE:
        return Reject("out_of_character", "does not speak for the collective")
    grams = ngrams(words)
    for name, source in (("passage", passage), *(("exemplar", shot) for shot in prompt.shots)):
        if shared := grams & ngrams([word.lower() for word in WORD.findall(source)]):
            return Reject("copied", f"{name}: {' '.join(min(shared))}")
    if sum(checks.theme_hits(answer).values()) < LEAST_THEME_HITS:
        return Reject("off_theme", f"fewer than {LEAST_THEME_HITS} keyword hits")
    if normalise(question) in checks.forbidden:
        return Reject("evaluation_overlap", question)
    return checks.era(f"{question}\n{answer}")


def is_latin(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return bool(letters) and all(ord(char) < 0x250 for char in letters)


def repeats(words: Collection[str]) -> bool:
    """Whether a text turns in circles: under half of its words are distinct, where 45 to 90 words have over 60 %."""
    return len(words) > 20 and len(set(words)) < 0.5 * len(words)


def ngrams(words: list[str], n: int = COPY_WORDS) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
