"""corpus on the sample books: what is a chunk, what is dropped, and what an added book may change."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import LOOSE, Configure
from transformers import AutoTokenizer

from deepred_ray import models
from deepred_ray.config import Config
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import BOOKS, CHUNKS, REJECTS
from deepred_ray.stages import corpus
from deepred_ray.storage import rows_table, shard_name
from deepred_ray.theme import Theme

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
Row = dict[str, Any]


def chunked(run: Run, config: Config) -> Manifest:
    manifest = corpus.run(run, config, Theme.find(config.theme))
    manifest.check()
    return manifest


def books(run: Run) -> dict[str, Row]:
    return {row["book_id"]: row for row in run.table("books").read_table(BOOKS).to_pylist()}


def chunks(run: Run) -> list[Row]:
    return run.table("chunks").read_table(CHUNKS).to_pylist(maps_as_pydicts="strict")


def add_book(run: Run, book: Row) -> None:
    run.table("books").write_table(rows_table([book], BOOKS), f"added-{book['book_id']}")


def shards(run: Run) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in run.table("chunks").files()}


def words(text: str) -> str:
    return "".join(text.split())


def test_every_chunk_is_told_and_lies_where_it_says(sample_run: Run) -> None:
    manifest = sample_run.manifest("corpus")
    assert manifest is not None
    texts, rows = {key: book["text"] for key, book in books(sample_run).items()}, chunks(sample_run)
    assert manifest.rows_in == len(rows) == manifest.kept + sum(manifest.rejected.values())
    assert manifest.kept == sum(row["kept"] for row in rows) > 50
    assert len({row["chunk_id"] for row in rows}) == len(rows)
    assert {row["book_id"] for row in rows} == set(texts)
    for row in rows:
        assert row["chunk_id"] == f"{row['book_id']}:{row['start']}-{row['end']}"
        assert words(texts[row["book_id"]][row["start"] : row["end"]]) == words(row["text"])
        assert row["kept"] == (row["reason"] is None)
        assert (row["twin_of"] is not None) == (row["reason"] == "twin")
        assert row["total"] == sum(row["themes"].values())
        if row["kept"]:
            assert row["total"] >= LOOSE["min_matches"]
            assert len(row["text"]) >= 256


def test_windows_overlap_and_lie_where_they_say(sample_root: Path, configure: Configure, tmp_path: Path) -> None:
    run = Run(str(tmp_path / "runs"), "test")
    book = books(Run(str(sample_root), "test"))["900001"]
    add_book(run, book)
    chunked(run, configure(corpus={"method": "overlap", "size": 512, "overlap": 96}))
    rows = sorted(chunks(run), key=lambda row: row["start"])
    assert all(words(book["text"][row["start"] : row["end"]]) == words(row["text"]) for row in rows)
    # A rest of the text that is too short for a window of its own lengthens the last one.
    assert all(row["end"] - row["start"] <= 512 + 256 for row in rows)
    assert sum(after["start"] < row["end"] for row, after in itertools.pairwise(rows)) > len(rows) / 2


def test_sizes_in_tokens_are_those_of_the_model(sample_root: Path, configure: Configure, tmp_path: Path) -> None:
    run = Run(str(tmp_path / "runs"), "test")
    add_book(run, books(Run(str(sample_root), "test"))["900001"])
    chunked(run, configure(corpus={"tokenizer": "smollm2", "size": 120, "minimum": 30, "overlap": 20}))
    tokenizer = AutoTokenizer.from_pretrained(models.resolve("smollm2"))
    lengths = [len(tokenizer.encode(row["text"], add_special_tokens=False)) for row in chunks(run)]
    assert len(lengths) > 20
    assert max(lengths) <= 120 + 3 * 32
    assert sum(length <= 120 for length in lengths) > 0.9 * len(lengths)
    assert sorted(lengths)[len(lengths) // 2] > 60


def test_an_added_book_leaves_what_is_there_and_its_repeats_are_twins(sample_run: Run, configure: Configure) -> None:
    before, kept_before = shards(sample_run), [row for row in chunks(sample_run) if row["kept"]]
    original = books(sample_run)["900001"]
    # An id whose shard comes before the original's, so that only the order of arrival can tell which is the repeat.
    names = (f"copy-{random.Random(seed).random():.6f}" for seed in range(100))
    copy = next(name for name in names if shard_name([name]) < shard_name(["900001"]))
    later = original["fetched_at"].replace(year=original["fetched_at"].year + 1)
    add_book(sample_run, original | {"book_id": copy, "fetched_at": later})
    add_book(sample_run, original | {"book_id": "tiny", "text": "Nothing.", "body_start": 8, "fetched_at": later})

    manifest = chunked(sample_run, configure())
    assert before.items() <= shards(sample_run).items()
    assert [row for row in chunks(sample_run) if row["kept"]] == kept_before
    of_copy = [row for row in chunks(sample_run) if row["book_id"] == copy]
    of_original = {row["text"]: row["chunk_id"] for row in kept_before if row["book_id"] == "900001"}
    twins = [row for row in of_copy if row["reason"] == "twin"]
    assert len(twins) == len(of_original) > 5
    assert all(of_original[row["text"]] == row["twin_of"] for row in twins)
    assert manifest.rejected["twin"] >= len(twins)
    assert manifest.outputs == {"books": 8, "books_without_chunks": 1}
    unused = sample_run.table("rejects/corpus").read_table(REJECTS).to_pylist()
    assert [(row["id"], row["reason"]) for row in unused] == [("tiny", "no_chunk")]

    # And the same again, when nothing is new.
    after = shards(sample_run)
    assert chunked(sample_run, configure()) == manifest
    assert shards(sample_run) == after


def test_passages_of_another_edition_are_twins_and_named(sample_run: Run, configure: Configure) -> None:
    original = books(sample_run)["900001"]
    kept = {row["start"]: row for row in chunks(sample_run) if row["kept"] and row["book_id"] == "900001"}
    words_of = original["text"].split(" ")
    edition = " ".join("colour" if number % 40 == 39 else word for number, word in enumerate(words_of))
    later = original["fetched_at"].replace(year=original["fetched_at"].year + 1)
    add_book(sample_run, original | {"book_id": "edition", "text": edition, "fetched_at": later})

    chunked(sample_run, configure())
    found = {row["twin_of"] for row in chunks(sample_run) if row["book_id"] == "edition" and row["reason"] == "twin"}
    assert found <= {row["chunk_id"] for row in kept.values()}
    assert len(found) > len(kept) / 2
    assert not any(row["reason"] == "twin" for row in chunks(sample_run) if row["book_id"] != "edition")

    # Only what differs in no word is a twin, when that is asked for.
    loose = Run(str(sample_run.root), "strict")
    for book in (original, original | {"book_id": "edition", "text": edition, "fetched_at": later}):
        add_book(loose, book)
    assert "twin" not in chunked(loose, configure(corpus={"near_duplicates": 1.0})).rejected
