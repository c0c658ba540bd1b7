"""`deepred serve` refuses what it cannot serve before it loads anything; that it serves is tested end to end."""

import argparse
import socket
from pathlib import Path

import pytest

from deepred_ray.errors import InputError
from deepred_ray.serve import serve


def options(port: int, engine: str = "llama.cpp") -> argparse.Namespace:
    return argparse.Namespace(run="mars", engine=engine, gguf=None, port=port)


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
        serve(str(tmp_path), options(0, engine))
    assert "Run `deepred " in caught.value.cure
