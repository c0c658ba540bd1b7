"""Evaluation prompts as data, and the choice of them."""

import json

import pytest

from deepred_ray.text.items import Item, parse_items, stratified


def test_an_item_knows_all_that_was_asked() -> None:
    row = {
        "id": "x-1",
        "category": "c",
        "kind": "style",
        "prompt": "And then?",
        "accept": [],
        "leak": ["no"],
        "lead": ["One.", "Two."],
    }
    (item,) = parse_items(json.dumps(row))
    assert item.turns == ("One.", "Two.", "And then?")
    assert item.asked == "one.\ntwo.\nand then?"
    assert item.leak[0].search("NO")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"id": "a", "category": "c", "kind": "style", "prompt": "p", "accept": []}',
        '{"id": "a", "category": "c", "kind": "odd", "prompt": "p", "accept": [], "leak": []}',
        '{"id": "a", "category": "c", "kind": "style", "prompt": "p", "accept": ["("], "leak": []}',
        '{"id": "a", "category": "c", "kind": "style", "prompt": "p", "accept": [], "leak": [], "more": 1}',
    ],
)
def test_bad_items_are_named_by_line(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        parse_items("\n" + line)


def test_ids_are_unique() -> None:
    row = '{"id": "a", "category": "c", "kind": "style", "prompt": "p", "accept": [], "leak": []}'
    with pytest.raises(ValueError, match="twice"):
        parse_items(f"{row}\n{row}")


def test_stratified_is_even_nested_and_deterministic() -> None:
    shape = {("style", "plan"): 8, ("style", "future"): 20, ("temporal", "before"): 30, ("persona", "era"): 3}
    items = [Item(f"{k}-{c}-{i}", c, k, "p") for (k, c), size in shape.items() for i in range(size)]
    chosen = stratified(items, 20, seed=3)
    counts = {key: sum((item.kind, item.category) == key for item in chosen) for key in shape}
    assert counts[("persona", "era")] == 3
    assert all(5 <= count <= 6 for key, count in counts.items() if key[0] != "persona")
    assert chosen == stratified(items[::-1], 20, seed=3)
    assert {item.id for item in stratified(items, 9, seed=3)} < {item.id for item in chosen}
    with pytest.raises(ValueError, match="cannot choose"):
        stratified(items, 62, seed=3)
