"""fluency: perplexity of base and tuned model on held-out examples, and on general prose of before the cutoff.

INPUT   tokens/ of the held-out works, chunks/ that are no passages (or the theme's own prose), the base model, adapter/
OUTPUT  for each text the summed nats and the number of tokens, under both models
fan-out 1:1
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.compute as pc
import ray

from deepred_ray import models, placement
from deepred_ray.config import Resources
from deepred_ray.runs import Run
from deepred_ray.schema import CHUNKS
from deepred_ray.stages.batches import Batches, Packed, collate
from deepred_ray.stages.lora import token_losses
from deepred_ray.text.metrics import PerplexityComparison, compare_perplexity
from deepred_ray.theme import Theme

PROSE_TOKENS = 256


@dataclass(frozen=True)
class Fluency:
    """Tuned against base; None where there is no text."""

    held_out: PerplexityComparison | None
    prose: PerplexityComparison | None


def measure(run: Run, theme: Theme, base: str, adapter: str, texts: int, seed: int, resources: Resources) -> Fluency:
    """Both comparisons, in one load of the base, whose adapter is put on and off."""
    prose = general_prose(run, theme, texts)
    scores = ray.get(score.options(**placement.options(resources, 1)).remote(run, base, adapter, texts, prose))
    held_out, general = (compare_perplexity(before, after, seed) if before else None for before, after in scores)
    return Fluency(held_out, general)


def general_prose(run: Run, theme: Theme, count: int) -> list[str]:
    """Pieces of the run's books that are no passages of the theme, in an order of their own; the theme's prose where the run has
    too few."""
    dropped: list[str] = []
    if run.table("chunks").files(".parquet"):
        table = run.table("chunks").read_table(CHUNKS, ["chunk_id", "text", "reason"])
        rows = table.filter(pc.equal(table["reason"], "low_score")).to_pylist()
        dropped = [row["text"] for row in sorted(rows, key=lambda row: hashlib.sha256(row["chunk_id"].encode()).digest())]
    texts = dropped if len(dropped) >= count else [*dropped, *theme.reference("prose")]
    return texts[:count]


Scores = tuple[list[tuple[float, int]], list[tuple[float, int]]]


@ray.remote(max_retries=0)
def score(run: Run, base: str, adapter: str, texts: int, prose: Sequence[str]) -> tuple[Scores, Scores]:
    """(summed nats, tokens) of each held-out conversation and of each piece of prose, for base and tuned."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run.here(adapter)
    base = models.here(base)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **models.weights())
    model: Any = PeftModel.from_pretrained(loaded, adapter).eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(base, **models.loading())

    def scored(rows: Iterator[Packed]) -> Scores:
        before, after = [], []
        for row in rows:
            batch = collate([row], packed=False)
            after.append((float(token_losses(model, batch, device).sum()), row.trained_tokens))
            with model.disable_adapter():
                before.append((float(token_losses(model, batch, device).sum()), row.trained_tokens))
        return before, after

    with torch.no_grad():
        return (
            scored(islice(Batches(run.table("tokens"), "val").conversations(), texts)),
            scored(as_row(tokenizer(text, add_special_tokens=False)["input_ids"][:PROSE_TOKENS]) for text in prose),
        )


def as_row(ids: Sequence[int]) -> Packed:
    """A text of which every token but the first, which nothing predicts, counts."""
    trained = np.ones(len(ids), bool)
    trained[:1] = False
    return Packed(np.array(ids, np.int64), trained, (len(ids),))
