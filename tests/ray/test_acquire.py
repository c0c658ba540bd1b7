"""acquire on mirrors that misbehave, and on local files."""

import contextlib
import json
import random
import shutil
import tracemalloc
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE_IDS, Configure
from hypothesis import given
from hypothesis import strategies as st
from mirrors import FaultyMirror, many_books, plant, sample_book

from deepred_ray.config import Config
from deepred_ray.errors import DeepredError, InputError, MirrorError
from deepred_ray.mirror import SAMPLES
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import BOOKS, REJECTS
from deepred_ray.stages import acquire, fetch, local
from deepred_ray.stages.selection import Wish
from deepred_ray.theme import Theme

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

PAGE, EMPTY, WRONG, UNKNOWN = 990001, 990002, 990003, 990009


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


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_mirror_with_every_fault_yields_every_book_once(tmp_path: Path, configure: Configure) -> None:
    folder = tmp_path / "mirror"
    shutil.copytree(SAMPLES, folder)
    plant(folder, EMPTY, b"")
    with FaultyMirror(folder, busy=0.2, captcha=0.1, cut=0.1) as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": (*SAMPLE_IDS, EMPTY, UNKNOWN)})
        manifest = acquired(config)
        assert min(mirror.faults[kind] for kind in ("busy", "captcha", "cut")) >= 1
        assert (manifest.rows_in, manifest.kept) == (10, 6)
        assert book_ids(config) == strings(range(900001, 900007))
        named = {
            "900007": "wrong_language",
            "900008": "published_after_cutoff",
            str(EMPTY): "empty_file",
            str(UNKNOWN): "not_on_mirror",
        }
        assert rejects(config) == named

        # Only what the road caused is asked for again, and not counted twice.
        mirror.lift()
        mirror.asked.clear()
        assert acquired(config).rejected == manifest.rejected
        assert {path for path in mirror.books_asked() if str(UNKNOWN) not in path} == set()
        assert len(mirror.books_asked()) == len(fetch.paths(UNKNOWN, set())) == 7


def test_a_book_that_fails_goes_behind_the_others(tmp_path: Path, configure: Configure) -> None:
    ids = many_books(tmp_path / "mirror", 6)
    places = [f"/cache/epub/{book_id}/pg{book_id}.txt" for book_id in ids]
    with FaultyMirror(tmp_path / "mirror", broken={places[1]: fetch.TRIES_A_ROUND}) as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": ids, "retries": fetch.TRIES_A_ROUND})
        assert acquired(config).kept == 6
        # In the first round Ray Data may take the books in another order.
        *first, last = mirror.books_asked()
        assert last == places[1]
        assert Counter(first) == Counter(places) + Counter({places[1]: fetch.TRIES_A_ROUND - 1})


def test_what_came_instead_of_a_book_is_quarantined(tmp_path: Path, configure: Configure) -> None:
    page = b'<?xml version="1.0"?>\n<!DOCTYPE html><html><body>' + "<p>Схід</p>\n".encode() * 900 + b"</body></html>"
    plant(tmp_path / "mirror", PAGE, page)
    plant(tmp_path / "mirror", WRONG, sample_book(55))
    [good] = many_books(tmp_path / "mirror", 1)
    with FaultyMirror(tmp_path / "mirror") as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": (PAGE, WRONG, good), "retries": 0})
        assert acquired(config).rejected == {"html_page": 1, "wrong_book": 1}
        assert book_ids(config) == [str(good)]
        kept = {row["id"]: row for row in open_run(config).table("rejects/acquire").read_table(REJECTS).to_pylist()}
        assert kept[str(PAGE)]["raw"] == page.decode()[:4_000]
        assert kept[str(WRONG)]["raw"] == sample_book(55).decode()[:4_000]
        assert kept[str(WRONG)]["detail"].endswith(f"/cache/epub/{WRONG}/pg{WRONG}.txt: its header says that it is number 55")

        # The mirror is mended, and the same command asks for these two only.
        plant(tmp_path / "mirror", WRONG, sample_book(WRONG))
        mirror.asked.clear()
        assert acquired(config).rejected == {"html_page": 1}
        assert [path for path in mirror.books_asked() if str(good) in path] == []


