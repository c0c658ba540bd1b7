"""Which conversations make a global batch, and which of them lie in one row."""

import random
from collections.abc import Sequence


def global_batches(count: int, size: int, seed: int) -> list[list[int]]:
    """Numbers 0 to `count` - 1 in a random order, in batches of `size`; the last may be smaller."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return [order[start : start + size] for start in range(0, count, size)]


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Numbers of the sequences of these lengths, in rows of at most `capacity`: few rows, and of like length.

    The longest sequence left goes to the shortest row (Graham 1969, longest processing time first), with one row more until all
    fit. Rows of like length need no padding beside each other, and are equal work for equal workers.

    Raises:
        ValueError: a sequence is longer than the capacity.
    """
    if lengths and max(lengths) > capacity:
        raise ValueError(f"a sequence of {max(lengths)} tokens in rows of {capacity}")
    longest_first = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    for count in range(max(1, -(-sum(lengths) // capacity)), len(lengths) + 1):
        rows: list[list[int]] = [[] for _ in range(count)]
        filled = [0] * count
        for number in longest_first:
            shortest = filled.index(min(filled))
            rows[shortest].append(number)
            filled[shortest] += lengths[number]
        if max(filled) <= capacity:
            return sorted(rows, key=lambda row: -sum(lengths[number] for number in row))
    return []
