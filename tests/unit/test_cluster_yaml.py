"""cluster.yaml and deploy/ are what Ray's launcher and KubeRay accept, and open nothing by default."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deepred_ray.doctor import TESTED

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
STARTS = ("head_start_ray_commands", "worker_start_ray_commands")


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / name).read_text("utf-8"))
    return loaded


@pytest.fixture
def cluster() -> dict[str, Any]:
    return read("cluster.yaml")


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


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/aws.yaml"])
def test_the_dashboard_stays_on_loopback_and_the_rest_asks_for_a_token(name: str) -> None:
    launched = read(name)
    starts = [command for command in launched["head_start_ray_commands"] if "ray start" in command]
    assert len(starts) == 1
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in launched["file_mounts"]
    assert all("RAY_AUTH_MODE=token" in command for key in STARTS for command in launched[key] if "ray start" in command)
    assert "0.0.0.0" not in (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/aws.yaml"])
def test_all_commands_are_shell(name: str) -> None:
    launched = read(name)
    commands = [command for key in (*COMMANDS, *STARTS) for command in launched.get(key, [])]
    assert len(commands) >= 5
    for command in commands:
        done = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), command


def test_ray_prepares_and_validates_the_cloud_example() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    prepared = util.prepare_config(read("deploy/aws.yaml"))
    util.validate_config(prepared)
    types = prepared["available_node_types"]
    assert prepared["provider"]["type"] == "aws"
    assert set(types) == {"head", "gpu"}
    assert (types["head"]["resources"], types["gpu"]["resources"]) == ({"CPU": 0}, {"CPU": 8, "GPU": 1})
    assert (types["gpu"]["min_workers"], types["gpu"]["max_workers"]) == (1, 4)
    # The checkout travels; what is made on the machine does not come from here.
    assert prepared["file_mounts"]["~/deepred_ray"] == "."
    assert {"/.git/", "/.venv/", "/runs/"} <= set(prepared["rsync_exclude"])


def test_the_kubernetes_example_has_what_kuberay_wants() -> None:
    """By KubeRay's API reference; its schema itself is too large to keep here."""
    claim, job = yaml.safe_load_all((ROOT / "deploy/rayjob.yaml").read_text("utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    known = {"entrypoint", "entrypointNumCpus", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}
    assert set(spec) <= {*known, "rayClusterSpec"}
    program, script, flag, config = spec["entrypoint"].split()
    assert (program, flag) == ("python", "--config")
    assert all((ROOT / path.removeprefix("/deepred_ray/")).is_file() for path in (script, config))
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["rayVersion"] == TESTED["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    head, *workers = groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert set(head) == {"serviceType", "rayStartParams", "template"}
    assert head["serviceType"] == "ClusterIP"
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert [worker["groupName"] for worker in workers] == ["text", "gpu"]
    for worker in workers:
        assert set(worker) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
        assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {"data": "/data", "shm": "/dev/shm"}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        assert {"name": "GUTENBERG_DATA", "value": "/data/runs"} in container["env"]
        secrets = [entry for entry in container["env"] if "TOKEN" in entry["name"]]
        assert [list(entry) for entry in secrets] == [["name", "valueFrom"]]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("settings", ["", "DEEPRED_RAY_ARGS='--num-gpus=2 --resources={\"big\":1}'\nGUTENBERG_DATA=/mnt/runs\n"])
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
    arguments = ' --num-gpus=2 --resources={"big":1}' if settings else ""
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
