"""What the benchmarks rest on: the plan's algorithm is as defined, and the synthetic books are like books."""

import re
import sys
from itertools import pairwise
from pathlib import Path

import books
import corpus_growth
import numpy as np
import plan_baseline
import processes
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.schema import BOOKS

SAMPLES = Path(books.SHIPPED).parent / "samples" / "mirror"
KEYWORDS = {"work": ["labour", "new world"], "hope": ["labour", "dawn"], "war": ["sword"]}


# The plan's algorithm ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tsv",
    [
        "theme\tkeyword\nwork\tlabour\nhope\tlabour\nwork\tnew world\n",
        "theme\tterm\trarity\tplan\nwork\tlabour\t1\t1\nwork\ttoil\t2\t0\nhope\tlabour\t1\t1\nwork\tnew world\t3\t1\n",
    ],
)
def test_the_plans_keywords_are_read_by_theme(tmp_path, tsv):
    (tmp_path / "lexicon.tsv").write_text(tsv)
    keywords = plan_baseline.read_keywords(tmp_path / "lexicon.tsv")
    assert keywords == {"work": ["labour", "new world"], "hope": ["labour"]}


def test_the_themes_keywords_are_the_plans():
    keywords = plan_baseline.read_keywords(plan_baseline.LEXICON)
    words = [word for words in keywords.values() for word in words]
    assert (len(keywords), len(words), len(set(words))) == (16, 495, 442)


def test_a_keyword_counts_once_for_each_of_its_themes():
    counts = plan_baseline.count("Labour! LABOUR in the New World, before dawn-light.", KEYWORDS)
    assert counts == {"work": 2, "hope": 2, "war": 0}
    assert plan_baseline.total(counts) == 4


@pytest.mark.parametrize("text", ["labourers", "labour_day", "new  world", "new\nworld", "swords"])
def test_a_keyword_hits_whole_and_as_it_is_spelled(text):
    assert plan_baseline.total(plan_baseline.count(text, KEYWORDS)) == 0


def test_paragraphs_are_gathered_while_their_lengths_fit():
    full, rest, long, short = "a" * 600, "b" * 424, "c" * 2000, "d" * 255
    text = f"{full}\n\n{rest}\n \n{long}\n\n\n{short}"
    assert plan_baseline.chunk_paragraphs(text) == [f"{full}\n\n{rest}", long]


@given(st.lists(st.text("ab .", min_size=1).map(str.strip).filter(bool)), st.integers(1, 40))
def test_no_paragraph_is_lost_or_moved(paragraphs, size):
    chunks = plan_baseline.chunk_paragraphs("\n\n".join(paragraphs), size, minimum=0)
    assert [paragraph for chunk in chunks for paragraph in chunk.split("\n\n")] == paragraphs


def test_windows_have_204_words_and_share_25():
    words = [f"word{n}" for n in range(400)]
    windows = [chunk.split(" ") for chunk in plan_baseline.chunk_overlap("\n".join(words))]
    assert windows == [words[0:204], words[179:383], words[358:400]]


def test_chunks_with_enough_matches_pass_with_their_counts():
    works = [{"id": "7", "title": "T", "author": "A", "text": f"{'labour ' * 60}\n\n{'sword ' * 180}"}]
    passed = list(plan_baseline.filter_chunks(plan_baseline.chunk_works(works), KEYWORDS, min_matches=2))
    text = ("labour " * 60).strip()
    counts = {"work": 1, "hope": 1, "war": 0, "total": 2}
    assert passed == [{"work_id": "7", "work_title": "T", "chunk_id": 0, "text": text, "length": 419, "keyword_counts": counts}]


# Books ---------------------------------------------------------------------------------------------------------------


def gutenberg_file(sentence: str) -> bytes:
    body = "\n\n".join([sentence] * 60)
    return f"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n{body}\n\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\n".encode()


