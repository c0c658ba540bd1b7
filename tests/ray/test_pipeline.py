"""Stages of one run folder: skipped, extended, refused, made afresh, finished after a kill, and only by one driver."""

import signal
from functools import partial
from pathlib import Path

import pytest
from conftest import SAMPLE_IDS, Configure
from driving import Driver, driving, wait_until
from mirrors import FaultyMirror, many_books
from scripted import ScriptedEngine, write_model

from deepred_ray.config import Config
from deepred_ray.errors import DeepredError, RunBusyError, StaleRunError
from deepred_ray.pipeline import run_stages
from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS, CANDIDATES, CHUNKS, EXAMPLES, SLOTS
from deepred_ray.stages import synthesize

pytestmark = pytest.mark.ray


def contents(run: Run, *tables: str) -> dict[str, bytes]:
    return {file.path: file.read_bytes() for table in tables for file in run.table(table).files()}


def test_a_run_is_skipped_refused_extended_and_made_afresh(local_ray: str, configure: Configure) -> None:
    both = ["acquire", "corpus"]
    few = configure(acquire={"ids": SAMPLE_IDS[:3]})
    first = run_stages(few, both, fresh=False)
    run = Run(few.root, few.run)
    made = contents(run, "acquire", "corpus", "books", "chunks")
    assert first[0].kept == 3
    assert first[1].inputs == {"acquire": first[0].fingerprint}

    assert run_stages(few, both, fresh=False) == first
    assert contents(run, "acquire", "corpus", "books", "chunks") == made

    for changed in (configure(acquire={"ids": SAMPLE_IDS[:3]}, corpus={"size": 900}), configure(acquire={"ids": SAMPLE_IDS[:2]})):
        with pytest.raises(StaleRunError, match="--fresh"):
            run_stages(changed, both, fresh=False)
    assert contents(run, "acquire", "corpus", "books", "chunks") == made

    more = configure(acquire={"ids": SAMPLE_IDS})
    grown = run_stages(more, both, fresh=False)
    assert (grown[0].rows_in, grown[0].kept) == (8, 6)
    assert grown[1].rows_in > first[1].rows_in
    old = {path: body for path, body in made.items() if path.endswith(".parquet")}
    assert old.items() <= contents(run, "books", "chunks").items()
    assert not (run.folder / "lease.json").exists()

    again = run_stages(configure(corpus={"size": 900}), ["corpus"], fresh=True)
    assert again[0].identity["corpus.size"] == 900
    assert again[0].rows_in == run.table("chunks").read_table(CHUNKS).num_rows != grown[1].rows_in
    assert run.manifest("acquire") == grown[0]


def kill(driver: Driver, config: Config, *stages: str) -> None:
    """Kill the driver in the middle, after another one has been refused. It is no obstacle before it is reaped, either."""
    with pytest.raises(RunBusyError, match=str(driver.pid)):
        run_stages(config, stages, fresh=False)
    driver.send_signal(signal.SIGKILL)


def test_a_killed_acquire_is_finished_by_the_same_call(local_ray: str, configure: Configure, tmp_path: Path) -> None:
    ids = many_books(tmp_path / "mirror", 20)
    with FaultyMirror(tmp_path / "mirror", limit=17, then="hold") as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": ids})
        table = Run(config.root, config.run).table("books")
        with driving(local_ray, config, tmp_path, "acquire") as driver:
            wait_until(lambda: table.files(".parquet") and len(mirror.served) == 17, driver, tmp_path / "driver.log")
            kill(driver, config, "acquire")
        arrived = table.read_table(BOOKS, ["book_id"])["book_id"].to_pylist()
        mirror.lift()
        mirror.asked.clear()
        manifest = run_stages(config, ["acquire"], fresh=False)[0]
        assert (manifest.rows_in, manifest.kept) == (20, 20)
        assert sorted(table.read_table(BOOKS)["book_id"].to_pylist()) == [str(book_id) for book_id in ids]
        assert not [path for path in mirror.books_asked() if any(book_id in path for book_id in arrived)]


def test_a_killed_synthesis_is_finished_by_the_same_call(
    local_ray: str, configure: Configure, sample_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model")
    config = configure(model=str(model), synthesize={"examples": 48})
    table = sample_run.table("candidates")
    (model / "hold").touch()
    with driving(local_ray, config, tmp_path, "synthesize") as driver:
        wait_until(lambda: table.files(".parquet"), driver, tmp_path / "driver.log")
        kill(driver, config, "synthesize")
    with pytest.raises(DeepredError, match="no whole `synthesize`"):
        run_stages(config, ["train"], fresh=False)
    left = table.read_table(CANDIDATES).to_pylist()
    (model / "hold").unlink()

    monkeypatch.setattr(synthesize, "run", partial(synthesize.run, make_engine=ScriptedEngine))
    manifest = run_stages(config, ["synthesize"], fresh=False)[0]
    attempts = table.read_table(CANDIDATES).to_pylist()
    assert 0 < len(left) < len(attempts) == manifest.rows_in
    assert all(row in attempts for row in left)
    assert len({(row["example_id"], row["attempt"]) for row in attempts}) == len(attempts)
    slots, examples = sample_run.table("slots").read_table(SLOTS), sample_run.table("examples").read_table(EXAMPLES)
    assert examples["example_id"].to_pylist() == slots["example_id"].to_pylist()
    assert len(set(examples["example_id"].to_pylist())) == examples.num_rows == 48
