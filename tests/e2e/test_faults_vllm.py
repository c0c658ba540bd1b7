"""One case with real vLLM, or real training, for each kind of fault: `make nightly` runs them. A driver that is killed is in
test_killed_run.py, an engine that is killed in test_engines.py; a mirror that goes away has no engine beside it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster
from test_engines import check_filled, deepred, root, rows

__all__ = ["root"]
pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(2400)]
SLOTS = 12
WORDS = ("synthesize", "--run", "small", "--examples", str(SLOTS), "--synthesize.attempts", "20", "--synthesize.in-flight", "4")
TAKES_S = 900


def at_work(driver: "subprocess.Popen[str]", reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + TAKES_S
    while not reached():
        assert driver.poll() is None, driver.stdout and driver.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)


def workers(driver: int, named: str) -> list[int]:
    children = psutil.Process(driver).children(recursive=True)
    return [child.pid for child in children if child.is_running() and named in " ".join(child.cmdline())]


def finish(root: Path, *words: str) -> None:
    """The same command goes on to the end."""
    done = deepred(root, *words)
    said, _ = done.communicate(timeout=TAKES_S)
    assert done.returncode == 0, said


def ended(driver: "subprocess.Popen[str]") -> str:
    said, _ = driver.communicate(timeout=TAKES_S)
    assert "Traceback" not in said
    return f"{said}\nexit status {driver.returncode}"


def test_a_killed_engine_worker_is_replaced(root: Path) -> None:
    driver = deepred(root, *WORDS)
    at_work(driver, lambda: rows(root, "candidates"))
    left = rows(root, "candidates")
    os.kill(workers(driver.pid, "FillSlots")[0], signal.SIGKILL)
    assert ended(driver).endswith("exit status 0")
    assert all(row in rows(root, "candidates") for row in left)
    check_filled(root, SLOTS)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that can take no engine."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
    yield cluster
    cluster.shutdown()


def test_a_node_with_an_engine_is_lost(root: Path, cluster: Cluster) -> None:
    first = cluster.add_node(num_cpus=2, resources={"engine": 1}, object_store_memory=100 * 2**20)
    cluster.wait_for_nodes()
    words = [*WORDS, "--ray.address", cluster.address, "--synthesize.resources.custom", "engine", "1"]
    driver = deepred(root, *words)
    at_work(driver, lambda: rows(root, "candidates"))
    left = rows(root, "candidates")
    cluster.add_node(num_cpus=2, resources={"engine": 1}, object_store_memory=100 * 2**20)
    cluster.remove_node(first, allow_graceful=False)
    assert ended(driver).endswith("exit status 0")
    assert all(row in rows(root, "candidates") for row in left)
    check_filled(root, SLOTS)


@pytest.mark.parametrize("fault", ["No space left on device", "Read-only file system"])
def test_a_disk_that_fails_under_an_engine(root: Path, fault: str) -> None:
    table = root / "small" / "candidates"
    table.mkdir()
    full = fault.startswith("No space")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(table)], check=True)
    mounts = 1
    try:
        driver = deepred(root, *WORDS)
        at_work(driver, lambda: rows(root, "candidates"))
        if full:
            used = sum(file.stat().st_blocks * 512 for file in table.iterdir())
            subprocess.run(["mount", "-o", f"remount,size={used + 4096}", str(table)], check=True)
        else:
            subprocess.run(["mount", "--bind", str(table), str(table)], check=True)
            mounts += 1
            subprocess.run(["mount", "-o", "remount,bind,ro", str(table)], check=True)
        said = ended(driver)
        assert said.endswith("exit status 1")
        assert fault in said
        left = rows(root, "candidates")
        if full:
            subprocess.run(["mount", "-o", "remount,size=64m", str(table)], check=True)
        else:
            subprocess.run(["umount", "--lazy", str(table)], check=True)
            mounts -= 1
        finish(root, *WORDS)
        assert all(row in rows(root, "candidates") for row in left)
        check_filled(root, SLOTS)
    finally:
        for _ in range(mounts):
            subprocess.run(["umount", "--lazy", str(table)], check=True)


def test_a_training_worker_that_is_lost_is_replaced(root: Path) -> None:
    said = [f"We keep the canal of sector {number}, and the harvest after it." for number in range(40)]
    messages = [[{"role": "user", "content": "What do you keep?"}, {"role": "assistant", "content": text}] for text in said]
    dataset = root / "chats.jsonl"
    dataset.write_text("".join(json.dumps({"messages": both}) + "\n" for both in messages))
    words = ("train", "--run", "small", "--dataset", str(dataset), "--train.checkpoint-steps", "2", "--train.global-batch", "4")
    driver = deepred(root, *words)
    at_work(driver, lambda: list((root / "small" / "checkpoints").glob("checkpoint_*")))
    os.kill(workers(driver.pid, "RayTrainWorker")[0], signal.SIGKILL)
    assert ended(driver).endswith("exit status 0")
    steps = [json.loads(line)["step"] for line in (root / "small" / "train" / "metrics.jsonl").read_text().splitlines()]
    manifest = json.loads((root / "small" / "train" / "manifest.json").read_text())
    assert set(steps) == set(range(1, manifest["outputs"]["steps"] + 1))
    assert (manifest["rows_in"], manifest["kept"]) == (40, 40)
    assert (root / "small" / "adapter" / "adapter_model.safetensors").is_file()
