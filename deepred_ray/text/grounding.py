"""What ties a conversation to its passage: the content words that they share, and the things that a question can name."""

import re
from collections.abc import Iterable, Set
from typing import Final

from deepred_ray.text.dedup import normalise

LEAST_LETTERS: Final = 4
_ENDINGS = re.compile(r"(?:ations?|ments?|ness|ings?|edly|ed|es|ies|ers?|ly|s|e|y)$")


# A noun, with the one word before it, is what stands between an article and a word that ends a noun phrase.
_THING = re.compile(
    r"(?<!\w)(?:the|a|an)\s(?:[a-z]{3,}\s)?(?P<noun>[a-z]{4,})"
    r"(?=[,.;:!?]|\s(?:of|and|or|in|on|at|to|was|is|were|are|had|has|with|for|from|by|that|which|who|where|upon|into|over|under"
    r"|through|before|after|could|would|did|came|went|stood|lay)\b)",
)
_NO_NOUN = re.compile(
    r"(?:ly|ing|ed|est|ous|ful|able|ible|less|ish|ic|ive|ary)$"
    r"|^(?:main|warm|cold|sick|poor|rich|dead|prime|rang|goes|went|came|said|past|former|latter|others|rest)$"
)
_NO_QUALIFIER = re.compile(r"\s(?:very|same|other|more|most|such|only|own|first|last|next|second|third|two|three|whole|[a-z]+ly)\s")


def things(passage: str, common: Set[str]) -> list[str]:
    """Things that a passage tells of, each with its article: "the glass roof", "a cairn". In order, each once; the nouns are none
    of the `common` stems."""
    found = (match for match in _THING.finditer(" ".join(passage.split())) if not _NO_QUALIFIER.search(match[0]))
    nouns = (match for match in found if not _NO_NOUN.search(match["noun"]) and stem(match["noun"]) not in common)
    return list(dict.fromkeys(match[0] for match in nouns))


def stem(word: str) -> str:
    """A word without its commonest English endings: "labours", "labouring" and "labour" are one. Rough, and the same for both
    sides of a comparison."""
    short = _ENDINGS.sub("", word)
    if len(short) >= LEAST_LETTERS - 1:
        return short
    # Too little is left of "kings" and "nations"; a plural they are all the same.
    return word.removesuffix("s") if len(word) > LEAST_LETTERS else word


def content(text: str, common: Set[str]) -> set[str]:
    """The stems of a text's words of four letters or more that are not among the `common` stems."""
    words = {word for word in normalise(text).split() if len(word) >= LEAST_LETTERS and word.isalpha()}
    return {stem(word) for word in words} - common


def shared(passage: str, texts: Iterable[str], common: Set[str]) -> set[str]:
    """The content stems that the texts have from the passage."""
    return content(passage, common) & content(" ".join(texts), common)
