"""Finding the terms of a lexicon in many texts at once, in one pass over their bytes.

A term hits a text when it occurs between word boundaries of the lower-cased text, exactly as
`re.search(rf"\\b{re.escape(term)}\\b", text.lower())` says.

The texts are joined as UTF-8 and all that belongs to no word becomes a blank, so that words begin and end where
neighbouring bytes differ in being one. All words together are then looked up in a hash table by their first eight bytes
and their length; only what is found there is compared whole.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_WORD = re.compile(r"\w+")
_WHOLE = re.compile(r"\w(?:.*\w)?", re.S)
_BLANK: Final = 32
# ASCII in lower case, a blank for what is no \w; other bytes are parts of other characters.
_TO_WORDS: Final = bytes(c if c > 127 else ord(chr(c).lower()) if _WORD.match(chr(c)) else _BLANK for c in range(256))
_KEY: Final = 8
_FIRST: Final = np.array([(1 << 8 * n) - 1 for n in range(_KEY + 1)], dtype=np.uint64)  # masks the first n bytes of eight
_MIX: Final = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_SLOT_BITS: Final = 16


class Hits(NamedTuple):
    """Which terms occur in which texts: arrays of one length, a place for each pair, sorted by text, then by term."""

    text: Indices
    term: Indices
    often: Indices
    """How often the term stands there, overlapping places included."""


class Matcher:
    """Finds which of `terms` occur in texts. Built once, then read-only; it can be pickled.

    Raises ValueError for a term that is empty, repeated, or not lower-case: that one could never hit.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        if bad := [term for term in terms if not term or term != term.lower()]:
            raise ValueError(f"terms must be lower-case and not empty: {bad[:5]}")
        if len(set(terms)) < len(terms):
            raise ValueError("a term is repeated")
        self.terms = tuple(terms)
        words = {term: _WORD.findall(term) for term in terms if _WHOLE.fullmatch(term)}
        self._tokens = [token.encode() for token in dict.fromkeys(token for found in words.values() for token in found)]
        number = {token.decode(): n for n, token in enumerate(self._tokens)}
        self._single = np.full(len(number), -1, dtype=np.int64)  # token -> the term that it is
        phrases: dict[int, list[int]] = {}  # a phrase's first two tokens, as one number -> terms
        # A term with another character at an end has boundaries of its own, and is searched for.
        self._odd: list[tuple[int, re.Pattern[str]]] = []
        for index, term in enumerate(terms):
            match [number[token] for token in words.get(term, [])]:
                case []:
                    self._odd.append((index, re.compile(rf"\b{re.escape(term)}\b")))
                case [token]:
                    self._single[token] = index
                case [first, second, *_]:
                    phrases.setdefault(first * len(number) + second, []).append(index)
        self._pairs = np.array(sorted(phrases), dtype=np.int64)
        self._phrases = [[(index, terms[index]) for index in phrases[pair]] for pair in self._pairs.tolist()]
        # The hash table: `_slots` has the first token of each chain, `_next` the one after each token.
        _, self._lengths, self._heads = _words(b" ".join(self._tokens))
        self._next = np.full(len(number), -1, dtype=np.int32)
        self._slots = np.full(1 << _SLOT_BITS, -1, dtype=np.int32)
        for token, slot in enumerate(_slots(self._heads, self._lengths).tolist()):
            self._next[token], self._slots[slot] = self._slots[slot], token

    def find(self, texts: Sequence[str]) -> Hits:
        """All hits in `texts`. It takes some ten bytes of memory a character, so hand over a book at a time."""
        parts = [text.encode() for text in texts]
        raw = b"\n".join(parts)
        folded = raw.translate(_TO_WORDS) if raw.isascii() else _fold(raw)
        if folded is None:
            return self.find([text.lower() for text in texts])
        starts, lengths, heads = _words(folded)
        at, token = self._lookup(folded, starts, lengths, heads)
        terms = self._single[token]
        phrases = self._find_phrases(raw, folded, starts, at, token)
        places = np.concatenate([starts[at[terms >= 0]], phrases[0]])
        terms = np.concatenate([terms[terms >= 0], phrases[1]])
        ends = np.cumsum([len(part) + 1 for part in parts], dtype=np.int64)
        pairs = np.searchsorted(ends, places, side="right") * len(self.terms) + terms
        for index, regex in self._odd:
            counts = [sum(1 for _ in regex.finditer(text.lower())) for text in texts]
            pairs = np.concatenate([pairs, np.repeat(np.arange(len(texts)) * len(self.terms) + index, counts)])
        pairs, counts = np.unique(pairs, return_counts=True)
        text, term = np.divmod(pairs, max(1, len(self.terms)))
        return Hits(text, term, counts)

    def _lookup(self, folded: bytes, starts: Indices, lengths: Indices, heads: NDArray[np.uint64]) -> tuple[Indices, Indices]:
        """Which of the words are tokens, and which tokens these are."""
        token = self._slots.take(_slots(heads, lengths))
        at = np.flatnonzero(token >= 0)
        token = token[at]
        found = np.full(len(at), -1, dtype=np.int64)
        todo = np.arange(len(at))
        while todo.size:
            place = at[todo]
            same = (self._heads[token] == heads[place]) & (self._lengths[token] == lengths[place])
            for index in np.flatnonzero(same & (lengths[place] > _KEY)).tolist():
                start = starts[place[index]] + _KEY
                rest = self._tokens[token[index]][_KEY:]
                same[index] = folded.startswith(rest, start)
            found[todo[same]] = token[same]
            token = self._next[token]
            on = ~same & (token >= 0)
            todo, token = todo[on], token[on]
        return at[found >= 0], found[found >= 0]

    def _find_phrases(self, raw: bytes, folded: bytes, starts: Indices, at: Indices, token: Indices) -> tuple[Indices, Indices]:
        """Places and terms of the phrases; `token` are those of the words `at`."""
        pair = token[:-1] * len(self._tokens) + token[1:]
        found = np.flatnonzero((at[1:] == at[:-1] + 1) & np.isin(pair, self._pairs))
        groups = np.searchsorted(self._pairs, pair[found])
        hits = [
            (start, index)
            for start, group in zip(starts[at[found]].tolist(), groups.tolist(), strict=True)
            for index, term in self._phrases[group]
            if folded[(end := start + len(term.encode())) : end + 1] in (b"", b" ")
            and raw[start:end].decode(errors="replace").lower() == term
        ]
        places, terms = np.array(hits, dtype=np.int64).reshape(-1, 2).T
        return places, terms


