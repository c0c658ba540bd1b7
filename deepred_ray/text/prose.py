"""Whether a text is English prose at all: a list of words, a loop, a salad of words."""

import re

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


def plain(text: str) -> str:
    """The text in small letters, with straight apostrophes."""
    return text.casefold().replace("\u2019", "'")


def words(text: str) -> list[str]:
    """The lower-cased words of a text; numbers and punctuation are left out."""
    return _WORD.findall(plain(text))


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
    small, tokens = plain(text), words(text)
    sentences = len(_END.findall(text))
    if not sentences or len(tokens) > 60 * sentences:
        return "no_sentences"
    if len(_FUNCTION_WORD.findall(small)) < 0.28 * len(tokens):
        return "keyword_list"
    opening = tokens[:100]
    if len(set(opening)) < 0.45 * len(opening) or repetition_rate(text) > 0.2:
        return "repetitive"
    broken = len(_BROKEN.findall(small)) + len(_LOWER_START.findall(text))
    if broken > max(1, 0.1 * len(_OPENER.findall(small))):
        return "word_salad"
    return None


MIN_PROSE_WORDS = 12
"""Shorter texts are too short to tell."""


def fluency_fault(text: str, cut: bool) -> str | None:
    """Why an answer is not fluent, or None: it is empty, or no prose. `cut`: it ends at the length limit, in mid-sentence."""
    count = len(words(text))
    if not count:
        return "empty"
    return prose_fault(f"{text}." if cut else text) if count >= MIN_PROSE_WORDS else None
