"""Components, personas and the plan of slots: shares, even use of passages, and growth that keeps what was there."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.personas import (
    Component,
    Passage,
    Persona,
    apportion,
    best_passages,
    draw_persona,
    parse_components,
    parse_personas,
    plan_slots,
    slots_as_rows,
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
"""
PERSONAS = parse_personas(PERSONAS_TOML)
COMPONENTS = parse_components(COMPONENTS_TOML, PERSONAS)
THEMES = ("air", "water", "chess")

PASSAGES = st.lists(st.sets(st.sampled_from(THEMES)), min_size=1, max_size=12).map(
    lambda found: [Passage(f"c{i}", f"b{i % 3}", float(i), dict.fromkeys(found[i], 1)) for i in range(len(found))]
)


@st.composite
def _components(draw: st.DrawFn, most: int = 4) -> list[Component]:
    parts = draw(st.lists(st.integers(1, 50), min_size=1, max_size=most))
    themes = st.frozensets(st.sampled_from(THEMES), max_size=2)
    groups = frozenset({"core", "chess"})
    return [Component(f"p{i}", part / sum(parts), draw(themes), groups) for i, part in enumerate(parts)]


# Reading


def test_personas_and_components_are_read() -> None:
    assert PERSONAS["keeper"] == Persona(
        "keeper", "core", frozenset({"air", "water"}), 2.0, ("You keep the air.", "The air is in your care.")
    )
    assert COMPONENTS[1] == Component("games", 0.25, frozenset(), frozenset({"chess", "core"}))


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
    assert Counter(apportion(components, 1000)) == {part.id: round(1000 * part.share) for part in components}


# Planning


@given(PASSAGES, _components(), st.integers(0, 60), st.integers(0, 60))
def test_slots_are_append_only(passages: list[Passage], components: list[Component], n: int, more: int) -> None:
    first = plan_slots(passages, components, PERSONAS, n)
    then = plan_slots(passages, components, PERSONAS, n + more, planned=first)
    assert first + then == plan_slots(passages, components, PERSONAS, n + more)
    assert len({slot.example_id for slot in first + then}) == n + more
    assert plan_slots(passages, components, PERSONAS, n, planned=first) == []


@given(PASSAGES, st.integers(0, 60))
def test_one_component_uses_its_fitting_passages_evenly(passages: list[Passage], n: int) -> None:
    component = Component("all", 1.0, frozenset({"air"}), frozenset({"core"}))
    used = Counter(slot.chunk_id for slot in plan_slots(passages, [component], PERSONAS, n))
    fitting = [passage.chunk_id for passage in passages if "air" in passage.themes]
    times = [used[chunk_id] for chunk_id in fitting or [passage.chunk_id for passage in passages]]
    assert sum(times) == n
    assert max(times) - min(times) <= 1


@given(PASSAGES, _components(), st.integers(0, 60))
def test_every_slot_fits(passages: list[Passage], components: list[Component], n: int) -> None:
    by_chunk = {passage.chunk_id: passage for passage in passages}
    by_id = {component.id: component for component in components}
    for slot in plan_slots(passages, components, PERSONAS, n):
        wanted = by_id[slot.component].themes
        fits = not wanted or wanted & by_chunk[slot.chunk_id].themes.keys()
        assert fits or not any(wanted & passage.themes.keys() for passage in passages)
        assert PERSONAS[slot.persona].group in by_id[slot.component].groups
        assert slot.example_id == f"{slot.component}-{slot.number:06d}"


def test_components_share_passages_evenly_over_the_whole_plan() -> None:
    passages = [Passage(f"c{i}", "b", 1.0, {"air": 1} if i % 2 else {"chess": 1}) for i in range(20)]
    used = Counter(slot.chunk_id for slot in plan_slots(passages, COMPONENTS, PERSONAS, 40))
    # Three quarters go to the ten passages on air; "games" takes any, and so takes the others.
    assert set(used.values()) == {3, 1}
    assert all(count == (3 if int(chunk_id[1:]) % 2 else 1) for chunk_id, count in used.items())


def test_new_passages_are_taken_up_first_when_a_plan_grows() -> None:
    old = [Passage(f"c{i}", "b", 1.0, {"air": 1}) for i in range(4)]
    first = plan_slots(old, COMPONENTS, PERSONAS, 8)
    new = [Passage(f"n{i}", "b", 1.0, {"air": 1}) for i in range(4)]
    grown = plan_slots([*old, *new], COMPONENTS, PERSONAS, 16, planned=first)
    assert Counter(slot.chunk_id for slot in grown) == dict.fromkeys(["n0", "n1", "n2", "n3"], 2)


def test_personas_are_drawn_by_weight_and_themes() -> None:
    component = COMPONENTS[1]

    def share_of_player(themes: set[str]) -> float:
        drawn = [draw_persona(f"games-{i:06d}", component, themes, PERSONAS) for i in range(3000)]
        return drawn.count("player") / len(drawn)

    assert share_of_player(set()) == pytest.approx(1 / 3, abs=0.03)
    assert share_of_player({"chess"}) == pytest.approx(2 / 4, abs=0.03)
    assert share_of_player({"air", "water"}) == pytest.approx(1 / 7, abs=0.03)


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
    passages = [Passage(chunk_id, book_id, score, {}) for chunk_id, book_id, score in scored]
    chosen = [passage.chunk_id for passage in best_passages(passages[::-1], None)]
    assert chosen == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert [passage.chunk_id for passage in best_passages(passages, 4)] == chosen[:4]


def test_rows_carry_the_book() -> None:
    passages = [Passage("c0", "b7", 1.0, {"air": 1})]
    row = slots_as_rows(plan_slots(passages, COMPONENTS, PERSONAS, 1), {"c0": "b7"})[0]
    assert row["example_id"] == "main-000000"
    assert (row["number"], row["chunk_id"], row["book_id"]) == (0, "c0", "b7")
