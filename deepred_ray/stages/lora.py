"""The training loop of one worker: LoRA on a causal language model, the same order of rows for any number of workers."""

import contextlib
import json
import math
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepred_ray.config import TrainConfig
from deepred_ray.schema import TOKENS
from deepred_ray.storage import Folder

LINEAR_LAYERS = "all-linear"
IGNORED = -100  # what torch's cross entropy leaves out
PROBES = 8


def learning_rate(step: int, steps: int, settings: TrainConfig) -> float:
    """Rate of optimizer step `step` (from 0) of `steps`: linear warm-up, then half a cosine down to zero
    (Loshchilov and Hutter 2017, without restarts)."""
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def batch_rows(step: int, rows: int, settings: TrainConfig) -> list[int]:
    """Row numbers of the global batch of a step: a function of seed and step alone, whatever the workers."""
    per_epoch = math.ceil(rows / settings.global_batch)
    epoch, place = divmod(step, per_epoch)
    order = list(range(rows))
    random.Random(f"{settings.seed}/{epoch}").shuffle(order)
    return order[place * settings.global_batch : (place + 1) * settings.global_batch]


def fastest_precision(device: str) -> str:
    """`bf16` or `f32`, whichever this hardware computes faster.

    On a CPU it is measured, with one layer forth and back: some have bf16 instructions and are yet slower with them.
    """
    import torch

    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "f32"

    def seconds(dtype: torch.dtype) -> float:
        inputs = torch.randn(512, 576, dtype=dtype, requires_grad=True)
        weights, gradient = torch.randn(1536, 576, dtype=dtype), torch.randn(512, 1536, dtype=dtype)
        best = math.inf
        for _ in range(PROBES):
            started = time.perf_counter()
            torch.nn.functional.linear(inputs, weights).backward(gradient)
            best = min(best, time.perf_counter() - started)
        return best

    return "bf16" if seconds(torch.bfloat16) < seconds(torch.float32) else "f32"


class Rows:
    """Token rows of one split, in memory."""

    def __init__(self, tokens: Folder, split: str) -> None:
        table = tokens.read_table(TOKENS, ["split", "input_ids", "trained"])
        rows = [row for row in table.to_pylist() if row["split"] == split]
        self.ids = [np.array(row["input_ids"], dtype=np.int64) for row in rows]
        self.trained = [np.array(row["trained"], dtype=bool) for row in rows]

    def __len__(self) -> int:
        return len(self.ids)

    def trained_tokens(self, rows: Sequence[int]) -> int:
        # The first token has nothing before it that could predict it.
        return int(sum(self.trained[row][1:].sum() for row in rows))

    def micro_batches(self, rows: Sequence[int], size: int, pad: int) -> Iterator[dict[str, Any]]:
        """Padded batches of at most `size` rows: input_ids, attention_mask and labels, each (rows, longest)."""
        import torch

        # Rows of like length together: less padding, and a sum does not mind the order.
        ordered = sorted(rows, key=lambda row: len(self.ids[row]))
        for start in range(0, len(ordered), size):
            chosen = ordered[start : start + size]
            longest = max(len(self.ids[row]) for row in chosen)
            ids = np.full((len(chosen), longest), pad)
            mask = np.zeros((len(chosen), longest), dtype=np.int64)
            labels = np.full((len(chosen), longest), IGNORED)
            for place, row in enumerate(chosen):
                length = len(self.ids[row])
                ids[place, :length] = self.ids[row]
                mask[place, :length] = 1
                labels[place, :length] = np.where(self.trained[row], self.ids[row], IGNORED)
            yield {
                "input_ids": torch.from_numpy(ids),
                "attention_mask": torch.from_numpy(mask),
                "labels": torch.from_numpy(labels),
            }


def loss_sum(model: Any, batch: dict[str, Any], device: Any) -> Any:
    """Summed cross entropy over the trained tokens, in nats."""
    import torch

    labels = batch["labels"][:, 1:].to(device)
    # Only where some row is trained are logits needed; the vocabulary is the widest layer of a small model.
    wanted = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
    inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
    logits = model(**inputs, use_cache=False, logits_to_keep=wanted).logits
    chosen = labels[:, wanted]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), chosen.flatten(), ignore_index=IGNORED, reduction="sum")


