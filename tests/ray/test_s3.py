"""A data root on a real S3 server: the same rows as on a disk, whatever is killed or fails, and no credential anywhere."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faults
import pytest
from conftest import CREDENTIALS, make_config
from driving import driving, wait_until
from pyarrow import fs
from s3server import BUCKET, S3Server
from scripted import ScriptedEngine, write_model
from test_synthesize import check_whole, rows

from deepred_ray import cli, storage
from deepred_ray.chat import newest_gguf
from deepred_ray.config import Config
from deepred_ray.llama import Llama
from deepred_ray.pipeline import run_stages
from deepred_ray.runs import OUTPUTS, STAGES, Run
from deepred_ray.stages import synthesize
from deepred_ray.storage import Folder

pytestmark = pytest.mark.ray


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server, which this process and those that it starts know by their environment; their scratch is of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server
    # What the workers of the common Ray made in the scratch of their own.
    monkeypatch.delenv("XDG_CACHE_HOME")
    shutil.rmtree(Run(root(tmp_path), "test").scratch.parent, ignore_errors=True)


def root(tmp_path: Path) -> str:
    return f"s3://{BUCKET}/{tmp_path.parent.name}-{tmp_path.name}"


def configured(tmp_path: Path, **sections: Any) -> Config:
    return make_config(tmp_path, **sections).model_copy(update={"data_root": root(tmp_path)})


def assert_no_credential(server: S3Server, *files: Path) -> None:
    """Neither in an object, its name included, nor in what was written to the scratch or the screen."""
    texts = {name: name.encode() + data for name, data in server.objects().items()}
    texts |= {str(file): file.read_bytes() for file in files if file.is_file()}
    assert len(texts) > 20
    for name, text in texts.items():
        for value in CREDENTIALS.values():
            assert value.encode() not in text, name


def test_a_killed_run_goes_on_although_the_server_is_often_busy(
    local_ray: str, sample_root: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model = write_model(tmp_path / "model")
    (model / "hold").touch()
    config = configured(tmp_path, model=str(model), synthesize={"examples": 64, "in_flight": 8})
    run = Run(config.root, config.run)
    s3.every = 25
    run_stages(config, ["acquire", "corpus"], fresh=False)
    for stage in ("acquire", "corpus"):
        assert faults.same(run, Run(str(sample_root), "test"), stage), stage

    with driving(local_ray, config, tmp_path, "synthesize") as driver:
        wait_until(lambda: run.table("candidates").files(".parquet"), driver, tmp_path / "driver.log")
        assert run.lease_holder() is not None
        assert cli.main(["status", "test", "--data-root", config.root]) == 0
        assert f"not now: process {driver.pid}" in capsys.readouterr().out
        driver.kill()
        driver.wait()
    assert run.manifest("synthesize") is None
    before = rows(run, "candidates")
    assert before
    (model / "hold").unlink()
    monkeypatch.setattr(synthesize, "run", partial(synthesize.run, make_engine=ScriptedEngine))
    manifest = run_stages(config, ["acquire", "corpus", "synthesize"], fresh=False)[-1]
    check_whole(run, manifest, 64)
    assert all(row in rows(run, "candidates") for row in before)
    assert not (run.folder / "lease.json").exists()
    assert s3.failed > 20

    s3.every = 0
    assert cli.main(["inspect", "test", "examples", "--data-root", config.root]) == 0
    assert "64" in capsys.readouterr().out
    first = rows(run, "examples")[0]["example_id"]
    assert cli.main(["review", "test", "--reject", first, "--data-root", config.root]) == 0
    assert any(key.startswith(f"{run.folder.path.partition('/')[2]}/reviews/") for key in s3.objects())
    assert_no_credential(s3, *tmp_path.rglob("*"))


def test_what_the_server_refuses_is_told_in_one_message(s3: S3Server, tmp_path: Path, capsys: Any) -> None:
    for words, environment, said in (
        (("status", "test", "--data-root", "s3://nowhere/runs"), {}, "there is no bucket nowhere"),
        (("acquire", "--data-root", "s3://nowhere/runs"), {}, "there is no bucket nowhere"),
        (("acquire", "--data-root", root(tmp_path)), {"AWS_ACCESS_KEY_ID": "WRONG"}, "the object store refuses access to zarya/"),
        (
            ("acquire", "--data-root", root(tmp_path)),
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "the object store does not answer",
        ),
        (("acquire",), {"GUTENBERG_DATA": f"s3://me:secret@{BUCKET}/runs"}, "a URI that holds credentials"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            assert cli.main(words) == 1
        told = capsys.readouterr()
        assert said in told.err.split("\n")[0]
        assert len(told.err.strip().split("\n")) == 2, told.err
        assert not any(secret in told.out + told.err for secret in ("Traceback", "me:secret", "WRONG"))
    assert s3.objects() == {}


def test_small_objects_are_one_request_and_whole_ones_only_are_seen(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PAUSES_S", ())  # pyarrow's own tries take seconds
    folder = Folder.open(root(tmp_path))
    s3.requests.clear()
    (folder / "a" / "small.json").write_json({"a": 1})
    assert s3.requests == {"PUT": 1}
    (folder / "a" / "large.bin").write_bytes(bytes(25_000_000))
    assert (folder / "a" / "large.bin").size == 25_000_000
    assert [file.name for file in (folder / "a").files()] == ["large.bin", "small.json"]
    s3.every = 1
    with pytest.raises(OSError, match="the object store failed at"):
        (folder / "a" / "small.json").write_json({"a": 2})
    s3.every = 0
    assert (folder / "a" / "small.json").read_json() == {"a": 1}
    (folder / "a").delete()
    assert not (folder / "a").exists()


def test_an_artefact_goes_up_whole_and_comes_down_whole(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(root(tmp_path), "test")
    s3.every = 11
    for data in (bytes(12_000_000), b"second"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with run.artefact("gguf/q8_0") as folder:
            (folder / "model.gguf").write_bytes(data)
            (folder / "verified.json").write_bytes(b"{}")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
        assert (run.local_copy("gguf/q8_0") / "model.gguf").read_bytes() == data
    assert s3.failed
    run.discard_from("export")
    assert not run.local_copy("gguf/q8_0").exists()
    s3.every = 0
    assert s3.objects() == {}


CONTENDER = """
import sys, time
from deepred_ray.errors import RunBusyError
from deepred_ray.runs import Run
run = Run(sys.argv[1], "test")
print("ready", flush=True)
sys.stdin.readline()
try:
    with run.lease():
        print("held", flush=True)
        sys.stdin.readline()
