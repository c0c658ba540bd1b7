"""`deepred thresholds`: every figure against a slow count, and files that are all there or not at all."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from deepred_ray import console, thresholds
from deepred_ray.cli import main
from deepred_ray.errors import ConfigError, InputError
from deepred_ray.runs import Run
from deepred_ray.schema import CHUNKS
from deepred_ray.storage import rows_table
from deepred_ray.thresholds import LEFT_OUT, Rule, Tally, match_sheet, score_sheet, theme_sheet

BY_SCORE = Rule(3.0, None)
BY_MATCHES = Rule(3.0, 2)
NAMES = ["matches_01.parquet", "matches_02.parquet", "matches_03.parquet"]
REPORTS = ["scores.tsv", "themes.tsv", "thresholds.png", "thresholds.tsv"]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.console, "_width", 160)


def chunk(book: str, themes: dict[str, int], score: float, reason: str | None = None) -> dict[str, Any]:
    values = {"book_id": book, "themes": list(themes.items()), "weights": [], "score": score, "reason": reason}
    return dict.fromkeys(CHUNKS.names) | values | {"total": sum(themes.values()), "kept": reason is None, "text": "We build."}


# Nine chunks count: of 0 matches one, of 1 two, of 2 three, of 3 two, of 5 one.
BOOKS = {
    "1": [
        chunk("1", {}, 0.0, "low_score"),
        chunk("1", {"chess": 1}, 0.5, "low_score"),
        chunk("1", {"chess": 1, "mars": 1}, 1.25, "low_score"),
        chunk("1", {"mars": 2}, 2.0, "low_score"),
        chunk("1", {"mars": 4}, 4.0, "twin"),
    ],
    "2": [
        chunk("2", {"labour": 1}, 1.0, "low_score"),
        chunk("2", {"labour": 9}, 9.0, "too_short"),
        chunk("2", {"labour": 2}, 2.5, "low_score"),
        chunk("2", {"chess": 2, "labour": 1}, 3.0),
        chunk("2", {"mars": 3}, 3.14159),
        chunk("2", {"chess": 1, "labour": 1, "mars": 3}, 8.0),
    ],
}


def write(root: Path, rule: Rule, books: dict[str, list[dict[str, Any]]]) -> Run:
    run = Run(str(root / "runs"), "demo")
    (run.folder / "config.json").write_json({"run": "demo"})
    run.begin("corpus", {"corpus.min_score": rule.min_score, "corpus.min_matches": rule.min_matches}, {}, {})
    for book, rows in books.items():
        run.table("chunks").write_table(rows_table(rows, CHUNKS), book)
    return run


def tally_of(*shards: list[dict[str, Any]], rule: Rule = BY_SCORE) -> Tally:
    tally = Tally(rule.min_score)
    for rows in shards:
        tally.add(rows_table(rows, CHUNKS))
    return tally


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- figures


def test_chunks_by_number_of_matches() -> None:
    assert match_sheet(tally_of(*BOOKS.values()), BY_MATCHES, range(1, 5)).rows == [
        [1, 2, pytest.approx(200 / 9), 8, pytest.approx(800 / 9), ""],
        [2, 3, pytest.approx(300 / 9), 6, pytest.approx(600 / 9), "by this run"],
        [3, 2, pytest.approx(200 / 9), 3, pytest.approx(300 / 9), ""],
        [4, 0, 0.0, 1, pytest.approx(100 / 9), ""],
    ]


def test_themes_by_number_of_matches() -> None:
    sheet = theme_sheet(tally_of(*BOOKS.values()), range(1, 4))
    assert sheet.columns == ["theme", "1", "2", "3"]
    assert sheet.rows == [["mars", 0, 3, 3], ["chess", 1, 1, 2], ["labour", 1, 2, 1]]


def test_the_scores_that_keep_tenths_and_the_one_that_the_run_uses() -> None:
    rows = score_sheet(tally_of(*BOOKS.values()), BY_SCORE).rows
    # Nine chunks: 90 % are nine of them, 80 % eight, 70 % seven, 60 % six, 50 % five, 40 % four, and so on.
    assert [row[0] for row in rows] == ["0", "0.5", "1", "1.25", "2", "2.5", "3", "3.141", "8"]
    assert [row[1] for row in rows] == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert rows[4] == ["2", 5, pytest.approx(500 / 9), 2, ""]
    assert rows[6] == ["3", 3, pytest.approx(300 / 9), 1, "by this run"]


def test_a_threshold_that_is_no_thousandth_is_counted_as_it_is() -> None:
    rows = score_sheet(tally_of(*BOOKS.values(), rule=Rule(3.1415, None)), Rule(3.1415, None)).rows
    assert ["3.1415", 2, pytest.approx(200 / 9), 1, "by this run"] in rows
    rows = score_sheet(tally_of(*BOOKS.values(), rule=Rule(3.1416, None)), Rule(3.1416, None)).rows
    assert ["3.1416", 1, pytest.approx(100 / 9), 1, "by this run"] in rows


def test_a_run_that_decides_by_matches_uses_no_score() -> None:
    rows = score_sheet(tally_of(*BOOKS.values(), rule=Rule(0.7, 2)), Rule(0.7, 2)).rows
    assert [row[4] for row in rows] == [""] * 9


chunks = st.builds(
    chunk,
    st.sampled_from("abc"),
    st.dictionaries(st.sampled_from(["chess", "mars", "labour"]), st.integers(1, 4)),
    # Half of them at or beside a thousandth, where rounding could put a chunk on the wrong side.
    st.one_of(st.floats(0, 40, width=32), st.integers(0, 40_000).map(lambda n: float(np.float32(n / 1000)))),
    st.sampled_from([None, None, "low_score", *LEFT_OUT]),
)


@given(st.lists(st.lists(chunks, max_size=8), min_size=1, max_size=6), st.floats(0, 40))
@example([[chunk("a", {}, float(np.float32(0.029)))], [], [chunk("a", {"mars": 1}, float(np.float32(4.1)))]], 4.1)
def test_all_figures_agree_with_a_slow_count(shards: list[list[dict[str, Any]]], min_score: float) -> None:
    rule, span = Rule(min_score, None), range(0, 13)
    tally = tally_of(*shards, rule=rule)
    counted = [row for shard in shards for row in shard if row["reason"] not in LEFT_OUT]
    assert tally.chunks + tally.left_out.total() == sum(map(len, shards))
    if not counted:
        assert tally.chunks == 0
        return
    for n, exactly, percent, more, percent_more, _ in match_sheet(tally, rule, span).rows:
        assert exactly == sum(row["total"] == n for row in counted)
        assert more == sum(row["total"] >= n for row in counted)
        assert (percent, percent_more) == (100 * exactly / len(counted), 100 * more / len(counted))
    for theme, *hits in theme_sheet(tally, span).rows:
        assert hits == [sum(dict(row["themes"]).get(theme, 0) for row in counted if row["total"] == n) for n in span]
    # Every match is a hit of one theme.
    assert [sum(column) for column in zip(*tally.themes(span).values(), strict=True)] in ([n * tally.matches[n] for n in span], [])
    rows = score_sheet(tally, rule).rows
    assert [row[4] for row in rows].count("by this run") == 1
    levels = {min_score if used else float(score): (kept, books) for score, kept, _, books, used in rows}
    for score, figures in levels.items():
        passing = [row for row in counted if row["score"] >= score]
        assert figures == (len(passing), len({row["book_id"] for row in passing}))
    for share in range(10, 100, 10):
        highest = max(score for score, (kept, _) in levels.items() if 100 * kept >= share * len(counted))
        above = sum(row["score"] >= round(highest + 0.001, 3) for row in counted)
        assert 100 * above < share * len(counted)


# --- files


def test_each_number_of_matches_is_a_file_of_its_own(tmp_path: Path) -> None:
    run, output = write(tmp_path, BY_MATCHES, BOOKS), tmp_path / "out" / "here"
    assert thresholds.show(run, 1, 4, output) == 0
    assert names(output) == sorted([*NAMES, "matches_04.parquet", *REPORTS])
    for n in range(1, 5):
        expected = [row for rows in BOOKS.values() for row in rows if row["total"] == n and row["reason"] not in LEFT_OUT]
        assert pq.read_table(output / f"matches_{n:02d}.parquet").equals(rows_table(expected, CHUNKS))
    assert (output / "thresholds.tsv").read_text("utf-8") == (
        "matches\tchunks\tpercent\tor more\tpercent or more\tused\n"
        "1\t2\t22.22\t8\t88.89\t\n"
        "2\t3\t33.33\t6\t66.67\tby this run\n"
        "3\t2\t22.22\t3\t33.33\t\n"
        "4\t0\t0.00\t1\t11.11\t\n"
    )
    assert (output / "themes.tsv").read_text("utf-8") == (
        "theme\t1\t2\t3\t4\nmars\t0\t3\t3\t0\nchess\t1\t1\t2\t0\nlabour\t1\t2\t1\t0\n"
    )
    scores = (output / "scores.tsv").read_text("utf-8").splitlines()
    assert scores[:2] == ["score\tchunks kept\tpercent\tbooks\tused", "0\t9\t100.00\t2\t"]


def test_small_books_are_gathered_into_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "GROUP_ROWS", 4)
    run = write(tmp_path, BY_SCORE, {str(n): [chunk(str(n), {"mars": 1}, n)] for n in range(10)})
    thresholds.show(run, 1, 1, tmp_path / "out")
    written = pq.ParquetFile(tmp_path / "out" / "matches_01.parquet")
    assert [written.metadata.row_group(group).num_rows for group in range(written.num_row_groups)] == [4, 4, 2]
    assert written.read()["book_id"].to_pylist() == [str(n) for n in range(10)]


def test_files_are_all_there_or_none(tmp_path: Path) -> None:
    run, output = write(tmp_path, BY_SCORE, BOOKS), tmp_path / "out"
    thresholds.show(run, 1, 3, output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    run.table("chunks").write_table(rows_table(BOOKS["1"], CHUNKS), "0")
    (run.table("chunks") / "3.parquet").write_bytes(b"cut short")
    with pytest.raises(InputError, match=r"3\.parquet is not a table"):
        thresholds.show(run, 1, 3, output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    (run.table("chunks") / "3.parquet").delete()
    thresholds.show(run, 1, 3, output)
    assert names(output) == sorted([*NAMES, *REPORTS])
    assert [pq.read_metadata(output / name).num_rows for name in NAMES] == [3, 5, 2]


@pytest.mark.parametrize(
    ("rule", "books", "most"),
    [
        (BY_SCORE, BOOKS, 5),
        (BY_MATCHES, BOOKS, 40),
        (BY_SCORE, {"1": [chunk("1", {}, 0.0)]}, 3),
    ],
    ids=["score", "matches, many columns", "nothing hits"],
)
def test_the_picture_shows_something(tmp_path: Path, rule: Rule, books: dict[str, list[dict[str, Any]]], most: int) -> None:
    thresholds.show(write(tmp_path, rule, books), 0, most, tmp_path / "out")
    with Image.open(tmp_path / "out" / "thresholds.png") as picture:
        assert picture.size == (1800, 600)
        colors = picture.convert("RGB").getcolors(maxcolors=1800 * 600)
    assert len(colors) > 100
    # Bars: the marked one is red where the run decides by matches.
    bars = {color: pixels for pixels, color in colors}
    assert bars[0x7A, 0x8B, 0xA3] > 1000
    assert (bars.get((0xC0, 0x39, 0x2B), 0) > 1000) == (rule == BY_MATCHES)


# --- the command


def test_the_screen_has_the_tables_and_says_what_they_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path, BY_SCORE, BOOKS)
    assert main(["thresholds", "demo", "--data-root", str(tmp_path / "runs"), "--most", "3"]) == 0
    said = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in said.splitlines() if line.startswith("│")]
    assert ["2", "3", "33.33", "6", "66.67", ""] in cells
    assert ["3", "3", "33.33", "1", "by this run"] in cells
    assert ["mars", "0", "3", "3"] in cells
    assert "9 chunks of 2 books, without 1 too_short, 1 twin. This run keeps those with a score of 3 or more." in said
    assert "Its corpus is not finished" in said
    (run.folder / "corpus" / "manifest.json").write_json(
        {"stage": "corpus", "unit": "chunks", "rows_in": 11, "kept": 3, "rejected": {}, "seconds": 1.0}
    )
    assert main(["thresholds", "demo", "--data-root", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert f"tables and picture are in {tmp_path / 'out'}." in said
    assert "not finished" not in said
    assert "matches_10.parquet" in names(tmp_path / "out")


def test_many_columns_are_several_tables(capsys: pytest.CaptureFixture[str]) -> None:
    theme_sheet(tally_of(*BOOKS.values()), range(0, 12)).show()
    heads = [line.strip("┃").split("┃") for line in capsys.readouterr().out.splitlines() if line.startswith("┃")]
    assert [[cell.strip() for cell in head] for head in heads] == [
        ["theme", *map(str, range(6))],
        ["theme", *map(str, range(6, 12))],
    ]


@pytest.mark.parametrize(("least", "most"), [(3, 2), (-1, 4), (-3, -2)])
def test_no_range(tmp_path: Path, least: int, most: int) -> None:
    with pytest.raises(ConfigError, match=f"--least {least} --most {most} is no range of matches"):
        thresholds.show(write(tmp_path, BY_SCORE, BOOKS), least, most, None)


def test_no_run_and_no_chunks(tmp_path: Path) -> None:
    run = Run(str(tmp_path), "demo")
    with pytest.raises(InputError, match="no run demo in "):
        thresholds.show(run, 1, 3, None)
    (run.folder / "config.json").write_json({"run": "demo"})
    with pytest.raises(InputError, match="run demo has no chunks yet\n  Make them first: deepred corpus --run demo"):
        thresholds.show(run, 1, 3, None)
    run.begin("corpus", {"corpus.min_matches": 3}, {}, {})
    with pytest.raises(InputError, match=r"made by another version: it has no setting 'corpus\.min_score'"):
        thresholds.show(run, 1, 3, None)


@pytest.mark.parametrize(
    ("books", "found"),
    [({}, "none at all"), ({"1": [chunk("1", {}, 0.0, "too_short")]}, "1 too_short")],
)
def test_no_chunk_counts(tmp_path: Path, books: dict[str, list[dict[str, Any]]], found: str) -> None:
    output = tmp_path / "out"
    with pytest.raises(InputError, match=rf"run demo has no chunk to count \({found}\)"):
        thresholds.show(write(tmp_path, BY_SCORE, books), 1, 3, output)
    assert names(output) == []


def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    run = write(tmp_path, BY_SCORE, BOOKS)
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=f"cannot write into {output}: "):
            thresholds.show(run, 1, 3, output)


def test_tables_need_neither_ray_nor_matplotlib(tmp_path: Path) -> None:
    write(tmp_path, BY_SCORE, BOOKS)
    words = ["thresholds", "demo", "--data-root", str(tmp_path / "runs")]
    code = (
        "import sys; from deepred_ray.cli import main; print(main(sys.argv[1:]), {'ray', 'matplotlib', 'torch'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "0 set()", ran.stderr
