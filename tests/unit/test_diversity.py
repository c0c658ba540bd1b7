"""Measures of diversity: known values on small sets, and the right order between varied and repetitive ones."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.diversity import compression, distinct, diversity, self_similarity


def test_opening_trigrams_are_counted_by_their_words() -> None:
    found = diversity(["Comrade, we hold the line.", "comrade we hold fast", "Look up.", "We hold."])
    assert found.opening_trigrams == {"comrade we hold": 0.5, "look up": 0.25, "we hold": 0.25}


def test_distinct_n_by_hand() -> None:
    words = [["a", "b", "a", "b"], ["a", "b"]]
    assert distinct(words, 1) == 2 / 6
    assert distinct(words, 2) == 2 / 4  # ab, ba, ab; ab
    assert distinct(words, 3) == 2 / 2
    assert distinct(words, 5) == 0.0


def test_distinct_n_is_measured_over_a_fixed_number_of_words() -> None:
    rng = random.Random(1)
    texts = [[str(rng.randrange(3000)) for _ in range(50)] for _ in range(1000)]
    assert distinct(texts, 1) == distinct(texts[:400], 1)


def test_self_similarity_of_copies_and_of_strangers() -> None:
    same = "the pumps are warm and the valves are open tonight"
    other = "nobody on the northern road has seen a lamp go out"
    assert self_similarity([same, same, other]) == pytest.approx(2 / 3, abs=0.02)
    assert self_similarity([same, other]) == pytest.approx(0.0, abs=0.02)
    assert self_similarity([same]) == 0.0


def test_repetition_compresses() -> None:
    rng = random.Random(2)
    varied = [" ".join(f"{rng.randrange(10**6):x}" for _ in range(30)) for _ in range(50)]
    assert compression(varied[:1] * 50) > 20 > 3 > compression(varied)


def test_no_words_have_no_diversity() -> None:
    for texts in ([], ["", "..."]):
        with pytest.raises(ValueError, match="no words"):
            diversity(texts)


@given(
    st.lists(st.text("ab ", min_size=1, max_size=20), min_size=1, max_size=20).filter(lambda texts: any(t.strip() for t in texts))
)
def test_shares_are_shares_and_repeatable(texts: list[str]) -> None:
    found = diversity(texts)
    assert found == diversity(texts)
    shares = [*found.opening_trigrams.values(), *found.distinct.values(), found.self_similarity]
    assert all(0 <= share <= 1 for share in shares)
    assert sum(found.opening_trigrams.values()) <= 1.001
