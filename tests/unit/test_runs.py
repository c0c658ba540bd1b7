"""The run folder: what is decided of a stage, one writer, whole or absent artefacts, and settings of exactly one kind."""

import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from deepred_ray import runs
from deepred_ray.config import Config, Section
from deepred_ray.errors import DeepredError, LedgerError, RunBusyError, StaleRunError, StorageError
from deepred_ray.runs import OUTPUTS, STAGES, Manifest, Run, decide, lease_alive, settings_of
from deepred_ray.storage import Folder

SECTIONS = [name for name in Config.model_fields if isinstance(getattr(Config(), name), Section)]
IDENTITY = {"theme": "deepred", "corpus.size": 1024}
GROWTH: dict[str, Any] = {"examples": 100, "passages": 50, "ids": [1, 2]}
INPUTS = {"corpus": "abc"}


def manifest(stage: str = "corpus", **changes: Any) -> Manifest:
    values: dict[str, Any] = {"unit": "chunks", "rows_in": 3, "kept": 2, "rejected": {"twin": 1}, "seconds": 1.0}
    return Manifest(stage, **(values | changes))


def decided(
    identity: dict[str, Any] | None = None,
    growth: dict[str, Any] | None = None,
    inputs: dict[str, str] | None = None,
    whole: bool = True,
) -> str:
    """What is decided of a stage that was made with IDENTITY, GROWTH and INPUTS, when these are changed."""
    begun = {"identity": IDENTITY, "growth": GROWTH, "inputs": INPUTS}
    made = manifest(identity=IDENTITY, growth=GROWTH, inputs=INPUTS) if whole else None
    return decide("corpus", begun, made, IDENTITY | (identity or {}), GROWTH | (growth or {}), inputs or INPUTS)


# --- what has to be done


def test_a_stage_never_begun_runs_and_a_half_one_goes_on() -> None:
    assert decide("corpus", None, None, IDENTITY, GROWTH, INPUTS) == "run"
    assert decided(whole=False) == "run"
    assert decided(growth={"examples": 200}, whole=False) == "run"


def test_a_whole_stage_with_the_same_settings_is_skipped() -> None:
    assert decided() == "skip"


def test_a_stage_whose_input_changed_is_extended() -> None:
    assert decided(inputs={"corpus": "other"}) == "extend"


@pytest.mark.parametrize("growth", [{"examples": 101}, {"passages": None}, {"ids": [2, 1, 3]}])
def test_growth_up_extends(growth: dict[str, Any]) -> None:
    assert decided(growth=growth) == "extend"


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("growth", "named"),
    [({"examples": 99}, "examples: 100 there, 99 now"), ({"ids": [1, 3]}, "ids: [1, 2] there, [1, 3] now")],
)
def test_growth_down_is_refused(growth: dict[str, Any], named: str, whole: bool) -> None:
    with pytest.raises(StaleRunError) as caught:
        decided(growth=growth, whole=whole)
    assert named in caught.value.message
    assert "--run" in caught.value.cure
    assert "--fresh" in caught.value.cure


def test_none_stands_for_all() -> None:
    everything = {"identity": IDENTITY, "growth": GROWTH | {"passages": None}, "inputs": INPUTS}
    with pytest.raises(StaleRunError, match="passages: None there, 50 now"):
        decide("corpus", everything, None, IDENTITY, GROWTH, INPUTS)
    assert decide("corpus", everything, None, IDENTITY, GROWTH | {"passages": None}, INPUTS) == "run"


@pytest.mark.parametrize("whole", [True, False])
def test_another_identity_is_refused_and_named_with_both_values(whole: bool) -> None:
    with pytest.raises(StaleRunError) as caught:
        decided({"corpus.size": 512, "corpus.overlap": 64}, whole=whole)
    assert "corpus.size: 1024 there, 512 now" in caught.value.message
    assert "corpus.overlap: None there, 64 now" in caught.value.message
    assert "theme" not in caught.value.message
    assert "--fresh" in caught.value.cure


def test_identity_that_is_no_longer_asked_counts_as_changed() -> None:
    begun = {"identity": IDENTITY | {"corpus.gone": 1}, "growth": GROWTH, "inputs": INPUTS}
    with pytest.raises(StaleRunError, match=r"corpus\.gone: 1 there, None now"):
        decide("corpus", begun, None, IDENTITY, GROWTH, INPUTS)


