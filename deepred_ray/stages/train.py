"""train: a LoRA adapter for the model, by Ray Train over any number of workers.

INPUT   examples/, or a ChatML .jsonl file
OUTPUT  tokens/ (tokenised and masked), checkpoints/, train/ (metrics.jsonl, loss.png, tensorboard/), rejects/train/,
        adapter/ (the best checkpoint)
fan-out one row of tokens an example
"""

import json
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from deepred_ray import models, review
from deepred_ray.config import Config, TrainConfig
from deepred_ray.console import Meter, say
from deepred_ray.errors import DeepredError, InputError
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import EXAMPLES, REJECTS, TOKENS
from deepred_ray.stages import pictures
from deepred_ray.stages.lora import fastest_precision, train_worker
from deepred_ray.stages.tables import Row, ShardWriter, write
from deepred_ray.storage import count_values, rows_table
from deepred_ray.text import conversations
from deepred_ray.text.masking import tokenize_chat
from deepred_ray.text.reject import Reject
from deepred_ray.theme import Theme

EXAMPLES_A_SHARD = 512
POLL_S = 1.0
SCALARS = ("loss", "val_loss", "lr", "tokens_per_s")


def run(run: Run, config: Config, theme: Theme) -> Manifest:
    """Tokenise, train, and keep the adapter of the checkpoint with the least validation loss.

    Raises:
        InputError: no example, or a dataset that is not ChatML.
        DeepredError: the workers do not fit the cluster, or training failed for good.
    """
    settings = config.train
    model = models.resolve(config.model)
    require_workers(settings.workers)
    if not run.table("tokens").files(".parquet"):
        tokenize(run, settings, model)
    tokens = run.table("tokens").read_table(TOKENS, ["split", "trained"])
    rejected = count_values(run.table("rejects/train").read_table(REJECTS)["reason"])
    rows = count_values(tokens["split"])
    if not rows.get("train"):
        raise InputError(f"train has no example to train on ({rejected or 'the dataset is empty'})")
    steps = settings.epochs * math.ceil(rows["train"] / settings.global_batch)
    say(f"  {rows['train']} examples, {rows.get('val', 0)} for validation, {steps} steps on {settings.workers} worker(s)")
    best = fit(run, settings, model, steps)
    metrics = read_metrics(run)
    draw(run, metrics)
    losses = [row["loss"] for row in metrics.values()]
    return Manifest(
        "train",
        "examples",
        tokens.num_rows + sum(rejected.values()),
        tokens.num_rows,
        rejected,
        0.0,
        outputs={
            "base": model,
            "steps": steps,
            "trained_tokens": int(sum(sum(row) for row in tokens["trained"].to_pylist())),
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "val_loss": best.get("val_loss"),
            "best_step": best.get("step"),
        },
    )


def require_workers(workers: int) -> None:
    """A cluster that cannot hold the workers would wait for ever."""
    resources = ray.cluster_resources()
    kind = "GPU" if resources.get("GPU") else "CPU"
    if resources.get(kind, 0) < workers:
        raise DeepredError(
            f"train wants {workers} workers, the cluster has {resources.get(kind, 0):g} {kind}s", "Lower --train.workers."
        )


# --- tokens


def tokenize(run: Run, settings: TrainConfig, model: str) -> None:
    by_hand = [] if settings.dataset else sorted(review.rejected_by_hand(run))
    rejected = [{"id": example, "reason": "rejected_by_hand", "detail": None, "raw": None} for example in by_hand]
    run.table("rejects/train").write_table(rows_table(rejected, REJECTS), "by_hand")
    tokenized = read_examples(run, settings, by_hand).map_batches(
        Tokenizer,
        fn_constructor_args=(model, settings.max_tokens),
        batch_size=64,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=0.5,
    )
    writer = ShardWriter(
        {"tokens": (run.table("tokens"), TOKENS), "rejects": (run.table("rejects/train"), REJECTS)},
        sort=lambda row: "rejects" if row["reason"] else "tokens",
        key="example_id",
    )
    # A kill in the middle must not look like a whole table: the folder is filled under another name.
    draft = run.table("tokens.draft")
    draft.delete()
    writer.folders["tokens"] = (draft, TOKENS)
    with Meter("train", None, "examples tokenised") as meter:
        for counts in write(tokenized, writer, EXAMPLES_A_SHARD):
            meter.update(counts.total())
    table = draft.read_table(TOKENS)
    # The order of rows decides the order of training; it must not depend on which task ended first.
    run.table("tokens").write_table(table.sort_by("example_id"), "tokens")
    draft.delete()


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


