"""What comes from outside never makes a parser raise what it does not tell of, and never holds it up: it is read, or refused."""

import contextlib
import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deepred_ray.config import load, read_toml
from deepred_ray.errors import ConfigError, InputError
from deepred_ray.stages import local
from deepred_ray.stages.fetch import fault_of
from deepred_ray.stages.tokens import read_chatml
from deepred_ray.text import catalogue, conversations, decoding, gutenberg
from deepred_ray.text.chatml import parse_answer, parse_conversation
from deepred_ray.text.items import parse_items
from deepred_ray.text.reject import Reject

# A parser that takes far longer than it should ends here, and not only as a slow test.
pytestmark = pytest.mark.timeout(120)
LONG = 50_000  # characters: more than a header, and enough to see what grows by the square
DEEP = "[" * LONG

# Pieces of what the parsers look for, so that random text gets past the first line of them.
GUTENBERG = st.sampled_from(
    [
        "*** START OF THE PROJECT GUTENBERG EBOOK ", "***START OF THIS PROJECT GUTENBERG", " ***", "SMALL PRINT", "Title: ",
        "*** END OF THE PROJECT GUTENBERG EBOOK", "***START**THE SMALL PRINT!", "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN*END*\n",
        "Language: English\n", "Release Date: May 1, 2001 [EBook #", "]", "Character set encoding: ", "Project Gutenberg's ",
        "The Project Gutenberg Etext of ", "End of Project Gutenberg", "Produced by ", "[Transcriber's Note: ", "CONTENTS\n",
        "CHAPTER I\n", "\n", "\n\n", "\r\n", "*", "[", " ", "\t", "A", "a", ";", " and ", "1", "\ufeff", "_", "é", "Author: ",
    ]
)  # fmt: skip
BOOKS = st.lists(st.one_of(GUTENBERG, st.text(max_size=40), st.text("abc ABC.\n", max_size=1500)), max_size=40).map("".join)
REPEATED = st.tuples(BOOKS, GUTENBERG, GUTENBERG, BOOKS).map(
    lambda parts: parts[0] + ((parts[1] + parts[2]) * (LONG // len(parts[1] + parts[2])))[:LONG] + parts[3]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
LINES = st.one_of(st.binary(max_size=80), JSON.map(lambda value: json.dumps(value).encode()))
HOSTILE_LINES = [DEEP.encode(), b'{"id": ' + b"9" * 5000 + b"}", b'"\\ud800"', b"\xff", b"null", b"NaN", b"1e999"]


# --- Gutenberg's files


@given(st.one_of(BOOKS, REPEATED))
@example("[Transcriber's Note: it has no end " + "x " * 7000)
@example("[Transcriber's Note: it ends.] More of the line.\n\n" + "A book of rooks.\n" * 100)
@example(" " * LONG)
@example("\n" * LONG)
@settings(max_examples=60)
def test_gutenberg_files(text: str) -> None:
    header = gutenberg.parse_header(text)
    assert header.ebook_id is None or header.ebook_id.isdecimal()
    stripped = gutenberg.strip(text)
    if not isinstance(stripped, Reject):
        assert stripped.text in text
        assert 0 <= stripped.body_start <= len(stripped.text)


@given(st.one_of(st.binary(max_size=400), BOOKS.map(lambda text: text.encode("utf-8")), BOOKS.map(lambda t: t.encode("utf-16"))))
def test_bytes_of_a_book(raw: bytes) -> None:
    assert isinstance(decoding.decode(raw), Reject | decoding.Decoded)
    found = fault_of(11)(raw)
    assert found is None or found.reason


@pytest.mark.parametrize("number", ["9" * 5000, "11", "0011"])
def test_numbers_of_a_header(number: str) -> None:
    found = fault_of(11)(f"[EBook #{number}]\n\n*** START OF THE PROJECT GUTENBERG EBOOK ROOKS ***\n".encode())
    assert (found is None) == (number != "9" * 5000)


# --- the catalogue

CELLS = st.one_of(
    st.text(max_size=20), st.sampled_from(["Text", "11", "9" * 5000, "-1", "Verne, Jules, 1828-1905", "a; b", '"', "en"])
)


def written(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([catalogue.COLUMNS, *rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


@given(
    st.one_of(st.binary(max_size=200), st.lists(st.lists(CELLS, min_size=5, max_size=8), max_size=5).map(written)), st.booleans()
)
@example(gzip.compress(b"x" * 100)[:-4], False)
@example(written([["9" * 5000, "Text", "", "", "", "", ""]]), False)
@example(written([["1", "Text", "x" * 200_000, "", "", "", ""]]), False)
def test_the_catalogue(data: bytes, zipped: bool) -> None:
    try:
        entries = catalogue.read(gzip.compress(data) if zipped else data)
    except ValueError:
        pass
    else:
        assert entries
        assert all(entry.book_id == number >= 0 for number, entry in entries.items())


def test_a_catalogue_that_swells_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "LARGEST", 10_000)
    assert catalogue.unpack(gzip.compress(b"x" * 10_000)) == b"x" * 10_000
    with pytest.raises(ValueError, match="more than 10,000 bytes"):
        catalogue.unpack(gzip.compress(b"x" * 10_001))


# --- lines of JSON


@given(LINES)
@example(HOSTILE_LINES[0])
@example(HOSTILE_LINES[1])
@example(HOSTILE_LINES[2])
@example(b'{"id": "1", "title": "", "author": "", "text": "", "year": 1e999}')
def test_lines_of_books(line: bytes) -> None:
    try:
        wish, body = local.parse(line)
    except ValueError:
        pass
    else:
        assert wish.book_id.strip()
        assert body.decode() is not None


@given(st.lists(LINES, max_size=4).map(b"\n".join))
@settings(max_examples=50)
def test_files_of_books(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "books.jsonl")
        file.write_bytes(data)
        rows = list(local.ReadLocal()({"path": str(file)}))
    assert len(rows) == sum(bool(line.strip()) for line in data.split(b"\n"))


@given(st.one_of(st.text(max_size=80), JSON.map(json.dumps)))
@example(DEEP)
@example('{"messages": ' + "9" * 5000 + "}")
@example('{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "x"}]}')
def test_conversations(line: str) -> None:
    with contextlib.suppress(ValueError):
        messages = conversations.parse(line)
        assert all(message["content"].encode() is not None for message in messages)


@given(st.lists(LINES, max_size=4).map(b"\n".join))
@example(HOSTILE_LINES[0])
@settings(max_examples=50)
def test_datasets(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "chats.jsonl")
        file.write_bytes(data)
        with contextlib.suppress(InputError):
            assert len(read_chatml(file)) >= 2


@given(st.one_of(st.text(max_size=80), JSON.map(json.dumps)))
@example(DEEP)
@example('{"accept": ["(" ], "leak": []}')
def test_evaluation_prompts(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_items(text), tuple)


# --- replies of a model


@given(st.one_of(st.text(max_size=200), JSON.map(json.dumps)), st.sampled_from(["stop", "length", "error", ""]), st.integers(1, 3))
@example(DEEP, "stop", 1)
@example("9" * 5000, "stop", 1)
@example("." * LONG, "length", 1)
@example(("a" * 9 + ". \n") * (LONG // 12), "length", 1)
def test_replies(reply: str, finish: str, turns: int) -> None:
    spoken = parse_conversation(reply, finish, turns)
    assert isinstance(spoken, Reject) or len(spoken) == turns
    answer = parse_answer(reply, finish, "We ")
    assert isinstance(answer, Reject) or answer in "We " + reply


# --- the configuration

SECTION = st.sampled_from(["acquire", "corpus", "synthesize", "train", "export", "evaluate", "ray"])
SETTING = st.sampled_from(["ids", "subjects", "mirror", "size", "overlap", "examples", "resources", "workers", "run", "x"])


@given(st.one_of(JSON, st.dictionaries(SECTION, st.dictionaries(SETTING, JSON, max_size=3), max_size=3)))
@example({"run": "../../escape"})
@example({"run": ".."})
@example({"acquire": {"ids": [10**400]}})
@example({"corpus": {"size": float("nan")}})
def test_settings(values: Any) -> None:
    try:
        config = load(values, "a test")
    except ConfigError:
        pass
    else:
        assert "/" not in config.run
        assert config.run not in ("", ".", "..")


@given(st.one_of(st.binary(max_size=200), st.text("[]{}=\"'.,#\n a1", max_size=200).map(str.encode)))
@example(b"a = " + b"[" * LONG)
@example(b"a = " + b"{b = " * 5000)
@settings(max_examples=60)
def test_files_of_settings(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.toml")
        file.write_bytes(data)
        with contextlib.suppress(ConfigError):
            assert isinstance(read_toml(str(file)), dict)
