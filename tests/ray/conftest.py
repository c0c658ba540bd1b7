"""One local Ray for all tests of this folder, and a run of the sample books that each test copies."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
import ray
import scripted

from deepred_ray import cluster
from deepred_ray.config import Config, RayConfig
from deepred_ray.pipeline import run_stages
from deepred_ray.runs import Run

SAMPLE_IDS = tuple(range(900001, 900009))
# Of the object store that some tests keep their runs in; none of it may be found in anything that a run writes.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "SENTINELKEYID1968", "AWS_SECRET_ACCESS_KEY": "sentinel-secret-of-the-canals"}
LOOSE: dict[str, Any] = {"min_matches": 3}  # the sample books are few and small
Configure = Callable[..., Config]


@pytest.fixture(scope="session")
def local_ray() -> Iterator[str]:
    """Address of a Ray of two CPUs, connected to as the pipeline does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr(cluster, "OBJECT_STORE_BYTES", 200 * 2**20)
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        cluster.connect(RayConfig(cpus=2))
    ray.cloudpickle.register_pickle_by_value(scripted)  # workers do not have pytest's import path
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # else a failed test prints its executors' whole life
    yield ray.get_runtime_context().gcs_address
    cluster.disconnect()


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    return lambda **sections: make_config(tmp_path / "runs", **sections)


def make_config(root: Path, **sections: Any) -> Config:
    """A configuration of a run `test` under `root`; by default of the sample books."""
    acquire = {"mirror": "sample", "ids": SAMPLE_IDS, "delay": 0.0, "retries": 4} | sections.pop("acquire", {})
    corpus = LOOSE | sections.pop("corpus", {})
    return Config.model_validate({"run": "test", "data_root": str(root), "acquire": acquire, "corpus": corpus} | sections)


@pytest.fixture(scope="session")
def sample_root(local_ray: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose run `test` has the books and chunks of the sample books. To be copied, not written."""
    root = tmp_path_factory.mktemp("sample")
    run_stages(make_config(root), ["acquire", "corpus"], fresh=False)
    return root


@pytest.fixture
def sample_run(sample_root: Path, tmp_path: Path) -> Run:
    shutil.copytree(sample_root, tmp_path / "runs")
    return Run(str(tmp_path / "runs"), "test")


@pytest.fixture(scope="session")
def whole(local_ray: str, sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> faults.Whole:
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(sample_root, root, dirs_exist_ok=True)
    return faults.Whole(make_config(root, model=str(faults.write_model(root / "model")), **faults.SMALL))


@pytest.fixture
def small(whole: faults.Whole, tmp_path: Path) -> Config:
    """The settings of the whole run, for one in a folder of the test's own."""
    return make_config(tmp_path / "runs", model=whole.config.model, **faults.SMALL)