def _fold(raw: bytes) -> bytes | None:
    """UTF-8 in lower case with blanks for what belongs to no word; None if lowering changes how long it is."""
    folded = bytearray(raw.translate(_TO_WORDS))
    array = np.frombuffer(folded, dtype=np.uint8)
    leads = np.flatnonzero(array >= 0xC0)
    sizes = 2 + (array[leads] >= 0xE0) + (array[leads] >= 0xF0)
    # A character's bytes as one number: there are few different ones in a text.
    numbers = np.zeros(len(leads), dtype=np.int64)
    for place in range(4):
        within = sizes > place
        numbers[within] = numbers[within] << 8 | array[leads[within] + place]
    distinct, which = np.unique(numbers, return_inverse=True)
    for index, number in enumerate(distinct.tolist()):
        character = number.to_bytes(4, "big").lstrip(b"\0")
        text = character.decode()
        new = text.lower().encode() if _WORD.match(text) else b" " * len(character)
        if len(new) != len(character) or text == "\u03a3":  # a capital sigma's small letter depends on where it stands
            return None
        if new != character:
            array[leads[which == index][:, None] + np.arange(len(new))] = np.frombuffer(new, dtype=np.uint8)
    return bytes(folded)


def _words(folded: bytes) -> tuple[Indices, Indices, NDArray[np.uint64]]:
    """Where each word starts, its length in bytes, and its first eight bytes, with zeros after its end."""
    padded = b" " + folded + b" " * _KEY
    blank = np.frombuffer(padded, dtype=np.uint8) == _BLANK
    edges = np.flatnonzero(blank[1:] != blank[:-1])
    starts = np.ascontiguousarray(edges[::2])
    lengths = edges[1::2] - starts
    eights = np.ndarray(len(folded) + 1, dtype="<u8", buffer=padded, offset=1, strides=(1,))  # eight bytes from each place on
    return starts, lengths, eights[starts] & _FIRST.take(np.minimum(lengths, _KEY))


def _slots(heads: NDArray[np.uint64], lengths: Indices) -> Indices:
    """The place of each word in the hash table."""
    mixed = heads * _MIX[0] + lengths.astype(np.uint64) * _MIX[1]
    return (mixed >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
