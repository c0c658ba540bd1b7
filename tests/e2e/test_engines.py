"""Real engines under synthesize: a llama.cpp server on loopback as endpoint, and a vLLM whose core is killed while it works."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from deepred_ray import models
from deepred_ray.theme import Theme

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def deepred(root: Path, *words: str, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "deepred_ray", *words, "--data-root", str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root whose run `small` has passages."""
    ids = ["--ids", "900002", "900005", "900006"]
    for words in (["acquire", "--run", "small", "--mirror", "sample", "--delay", "0", *ids], ["corpus", "--run", "small"]):
        done = deepred(tmp_path, *words)
        assert done.wait(300) == 0, done.stdout and done.stdout.read()
    return tmp_path


def rows(root: Path, table: str) -> list[dict[str, Any]]:
    return [row for file in sorted((root / "small" / table).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def check_filled(root: Path, count: int) -> None:
    examples = [row["example_id"] for row in rows(root, "examples")]
    assert examples == [row["example_id"] for row in rows(root, "slots")]
    assert len(set(examples)) == len(examples) == count
    attempts = [(row["example_id"], row["attempt"]) for row in rows(root, "candidates")]
    assert len(set(attempts)) == len(attempts)
    manifest = json.loads((root / "small" / "synthesize" / "manifest.json").read_text())
    assert (manifest["rows_in"], manifest["kept"]) == (len(attempts), count)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of llama.cpp's own HTTP server on loopback, with the embedded model by the name `embedded`."""
    gguf = models.embedded_package() / models.EMBEDDED_FILE
    process = deepred(tmp_path, "serve", "--run", "embedded", "--gguf", str(gguf), "--port", "0")
    assert process.stdout
    line = next(line for line in process.stdout if line.startswith("model embedded at "))
    yield line.split()[3].removesuffix("/v1")
    process.terminate()
    assert process.wait(60) == 0


def test_a_llama_cpp_server_is_an_engine(root: Path, server: str) -> None:
    words = ["synthesize", "--run", "small", "--examples", "6", "--synthesize.contract", "plain", "--synthesize.in-flight", "4"]
    done = deepred(root, *words, "--endpoint", server, "--synthesis-model", "nobody")
    said, _ = done.communicate(timeout=200)
    assert done.returncode == 1
    assert "does not have model 'nobody'" in said
    name = said.split("--synthesis-model: ")[1].split("'")[1]
    assert name == "embedded"

    done = deepred(root, *words, "--endpoint", server, "--synthesis-model", name, "--fresh")
    said, _ = done.communicate(timeout=600)
    assert done.returncode == 0, said
    check_filled(root, 6)
    attempts = rows(root, "candidates")
    assert {row["model"] for row in attempts} == {name}
    assert all(row["tokens"] > 0 and row["prompt_tokens"] > 50 for row in attempts)
    # What the server says goes on from the opening, and does not repeat it.
    openings = [opening for group in Theme.find("deepred").phrasebook.openings.values() for opening in group]
    for reply in [reply for row in attempts for reply in row["replies"]]:
        opening = max((opening for opening in openings if reply.startswith(opening)), key=len)
        assert not reply.removeprefix(opening).lstrip().startswith(opening)


def engine_core(driver: int) -> int | None:
    """The process of vLLM's engine core that works for this driver."""
    cores = [child for child in psutil.Process(driver).children(recursive=True) if "EngineCore" in " ".join(child.cmdline())]
    return cores[0].pid if cores else None


@pytest.mark.nightly
def test_a_killed_vllm_core_is_started_again(root: Path) -> None:
    words = ["synthesize", "--run", "small", "--examples", "12", "--synthesize.attempts", "20"]
    driver = deepred(root, *words, env=os.environ | {"COLUMNS": "160"})
    deadline = time.monotonic() + 400
    while not rows(root, "candidates"):
        assert driver.poll() is None, driver.stdout and driver.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.5)
    left = rows(root, "candidates")
    core = engine_core(driver.pid)
    assert core is not None
    os.kill(core, signal.SIGKILL)
    said, _ = driver.communicate(timeout=700)
    assert driver.returncode == 0, said
    check_filled(root, 12)
    attempts = rows(root, "candidates")
    assert all(row in attempts for row in left)
    # The core died of a signal and not of a request: none of those in flight was given up.
    assert not [row for row in attempts if row["reason"] == "engine_crash"]
