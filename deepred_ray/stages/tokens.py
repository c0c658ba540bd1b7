"""tokens: conversations become token ids, with a mask of what is trained, in the order and the rows that training takes them in.

INPUT   examples/, or a ChatML .jsonl file; the theme's exemplars
OUTPUT  tokens/ (one file: a row group a global batch, a row a packed sequence), rejects/train/
fan-out n:1, as many conversations a row as fit
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from deepred_ray import metrics, models, placement, review
from deepred_ray.config import TrainConfig
from deepred_ray.console import Meter
from deepred_ray.errors import InputError
from deepred_ray.runs import Run
from deepred_ray.schema import EXAMPLES, REJECTS, TOKENIZED, TOKENS
from deepred_ray.stages.tables import Row, ShardWriter, write
from deepred_ray.storage import Folder, rows_table
from deepred_ray.text import conversations
from deepred_ray.text.masking import tokenize_chat
from deepred_ray.text.packing import global_batches, pack
from deepred_ray.text.phrasebook import Exchange
from deepred_ray.text.prompts import Turn, as_messages
from deepred_ray.text.reject import Reject
from deepred_ray.theme import Theme

EXAMPLES_A_SHARD = 512


def run(run: Run, settings: TrainConfig, model: str, theme: Theme) -> None:
    """Make tokens/ of the run's examples or of the dataset.

    Raises:
        InputError: a dataset that is not ChatML, or a model without a chat template.
    """
    load_tokenizer(model)  # a fault of the model is told before anything is written
    by_hand = [] if settings.dataset else sorted(review.rejected_by_hand(run))
    rejected = [{"id": example, "reason": "rejected_by_hand", "detail": None, "raw": None} for example in by_hand]
    run.table("rejects/train").write_table(rows_table(rejected, REJECTS), "by_hand")
    examples = read_examples(run, settings, by_hand)
    if settings.exemplars:
        examples = examples.union(ray.data.from_arrow(exemplars(theme, settings.exemplars)))
    tokenized = examples.map_batches(
        Tokenizer,
        fn_constructor_args=(model, settings.max_tokens),
        batch_size=64,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=placement.TOKENIZING_CPUS,
    )
    draft = run.table("tokens.draft")
    draft.delete()
    writer = ShardWriter(
        "train",
        {"tokens": (draft, TOKENIZED), "rejects": (run.table("rejects/train"), REJECTS)},
        sort=lambda row: "rejects" if row["reason"] else "tokens",
        key="example_id",
    )
    growing = metrics.Growing()
    with Meter("train", None, "examples tokenised") as meter:
        for counts in write(tokenized, writer, EXAMPLES_A_SHARD):
            growing.rows({reason: count for (_, reason), count in counts.items()})
            meter.update(counts.total())
    ray.get(ray.remote(num_cpus=placement.TOKENIZING_CPUS)(arrange).remote(draft, run.table("tokens"), settings))
    draft.delete()


# --- conversations


def read_examples(run: Run, settings: TrainConfig, left_out: Sequence[str]) -> ray.data.Dataset:
    """Rows example_id, split, messages, without the examples `left_out`."""
    if settings.dataset:
        return ray.data.from_arrow(pa.Table.from_pylist(read_chatml(Path(settings.dataset).expanduser())))
    examples = run.table("examples").read_table(EXAMPLES, ["example_id", "split", "messages"])
    return ray.data.from_arrow(examples.filter(pc.invert(pc.is_in(examples["example_id"], pa.array(left_out, pa.string())))))


def read_chatml(path: Path) -> list[Row]:
    """Every line of a ChatML file; each tenth conversation is for validation, as the plan has it, and of fewer the last.

    Raises:
        InputError: no such file, no UTF-8, under two conversations, or a line that is none; the message names it.
    """
    try:
        lines = path.read_text("utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise InputError(f"dataset {path}: {error.strerror or error}", "Give --dataset a ChatML .jsonl file.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"dataset {path} is not UTF-8: {error}") from error
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            messages = conversations.parse(line)
        except ValueError as error:
            raise InputError(f"dataset {path}, line {number}: {error}") from error
        split = "val" if number % 10 == 0 or (number == len(lines) < 10) else "train"
        rows.append({"example_id": f"line-{number:07d}", "split": split, "messages": messages})
    if len(rows) < 2:
        raise InputError(f"dataset {path} has one conversation", "Training wants at least two: one of them for validation.")
    return rows


def exemplars(theme: Theme, times: int) -> pa.Table:
    """The theme's exemplars for training, each `times` times, under its persona's system prompts in turn."""
    rows = [
        {"example_id": f"exemplar-{number:06d}-{turn}", "split": "train", "messages": exemplar_chat(theme, shot, number + turn)}
        for number, shot in enumerate(theme.phrasebook.voice)
        for turn in range(times)
    ]
    return rows_table(rows, pa.schema([EXAMPLES.field(name) for name in ("example_id", "split", "messages")]))


def exemplar_chat(theme: Theme, shot: Exchange, turn: int) -> list[dict[str, str]]:
    system = theme.personas[shot.persona].system
    return as_messages(system[turn % len(system)], [Turn(shot.question, shot.answer)])


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer. Raises InputError if it has no chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.here(model), **models.loading())
    if not tokenizer.chat_template:
        raise InputError(f"{model} has no chat template", "Tune an instruct model.")
    return tokenizer


class Tokenizer:
    """INPUT conversations; OUTPUT their tokens, or a reason; fan-out 1:1."""

    def __init__(self, model: str, max_tokens: int) -> None:
        self.tokenizer = load_tokenizer(model)
        self.max_tokens = max_tokens

    def __call__(self, batch: pa.Table) -> pa.Table:
        columns = dict.fromkeys([*TOKENIZED.names, *REJECTS.names])
        rows = []
        for row in batch.to_pylist():
            made = tokenize_chat(row["messages"], self.render, self.encode, self.max_tokens)
            filled = columns | {"example_id": row["example_id"], "id": row["example_id"], "split": row["split"]}
            if isinstance(made, Reject):
                rows.append(filled | {"reason": made.reason, "detail": made.detail})
            else:
                rows.append(filled | {"input_ids": made[0], "trained": made[1]})
        return pa.Table.from_pylist(rows, pa.unify_schemas([TOKENIZED, REJECTS]))

    def render(self, messages: Any, ready: bool) -> str:
        return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ready))

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return made["input_ids"], made["offset_mapping"]


# --- rows


def arrange(tokenized: Folder, tokens: Folder, settings: TrainConfig) -> None:
    """Write tokens/ of the tokenised conversations, in global batches whose make-up is a function of the seed alone; training
    takes the batches in another order each epoch."""
    # The order in which Ray's tasks ended must not matter.
    table = tokenized.read_table(TOKENIZED).sort_by("example_id")
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, TOKENS, compression="zstd") as file:
        for split in ("train", "val"):
            rows = table.filter(pc.equal(table["split"], split))
            for batch in global_batches(rows.num_rows, settings.global_batch, settings.seed):
                made = list(packed_rows(split, rows.take(pa.array(batch)).to_pylist()))
                file.write_table(rows_table(made, TOKENS))
    (tokens / "tokens.parquet").write_bytes(sink.getvalue().to_pybytes())


def packed_rows(split: str, conversations: Sequence[Row]) -> Iterator[Row]:
    lengths = [len(one["input_ids"]) for one in conversations]
    # No longer than need be: what attention costs grows with the square of a row.
    for row in pack(lengths, max(lengths)):
        together = [conversations[number] for number in row]
        yield {
            "split": split,
            "example_ids": [one["example_id"] for one in together],
            "lengths": [len(one["input_ids"]) for one in together],
            "input_ids": [token for one in together for token in one["input_ids"]],
            "trained": [trained for one in together for trained in one["trained"]],
        }
