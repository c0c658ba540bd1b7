"""Training and validation: which works are held out, and the proof that nothing of them has been trained on.

A work is in one split with all its examples, and so is a cluster of near-duplicates: an example that resembles one of the other
split is refused (`Splits.bridges`), since moving its whole work would move others with it.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from deepred_ray.text.dedup import NearDuplicates

Split = Literal["train", "val"]
NEAR: Final = 0.5
"""Jaccard similarity of two conversations' three-word runs from which one would give away the other."""


class Member(NamedTuple):
    """An example as far as the split is concerned; `text` is its whole conversation without the system prompt."""

    example_id: str
    work: str
    split: str
    text: str


def held_out(works: Iterable[str], share: float) -> set[str]:
    """The works whose examples are for validation, of works in the order in which the plan first names them.

    One of each `1 / share` in a row, the second work of all being one of them: so every plan of two works or more has a
    validation set, and a plan that grows keeps the split of what it had. Raises ValueError unless 0 < share <= 0.5.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"the share of validation must be above 0 and at most 0.5, not {share}")
    size = round(1 / share)
    chosen = set()
    for place, work in enumerate(dict.fromkeys(works)):
        block, within = divmod(place, size)
        # Drawn, since the order of works may have a rhythm of its own.
        if within == (1 if block == 0 else random.Random(f"{block}/{size}").randrange(size)):
            chosen.add(work)
    return chosen


class Splits:
    """What stands in each split so far, and the clusters of near-duplicates within them."""

    def __init__(self, held_out: set[str], capacity: int) -> None:
        """`capacity` is the largest number of examples that there will be."""
        self.held_out = held_out
        self._texts = {split: NearDuplicates(NEAR, max(1, capacity)) for split in ("train", "val")}
        self._clusters: dict[str, str] = {}

    def of(self, work: str) -> Split:
        return "val" if work in self.held_out else "train"

    def bridges(self, work: str, text: str) -> str | None:
        """The example of the other split that this text resembles, or None."""
        return self._texts["train" if self.of(work) == "val" else "val"].find(text)

    def add(self, example_id: str, work: str, text: str) -> str:
        """Take an example in that bridges nothing; returns its cluster, which is the id of the cluster's first example."""
        twin = self._texts[self.of(work)].keep(example_id, text)
        self._clusters[example_id] = example_id if twin is None else self._clusters[twin]
        return self._clusters[example_id]


def assert_split(members: Sequence[Member]) -> None:
    """Raises ValueError, naming the examples, if a work or two near-duplicates are in both splits."""
    split_of: dict[str, Member] = {}
    for member in members:
        other = split_of.setdefault(member.work, member)
        if other.split != member.split:
            raise ValueError(
                f"work {member.work} has {other.example_id} in {other.split} and {member.example_id} in {member.split}"
            )
    train = NearDuplicates(NEAR, max(1, len(members)))
    for member in members:
        if member.split == "train":
            train.keep(member.example_id, member.text)
    for member in members:
        if member.split == "val" and (twin := train.find(member.text)):
            raise ValueError(f"{member.example_id} is in val and resembles {twin}, which is in train")
