"""Worker processes that are killed, an engine that a prompt kills, and a mirror that is switched off, in the middle of a stage."""

import threading
import time
from pathlib import Path

import pytest
from conftest import Configure
from faults import Whole, add_books, begin_before, bring, chunked, killing, same, scripted_engines, told
from mirrors import FaultyMirror, many_books

from deepred_ray.config import Config
from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS
from deepred_ray.theme import Theme

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def book_ids(run: Run) -> list[str]:
    return sorted(run.table("books").read_table(BOOKS, ["book_id"])["book_id"].to_pylist())


@pytest.mark.nightly
@pytest.mark.usefixtures("local_ray")
def test_a_killed_fetching_actor_is_replaced(configure: Configure, tmp_path: Path) -> None:
    ids = many_books(tmp_path / "mirror", 14)
    with FaultyMirror(tmp_path / "mirror", limit=9, then="hold") as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": ids})
        with killing("FetchBooks", lambda: len(mirror.served) == 9):
            threading.Thread(target=lift_later, args=(mirror,), daemon=True).start()
            bring(config, "acquire")
    run = Run(config.root, config.run)
    assert book_ids(run) == [str(book_id) for book_id in ids]


def lift_later(mirror: FaultyMirror) -> None:
    """Once the actor that waits for the mirror has been killed, its successor has asked again."""
    while len(mirror.books_asked()) < 11:
        time.sleep(0.05)
    mirror.lift()


@pytest.mark.usefixtures("local_ray")
def test_a_killed_chunking_task_is_done_again(configure: Configure, sample_run: Run, tmp_path: Path) -> None:
    add_books(sample_run, 40)
    sample_run.discard_from("corpus")
    config = configure()
    with killing("FlatMap", lambda: len(sample_run.table("chunks").files()) > 8):
        bring(config, "corpus")
    manifest = sample_run.manifest("corpus")
    assert manifest is not None
    rows = chunked(sample_run)["chunks"]
    assert manifest.rows_in == len(rows) == manifest.kept + sum(manifest.rejected.values())
    # Every copy has the chunks of its original, each once.
    books = {
        name: [row["chunk_id"].split(":")[1] for row in rows if row["chunk_id"].startswith(f"{name}:")]
        for name in book_ids(sample_run)
    }
    assert all(places == books[name.split("-")[0]] for name, places in books.items())
    assert len(books) == 41 * 6


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("stage", "named", "by_itself"),
    [
        ("synthesize", "ray::conclude", False),
        ("train", "Tokenizer", True),
        ("export", "ray::merge", False),
        ("export", "ray::convert", False),
        ("evaluate", "AskPrompts", True),
        ("evaluate", "ray::score", False),
    ],
)
def test_a_killed_worker_costs_its_own_work_at_most(
    stage: str,
    named: str,
    by_itself: bool,
    small: Config,
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted_engines(monkeypatch)
    undisturbed = whole.until(stage)
    run = begin_before(undisturbed, tmp_path / "runs", stage)
    with killing(named):
        if by_itself:
            bring(small, stage)
        else:
            said = told(small, stage, capsys)
            assert "a worker process of Ray was lost" in said
            assert "The same command goes on" in said
    if not by_itself:
        assert run.manifest(stage) is None
        bring(small, stage)
    assert same(run, undisturbed, stage)


@pytest.mark.nightly
def test_a_prompt_that_kills_the_engine_is_named_by_the_evaluation(
    small: Config, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_engines(monkeypatch)
    undisturbed = whole.until("evaluate")
    run = begin_before(undisturbed, tmp_path / "runs", "evaluate")
    asked = {row["prompt_id"] for row in undisturbed_answers(undisturbed)}
    item = next(item for item in Theme.find(small.theme).evaluation if item.id in asked)
    poison = Path(small.model) / "poison"
    poison.write_text(item.prompt)
    try:
        said = told(small, "evaluate", capsys)
    finally:
        poison.unlink()
    assert f"dies of prompt {item.id}: RuntimeError: the engine died" in said
    assert run.manifest("evaluate") is None
    bring(small, "evaluate")
    assert same(run, undisturbed, "evaluate")


def undisturbed_answers(run: Run) -> list[dict[str, str]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, str]] = pq.read_table(run.scratch / "evaluation" / "responses.parquet").to_pylist()
    return rows


@pytest.mark.usefixtures("local_ray")
def test_a_mirror_that_is_switched_off_leaves_what_arrived(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = many_books(tmp_path / "mirror", 14)
    with FaultyMirror(tmp_path / "mirror", limit=9, then="hold") as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": ids, "retries": 0, "timeout": 2.0})
        run = Run(config.root, config.run)

        def switch_off() -> None:
            while len(mirror.books_asked()) < 10:
                time.sleep(0.02)
            mirror.server.shutdown()
            mirror.server.server_close()

        off = threading.Thread(target=switch_off)
        off.start()
        said = told(config, "acquire", capsys)
        off.join()
        arrived = book_ids(run)
        assert len(arrived) == 9
        assert all(any(book_id in path for path in mirror.served) for book_id in arrived)
    assert f"mirror {mirror.base} went away, 3 books or more are missing" in said
    assert "Wait and repeat the command: what arrived is kept." in said
    with FaultyMirror(tmp_path / "mirror") as again:
        bring(configure(acquire={"mirror": again.base, "ids": ids}), "acquire")
        assert not [path for path in again.books_asked() if any(book_id in path for book_id in arrived)]
    assert book_ids(run) == [str(book_id) for book_id in ids]
