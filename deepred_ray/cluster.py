"""Connect to Ray: the job's or a named cluster, or one started on this machine."""

import contextlib
import logging
import os
from collections.abc import MutableMapping

import ray
from ray.data import DataContext

from deepred_ray import logs, loopback, models
from deepred_ray.config import RayConfig
from deepred_ray.errors import DeepredError

# Vendors' libraries phone home or draw bars unless told not to; a worker inherits these.
WORKER_ENV = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
OBJECT_STORE_BYTES = 512 * 2**20


def connect(config: RayConfig) -> None:
    """Raises DeepredError if the cluster does not answer or Ray cannot start here."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    one_selection(os.environ)
    address = config.address or os.environ.get("RAY_ADDRESS")
    runtime_env = {"env_vars": WORKER_ENV | logs.worker_env() | models.worker_env()}
    here = not address or loopback.is_loopback(address.rpartition(":")[0])
    try:
        with loopback.local_ray() if here else contextlib.nullcontext():
            if address:
                ray.init(address=address, runtime_env=runtime_env, logging_level=logging.WARNING)
            else:
                ray.init(
                    address="local",  # else one that `ray start` left on this machine is taken
                    num_cpus=config.cpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    runtime_env={"env_vars": runtime_env["env_vars"] | loopback.ENVIRONMENT},
                    logging_level=logging.WARNING,
                )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"the cluster at {address}" if address else "a local Ray"
        raise DeepredError(
            f"cannot connect to {where}: {error}",
            "Start one with `ray start --head`, or leave out --ray.address to run on this machine; `deepred doctor` checks it. "
            "A cluster that asks for a token wants RAY_AUTH_MODE=token in the environment.",
        ) from error
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def one_selection(environment: MutableMapping[str, str]) -> None:
    """Say by HIP_VISIBLE_DEVICES what only ROCR_VISIBLE_DEVICES says, as in some ROCm images; Ray does not start with that."""
    if "ROCR_VISIBLE_DEVICES" in environment and "HIP_VISIBLE_DEVICES" not in environment:
        environment["HIP_VISIBLE_DEVICES"] = environment.pop("ROCR_VISIBLE_DEVICES")


def visibility() -> dict[str, str]:
    """Environment for training workers, and for nothing else, so that each sees its GPU.

    On AMD, Ray Train gives the workers of a node one common CUDA_VISIBLE_DEVICES, while Ray gives each a HIP_VISIBLE_DEVICES of its
    own, and torch obeys both: the second worker of a node would find no device. With this Ray leaves HIP_VISIBLE_DEVICES alone.
    """
    import torch

    return {"RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES": "1"} if torch.version.hip else {}


def disconnect() -> None:
    ray.shutdown()