except RunBusyError:
    print("busy", flush=True)
"""


def test_of_drivers_that_begin_at_once_one_goes_on_at_most(s3: S3Server, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONTENDER, root(tmp_path)]
    drivers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        for _ in range(4)
    ]
    assert [driver.stdout.readline() for driver in drivers if driver.stdout] == ["ready\n"] * 4
    for driver in drivers:
        assert driver.stdin
        driver.stdin.write("go\n")
        driver.stdin.flush()
    outcomes = [driver.stdout.readline().strip() for driver in drivers if driver.stdout]
    for driver in drivers:
        driver.communicate("end\n")
    assert set(outcomes) <= {"held", "busy"}
    assert outcomes.count("held") <= 1
    assert s3.objects() == {}
    with Run(root(tmp_path), "test").lease():
        assert [key.rsplit("/", 1)[1] for key in s3.objects()] == ["lease.json"]


@pytest.mark.nightly
def test_models_end_as_on_a_disk_and_another_node_finds_them(
    whole: faults.Whole, small: Config, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = whole.until("evaluate")
    lm_studio = tmp_path / "lm-studio"
    lm_studio.mkdir()
    export = small.export.model_copy(update={"deploy": ("lmstudio",), "lm_studio": str(lm_studio)})
    config = small.model_copy(update={"data_root": root(tmp_path), "export": export})
    run = Run(config.root, config.run)
    for output in [name for stage in STAGES[:3] for name in OUTPUTS[stage] if undisturbed.table(name).exists()]:
        fs.copy_files(undisturbed.table(output).path, run.table(output).path, destination_filesystem=run.folder.filesystem)
    faults.scripted_engines(monkeypatch)
    run_stages(config, ["train"], fresh=False)  # Ray Train gives up a worker at a fault that we wait out
    s3.every = 50
    manifests = run_stages(config, STAGES, fresh=False)
    assert s3.failed
    s3.every = 0
    assert [manifest.finished_at for manifest in manifests[:3]] == [undisturbed.manifest(stage).finished_at for stage in STAGES[:3]]
    for stage in STAGES:
        assert faults.same(run, undisturbed, stage), stage
    assert len(list(lm_studio.rglob("*.gguf"))) == 1
    assert_no_credential(s3, *(tmp_path / "cache").rglob("*"))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    gguf = newest_gguf(run)
    assert gguf.is_relative_to(tmp_path / "another")
    assert Llama(gguf).tokenize("Who are we?")
    assert json.loads((run.local_copy("merged") / "config.json").read_text())["hidden_size"] == 64
    assert run_stages(config, STAGES, fresh=False) == manifests  # on that node too nothing is left to do
