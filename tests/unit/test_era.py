"""`deepred check-era FILE`: a JSON object a line, the exit status, and the files that people really have."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from deepred_ray import era
from deepred_ray.cli import main
from deepred_ray.text.anachronism import COLUMNS, Gate, parse_terms

GATE = Gate(parse_terms("\n".join(["\t".join(COLUMNS), "robocab\t1975\tcoinage\tno\tinvented\t\t"])), 1969)


def run(capsys: pytest.CaptureFixture[str], path: Path) -> tuple[int, list[dict[str, Any]]]:
    status = main(["check-era", str(path)])
    return status, [json.loads(line) for line in capsys.readouterr().out.split("\n") if line]


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "lines.txt"
    path.write_bytes(content)
    return path


def test_each_line_gets_an_object_and_a_modern_one_the_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run(capsys, saved(tmp_path, b"The tram was late.\nHe lost his smartphone in 1997.\n"))
    assert status == 1
    assert found == [
        {"line": 1, "ok": True, "hits": [], "text": "The tram was late."},
        {
            "line": 2,
            "ok": False,
            "hits": [
                {"term": "smartphone", "year": 1996, "reason": "coinage"},
                {"term": "1997", "year": 1997, "reason": "year"},
            ],
            "text": "He lost his smartphone in 1997.",
        },
    ]


@pytest.mark.parametrize("content", [b"The tram was late.\nSo were we.\n", b"The tram was late.", "Ёлка, ёлка.\n".encode()])
def test_lines_of_the_period_are_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    status, found = run(capsys, saved(tmp_path, content))
    assert status == 0
    assert all(line["ok"] and line["hits"] == [] for line in found)
    assert [line["text"] for line in found] == content.decode().splitlines()


def test_an_empty_file_has_no_line_that_is_not_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, saved(tmp_path, b"")) == (0, [])


def test_blank_lines_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run(capsys, saved(tmp_path, b"\n  \nSkylab fell.\n\n"))
    assert status == 1
    assert [(line["line"], line["ok"]) for line in found] == [(1, True), (2, True), (3, False), (4, True)]


def test_line_ends_and_the_mark_of_windows_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run(capsys, saved(tmp_path, b"\xef\xbb\xbfThe tram.\r\nSkylab\r\n"))
    assert status == 1
    assert [line["text"] for line in found] == ["The tram.", "Skylab"]


def test_only_a_line_feed_ends_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = run(capsys, saved(tmp_path, "one\u2028still one\x0c\ntwo\n".encode()))
    assert [line["text"] for line in found] == ["one\u2028still one\x0c", "two"]


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, b"The tram.\nCaf\xe9 Pushkin\n")
    assert main(["check-era", str(path)]) == 1
    printed = capsys.readouterr()
    assert f"{path}, line 2: not UTF-8" in " ".join(printed.err.split())
    assert [json.loads(line)["line"] for line in printed.out.splitlines()] == [1]


@pytest.mark.parametrize("name", ["no_such_file.txt", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["check-era", str(tmp_path / name)]) == 1
    assert "cannot read" in capsys.readouterr().err


def test_lines_number_a_fault_from_one() -> None:
    with pytest.raises(era.InputError, match="names, line 1: not UTF-8"):
        list(era.lines(io.BytesIO(b"\xff\n"), "names"))


def test_a_verdict_says_what_was_found() -> None:
    assert era.verdict(GATE, 7, "Two robocabs.") == {
        "line": 7,
        "ok": False,
        "hits": [{"term": "robocab", "year": 1975, "reason": "coinage"}],
        "text": "Two robocabs.",
    }
