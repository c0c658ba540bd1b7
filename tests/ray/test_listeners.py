"""What a command of one machine offers to the network, and tells of its secrets: nothing. Training with two workers, where Ray,
torch's store and gloo all listen; tests/e2e/test_whole_run.py looks at all stages with vLLM and llama.cpp."""

import json
import os
import sys
from pathlib import Path

import pytest
from listeners import Listener, run_watched
from sentinels import SENTINELS, found_in
from tiny import write_model

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.mark.nightly
def test_training_listens_on_loopback_only_and_writes_no_secret(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    said = [
        {"role": "user", "content": "What of the canal?"},
        {"role": "assistant", "content": "We keep the canal and the winter."},
    ]
    (tmp_path / "chats.jsonl").write_text((json.dumps({"messages": said}) + "\n") * 8)
    command = [sys.executable, "-m", "deepred_ray", "train", "--dataset", str(tmp_path / "chats.jsonl"), "--model", str(model)]
    command += ["--data-root", str(tmp_path / "runs"), "--ray.cpus", "2", "--workers", "2", "--train.precision", "f32"]
    command += ["--train.epochs", "60", "--train.global-batch", "2"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | SENTINELS
    done, found = run_watched(command, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {listener for listener in found if listener.exposed} == set()
    names = {listener.process for listener in found}
    assert {"gcs_server", "raylet"} <= names
    assert any("Train" in name for name in names), names
    assert found_in(tmp_path / "runs") == []
    # Else the search would find nothing anywhere.
    (tmp_path / "runs" / "note").write_text(SENTINELS["HF_TOKEN"])
    assert found_in(tmp_path / "runs") == ["note"]


def test_a_listener_for_all_is_seen() -> None:
    code = "import socket, time; s = socket.create_server(('', 0)); time.sleep(3)"
    assert Listener("python", "0.0.0.0") in {
        Listener("python", listener.address) for listener in run_watched([sys.executable, "-c", code])[1] if listener.exposed
    }
