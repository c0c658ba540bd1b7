"""Trained tokens per second: our loop against transformers' Trainer on the same conversations, side by side in one run.

    python benchmarks/training_speed.py runs/demo/dataset/theme_dataset.jsonl --rounds 3

Three arms, each an epoch a round, in turn: ours (packed rows, logits of the trained places alone), a Trainer that pads each batch
to its longest conversation, and one that also groups conversations of like length. All have the same model, LoRA, mask, threads,
precision, gradient checkpointing, batch and accumulation. A trained token is one of the assistant's words or the end of its turn.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepred_ray import models
from deepred_ray.config import TrainConfig
from deepred_ray.schema import TOKENIZED
from deepred_ray.stages import lora, tokens
from deepred_ray.stages.batches import IGNORED, Batches, batch_number, micro_batches
from deepred_ray.storage import Folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="ChatML .jsonl, such as a run's dataset/theme_dataset.jsonl")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["f32", "bf16"], help="default: the faster one here, which is measured")
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--no-checkpointing", action="store_true", help="without gradient checkpointing, in all arms")
    words = parser.parse_args()

    import torch

    torch.set_num_threads(words.threads)
    settings = TrainConfig(
        max_tokens=words.max_tokens, dropout=words.dropout, gradient_checkpointing=not words.no_checkpointing, epochs=1
    )
    precision = words.precision or lora.fastest_precision("cpu")
    model = models.resolve(words.model)
    with tempfile.TemporaryDirectory() as folder:
        made = tokenized(words.dataset, model, settings)
        batches = arranged(Folder.open(folder), made, settings)
        rows = made.select(["input_ids", "trained"]).to_pylist()
        trained = sum(sum(row["trained"]) for row in rows)
        arms: dict[str, Callable[[], Epoch]] = {
            "ours": lambda: our_epoch(model, precision, settings, batches),
            "trainer": lambda: trainer_epoch(model, precision, settings, rows, Path(folder), grouped=False),
            "grouped trainer": lambda: trainer_epoch(model, precision, settings, rows, Path(folder), grouped=True),
        }
        found: dict[str, list[Epoch]] = {name: [] for name in arms}
        for _ in range(words.rounds):
            for name, epoch in arms.items():
                found[name].append(epoch())
    rates = {name: statistics.median(trained / seconds for seconds, _, _ in epochs) for name, epochs in found.items()}
    print(
        json.dumps(
            {
                "examples": len(rows),
                "trained_tokens": trained,
                "trained_share": round(trained / sum(len(row["input_ids"]) for row in rows), 3),
                "precision": precision,
                "threads": words.threads,
                "checkpointing": settings.gradient_checkpointing,
                "trained_tokens_per_s": {name: round(rate, 1) for name, rate in rates.items()},
                "ours_to": {name: round(rates["ours"] / rate, 2) for name, rate in rates.items()},
                "padding_share": {name: round(epochs[0][1], 3) for name, epochs in found.items()},
                "mean_loss": {name: round(epochs[0][2], 4) for name, epochs in found.items()},
            },
            indent=2,
        )
    )


Epoch = tuple[float, float, float]
"""Seconds, share of all places that are padding, and mean loss of the epoch in nats a trained token."""


def tokenized(dataset: Path, model: str, settings: TrainConfig) -> pa.Table:
    """All conversations of the file, none held out; raises SystemExit if one is rejected, since the arms would differ."""
    table = pa.Table.from_pylist([row | {"split": "train"} for row in tokens.read_chatml(dataset)])
    made = tokens.Tokenizer(model, settings.max_tokens)(table)
    if rejected := made.num_rows - made["reason"].null_count:
        raise SystemExit(f"{rejected} conversations do not fit {settings.max_tokens} tokens: raise --max-tokens")
    return made.select(TOKENIZED.names)


def arranged(folder: Folder, made: pa.Table, settings: TrainConfig) -> Batches:
    (folder / "draft").write_table(made, "tokenized")
    tokens.arrange(folder / "draft", folder / "tokens", settings)
    return Batches(folder / "tokens", "train")


def our_epoch(model: str, precision: str, settings: TrainConfig, batches: Batches) -> Epoch:
    from deepred_ray.stages.dropout import quicken

    tuned = lora.add_adapter(lora.load_base(model, precision, settings, "cpu"), settings)
    quicken(tuned)
    optimizer = lora.make_optimizer(tuned, settings)
    losses, places, filled = 0.0, 0, 0
    room = settings.batch * settings.max_tokens
    started = time.perf_counter()
    for step in range(len(batches)):
        rows = batches[batch_number(step, len(batches), settings.seed)]
        rate = lora.learning_rate(step, len(batches), settings)
        loss = lora.optimizer_step(tuned, optimizer, rate, rows, 0, 1, room, packed=True, device="cpu")
        losses += loss * sum(row.trained_tokens for row in rows)
        filled += sum(len(row.ids) for row in rows)
        places += sum(batch["input_ids"].numel() for batch in micro_batches(rows, room, packed=True))
    seconds = time.perf_counter() - started
    return seconds, 1 - filled / places, losses / sum(row.trained_tokens for batch in batches for row in batch)


def trainer_epoch(
    model: str, precision: str, settings: TrainConfig, rows: Sequence[dict[str, Any]], folder: Path, grouped: bool
) -> Epoch:
    from torch.utils.data import Dataset
    from transformers import Trainer, TrainingArguments

    class Conversations(Dataset[dict[str, list[int]]]):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, number: int) -> dict[str, list[int]]:
            ids, trained = rows[number]["input_ids"], rows[number]["trained"]
            return {"input_ids": ids, "labels": [token if wanted else IGNORED for token, wanted in zip(ids, trained, strict=True)]}

    places = filled = 0

    def padded(batch: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        import torch

        nonlocal places, filled
        longest = max(len(row["input_ids"]) for row in batch)
        places += longest * len(batch)
        filled += sum(len(row["input_ids"]) for row in batch)
        fill = {"input_ids": 0, "labels": IGNORED}
        tensors = {
            name: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in batch]) for name, value in fill.items()
        }
        mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in batch])
        return tensors | {"attention_mask": mask}

    plain = settings.model_copy(update={"gradient_checkpointing": False})  # the Trainer turns it on itself
    base = lora.load_base(model, precision, plain, "cpu")
    if settings.gradient_checkpointing:
        base.enable_input_require_grads()
    trainer = Trainer(
        model=lora.add_adapter(base, settings),
        args=TrainingArguments(
            output_dir=str(folder / "trainer"),
            use_cpu=True,
            num_train_epochs=1,
            per_device_train_batch_size=settings.batch,
            gradient_accumulation_steps=settings.global_batch // settings.batch,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=settings.warmup,  # under 1 it is a share
            weight_decay=settings.weight_decay,
            max_grad_norm=1.0,
            gradient_checkpointing=settings.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            train_sampling_strategy="group_by_length" if grouped else "random",
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=settings.seed,
        ),
        train_dataset=Conversations(),
        data_collator=padded,
    )
    started = time.perf_counter()
    result = trainer.train()
    return time.perf_counter() - started, 1 - filled / places, float(result.training_loss)


if __name__ == "__main__":
    main()
