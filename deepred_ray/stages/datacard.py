"""The dataset folder: ChatML lines, their statistics, pictures and a data card."""

import json
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.compute as pc

from deepred_ray.config import Config
from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS, CHUNKS
from deepred_ray.stages import pictures
from deepred_ray.stages.tables import Row
from deepred_ray.text.diversity import diversity
from deepred_ray.text.prompts import as_turns
from deepred_ray.theme import Theme

SAMPLES = 10
WORKS_SHOWN = 30
PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
SOURCES = {
    "books": "books: Project Gutenberg texts are in the public domain in the USA; for other places and inputs see their sources",
    "scripts": "scripts: yours; ask their owners before you publish what was made of them",
    "chess": "chess literature: yours; ask its owners before you publish what was made of it",
    "speeches": "speeches: yours; ask their owners before you publish what was made of them",
    "none": "no source: slots without a passage, on a topic of the theme",
}


@dataclass
class Settled:
    """Where a synthesis stands: slots and those filled by component, attempts by component and reason (accepted: empty)."""

    slots: Counter[str] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def empty(self) -> int:
        return self.slots.total() - self.filled.total()

    @property
    def rejected(self) -> dict[str, int]:
        """Attempts by the reason why they are no examples."""
        reasons: Counter[str] = Counter()
        for (_, reason), count in self.attempts.items():
            if reason:
                reasons[reason] += count
        return dict(reasons)

    def yields(self) -> dict[str, dict[str, float]]:
        """By component: slots, those filled, attempts, and the share of attempts that became examples."""
        tried: Counter[str] = Counter()
        for (component, _), count in self.attempts.items():
            tried[component] += count
        return {
            component: {
                "slots": slots,
                "filled": self.filled[component],
                "attempts": tried[component],
                "yield": round(self.filled[component] / tried[component], 4) if tried[component] else 0.0,
            }
            for component, slots in self.slots.items()
        }


def write_dataset(
    run: Run, config: Config, theme: Theme, examples: Sequence[Row], settled: Settled, model: str, reviewed_out: Iterable[str] = ()
) -> None:
    """dataset/theme_dataset.jsonl with all examples, _train and _val with theirs, stats.json, pictures and README.md.

    `reviewed_out` are the examples that were rejected by hand: they are in no file. Where none is left, there is no dataset/.
    """
    folder = run.folder / "dataset"
    removed = set(reviewed_out)
    kept = [example for example in examples if example["example_id"] not in removed]
    if not kept:
        folder.delete()
        return
    for name, split in (("theme_dataset", None), ("theme_dataset_train", "train"), ("theme_dataset_val", "val")):
        lines = [chatml_line(example) for example in kept if split in (None, example["split"])]
        (folder / f"{name}.jsonl").write_bytes("".join(lines).encode())
    stats = describe(kept, settled) | {"rejected_by_hand": len(examples) - len(kept)}
    (folder / "stats.json").write_json(stats)
    (folder / "rejects.png").write_bytes(pictures.bars("Attempts by outcome", outcomes(settled), "attempts"))
    (folder / "personas.png").write_bytes(pictures.bars("Examples by persona", stats["personas"], "examples"))
    lengths = {"questions": stats_words(kept, 0), "answers": stats_words(kept, 1)}
    (folder / "lengths.png").write_bytes(pictures.histograms("Length of questions and answers", lengths, "words"))
    (folder / "README.md").write_bytes(card(run, config, theme, kept, stats, model).encode())


def outcomes(settled: Settled) -> dict[str, int]:
    return {"accepted": settled.filled.total()} | settled.rejected


def chatml_line(example: Row) -> str:
    return json.dumps({"id": example["example_id"], "messages": example["messages"]}, ensure_ascii=False) + "\n"


# --- figures


