"""The training loop of one worker: LoRA on a causal language model, the same order of rows for any number of workers."""

import contextlib
import logging
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepred_ray import logs, models
from deepred_ray.config import TrainConfig
from deepred_ray.errors import DeepredError
from deepred_ray.stages.batches import IGNORED, Batches, Packed, batch_number, collate, micro_batches

LINEAR_LAYERS = "all-linear"
PROBES = 8
PACKING_NATS = {"f32": 0.02, "bf16": 0.5}
"""How much a token's loss may differ, packed and alone: rounding does less, and another conversation in sight more."""


def learning_rate(step: int, steps: int, settings: TrainConfig) -> float:
    """Rate of optimizer step `step` (from 0) of `steps`: linear warm-up, then half a cosine down to zero
    (Loshchilov and Hutter 2017, without restarts)."""
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@dataclass
class Patience:
    """Whether validation has stopped getting better: after `patience` losses in a row that are not the best, or never if None."""

    patience: int | None
    best: float = math.inf
    waited: int = 0

    def see(self, loss: float | None) -> None:
        if loss is None:
            return
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(self.best, loss)

    @property
    def over(self) -> bool:
        return self.patience is not None and self.waited >= self.patience


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


# --- model


def load_base(model: str, precision: str, settings: TrainConfig, device: Any) -> Any:
    """The base on its device, ready for an adapter."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model = models.here(model)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if settings.base_bits is None:
        base = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, **models.weights()).to(device)
    else:
        from peft import prepare_model_for_kbit_training

        # NF4 with double quantization is QLoRA's (Dettmers et al. 2023).
        quantized = BitsAndBytesConfig(
            load_in_8bit=settings.base_bits == 8,
            load_in_4bit=settings.base_bits == 4,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        base = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, quantization_config=quantized, device_map={"": device}, **models.weights()
        )
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    if settings.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    return base


def add_adapter(base: Any, settings: TrainConfig) -> Any:
    """The base with a new adapter, which changes nothing yet; the same one in every worker."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=LINEAR_LAYERS,
    )
    return get_peft_model(base, lora)


def token_losses(model: Any, batch: dict[str, Any], device: Any) -> Any:
    """Cross entropy of each trained token, in nats, in the order of rows and places; shape (trained tokens,)."""
    import torch

    inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}
    # What stands before a trained token predicts it.
    labels = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED).to(device)
    wanted = labels != IGNORED
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = bare.get_output_embeddings()
    if head is None:
        logits = model(**inputs, use_cache=False).logits[wanted]
    else:
        with only_places(head, wanted):
            logits = model(**inputs, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), labels[wanted], reduction="none")


@contextlib.contextmanager
def only_places(head: Any, wanted: Any) -> Iterator[None]:
    """Within, the layer that makes logits, `head`, sees the hidden states of the wanted places alone, as one row: the vocabulary is
    the widest layer of a small model, and over half of the places are not trained."""
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][wanted][None], *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


def honours_packing(model: Any, rows: Iterable[Packed], precision: str, device: Any) -> bool:
    """Whether the model keeps conversations in one row apart: each token's loss is what it is with the conversation alone.

    Tried on the first row that has several; if none has, there is nothing to keep apart and False. A model whose layers carry a
    state along, or that takes no positions, does not.
    """
    import torch

    row = next((row for row in rows if len(row.lengths) > 1), None)
    if row is None:
        return False
    model.eval()
    with torch.no_grad():
        alone = torch.cat([token_losses(model, collate([one], packed=False), device) for one in row.apart()])
        try:
            together = token_losses(model, collate([row], packed=True), device)
        except (TypeError, ValueError):
            return False
    return bool((together - alone).abs().max() <= PACKING_NATS[precision])


# --- loop


def train_worker(job: dict[str, Any]) -> None:
    """Runs in every worker of Ray Train. Resumes from the latest checkpoint, if there is one.

    Raises:
        DeepredError: out of memory; the message says what to lower.
    """
    import torch

    settings = TrainConfig(**job["settings"])
    try:
        train(job, settings)
    except torch.OutOfMemoryError as error:
        raise DeepredError(f"a training worker is out of memory: {str(error).splitlines()[0]}", memory_advice(settings)) from error


def memory_advice(settings: TrainConfig) -> str:
    """What of these settings to change, what costs least first."""
    going_on = [] if settings.gradient_checkpointing else ["--train.gradient-checkpointing"]
    going_on += [f"a lower --train.batch than {settings.batch}"] if settings.batch > 1 else []
    afresh = [f"a lower --train.max-tokens than {settings.max_tokens}"]
    afresh += ["--train.base-bits 4 on a GPU"] if settings.base_bits is None else []
    first = f"Try {' or '.join(going_on)}: what is trained so far is kept. Or start" if going_on else "Start"
    return f"{first} afresh, with --fresh or another --run, with {', '.join(afresh)}, or a smaller model."


