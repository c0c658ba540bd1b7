"""Who writes K-quants: llama.cpp's own command, the library of llama-cpp-python, or nobody, which is said."""

import importlib.util
import sys
from pathlib import Path

import pytest

from deepred_ray.config import ExportConfig, Quantization
from deepred_ray.errors import ModelError
from deepred_ray.quantize import FILE_TYPES, quantizer


def test_the_command_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "llama-quantize"
    command.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert quantizer() == [str(command)]


def test_the_library_is_next_and_without_either_the_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "llama_cpp" else None)
    assert quantizer() == [sys.executable, "-m", "deepred_ray.quantize"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="llama-quantize") as caught:
        quantizer()
    assert "pip install 'deepred-ray[kquants]'" in caught.value.cure


def test_every_type_that_the_converter_does_not_write_has_a_number() -> None:
    assert set(FILE_TYPES) == set(Quantization.__args__) - {"f32", "f16", "bf16", "q8_0"}
    assert ExportConfig(quantizations=("q4_k_m",)).quantizations == ("q4_k_m",)
