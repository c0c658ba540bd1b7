"""Files of a run: whole or absent, tables as they were written, and a message that names what is broken."""

import gzip
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from deepred_ray import storage
from deepred_ray.errors import DeepredError, InputError, StorageError
from deepred_ray.schema import BOOKS, CANDIDATES, CHUNKS, EXAMPLES, JUDGEMENTS, REJECTS, TOKENS
from deepred_ray.storage import Folder, count_values, file_sha256, rows_table, shard_name

PAIR = pa.schema([("a", pa.string()), ("b", pa.int64())])


def row(schema: pa.Schema, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(schema.names) | values


# --- files


def test_bytes_are_replaced_at_once(tmp_path: Path) -> None:
    file = Folder.open(str(tmp_path)) / "deep/er/x.bin"
    for data in (b"first", b"", b"\x00\xff"):
        file.write_bytes(data)
        assert file.read_bytes() == data
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["x.bin"]


def test_json_keeps_its_letters(tmp_path: Path) -> None:
    file = Folder.open(str(tmp_path)) / "x.json"
    file.write_json({"title": "Aëlita — №1", "ids": (1, 2)})
    assert file.read_json() == {"title": "Aëlita — №1", "ids": [1, 2]}
    file.write_bytes(b'{"cut": ')
    with pytest.raises(InputError, match=r"x\.json is not JSON"):
        file.read_json()


FULL_DISK = """
import resource, sys
from deepred_ray.errors import DeepredError
from deepred_ray.storage import Folder
file = Folder.open(sys.argv[1]) / "x.bin"
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    file.write_bytes(b"n" * 100_000)
except DeepredError as error:
    print(error)
"""


def test_a_write_that_fails_half_way_leaves_the_old_bytes(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"old")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=True)
    assert f"cannot write {tmp_path}/x.bin" in ran.stdout
    assert "--data-root" in ran.stdout
    assert (tmp_path / "x.bin").read_bytes() == b"old"
    # What could not be written must not fill the disk either.
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_a_rename_that_fails_leaves_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no")

    file = Folder.open(str(tmp_path)) / "x.bin"
    file.write_bytes(b"old")
    monkeypatch.setattr(storage.os, "replace", refuse)
    with pytest.raises(DeepredError, match="cannot write"):
        file.write_bytes(b"new")
    assert file.read_bytes() == b"old"
    assert [found.name for found in Folder.open(str(tmp_path)).files()] == ["x.bin"]


def test_a_folder_under_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeepredError, match=r"cannot write .*file/x/y") as caught:
        (Folder.open(str(tmp_path / "file")) / "x/y").write_bytes(b"")
    assert "--data-root" in caught.value.cure