class Tokenizer:
    """INPUT examples; OUTPUT tokens, or a reason; fan-out 1:1."""

    def __init__(self, model: str, max_tokens: int) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(model)
        if not self.tokenizer.chat_template:
            raise InputError(f"{model} has no chat template", "Tune an instruct model.")
        self.max_tokens = max_tokens

    def __call__(self, batch: pa.Table) -> pa.Table:
        columns = dict.fromkeys([*TOKENS.names, *REJECTS.names])
        rows = []
        for row in batch.to_pylist():
            made = tokenize_chat(row["messages"], self.render, self.encode, self.max_tokens)
            filled = columns | {"example_id": row["example_id"], "id": row["example_id"], "split": row["split"]}
            if isinstance(made, Reject):
                rows.append(filled | {"reason": made.reason, "detail": made.detail})
            else:
                rows.append(filled | {"input_ids": made[0], "trained": made[1]})
        return pa.Table.from_pylist(rows, pa.unify_schemas([TOKENS, REJECTS]))

    def render(self, messages: Any, ready: bool) -> str:
        return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ready))

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return made["input_ids"], made["offset_mapping"]


# --- training


class Scoreboard:
    """Where the first worker leaves its figures and the driver finds them, whichever nodes they run on."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def take(self) -> list[Row]:
        rows, self.rows = self.rows, []
        return rows


def fit(run: Run, settings: TrainConfig, model: str, steps: int) -> dict[str, Any]:
    """Train to the last step from whatever checkpoint there is; the figures of the best one, whose adapter is kept."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    board: Any = ray.remote(num_cpus=0)(Scoreboard).remote()
    gpu = bool(ray.cluster_resources().get("GPU"))
    precision = settings.precision
    if precision == "auto":
        # Every worker must compute alike, so it is measured once.
        precision = ray.get(ray.remote(num_cpus=1, num_gpus=int(gpu))(fastest_precision).remote("cuda" if gpu else "cpu"))
    say(f"  computing in {precision}")
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "model": model,
            "tokens": run.table("tokens"),
            "settings": settings.model_dump(),
            "precision": precision,
            "board": board,
        },
        scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=gpu),
        run_config=RunConfig(
            name="checkpoints",
            storage_path=run.folder.path,
            storage_filesystem=run.folder.filesystem,
            failure_config=FailureConfig(max_failures=2),
            checkpoint_config=CheckpointConfig(num_to_keep=2, checkpoint_score_attribute="score", checkpoint_score_order="min"),
        ),
    )
    stop = threading.Event()
    with Meter("train", steps, "steps") as meter:
        watcher = threading.Thread(target=watch, args=(run, board, meter, stop), daemon=True)
        watcher.start()
        try:
            result = trainer.fit()
        finally:
            stop.set()
            watcher.join()
    if not result.best_checkpoints:
        raise DeepredError("training ended without a checkpoint", "The log of the run has the cause.")
    checkpoint, metrics = min(result.best_checkpoints, key=lambda pair: (pair[1]["score"], -pair[1]["step"]))
    with run.artefact("adapter") as folder, checkpoint.as_directory() as source:
        for file in Path(source, "adapter").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    return dict(metrics)


def watch(run: Run, board: Any, meter: Meter, stop: threading.Event) -> None:
    """Append the workers' figures to metrics.jsonl, note them for TensorBoard and show them, until told to stop."""
    from tensorboardX import SummaryWriter

    path = run.scratch / "train" / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    board_files = SummaryWriter(str(path.parent / "tensorboard"))
    ended = False
    while not ended:
        ended = stop.wait(POLL_S)
        rows = ray.get(board.take.remote())
        with path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        for row in rows:
            for name in SCALARS:
                if row.get(name) is not None:
                    board_files.add_scalar(name, row[name], row["step"])
        board_files.flush()
        if rows:
            last = rows[-1]
            meter.update(last["step"], f"loss {last['loss']:.3f}, {last['tokens_per_s']:.0f} tokens/s")
    board_files.close()


def draw(run: Run, metrics: Mapping[int, Row]) -> None:
    """The loss curves as train/loss.png."""
    training, validation = (
        [(step, row[name]) for step, row in metrics.items() if row.get(name) is not None] for name in ("loss", "val_loss")
    )
    (run.folder / "train" / "loss.png").write_bytes(pictures.losses(f"Loss of {run.name}", training, validation))


def read_metrics(run: Run) -> dict[int, Row]:
    """Figures by step; a step that was repeated after an interruption counts once, as it was last."""
    path = run.scratch / "train" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    # The last line of a killed driver may be half written.
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return dict(sorted({row["step"]: row for row in rows}.items()))
