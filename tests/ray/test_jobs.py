"""The entry points of jobs/, submitted to the job server of a real Ray head."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS
from deepred_ray.storage import count_values

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
STAGES = {"pipeline": "run"} | {name: name for name in ("acquire", "corpus", "synthesize", "train", "export", "evaluate")}
HEAD_STARTS_S = 180
JOB_TAKES_S = 240
TOKEN = uuid.uuid4().hex

pytestmark = pytest.mark.ray


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def environment() -> dict[str, str]:
    """This process's environment with the virtual environment first, and of Ray's variables only a token of our own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name != "PYTHONPATH"}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
    }


@pytest.fixture(scope="module")
def job_server() -> Iterator[str]:
    """Address, on loopback, of a head's job server, which asks for our token; all its processes end with the module."""
    temporary = tempfile.mkdtemp(prefix="dr", dir="/tmp")  # socket paths must be short
    dashboard, agent, metrics, client = free_ports(4)
    address = f"http://127.0.0.1:{dashboard}"
    command = [RAY, "start", "--head", "--block", "--port=0", "--num-cpus=2"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--metrics-export-port={metrics}", f"--ray-client-server-port={client}", f"--temp-dir={temporary}"]
    command += ["--object-store-memory=200000000", "--disable-usage-stats"]
    log = Path(temporary, "start.log")
    with log.open("wb") as output:
        head = subprocess.Popen(command, env=environment(), stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until_ready(head, address, log)
        yield address
    finally:
        end(head)
        shutil.rmtree(temporary, ignore_errors=True)


def wait_until_ready(head: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + HEAD_STARTS_S
    while time.monotonic() < deadline:
        assert head.poll() is None, log.read_text()
        try:
            ask(address, "")
            return
        except requests.ConnectionError:
            pass
        time.sleep(0.5)
    pytest.fail(f"no job server after {HEAD_STARTS_S} s\n{log.read_text()}")


def ask(job_server: str, path: str) -> Any:
    answer = requests.get(f"{job_server}/api/jobs/{path}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
    answer.raise_for_status()
    return answer.json()


def end(head: "subprocess.Popen[bytes]") -> None:
    """End the head and what it started, at once: on SIGTERM it waits for its workers first."""
    family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)] if head.poll() is None else []
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait()
    psutil.wait_procs(family, timeout=10)


@pytest.fixture
def working_dir(tmp_path: Path) -> Path:
    """What a user would submit, in a folder of its own, so that the installed package cannot stand in for it."""
    folder = tmp_path / "working_dir"
    for name in ("deepred_ray", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def write_config(working_dir: Path, data_root: Path, mirror: str) -> None:
    ids = ", ".join(str(number) for number in range(900001, 900009))
    acquire = f'[acquire]\nmirror = "{mirror}"\nids = [{ids}]\ndelay = 0.0\nretries = 0\n'
    (working_dir / "test.toml").write_text(f'run = "job"\ndata_root = "{data_root}"\n{acquire}')


def submit(job_server: str, working_dir: Path, name: str, *entrypoint: str) -> "subprocess.CompletedProcess[str]":
    command = [
        RAY,
        "job",
        "submit",
        "--address",
        job_server,
        "--submission-id",
        name,
        "--working-dir",
        str(working_dir),
    ]
    deadline = time.monotonic() + HEAD_STARTS_S
    while True:
        done = subprocess.run([*command, "--", *entrypoint], env=environment(), capture_output=True, text=True, timeout=JOB_TAKES_S)
        # A young head lists its jobs before its agent can take one; such a submission leaves no job.
        if done.returncode == 0 or is_known(job_server, name):
            return done
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(2)


def is_known(job_server: str, name: str) -> bool:
    return any(job["submission_id"] == name for job in ask(job_server, ""))


def status_and_logs(job_server: str, name: str) -> tuple[str, str]:
    return ask(job_server, name)["status"], ask(job_server, f"{name}/logs")["logs"]


def test_a_job_runs_the_submitted_code_and_makes_its_table(job_server: str, working_dir: Path, tmp_path: Path) -> None:
    write_config(working_dir, tmp_path / "runs", "sample")
    with (working_dir / "deepred_ray" / "stages" / "acquire.py").open("a") as file:
        file.write(f"\nimport pathlib\n\npathlib.Path({str(tmp_path / 'where')!r}).write_text(__file__)\n")
    done = submit(job_server, working_dir, "books", "python", "jobs/acquire.py", "--config", "test.toml")
    status, logs = status_and_logs(job_server, "books")
    assert (status, done.returncode) == ("SUCCEEDED", 0), logs
    assert "runtime_resources/working_dir_files" in (tmp_path / "where").read_text()
    run = Run(str(tmp_path / "runs"), "job")
    manifest = run.manifest("acquire")
    assert manifest is not None
    assert (manifest.rows_in, manifest.kept) == (8, 6)
    books = run.table("books").read_table(BOOKS)
    assert count_values(books["language"]) == {"en": 6}
    assert set(books["book_id"].to_pylist()) == {str(number) for number in range(900001, 900007)}
    assert "6 of 8 books kept" in logs


def test_a_failed_job_says_why_and_a_resubmitted_one_goes_on(job_server: str, working_dir: Path, tmp_path: Path) -> None:
    closed = f"http://127.0.0.1:{free_ports(1)[0]}"
    write_config(working_dir, tmp_path / "runs", closed)
    failed = submit(job_server, working_dir, "closed", "python", "jobs/acquire.py", "--config", "test.toml")
    status, logs = status_and_logs(job_server, "closed")
    assert (status, failed.returncode) == ("FAILED", 1), logs
    assert logs.count(f"deepred: mirror {closed}") == 1
    assert "Traceback" not in logs
    run = Run(str(tmp_path / "runs"), "job")
    assert run.manifest("acquire") is None

    write_config(working_dir, tmp_path / "runs", "sample")
    done = submit(job_server, working_dir, "again", "python", "jobs/acquire.py", "--config", "test.toml")
    status, logs = status_and_logs(job_server, "again")
    assert (status, done.returncode) == ("SUCCEEDED", 0), logs
    assert run.table("books").read_table(BOOKS, ["book_id"]).num_rows == 6


def test_every_entry_point_is_a_command(tmp_path: Path) -> None:
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == set(STAGES)
    variables = environment() | {"PYTHONPATH": str(ROOT)}
    for name, command in STAGES.items():
        script = [sys.executable, str(ROOT / "jobs" / f"{name}.py")]
        wrong = subprocess.run([*script, "--config", "missing.toml"], cwd=tmp_path, env=variables, capture_output=True)
        assert wrong.returncode == 1
        assert b"deepred: config file missing.toml" in wrong.stderr
        shown = subprocess.run([*script, "--help"], cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert shown.returncode == 0
        assert f"deepred {command}" in shown.stdout
