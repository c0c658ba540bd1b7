"""`deepred serve` refuses what it cannot serve before it loads anything; that it serves is tested end to end."""

import argparse
import socket
from pathlib import Path

import pytest

from deepred_ray.errors import InputError
from deepred_ray.serve import serve


def options(port: int, engine: str = "llama.cpp", gguf: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(run="mars", engine=engine, gguf=gguf, port=port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1: ") as caught:
            serve(str(tmp_path), options(port))
    assert "--port" in caught.value.cure


@pytest.mark.parametrize(("engine", "message"), [("llama.cpp", "mars has no GGUF yet"), ("vllm", "mars has no adapter yet")])
def test_a_run_without_a_model_says_what_to_do(engine: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        serve(str(tmp_path), options(free_port(), engine))
    assert "Run `deepred " in caught.value.cure


@pytest.mark.parametrize(("port", "gguf"), [(0, None), (8123, "some.gguf")])
def test_vllm_is_not_asked_for_what_only_llama_cpp_does(port: int, gguf: str | None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vLLM serves the run's adapter, at a port that is named"):
        serve(str(tmp_path), options(port, "vllm", gguf))
