"""The language of a body, judged from samples of the body itself: Gutenberg's header is English round any text."""

import re
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

_WINDOWS = 6
_WINDOW_CHARS = 1_500
_MIN_LETTERS = 150
_TOKEN = re.compile(r"[^\W_]+")
UNDETERMINED = "und"
"""ISO 639-2's code for what cannot be told; ISO 639-1 has none."""


@cache
def _identifier() -> LanguageIdentifier:
    """The model, loaded once a process, with probabilities that sum to one over its 97 languages."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(text: str) -> tuple[str, float]:
    """ISO 639-1 code of the body's language and its mean probability (0 to 1) over windows spread through the text.

    Only words vote: numbers, capitals and the abbreviations of tables and of chess are left out, and so are windows with
    few words. Where fewer than a third of the windows vote the answer is `(UNDETERMINED, 0.0)`.
    """
    votes: dict[str, float] = {}
    count = 0
    last = max(0, len(text) - _WINDOW_CHARS)
    starts = {last * index // (_WINDOWS - 1) for index in range(_WINDOWS)}
    for start in sorted(starts):
        window = text[start : start + _WINDOW_CHARS]
        words = _TOKEN.sub(_word, window.lower() if window.isupper() else window)
        if sum(char.isalpha() for char in words) < min(_MIN_LETTERS, len(window) // 3 + 1):
            continue
        code, probability = _identifier().classify(words)
        if code == "zxx":  # the model's word for "no language here"
            continue
        votes[code] = votes.get(code, 0.0) + float(probability)
        count += 1
    if 3 * count < len(starts) or not count:
        return UNDETERMINED, 0.0
    best = max(votes, key=lambda code: votes[code])
    return best, votes[best] / count


def _word(match: re.Match[str]) -> str:
    """The token if it is a word: letters only, small but for the first, or of a script without capitals; else a blank."""
    token = match[0]
    if not token.isalpha():
        return " "
    cased = token[1:].islower() and (len(token) > 2 or token[0].islower())
    return token if cased or token in ("I", "a") or token.lower() == token.upper() else " "
