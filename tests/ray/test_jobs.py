"""The entry points of jobs/, submitted to the job server of a real Ray head with two more nodes."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faults
import psutil
import pytest
import requests
from mirrors import FaultyMirror, many_books

from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS, CANDIDATES
from deepred_ray.storage import count_values

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
STAGES = {"pipeline": "run"} | {name: name for name in ("acquire", "corpus", "synthesize", "train", "export", "evaluate")}
HEAD_STARTS_S = 180
JOB_TAKES_S = 240
TOKEN = uuid.uuid4().hex
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
OFF_THE_HEAD = "--entrypoint-num-cpus=0.1"

SPREAD = """
run = "spread"
data_root = "{root}"
model = "{model}"
acquire = {{ mirror = "{mirror}", ids = {ids}, delay = 0.0 }}
corpus = {{ min_matches = 3 }}
[synthesize]
examples = 60
engines = 2
in_flight = 8
resources = {{ cpus = 1.5 }}
[train]
workers = 2
epochs = 1
precision = "f32"
max_tokens = 2048
resources = {{ cpus = 1.5 }}
[evaluate]
prompts = 20
retests = 0
texts = 2
"""  # of 1.5 CPUs a node of two has room for one

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
    """Address, on loopback, of a head's job server, which asks for our token; the head has no CPUs, and beside it are two nodes of
    two. All their processes end with the module."""
    temporary = tempfile.mkdtemp(prefix="dr", dir="/tmp")  # socket paths must be short
    gcs, dashboard, client = free_ports(3)
    address = f"http://127.0.0.1:{dashboard}"
    head = ["--head", f"--port={gcs}", "--num-cpus=0", f"--ray-client-server-port={client}"]
    head += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    worker = [f"--address=127.0.0.1:{gcs}", "--num-cpus=2"]
    log = Path(temporary, "start.log")
    nodes = []
    try:
        nodes.append(start(head, 1, log))
        wait_until_ready(nodes[0], address, log)
        nodes += [start(worker, number, log) for number in (2, 3)]
        wait_for(lambda: len(nodes_of(address)) == 3, HEAD_STARTS_S, log.read_text)
        yield address
    finally:
        for node in reversed(nodes):
            end(node)
        shutil.rmtree(temporary, ignore_errors=True)


def start(options: list[str], number: int, log: Path) -> "subprocess.Popen[bytes]":
    """One raylet on loopback, with an address and a folder of its own, as if it were alone on its machine: several in one folder
    unpack a job's working_dir into each other's."""
    names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port")
    ports = [f"--{name}={port}" for name, port in zip(names, free_ports(len(names)), strict=True)]
    command = [RAY, "start", "--block", f"--node-ip-address=127.0.0.{number}", f"--temp-dir={log.parent / str(number)}"]
    command += ["--object-store-memory=150000000", "--disable-usage-stats"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, *ports, *options], env=environment(), stdout=output, stderr=output, start_new_session=True
        )


def nodes_of(job_server: str) -> dict[str, bool]:
    """Ids of the nodes that are alive, and which is the head."""
    answer = requests.get(f"{job_server}/api/v0/nodes", headers=AUTHORISED, timeout=30)
    answer.raise_for_status()
    return {node["node_id"]: node["is_head_node"] for node in answer.json()["data"]["result"]["result"] if node["state"] == "ALIVE"}


def wait_for(done: Callable[[], Any], seconds: float, explain: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.5)


def wait_until_ready(head: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + HEAD_STARTS_S
    while time.monotonic() < deadline:
        assert head.poll() is None, log.read_text()
        with contextlib.suppress(requests.RequestException):
            ask(address, "")
            nodes_of(address)
            return
        time.sleep(0.5)
    pytest.fail(f"no job server after {HEAD_STARTS_S} s\n{log.read_text()}")


def ask(job_server: str, path: str) -> Any:
    answer = requests.get(f"{job_server}/api/jobs/{path}", headers=AUTHORISED, timeout=30)
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


def submit(job_server: str, working_dir: Path, name: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """`words` are options of `ray job submit` and, from the first that is none, the entry point."""
    place = next(place for place, word in enumerate(words) if not word.startswith("--"))
    command = ["submit", "--address", job_server, "--submission-id", name, "--working-dir", str(working_dir), *words[:place]]
    deadline = time.monotonic() + HEAD_STARTS_S
    while True:
        done = ray_job(*command, "--", *words[place:])
        # A young head lists its jobs before its agent can take one; such a submission leaves no job.
        if done.returncode == 0 or is_known(job_server, name):
            return done
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(2)


def ray_job(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([RAY, "job", *words], env=environment(), capture_output=True, text=True, timeout=JOB_TAKES_S)


def is_known(job_server: str, name: str) -> bool:
    return any(job["submission_id"] == name for job in ask(job_server, ""))


def status_and_logs(job_server: str, name: str) -> tuple[str, str]:
    return ask(job_server, name)["status"], ask(job_server, f"{name}/logs")["logs"]


def test_a_failed_job_says_why_and_a_resubmitted_one_makes_its_table_by_the_submitted_code(
    job_server: str, working_dir: Path, tmp_path: Path
) -> None:
    closed = f"http://127.0.0.1:{free_ports(1)[0]}"
    write_config(working_dir, tmp_path / "runs", closed)
    with (working_dir / "deepred_ray" / "stages" / "acquire.py").open("a") as file:
        file.write(f"\nimport pathlib\n\npathlib.Path({str(tmp_path / 'where')!r}).write_text(__file__)\n")
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
    assert "runtime_resources/working_dir_files" in (tmp_path / "where").read_text()
    manifest = run.manifest("acquire")
    assert manifest is not None
    assert (manifest.rows_in, manifest.kept) == (8, 6)
    books = run.table("books").read_table(BOOKS)
    assert count_values(books["language"]) == {"en": 6}
    assert set(books["book_id"].to_pylist()) == {str(number) for number in range(900001, 900007)}
    assert "6 of 8 books kept" in logs


def rows_by_node(run: Run, stage: str, event: str = "rows written") -> Counter[str]:
    """Rows (or events, where they tell of none) that each node's processes have written in a stage."""
    found: Counter[str] = Counter()
    for file in (run.scratch / "logs").glob("*.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            if (line["stage"], line["event"]) == (stage, event):
                found[line["node"]] += line.get("rows", 1)
    return found


def test_every_stage_is_spread_over_the_nodes_and_goes_on_after_it_was_stopped(
    job_server: str, working_dir: Path, tmp_path: Path
) -> None:
    head = next(node for node, is_head in nodes_of(job_server).items() if is_head)
    workers = nodes_of(job_server).keys() - {head}
    ids = many_books(tmp_path / "mirror", 24)
    model = faults.write_model(tmp_path / "model")
    for name in ("driver.py", "scripted.py"):
        shutil.copy(ROOT / "tests/ray" / name, working_dir)
    run = Run(str(tmp_path / "runs"), "spread")

    def ledger(stage: str) -> tuple[int, int]:
        manifest = run.manifest(stage)
        assert manifest is not None
        return manifest.rows_in, manifest.kept

    with FaultyMirror(tmp_path / "mirror") as mirror:
        (working_dir / "test.toml").write_text(SPREAD.format(root=tmp_path / "runs", model=model, mirror=mirror.base, ids=ids))
        done = submit(job_server, working_dir, "fetch", OFF_THE_HEAD, "python", "jobs/acquire.py", "--config", "test.toml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(mirror.books_asked()) == 24
    assert ask(job_server, "fetch")["driver_node_id"] in workers
    assert ledger("acquire") == (24, 24)
    assert rows_by_node(run, "acquire").total() == 24

    started = submit(job_server, working_dir, "chunk", "--no-wait", "python", "jobs/corpus.py", "--config", "test.toml")
    assert started.returncode == 0, started.stdout + started.stderr
    wait_for(lambda: ask(job_server, "chunk")["status"] not in ("PENDING", "RUNNING"), JOB_TAKES_S, lambda: "no end of corpus")
    told = ray_job("logs", "--address", job_server, "chunk").stdout
    assert ask(job_server, "chunk")["status"] == "SUCCEEDED", told
    assert ask(job_server, "chunk")["driver_node_id"] == head  # where nothing else was asked for
    chunked = rows_by_node(run, "corpus")
    assert chunked.keys() == workers
    assert chunked.total() == ledger("corpus")[0]
    assert f"{ledger('corpus')[1]} of {chunked.total()} chunks kept" in told

    # Stopped while its engines hold, and submitted again.
    (model / "hold").touch()
    entrypoint = ("python", "driver.py", "synthesize", "--config", "test.toml")
    submit(job_server, working_dir, "held", OFF_THE_HEAD, "--no-wait", *entrypoint)
    candidates = run.table("candidates")
    wait_for(lambda: candidates.files(".parquet"), JOB_TAKES_S, lambda: status_and_logs(job_server, "held")[1])
    stopped = ray_job("stop", "--address", job_server, "held")
    assert stopped.returncode == 0, stopped.stdout
    assert ask(job_server, "held")["status"] == "STOPPED"
    before = candidates.read_table(CANDIDATES, ["example_id", "attempt"]).to_pylist()
    assert run.manifest("synthesize") is None
    (model / "hold").unlink()
    done = submit(job_server, working_dir, "filled", OFF_THE_HEAD, *entrypoint)
    assert done.returncode == 0, done.stdout + done.stderr
    after = candidates.read_table(CANDIDATES, ["example_id", "attempt", "reason"]).to_pylist()
    attempts = Counter((row["example_id"], row["attempt"]) for row in after)
    assert max(attempts.values()) == 1
    assert {(row["example_id"], row["attempt"]) for row in before} <= attempts.keys()
    accepted = Counter(row["example_id"] for row in after if row["reason"] is None)
    assert ledger("synthesize") == (len(after), 60)
    assert (len(accepted), max(accepted.values())) == (60, 1)
    written = rows_by_node(run, "synthesize")
    assert written.keys() == workers
    assert written.total() == len(after)

    done = submit(job_server, working_dir, "tune", OFF_THE_HEAD, "python", "jobs/train.py", "--config", "test.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ledger("train") == (60, 60)
    assert rows_by_node(run, "train", "worker started") == Counter(workers)
    assert (run.local_copy("adapter") / "adapter_model.safetensors").is_file()

    # The whole pipeline: of its stages, the two that are left.
    done = submit(job_server, working_dir, "whole", OFF_THE_HEAD, "python", "driver.py", "run", "--config", "test.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ask(job_server, "whole")["driver_node_id"] in workers
    assert [stage for stage in STAGES if rows_by_node(run, stage, "stage skipped")] == ["acquire", "corpus", "synthesize", "train"]
    assert (ledger("export"), ledger("evaluate")) == ((1, 1), (20, 20))
    answered = rows_by_node(run, "evaluate")
    assert answered.keys() <= workers
    assert answered.total() == 3 * 20  # by the base, the base with the persona's prompt, and the tuned model


def test_what_the_cluster_can_never_hold_is_refused_at_once(job_server: str, working_dir: Path, tmp_path: Path) -> None:
    write_config(working_dir, tmp_path / "runs", "sample")
    with (working_dir / "test.toml").open("a") as file:
        file.write("[train]\nworkers = 5\n[train.resources]\ncpus = 1.5\n")
    done = submit(job_server, working_dir, "huge", "python", "jobs/pipeline.py", "--config", "test.toml")
    status, logs = status_and_logs(job_server, "huge")
    assert (status, done.returncode) == ("FAILED", 1), logs
    assert "deepred: train wants 5 training workers of 1.5 CPU at once, and the cluster has room for 2\n" in logs
    assert "Lower `train.workers` or `train.resources`, or add nodes" in logs
    assert not Run(str(tmp_path / "runs"), "job").table("books").exists()


def test_every_entry_point_is_a_command(tmp_path: Path) -> None:
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == {*STAGES, "doctor"}
    variables = environment() | {"PYTHONPATH": str(ROOT)}
    for name, command in STAGES.items():
        script = [sys.executable, str(ROOT / "jobs" / f"{name}.py")]
        wrong = subprocess.run([*script, "--config", "missing.toml"], cwd=tmp_path, env=variables, capture_output=True)
        assert wrong.returncode == 1
        assert b"deepred: config file missing.toml" in wrong.stderr
        shown = subprocess.run([*script, "--help"], cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert shown.returncode == 0
        assert f"deepred {command}" in shown.stdout
