"""The split: by work, near-duplicates never apart, and an assertion that would notice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.splitting import Member, Splits, assert_split, held_out

WORDS = [f"{first}{last}" for first in ("sol", "mir", "nov", "red", "luna") for last in ("ar", "en", "ith", "os", "um", "ka")]


def sentence(start: int, length: int = 24) -> str:
    """A stretch of one long text: what two of them share is told by their starts."""
    return " ".join(f"{WORDS[place * place % len(WORDS)]}{place}" for place in range(start, start + length))


@pytest.mark.parametrize(
    ("works", "share", "count"), [(1, 0.1, 0), (2, 0.1, 1), (10, 0.1, 1), (100, 0.1, 10), (100, 0.2, 20), (30, 0.5, 15)]
)
def test_the_share_of_works_is_held_out(works: int, share: float, count: int) -> None:
    assert len(held_out([f"w{number}" for number in range(works)], share)) == count


@given(st.lists(st.integers(0, 60), max_size=120), st.integers(0, 120), st.sampled_from([0.05, 0.1, 0.25, 0.5]))
def test_a_plan_that_grows_keeps_its_split(order: list[int], cut: int, share: float) -> None:
    works = [str(work) for work in order]
    before = held_out(works[:cut], share)
    assert before == held_out(works, share) & set(works[:cut])


@pytest.mark.parametrize("share", [0.0, 0.6, -1.0])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="share of validation"):
        held_out(["a"], share)


def test_what_resembles_the_other_split_bridges_it() -> None:
    splits = Splits({"held"}, 10)
    assert splits.add("a", "free", sentence(1)) == "a"
    assert splits.bridges("held", sentence(1) + " and more") == "a"
    assert splits.bridges("free", sentence(1)) is None
    assert splits.bridges("held", sentence(500)) is None


def test_a_cluster_is_named_by_its_first_example() -> None:
    splits = Splits(set(), 10)
    assert splits.add("a", "one", sentence(1)) == "a"
    assert splits.add("b", "two", sentence(2)) == "a"  # 21 of its 22 runs are those of a
    assert splits.add("c", "two", sentence(5)) == "a"
    assert splits.add("d", "one", sentence(300)) == "d"
    # A member of a cluster that is no twin of the first is remembered too.
    assert splits.bridges("held", sentence(7)) is None
    splits.held_out.add("held")
    assert splits.bridges("held", sentence(7)) is not None


def test_the_assertion_names_a_work_that_is_torn() -> None:
    members = [Member("a", "one", "train", sentence(1)), Member("b", "two", "val", sentence(100))]
    assert_split(members)
    with pytest.raises(ValueError, match="work one has a in train and c in val"):
        assert_split([*members, Member("c", "one", "val", sentence(200))])


def test_the_assertion_names_near_duplicates_that_are_apart() -> None:
    with pytest.raises(ValueError, match="b is in val and resembles a"):
        assert_split([Member("a", "one", "train", sentence(1)), Member("b", "two", "val", sentence(2))])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40)), max_size=30))
def test_whatever_is_taken_in_passes_the_assertion(examples: list[tuple[int, int]]) -> None:
    works = [str(work) for work, _ in examples]
    splits = Splits(held_out(works, 0.5), len(examples))
    members = []
    for number, (work, start) in enumerate(examples):
        text = sentence(start)
        if splits.bridges(str(work), text) is None:
            splits.add(str(number), str(work), text)
            members.append(Member(str(number), str(work), splits.of(str(work)), text))
    assert_split(members)