def test_an_unchanged_book_is_not_sent_to_a_second_run(tmp_path: Path, configure: Configure) -> None:
    ids = many_books(tmp_path / "mirror", 3)
    with FaultyMirror(tmp_path / "mirror", dated=True) as mirror:
        tables = []
        for name in ("first", "second"):
            config = configure(acquire={"mirror": mirror.base, "ids": ids}).model_copy(update={"run": name})
            assert acquired(config).kept == 3
            table = open_run(config).table("books").read_table(BOOKS).sort_by("book_id")
            tables.append(table.drop_columns("fetched_at").to_pylist())
        assert tables[0] == tables[1]
        assert [path for path in mirror.unchanged if path.endswith(".txt")] == mirror.served[3:]
        assert len(mirror.served) == 6


def test_a_mirror_that_asks_for_a_day_is_asked_no_more(tmp_path: Path, configure: Configure) -> None:
    ids = many_books(tmp_path / "mirror", 6)
    with FaultyMirror(tmp_path / "mirror", limit=2, then="busy") as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": ids, "retries": 50})
        with pytest.raises(MirrorError, match=r"stay away for 86400 s, until \d{4}-\d\d-\d\d"):
            acquired(config)
        assert book_ids(config) == strings(ids[:2])
        assert len(mirror.books_asked()) == 3
        mirror.lift()
        assert acquired(config).kept == 6


# --- what the one actor asks for


def fetched(actor: fetch.FetchBooks, book_id: int) -> tuple[str, str, int]:
    """Problem, path or message, and bytes of one book."""
    row = actor({"wish": [json.dumps(asdict(Wish(str(book_id))))]})
    return row["problem"][0], row["url"][0].removeprefix(actor.downloader.base), len(row["raw"][0])


def actor_for(mirror: FaultyMirror, **changes: Any) -> fetch.FetchBooks:
    settings = {"delay": 0.0, "contact": "", "retries": 0, "timeout": 5.0} | changes
    return fetch.FetchBooks(mirror.base, settings)


def test_the_layout_that_answers_is_asked_first(tmp_path: Path) -> None:
    names = {
        61963: "6/1/9/6/61963/61963-0.txt",
        4: "0/4/4.txt",
        10: "1/10/10-8.txt",
        11: "cache/epub/11/pg11.txt",
        12: "cache/epub/12/pg12.txt",
        13: "1/13/13-readme.txt",
    }
    for book_id, name in names.items():
        plant(tmp_path, book_id, sample_book(book_id), name)
    plant(tmp_path, 12, sample_book(12), "1/12/12-8.txt")  # and the worse variant beside it
    with FaultyMirror(tmp_path) as mirror:
        actor = actor_for(mirror)
        asked = {}
        for book_id, name in names.items():
            mirror.asked.clear()
            missing = ("not_on_mirror", "nothing at 7 paths, from /cache/epub/13/pg13.txt to /files/13/13.txt", 0)
            assert fetched(actor, book_id) == (missing if book_id == 13 else ("", f"/{name}", len(sample_book(book_id))))
            asked[book_id] = mirror.books_asked()
    assert {book_id: len(paths) for book_id, paths in asked.items()} == {61963: 3, 4: 3, 10: 2, 11: 4, 12: 1, 13: 7}


def test_every_place_is_asked_in_the_order_of_quality() -> None:
    assert [path for _, path in fetch.paths(4, set())] == [
        "/cache/epub/4/pg4.txt",
        "/files/4/4-0.txt",
        "/0/4/4-0.txt",
        "/files/4/4-8.txt",
        "/0/4/4-8.txt",
        "/files/4/4.txt",
        "/0/4/4.txt",
    ]
    for answered in ({"tree"}, {"flat"}, {"cache", "tree"}, {"cache", "flat", "tree"}):
        places = fetch.paths(61963, answered)
        assert sorted(places) == sorted(fetch.paths(61963, set()))
        assert {layout for layout, _ in places[: sum(len(fetch.LAYOUTS[layout]) for layout in answered)]} == answered


def test_another_place_may_have_the_right_book(tmp_path: Path) -> None:
    plant(tmp_path, 61963, sample_book(55))
    plant(tmp_path, 61963, sample_book(61963), "files/61963/61963-0.txt")
    with FaultyMirror(tmp_path) as mirror:
        assert fetched(actor_for(mirror), 61963) == ("", "/files/61963/61963-0.txt", len(sample_book(61963)))


