"""How varied a set of texts is: measures that fall when a model repeats itself."""

import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from deepred_ray.text.dedup import normalise, signature

TOKENS: Final = 20_000
"""Words that distinct-n is measured over: it falls with the length of a text, so sets are compared over equally many."""
SAMPLE: Final = 1_000
"""Texts that self-similarity is measured over."""
SEED: Final = 1969


@dataclass(frozen=True, slots=True)
class Diversity:
    """Shares from 0 to 1 but for `compression`.

    `opening_trigrams` are the commonest first three words with the share of texts that begin so. `distinct[n]` is the share of
    different n-grams among all (Li et al. 2016, "A diversity-promoting objective function for neural conversation models"), over
    the first `TOKENS` words of the texts in a random order. `self_similarity` is the mean over texts of the similarity to the
    most similar other one (Jaccard of three-word runs, estimated by MinHash), over a random sample. `compression` is the ratio
    of the texts' length to that of their zlib archive (Shaib et al. 2024, "Standardizing the measurement of text diversity"):
    about 2.5 for varied prose, more for texts that repeat each other.
    """

    opening_trigrams: dict[str, float]
    distinct: dict[int, float]
    self_similarity: float
    compression: float


def diversity(texts: Sequence[str]) -> Diversity:
    """Raises ValueError for no texts, or for texts without a word."""
    shuffled = random.Random(SEED).sample(list(texts), len(texts))
    words = [normalise(text).split() for text in shuffled]
    if not any(words):
        raise ValueError("no words to measure the diversity of")
    openings = Counter(" ".join(each[:3]) for each in words)
    return Diversity(
        {opening: round(count / len(texts), 4) for opening, count in openings.most_common(10)},
        {n: round(distinct(words, n), 4) for n in (1, 2, 3)},
        round(self_similarity(shuffled[:SAMPLE]), 4),
        round(compression(shuffled[:SAMPLE]), 2),
    )


def distinct(words: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams among all of the first `TOKENS` words; no n-gram spans two texts. 0 where there is none."""
    grams: list[tuple[str, ...]] = []
    left = TOKENS
    for each in words:
        taken = each[:left]
        left -= len(taken)
        grams += [tuple(taken[start : start + n]) for start in range(len(taken) - n + 1)]
        if not left:
            break
    return len(set(grams)) / len(grams) if grams else 0.0


def self_similarity(texts: Sequence[str]) -> float:
    """Mean similarity of each text to the one most like it; 0 for fewer than two."""
    if len(texts) < 2:
        return 0.0
    signatures = np.stack([signature(text) for text in texts])
    best = []
    for place, values in enumerate(signatures):
        agreement = (signatures == values).mean(axis=1)
        agreement[place] = 0.0
        best.append(agreement.max())
    return float(np.mean(best))


def compression(texts: Sequence[str]) -> float:
    """Length of all texts together to the length of their archive, in bytes."""
    joined = "\n".join(texts).encode()
    return len(joined) / len(zlib.compress(joined, 9))
