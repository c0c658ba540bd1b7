"""acquire on mirrors that misbehave, and on local files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE_IDS, Configure
from mirrors import FaultyMirror, many_books, plant

from deepred_ray.config import Config
from deepred_ray.errors import DeepredError, InputError, MirrorError
from deepred_ray.mirror import SAMPLES
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import BOOKS, REJECTS
from deepred_ray.stages import acquire, fetch
from deepred_ray.theme import Theme

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

PAGE, EMPTY, UNKNOWN = 990001, 990002, 990009


def open_run(config: Config) -> Run:
    return Run(config.root, config.run)


def acquired(config: Config) -> Manifest:
    manifest = acquire.run(open_run(config), config, Theme.find(config.theme))
    manifest.check()
    return manifest


def book_ids(config: Config) -> list[str]:
    return sorted(open_run(config).table("books").read_table(BOOKS, ["book_id"])["book_id"].to_pylist())


def rejects(config: Config) -> dict[str, str]:
    rows = open_run(config).table("rejects/acquire").read_table(REJECTS).to_pylist()
    reasons = {row["id"]: row["reason"] for row in rows}
    assert len(reasons) == len(rows)
    return reasons


def strings(ids: Any) -> list[str]:
    return sorted(str(book_id) for book_id in ids)


def test_a_busy_mirror_with_captchas_yields_every_book_once(tmp_path: Path, configure: Configure) -> None:
    folder = tmp_path / "mirror"
    shutil.copytree(SAMPLES, folder)
    page = (
        b'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html><html><body>'
        + b"<p>A story of Mars.</p>\n" * 50
        + b"</body></html>"
    )
    plant(folder, PAGE, page)
    plant(folder, EMPTY, b"")
    with FaultyMirror(folder, busy=0.3, captcha=0.1) as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": (*SAMPLE_IDS, PAGE, EMPTY, UNKNOWN)})
        manifest = acquired(config)
        assert mirror.faults["busy"] >= 4
        assert mirror.faults["captcha"] >= 1
        assert (manifest.rows_in, manifest.kept) == (11, 6)
        assert book_ids(config) == strings(range(900001, 900007))
        named = {
            "900007": "wrong_language",
            "900008": "published_after_cutoff",
            str(PAGE): "html_page",
            str(EMPTY): "empty_file",
            str(UNKNOWN): "not_on_mirror",
        }
        assert rejects(config) == named

        # Only what the road caused is asked for again, and not counted twice.
        mirror.lift()
        mirror.asked.clear()
        assert acquired(config).rejected == manifest.rejected
        assert {path for path in mirror.books_asked() if str(UNKNOWN) not in path} == set()
        assert len(mirror.books_asked()) == len(fetch.BOOK_PATHS)


def test_a_mirror_that_goes_away_leaves_what_arrived(tmp_path: Path, configure: Configure) -> None:
    ids = many_books(tmp_path / "mirror", 14)
    with FaultyMirror(tmp_path / "mirror", limit=11) as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": ids, "retries": 1})
        with pytest.raises(MirrorError, match=mirror.base):
            acquired(config)
        arrived = book_ids(config)
        assert len(arrived) == len(set(arrived)) == len(mirror.served) == 11

        mirror.lift()
        mirror.asked.clear()
        manifest = acquired(config)
        assert (manifest.rows_in, manifest.kept, manifest.rejected) == (14, 14, {})
        assert book_ids(config) == strings(ids)
        assert not [path for path in mirror.books_asked() if any(book_id in path for book_id in arrived)]
        assert len(mirror.books_asked()) == 3


def local_book(title: str) -> str:
    """Text of a book as somebody may have it on disk, named by a header and dated by its title page."""
    body = (SAMPLES / "cache" / "epub" / "900001" / "pg900001.txt").read_text("utf-8").split("CHAPTER")[2]
    return f"Title: {title}\n\nAuthor: A. Writer\n\n{title}\n\nby A. Writer\n\nFirst published 1931\n\n\nCHAPTER{body}"


def local_rows(*numbers: int) -> list[dict[str, str]]:
    return [{"id": f"row-{n}", "title": f"Book {n}", "author": "Writer, A.", "text": local_book(f"Book {n}")} for n in numbers]


def test_local_files_are_books_and_bad_rows_are_rejects(tmp_path: Path, configure: Configure) -> None:
    folder = tmp_path / "books"
    shutil.copytree(SAMPLES / "files" / "900006", folder)
    separator = local_rows(2)[0] | {"title": "Two\u2028lines"}  # a line to Unicode, but not to JSON Lines
    nameless = local_rows(3)[0] | {"id": None}
    lines = [*local_rows(1), separator, nameless, {"id": "row-4", "title": "No text", "author": "Nobody"}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines) + '{"id": "row-5", "ti\n["row-6"]\n'
    (folder / "rows.jsonl").write_bytes(text.encode() + b'{"id": "row-7 in Latin-1: \xe9"}\n')
    pq.write_table(pa.Table.from_pylist(local_rows(8, 9)), folder / "rows.parquet")

    config = configure(acquire={"input": (str(folder),), "ids": ()})
    manifest = acquired(config)
    assert rejects(config) == {f"rows.jsonl:{number}": "malformed_row" for number in (3, 4, 5, 6, 7)}
    assert book_ids(config) == ["900006-0", "row-1", "row-2", "row-8", "row-9"]
    assert (manifest.rows_in, manifest.kept) == (10, 5)
    books = {row["book_id"]: row for row in open_run(config).table("books").read_table(BOOKS).to_pylist()}
    assert books["900006-0"]["title"] == "The Thinking Bureau"
    assert books["row-9"]["year"] == 1931
    assert "Project Gutenberg" not in books["900006-0"]["text"]

    # A second look at the same folder finds nothing new.
    assert acquired(config) == manifest


def test_two_local_books_of_one_id_are_told(tmp_path: Path, configure: Configure) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "story.txt").write_text(local_book(name), "utf-8")
    config = configure(acquire={"input": (str(tmp_path / "first"), str(tmp_path / "second")), "ids": ()})
    with pytest.raises(InputError, match="story"):
        acquired(config)


def test_nothing_to_read_is_an_error(tmp_path: Path, configure: Configure) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing", "missing.txt"):
        with pytest.raises(DeepredError, match=name):
            acquired(configure(acquire={"input": (str(tmp_path / name),), "ids": ()}))
