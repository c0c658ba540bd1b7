"""Connect to Ray: the job's or a named cluster, or one started on this machine."""

import logging
import os

import ray
from ray.data import DataContext

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
    address = config.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, runtime_env={"env_vars": WORKER_ENV}, logging_level=logging.WARNING)
        else:
            ray.init(
                num_cpus=config.cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                runtime_env={"env_vars": WORKER_ENV},
                logging_level=logging.WARNING,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"the cluster at {address}" if address else "a local Ray"
        raise DeepredError(
            f"cannot connect to {where}: {error}",
            "Start one with `ray start --head`, or leave out --ray.address to run on this machine; `deepred doctor` checks it.",
        ) from error
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def disconnect() -> None:
    ray.shutdown()
