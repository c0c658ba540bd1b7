"""Passwords and tokens are refused in settings, without being repeated, and a server's words lose the key that they hold."""

import json
from typing import Any

import pytest
from test_endpoint import Served, ask, server  # noqa: F401

from deepred_ray import cli
from deepred_ray.config import Config, load
from deepred_ray.endpoint import KEY
from deepred_ray.errors import ConfigError

SECRET = "s3nt1nel"
HOLDING = [
    f"http://someone:{SECRET}@mirror.example",
    f"s3://AKID:{SECRET}@bucket/runs",
    f"https://{SECRET}@mirror.example/path",
    f"s3://bucket/runs?access_key=a&secret_key={SECRET}",
    f"http://127.0.0.1:1234/v1?api-key={SECRET}",
    f"https://store.example/a?X-Amz-Signature={SECRET}",
    f"me@http://x:{SECRET}@127.0.0.1:1234/v1",
    f"hf_{SECRET}AbCdEfGhIjKlMnOpQrStUv",
    f"sk-{SECRET}-0123456789abcdef",
]
PLACES: list[tuple[str, Any]] = [
    ("data_root", lambda text: {"data_root": text}),
    ("model", lambda text: {"model": text}),
    ("acquire.mirror", lambda text: {"acquire": {"mirror": text}}),
    ("synthesize.endpoint", lambda text: {"synthesize": {"endpoint": text}}),
    ("evaluate.others", lambda text: {"evaluate": {"others": ["smollm2", text]}}),
    ("acquire.unknown", lambda text: {"acquire": {"unknown": text}}),
]


@pytest.mark.parametrize("text", HOLDING)
@pytest.mark.parametrize(("name", "at"), PLACES)
def test_a_setting_that_holds_a_secret_is_refused_and_not_repeated(text: str, name: str, at: Any) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` holds a password or a token") as refused:
        load(at(text), "a test")
    assert SECRET not in str(refused.value)


def test_a_secret_as_a_key_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        load({"ray": {HOLDING[0]: 1}}, "a test")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["https://gutenberg.pglaf.org", "you@example.org", "my-model@http://127.0.0.1:1234/v1", "s3://bucket/runs?region=eu-1",
     "Qwen/Qwen2.5-7B-Instruct", "file:///data/@home", "http://mirror.example/a@b?page=2"],
)  # fmt: skip
def test_what_holds_none_is_taken(text: str) -> None:
    assert load({"acquire": {"contact": text, "subjects": [text]}}, "a test").acquire.contact == text
    assert isinstance(load(Config().model_dump(), "a test"), Config)


def test_nothing_of_a_refused_run_is_written(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["acquire", "--mirror", HOLDING[0], "--data-root", str(tmp_path / "runs"), "--debug"]
    assert cli.main(words) == 1
    told = capsys.readouterr()
    assert SECRET not in told.out + told.err.replace(" ".join(words), "")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_repeats_the_key(server: Served, monkeypatch: pytest.MonkeyPatch, status: int) -> None:  # noqa: F811
    monkeypatch.setenv(KEY, SECRET)
    server.answers = [(status, {"error": {"message": f"bad request of key {SECRET}"}}, {})]
    reply = ask(server)
    assert reply.finish_reason == "error"
    assert SECRET not in json.dumps(reply.text)
    assert f"${KEY}" in reply.text
