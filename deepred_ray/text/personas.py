"""The persona variants, the components of the dataset, and the plan of slots: which persona speaks of which passage."""

import heapq
import random
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

AT_RANDOM = 0.25
"""Share of the slots whose persona is drawn at random, so that a persona does not only meet its own themes."""


@dataclass(frozen=True, slots=True)
class Persona:
    """`themes` suit it, `weight` is its share when drawn at random, `system` are equal phrasings of its system prompt."""

    id: str
    group: str
    themes: frozenset[str]
    weight: float
    system: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Component:
    """`share` of all examples, from passages with one of `themes` (any, if empty) or of the extra `sources`, spoken by personas
    of `groups`."""

    id: str
    share: float
    themes: frozenset[str]
    groups: frozenset[str]
    sources: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Slot:
    """One example to be made. Its id is the component and a number, whatever attempt fills it.

    `source` is the kind of source that the passage is from, books or an extra one, or "none" where there is no passage.
    """

    example_id: str
    component: str
    number: int
    source: str
    chunk_id: str | None
    persona: str


@dataclass(frozen=True, slots=True)
class Passage:
    """What planning needs to know of a passage: `weights` maps theme to the weight of the lexicon's terms in it."""

    chunk_id: str
    book_id: str
    source: str
    score: float
    weights: Mapping[str, float]


def parse_personas(toml: str) -> dict[str, Persona]:
    """Personas by id. Raises ValueError naming the entry that is malformed."""
    personas = {}
    for number, entry in enumerate(tomllib.loads(toml)["persona"], 1):
        try:
            persona = Persona(
                entry["id"], entry["group"], frozenset(entry["themes"]), float(entry["weight"]), tuple(entry["system"])
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"personas.toml, persona {number}: {error!r}") from error
        if not persona.system or persona.id in personas:
            raise ValueError(f"personas.toml, persona {number} ({persona.id}): no system prompt, or the id occurs twice")
        personas[persona.id] = persona
    return personas


def parse_components(toml: str, personas: Mapping[str, Persona]) -> tuple[Component, ...]:
    """Raises ValueError unless the shares add up to 1 and every component has a persona."""
    components = []
    for number, entry in enumerate(tomllib.loads(toml)["component"], 1):
        try:
            themes, groups, sources = (frozenset(each) for each in (entry["themes"], entry["groups"], entry.get("sources", ())))
            components.append(Component(entry["id"], float(entry["share"]), themes, groups, sources))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"components.toml, component {number}: {error!r}") from error
    if abs(sum(component.share for component in components) - 1) > 1e-9:
        raise ValueError("components.toml: the shares do not add up to 1")
    known = {persona.group for persona in personas.values()}
    for component in components:
        if not component.groups <= known:
            raise ValueError(f"components.toml, {component.id}: unknown groups {sorted(component.groups - known)}")
    return tuple(components)


def apportion(components: Sequence[Component], n: int) -> list[str]:
    """Component ids of the first `n` examples: at every length each is within one of its share, and a longer list
    continues a shorter one, so that a larger dataset keeps what a smaller one had."""
    counts: Counter[str] = Counter()
    order = []
    for position in range(1, n + 1):
        chosen = max(components, key=lambda component: component.share * position - counts[component.id])
        counts[chosen.id] += 1
        order.append(chosen.id)
    return order


def best_passages(passages: Iterable[Passage], limit: int | None, themes: frozenset[str] = frozenset()) -> list[Passage]:
    """The best passage of each book, then the second best of each, and so on, up to `limit`: by score, or by the weight of
    `themes` where some are named."""

    def merit(passage: Passage) -> float:
        return sum(passage.weights.get(theme, 0.0) for theme in sorted(themes)) if themes else passage.score

    rank: Counter[str] = Counter()
    ranked = []
    for worth, passage in sorted(((merit(p), p) for p in passages), key=lambda item: (-item[0], item[1].chunk_id)):
        ranked.append((rank[passage.book_id], -worth, passage.chunk_id, passage))
        rank[passage.book_id] += 1
    ranked.sort(key=lambda item: item[:3])
    return [passage for *_, passage in ranked[:limit]]


class Supply:
    """Passages for the slots of one component, each for `per_passage` slots in a row; those of extra sources take turns with
    those of books, as long as there are any."""

    def __init__(self, component: Component, passages: Sequence[Passage], per_passage: int) -> None:
        books = [p for p in passages if p.source == "books" and (not component.themes or component.themes & p.weights.keys())]
        extra = [p for p in passages if p.source in component.sources]
        self.queues = [best_passages(books, None, component.themes), best_passages(extra, None)]
        self.places = [0, 0]
        self.component = component.id
        self.per_passage = per_passage

    def take(self, number: int, used: Counter[str], owner: dict[str, str]) -> Passage | None:
        """A passage for the slot of this number that no other component has, or None if all are used up."""
        first = number // self.per_passage % 2
        for queue in (first, 1 - first):
            passages = self.queues[queue]
            while self.places[queue] < len(passages):
                passage = passages[self.places[queue]]
                if used[passage.chunk_id] < self.per_passage and owner.get(passage.chunk_id, self.component) == self.component:
                    return passage
                self.places[queue] += 1
        return None


