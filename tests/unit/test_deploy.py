"""A GGUF file is put where LM Studio and Ollama find it, and nothing else is touched."""

from pathlib import Path

import pytest

from deepred_ray.errors import DeepredError
from deepred_ray.stages.deploy import lm_studio_home, to_lm_studio, to_ollama


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "run" / "deepred-q8_0.gguf"
    file.parent.mkdir()
    file.write_bytes(b"GGUF and more")
    return file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return folder


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_lm_studio_is_found_by_its_pointer_then_in_its_new_and_in_its_old_place(home: Path) -> None:
    assert lm_studio_home(home) == home / ".lmstudio"
    (home / ".cache" / "lm-studio").mkdir(parents=True)
    assert lm_studio_home(home) == home / ".cache" / "lm-studio"
    (home / ".lmstudio").mkdir()
    assert lm_studio_home(home) == home / ".lmstudio"
    (home / ".lmstudio-home-pointer").write_text("/elsewhere/lmstudio\n")
    assert lm_studio_home(home) == Path("/elsewhere/lmstudio")


def test_the_file_is_copied_by_publisher_and_model_and_an_older_one_replaced(home: Path, gguf: Path) -> None:
    models = home / ".lmstudio" / "models"
    models.mkdir(parents=True)
    wanted = models / "deepred_ray" / "mars" / "deepred-q8_0.gguf"
    for data in (b"old", b"new"):
        gguf.write_bytes(data)
        assert to_lm_studio(gguf, "mars", None, home) == wanted
        assert wanted.read_bytes() == data
    assert everything(home) == {".lmstudio/models/deepred_ray/mars/deepred-q8_0.gguf"}


def test_a_named_folder_goes_before_the_one_that_is_found(home: Path, gguf: Path, tmp_path: Path) -> None:
    (home / ".lmstudio" / "models").mkdir(parents=True)
    named = tmp_path / "models"
    with pytest.raises(DeepredError, match=f"no folder {named}"):
        to_lm_studio(gguf, "mars", named, home)
    named.mkdir()
    assert to_lm_studio(gguf, "mars", named, home) == named / "deepred_ray" / "mars" / gguf.name
    assert everything(home) == set()


def test_without_lm_studio_the_message_says_what_to_do(home: Path, gguf: Path) -> None:
    with pytest.raises(DeepredError, match=r"\.lmstudio/models") as caught:
        to_lm_studio(gguf, "mars", None, home)
    assert "--export.lm-studio" in str(caught.value.cure)
    assert everything(home) == set()


def test_a_place_that_cannot_be_written_leaves_nothing(home: Path, gguf: Path) -> None:
    models = home / ".lmstudio" / "models"
    models.mkdir(parents=True)
    (models / "deepred_ray").write_text("a file, where a folder should be")
    with pytest.raises(DeepredError, match="cannot write"):
        to_lm_studio(gguf, "mars", None, home)
    assert everything(models) == {"deepred_ray"}


@pytest.mark.parametrize("where", ["path", "own"])
def test_its_command_line_loads_the_model(
    where: str, home: Path, gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".lmstudio" / "models").mkdir(parents=True)
    lms = (tmp_path if where == "path" else home / ".lmstudio") / "bin" / "lms"
    script(lms, f'echo "$@" > {tmp_path}/called')
    to_lm_studio(gguf, "mars", None, home)
    assert (tmp_path / "called").read_text().split() == ["load", "deepred_ray/mars/deepred-q8_0.gguf", "-y"]
    assert "loaded in LM Studio: deepred_ray/mars/deepred-q8_0.gguf" in capsys.readouterr().out


def test_an_lm_studio_that_does_not_run_is_told_and_no_error(
    home: Path, gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".lmstudio" / "models").mkdir(parents=True)
    script(tmp_path / "bin" / "lms", "echo nobody at home >&2; exit 1")
    assert to_lm_studio(gguf, "mars", None, home).is_file()
    assert "nobody at home" in " ".join(capsys.readouterr().out.split())


def test_a_modelfile_names_the_file_the_template_and_the_persona(gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = to_ollama(gguf, "Mars", "You are Deep Red.", "{% for m in messages %}<|im_start|>...<|im_end|>")
    assert path == gguf.parent / "Modelfile"
    assert path.read_text() == (
        "FROM ./deepred-q8_0.gguf\n"
        'TEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"""\n'
        'PARAMETER stop "<|im_end|>"\n'
        'SYSTEM """You are Deep Red."""\n'
    )
    assert f"ollama create mars -f {path}" in capsys.readouterr().out.replace("\n", "")
    # What Ollama knows by itself is left to it.
    other = to_ollama(gguf, "mars", "You are Deep Red.", "<|start_header_id|>").read_text()
    assert other == 'FROM ./deepred-q8_0.gguf\nSYSTEM """You are Deep Red."""\n'
    with pytest.raises(ValueError, match="cannot hold"):
        to_ollama(gguf, "mars", 'a """ prompt', "")
    assert everything(gguf.parent) == {"Modelfile", gguf.name}