def test_after_three_failures_in_a_row_nothing_more_is_asked(tmp_path: Path) -> None:
    ids = many_books(tmp_path, 6)
    with FaultyMirror(tmp_path, limit=1) as mirror:
        actor = actor_for(mirror)
        problems = [fetched(actor, book_id)[0] for book_id in ids]
        assert problems == ["", "download_failed", "download_failed", "mirror_gone", "mirror_gone", "mirror_gone"]
        assert len(mirror.books_asked()) == 4


def test_three_wrong_books_are_no_mirror_that_is_gone(tmp_path: Path) -> None:
    for book_id in range(1, 5):
        plant(tmp_path, book_id, sample_book(55))
    with FaultyMirror(tmp_path) as mirror:
        actor = actor_for(mirror)
        assert [fetched(actor, book_id)[0] for book_id in range(1, 5)] == ["wrong_book"] * 4


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
    assert rejects(config) == {f"{folder}/rows.jsonl:{number}": "malformed_row" for number in (3, 4, 5, 6, 7)}
    assert book_ids(config) == ["900006-0", "row-1", "row-2", "row-8", "row-9"]
    assert (manifest.rows_in, manifest.kept) == (10, 5)
    books = {row["book_id"]: row for row in open_run(config).table("books").read_table(BOOKS).to_pylist()}
    assert books["900006-0"]["title"] == "The Thinking Bureau"
    assert books["row-9"]["year"] == 1931
    assert "Project Gutenberg" not in books["900006-0"]["text"]

    # A second look at the same folder finds nothing new.
    assert acquired(config) == manifest


