"""Evaluation prompts: what is asked, of which kind, with which answer keys; and a choice of them."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from deepred_ray.text.jsonl import json_value

KINDS = ("style", "temporal", "persona")


@dataclass(frozen=True, slots=True)
class Item:
    """One evaluation prompt. `accept`: an answer must match one (if there are any); `leak`: it must match none. `lead` are the
    user's earlier turns, each answered by the model itself; the answer to `prompt`, the last turn, is judged."""

    id: str
    category: str
    kind: str
    prompt: str
    accept: tuple[re.Pattern[str], ...] = ()
    leak: tuple[re.Pattern[str], ...] = ()
    lead: tuple[str, ...] = ()

    @property
    def turns(self) -> tuple[str, ...]:
        """All that the user says, in order."""
        return (*self.lead, self.prompt)

    @property
    def asked(self) -> str:
        """The same as one text, in small letters: repeating it says nothing."""
        return "\n".join(self.turns).casefold()


def parse_items(jsonl: str) -> tuple[Item, ...]:
    """Read evaluation prompts, one JSON object a line.

    Raises ValueError naming the line for a missing or unknown field, an unknown kind, a pattern that does not compile
    or an id used twice.
    """
    items: list[Item] = []
    for number, line in enumerate(jsonl.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json_value(line)
            patterns = {key: tuple(re.compile(p, re.IGNORECASE) for p in fields.pop(key)) for key in ("accept", "leak")}
            item = Item(**{**fields, **patterns, "lead": tuple(fields.get("lead", ()))})
        except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
            raise ValueError(f"evaluation prompts, line {number}: {error!r}") from error
        if item.kind not in KINDS:
            raise ValueError(f"evaluation prompts, line {number}: kind {item.kind!r} is none of {', '.join(KINDS)}")
        items.append(item)
    return distinct(items)


def distinct(items: Sequence[Item]) -> tuple[Item, ...]:
    """The items as they are. Raises ValueError if an id is used twice."""
    repeated = [name for name, uses in Counter(item.id for item in items).items() if uses > 1]
    if repeated:
        raise ValueError(f"evaluation prompts: ids used twice: {', '.join(repeated)}")
    return tuple(items)


def stratified(items: Sequence[Item], n: int, seed: int) -> list[Item]:
    """Choose `n` items spread evenly over (kind, category): the strata differ by one item at most until one runs dry.

    Deterministic, and nested: the choice for a smaller `n` with the same seed is part of the choice for a larger one.
    Raises ValueError if `n` is negative or more than there are.
    """
    if not 0 <= n <= len(items):
        raise ValueError(f"cannot choose {n} of {len(items)} evaluation prompts")
    rng = random.Random(seed)
    strata: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: item.id):
        strata[item.kind, item.category].append(item)
    order = sorted(strata)
    rng.shuffle(order)
    ranked: list[tuple[int, int, Item]] = []
    for place, key in enumerate(order):
        rng.shuffle(strata[key])
        ranked += [(turn, place, item) for turn, item in enumerate(strata[key])]
    ranked.sort(key=lambda entry: entry[:2])
    return sorted((item for _, _, item in ranked[:n]), key=lambda item: item.id)