def test_settings_survive_the_run_folder(tmp_path: Path) -> None:
    """Tuples become lists in JSON; that must not look like a change."""
    run, config = Run(str(tmp_path), "r"), Config()
    for stage in STAGES:
        identity, growth = settings_of(config, stage, {"corpus": "hash"})
        run.begin(stage, identity, growth, INPUTS)
        run.finish(manifest(stage, identity=identity, growth=growth, inputs=INPUTS))
        assert decide(stage, run.begun(stage), run.manifest(stage), identity, growth, INPUTS) == "skip"


# --- settings


@pytest.mark.parametrize("name", SECTIONS)
def test_each_setting_is_of_exactly_one_kind(name: str) -> None:
    section: Section = getattr(Config(), name)
    kinds = [set(section.of_kind(kind)) for kind in ("identity", "growth", "operational")]
    assert set().union(*kinds) == set(type(section).model_fields)
    assert sum(map(len, kinds)) == len(type(section).model_fields)


def test_settings_outside_the_sections_are_of_one_kind_too() -> None:
    config = Config()
    own = {name for name in Config.model_fields if name not in SECTIONS}
    assert set(config.of_kind("identity")) | set(config.of_kind("operational")) == own
    assert set(config.of_kind("identity")) == {"theme", "model"}


def test_identity_holds_that_of_the_stages_before() -> None:
    hashes = {stage: f"files of {stage}" for stage in STAGES}
    before: dict[str, Any] = {}
    for stage in STAGES:
        identity, growth = settings_of(Config(), stage, hashes)
        assert before.items() <= identity.items()
        assert identity[f"{stage}.theme_files"] == f"files of {stage}"
        assert growth == getattr(Config(), stage).of_kind("growth")
        assert ("model" in identity) == (stage not in ("acquire", "corpus"))
        before = identity


@pytest.mark.parametrize("stage", STAGES)
def test_a_setting_concerns_its_stage_and_those_after_it(stage: str) -> None:
    for name, value in getattr(Config(), stage).of_kind("identity").items():
        config = Config().model_copy(update={stage: getattr(Config(), stage).model_copy(update={name: f"not {value}"})})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the value need not be of the field's type
            moved = [other for other in STAGES if settings_of(config, other, {}) != settings_of(Config(), other, {})]
        assert moved == list(STAGES[STAGES.index(stage) :])


# --- ledger and manifests


def test_a_ledger_adds_up_or_the_stage_is_not_whole(tmp_path: Path) -> None:
    run = Run(str(tmp_path), "r")
    run.finish(manifest())
    assert run.manifest("corpus") == manifest()
    run.begin("corpus", IDENTITY, GROWTH, INPUTS)
    assert run.manifest("corpus") is None
    with pytest.raises(LedgerError, match="corpus: 4 chunks in, but 2 kept \\+ 1 rejected"):
        run.finish(manifest(rows_in=4))
    assert run.manifest("corpus") is None
    assert run.begun("corpus") == {"identity": IDENTITY, "growth": GROWTH, "inputs": INPUTS}


def test_a_fingerprint_is_of_the_rows_and_not_of_the_clock() -> None:
    first = manifest(finished_at="a")
    assert first.fingerprint == manifest(seconds=9.0, finished_at="b").fingerprint
    others = [manifest(rejected={"off_theme": 1}), manifest(inputs={"acquire": "x"}), manifest(growth={"a": 1}), manifest("train")]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize("stage", STAGES)
def test_discard_from_deletes_this_stage_and_those_after(tmp_path: Path, stage: str) -> None:
    run = Run(str(tmp_path), "r")
    (run.folder / "config.json").write_json({})
    for outputs in OUTPUTS.values():
        for output in outputs:
            (run.table(output) / "file").write_bytes(b"x")
    run.discard_from(stage)
    there = {name for name in STAGES if all(run.table(output).exists() for output in OUTPUTS[name])}
    gone = {name for name in STAGES if not any(run.table(output).exists() for output in OUTPUTS[name])}
    assert there == set(STAGES[: STAGES.index(stage)])
    assert gone == set(STAGES[STAGES.index(stage) :])
    assert run.exists()


def test_a_discard_that_is_cut_off_leaves_nothing_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(str(tmp_path), "r")
    for stage in STAGES:
        (run.folder / stage / "manifest.json").write_json({})

    def cut(output: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "discard", cut)
    with pytest.raises(KeyboardInterrupt):
        run.discard_from("corpus")
    assert [stage for stage in STAGES if (run.folder / stage / "manifest.json").exists()] == ["acquire"]