def train_worker(job: dict[str, Any]) -> None:
    """Runs in every worker of Ray Train. Resumes from the latest checkpoint, if there is one."""
    import ray.train
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from ray.train.torch import get_device, prepare_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = TrainConfig(**job["settings"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = get_device()
    torch.manual_seed(settings.seed + rank)
    rows, held_out = Rows(job["tokens"], "train"), Rows(job["tokens"], "val")
    steps = settings.epochs * math.ceil(len(rows) / settings.global_batch)

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    base = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.bfloat16 if job["precision"] == "bf16" else torch.float32)
    if settings.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    first, state = 0, None
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=LINEAR_LAYERS,
        )
        torch.manual_seed(settings.seed)  # every worker starts with the same adapter
        model = get_peft_model(base, lora)
    else:
        with checkpoint.as_directory() as folder:
            model = PeftModel.from_pretrained(base, str(Path(folder, "adapter")), is_trainable=True)
            state = torch.load(Path(folder, "state.pt"), map_location=device, weights_only=True)
        first = state["step"]
    torch.manual_seed(settings.seed + 1000 * first + rank)
    model = prepare_model(model)
    bare = model.module if hasattr(model, "module") else model
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    if state:
        optimizer.load_state_dict(state["optimizer"])

    for step in range(first, steps):
        started = time.monotonic()
        chosen = batch_rows(step, len(rows), settings)
        everywhere = rows.trained_tokens(chosen)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, settings)
        model.train()
        # A worker without a row of its own still takes part in the exchange of gradients, with no weight.
        mine = chosen[rank::world]
        batches = list(rows.micro_batches(mine or chosen[:1], settings.batch, pad))
        total = torch.zeros((), device=device)
        for number, batch in enumerate(batches, 1):
            last = number == len(batches)
            with contextlib.nullcontext() if last or bare is model else model.no_sync():
                # The exchange averages over workers; times `world`, the gradient is that of the mean over all tokens.
                loss = loss_sum(model, batch, device) * (world / everywhere if mine else 0.0)
                loss.backward()
            total += loss.detach() / world
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total = summed(total)
        done = step + 1
        row = {
            "step": done,
            "epoch": round(done * settings.epochs / steps, 3),
            "loss": float(total),
            "lr": optimizer.param_groups[0]["lr"],
            "precision": job["precision"],
            "tokens_per_s": sum(len(rows.ids[i]) for i in chosen) / (time.monotonic() - started),
        }
        if done % settings.checkpoint_steps == 0 or done == steps:
            row["val_loss"] = validate(model, held_out, settings, rank, world, pad, device)
            row["score"] = row["val_loss"] if row["val_loss"] is not None else row["loss"]
            report(row, bare, optimizer, rank)
        if rank == 0:
            job["board"].add.remote(row)


def summed(value: Any) -> Any:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def validate(model: Any, rows: Rows, settings: TrainConfig, rank: int, world: int, pad: int, device: Any) -> float | None:
    """Mean loss over the trained tokens of the held-out rows, in nats a token; None if there are none."""
    import torch

    if not len(rows):
        return None
    model.eval()
    total = torch.zeros((), device=device)
    bare = model.module if hasattr(model, "module") else model
    with torch.no_grad():
        for batch in rows.micro_batches(range(len(rows))[rank::world], settings.batch, pad):
            total += loss_sum(bare, batch, device)
    return float(summed(total)) / rows.trained_tokens(range(len(rows)))


def report(row: dict[str, Any], model: Any, optimizer: Any, rank: int) -> None:
    """Tell Ray Train; the first worker brings the checkpoint."""
    import ray.train
    import torch

    if rank != 0:
        ray.train.report(row)
        return
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder, "adapter"))
        torch.save({"step": row["step"], "optimizer": optimizer.state_dict()}, Path(folder, "state.pt"))
        Path(folder, "row.json").write_text(json.dumps(row))
        ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(folder))
