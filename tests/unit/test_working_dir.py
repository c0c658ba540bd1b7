"""What `ray job submit --working-dir .` sends from this folder, packed by Ray's own code."""

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SENT_BYTES = 1_000_000


def test_entry_points_and_settings_travel_and_little_else(tmp_path: Path) -> None:
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    packed = tmp_path / "working_dir.zip"
    packaging.create_package(str(ROOT), packed, include_gitignore=True)
    assert packed.stat().st_size < SENT_BYTES
    with zipfile.ZipFile(packed) as archive:
        names = set(archive.namelist())
    wanted = {str(path.relative_to(ROOT)) for pattern in ("*.py", "configs/*.toml") for path in (ROOT / "jobs").glob(pattern)}
    assert "jobs/doctor.py" in wanted
    assert wanted <= names
    # The nodes have the package, and a part of it here would hide theirs.
    kept = {line.strip("/") for line in (ROOT / ".rayignore").read_text("utf-8").splitlines() if line.startswith("/")}
    assert {"deepred_ray", "docs", "tests", ".git"} <= kept
    assert {name for name in names if name.partition("/")[0] in kept | {".venv", "runs"}} == set()
