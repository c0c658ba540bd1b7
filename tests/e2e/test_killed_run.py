"""A run whose driver is killed in every stage is finished by the same command. Long: `make nightly` runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(5400)]

CONFIG = """
run = "killed"
[acquire]
mirror = "sample"
ids = [900001, 900002, 900003, 900004, 900005, 900006, 900007, 900008]
delay = 0.5
[corpus]
min_matches = 3
[synthesize]
examples = 40
least_filled = 0.8
[train]
workers = 2
learning_rate = 5e-4
epochs = 2
dropout = 0.0
batch = 2
global_batch = 4
max_tokens = 256
gradient_checkpointing = false
checkpoint_steps = 2
[evaluate]
prompts = 6
max_tokens = 24
"""


def begun(run: Path, stage: str) -> bool:
    return (run / stage / "begun.json").exists()


def in_the_middle(run: Path) -> dict[str, Callable[[], bool]]:
    """For each stage, how one sees that it is at work and not done."""
    return {
        "acquire": lambda: (run / "acquire" / "pg_catalog.csv.gz").exists(),
        "corpus": lambda: begun(run, "corpus"),
        "synthesize": lambda: len(list((run / "candidates").glob("*.parquet"))) >= 1,
        "train": lambda: len(list((run / "checkpoints").glob("checkpoint_*"))) >= 2,
        "export": lambda: (run / "merged" / "merge.json").exists(),
        "evaluate": lambda: begun(run, "evaluate"),
    }


def start(root: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "deepred_ray", "run", "--config", str(root / "killed.toml"), "--data-root", str(root)]
    return subprocess.Popen(command, stdout=(root / "out.txt").open("ab"), stderr=subprocess.STDOUT)


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    children = psutil.Process(process.pid)
    end = time.monotonic() + 900
    while not reached():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.2)
    family = children.children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=150)  # Ray's agents notice after a minute that their raylet is gone
    assert not [child.cmdline() for child in alive], "the dead driver left processes behind"


def test_killed_in_every_stage_and_finished(tmp_path: Path) -> None:
    (tmp_path / "killed.toml").write_text(CONFIG)
    run = tmp_path / "killed"
    for stage, reached in in_the_middle(run).items():
        kill_when(start(tmp_path), reached)
        assert not (run / stage / "manifest.json").exists(), f"{stage} was over before the kill"
    before = {file.name: file.read_bytes() for file in (run / "candidates").glob("*.parquet")}
    steps = [json.loads(line)["step"] for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]
    assert steps[0] == 1
    assert steps.count(1) == 1, "training started over instead of going on from its checkpoint"

    last = start(tmp_path)
    assert last.wait(900) == 0, (tmp_path / "out.txt").read_text()
    after = {file.name: file.read_bytes() for file in (run / "candidates").glob("*.parquet")}
    assert before.items() <= after.items()
    for stage in in_the_middle(run):
        manifest = json.loads((run / stage / "manifest.json").read_text())
        assert manifest["rows_in"] == manifest["kept"] + sum(manifest["rejected"].values())
    made = json.loads((run / "synthesize" / "manifest.json").read_text())
    ids = [json.loads(line)["id"] for line in (run / "dataset" / "theme_dataset.jsonl").read_text().splitlines()]
    assert len(ids) == len(set(ids)) == made["outputs"]["filled"] >= 32