# --- artefacts


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_artefact_takes_its_place_whole(tmp_path: Path) -> None:
    run = Run(str(tmp_path), "r")
    for file in ("old.bin", "new.bin"):
        with run.artefact("gguf/deepred-q8_0") as folder:
            (folder / file).write_bytes(b"x")
    assert names(tmp_path / "r") == ["gguf/deepred-q8_0/new.bin"]
    assert run.local_copy("gguf/deepred-q8_0") == tmp_path / "r/gguf/deepred-q8_0"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_artefact_that_fails_leaves_nothing_and_keeps_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    run = Run(str(tmp_path), "r")
    with pytest.raises(error), run.artefact("merged") as folder:
        (folder / "half.bin").write_bytes(b"x")
        raise error
    assert names(tmp_path) == []
    with run.artefact("merged") as folder:
        (folder / "whole.bin").write_bytes(b"x")
    with pytest.raises(error), run.artefact("merged") as folder:
        raise error
    assert names(tmp_path / "r") == ["merged/whole.bin"]


def test_what_a_killed_process_left_is_not_taken_into_an_artefact(tmp_path: Path) -> None:
    (tmp_path / "r/.merged.draft").mkdir(parents=True)
    (tmp_path / "r/.merged.draft/stale.bin").write_bytes(b"x")
    with Run(str(tmp_path), "r").artefact("merged") as folder:
        assert names(folder) == []


def test_an_artefact_where_nothing_can_be_written_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeepredError, match="--data-root"), Run(str(tmp_path / "file"), "r").artefact("merged"):
        pass


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run on a filesystem that is not the local one, with a local scratch of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "bucket").mkdir()
    run = Run(str(tmp_path / "bucket"), "r")
    run.folder = Folder(fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem()), "runs/r")
    return run


def test_on_a_uri_an_artefact_is_made_in_scratch_and_uploaded_whole(remote: Run, tmp_path: Path) -> None:
    for file in ("old.bin", "new.bin"):
        with remote.artefact("gguf/q8_0") as folder:
            assert folder.is_relative_to(tmp_path / "cache")
            (folder / file).write_bytes(b"x")
    assert names(tmp_path / "bucket/runs/r") == ["gguf/q8_0/.whole", "gguf/q8_0/new.bin"]
    with pytest.raises(RuntimeError), remote.artefact("gguf/f16") as folder:
        (folder / "half.bin").write_bytes(b"x")
        raise RuntimeError
    assert names(tmp_path / "bucket/runs/r") == ["gguf/q8_0/.whole", "gguf/q8_0/new.bin"]


def test_an_upload_that_was_cut_off_is_no_artefact(remote: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: str, target: str, destination_filesystem: fs.FileSystem) -> None:
        (Folder(destination_filesystem, target) / "a.bin").write_bytes(b"x")
        raise OSError("connection lost")

    with remote.artefact("merged") as folder:
        (folder / "a.bin").write_bytes(b"old")
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="connection lost"):
        patch.setattr(fs, "copy_files", broken)
        with remote.artefact("merged") as folder:
            (folder / "a.bin").write_bytes(b"x")
    assert (remote.table("merged") / "a.bin").exists()
    assert not remote.local_copy("merged").exists()


def test_on_a_uri_the_scratch_is_a_function_of_the_names() -> None:
    first, again = (Run("s3://bucket/a?region=us-east-1", "r") for _ in range(2))
    others = [Run("s3://bucket/b?region=us-east-1", "r"), Run("s3://bucket/a?region=us-east-1", "s")]
    assert first.scratch == again.scratch
    assert len({run.scratch for run in (first, *others)}) == 3