def test_the_best_variant_of_each_wanted_book_is_read(tmp_path):
    for name in ("5/5.txt", "5/5-8.txt", "5/5-0.txt", "12/12.txt", "12/12-8.txt", "3/3.txt", "3/3-readme.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gutenberg_file(f"This is what the file {path.name} says."))
    said = {book.book_id: re.findall(r"file (\S+) says", book.text)[0] for book in books.read_books(tmp_path, ["12", "4", "5"])}
    assert list(said.items()) == [("12", "12-8.txt"), ("5", "5-0.txt")]
    assert [book.book_id for book in books.read_books(tmp_path)] == ["3", "5", "12"]


def test_a_refused_file_is_named(tmp_path, capsys):
    (tmp_path / "5.txt").write_bytes(gutenberg_file("Too little.")[:200])
    assert list(books.read_books(tmp_path)) == []
    assert "5.txt: truncated" in capsys.readouterr().err


def test_a_run_has_the_books_in_shards_and_a_whole_acquire(tmp_path):
    made = [books.Book(str(n), f"Title {n}", f"Text {n}", n) for n in range(9)]
    run = books.write_run(tmp_path, "nine", made)
    table = run.table("books").read_table(BOOKS, ["book_id", "title", "text", "body_start"])
    assert sorted((books.Book(**row) for row in table.to_pylist()), key=lambda book: book.book_id) == made
    assert len(run.table("books").files(".parquet")) == 2
    manifest = run.manifest("acquire")
    assert manifest is not None
    assert (manifest.rows_in, manifest.kept) == (9, 9)


# Synthetic books -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources() -> list[books.Book]:
    return list(books.read_books(SAMPLES))


@given(st.text("ab .\n", min_size=1).filter(str.strip), st.integers(0, 2**32))
def test_a_walk_has_as_many_words_as_its_source_and_no_others(text, seed):
    made = synthetic.Chain(text).text(np.random.default_rng(seed))
    assert len(made.split()) == len(text.split())
    assert set(made.split()) <= set(text.split())


def test_a_word_is_followed_by_what_follows_it_in_the_source():
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"] * 200
    made = synthetic.Chain(" ".join(words)).text(np.random.default_rng(1)).split()
    known = set(pairwise(words))
    assert sum(pair not in known for pair in pairwise(made)) < 256  # where two walks meet


def test_synthetic_books_are_as_long_as_their_sources_and_laid_out_like_them(sources):
    for source, made in zip(sources, synthetic.synthetic_books(sources, 1, seed=1), strict=True):
        assert made.book_id == f"{source.book_id}-1"
        assert len(made.text) == pytest.approx(len(source.body), rel=0.1)
        assert made.text.count("\n\n") == pytest.approx(source.body.count("\n\n"), rel=0.5)
        assert max(map(len, made.text.split("\n"))) < 100


def test_a_synthetic_book_is_a_function_of_source_number_and_seed(sources):
    twice = list(synthetic.synthetic_books(sources, 2, seed=1))
    assert [book.book_id for book in twice[: len(sources)]] == [f"{source.book_id}-1" for source in sources]
    assert twice[len(sources) - 1] == next(synthetic.synthetic_books(sources[-1:], 1, seed=1))
    assert twice[0] != next(synthetic.synthetic_books(sources, 1, seed=2))


def test_no_two_synthetic_books_are_near_duplicates(sources):
    texts = [book.body for book in sources] + [book.text for book in synthetic.synthetic_books(sources, 3, seed=1)]
    assert synthetic.closest(texts) < 0.5
    assert synthetic.closest([texts[0], texts[0]]) == 1.0


# Measuring -----------------------------------------------------------------------------------------------------------


def test_a_command_and_its_children_are_watched():
    child = "held = b'x' * 60_000_000; import time; time.sleep(3)"
    measured = processes.measure(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"]
    )
    assert measured.driver.resident < 50_000_000
    assert measured.largest_other.unique > 60_000_000
    assert measured.worker_seconds == measured.working == measured.after == 0


def test_a_command_that_fails_ends_the_benchmark_with_what_it_said():
    with pytest.raises(SystemExit, match="no such ship"):
        processes.measure([sys.executable, "-c", "raise ValueError('no such ship')"])


def grown(times: int, task_seconds: float = 0.048) -> corpus_growth.Case:
    """Ten seconds once, 12 ms a book alone, and the tasks' seconds a book."""
    number = 100 * times
    measured = processes.Measured(8.0, 0.024 * number, 2 + 0.012 * number, task_seconds * number, processes.Peak("driver"), ())
    return corpus_growth.Case(times, number, 0, 0, 0, measured)


def test_the_model_parts_serial_from_parallel_time():
    said = corpus_growth.model(grown(1), grown(10))
    assert "10.0 s  once" in said
    assert "12.00 ms a book with no task" in said
    assert "48.00 ms a book of the tasks'" in said
    rows = [line.split() for line in said.splitlines()[-3:]]
    assert rows == [["1", "70.2", "20%"], ["8", "21.2", "67%"], ["64", "15.0", "94%"]]


def test_there_is_no_model_of_more_books_in_less_time():
    assert "No model" in corpus_growth.model(grown(1), grown(10, task_seconds=0.001))
