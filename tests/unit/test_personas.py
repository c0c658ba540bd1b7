"""Components, personas and the plan of slots: shares, even use of passages, and growth that keeps what was there."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.personas import (
    Cast,
    Component,
    Passage,
    Persona,
    Slot,
    apportion,
    best_passages,
    parse_components,
    parse_personas,
    plan_slots,
    slots_as_rows,
    suits,
)
from deepred_ray.theme import Theme

PERSONAS_TOML = """
[[persona]]
id = "keeper"
group = "core"
themes = ["air", "water"]
weight = 2
system = ["You keep the air.", "The air is in your care."]

[[persona]]
id = "player"
group = "chess"
themes = ["chess"]
weight = 1
system = ["You play chess."]
"""
COMPONENTS_TOML = """
[[component]]
id = "main"
share = 0.75
themes = ["air"]
groups = ["core"]

[[component]]
id = "games"
share = 0.25
themes = []
groups = ["chess", "core"]
sources = ["speeches"]
"""
PERSONAS = parse_personas(PERSONAS_TOML)
COMPONENTS = parse_components(COMPONENTS_TOML, PERSONAS)
THEMES = ("air", "water", "chess")


def passage(chunk_id: str, book_id: str = "b", score: float = 1.0, source: str = "books", **weights: float) -> Passage:
    return Passage(chunk_id, book_id, source, score, weights)


PASSAGES = st.lists(st.tuples(st.sets(st.sampled_from(THEMES)), st.sampled_from(["books", "books", "speeches"])), max_size=12).map(
    lambda found: [
        passage(f"c{i}", f"b{i % 3}", float(i), source, **dict.fromkeys(sorted(themes), 1.0))
        for i, (themes, source) in enumerate(found)
    ]
)


@st.composite
def _components(draw: st.DrawFn, most: int = 4) -> list[Component]:
    parts = draw(st.lists(st.integers(1, 50), min_size=1, max_size=most))
    themes = st.frozensets(st.sampled_from(THEMES), max_size=2)
    sources = st.frozensets(st.sampled_from(["speeches"]))
    groups = frozenset({"core", "chess"})
    return [Component(f"p{i}", part / sum(parts), draw(themes), groups, draw(sources)) for i, part in enumerate(parts)]


# Reading


def test_personas_and_components_are_read() -> None:
    assert PERSONAS["keeper"] == Persona(
        "keeper", "core", frozenset({"air", "water"}), 2.0, ("You keep the air.", "The air is in your care.")
    )
    assert COMPONENTS[0].sources == frozenset()
    assert COMPONENTS[1] == Component("games", 0.25, frozenset(), frozenset({"chess", "core"}), frozenset({"speeches"}))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('group = "chess"\n', "", "persona 2"),
        ('weight = 1\nsystem = ["You play chess."]', "weight = 1\nsystem = []", "persona 2.*no system prompt"),
        ('id = "player"', 'id = "keeper"', "twice"),
        ('themes = ["chess"]', "themes = 3", "persona 2"),
        ("weight = 1\n", "weight = []\n", "persona 2"),
    ],
)
def test_malformed_personas_are_named(old: str, new: str, message: str) -> None:
    assert old in PERSONAS_TOML
    with pytest.raises(ValueError, match=message):
        parse_personas(PERSONAS_TOML.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("0.75", "0.7", "add up to 1"), ('groups = ["core"]', 'groups = ["core", "poets"]', "main.*poets")],
)
def test_malformed_components_are_named(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_components(COMPONENTS_TOML.replace(old, new), PERSONAS)


# Apportioning


@given(_components(), st.integers(0, 200))
def test_apportion_is_within_one_of_every_share_at_every_length(components: list[Component], n: int) -> None:
    order = apportion(components, n)
    assert len(order) == n
    counts: Counter[str] = Counter()
    for position, chosen in enumerate(order, 1):
        counts[chosen] += 1
        assert all(abs(part.share * position - counts[part.id]) < 1 + 1e-9 for part in components)


@given(_components(), st.integers(0, 100), st.integers(0, 100))
def test_a_longer_apportionment_continues_a_shorter_one(components: list[Component], n: int, more: int) -> None:
    assert apportion(components, n + more)[:n] == apportion(components, n)


def test_the_shipped_shares_come_out_exactly() -> None:
    components = Theme.find("deepred").components
    assert Counter(apportion(components, 10_000)) == {"core": 5000, "style": 2000, "chess": 1000, "mission": 2000}


# Planning


PER_PASSAGE = st.integers(1, 3)


@given(PASSAGES, _components(), st.integers(0, 60), st.integers(0, 60), PER_PASSAGE, st.booleans())
def test_slots_are_append_only(
    passages: list[Passage], components: list[Component], n: int, more: int, per_passage: int, gaps: bool
) -> None:
    def plan(n: int, planned: list[Slot] | None = None) -> list[Slot]:
        return plan_slots(passages, components, PERSONAS, n, planned or [], per_passage=per_passage, gap_filling=gaps)

    first = plan(n)
    then = plan(n + more, first)
    assert first + then == plan(n + more)
    assert len({slot.example_id for slot in first + then}) == n + more
    assert plan(n, first) == []


@given(PASSAGES, _components(), st.integers(0, 60), PER_PASSAGE, st.randoms(use_true_random=False))
def test_the_order_of_passages_does_not_matter(
    passages: list[Passage], components: list[Component], n: int, per_passage: int, rng: Random
) -> None:
    shuffled = rng.sample(passages, len(passages))
    plans = [plan_slots(each, components, PERSONAS, n, per_passage=per_passage) for each in (passages, shuffled)]
    assert plans[0] == plans[1]


@given(PASSAGES, _components(), st.integers(0, 60), PER_PASSAGE)
def test_every_slot_fits(passages: list[Passage], components: list[Component], n: int, per_passage: int) -> None:
    by_chunk = {each.chunk_id: each for each in passages}
    by_id = {component.id: component for component in components}
    slots = plan_slots(passages, components, PERSONAS, n, per_passage=per_passage)
    used = Counter(slot.chunk_id for slot in slots if slot.chunk_id)
    assert max(used.values(), default=0) <= per_passage
    for slot in slots:
        component = by_id[slot.component]
        assert PERSONAS[slot.persona].group in component.groups
        assert slot.example_id == f"{slot.component}-{slot.number:06d}"
        if slot.chunk_id is None:
            # Only when nothing fits any more.
            assert slot.source == "none"
            left = [each for each in passages if used[each.chunk_id] == 0]
            assert not any(each.source == "books" and fits(component, each) for each in left)
            assert not any(each.source in component.sources for each in left)
        else:
            chosen = by_chunk[slot.chunk_id]
            assert slot.source == chosen.source
            assert fits(component, chosen) if slot.source == "books" else slot.source in component.sources


def fits(component: Component, chosen: Passage) -> bool:
    return not component.themes or bool(component.themes & chosen.weights.keys())


@given(PASSAGES.filter(bool), _components(), st.integers(0, 60))
def test_without_gap_filling_every_slot_has_a_passage(passages: list[Passage], components: list[Component], n: int) -> None:
    slots = plan_slots(passages, components, PERSONAS, n, gap_filling=False)
    assert all(slot.chunk_id for slot in slots)
    used = Counter(slot.chunk_id for slot in slots)
    assert sum(used.values()) == n
    # What is beyond two for each is spread evenly.
    assert max(used.values(), default=0) - min((used[each.chunk_id] for each in passages), default=0) <= max(2, n - 2)


def test_a_passage_gives_its_examples_in_a_row_to_one_component() -> None:
    slots = plan_slots([passage(f"c{i}", score=9.0 - i, air=1.0) for i in range(8)], COMPONENTS, PERSONAS, 8)
    assert [slot.chunk_id for slot in slots if slot.component == "main"] == ["c0", "c0", "c2", "c2", "c3", "c3"]
    assert [slot.chunk_id for slot in slots if slot.component == "games"] == ["c1", "c1"]


def test_extra_sources_take_turns_with_books() -> None:
    passages = [*(passage(f"c{i}") for i in range(9)), *(passage(f"s{i}", f"s{i}", source="speeches") for i in range(2))]
    slots = plan_slots(passages, [Component("all", 1.0, frozenset(), frozenset({"core"}), frozenset({"speeches"}))], PERSONAS, 12)
    assert [slot.source for slot in slots] == [*["books", "books", "speeches", "speeches"] * 2, *["books"] * 4]


def test_used_up_passages_are_used_again_or_leave_a_gap() -> None:
    passages = [passage("c0", air=1.0), passage("c1", air=1.0)]
    component = [Component("main", 1.0, frozenset({"air"}), frozenset({"core"}))]
    gap = plan_slots(passages, component, PERSONAS, 6)
    assert [slot.chunk_id for slot in gap] == ["c0", "c0", "c1", "c1", None, None]
    again = plan_slots(passages, component, PERSONAS, 8, gap_filling=False)
    assert Counter(slot.chunk_id for slot in again) == {"c0": 4, "c1": 4}


def test_new_passages_are_taken_up_when_a_plan_grows() -> None:
    old = [passage(f"c{i}", air=1.0) for i in range(2)]
    first = plan_slots(old, COMPONENTS, PERSONAS, 8)
    grown = plan_slots([*old, *(passage(f"n{i}", air=1.0) for i in range(4))], COMPONENTS, PERSONAS, 16, planned=first)
    assert Counter(slot.chunk_id for slot in grown) == dict.fromkeys(["n0", "n1", "n2", "n3"], 2)


# Personas


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 200), st.integers(0, 99))
def test_personas_keep_their_quotas(weights: list[int], n: int, seed: int) -> None:
    personas = {f"p{i}": Persona(f"p{i}", "core", frozenset({f"t{i}"}), float(w), ("You are.",)) for i, w in enumerate(weights)}
    cast = Cast(Component("c", 1.0, frozenset(), frozenset({"core"})), personas)
    rng = Random(seed)
    for number in range(n):
        cast.draw(f"c-{number:06d}", {f"t{rng.randrange(9)}": 1.0})
        for i, weight in enumerate(weights):
            assert abs(cast.counts[f"p{i}"] - weight / sum(weights) * (number + 1)) < 2


def test_personas_suit_their_passages() -> None:
    personas = Theme.find("deepred").personas
    component = Component("c", 1.0, frozenset(), frozenset(persona.group for persona in personas.values()))
    rng = Random(1)
    themes = sorted({theme for persona in personas.values() for theme in persona.themes})
    fits, chance = [], []
    cast = Cast(component, personas)
    for number in range(2000):
        weights = {theme: rng.random() for theme in rng.sample(themes, 4)}
        fits.append(suits(personas[cast.draw(f"c-{number:06d}", weights)], weights))
        chance.append(sum(cast.shares[name] * suits(persona, weights) for name, persona in personas.items()))
    assert sum(fits) > 1.3 * sum(chance)
    assert all(abs(cast.counts[name] - share * 2000) < 2 for name, share in cast.shares.items())


def test_a_passage_suits_by_the_weight_of_its_themes() -> None:
    assert suits(PERSONAS["keeper"], {"air": 1.0, "water": 2.0, "chess": 1.0}) == 0.75
    assert suits(PERSONAS["keeper"], {}) == 0.0


# Passages


def test_best_passages_take_turns_between_books() -> None:
    scored = [
        ("a1", "a", 9.0),
        ("a2", "a", 8.0),
        ("a3", "a", 7.0),
        ("b1", "b", 2.0),
        ("c1", "c", 2.0),
        ("c2", "c", 1.0),
    ]
    passages = [passage(chunk_id, book_id, score) for chunk_id, book_id, score in scored]
    chosen = [each.chunk_id for each in best_passages(passages[::-1], None)]
    assert chosen == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert [each.chunk_id for each in best_passages(passages, 4)] == chosen[:4]


def test_best_passages_for_themes() -> None:
    passages = [passage("c0", score=9.0, chess=1.0), passage("c1", air=2.0, water=2.0), passage("c2", air=3.0, chess=5.0)]
    assert [each.chunk_id for each in best_passages(passages, None, frozenset({"air", "water"}))] == ["c1", "c2", "c0"]


def test_rows_carry_the_work() -> None:
    slots = plan_slots([passage("c0", "b7", air=1.0)], COMPONENTS, PERSONAS, 4)
    rows = slots_as_rows(slots, {"c0": "b7"})
    assert (rows[0]["example_id"], rows[0]["number"], rows[0]["chunk_id"], rows[0]["book_id"]) == ("main-000000", 0, "c0", "b7")
    assert (rows[3]["source"], rows[3]["chunk_id"], rows[3]["book_id"]) == ("none", None, rows[3]["example_id"])