def test_on_a_uri_a_copy_is_downloaded_whole_or_not_at_all(remote: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not remote.local_copy("merged").exists()
    with remote.artefact("merged") as folder:
        for file in ("a.bin", "b.bin"):
            (folder / file).write_bytes(b"x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))  # as on another node

    def broken(source: str, target: str, **_: Any) -> None:
        Path(target).mkdir(parents=True, exist_ok=True)
        (Path(target) / "a.bin").write_bytes(b"x")
        raise OSError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(fs, "copy_files", broken)
        with pytest.raises(OSError, match="connection lost"):
            remote.local_copy("merged")
    assert names(remote.local_copy("merged")) == [".whole", "a.bin", "b.bin"]


def test_on_a_uri_a_copy_follows_what_another_node_made_since(remote: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for node, data in (("one", b"first"), ("two", b"second"), ("one", b"third")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / node))
        with remote.artefact("gguf/q8_0") as folder:
            (folder / "model.gguf").write_bytes(data)
        for reader in ("one", "two"):
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / reader))
            path = remote.scratch / "gguf/q8_0/model.gguf"
            remote.here(str(path))
            assert path.read_bytes() == data
    remote.discard("gguf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    assert not remote.local_copy("gguf/q8_0").exists()


def test_on_a_uri_what_is_discarded_is_gone_from_scratch_too(remote: Run) -> None:
    with remote.artefact("merged") as folder:
        (folder / "old.bin").write_bytes(b"x")
    remote.discard_from("export")
    assert not remote.table("merged").exists()
    assert not remote.local_copy("merged").exists()


# --- one writer

HOLD = """
import sys
from deepred_ray.runs import Run
with Run(sys.argv[1], "r").lease():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A second process that holds the lease of run `r`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    run = Run(str(tmp_path), "r")
    with pytest.raises(RunBusyError, match=f"process {holder.pid} on {socket.gethostname()}") as caught, run.lease():
        pass
    assert "--run" in caught.value.cure
    with Run(str(tmp_path), "another").lease():
        pass
    holder.communicate("")
    with run.lease():
        assert (run.folder / "lease.json").read_json()["pid"] == os.getpid()


@pytest.mark.parametrize("reaped", [True, False])
def test_the_run_of_a_killed_driver_is_taken_over(tmp_path: Path, holder: "subprocess.Popen[str]", reaped: bool) -> None:
    """Also while the dead process waits for its parent, as it does for ever in a container whose first process reaps none."""
    run = Run(str(tmp_path), "r")
    holder.kill()
    if reaped:
        holder.communicate()
    else:
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert (run.folder / "lease.json").exists()
    with run.lease():
        assert (run.folder / "lease.json").read_json()["pid"] == os.getpid()


def test_a_number_that_another_process_has_now_is_no_life_sign() -> None:
    mine = {"host": "here", "pid": os.getpid(), "started": time.time() - 1e6, "beat": time.time()}
    assert not lease_alive(mine, "here")


@pytest.mark.parametrize(("age", "alive"), [(0.0, True), (runs.LEASE_EXPIRES_S / 2, True), (runs.LEASE_EXPIRES_S + 1, False)])
def test_a_driver_on_another_host_lives_by_its_heartbeat(tmp_path: Path, age: float, alive: bool) -> None:
    run = Run(str(tmp_path), "r")
    lease = {"host": "elsewhere", "pid": os.getpid(), "started": 0.0, "beat": time.time() - age}
    (run.folder / "lease.json").write_json(lease)
    if alive:
        with pytest.raises(RunBusyError, match="on elsewhere"), run.lease():
            pass
    else:
        with run.lease():
            pass


def test_of_drivers_that_begin_at_once_one_goes_on_at_most(tmp_path: Path) -> None:
    """Whatever the order of their steps: each looks for others' claims after it wrote its own."""
    run = Run(str(tmp_path), "r")
    elsewhere = {"host": "elsewhere", "pid": 1, "started": 0.0}
    (run.folder / "claim-dead.json").write_json(elsewhere | {"beat": time.time() - runs.LEASE_EXPIRES_S - 1})
    with run.lease():
        assert [file.name for file in run.folder.files()] == ["lease.json"]
    (run.folder / "claim-live.json").write_json(elsewhere | {"beat": time.time()})
    with pytest.raises(RunBusyError, match="on elsewhere is beginning to write run r"), run.lease():
        pass
    assert [file.name for file in run.folder.files()] == ["claim-live.json"]


def test_the_heart_beats_and_the_lease_ends_with_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "HEARTBEAT_S", 0.01)
    run = Run(str(tmp_path), "r")
    file = run.folder / "lease.json"
    with pytest.raises(KeyboardInterrupt), run.lease():
        first, end = file.read_json()["beat"], time.monotonic() + 10
        while file.read_json()["beat"] == first:
            assert time.monotonic() < end
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert not file.exists()


def test_a_run_folder_opens_its_tables(tmp_path: Path) -> None:
    run = Run(str(tmp_path), "r")
    assert not run.exists()
    schema = pa.schema([("a", pa.int64())])
    run.table("rejects/corpus").write_table(pa.table({"a": [1]}, schema), "one")
    assert names(tmp_path) == ["r/rejects/corpus/one.parquet"]