def describe(examples: Sequence[Row], settled: Settled) -> dict[str, Any]:
    """Everything countable about the dataset; plain values only, ready for JSON."""
    turns = [as_turns(example["messages"]) for example in examples]
    asked = [turn.question for each in turns for turn in each]
    answered = [turn.answer for each in turns for turn in each]
    scores = [example["score"] for example in examples if example["score"] is not None]
    attempts = settled.attempts.total()
    return {
        "examples": len(examples),
        **{f"{key}s": counted(example[key] for example in examples) for key in ("split", "component", "persona", "source")},
        "turns": counted(str(len(each)) for each in turns),
        "works": len({example["book_id"] for example in examples}),
        "clusters": len({example["cluster"] for example in examples}),
        "axes": {
            axis: counted(value for example in examples if (value := dict(example["axes"]).get(axis)))
            for axis in ("contract", "length", "form", "tone", "intent", "asker")
        },
        "characters": {"question": percentiles(map(len, asked)), "answer": percentiles(map(len, answered))},
        "words": {
            "question": percentiles(len(text.split()) for text in asked),
            "answer": percentiles(len(text.split()) for text in answered),
        },
        "diversity": {"questions": asdict(diversity(asked)), "answers": asdict(diversity(answered))},
        "attempts": attempts,
        "yield": round(len(examples) / attempts, 4),
        "yields": settled.yields(),
        "rejected_attempts": settled.rejected,
        "tokens": settled.tokens,
        "request_seconds": round(settled.seconds, 1),
        "judge": {"mean": round(statistics.fmean(scores), 3), "scores": counted(f"{score:.1f}" for score in scores)}
        if scores
        else None,
    }


