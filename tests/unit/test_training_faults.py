"""What is said when training fails, and where its workers find their GPUs."""

import pickle

import pytest
import torch
from ray.train import TrainingFailedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from deepred_ray.cluster import one_selection, visibility
from deepred_ray.config import TrainConfig
from deepred_ray.errors import DeepredError
from deepred_ray.stages.train import explained

SETTINGS = TrainConfig(gradient_checkpointing=False)


def failed(*errors: Exception) -> TrainingFailedError:
    return pickle.loads(pickle.dumps(WorkerGroupError("workers failed", dict(enumerate(errors)))))


def test_our_own_message_comes_through() -> None:
    told = explained(failed(DeepredError("no such row", "Look there.")), SETTINGS)
    assert (told.message, told.cure) == ("no such row", "Look there.")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        RuntimeError("Task was killed due to the node running low on memory.\nSee the log."),
    ],
)
def test_out_of_memory_gets_advice(error: Exception) -> None:
    told = explained(failed(error), SETTINGS)
    assert "out of memory" in told.message
    assert "--train.gradient-checkpointing" in told.cure
    assert "--train.batch" in told.cure


def test_the_failure_that_explains_the_others_is_told() -> None:
    lost, full = RuntimeError("Connection closed by peer"), torch.OutOfMemoryError("CUDA out of memory.")
    assert explained(failed(lost, DeepredError("no such row")), SETTINGS).message == "no such row"
    assert explained(failed(lost, full), SETTINGS).message == "a training worker is out of memory: CUDA out of memory."


@pytest.mark.parametrize(
    "said",
    [
        "BloomForCausalLM has no room in /home/me/room",
        "The worker died. Common causes: (1) it was killed by the OOM killer, (2) SIGSEGV",
    ],
)
def test_not_every_death_is_for_want_of_memory(said: str) -> None:
    assert explained(failed(RuntimeError(said)), SETTINGS).message == f"training failed: {said}"


def test_what_the_controller_said_is_told() -> None:
    assert explained(ControllerError(ValueError("no such node")), SETTINGS).message == "training failed: no such node"


def test_what_a_worker_said_last_is_told() -> None:
    told = explained(failed(ValueError("a\nthe cause")), SETTINGS)
    assert told.message == "training failed: the cause"
    assert "goes on from the last checkpoint" in told.cure


def test_only_on_amd_is_visibility_left_to_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    assert visibility() == {}
    monkeypatch.setattr(torch.version, "hip", "7.2")
    assert visibility() == {"RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES": "1"}


def test_a_selection_of_gpus_for_the_driver_becomes_one_that_ray_takes() -> None:
    # Ray refuses to start where ROCR_VISIBLE_DEVICES is set alone.
    environment = {"ROCR_VISIBLE_DEVICES": "1,3", "PATH": "/bin"}
    one_selection(environment)
    assert environment == {"HIP_VISIBLE_DEVICES": "1,3", "PATH": "/bin"}
    both = {"ROCR_VISIBLE_DEVICES": "1,3", "HIP_VISIBLE_DEVICES": "0"}
    one_selection(both)
    assert both == {"ROCR_VISIBLE_DEVICES": "1,3", "HIP_VISIBLE_DEVICES": "0"}
    none = {"PATH": "/bin"}
    one_selection(none)
    assert none == {"PATH": "/bin"}
