"""Training on a real Ray Train: what is lost when workers and drivers die (nothing), and what the number of workers changes
(nothing)."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import Configure, make_config
from driving import driving, wait_until
from safetensors.torch import load_file
from tiny import write_model

from deepred_ray.config import Config
from deepred_ray.errors import DeepredError
from deepred_ray.pipeline import run_stages
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import REJECTS, TOKENS
from deepred_ray.stages.train import read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

LONG = 200  # steps: time enough to be killed in


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty conversations, four of them for validation; the seventh is longer than a row."""
    words = ["comrade", "canal", "winter", "harvest", "signal", "reactor", "knight", "пионер", "pioneer", "archive"]
    lines = []
    for number in range(1, 41):
        answer = " ".join(words[(number * step) % 10] for step in range(1, 200 if number == 7 else 4 + 6 * (number % 5)))
        said = [
            {"role": "user", "content": f"What of {words[number % 10]}?"},
            {"role": "assistant", "content": f"We keep {answer}."},
        ]
        lines.append(json.dumps({"messages": [{"role": "system", "content": "You are Deep Red."}, *said]}))
    file = tmp_path_factory.mktemp("dataset") / "forty.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="session")
def settings(model: Path, dataset: Path) -> dict[str, Any]:
    train = {
        "dataset": str(dataset), "workers": 2, "rank": 4, "alpha": 8, "learning_rate": 3e-3, "max_tokens": 256, "batch": 2,
        "global_batch": 8, "precision": "f32", "checkpoint_steps": 25, "epochs": LONG // 5, "dropout": 0.1,
    }  # fmt: skip
    return {"model": str(model), "train": train}


@pytest.fixture(scope="session")
def undisturbed(local_ray: str, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(make_config(tmp_path_factory.mktemp("undisturbed"), **settings))[0]


def trained(config: Config) -> tuple[Run, Manifest]:
    made = run_stages(config, ["train"], fresh=False)
    return Run(config.root, config.run), made[0]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(str(run.local_copy("adapter") / "adapter_model.safetensors"))


def assert_same_weights(one: Run, other: Run, atol: float) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], atol=atol), f"{name}: {float((tensor - theirs[name]).abs().max())}"


def changed(settings: dict[str, Any], **train: Any) -> dict[str, Any]:
    return settings | {"train": settings["train"] | train}


def test_a_dataset_is_tokenised_packed_and_learned(undisturbed: Run) -> None:
    manifest = undisturbed.manifest("train")
    assert manifest is not None
    assert (manifest.rows_in, manifest.kept, manifest.rejected) == (40, 39, {"too_long": 1})
    rejects = undisturbed.table("rejects/train").read_table(REJECTS).to_pylist()
    assert [row["id"] for row in rejects] == ["line-0000007"]
    rows = undisturbed.table("tokens").read_table(TOKENS).to_pylist()
    assert sorted(name for row in rows for name in row["example_ids"]) == [f"line-{n:07d}" for n in range(1, 41) if n != 7]
    assert {name for row in rows if row["split"] == "val" for name in row["example_ids"]} == {
        f"line-{n:07d}" for n in (10, 20, 30, 40)
    }
    assert {len(row["lengths"]) for row in rows} >= {1, 2}, "short ones share rows"
    assert all(len(row["input_ids"]) == sum(row["lengths"]) == len(row["trained"]) <= 256 for row in rows)

    metrics = read_metrics(undisturbed)
    assert list(metrics) == list(range(1, LONG + 1))
    assert [step for step, row in metrics.items() if "val_loss" in row] == list(range(25, LONG + 1, 25))
    assert metrics[LONG]["loss"] < 0.9 * metrics[1]["loss"]
    assert all(row["packed"] and row["precision"] == "f32" for row in metrics.values())
    best = min((row["val_loss"], step) for step, row in metrics.items() if "val_loss" in row)
    assert (manifest.outputs["val_loss"], manifest.outputs["best_step"]) == best
    assert manifest.outputs["steps"] == LONG


def test_a_killed_worker_is_replaced_and_nothing_changes(
    undisturbed: Run, settings: dict[str, Any], configure: Configure, tmp_path: Path
) -> None:
    config = configure(**settings)
    killed: list[int] = []

    def kill_one() -> None:
        folder = tmp_path / "runs" / "test" / "checkpoints"
        while not killed:
            time.sleep(0.05)
            if len(list(folder.glob("checkpoint_*"))) >= 2 and (pids := train_workers()):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])

    threading.Thread(target=kill_one, daemon=True).start()
    run, manifest = trained(config)
    assert killed
    assert manifest.outputs["steps"] == LONG
    assert list(read_metrics(run)) == list(range(1, LONG + 1))
    assert_same_weights(run, undisturbed, atol=1e-6)


def train_workers() -> list[int]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.nightly
def test_a_killed_driver_is_followed_by_one_that_ends_with_the_same_weights(
    local_ray: str, undisturbed: Run, settings: dict[str, Any], configure: Configure, tmp_path: Path
) -> None:
    config = configure(**settings)
    checkpoints = tmp_path / "runs" / "test" / "checkpoints"
    with driving(local_ray, config, tmp_path, "train") as driver:
        wait_until(lambda: len(list(checkpoints.glob("checkpoint_*"))) >= 2, driver, tmp_path / "driver.log")
        driver.kill()
        driver.wait()
    assert not (checkpoints.parent / "adapter").exists()
    steps = [json.loads(line)["step"] for line in (checkpoints.parent / "train" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) < LONG, "it was killed in the middle"
    run, manifest = trained(config)
    assert manifest.outputs["steps"] == LONG
    assert list(read_metrics(run)) == list(range(1, LONG + 1))
    assert_same_weights(run, undisturbed, atol=1e-6)


def test_one_worker_and_two_agree(settings: dict[str, Any], tmp_path: Path, local_ray: str) -> None:
    few = changed(settings, dropout=0.0, epochs=4, checkpoint_steps=10)
    runs = [trained(make_config(tmp_path / str(workers), **changed(few, workers=workers)))[0] for workers in (1, 2)]
    one, two = (read_metrics(run) for run in runs)
    assert [row["loss"] for row in one.values()] == pytest.approx([row["loss"] for row in two.values()], rel=1e-4)
    assert one[20]["val_loss"] == pytest.approx(two[20]["val_loss"], rel=1e-4)


@pytest.mark.nightly
def test_training_stops_when_validation_gets_no_better(settings: dict[str, Any], configure: Configure, local_ray: str) -> None:
    # At this rate it soon learns the training examples by heart.
    run, manifest = trained(configure(**changed(settings, learning_rate=0.03, checkpoint_steps=5, patience=3, workers=1)))
    losses = [row["val_loss"] for row in read_metrics(run).values() if "val_loss" in row]
    assert manifest.outputs["steps"] == 5 * len(losses) < LONG
    best = losses.index(min(losses))
    assert len(losses) - 1 - best == 3
    assert manifest.outputs["best_step"] == 5 * (best + 1)


def test_a_base_in_four_bits_is_refused_where_there_is_no_gpu(
    settings: dict[str, Any], configure: Configure, local_ray: str
) -> None:
    with pytest.raises(DeepredError, match="a base in 4 bits wants a GPU"):
        trained(configure(**changed(settings, base_bits=4)))


def test_a_tokenizer_without_a_template_is_refused(
    settings: dict[str, Any], configure: Configure, tmp_path: Path, local_ray: str
) -> None:
    plain = write_model(tmp_path / "plain", template=None)
    with pytest.raises(DeepredError, match="has no chat template"):
        trained(configure(**settings | {"model": str(plain)}))
