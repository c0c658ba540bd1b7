"""The dataset folder: ChatML lines, their statistics and a data card."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from deepred_ray.config import Config
from deepred_ray.runs import Run
from deepred_ray.stages.tables import Row
from deepred_ray.theme import Theme


def write_dataset(run: Run, config: Config, theme: Theme, examples: Sequence[Row], rejected: Mapping[str, int], model: str) -> None:
    """dataset/theme_dataset.jsonl with all examples, _train and _val with theirs, stats.json and README.md."""
    folder = run.folder / "dataset"
    for name, split in (("theme_dataset", None), ("theme_dataset_train", "train"), ("theme_dataset_val", "val")):
        lines = [chatml_line(example) for example in examples if split in (None, example["split"])]
        (folder / f"{name}.jsonl").write_bytes("".join(lines).encode())
    stats = statistics(examples, rejected)
    (folder / "stats.json").write_json(stats)
    (folder / "README.md").write_bytes(card(run, config, theme, stats, model).encode())


def chatml_line(example: Row) -> str:
    return json.dumps({"id": example["example_id"], "messages": example["messages"]}, ensure_ascii=False) + "\n"


def statistics(examples: Sequence[Row], rejected: Mapping[str, int]) -> dict[str, Any]:
    """Counts by split, component and persona; lengths in characters; share of the commonest opening trigram of answers."""
    answers = [example["messages"][-1]["content"] for example in examples]
    openings = Counter(" ".join(answer.split()[:3]).lower() for answer in answers)
    opening, count = openings.most_common(1)[0]
    return {
        "examples": len(examples),
        "splits": dict(Counter(example["split"] for example in examples)),
        "components": dict(Counter(example["component"] for example in examples)),
        "personas": dict(Counter(example["persona"] for example in examples)),
        "works": len({example["book_id"] for example in examples}),
        "answer_characters": {"shortest": min(map(len, answers)), "longest": max(map(len, answers))},
        "commonest_opening": {"words": opening, "share": round(count / len(answers), 4)},
        "rejected_attempts": dict(rejected),
    }


def card(run: Run, config: Config, theme: Theme, stats: Mapping[str, Any], model: str) -> str:
    """A data card in Markdown: what the rows are, where they come from, and what they must not be taken for."""
    train, val = (stats["splits"].get(split, 0) for split in ("train", "val"))
    counts = "\n".join(f"| {name} | {count} |" for name, count in sorted(stats["components"].items()))
    return f"""# {theme.facts["title"]}: dialogue dataset of run `{run.name}`

{stats["examples"]} ChatML conversations ({train} train, {val} val) in the voice of {theme.facts["title"]}, who knows nothing of
{theme.cutoff_year} or later. Machine-made: questions and answers were written by the model `{model}` and by the theme's
banks, on themes found in passages of {stats["works"]} books, and passed the validators of deepred_ray.

| component | examples |
|---|---|
{counts}

- Validation rows come from other works than training rows.
- One object a line: `id` (its slot), `messages` (system, user, assistant).
- The answers are fiction in a period's manner. They are not facts, and not the views of anybody.
- `stats.json` has the counts; the run's `candidates` table has every attempt with the reason of its rejection.
- Theme: `{config.theme}`.
"""
