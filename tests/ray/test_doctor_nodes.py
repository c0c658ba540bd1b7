"""The doctor on a cluster of three raylets: the head, a node that differs in all that it looks at, and one that cannot answer."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_jobs import RAY, end, free_ports

from deepred_ray.doctor import TESTED

BIN = Path(sys.executable).parent
STARTS_S, ANSWERS_S = 180, 180
SPACE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        subprocess.run([*SPACE, "true"], capture_output=True).returncode != 0, reason="no mount namespace may be made here"
    ),
]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name != "PYTHONPATH"}
    return kept | {"RAY_AUTH_MODE": "disabled", "HF_HUB_OFFLINE": "1"} | more


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dr", dir="/tmp", ignore_cleanup_errors=True) as name:  # socket paths must be short
        (Path(name) / "runs").mkdir()
        yield Path(name)


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Of the head, which has no CPU. `odd` has another peft, a /dev/shm of 96 MB and a data root of its own; on `broken` our
    package cannot be imported."""
    older = folder / "older" / "peft-0.1.0.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.1.0\n", "utf-8")
    (folder / "broken" / "deepred_ray").mkdir(parents=True)
    (folder / "broken" / "deepred_ray" / "__init__.py").write_text("raise ImportError('half a copy')\n", "utf-8")
    gcs, client, *ports = free_ports(8)
    address = f"127.0.0.1:{gcs}"
    with ExitStack() as nodes:

        def start(name: str, number: int, words: Sequence[str], mounts: str = "true", **more: str) -> None:
            """With an address and a folder of its own: nodes that share them take each other's sockets as they start."""
            agent, metrics = ports.pop(), ports.pop()
            ray = [RAY, "start", "--block", f"--node-name={name}", "--num-gpus=0", "--object-store-memory=80000000", *words]
            ray += [f"--node-ip-address=127.0.0.{number}", f"--temp-dir={folder}/{number}"]
            ray += ["--disable-usage-stats", f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
            with (folder / f"{name}.log").open("wb") as log:
                node = subprocess.Popen(
                    [*SPACE, "sh", "-ec", f'{mounts}; exec "$@"', "_", *ray],
                    env=environment(**more),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            nodes.callback(end, node)

        head = ["--head", f"--port={gcs}", f"--ray-client-server-port={client}", "--num-cpus=0"]
        start("head", 1, [*head, "--include-dashboard=false"])
        wait_for(folder / "head.log")
        join = [f"--address={address}", "--num-cpus=1"]
        mounts = f"mount -t tmpfs -o size=96m tmpfs /dev/shm; mount -t tmpfs tmpfs {folder}/runs"
        start("odd", 2, join, mounts, PYTHONPATH=str(folder / "older"))
        start("broken", 3, join, PYTHONPATH=str(folder / "broken"))
        for name in ("odd", "broken"):
            wait_for(folder / f"{name}.log")
        yield address


def wait_for(log: Path) -> None:
    deadline = time.monotonic() + STARTS_S
    while "Ray runtime started" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def doctor(address: str, data_root: Path | str, *words: str) -> tuple[int, dict[str, tuple[str, str]], str]:
    """Exit status; the lines of the report by name (the last of a name), as mark and what was found; all that was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "deepred_ray", "doctor", "--address", address, "--data-root", str(data_root), *words],
        env=environment(),
        cwd=BIN,  # Ray puts this folder before the nodes' own PYTHONPATH, so it must not be that of the sources
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ANSWERS_S,
    )
    lines = [line for line in done.stdout.splitlines() if line[:3] in ("ok ", "NOT", "but")]
    return done.returncode, {line[5:28].strip(): (line[:3], line[28:]) for line in lines}, done.stdout + done.stderr


def test_each_difference_is_found_and_named(address: str, folder: Path) -> None:
    status, found, words = doctor(address, folder / "runs", "--model", "smollm2", "owner/absent")
    assert status == 1, words
    assert found["nodes"] == ("ok ", "broken, head, odd")
    assert found["node"][0] == "NOT"
    assert found["node"][1].startswith("broken: ")
    assert "half a copy" in found["node"][1]
    assert found["version skew"] == ("NOT", f"peft: 0.1.0 on odd; {TESTED['peft']} on head")
    assert found["data root"] == ("NOT", f"{folder}/runs is another one on odd; what the driver wrote is not there")
    [small] = [line for line in words.splitlines() if line.startswith("but  shared memory")]
    assert "0.1 GiB free" in small
    assert small.endswith("(odd)")
    assert found["model"][0] == "NOT"
    assert "owner/absent" in found["model"][1]
    assert found["model"][1].endswith("(all 2 nodes)")
    assert "embedded SmolLM2" in words
    assert list((folder / "runs").iterdir()) == []


def test_a_data_root_that_all_share_is_the_same_and_nothing_stays_in_it(address: str, folder: Path) -> None:
    (folder / "shared").mkdir()
    _, found, words = doctor(address, folder / "shared")
    assert found["data root"] == ("ok ", f"{folder}/shared is the same on 2 nodes"), words
    assert list((folder / "shared").iterdir()) == []
