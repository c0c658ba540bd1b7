"""The language of a body, judged from samples of the body itself: Gutenberg's header is English round any text."""

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

_WINDOWS = 6
_WINDOW_CHARS = 1_500
_MIN_LETTERS = 40
UNDETERMINED = "und"
"""ISO 639-2's code for what cannot be told; ISO 639-1 has none."""


@cache
def _identifier() -> LanguageIdentifier:
    """The model, loaded once a process, with probabilities that sum to one over its 97 languages."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(text: str) -> tuple[str, float]:
    """ISO 639-1 code of the body's language and its mean probability (0 to 1) over windows spread through the text.

    Windows with few letters (tables, digits, chess moves) do not vote; where none is left the answer is
    `(UNDETERMINED, 0.0)`.
    """
    votes: dict[str, float] = {}
    count = 0
    last = max(0, len(text) - _WINDOW_CHARS)
    for start in sorted({last * index // (_WINDOWS - 1) for index in range(_WINDOWS)}):
        window = text[start : start + _WINDOW_CHARS]
        if sum(char.isalpha() for char in window) < min(_MIN_LETTERS, len(window) // 3 + 1):
            continue
        code, probability = _identifier().classify(window)
        if code == "zxx":  # the model's word for "no language here"
            continue
        votes[code] = votes.get(code, 0.0) + float(probability)
        count += 1
    if not count:
        return UNDETERMINED, 0.0
    best = max(votes, key=lambda code: votes[code])
    return best, votes[best] / count
