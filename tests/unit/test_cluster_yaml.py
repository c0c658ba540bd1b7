"""cluster.yaml is what Ray's launcher accepts, and opens nothing by default."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))
    return loaded


def test_ray_prepares_and_validates_it(cluster: dict[str, Any]) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    prepared = util.prepare_config(cluster)
    util.validate_config(prepared)
    node = prepared["available_node_types"]["local.cluster.node"]
    workers = len(cluster["provider"]["worker_ips"])
    assert (node["min_workers"], node["max_workers"], prepared["max_workers"]) == (workers, workers, workers)


def test_a_mistake_is_refused(cluster: dict[str, Any]) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    with pytest.raises(Exception, match="head_start_commands"):
        util.validate_config(util.prepare_config(cluster | {"head_start_commands": []}))


def test_the_dashboard_stays_on_loopback_and_the_rest_asks_for_a_token(cluster: dict[str, Any]) -> None:
    starts = [command for command in cluster["head_start_ray_commands"] if "ray start" in command]
    assert len(starts) == 1
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text("utf-8")


@pytest.mark.parametrize("settings", ["", 'DEEPRED_RAY_ARGS="--num-gpus=2 --num-cpus=16"\nGUTENBERG_DATA=/mnt/runs\n'])
def test_start_commands_read_the_environment_and_the_node_file(cluster: dict[str, Any], tmp_path: Path, settings: str) -> None:
    """The commands run in a home whose `ray` notes how it was called."""
    binaries = tmp_path / "deepred_ray/.venv/bin"
    binaries.mkdir(parents=True)
    (binaries / "activate").write_text(f"export PATH={binaries}:$PATH\n")
    (binaries / "ray").write_text(f'#!/bin/sh\necho "$OMP_NUM_THREADS|$RAY_AUTH_MODE|$GUTENBERG_DATA|$*" >> {tmp_path}/calls\n')
    (binaries / "ray").chmod(0o755)
    if settings:
        (tmp_path / "deepred.env").write_text(settings)
    commands = [*cluster["setup_commands"], *cluster["head_start_ray_commands"]]
    workers = [f"export RAY_HEAD_IP=10.0.0.1; {command}" for command in cluster["worker_start_ray_commands"]]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}  # as the launcher sets it
    for command in [*commands, *workers]:
        subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=30)
    stop_head, head, stop_worker, worker = (tmp_path / "calls").read_text().splitlines()
    assert (stop_head, stop_worker) == ("1|||stop", "1|||stop")
    arguments = " --num-gpus=2 --num-cpus=16" if settings else ""
    data_root = "/mnt/runs" if settings else ""
    assert worker == f"|token|{data_root}|start --address=10.0.0.1:6379 --disable-usage-stats{arguments}"
    assert head.startswith(f"|token|{data_root}|start --head --port=6379 --dashboard-host=127.0.0.1")
    assert head.endswith(f"--disable-usage-stats{arguments}")


def test_a_machine_without_the_set_up_is_told_so(cluster: dict[str, Any], tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", cluster["setup_commands"][0]],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "make setup" in done.stderr
