"""The dataset folder of some examples: every figure by hand, a card that renders, pictures that are pictures."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deepred_ray.config import Config
from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS, CHUNKS
from deepred_ray.stages import pictures
from deepred_ray.stages.datacard import Settled, describe, md_table, percentiles, samples, write_dataset
from deepred_ray.storage import rows_table
from deepred_ray.text.prompts import Turn, as_messages
from deepred_ray.theme import Theme

SYSTEM = "You keep the pumps."
SETTLED = Settled(
    slots=Counter(core=3, chess=1),
    filled=Counter(core=3, chess=1),
    attempts=Counter({("core", ""): 3, ("core", "copied"): 2, ("chess", ""): 1, ("chess", "off_theme"): 2}),
    tokens=900,
    seconds=41.25,
)


def example(number: int, component: str = "core", split: str = "train", turns: int = 1, **more: Any) -> dict[str, Any]:
    words = ("pumps", "lamps", "canals", "gardens", "looms", "wells")
    said = [
        Turn(f"Who minds the {words[number]}{'?' * (turn + 1)}", f"We mind the {words[number]}, comrade | all of us.\nSo it is.")
        for turn in range(turns)
    ]
    return {
        "example_id": f"{component}-{number:06d}",
        "component": component,
        "source": "books",
        "persona": "primary" if number else "tactician",
        "chunk_id": f"b{number}:0-9",
        "book_id": f"b{number}",
        "attempt": 0,
        "axes": {"contract": "plain", "form": "open", "length": "short"},
        "messages": as_messages(SYSTEM, said),
        "score": None,
        "scores": None,
        "reasons": None,
        "cluster": f"{component}-{number:06d}",
        "split": split,
    } | more


EXAMPLES = [example(0), example(1, turns=2), example(2, split="val"), example(3, "chess")]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(str(tmp_path), "wells")
    book = dict.fromkeys(BOOKS.names) | {"book_id": "b0", "title": "The Pumps", "authors": ["A. Wright"], "year": 1911}
    made.table("books").write_table(rows_table([book], BOOKS), "b0")
    chunk = dict.fromkeys(CHUNKS.names) | {"book_id": "b1", "title": "The Lamps"}
    made.table("chunks").write_table(rows_table([chunk], CHUNKS), "b1")
    return made


def test_every_figure() -> None:
    found = describe(EXAMPLES, SETTLED)
    assert found["splits"] == {"train": 3, "val": 1}
    assert found["components"] == {"core": 3, "chess": 1}
    assert found["personas"] == {"primary": 3, "tactician": 1}
    assert found["turns"] == {"1": 3, "2": 1}
    assert found["axes"]["form"] == {"open": 4}
    assert found["axes"]["tone"] == {}
    assert (found["works"], found["clusters"], found["attempts"], found["yield"]) == (4, 4, 8, 0.5)
    assert found["yields"]["core"] == {"slots": 3, "filled": 3, "attempts": 5, "yield": 0.6}
    assert found["rejected_attempts"] == {"copied": 2, "off_theme": 2}
    assert found["words"]["question"]["p50"] == 4
    assert found["diversity"]["answers"]["opening_trigrams"]["we mind the"] == 1.0
    assert found["judge"] is None
    judged = [example(0, score=4.0), example(1, score=2.5)]
    assert describe(judged, SETTLED)["judge"] == {"mean": 3.25, "scores": {"2.5": 1, "4.0": 1}}
    json.dumps(found, allow_nan=False)


def test_percentiles_are_values_that_occur() -> None:
    assert percentiles(range(101)) == {"p0": 0, "p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "p100": 100}
    assert set(percentiles([7]).values()) == {7}


def test_the_folder(run: Run) -> None:
    write_dataset(run, Config(run="wells"), Theme.find("deepred"), EXAMPLES, SETTLED, "some/model", reviewed_out=["core-000001"])
    folder = run.folder / "dataset"
    ids = {
        name: [json.loads(line)["id"] for line in (folder / f"theme_dataset{name}.jsonl").read_bytes().splitlines()]
        for name in ("", "_train", "_val")
    }
    assert ids == {
        "": ["core-000000", "core-000002", "chess-000003"],
        "_train": ["core-000000", "chess-000003"],
        "_val": ["core-000002"],
    }
    assert (folder / "stats.json").read_json()["rejected_by_hand"] == 1
    card = (folder / "README.md").read_bytes().decode()
    assert "| The Pumps, A. Wright (1911) | 1 |" in card
    assert "| b2 | 1 |" in card
    assert "`some/model`" in card
    assert "{" not in card
    # Every row of a table has the cells of its head, whatever its texts hold.
    for block in re.findall(r"(?:^\|.*\n)+", card, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    for name in ("rejects", "lengths", "personas"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"({name}.png)" in card


def test_samples_take_the_components_in_turn() -> None:
    many = [example(0, f"part{number % 3}", example_id=f"x{number}") for number in range(40)]
    assert Counter(row["component"] for row in samples(many)) == {"part0": 4, "part1": 3, "part2": 3} or len(samples(many)) == 10
    assert len(samples(EXAMPLES)) == 4


def test_a_cell_cannot_break_its_table() -> None:
    assert md_table(["a"], [["x | y\n<b>"]]) == "| a |\n| --- |\n| x \\| y &lt;b> |"


@pytest.mark.parametrize("counts", [{}, {"accepted": 1}, {f"reason_{number}": number for number in range(40)}])
def test_pictures_of_few_and_of_many(counts: dict[str, int]) -> None:
    assert pictures.bars("Attempts", counts, "attempts").startswith(b"\x89PNG")
