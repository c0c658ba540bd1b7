"""How the catalogue comes and stays, what acquire wishes for, and `acquire --plan`."""

import csv
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest

from deepred_ray.cli import main
from deepred_ray.config import AcquireConfig
from deepred_ray.download import Downloader
from deepred_ray.errors import InputError, MirrorError
from deepred_ray.mirror import QuietHandler
from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS, REJECTS
from deepred_ray.stages.selection import Wish, catalogue_sha, choose, read_catalogue
from deepred_ray.storage import rows_table
from deepred_ray.theme import Theme

THEME = Theme.find("deepred")
CSV, GZ = "/cache/epub/feeds/pg_catalog.csv", "/cache/epub/feeds/pg_catalog.csv.gz"
COLUMNS = ("Text#", "Type", "Title", "Language", "Authors", "Subjects", "Bookshelves")
ROWS = (
    ("7", "Text", "A [red] Gambit", "en", "Holt, A., 1881-1949", "Chess", ""),
    ("8", "Text", "Two", "en", "", "Utopias", "Politics"),
    ("624", "Text", "Looking Backward", "en", "", "Utopias", ""),
    ("9", "Text", "Trois", "fr", "", "Chess", ""),
)


def as_csv(*rows: tuple[str, ...]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([COLUMNS, *rows])
    return out.getvalue().encode()


SMALL = as_csv(*ROWS)


class Served:
    """A mirror on loopback that has `files` by path; `asked` has every path that was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        served = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                served.asked.append(self.path)
                super().do_GET()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.base = f"http://127.0.0.1:{self.server.server_port}"

    def put(self, path: str, body: bytes | None) -> None:
        file = self.folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if body is not None:
            file.write_bytes(body)

    def downloader(self) -> Downloader:
        return Downloader(self.base, delay=0, contact="", retries=0, timeout=10)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "mirror").mkdir()
    made = Served(tmp_path / "mirror")
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "runs"), "r")


def kept(run: Run) -> Path:
    return Path(run.folder.path) / "acquire" / "pg_catalog.csv.gz"


def test_the_packed_catalogue_is_fetched_once_and_kept_with_its_hash(served: Served, run: Run) -> None:
    assert catalogue_sha(run) is None
    served.put(GZ, gzip.compress(SMALL))
    served.put(CSV, b"not asked for")
    assert read_catalogue(served.downloader(), run).keys() == {7, 8, 9, 624}
    assert served.asked == ["/robots.txt", GZ]
    assert catalogue_sha(run) == hashlib.sha256(SMALL).hexdigest()
    assert gzip.decompress(kept(run).read_bytes()) == SMALL
    assert read_catalogue(served.downloader(), run).keys() == {7, 8, 9, 624}
    assert served.asked == ["/robots.txt", GZ]


@pytest.mark.parametrize("packed", [None, b"<!DOCTYPE html><p>busy", gzip.compress(SMALL)[:-20], gzip.compress(SMALL[:-9]), b""])
def test_without_a_good_packed_one_the_plain_one_is_taken(served: Served, run: Run, packed: bytes | None) -> None:
    served.put(GZ, packed)
    served.put(CSV, SMALL)
    assert read_catalogue(served.downloader(), run).keys() == {7, 8, 9, 624}
    assert catalogue_sha(run) == hashlib.sha256(SMALL).hexdigest()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (SMALL[:-9], "catalogue line 5: "),
        (b"", "not Gutenberg's catalogue"),
        (b'{"results": []}', "not Gutenberg's catalogue"),
        (SMALL.replace(b"Trois", b"Tro\xffs"), "line 5: byte 0xff is not UTF-8"),
        (SMALL.replace(b"Trois", b"Tro\0s"), "line 5: a NUL byte"),
        (b"<!DOCTYPE html><p>busy", "web page"),
    ],
)
@pytest.mark.parametrize("path", [CSV, GZ])
def test_a_catalogue_that_is_none_is_one_error_with_its_url_and_nothing_is_kept(
    served: Served, run: Run, path: str, body: bytes, said: str
) -> None:
    served.put(path, body)
    with pytest.raises(MirrorError) as caught:
        read_catalogue(served.downloader(), run)
    assert served.base in caught.value.message
    assert path in caught.value.message
    assert said in caught.value.message
    assert caught.value.cure
    assert not kept(run).exists()


@pytest.mark.parametrize("damaged", [b"", b"rubbish", gzip.compress(SMALL)[:-9], gzip.compress(SMALL[:-9])])
def test_a_kept_catalogue_that_was_damaged_is_fetched_again(
    served: Served, run: Run, damaged: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    served.put(GZ, gzip.compress(SMALL))
    kept(run).parent.mkdir(parents=True)
    kept(run).write_bytes(damaged)
    assert read_catalogue(served.downloader(), run).keys() == {7, 8, 9, 624}
    assert "is damaged and fetched again" in capsys.readouterr().out
    assert catalogue_sha(run) == hashlib.sha256(SMALL).hexdigest()


# --- the wishes


def test_the_catalogue_selection_has_reasons_and_says_what_is_missing(
    served: Served, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    served.put(CSV, SMALL)
    wishes = choose(AcquireConfig(selection="catalogue"), THEME, served.downloader(), run)
    assert [wish.book_id for wish in wishes] == [*map(str, THEME.priority_works), "8", "7"]
    assert wishes[0] == Wish("624", "Looking Backward", (), None, None, ("Utopias",), None, "utopian", "priority work")
    assert wishes[1] == Wish("6424", category="utopian", reason="priority work")
    assert wishes[-1] == Wish(
        "7", "A [red] Gambit", ("Holt, A.",), 1881, 1949, ("Chess",), None, "chess", "category chess: Chess (subject)"
    )
    assert (wishes[-2].category, wishes[-2].subjects) == ("utopian", ("Utopias", "Politics"))
    assert json.loads(json.dumps(asdict(wishes[0])))["reason"] == "priority work"
    said = capsys.readouterr().out
    assert "60 books chosen of 4 in the catalogue; passed over: 1 other_language" in said
    assert "fewer than the theme wants: russian 14 of 15, utopian 10 of 20, science fiction 17 of 30, chess 3 of 5" in said
    assert "no book for subjects Science fiction, Satire, Political fiction, Allegories, Dystopias and 50 more" in said


def test_named_subjects_are_the_whole_wish_unless_the_selection_is_the_catalogue(served: Served, run: Run) -> None:
    served.put(CSV, SMALL)
    named = AcquireConfig(subjects=("Utopias", "Chess"))
    assert named.selection == "subjects"
    wishes = choose(named, THEME, served.downloader(), run)
    assert [(wish.book_id, wish.category, wish.reason) for wish in wishes] == [
        ("8", "", "subject Utopias"),
        ("7", "", "subject Chess"),
        ("624", "", "subject Utopias"),
    ]
    capped = AcquireConfig(subjects=("Utopias", "Chess"), max_per_subject=1)
    assert [wish.book_id for wish in choose(capped, THEME, served.downloader(), run)] == ["8", "7"]
    both = AcquireConfig(selection="catalogue", subjects=("Chess",))
    assert both.selection == "catalogue"
    assert len(choose(both, THEME, served.downloader(), run)) == 60


def test_no_book_at_all_is_an_error_that_says_what_was_asked(served: Served, run: Run) -> None:
    served.put(CSV, SMALL)
    with pytest.raises(InputError, match=r"no book in language `en` for subjects Knitting, Bees\n"):
        choose(AcquireConfig(subjects=("Knitting", "Bees")), THEME, served.downloader(), run)
    with pytest.raises(InputError, match="in language `de` for subject Chess; passed over: 2 other_language"):
        choose(AcquireConfig(subjects=("Chess",), language="de"), THEME, served.downloader(), run)


def test_ids_and_priority_need_no_catalogue_and_the_others_do(served: Served, run: Run) -> None:
    ids = choose(AcquireConfig(ids=(5, 624, 5)), THEME, served.downloader(), run)
    assert ids == [Wish("5", reason="asked for by its id"), Wish("624", reason="asked for by its id")]
    assert len(choose(AcquireConfig(), THEME, served.downloader(), run)) == 58
    for settings_ in (AcquireConfig(selection="catalogue"), AcquireConfig(subjects=("Chess",))):
        with pytest.raises(MirrorError, match=f"has no catalogue at {re.escape(CSV)}"):
            choose(settings_, THEME, served.downloader(), run)
    with pytest.raises(InputError, match="no ids are named"):
        choose(AcquireConfig(selection="ids"), THEME, served.downloader(), run)


# --- the plan


def plan_words(served: Served, tmp_path: Path, *words: str) -> list[str]:
    root = str(tmp_path / "runs")
    return ["acquire", "--plan", "--mirror", served.base, "--delay", "0", "--data-root", root, "--run", "r", *words]


def plan(served: Served, tmp_path: Path, *words: str) -> int:
    return main(plan_words(served, tmp_path, *words))


def test_the_plan_shows_books_and_reasons_and_fetches_the_catalogue_alone(
    served: Served, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    served.put(CSV, SMALL)
    run.table("books").write_table(rows_table([dict.fromkeys(BOOKS.names) | {"book_id": "624"}], BOOKS), "a")
    lost = [("7", "wrong_language"), ("61963", "not_on_mirror")]
    rejects = [dict.fromkeys(REJECTS.names) | {"id": book_id, "reason": reason} for book_id, reason in lost]
    run.table("rejects/acquire").write_table(pa.Table.from_pylist(rejects, REJECTS), "a")
    assert plan(served, tmp_path, "--acquire.selection", "catalogue", "--delay", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "   624  there       utopian             Looking Backward | - | priority work" in lines
    assert " 61963  to fetch    utopian             We | - | priority work" in lines
    assert (
        "     7  rejected: wrong_language  chess               A [red] Gambit | Holt, A. | category chess: Chess (subject)" in lines
    )
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert ["utopian", "20-30", "10", "9", "9"] in cells
    assert ["chess", "5-10", "3", "2", "2"] in cells
    assert ["Satire", "", "4", "4", "4"] in cells
    assert f"58 of 60 books to fetch from {served.base}: 59 requests or more" in lines[-1]
    assert lines[-1].endswith("2 s apart: 0:01:58 h or more")
    assert served.asked == ["/robots.txt", GZ, CSV]
    assert sorted(path.name for path in (tmp_path / "runs" / "r").iterdir()) == ["acquire", "books", "rejects"]
    assert plan(served, tmp_path, "--acquire.selection", "catalogue") == 0
    assert served.asked == ["/robots.txt", GZ, CSV]


def test_a_plan_of_ids_on_a_mirror_without_a_catalogue(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(served, tmp_path, "--ids", "5", "1497") == 0
    said = capsys.readouterr().out
    assert "     5  to fetch    -                   (not in the catalogue) | - | asked for by its id\n" in said
    assert "  1497  to fetch    -                   The Republic | - | asked for by its id\n" in said
    assert "Categories" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--input", "x.txt"], "--input reads local files"),
        (["--fresh"], "--plan changes nothing"),
        (["--subjects", "Knitting"], "for subject Knitting"),
    ],
)
def test_what_cannot_be_planned_is_one_message(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    served.put(CSV, SMALL)
    assert plan(served, tmp_path, *words) == 1
    out, errors = capsys.readouterr()
    assert out == ""
    assert said in errors
    assert "Traceback" not in errors


def test_a_plan_is_refused_where_acquire_would_be(
    served: Served, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.begin("acquire", {"acquire.selection": "priority"}, {}, {})
    assert plan(served, tmp_path, "--ids", "5") == 1
    assert "was made with other settings" in capsys.readouterr().err
    assert served.asked == []


def test_planning_does_not_even_import_ray(served: Served, tmp_path: Path) -> None:
    words = plan_words(served, tmp_path, "--ids", "5")
    code = f"import sys; from deepred_ray.cli import main; sys.exit(main({words!r}) or 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 books to fetch" in done.stdout
