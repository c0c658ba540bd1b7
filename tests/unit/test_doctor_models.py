"""The doctor on models: folders, the hub's cache as the hub's own package lays it out, and a hub on loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from deepred_ray.checks import Check
from deepred_ray.doctor_models import check_embedded, check_hub, check_model, judge_hub_answer

MODEL = "owner/name"


def write_model(folder: Path, shards: int = 2) -> None:
    """A model of as many shards as its index names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(enumerate(names))}), "utf-8")
    for name in names:
        (folder / name).write_bytes(b"")


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hub's cache has the files of MODEL; there are none yet."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc", "utf-8")
    return repository / "snapshots" / "abc"


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for an open, a gated and an unknown model; `good` is the token that may read the gated one."""

    def do_HEAD(self) -> None:
        sent = self.headers.get("Authorization", "")
        status, code = {
            f"/{MODEL}/resolve/main/config.json": (200, ""),
            "/owner/gated/resolve/main/config.json": (200, "") if sent == "Bearer good" else (403 if sent else 401, "GatedRepo"),
        }.get(self.path, (401, "RepoNotFound"))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    yield server
    server.shutdown()
    server.server_close()


def test_a_model_folder_needs_a_config_and_all_its_weights(tmp_path: Path) -> None:
    assert "no config.json" in check_model(str(tmp_path)).found
    (tmp_path / "config.json").write_text("{}", "utf-8")
    assert check_model(str(tmp_path)).found.endswith("lacks the weights")
    write_model(tmp_path)
    assert check_model(str(tmp_path)) == Check("model", True, f"folder {tmp_path}")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert check_model(str(tmp_path)).found.endswith("lacks 1 of 2 weight files (model-00002-of-00002.safetensors)")
    (tmp_path / "model.safetensors.index.json").write_text("[", "utf-8")
    assert check_model(str(tmp_path)).found.endswith("lacks a whole model.safetensors.index.json")
    assert not check_model(str(tmp_path / "missing")).ok


def test_offline_the_cache_decides_and_half_a_download_is_none(snapshot: Path) -> None:
    check = check_hub(MODEL)
    assert not check.ok
    assert "lacks everything, and HF_HUB_OFFLINE is set" in check.found
    write_model(snapshot)
    assert check_hub(MODEL) == Check("model", True, "owner/name, in the local cache")
    shard = snapshot / "model-00001-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to("../../blobs/never-came")
    check = check_hub(MODEL)
    assert not check.ok
    assert "lacks 1 of 2 weight files (model-00001-of-00002.safetensors)" in check.found
    assert f"hf download {MODEL}" in check.cure


def test_what_is_no_model_id_is_not_asked_of_the_hub() -> None:
    assert "no Hugging Face id" in check_model("owner/name/file").found


@pytest.mark.usefixtures("hub")
def test_a_gated_model_wants_a_token_and_its_terms_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_hub(MODEL).ok
    check = check_hub("owner/gated")
    assert (check.ok, check.found) == (False, "owner/gated is gated, and there is no token here")
    assert "HF_TOKEN" in check.cure
    monkeypatch.setenv("HF_TOKEN", "bad")
    check = check_hub("owner/gated")
    assert (check.ok, check.found) == (False, "owner/gated is gated, and the token here has no access to it")
    assert "Accept its terms at https://huggingface.co/owner/gated" in check.cure
    monkeypatch.setenv("HF_TOKEN", "good")
    assert check_hub("owner/gated").ok
    check = check_hub("owner/unknown")
    assert (check.ok, check.found) == (False, "owner/unknown: the hub answers 401, no access")


def test_a_hub_that_does_not_answer(hub: HTTPServer) -> None:
    hub.shutdown()
    hub.server_close()
    check = check_hub(MODEL)
    assert not check.ok
    assert "does not answer (ConnectionError)" in check.found


@pytest.mark.parametrize(("status", "ok"), [(200, True), (401, False), (403, False), (404, False), (500, False)])
def test_the_hubs_answer(status: int, ok: bool) -> None:
    check = judge_hub_answer(MODEL, status, "", token=False)
    assert check.ok == ok
    assert bool(check.cure) != ok


def test_the_embedded_model() -> None:
    assert "missing" in check_embedded(None).found
    assert "no .gguf" in check_embedded([]).found
    assert check_embedded(["a.gguf"]).ok