def test_of_local_books_with_one_id_the_first_is_the_book(tmp_path: Path, configure: Configure) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "story.txt").write_text(local_book(name), "utf-8")
    lines = [json.dumps(row) for row in [*local_rows(1, 2, 1), *local_rows(1)]]
    (tmp_path / "second" / "rows.jsonl").write_text("\n\n".join(lines) + "\n   \n", "utf-8")
    inputs = (str(tmp_path / "first"), str(tmp_path / "second"), str(tmp_path / "first" / "story.txt"))
    config = configure(acquire={"input": inputs, "ids": ()})
    manifest = acquired(config)
    rows, story = tmp_path / "second" / "rows.jsonl", tmp_path / "second" / "story.txt"
    assert rejects(config) == dict.fromkeys((f"{rows}:5", f"{rows}:7", str(story)), "duplicate_id")
    kept = open_run(config).table("rejects/acquire").read_table(REJECTS).to_pylist()
    details = {row["id"]: row["detail"] for row in kept}
    assert details[str(story)] == f"{story}: id 'story' is that of {tmp_path / 'first' / 'story.txt'}"
    assert details[f"{rows}:7"] == f"{rows}:7: id 'row-1' is that of {rows}:1"
    books = {row["book_id"]: row for row in open_run(config).table("books").read_table(BOOKS).to_pylist()}
    assert sorted(books) == ["row-1", "row-2", "story"]
    assert books["story"]["title"] == "first"
    assert books["story"]["source_url"] == (tmp_path / "first" / "story.txt").as_uri()
    assert acquired(config) == manifest


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b'{"id": "1", "title": "A", "author": "B"}', "no text"),
        (b'{"id": "", "title": "A", "author": "B", "text": "C"}', "no id"),
        (b'{"id": true, "title": "A", "author": "B", "text": "C"}', "id is no text: True"),
        (b'{"id": "1", "title": ["A"], "author": "B", "text": "C"}', "title is no text: ['A']"),
        (b'{"id": "1", "title": "\\ud800", "author": "B", "text": "C"}', "surrogates not allowed"),
        (b'{"id": "1", "title": "A", "author": "B", "text": "C", "year": "1931"}', "year is no year: '1931'"),
        (b'{"id": "1", "title": "A", "author": "B", "text": "C", "year": 1931.5}', "year is no year: 1931.5"),
        (b'{"id": "1", "title": "A", "author": "B", "text": "C", "year": 99999}', "year is no year: 99999"),
        (b'{"id": "1", "title": "\xe9", "author": "B", "text": "C"}', "can't decode byte 0xe9"),
        (b"[1, 2]", "not a JSON object"),
        (b"7", "not a JSON object"),
        (b'{"id": "1", ', "Expecting property name"),
    ],
)
def test_a_row_that_is_no_book_says_why(tmp_path: Path, row: bytes, said: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\n" + row + b"\n")
    [read] = local.ReadLocal()({"path": str(tmp_path / "rows.jsonl")})
    assert (read["problem"], read["raw"]) == ("malformed_row", row + b"\n")
    assert json.loads(read["wish"])["book_id"] == f"{tmp_path}/rows.jsonl:2"
    assert said in read["url"]


@given(
    st.dictionaries(st.sampled_from(["id", "title", "author", "text", "year"]), st.none() | st.integers() | st.text() | st.floats())
)
def test_a_row_is_a_book_or_a_value_error(fields: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        wish, text = local.parse(dict(fields))
        assert (wish.book_id, wish.title, text.decode()) == (str(fields["id"]), fields["title"], fields["text"])
        assert wish.year is None or wish.year == fields["year"]


def test_a_year_may_be_given(tmp_path: Path) -> None:
    table = pa.table(
        {**{name: ["a", "b", "c"] for name in ("title", "author", "text")}, "id": [1, 2, 3], "year": [1931, None, -380]}
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text('{"id": "4", "title": "A", "author": "", "text": "C", "year": 1931.0}\n')
    actor = local.ReadLocal()
    rows = [row for name in ("rows.parquet", "rows.jsonl") for row in actor({"path": str(tmp_path / name)})]
    wishes = [json.loads(row["wish"]) for row in rows]
    assert [(wish["book_id"], wish["year"]) for wish in wishes] == [("1", 1931), ("2", None), ("3", -380), ("4", 1931)]
    assert [wish["authors"] for wish in wishes] == [["a"], ["b"], ["c"], []]


def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    rows = [{"id": str(n), "title": "T", "author": "A", "text": random.Random(n).randbytes(5_000).hex()} for n in range(1_000)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=100)
    for name in ("rows.jsonl", "rows.parquet"):
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        largest = 0
        for count, row in enumerate(local.ReadLocal()({"path": str(tmp_path / name)}), 1):
            assert row["raw"].decode() == rows[count - 1]["text"]
            largest = max(largest, pa.total_allocated_bytes() - before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 1_000
        assert max(peak, largest) < 4_000_000 < (tmp_path / "rows.jsonl").stat().st_size


def test_a_table_that_cannot_be_read_is_told_before_anything_is(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["1"], "title": ["A"], "body": ["B"]}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows\.parquet has no column author, text"):
        local.local_files((str(tmp_path),))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"rows\.parquet is no Parquet file"):
        local.local_files((str(tmp_path),))


def test_a_file_that_breaks_off_is_a_reject_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(local_rows(*range(200))), path, row_group_size=64)
    whole = path.read_bytes()
    offset = pq.read_metadata(path).row_group(2).column(0).dictionary_page_offset
    path.write_bytes(whole[:offset] + bytes(64) + whole[offset + 64 :])
    *read, last = local.ReadLocal()({"path": str(path)})
    assert len(read) == 128
    assert {row["problem"] for row in read} == {""}
    assert (last["problem"], json.loads(last["wish"])["book_id"]) == ("unreadable_file", str(path))


def test_of_a_folder_one_variant_of_a_book_is_taken_and_no_leaflet(tmp_path: Path) -> None:
    names = ["a/4.txt", "a/4-8.txt", "a/4-0.txt", "a/5.txt", "a/5-8.txt", "b/4.txt", "b/4-1.txt", "b/story-8.txt"]
    for name in [*names, "a/4-readme.txt", "a/LICENSE.txt", "b/README.txt", "b/notes.md"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in local.local_files((str(tmp_path),))]
    assert found == ["a/4-0.txt", "a/5-8.txt", "b/4-1.txt", "b/4.txt", "b/story-8.txt"]
    assert local.local_files((str(tmp_path / "a/4.txt"), str(tmp_path / "a/4.txt"))) == [tmp_path / "a/4.txt"]


def test_nothing_to_read_is_an_error(tmp_path: Path, configure: Configure) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing", "missing.txt"):
        with pytest.raises(DeepredError, match=name):
            acquired(configure(acquire={"input": (str(tmp_path / name),), "ids": ()}))
