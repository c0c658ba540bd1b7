"""Which conversations lie together: each once, none over the capacity, rows few and of like length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.packing import global_batches, pack

LENGTHS = st.lists(st.integers(1, 100), max_size=40)


@given(st.integers(0, 90), st.integers(1, 20), st.integers(0, 5))
def test_each_is_in_one_batch(count: int, size: int, seed: int) -> None:
    batches = global_batches(count, size, seed)
    assert sorted(number for batch in batches for number in batch) == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert batches == global_batches(count, size, seed)


def test_another_seed_makes_other_batches() -> None:
    assert global_batches(100, 10, 0) != global_batches(100, 10, 1)
    assert [number for batch in global_batches(100, 10, 0) for number in batch] != list(range(100))


@given(LENGTHS, st.integers(100, 400))
def test_each_is_in_one_row_and_every_row_fits(lengths: list[int], capacity: int) -> None:
    rows = pack(lengths, capacity)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    sums = [sum(lengths[number] for number in row) for row in rows]
    assert all(row for row in rows)
    assert all(total <= capacity for total in sums)
    assert sums == sorted(sums, reverse=True)
    # Graham's bound: with a row less, the fullest would be over the mean by the longest sequence at most.
    assert len(rows) <= 1 or sum(lengths) > (len(rows) - 1) * (capacity - max(lengths))


def test_rows_are_of_like_length() -> None:
    # Filled to the brim one after the other they would be 10, 10 and 4.
    rows = pack([4, 4, 4, 3, 3, 3, 3], 10)
    assert [sum([4, 4, 4, 3, 3, 3, 3][number] for number in row) for row in rows] == [10, 7, 7]
    assert pack([5, 5, 5, 5], 10) == [[0, 2], [1, 3]]
    assert pack([7, 6], 10) == [[0], [1]]
    assert pack([], 10) == []


def test_one_that_fits_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="11 tokens in rows of 10"):
        pack([3, 11], 10)