def counted(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, the commonest first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def percentiles(values: Iterable[int]) -> dict[str, int]:
    """The values below which 0, 5, 25, 50, 75, 95 and 100 per cent of all lie (nearest rank)."""
    ordered = sorted(values)
    return {f"p{percent}": ordered[round(percent / 100 * (len(ordered) - 1))] for percent in PERCENTILES}


def stats_words(examples: Sequence[Row], part: int) -> list[int]:
    """Words of every question (part 0) or answer (part 1)."""
    return [len(turn[part].split()) for example in examples for turn in as_turns(example["messages"])]


# --- the card


def card(run: Run, config: Config, theme: Theme, examples: Sequence[Row], stats: Mapping[str, Any], model: str) -> str:
    """A data card in Markdown, with the header that dataset hubs read: what the rows are, where they come from, and what they must
    not be taken for."""
    title = theme.title
    train, val = (stats["splits"].get(split, 0) for split in ("train", "val"))
    judged = f"- Judge `{config.synthesize.judge_model}`: mean score {stats['judge']['mean']} of 5.\n" if stats["judge"] else ""
    by_hand = f"- {stats['rejected_by_hand']} examples were rejected by hand.\n" if stats["rejected_by_hand"] else ""
    answers, questions = stats["diversity"]["answers"], stats["diversity"]["questions"]
    return f"""---
language: [en]
task_categories: [text-generation]
tags: [persona, synthetic, chatml]
size_categories: [{size_category(len(examples))}]
configs:
- config_name: default
  data_files:
  - split: train
    path: theme_dataset_train.jsonl
  - split: validation
    path: theme_dataset_val.jsonl
---

# {title}: dialogue dataset of run `{run.name}`

{stats["examples"]} ChatML conversations ({train} train, {val} val) in the voice of {title}, who knows nothing of {
        theme.cutoff_year
    }
or later. Machine-made: written by the model `{model}` and from the theme's banks, on passages of {stats["works"]} works, and passed
the validators of deepred_ray.

One object a line: `id` (its slot), `messages` (system, then user and assistant in turns). `stats.json` has every figure; the run's
`candidates` table has every attempt with the reason of its rejection, and `deepred explain {
        run.name
    } ID` tells the origin of a line.

## Counts

{md_table(["component", "slots", "filled", "attempts", "yield"], component_rows(stats["yields"]))}

{md_table(["persona", "examples"], stats["personas"].items())}

{md_table(["turns", "examples"], stats["turns"].items())}

## How it was made

{stats["attempts"]} attempts, of which {stats["yield"]:.0%} became examples. The others, by reason:

{md_table(["reason", "attempts"], counted_rows(stats["rejected_attempts"]))}

{judged}{by_hand}- Temperature {config.synthesize.temperature}, min-p {config.synthesize.min_p}, repetition penalty \
{config.synthesize.repetition_penalty}; what varies (asker, form of the question, length, turns) is drawn outside the model.
- Validation rows come from other works than training rows, and no conversation resembles one of the other split: checked before
  this was written.

![attempts by outcome](rejects.png)
![examples by persona](personas.png)
![lengths](lengths.png)

## Diversity

{
        md_table(
            ["", "commonest opening", "its share", "distinct 1, 2, 3", "self-similarity", "compression"],
            [
                ["questions", *diversity_cells(questions)],
                ["answers", *diversity_cells(answers)],
            ],
        )
    }

## Sources and licences

{chr(10).join(f"- {text}" for source, text in SOURCES.items() if source in stats["sources"])}
- The answers were written by `{model}`: its licence decides what may be done with them.
- Theme `{theme.name}`: questions, openings, personas and system prompts are its own{licence_of(theme)}.

{md_table(["work", "examples"], works_rows(run, examples))}

## What it is not

The answers are fiction in a period's manner: they are not facts, and not the views of anybody. They keep to the period and the
voice as far as rules can tell, which is not the same as good sense.

## Ten samples

{chr(10).join(sample_text(example) for example in samples(examples))}
"""


def licence_of(theme: Theme) -> str:
    told = theme.facts.get("licence")
    return f" ({told})" if told else ", whose folder tells no licence"


def size_category(count: int) -> str:
    """The hubs' name for a number of rows."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if count < bound), "n>1M")


def component_rows(yields: Mapping[str, Mapping[str, float]]) -> list[list[Any]]:
    return [[name, row["slots"], row["filled"], row["attempts"], f"{row['yield']:.0%}"] for name, row in yields.items()]


def counted_rows(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0])) or [("none", 0)]


def diversity_cells(found: Mapping[str, Any]) -> list[str]:
    opening, share = next(iter(found["opening_trigrams"].items()))
    distinct = ", ".join(f"{value:.2f}" for value in found["distinct"].values())
    return [f"{opening}…", f"{share:.1%}", distinct, f"{found['self_similarity']:.2f}", f"{found['compression']:.2f}"]


def works_rows(run: Run, examples: Sequence[Row]) -> list[tuple[str, int]]:
    """Titles with their numbers of examples, the most used first; the rest in one line."""
    counts = Counter(example["book_id"] for example in examples if example["source"] != "none")
    named = titles(run, set(counts))
    rows = [(named.get(book, book), count) for book, count in counts.most_common(WORKS_SHOWN)]
    rest = len(counts) - len(rows)
    return rows + ([(f"{rest} more", sum(counts.values()) - sum(count for _, count in rows))] if rest else [])


def titles(run: Run, wanted: set[str]) -> dict[str, str]:
    """book_id -> title and authors, from books/, or the title alone where a run has none."""
    found: dict[str, str] = {}
    for name in ("chunks", "sources"):
        chunks = run.table(name).read_table(CHUNKS, ["book_id", "title"]).group_by("book_id").aggregate([("title", "min")])
        found |= dict(zip(chunks["book_id"].to_pylist(), chunks["title_min"].to_pylist(), strict=True))
    books = run.table("books").read_table(BOOKS, ["book_id", "title", "authors", "year"])
    for book in books.filter(pc.is_in(books["book_id"], pc.cast(sorted(wanted), "string"))).to_pylist():
        author = f", {book['authors'][0]}" if book["authors"] else ""
        year = f" ({book['year']})" if book["year"] else ""
        found[book["book_id"]] = f"{book['title']}{author}{year}"
    return {book: found[book] or book for book in wanted & found.keys()}


def samples(examples: Sequence[Row]) -> list[Row]:
    """Ten examples, the components in turn."""
    shuffled = random.Random(0).sample(list(examples), len(examples))
    rank: Counter[str] = Counter()
    ranked = []
    for place, example in enumerate(shuffled):
        ranked.append((rank[example["component"]], place, example))
        rank[example["component"]] += 1
    return [example for *_, example in sorted(ranked, key=lambda item: item[:2])[:SAMPLES]]


def sample_text(example: Row) -> str:
    lines = [f"**{example['example_id']}**, {example['persona']}\n"]
    for turn in as_turns(example["messages"]):
        lines.append(f"> **Q** {one_line(turn.question)}\n>\n> **A** {one_line(turn.answer)}\n")
    return "\n".join(lines)


def one_line(text: str) -> str:
    """Text that cannot leave its place in Markdown."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def md_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(one_line(str(cell)) for cell in line)} |" for line in lines)