def plan_slots(
    passages: Sequence[Passage],
    components: Sequence[Component],
    personas: Mapping[str, Persona],
    n: int,
    planned: Sequence[Slot] = (),
    *,
    per_passage: int = 2,
    gap_filling: bool = True,
) -> list[Slot]:
    """The slots that `planned` lacks to be `n`, with passages that suit their components, and personas by their quotas.

    A function of its arguments alone, whatever the order of the passages. When a component's passages are used up, its other
    slots have none, or without `gap_filling` the passages that are used least, of any theme.
    """
    have = {slot.example_id for slot in planned}
    used = Counter(slot.chunk_id for slot in planned if slot.chunk_id)
    owner = {slot.chunk_id: slot.component for slot in planned if slot.chunk_id}
    supplies = {component.id: Supply(component, passages, per_passage) for component in components}
    casts = {component.id: Cast(component, personas) for component in components}
    for slot in planned:
        casts[slot.component].count(slot.persona)
    spare = [] if gap_filling else [(used[p.chunk_id], place, p) for place, p in enumerate(best_passages(passages, None))]
    heapq.heapify(spare)
    numbers: Counter[str] = Counter()
    slots = []
    for component in apportion(components, n):
        number = numbers[component]
        numbers[component] += 1
        example_id = f"{component}-{number:06d}"
        if example_id in have:
            continue
        passage = supplies[component].take(number, used, owner)
        if passage is None and spare:
            passage = take_least_used(spare, used)
        if passage:
            used[passage.chunk_id] += 1
            owner[passage.chunk_id] = component
        persona = casts[component].draw(example_id, passage.weights if passage else {})
        slots.append(
            Slot(
                example_id, component, number, passage.source if passage else "none", passage.chunk_id if passage else None, persona
            )
        )
    return slots


def take_least_used(spare: list[tuple[int, int, Passage]], used: Counter[str]) -> Passage:
    """The passage with the least use, of a heap by use and place; a use that is out of date is put right on the way."""
    while True:
        count, place, passage = spare[0]
        if count == used[passage.chunk_id]:
            return passage
        heapq.heapreplace(spare, (used[passage.chunk_id], place, passage))


class Cast:
    """The personas of a component, each with a quota: its weight's share of the slots, to within two at any length."""

    def __init__(self, component: Component, personas: Mapping[str, Persona]) -> None:
        self.personas = [persona for persona in personas.values() if persona.group in component.groups]
        total = sum(persona.weight for persona in self.personas)
        self.shares = {persona.id: persona.weight / total for persona in self.personas}
        self.counts: Counter[str] = Counter()

    def count(self, persona: str) -> None:
        self.counts[persona] += 1

    def draw(self, example_id: str, weights: Mapping[str, float]) -> str:
        """Whoever is overdue; else of those who are due the one who suits the passage, or, for one slot of four, anyone."""
        rng = random.Random(example_id)
        position = self.counts.total() + 1
        due = {name: share * position - self.counts[name] for name, share in self.shares.items()}
        chosen = max(due, key=lambda name: due[name])
        if due[chosen] < 1:
            ready = [persona for persona in self.personas if due[persona.id] >= 0]
            if rng.random() < AT_RANDOM:
                chosen = rng.choice(ready).id
            else:
                chosen = max(ready, key=lambda persona: (suits(persona, weights), due[persona.id])).id
        self.count(chosen)
        return chosen


def suits(persona: Persona, weights: Mapping[str, float]) -> float:
    """How much of a passage is on a persona's themes: their share of the weight of all its themes."""
    total = sum(weights.values())
    return sum(weight for theme, weight in weights.items() if theme in persona.themes) / total if total else 0.0


def slots_as_rows(slots: Sequence[Slot], book_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of the slots table; `book_of` maps chunk_id to book_id. A slot without a passage is a work of its own."""
    return [
        {
            "example_id": slot.example_id,
            "component": slot.component,
            "number": slot.number,
            "source": slot.source,
            "chunk_id": slot.chunk_id,
            "book_id": book_of[slot.chunk_id] if slot.chunk_id else slot.example_id,
            "persona": slot.persona,
        }
        for slot in slots
    ]