def test_listings_are_sorted_and_leave_out_what_is_being_written(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", ".c.parquet.1234abcd", "a.json", "sub/d.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    folder = Folder.open(str(tmp_path))
    assert [file.name for file in folder.files(".parquet")] == ["a.parquet", "b.parquet"]
    assert [file.name for file in folder.files()] == ["a.json", "a.parquet", "b.parquet"]
    assert [found.name for found in folder.folders()] == ["sub"]
    assert (folder / "none").files() == (folder / "none").folders() == []


def test_delete_takes_files_folders_and_what_is_not_there(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    (folder / "sub/x").write_bytes(b"")
    (folder / "y").write_bytes(b"")
    for name in ("sub", "y", "none"):
        (folder / name).delete()
        assert not (folder / name).exists()


def test_compressed_files_come_back_as_they_lie(tmp_path: Path) -> None:
    packed = gzip.compress(b"a catalogue", mtime=0)
    file = Folder.open(str(tmp_path)) / "x.csv.gz"
    file.write_bytes(packed)
    assert (tmp_path / "x.csv.gz").read_bytes() == packed == file.read_bytes()


# --- data roots


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/sub/..", "file://{}", "file://{}/"])
def test_a_path_and_a_file_uri_are_the_same_folder(tmp_path: Path, form: str) -> None:
    folder = Folder.open(form.format(tmp_path))
    assert folder.local
    assert folder.path == str(tmp_path)


def test_a_relative_root_is_absolute_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Folder.open("./runs").path == str(tmp_path / "runs")
    assert Folder.open("~/runs").path == str(tmp_path / "home/runs")


@pytest.mark.parametrize("root", ["nowhere://bucket/x", "http://host/x", "://x"])
def test_an_unknown_uri_is_refused_by_name(root: str) -> None:
    with pytest.raises(InputError) as caught:
        Folder.open(root)
    assert root in caught.value.message
    assert "s3://" in caught.value.cure


# --- tables


def test_tables_come_back_as_they_went(tmp_path: Path) -> None:
    at = datetime(1969, 1, 1, 12, tzinfo=UTC)
    cases = [
        (BOOKS, row(BOOKS, book_id="1", authors=["A. Bogdanov", "Ё"], subjects=[], death_year=-43, text="x\n" * 9, fetched_at=at)),
        (CHUNKS, row(CHUNKS, chunk_id="1:0-9", themes=[("mars", 3), ("labour", 1)], total=4, score=0.5, kept=True)),
        (CANDIDATES, row(CANDIDATES, example_id="core-1", attempt=0, axes=[("tone", "calm")], replies=["\u2028", ""])),
        (EXAMPLES, row(EXAMPLES, messages=[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "«Так»"}])),
        (JUDGEMENTS, row(JUDGEMENTS, example_id="core-1", attempt=2, score=3.5, scores=[("period", 3)], reasons=[("period", "Ё")])),
        (TOKENS, row(TOKENS, example_ids=["core-1"], lengths=[2], input_ids=[1, 2**31 - 1], trained=[False, True])),
        (REJECTS, row(REJECTS)),
    ]
    folder = Folder.open(str(tmp_path))
    for number, (schema, values) in enumerate(cases):
        table = folder / str(number)
        table.write_table(rows_table([values], schema), "one")
        found = table.read_table(schema)
        assert found.schema == schema
        assert found.to_pylist() == [values]


def test_a_table_is_all_its_files_and_a_file_is_replaced_by_its_name(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path)) / "t"
    assert folder.read_table(PAIR).num_rows == 0
    assert folder.read_table(PAIR, ["b"]).schema.names == ["b"]
    for name, value in (("one", 1), ("two", 2), ("one", 3)):
        folder.write_table(rows_table([{"a": name, "b": value}], PAIR), name)
    assert folder.read_table(PAIR).to_pylist() == [{"a": "one", "b": 3}, {"a": "two", "b": 2}]
    assert folder.read_table(PAIR, ["b", "a"]).column_names == ["b", "a"]


@pytest.mark.parametrize("rows", [[{"a": "x"}], [{"a": "x", "b": 1, "c": 2}], [{"a": "x", "b": 1}, {"a": "y"}]])
def test_a_row_with_other_columns_is_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match=r"\['[bc]'\]"):
        rows_table(rows, PAIR)


def test_no_rows_are_a_table_too() -> None:
    assert rows_table([], PAIR).schema == PAIR


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path)) / "t"
    folder.write_table(rows_table([{"a": "x", "b": 1}], PAIR), "good")
    whole = (tmp_path / "t/good.parquet").read_bytes()
    sink = pa.BufferOutputStream()
    storage.pq.write_table(pa.table({"a": ["x"]}), sink)
    other = sink.getvalue().to_pybytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    footer = whole[:start] + b"\xff" * 8 + whole[start + 8 :]
    for data in (b"", b"no parquet", whole[: len(whole) // 2], footer, other):
        (tmp_path / "t/bad.parquet").write_bytes(data)
        with pytest.raises(InputError, match=r"t/bad\.parquet is not a table with columns a, b"):
            folder.read_table(PAIR)


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path)) / "t"
    folder.write_table(pa.table({"a": ["x"], "b": ["no number"]}), "bad")
    with pytest.raises(InputError, match=r"t/bad\.parquet is not a table"):
        folder.read_table(PAIR)


