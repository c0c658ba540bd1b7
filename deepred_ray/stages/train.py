"""train: a LoRA adapter for the model, by Ray Train over any number of workers.

INPUT   tokens/, which is made first (stages/tokens.py)
OUTPUT  checkpoints/, train/ (metrics.jsonl, loss.png, tensorboard/), adapter/ (the best checkpoint)
fan-out one adapter
"""

import contextlib
import importlib.util
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import ray

from deepred_ray import metrics, models, placement
from deepred_ray.cluster import visibility
from deepred_ray.config import Config, TrainConfig
from deepred_ray.console import Meter, say
from deepred_ray.errors import DeepredError, InputError
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import REJECTS, TOKENS
from deepred_ray.stages import pictures, tokens
from deepred_ray.stages.batches import Batches
from deepred_ray.stages.lora import fastest_precision, memory_advice, train_worker
from deepred_ray.stages.tables import Row
from deepred_ray.storage import count_values
from deepred_ray.theme import Theme

POLL_S = 1.0
REMOTE_POLL_S = 10.0
"""Where the data root is a URI, and the whole of metrics.jsonl is written each time."""
OUT_OF_MEMORY = re.compile(r"\b(CUDA |HIP )?out of memory\b|can't allocate memory|running low on memory", re.IGNORECASE)
SHOWN = {"step": "step", "loss": "loss", "val_loss": "val_loss", "tokens_per_second": "tokens_per_s"}  # metric: figure
SCALARS = ("loss", "val_loss", "lr", "tokens_per_s")


def run(run: Run, config: Config, theme: Theme) -> Manifest:
    """Tokenise, train, and keep the adapter of the checkpoint with the least validation loss.

    Raises:
        InputError: no example, or a dataset that is not ChatML.
        DeepredError: training failed for good.
    """
    settings = config.train
    model = models.resolve(config.model)
    require_bits(settings.base_bits)
    if not run.table("tokens").files(".parquet"):
        tokens.run(run, settings, model, theme)
    rows = run.table("tokens").read_table(TOKENS, ["split", "lengths", "trained"])
    examples = {
        split: int(pc.sum(pc.list_value_length(rows.filter(pc.equal(rows["split"], split))["lengths"])).as_py() or 0)
        for split in ("train", "val")
    }
    rejected = count_values(run.table("rejects/train").read_table(REJECTS)["reason"])
    if not examples["train"]:
        raise InputError(f"train has no example to train on ({rejected or 'the dataset is empty'})")
    if settings.patience is not None and not examples["val"]:
        raise InputError("train.patience goes by the validation loss, and no example is held out", "Leave out --train.patience.")
    steps = settings.epochs * len(Batches(run.table("tokens"), "train"))
    say(f"  {examples['train']} examples, {examples['val']} for validation, {steps} steps on {settings.workers} worker(s)")
    best = fit(run, settings, model, steps)
    metrics = read_metrics(run)
    draw(run, metrics)
    last = metrics[max(metrics)]
    if settings.patience is not None and last["step"] < steps:
        say(f"  stopped early after step {last['step']}: no lower validation loss for {settings.patience} validations")
    kept = sum(examples.values())
    return Manifest(
        "train",
        "examples",
        kept + sum(rejected.values()),
        kept,
        rejected,
        0.0,
        outputs={
            "base": model,
            "steps": last["step"],
            "packed": last["packed"],
            "trained_tokens": int(pc.sum(pc.list_flatten(rows["trained"])).as_py()),
            "first_loss": metrics[min(metrics)]["loss"],
            "last_loss": last["loss"],
            "val_loss": best.get("val_loss"),
            "best_step": best.get("step"),
        },
    )


def require_bits(bits: int | None) -> None:
    """Raises DeepredError if the base is wanted in 4 or 8 bits where that cannot be."""
    if bits is None:
        return
    if not placement.has_accelerators():
        raise DeepredError(
            f"a base in {bits} bits wants a GPU, and the cluster has none", "Leave out --train.base-bits, or train on a GPU."
        )
    if not ray.get(ray.remote(num_gpus=1, num_cpus=0)(has_bitsandbytes).remote()):
        raise DeepredError(f"a base in {bits} bits wants bitsandbytes, which is not installed", "pip install bitsandbytes")


def has_bitsandbytes() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None