def train(job: dict[str, Any], settings: TrainConfig) -> None:
    import ray
    import ray.train
    import torch
    from peft import PeftModel
    from ray.train.torch import get_device

    from deepred_ray.stages.dropout import quicken

    logs.enter("train")
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = get_device()
    batches, held_out = Batches(job["tokens"], "train"), Batches(job["tokens"], "val")
    steps, places = settings.epochs * len(batches), settings.batch * settings.max_tokens

    logs.note("worker started", worker=rank, workers=world)
    base = load_base(job["model"], job["precision"], settings, device)
    done, state, patience = 0, None, Patience(settings.patience)
    told: list[dict[str, Any]] = []
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        model = add_adapter(base, settings)
    else:
        with checkpoint.as_directory() as folder:
            model = PeftModel.from_pretrained(base, str(Path(folder, "adapter")), is_trainable=True)
            state = torch.load(Path(folder, "state.pt"), map_location=device, weights_only=True)
        done, told = state["step"], state["told"]
        logs.note("training resumed", logging.WARNING, step=done, worker=rank)
        patience.best, patience.waited = state["best"], state["waited"]
    if device.type == "cpu":
        quicken(model)
    # Settled once: what is resumed goes on as it began.
    packed = state["packed"] if state else honours_packing(model, (r for b in batches for r in b), job["precision"], device)
    optimizer = make_optimizer(model, settings)
    if state:
        optimizer.load_state_dict(state["optimizer"])
    if rank == 0 and told:
        # The driver that noted them may have died before it wrote the last ones.
        ray.get(job["board"].add.remote(told))

    while done < steps and not patience.over:
        step, started = done, time.monotonic()
        rows = batches[batch_number(step, len(batches), settings.seed)]
        # Dropout is a function of the step, so that one that is resumed goes on as it would have.
        torch.manual_seed(1000 * (settings.seed + step) + rank)
        rate = learning_rate(step, steps, settings)
        loss = optimizer_step(model, optimizer, rate, rows, rank, world, places, packed, device)
        done = step + 1
        row = {
            "step": done,
            "epoch": round(done / len(batches), 3),
            "loss": loss,
            "lr": rate,
            "precision": job["precision"],
            "packed": packed,
            "tokens_per_s": sum(len(row.ids) for row in rows) / (time.monotonic() - started),
        }
        if done % settings.checkpoint_steps == 0 or done == steps:
            row["val_loss"] = validate(model, held_out, rank, world, places, packed, device)
            # Without validation the last checkpoint is the best: the loss of one batch says little.
            row["score"] = row["val_loss"] if row["val_loss"] is not None else -float(done)
            patience.see(row["val_loss"])
        require_finite(row)
        told.append(row)
        if rank == 0:
            job["board"].add.remote([row])
        if "score" in row:
            kept = {"step": done, "optimizer": optimizer.state_dict(), "packed": packed, "told": told}
            report(row, model, kept | {"best": patience.best, "waited": patience.waited}, rank)


def require_finite(row: dict[str, Any]) -> None:
    """Raises DeepredError if a loss is none any more: nothing good follows, and no such checkpoint is kept."""
    for name in ("loss", "val_loss"):
        if not math.isfinite(row.get(name) or 0.0):
            raise DeepredError(
                f"training has diverged: {name} is {row[name]} at step {row['step']}",
                "Start afresh, with --fresh or another --run, with a lower --train.learning-rate.",
            )


def trainable(model: Any) -> list[Any]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def make_optimizer(model: Any, settings: TrainConfig) -> Any:
    import torch

    return torch.optim.AdamW(trainable(model), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def optimizer_step(
    model: Any,
    optimizer: Any,
    rate: float,
    rows: Sequence[Packed],
    rank: int,
    world: int,
    places: int,
    packed: bool,
    device: Any,
) -> float:
    """Learn from one global batch at this rate; its mean loss, in nats a trained token, before that."""
    import torch

    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = gradients(model, rows, rank, world, places, packed, device)
    torch.nn.utils.clip_grad_norm_(trainable(model), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def gradients(model: Any, rows: Sequence[Packed], rank: int, world: int, places: int, packed: bool, device: Any) -> float:
    """Leave in every worker the gradient of the mean loss over the trained tokens of the global batch, which is returned."""
    import torch

    everywhere = sum(row.trained_tokens for row in rows)
    model.train()
    total = torch.zeros((), device=device)
    for batch in micro_batches(rows[rank::world], places, packed):
        loss = token_losses(model, batch, device).sum() / everywhere
        loss.backward()
        total += loss.detach()
    if world > 1:
        # An adapter's gradients are small: one exchange a step, after all micro-batches, and no wrapper around the model.
        parameters = trainable(model)
        for parameter in parameters:
            if parameter.grad is None:  # a worker without a row of its own
                parameter.grad = torch.zeros_like(parameter)
        flat = summed(torch.cat([parameter.grad.flatten() for parameter in parameters]))
        for parameter, part in zip(parameters, flat.split([parameter.numel() for parameter in parameters]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))
    return float(summed(total))


def summed(value: Any) -> Any:
    """The sum over all workers."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def validate(model: Any, batches: Batches, rank: int, world: int, places: int, packed: bool, device: Any) -> float | None:
    """Mean loss over the trained tokens of the held-out rows, in nats a token; None if there are none."""
    import torch

    if not len(batches):
        return None
    model.eval()
    total, tokens = torch.zeros((), device=device), 0
    with torch.no_grad():
        for rows in batches:
            tokens += sum(row.trained_tokens for row in rows)
            for batch in micro_batches(rows[rank::world], places, packed):
                total += token_losses(model, batch, device).sum()
    return float(summed(total)) / tokens


def report(row: dict[str, Any], model: Any, state: dict[str, Any], rank: int) -> None:
    """Tell Ray Train; the first worker brings the checkpoint."""
    import ray.train
    import torch

    if rank != 0:
        ray.train.report(row)
        return
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder, "adapter"))
        torch.save(state, Path(folder, "state.pt"))
        ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(folder))
