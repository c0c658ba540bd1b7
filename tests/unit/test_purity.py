"""What the pure modules and the command's help may import, seen in a fresh interpreter and in the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for path in ROOT.glob("deepred_ray/text/*.py") if path.stem != "__init__")
HEAVY = {"ray", "torch", "vllm", "transformers", "requests"}
# Where clocks, paths, processes and networks come from.
IMPURE = HEAVY | {"datetime", "glob", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile", "time", "urllib"}


def _imported(*arguments: str) -> tuple[set[str], str]:
    """Top-level modules that `python ARGUMENTS` imports, and what it prints."""
    ran = subprocess.run([sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    lines = [line for line in ran.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}, ran.stdout


def test_text_imports_nothing_heavy() -> None:
    names = ", ".join(f"deepred_ray.text.{path.stem}" for path in MODULES)
    statement = f"import sys, {names}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    imported, printed = _imported("-c", statement)
    assert len(MODULES) > 10
    assert "deepred_ray" in imported
    assert printed.strip() == ""
    assert not imported & HEAVY


def test_help_runs_and_imports_nothing_heavy() -> None:
    imported, printed = _imported("-m", "deepred_ray", "--help")
    assert "deepred run" in printed
    assert "deepred_ray" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_text_asks_nothing_of_the_world(path: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input"), node.lineno
    assert not names & IMPURE
