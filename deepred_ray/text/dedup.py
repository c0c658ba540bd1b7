"""Duplicates: a normal form of texts, their MinHash signatures, and an index that finds the twins among them.

Nothing here depends on Python's own string hash, so every process gets the same signatures.
"""

import re
import unicodedata
import zlib
from functools import lru_cache
from typing import Final

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

_PUNCTUATION = {c: " " for c in range(128) if not chr(c).isalnum()}
_TYPOGRAPHIC = re.compile("[\u2018\u2019\u201c\u201d\u2013\u2014\u2026]")
_MARKS = re.compile("[\u0300-\u036f]+")
_SHINGLE: Final = 3
PERMUTATIONS: Final = 128
"""Places of a signature."""
# Places that the bands use, a multiple of every band height from 1 to 6: more would only cost memory.
_BANDED: Final = 60
_RECALL: Final = 0.99
# One seed and one scheme, for good: signatures of different ones cannot be compared.
_PERMUTATIONS = MinHash(num_perm=PERMUTATIONS, seed=1969, scheme="affine32", hashfunc=int).permutations
_SHINGLE_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


def normalise(text: str) -> str:
    """Reduce text to its words: case-folded, without accents, all that is no letter or digit turned into one space.

    Two editions of a passage that differ in line breaks, quotation marks, italics or accents have one normal form.
    """
    if not text.isascii():
        text = _TYPOGRAPHIC.sub(" ", text)  # what most English texts have beside ASCII, and after it, accents
    if not text.isascii():
        text = _MARKS.sub("", unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()))
    if text.isascii():
        return " ".join(text.lower().translate(_PUNCTUATION).split())
    kept = (c if c.isalnum() else "" if unicodedata.combining(c) else " " for c in text)
    return " ".join("".join(kept).split())


@lru_cache(maxsize=16)  # a text is often looked for in one index and then put into several
def signature(text: str) -> NDArray[np.uint32]:
    """Return the MinHash signature of the text's three-word shingles: uint32, shape (PERMUTATIONS,), read-only.

    The share of places in which two signatures agree estimates the Jaccard similarity of the two sets of shingles
    (Broder 1997), with a standard deviation of about 0.035 at 0.8. A text of fewer than three words is one shingle;
    texts without a word all have the same signature.
    """
    words = normalise(text).split()
    words += [""] * (_SHINGLE - len(words))
    hashes = np.fromiter((zlib.crc32(word.encode()) for word in words), dtype=np.uint64, count=len(words))
    shingles = np.lib.stride_tricks.sliding_window_view(hashes, _SHINGLE) @ _SHINGLE_MIX >> np.uint64(32)
    sketch = MinHash(num_perm=PERMUTATIONS, scheme="affine32", permutations=_PERMUTATIONS, hashfunc=int)
    sketch.update_batch(shingles.tolist())
    values: NDArray[np.uint32] = sketch.hashvalues
    values.flags.writeable = False
    return values


def bands(threshold: float) -> tuple[int, int]:
    """Return (bands, rows a band): the highest bands that still find 99 % of the pairs at exactly the threshold.

    A pair of similarity s shares a band with probability 1 - (1 - s^rows)^bands (Leskovec, Rajaraman and Ullman,
    "Mining of Massive Datasets", 3.4). Raises ValueError unless 0 < threshold <= 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"similarity threshold must be above 0 and at most 1, not {threshold}")
    for rows in range(6, 1, -1):
        count = _BANDED // rows
        if 1 - (1 - threshold**rows) ** count >= _RECALL:
            return count, rows
    return _BANDED, 1


class NearDuplicates:
    """Index of texts that answers, for each new one, which earlier text it repeats.

    One instance sees all texts, in a fixed order; `signature` is the costly part, and can be computed elsewhere and
    handed to `add_signature`. All memory is taken at once: for each of `capacity` texts 512 bytes of signature and 8 to
    16 for each band (30 of them at a threshold of 0.5), about 1 KB with its key. Beyond the capacity the oldest
    text is forgotten for each new one.
    """

    def __init__(self, threshold: float = 0.8, capacity: int = 100_000) -> None:
        """Make an empty index of twins whose estimated Jaccard similarity is at least `threshold`.

        Raises ValueError for a threshold outside (0, 1] or a capacity below 1.
        """
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.threshold = threshold
        self.capacity = capacity
        self._bands, self._rows = bands(threshold)
        self._mix = np.random.RandomState(1969).randint(0, 2**63, (self._bands, self._rows), dtype=np.uint64) | np.uint64(1)
        # A bucket holds the number of its newest text, from 1; which text that is, its signature tells, so a bucket that
        # two texts share by chance, or one that a forgotten text left, costs a comparison and no more.
        self._buckets = np.zeros((self._bands, 1 << (2 * capacity - 1).bit_length()), dtype=np.uint32)
        self._each_band = np.arange(self._bands)
        self._keys: list[str] = []
        self._signatures: NDArray[np.uint32] = np.empty((capacity, PERMUTATIONS), dtype=np.uint32)
        self._next = 0

    def __len__(self) -> int:
        """Return how many texts are remembered."""
        return len(self._keys)

    def add(self, key: str, text: str) -> str | None:
        """Return the key of the earlier text that this one repeats, or None: then it is indexed under `key`."""
        return self.add_signature(key, signature(text))

    def add_signature(self, key: str, values: NDArray[np.uint32]) -> str | None:
        """Do what `add` does for a text whose `signature` is known.

        Of several twins the most similar is named. Raises ValueError for a signature of another shape.
        """
        if values.shape != (PERMUTATIONS,):
            raise ValueError(f"signature has shape {values.shape}, expected ({PERMUTATIONS},)")
        places = self._places(values)
        twin = self._twin(values, places)
        if twin is None:
            self._remember(key, values, places)
        return twin

    def keep(self, key: str, text: str) -> str | None:
        """Do what `add` does, but index the text even if it is a twin."""
        values = signature(text)
        places = self._places(values)
        twin = self._twin(values, places)
        self._remember(key, values, places)
        return twin

    def find(self, text: str) -> str | None:
        """Return the key of the text that this one repeats, or None; nothing is indexed."""
        values = signature(text)
        return self._twin(values, self._places(values))

    def _twin(self, values: NDArray[np.uint32], places: NDArray[np.int64]) -> str | None:
        numbers = self._buckets[self._each_band, places]
        if numbers.any():
            candidates = np.unique(numbers[numbers > 0]) - 1
            agreement = (self._signatures[candidates] == values).mean(axis=1)
            best = agreement.argmax()
            if agreement[best] >= self.threshold:
                return self._keys[int(candidates[best])]
        return None

    def _remember(self, key: str, values: NDArray[np.uint32], places: NDArray[np.int64]) -> None:
        """Index a text in the next slot, in place of whatever held it."""
        slot = self._next % self.capacity
        if slot < len(self._keys):
            self._keys[slot] = key
        else:
            self._keys.append(key)
        self._signatures[slot] = values
        self._buckets[self._each_band, places] = slot + 1
        self._next += 1

    def _places(self, values: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The bucket of a signature in each band."""
        used = values[: self._bands * self._rows].reshape(self._bands, self._rows)
        mixed = (used * self._mix).sum(axis=1, dtype=np.uint64)
        places: NDArray[np.int64] = (mixed >> np.uint64(32)).astype(np.int64) & (self._buckets.shape[1] - 1)
        return places
