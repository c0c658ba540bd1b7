"""Scripts, chess literature and speeches become passages or named rejects, each file once; ready passages keep their works."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepred_ray.errors import InputError
from deepred_ray.runs import Run
from deepred_ray.schema import CHUNKS, REJECTS
from deepred_ray.stages.sources import MINIMUM, cut, import_passages, import_sources, read_source, unfit
from deepred_ray.stages.tables import Row
from deepred_ray.text.reject import Reject
from deepred_ray.theme import Theme

THEME = Theme.find("deepred")
SPEECH = (
    "Comrades, the harvest of this year was gathered by twelve thousand hands. Nobody asked whose field it was, since every field "
    "was ours. We measured the grain twice, and twice the figures agreed. Let those who doubted the plan come and count the sacks "
    "with us in the long barn, where the lamps burn until the morning."
)
GERMAN = (
    "Genossen, die Ernte dieses Jahres wurde von zwölftausend Händen eingebracht. Niemand fragte, wem das Feld gehöre, denn jedes "
    "Feld war unser. Wir haben das Korn zweimal gemessen, und zweimal stimmten die Zahlen überein. Wer am Plan gezweifelt hat, der "
    "komme und zähle mit uns die Säcke in der langen Scheune."
)
SCENE = "INT. CONTROL ROOM - NIGHT\n\nRows of lamps.\n\n{first}\nWhich of the lamps has gone out, and who is sent to mend it?\n\n"
SPOKEN = "{second}\nThe ninth has gone out, comrade. We have sent for the crew of the outer gallery, and they are on their way. "
LONG = "We hold the wall together, since no wall was ever held by one alone. "


def script(first: str = "VETROVA", second: str = "DEEP RED (V.O.)") -> str:
    return SCENE.format(first=first) + SPOKEN.format(second=second) + (LONG * 3).rstrip() + "\n\n"


def read(kind: str, text: str | bytes, work: str = "") -> tuple[list[Row], list[Row]]:
    raw = text.encode() if isinstance(text, str) else text
    return read_source(kind, work or f"{kind}/one.txt", raw, THEME)


def reasons(kind: str, text: str | bytes) -> list[str]:
    passages, rejects = read(kind, text)
    assert passages == []
    return [row["reason"] for row in rejects]


# --- scripts


def test_a_fountain_script() -> None:
    text = "Title: The Ninth Dome\nAuthor: A. Wright\n\n" + script()
    (passage,), rejects = read("scripts", text, "scripts/act one/dome.fountain")
    assert rejects == []
    assert passage["text"].startswith("(Rows of lamps.)\nVETROVA: Which of the lamps has gone out")
    assert "\nDEEP RED: The ninth has gone out, comrade." in passage["text"]
    assert (passage["title"], passage["book_id"]) == ("INT. CONTROL ROOM - NIGHT", "scripts/act one/dome.fountain")
    assert passage["chunk_id"] == f"scripts/act one/dome.fountain:{passage['start']}-{passage['end']}"
    assert text[passage["start"] : passage["end"]].startswith("INT. CONTROL ROOM")
    assert text[passage["start"] : passage["end"]].endswith(LONG.strip())
    assert (passage["kept"], passage["reason"], passage["twin_of"]) == (True, None, None)


def test_a_typescript_with_its_speakers_in_capitals() -> None:
    indented = "\n".join(" " * 10 + line if line else "" for line in script("ORLOV", "VETROVA (softly)").split("\n"))
    (passage,), _ = read("scripts", indented)
    assert "ORLOV: Which of the lamps" in passage["text"]
    assert "VETROVA: The ninth has gone out" in passage["text"]


def test_a_script_without_scenes_is_called_by_its_file() -> None:
    (passage,), _ = read("scripts", f"ORLOV\n{LONG * 5}", "scripts/sub/wall.txt")
    assert passage["title"] == "sub/wall.txt"


def test_a_long_script_is_several_passages_of_one_work() -> None:
    passages, rejects = read("scripts", script() * 4)
    assert (len(passages), rejects) == (4, [])
    assert len({passage["chunk_id"] for passage in passages}) == 4
    assert {passage["book_id"] for passage in passages} == {"scripts/one.txt"}


def test_prose_is_no_script() -> None:
    assert reasons("scripts", SPEECH) == ["no_script"]


# --- speeches and chess


@pytest.mark.parametrize("line", ["Date: 12 June 1971", "Delivered: Moscow, 1969", "  HELD : 2001-05-01"])
def test_a_speech_of_the_cutoff_year_or_later_is_out(line: str) -> None:
    passages, (reject,) = read("speeches", f"{line}\n\n{SPEECH}")
    assert passages == []
    assert (reject["id"], reject["reason"]) == ("speeches/one.txt", "published_after_cutoff")
    assert line.strip().startswith(reject["detail"])


@pytest.mark.parametrize("line", ["Date: 12 June 1968", "Delivered: Moscow", "The date is 1961.", "Revised: 1967"])
def test_other_dates_do_not_matter(line: str) -> None:
    passages, rejects = read("speeches", f"{line}\n\n{SPEECH}")
    assert rejects == []
    assert SPEECH in " ".join(passage["text"] for passage in passages)


def test_only_the_head_of_a_speech_dates_it_and_only_a_speech_is_dated() -> None:
    late = f"{SPEECH} {SPEECH}\n\n{SPEECH}\n\nDate: never before 1971 will it be done.\n"
    assert read("speeches", late)[0]
    assert isinstance(cut("speeches", b"Date: 1971\n\n" + SPEECH.encode(), 1969), Reject)
    assert not isinstance(cut("speeches", b"Date: 1971\n\n" + SPEECH.encode(), 1972), Reject)
    assert not isinstance(cut("chess", b"Date: 1971\n\n" + SPEECH.encode(), 1969), Reject)


def test_a_short_speech_is_one_passage_where_it_stands_in_the_file() -> None:
    text = f"\n\n{SPEECH}\n"
    (passage,), _ = read("speeches", text)
    assert passage["text"] == text[passage["start"] : passage["end"]] == SPEECH


def test_the_licence_round_a_book_is_no_passage() -> None:
    body = "\n\n".join(f"{number}. {SPEECH}" for number in ("One", "Two", "Three", "Four"))
    licence = "*** {} OF THE PROJECT GUTENBERG EBOOK CHESS ***"
    text = f"The Project Gutenberg eBook of Chess\n\n{licence.format('START')}\n\n{body}\n\n{licence.format('END')}\nLicence.\n"
    passages, rejects = read("chess", text)
    assert rejects == []
    assert " ".join(" ".join(passage["text"] for passage in passages).split()) == " ".join(body.split())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty_file"),
        (b"<!DOCTYPE html><html><body>A page</body></html>", "html_page"),
        (b"\x00\x01\x02" * 400, "binary_file"),
        (b"We hold the wall.", "too_short"),
        (GERMAN.encode(), "wrong_language"),
        (f"{SPEECH} It is all on the internet.".encode(), "anachronism"),
    ],
)
def test_what_cannot_be_used_is_a_reject(raw: bytes, reason: str) -> None:
    for kind in ("speeches", "chess"):
        assert reasons(kind, raw) == [reason]


def test_a_passage_that_is_unfit_is_kept_among_the_rejects_and_costs_no_other() -> None:
    passages, rejects = read("chess", f"{SPEECH}\n\n{SPEECH}\n\n{GERMAN}\n\n{GERMAN}\n\n{GERMAN}\n\n{SPEECH}\n\n{SPEECH}\n")
    assert {row["reason"] for row in rejects} == {"wrong_language"}
    assert all("Genossen" in row["raw"] and row["id"].startswith("chess/one.txt:") for row in rejects)
    assert passages
    assert not any("Genossen, die Ernte" in passage["text"][:200] for passage in passages)


def test_unfit_by_its_length() -> None:
    assert unfit(SPEECH, THEME) is None
    assert unfit(SPEECH[: MINIMUM - 1], THEME) == Reject("too_short", f"{MINIMUM - 1} characters, {MINIMUM} wanted")


# --- folders


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "runs"), "mine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "speeches"
    (root / "sub").mkdir(parents=True)
    (root / "harvest.txt").write_text(SPEECH)
    (root / "sub" / "late.TXT").write_text(f"Date: 1980\n\n{SPEECH}")
    (root / "notes.md").write_text(SPEECH)
    (root / "old.txt").mkdir()
    return root


def shards(run: Run) -> dict[str, bytes]:
    return {file.path: file.read_bytes() for table in ("sources", "rejects/sources") for file in run.table(table).files()}


def test_a_folder_becomes_passages_and_rejects(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_sources(run, {"speeches": str(folder)}, THEME)
    (passage,) = run.table("sources").read_table(CHUNKS).to_pylist(maps_as_pydicts="strict")
    assert (passage["book_id"], passage["text"], passage["kept"]) == ("speeches/harvest.txt", SPEECH, True)
    assert passage["score"] == pytest.approx(THEME.scorer.score([SPEECH]).scores[0])
    assert set(passage["weights"]) <= set(THEME.scorer.lexicon.themes)
    (reject,) = run.table("rejects/sources").read_table(REJECTS).to_pylist()
    assert (reject["id"], reject["reason"]) == ("speeches/sub/late.TXT", "published_after_cutoff")
    said = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["speeches/harvest.txt: 1 passages", "speeches/sub/late.TXT: 0 passages, 1 rejected"]


def test_what_was_read_is_not_read_again(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_sources(run, {"speeches": str(folder)}, THEME)
    before = shards(run)
    capsys.readouterr()
    import_sources(run, {"speeches": f"{folder}/"}, THEME)
    assert shards(run) == before
    assert capsys.readouterr().out == ""
    (folder / "more.txt").write_text(SPEECH.replace("harvest", "vintage"))
    import_sources(run, {"speeches": str(folder)}, THEME)
    assert before.items() < shards(run).items()
    assert run.table("sources").read_table(CHUNKS)["book_id"].to_pylist().count("speeches/more.txt") == 1
    assert "more.txt" in capsys.readouterr().out


def test_an_import_that_was_cut_off_is_made_again_without_twins(run: Run, folder: Path) -> None:
    import_sources(run, {"speeches": str(folder)}, THEME)
    before = shards(run)
    (run.folder / "synthesize" / "sources.json").delete()
    import_sources(run, {"speeches": str(folder)}, THEME)
    assert shards(run) == before


def test_a_file_that_changed_is_refused_by_name(run: Run, folder: Path) -> None:
    import_sources(run, {"speeches": str(folder)}, THEME)
    before = shards(run)
    (folder / "harvest.txt").write_text(SPEECH + " So it is.")
    with pytest.raises(InputError, match=rf"{folder}/harvest\.txt has changed since its passages were taken") as caught:
        import_sources(run, {"speeches": str(folder)}, THEME)
    assert "--fresh" in caught.value.cure
    assert shards(run) == before


@pytest.mark.parametrize(("kind", "wanted"), [("scripts", ".fountain or .txt"), ("chess", ".txt"), ("speeches", ".txt")])
def test_a_folder_without_files_of_its_kind(run: Run, tmp_path: Path, kind: str, wanted: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.pdf").write_text("x")
    for name in ("empty", "missing"):
        with pytest.raises(InputError, match=rf"--synthesize\.{kind} {tmp_path}/{name}: no folder with {wanted} files"):
            import_sources(run, {kind: str(tmp_path / name)}, THEME)


# --- ready passages


def test_ready_passages_are_works_of_their_own_unless_they_say_so(run: Run, tmp_path: Path) -> None:
    rows = [
        {"id": 1, "text": "We hold the wall\u2028together."},
        {"id": "b", "text": "So be it.", "book_id": "w", "title": "T"},
        {"id": "c", "text": "So be it.", "book_id": None, "title": None},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    chunks = [{"chunk_id": name, "text": "And so on.", "book_id": None, "kept": name == "d"} for name in "de"]
    pq.write_table(pa.Table.from_pylist(chunks), tmp_path / "p.parquet")
    files = [str(tmp_path / "p.jsonl"), str(tmp_path / "p.parquet")]
    for _ in range(2):
        import_passages(run, files, THEME)
        found = sorted(run.table("chunks").read_table(CHUNKS).to_pylist(), key=lambda row: row["chunk_id"])
        assert [(row["chunk_id"], row["book_id"], row["title"]) for row in found] == [
            ("1", "1", ""),
            ("b", "w", "T"),
            ("c", "c", ""),
            ("d", "d", ""),
        ]
        assert found[0]["text"] == rows[0]["text"]
        assert all(row["kept"] and row["end"] == len(row["text"]) for row in found)


@pytest.mark.parametrize("line", ["", "{", "[]", '"text"', '{"text": "x"}', '{"id": "a"}', '{"id": "a", "text": null}', "3"])
def test_a_row_that_is_no_passage_is_named(run: Run, tmp_path: Path, line: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "a", "text": "x"}\n' + line + "\n")
    with pytest.raises(InputError, match=rf"{file}, row 2: no passage with id and text"):
        import_passages(run, [str(file)], THEME)
    assert not run.table("chunks").exists()


def test_a_row_of_lists_too_deep_is_named_by_file_and_row(tmp_path: Path) -> None:
    file = tmp_path / "deep.jsonl"
    file.write_text("[" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"deep\.jsonl, row 1: .*too deep"):
        import_passages(Run(str(tmp_path), "test"), [str(file)], THEME)
