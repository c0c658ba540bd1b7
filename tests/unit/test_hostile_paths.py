"""No name, id or path in what comes from outside leads out of the data root: everything lies inside it afterwards."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deepred_ray.config import CorpusConfig, load
from deepred_ray.download import Downloader
from deepred_ray.errors import ConfigError, MirrorError
from deepred_ray.rawcache import RawCache
from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS, CHUNKS, REJECTS
from deepred_ray.stages import sources
from deepred_ray.stages.acquire import table_of
from deepred_ray.stages.corpus import Tables, chunk_shard
from deepred_ray.stages.fetch import paths
from deepred_ray.stages.tables import ShardWriter
from deepred_ray.theme import Theme

THEME = Theme.find("deepred")
LEADING = [
    "../../out",
    "/tmp/out",
    "..",
    ".",
    "",
    "a/../../../out",
    "a\\..\\..\\out",
    "~/out",
    "%2e%2e/out",
    "s3://bucket/out",
    "x" * 400,
    "a\0b",
    "a\nb",
]
NAMES = st.one_of(st.sampled_from(LEADING), st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
TEXT = "We hold the red plain in common, comrade, and the canals, and the long winter of the reactor.\n\n" * 20


def outside(top: Path, inside: Path) -> list[Path]:
    """What lies below `top` and not in or above `inside`."""
    return [path for path in top.rglob("*") if not path.is_relative_to(inside) and not inside.is_relative_to(path)]


def run_in(folder: str) -> tuple[Path, Run]:
    """A run so deep in a folder that what climbs out of it is seen."""
    top = Path(folder)
    return top, Run(str(top / "a" / "b" / "runs"), "test")


def book(name: str) -> dict[str, Any]:
    row = dict.fromkeys([*BOOKS.names, *REJECTS.names]) | {"book_id": name, "id": name, "title": name, "authors": [name]}
    return row | {
        "subjects": [name],
        "text": TEXT,
        "body_start": 0,
        "language": "en",
        "source_url": name,
        "sha256": "0",
        "fetched_at": 0,
    }


@given(st.lists(NAMES, min_size=1, max_size=4), st.sampled_from([None, "wrong_language"]))
@settings(max_examples=40)
@example(LEADING, None)
def test_rows_of_books_and_chunks(names: list[str], reason: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top, run = run_in(folder)
        tables = {"books": (run.table("books"), BOOKS), "rejects": (run.table("rejects/acquire"), REJECTS)}
        rows = [book(name) | {"reason": reason} for name in names]
        schema = pa.unify_schemas([BOOKS, REJECTS])
        ShardWriter("acquire", tables, table_of, "book_id")(pa.Table.from_pylist(rows, schema))
        for shard in run.table("books").files(".parquet"):
            where = Tables.of(run)
            made = list(chunk_shard({"path": shard.path}, where, frozenset(), CorpusConfig(), THEME, None))
            assert len(made) == len(names)
        assert any(Path(run.folder.path).rglob("*.parquet"))
        assert outside(top, Path(run.folder.path)) == []


@given(st.lists(NAMES.filter(bool), min_size=1, max_size=4), NAMES)
@settings(max_examples=30)
@example([name for name in LEADING if name], "../../out")
def test_ready_passages(names: list[str], work: str) -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as elsewhere:
        top, run = run_in(folder)
        file = Path(elsewhere, "passages.jsonl")
        file.write_text("".join(json.dumps({"id": name, "text": TEXT, "book_id": work, "title": name}) + "\n" for name in names))
        sources.import_passages(run, [str(file)], THEME)
        assert run.table("chunks").read_table(CHUNKS, ["chunk_id"])["chunk_id"].to_pylist() == names
        assert outside(top, Path(run.folder.path)) == []


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20))
@settings(max_examples=30)
@example("..%2f..%2fout")
@example("a\\..\\out")
def test_files_of_speeches(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as elsewhere:
        top, run = run_in(folder)
        Path(elsewhere, f"{name}.txt").write_text(TEXT)
        sources.import_sources(run, {"speeches": elsewhere}, THEME)
        assert len(run.table("sources").files(".parquet")) + len(run.table("rejects/sources").files(".parquet")) > 0
        assert outside(top, Path(run.folder.path)) == []


@given(st.text(max_size=60))
@example("http://../../../out")
@example("http://./..")
@example("http://host/../../out")
@example("http://host/%2e%2e/out")
@example("http://a/..")
def test_files_kept_of_a_mirror(url: str) -> None:
    """Of every URL that a Downloader takes."""
    try:
        Downloader(url, delay=0, contact="", retries=0, timeout=1)
    except (MirrorError, ValueError):
        return
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        inside = top / "a" / "b"
        RawCache(inside).keep(url, b"body", {"ETag": "1"})
        assert outside(top, inside) == []


@pytest.mark.parametrize("host", ["..", ".", "..."])
def test_a_host_of_dots_is_none(host: str) -> None:
    with pytest.raises(MirrorError):
        Downloader(f"http://{host}/out", delay=0, contact="", retries=0, timeout=1)


@given(st.integers(0, 10**400))
def test_paths_asked_of_a_mirror(book_id: int) -> None:
    for _, path in paths(book_id, set()):
        assert path.startswith("/")
        assert ".." not in path


@pytest.mark.parametrize("name", [*LEADING, "-x", ".hidden", "a/b", "a b", "run\n"])
def test_names_of_runs(name: str) -> None:
    if name == "x" * 400:
        return
    with pytest.raises(ConfigError, match="run"):
        load({"run": name}, "a test")


def test_a_link_in_a_folder_of_the_run_is_not_followed_by_a_write(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "runs"), "test")
    secret = tmp_path / "secret.parquet"
    pq.write_table(pa.table({"a": [1]}), secret)
    before = secret.read_bytes()
    folder = run.table("chunks")
    Path(folder.path).mkdir(parents=True)
    Path(folder.path, "0.parquet").symlink_to(secret)
    folder.write_table(pa.table({"a": [2]}), "0")
    assert secret.read_bytes() == before
    assert not Path(folder.path, "0.parquet").is_symlink()