# --- names and counts


def test_a_shard_name_is_a_function_of_its_rows() -> None:
    assert shard_name(["a", "b"]) == shard_name(iter(["a", "b"])) == "59b271ae1bbcb1d3"
    assert len({shard_name(ids) for ids in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}) == 5


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=4))
def test_a_shard_name_is_a_file_name(ids: list[str]) -> None:
    name = shard_name(ids)
    assert len(name) == 16
    assert set(name) <= set("0123456789abcdef")


def test_values_are_counted_without_nulls() -> None:
    column = pa.chunked_array([["a", None], ["b", "a"]])
    assert count_values(column) == {"a": 2, "b": 1}
    assert count_values(pa.chunked_array([], pa.string())) == {}


def test_a_file_hash_is_of_all_its_blocks(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "x").write_bytes(b"a" * (1 << 20) + b"b")
    assert file_sha256(tmp_path / "x") != file_sha256(Path(__file__))


# --- object stores


@pytest.mark.parametrize("root", ["s3://me:hush@bucket/runs", "s3://me@bucket/runs", "gs://hush@bucket/runs"])
def test_a_uri_that_holds_credentials_is_refused_and_not_repeated(root: str) -> None:
    with pytest.raises(InputError, match="holds credentials") as caught:
        Folder.open(root)
    assert "hush" not in str(caught.value)
    assert "me@" not in str(caught.value)


def test_the_region_of_the_environment_holds_unless_the_uri_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert Folder.open("s3://bucket/a/").path == "bucket/a"
    for uri, region in (("s3://bucket/a", "eu-north-1"), ("s3://bucket/a?region=sa-east-1", "sa-east-1")):
        assert Folder.open(uri).filesystem.region == region


def test_what_goes_to_another_process_holds_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    for name in (*names, "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, f"http://value-of-{name}")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    sent = pickle.dumps(Folder.open("s3://bucket/a"))
    assert b"value-of-AWS_ENDPOINT_URL" in sent
    assert not any(f"value-of-{name}".encode() in sent for name in names)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("When x: AWS Error ACCESS_DENIED during HeadObject operation: No response body.", "refuses access to b/tokens/x"),
        ("AWS Error INVALID_ACCESS_KEY_ID during PutObject operation: AKIA is unknown", "refuses access to b/tokens/x"),
        ("AWS Error UNKNOWN (HTTP status 403) during ListObjectsV2 operation", "refuses access to b/tokens/x"),
        ("AWS Error NO_SUCH_BUCKET during PutObject operation: none", "there is no bucket b"),
        ("Bucket 'b' not found. To create buckets, enable", "there is no bucket b"),
        ("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7", "does not answer"),
        (
            "key 'tokens/x': AWS Error SLOW_DOWN during PutObject operation: slow",
            "failed at b/tokens/x: key 'tokens/x': AWS Error SLOW",
        ),
    ],
)
def test_a_fault_of_an_object_store_is_told_in_words(fault: str, said: str) -> None:
    told = storage.explained("b/tokens/x", fault)
    assert said in told.message
    assert told.cure
    assert "AKIA" not in str(told)


@given(st.integers(0, 6), st.sampled_from(["AWS Error SLOW_DOWN: x", "AWS Error ACCESS_DENIED: x", "No such thing"]))
def test_only_passing_faults_are_tried_again_and_not_for_ever(faults: int, said: str) -> None:
    folder, tries = Folder(fs.SubTreeFileSystem("/", fs.LocalFileSystem()), "x"), 0

    def work() -> int:
        nonlocal tries
        tries += 1
        if tries <= faults:
            raise OSError(said)
        return tries

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "PAUSES_S", (0, 0, 0))
        most = 4 if "SLOW" in said else 1
        if faults >= most:
            with pytest.raises(StorageError):
                folder.tried(work)
            assert tries == most
        else:
            assert folder.tried(work) == faults + 1
