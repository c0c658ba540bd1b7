"""The doctor's judgements on given findings, and one real look at this machine."""

import json
from pathlib import Path

import pytest

from deepred_ray import doctor, doctor_models
from deepred_ray.checks import Check, show
from deepred_ray.cli import main
from deepred_ray.config import Config
from deepred_ray.doctor import GIB, TESTED, Probe

CPU_VERSIONS = {**TESTED, "torch": f"{TESTED['torch']}+cpu"}


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the slow and the machine-dependent questions have good answers."""
    monkeypatch.setattr(doctor, "installed", lambda: CPU_VERSIONS)
    monkeypatch.setattr(doctor, "probe_imports", lambda: Probe({}, "none", ()))
    monkeypatch.setattr(doctor, "free_memory", lambda: 8.0 * GIB)
    monkeypatch.setattr(doctor, "free_space", lambda folder: 20.0 * GIB)
    monkeypatch.setattr(doctor_models, "embedded_files", lambda: ["model.gguf"])


@pytest.mark.usefixtures("healthy")
def test_a_healthy_machine_has_nothing_to_cure(tmp_path: Path) -> None:
    checks = doctor.run_checks(["smollm2"], str(tmp_path))
    assert [check for check in checks if not check.ok or check.cure] == []
    assert len({check.name for check in checks}) == len(checks)


@pytest.mark.usefixtures("healthy")
def test_every_line_that_is_not_ok_has_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda: {"torch": "2.13.0+cpu", "torchvision": "0.28.0"})
    monkeypatch.setattr(doctor, "probe_imports", lambda: Probe({"vllm": "ImportError: no"}, "unknown", ()))
    monkeypatch.setattr(doctor, "free_memory", lambda: 1.0 * GIB)
    monkeypatch.setattr(doctor, "free_space", lambda folder: 1.0 * GIB)
    checks = doctor.run_checks(["./no such model"], "/dev/null/runs")
    bad = {check.name for check in checks if not check.ok}
    assert bad == {"packages", "torchvision", "import vllm", "ray", "accelerators", "memory", "disk", "model"}
    assert all(check.cure for check in checks if not check.ok)


@pytest.mark.parametrize(
    ("versions", "clash"),
    [
        ({"torch": "2.13.0+cpu"}, []),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu"}, []),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0", "torchaudio": "2.11.0+cpu"}, ["torchvision"]),
        ({"torch": "2.13.0", "torchvision": "0.28.0", "torchaudio": "2.11.0"}, []),
        ({"torch": "2.13.0", "torchcodec": "0.17.0+cpu"}, ["torchcodec"]),
        ({"torchvision": "0.28.0"}, []),
    ],
)
def test_clashing(versions: dict[str, str], clash: list[str]) -> None:
    assert doctor.clashing(versions) == clash
    assert doctor.check_companions(versions).ok == (not clash)


def test_versions_name_what_is_missing_and_what_is_another() -> None:
    versions = {**CPU_VERSIONS, "ray": "2.61.0"}
    del versions["vllm"]
    check = doctor.check_versions(versions)
    assert not check.ok
    assert check.found == "vllm is missing; ray 2.61.0 (tested: 2.60.0)"


def test_torch_may_be_the_one_that_rocm_vllm_brings() -> None:
    assert doctor.check_versions({**TESTED, "torch": "2.12.0+rocm7.2"}).ok
    assert not doctor.check_versions({**TESTED, "torch": "2.12.0"}).ok


@pytest.mark.parametrize(
    ("version", "system", "ok"),
    [((3, 11, 0), "Linux", True), ((3, 10, 9), "Linux", False), ((3, 12, 1), "Darwin", False)],
)
def test_python(version: tuple[int, ...], system: str, ok: bool) -> None:
    assert doctor.check_python(version, system, "x86_64").ok == ok


def test_probe_is_read_from_the_last_line_whatever_was_printed_before() -> None:
    line = json.dumps({"errors": {"peft": "ImportError: x"}, "accelerator": "CUDA 13.0", "devices": ["L4"]})
    probe = doctor.read_probe(f"INFO chatter\n{line}\n", "warnings", 0)
    assert probe == Probe({"peft": "ImportError: x"}, "CUDA 13.0", ("L4",))
    assert [check.name for check in doctor.check_imports(probe)] == ["import peft"]
    assert doctor.check_accelerators(probe).found == "CUDA 13.0: L4"


@pytest.mark.parametrize("stdout", ["", "half a line", "[]"])
def test_an_interpreter_that_died_is_a_line_with_its_last_words(stdout: str) -> None:
    probe = doctor.read_probe(stdout, "loading\nIllegal instruction\n", -4)
    [check] = doctor.check_imports(probe)
    assert not check.ok
    assert "status -4" in check.found
    assert "Illegal instruction" in check.found
    assert not doctor.check_accelerators(probe).ok


def test_an_import_that_hangs_is_a_line() -> None:
    [check] = doctor.check_imports(doctor.probe_imports(timeout=0.01))
    assert not check.ok
    assert "longer than" in check.found


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, []),
        ({"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "5\n"}, []),
        ({"/sys/fs/cgroup/memory.max": "9\n", "/sys/fs/cgroup/memory.current": "5\n"}, [4]),
        ({"/sys/fs/cgroup/memory.max": "5\n", "/sys/fs/cgroup/memory.current": "9\n"}, [0]),
        (
            {
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9",
                "/sys/fs/cgroup/memory/memory.usage_in_bytes": "2",
            },
            [7],
        ),
    ],
)
def test_container_memory(files: dict[str, str], left: list[int]) -> None:
    assert doctor.container_memory(files.get) == left


def test_free_memory_without_a_containers_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "read_text", lambda path: None)
    assert doctor.free_memory() > 0


def test_memory_at_the_limit() -> None:
    assert doctor.check_memory(6.0 * GIB).ok
    assert not doctor.check_memory(6.0 * GIB - 1).ok


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(doctor, "free_space", lambda folder: asked.append(folder) or 5.0 * GIB)
    assert doctor.check_disk(str(tmp_path / "a" / "b")).ok
    assert asked == [str(tmp_path)]


def test_disk_that_is_full_or_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_space", lambda folder: 1.0 * GIB)
    assert "--data-root" in doctor.check_disk(str(tmp_path)).cure
    assert "TMPDIR" in doctor.check_disk("s3://bucket/runs").cure
    (tmp_path / "file").write_text("", "utf-8")
    assert "cannot be written to" in doctor.check_disk(str(tmp_path / "file" / "runs")).found


def test_disk_of_a_uri_is_the_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_space", lambda folder: 9.0 * GIB)
    check = doctor.check_disk("s3://bucket/runs")
    assert check.ok
    assert "scratch of s3://bucket/runs" in check.found


def test_little_shared_memory_is_told_with_a_cure_and_not_refused(capsys: pytest.CaptureFixture[str]) -> None:
    check = doctor.check_shared_memory(0.0625 * GIB)
    assert check.ok
    assert "--shm-size" in check.cure
    assert show([check]) == 0
    assert capsys.readouterr().out.startswith("but  shared memory")


def test_what_is_not_ok_ends_with_status_1_and_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    assert show([Check("disk", False, "full", "Make room."), Check("ray", True, "2.60.0")]) == 1
    first, cure, last = capsys.readouterr().out.splitlines()
    assert (first.split(), cure.split(maxsplit=1)) == (["NOT", "disk", "full"], ["cure:", "Make room."])
    assert last.split() == ["ok", "ray", "2.60.0"]


def test_a_cluster_is_looked_at_and_not_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--deep", "--address", "auto"]) == 1
    assert "--deep starts a Ray here" in capsys.readouterr().err


def test_the_models_of_a_run_are_those_that_its_own_engines_load() -> None:
    config = Config.model_validate(
        {
            "model": "a/tuned",
            "synthesize": {"model": "a/writer", "judge_model": "a/judge"},
            "evaluate": {"judge_model": "a/judge"},
            "corpus": {"tokenizer": "a/tuned"},
        }
    )
    assert doctor.models_of(config) == ["a/tuned", "a/writer", "a/judge"]
    remote = Config.model_validate({"synthesize": {"model": "name-there", "endpoint": "http://127.0.0.1:1234/v1"}})
    assert doctor.models_of(remote) == ["smollm2"]


def test_this_environment_has_what_is_tested() -> None:
    check = doctor.check_versions(doctor.installed())
    assert check.ok, check.found
    assert doctor.check_companions(doctor.installed()).ok
    assert doctor_models.check_embedded(doctor_models.embedded_files()).ok
