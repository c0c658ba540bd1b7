"""The persona variants, the components of the dataset, and the plan of slots: which persona speaks of which passage."""

import heapq
import random
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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
    """`share` of all examples, from passages with one of `themes` (any, if empty), spoken by personas of `groups`."""

    id: str
    share: float
    themes: frozenset[str]
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class Slot:
    """One example to be made. Its id is the component and a number, whatever attempt fills it."""

    example_id: str
    component: str
    number: int
    chunk_id: str
    persona: str


@dataclass(frozen=True, slots=True)
class Passage:
    """What planning needs to know of a passage: `themes` maps theme to distinct keyword hits."""

    chunk_id: str
    book_id: str
    score: float
    themes: Mapping[str, int]


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
    components = tuple(
        Component(entry["id"], float(entry["share"]), frozenset(entry["themes"]), frozenset(entry["groups"]))
        for entry in tomllib.loads(toml)["component"]
    )
    if abs(sum(component.share for component in components) - 1) > 1e-9:
        raise ValueError("components.toml: the shares do not add up to 1")
    groups = {persona.group for persona in personas.values()}
    for component in components:
        if not component.groups <= groups:
            raise ValueError(f"components.toml, {component.id}: unknown groups {sorted(component.groups - groups)}")
    return components


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


def best_passages(passages: Sequence[Passage], limit: int | None) -> list[Passage]:
    """The best scored passage of each book, then the second best of each, and so on, up to `limit`."""
    rank: Counter[str] = Counter()
    ranked = []
    for passage in sorted(passages, key=lambda p: (-p.score, p.chunk_id)):
        ranked.append((rank[passage.book_id], -passage.score, passage.chunk_id, passage))
        rank[passage.book_id] += 1
    ranked.sort(key=lambda item: item[:3])
    return [passage for *_, passage in ranked[:limit]]


def plan_slots(
    passages: Sequence[Passage],
    components: Sequence[Component],
    personas: Mapping[str, Persona],
    n: int,
    planned: Sequence[Slot] = (),
) -> list[Slot]:
    """The slots that `planned` lacks to be `n`, each with the least used fitting passage.

    A function of its arguments alone. Components without a fitting passage take any.
    """
    used = Counter(slot.chunk_id for slot in planned)
    have = {slot.example_id for slot in planned}
    order = {passage.chunk_id: position for position, passage in enumerate(passages)}
    by_id = {passage.chunk_id: passage for passage in passages}
    queues: dict[str, list[tuple[int, int, str]]] = {}
    for component in components:
        fitting = [p for p in passages if not component.themes or component.themes & p.themes.keys()] or list(passages)
        queues[component.id] = [(used[p.chunk_id], order[p.chunk_id], p.chunk_id) for p in fitting]
        heapq.heapify(queues[component.id])
    by_component = {component.id: component for component in components}
    numbers: Counter[str] = Counter()
    slots = []
    for component_id in apportion(components, n):
        number = numbers[component_id]
        numbers[component_id] += 1
        example_id = f"{component_id}-{number:06d}"
        if example_id in have:
            continue
        chunk_id = take_least_used(queues[component_id], used)
        persona = draw_persona(example_id, by_component[component_id], by_id[chunk_id].themes, personas)
        slots.append(Slot(example_id, component_id, number, chunk_id, persona))
    return slots


def take_least_used(queue: list[tuple[int, int, str]], used: Counter[str]) -> str:
    """Pop until an entry's count is current (another component may have used it since), count it and put it back."""
    while True:
        count, order, chunk_id = heapq.heappop(queue)
        if count != used[chunk_id]:
            heapq.heappush(queue, (used[chunk_id], order, chunk_id))
            continue
        used[chunk_id] += 1
        heapq.heappush(queue, (used[chunk_id], order, chunk_id))
        return chunk_id


def draw_persona(example_id: str, component: Component, themes: Iterable[str], personas: Mapping[str, Persona]) -> str:
    """A persona of the component's groups, by weight times one plus the themes it shares with the passage."""
    present = set(themes)
    fitting = [persona for persona in personas.values() if persona.group in component.groups]
    weights = [persona.weight * (1 + len(persona.themes & present)) for persona in fitting]
    return random.Random(example_id).choices(fitting, weights)[0].id


def slots_as_rows(slots: Sequence[Slot], book_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of the slots table; `book_of` maps chunk_id to book_id."""
    return [
        {
            "example_id": slot.example_id,
            "component": slot.component,
            "number": slot.number,
            "chunk_id": slot.chunk_id,
            "book_id": book_of[slot.chunk_id],
            "persona": slot.persona,
        }
        for slot in slots
    ]