class Scoreboard:
    """Where the first worker leaves its figures and the driver finds them, whichever nodes they run on."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, rows: list[Row]) -> None:
        self.rows += rows

    def take(self) -> list[Row]:
        rows, self.rows = self.rows, []
        return rows


def fit(run: Run, settings: TrainConfig, model: str, steps: int) -> dict[str, Any]:
    """Train to the last step from whatever checkpoint there is; the figures of the best one, whose adapter is kept.

    Raises:
        DeepredError: a worker failed for the third time, or the controller; with what it said last.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from deepred_ray.stages.backend import LoopbackTorch

    board: Any = ray.remote(num_cpus=0)(Scoreboard).remote()
    unit = placement.bundle(settings.resources, 1)
    gpu = "GPU" in unit
    precision = settings.precision if settings.precision != "auto" else chosen_precision(run, settings, gpu)
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
        torch_config=LoopbackTorch(),
        scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=gpu, resources_per_worker=unit),
        run_config=RunConfig(
            name="checkpoints",
            storage_path=run.folder.path,
            storage_filesystem=run.folder.filesystem,
            failure_config=FailureConfig(max_failures=2),
            checkpoint_config=CheckpointConfig(num_to_keep=2, checkpoint_score_attribute="score", checkpoint_score_order="min"),
            worker_runtime_env={"env_vars": visibility()},
        ),
    )
    stop, noted = threading.Event(), read_metrics(run)
    with Meter("train", steps, "steps") as meter:
        watcher = threading.Thread(target=watch, args=(run, noted, board, meter, stop), daemon=True)
        watcher.start()
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            raise explained(error, settings) from error
        finally:
            stop.set()
            watcher.join()
            write_metrics(run, noted)
    if not run.folder.local:
        run.upload("train/tensorboard")
    if not result.best_checkpoints:
        raise DeepredError("training ended without a checkpoint", "The log of the run has the cause.")
    checkpoint, metrics = min(result.best_checkpoints, key=lambda pair: (pair[1]["score"], -pair[1]["step"]))
    with run.artefact("adapter") as folder, checkpoint.as_directory() as source:
        for file in Path(source, "adapter").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    return dict(metrics)


def chosen_precision(run: Run, settings: TrainConfig, gpu: bool) -> str:
    """The faster precision of this hardware; of a run that goes on, the one that it began with. Every worker must compute alike."""
    if earlier := read_metrics(run):
        return str(earlier[min(earlier)]["precision"])
    task = ray.remote(fastest_precision).options(**placement.options(settings.resources, 1))
    return str(ray.get(task.remote("cuda" if gpu else "cpu")))


def explained(error: Exception, settings: TrainConfig) -> DeepredError:
    """What stopped the training, as one message with a way out."""
    failures = getattr(error, "worker_failures", None) or {0: getattr(error, "controller_failure", error)}
    # Ray Train wraps what our loop raised. One worker's failure makes the others lose their connection to it.
    causes = [getattr(failure, "_base_exc", failure) for _, failure in sorted(failures.items())]
    if ours := next((cause for cause in causes if isinstance(cause, DeepredError)), None):
        return ours
    if full := next((cause for cause in causes if OUT_OF_MEMORY.search(str(cause))), None):
        return DeepredError(f"a training worker is out of memory: {last_line(full)}", memory_advice(settings))
    return DeepredError(
        f"training failed: {last_line(causes[0])}",
        "The log of the run has the rest. The same command goes on from the last checkpoint.",
    )


def last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def watch(run: Run, noted: dict[int, Row], board: Any, meter: Meter, stop: threading.Event) -> None:
    """Add the workers' figures to `noted` and metrics.jsonl, tell TensorBoard and show them, until told to stop."""
    from tensorboardX import SummaryWriter

    board_files = SummaryWriter(str(run.scratch / "train" / "tensorboard"))
    ended = False
    while not ended:
        ended = stop.wait(POLL_S if run.folder.local else REMOTE_POLL_S)
        # A worker that resumes tells again what its checkpoint was told before.
        rows = [row for row in ray.get(board.take.remote()) if noted.get(row["step"]) != row]
        for row in rows:
            noted[row["step"]] = row
            for name, figure in SHOWN.items():
                if row.get(figure) is not None:
                    metrics.show(f"deepred_train_{name}", row[figure])
            for name in SCALARS:
                if row.get(name) is not None:
                    board_files.add_scalar(name, row[name], row["step"])
        board_files.flush()
        if rows:
            # The next time may do, and the end must.
            with contextlib.suppress(DeepredError):
                write_metrics(run, noted)
            last = rows[-1]
            meter.update(last["step"], f"loss {last['loss']:.3f}, {last['tokens_per_s']:.0f} tokens/s")
    board_files.close()


def draw(run: Run, metrics: Mapping[int, Row]) -> None:
    """The loss curves as train/loss.png."""
    training, validation = (
        [(step, row[name]) for step, row in metrics.items() if row.get(name) is not None] for name in ("loss", "val_loss")
    )
    (run.folder / "train" / "loss.png").write_bytes(pictures.losses(f"Loss of {run.name}", training, validation))


def write_metrics(run: Run, noted: Mapping[int, Row]) -> None:
    """Write train/metrics.jsonl anew: a line a step."""
    (run.folder / "train" / "metrics.jsonl").write_bytes("".join(json.dumps(row) + "\n" for row in noted.values()).encode())


def read_metrics(run: Run) -> dict[int, Row]:
    """Figures by step; a step that was repeated after an interruption counts once, as it was last."""
    file = run.folder / "train" / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_bytes().decode().splitlines()] if file.exists() else []
    return dict(sorted({row["step"]: row for row in rows}.items()))
