"""A second theme by data files alone: it is found, checked, shipped whole, and says nothing of the first."""

import pickle
import re
import shutil
from pathlib import Path
from typing import Literal

import pytest

from deepred_ray import themecheck
from deepred_ray.config import AcquireConfig, Config, load, read_toml
from deepred_ray.errors import InputError
from deepred_ray.runs import STAGES, settings_of
from deepred_ray.stages.selection import require_wishes
from deepred_ray.text.speech import parse_speech
from deepred_ray.theme import EVALUATION, FILES, SHIPPED, STAGE_FILES, Theme

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "themes" / "keeper"
PACKAGE = ROOT / "deepred_ray"
# Of the first theme's world; none is a word of English prose before 1891 that the second could need.
FIRST_THEME = re.compile(
    r"\bDeep ?Red\b|\bZarya\b|\bMartians?\b|\bMars\b|\bcosmonauts?\b|\bSoviets?\b|\bVetrova\b|Planetary Cybernetics",
    re.I,
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The second theme, to be spoilt."""
    return Path(shutil.copytree(FOLDER, tmp_path / "mine"))


def report(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = themecheck.check(str(folder))
    return status, capsys.readouterr().out


# --- finding it


def test_a_theme_is_found_by_its_folder_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theme = Theme.find(str(FOLDER))
    assert (theme.name, theme.title, theme.cutoff_year) == ("keeper", "Silas Wray", 1891)
    assert theme.system.startswith("You are Silas Wray,")
    monkeypatch.chdir(FOLDER.parent)
    assert Theme.find("keeper").files == theme.files
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no theme 'keeper'") as caught:
        Theme.find("keeper")
    assert "deepred" in caught.value.cure
    assert Theme.find("deepred").title == "Deep Red"


@pytest.mark.parametrize("told", ["themes/keeper", "./themes/keeper/", str(FOLDER)])
def test_a_theme_beside_its_configuration_is_found(told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER, tmp_path / "settings" / "themes" / "keeper")
    (tmp_path / "settings" / "mine.toml").write_text(f'theme = "{told}"\n')
    monkeypatch.chdir(tmp_path)
    config = load(read_toml("settings/mine.toml"), "settings/mine.toml")
    wanted = told if told == str(FOLDER) else "settings/themes/keeper"  # from here, so that it holds where this folder travels to
    assert config.theme == wanted
    assert Theme.find(config.theme).title == "Silas Wray"


def test_the_example_configuration_names_the_example_theme() -> None:
    file = str(ROOT / "examples" / "keeper.toml")
    assert Theme.find(load(read_toml(file), file).theme).files == Theme.find(str(FOLDER)).files


def test_a_name_that_ships_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text('theme = "deepred"\n')
    assert read_toml(str(tmp_path / "plain.toml")) == {"theme": "deepred"}


def test_a_theme_travels_whole_to_where_its_folder_is_not(copy: Path) -> None:
    theme = Theme.find(str(copy))
    shutil.rmtree(copy)
    there: Theme = pickle.loads(pickle.dumps(theme))
    assert there.keywords_in("The lamp burned in the gale.") == {"lamp", "gale"}
    assert there.hashes() == Theme.find(str(FOLDER)).hashes()
    assert len(there.evaluation) == 16


def test_identity_is_of_what_is_in_the_folder_and_not_of_where_it_lies(copy: Path) -> None:
    here, there = Theme.find(str(FOLDER)), Theme.find(str(copy))
    lies_here, lies_there = Config(theme=str(FOLDER)), Config(theme=str(copy.with_name("keeper")))
    for stage in STAGES:
        assert settings_of(lies_here, stage, here.hashes()) == settings_of(lies_there, stage, there.hashes())
    (copy / "lexicon.tsv").write_text((copy / "lexicon.tsv").read_text() + "sea\tkelp\t3\t3.3\t1\n")
    changed = Theme.find(str(copy)).hashes()
    assert {stage for stage, told in here.hashes().items() if changed[stage] != told} == {"corpus", "synthesize"}


# --- its files


def test_every_file_of_a_stage_is_one_that_a_theme_may_have() -> None:
    used = {file for files in STAGE_FILES.values() for file in files}
    assert used == set(FILES)
    for folder in (SHIPPED / "deepred", FOLDER):
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert there <= set(FILES)
        assert {file for file, absent in FILES.items() if absent == "needed"} <= there


@pytest.mark.parametrize("file", [file for file, absent in FILES.items() if absent == "needed" and file != "theme.toml"])
def test_a_missing_file_is_named(file: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / file).unlink()
    with pytest.raises(InputError, match=f"mine: no file {re.escape(file)}"):
        Theme.find(str(copy)).read(file)
    status, told = report(copy, capsys)
    assert status == 1
    assert f"NOT  files                  {file}: missing" in told


def test_what_may_be_left_out_is_nothing_or_common(copy: Path) -> None:
    for file in ("priority_works.tsv", "subjects.txt", "anachronisms.tsv"):
        (copy / file).unlink()
    theme, first = Theme.find(str(copy)), Theme.find("deepred")
    assert (theme.priority_works, theme.categories, theme.subjects) == ({}, (), ())
    assert theme.common == first.common
    assert theme.reference("neutral") == first.reference("neutral")
    # Words of after 1968 are known to all themes; those between are the second theme's own.
    assert theme.era.check("He sent it by e-mail.") is not None
    assert theme.era.check("The Titanic is lost.") is None
    full = Theme.find(str(FOLDER))
    assert full.era.check("He sent it by e-mail.") is not None
    reject = full.era.check("The Titanic is lost.")
    assert reject is not None
    assert reject.detail == "Titanic (name, 1911)"
    assert full.era.check("It happened in 1903.") is not None
    assert first.era.check("It happened in 1903; the Titanic is lost.") is None


def spoil(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


SPOILT = [
    ("theme.toml", 'name = "keeper"', "name = 5", "name 5 is to be of letters"),
    ("theme.toml", "cutoff_year = 1891", "cutoff_year = 91", "cutoff_year 91 is not a year"),
    ("theme.toml", "least = 1", "", r"\[speech\] or the title: 'least' is missing"),
    ("theme.toml", "title =", "titel =", "title missing"),
    ("theme.toml", "least = 1", "least = = 1", "line 17"),
    ("lexicon.tsv", "sea\tsea\t1\t1.2\t1", "sea\tSea\t1\t1.2\t1", "lexicon line 2: term 'Sea' is not lower-case"),
    ("relevance.toml", "sea = 1.0", "", "no other: sea"),
    ("personas.toml", 'group = "water"', "", "persona 3: KeyError"),
    ("components.toml", "share = 0.6", "share = 0.7", "shares do not add up"),
    ("components.toml", "share = 0.6", "", "component 1: KeyError"),
    ("voice.jsonl", '"persona": "almanac", "themes": ["sea"]', '"persona": "no", "themes": ["sea"]', "line 5: unknown persona"),
    ("axes.toml", "[form]", "[forms]", "KeyError"),
    ("questions.tsv", "light\tWhy must", "light Why must", "line 3: expected themes, a tab"),
    ("openings.toml", "any = [", "all = [", "`any` is missing"),
    ("requests.toml", "{low} to {high}", "{least} to {high}", "books: KeyError"),
    ("rubric.toml", "five =", "four =", "keeper: KeyError"),
    ("style.toml", '"sails?"', '"sails?("', "style rules"),
    ("evaluation/temporal.jsonl", '"temporal-before-003"', '"temporal-before-002"', "ids used twice: temporal-before-002"),
    ("evaluation/persona.jsonl", '"era", "kind"', '"era", "kinds"', "line 4: TypeError"),
    ("anachronisms.tsv", "Marconi\t1896", "Marconi\tlate", "line 3: 'late' is not a year"),
    ("priority_works.tsv", "\t1851", "", "line 2"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "message"), SPOILT, ids=lambda value: value if value in FILES else "")
def test_an_error_names_file_and_row(
    file: str, old: str, new: str, message: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(copy / file, old, new)
    status, told = report(copy, capsys)
    assert status == 1
    assert re.search(rf"^NOT .*mine: {re.escape(file)}: .*{message}", told, re.M), told


@pytest.mark.parametrize("selection", ["priority", "subjects", "catalogue"])
def test_a_theme_without_lists_of_books_says_how_to_name_some(
    selection: Literal["priority", "subjects", "catalogue"], copy: Path
) -> None:
    require_wishes(AcquireConfig(selection=selection), Theme.find(str(FOLDER)))
    for file in ("priority_works.tsv", "subjects.txt"):
        (copy / file).unlink()
    theme = Theme.find(str(copy))
    with pytest.raises(InputError, match=f"theme keeper has no .*`{selection}`") as caught:
        require_wishes(AcquireConfig(selection=selection), theme)
    assert "--input" in caught.value.cure
    require_wishes(AcquireConfig(ids=(2701,)), theme)
    require_wishes(AcquireConfig(subjects=("Lighthouses",)), theme)


def test_a_file_in_another_encoding_is_refused_by_name(copy: Path) -> None:
    (copy / "frames.txt").write_bytes("Caf\xe9 of {thing}.".encode("latin-1"))
    with pytest.raises(InputError, match=r"mine: frames\.txt is not UTF-8"):
        Theme.find(str(copy))


CROOKED = [
    ("personas.toml", '"light", "weather", "sea", "ships", "shore"', '"light", "hills"', "themes", "personas.toml, keeper, hills"),
    ("openings.toml", "water = [", "fire = [", "openings", "fire: no group"),
    ("questions.tsv", "{topic}", "the tide", "banks", "one with {topic} alone"),
    ("frames.txt", "{thing}", "it", "banks", "frames.txt"),
    ("voice.jsonl", '"persona": "boatman"', '"persona": "keeper"', "banks", "one of each persona"),
    ("evaluation/style.jsonl", "How should a man pass a winter alone?", "Why must the lens be wiped twice in a night?", "overlap",
     "wiped twice"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "name", "message"), CROOKED, ids=[each[3] + "-" + each[0] for each in CROOKED])
def test_files_that_contradict_each_other_are_told(
    file: str, old: str, new: str, name: str, message: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(copy / file, old, new)
    status, told = report(copy, capsys)
    assert status == 1
    assert [line for line in told.splitlines() if line.startswith(f"NOT  {name:<22}") and message in line], told


def test_the_second_theme_has_no_fault_and_a_stray_file_does_no_harm(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = report(copy, capsys)
    assert status == 0
    assert {line[:3] for line in told.splitlines()} == {"ok "}
    (copy / "lexikon.tsv").write_text("")
    status, told = report(copy, capsys)
    assert status == 0
    assert "lexikon.tsv: is read by nothing" in told


# --- whose words they are


def test_the_second_theme_says_nothing_of_the_first() -> None:
    theme = Theme.find(str(FOLDER))
    assert [file for file, text in theme.files.items() if file != "anachronisms.tsv" and FIRST_THEME.search(text)] == []
    assert not {"comrade", "comrades", "chess"} & {*theme.scorer.lexicon.terms, *theme.phrasebook.topics}


def test_the_code_says_nothing_of_any_theme() -> None:
    """But in comments, docstrings and help, where an example may be of the theme that ships."""
    strings = re.compile(r"^\s*#.*$|#\s.*$|\"\"\"[\s\S]*?\"\"\"", re.M)
    found = {
        f"{path.relative_to(PACKAGE)}: {match[0]}"
        for path in [*PACKAGE.rglob("*.py"), PACKAGE / "data" / "report.html"]
        for match in FIRST_THEME.finditer(strings.sub("", path.read_text("utf-8")))
        if match[0] != "deepred"  # the command and the package
    }
    # A heading of the catalogue, as an example of one in a message.
    assert found == {"stages/selection.py: Mars"}


def test_the_voice_is_the_theme_s_and_not_the_code_s() -> None:
    first, second = Theme.find("deepred").speech, Theme.find(str(FOLDER)).speech
    mine, ours = "I trim my lamp at dusk.", "We trim our lamps together."
    assert (first.fault(ours), second.fault(mine)) == (None, None)
    assert [fault.detail for fault in (first.fault(mine), second.fault(ours)) if fault] == [
        "speaks as I",
        "0 words of its own voice, 1 wanted",
    ]
    assert second.label.search("Silas Wray: I trim my lamp.")
    assert not second.label.search("Deep Red: we trim our lamps.")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"says": ["I"]}, "'least' is missing"),
        ({"says": [], "least": 1}, "list of patterns"),
        ({"says": "I", "least": 1}, "list of patterns"),
        ({"says": ["("], "least": 1}, "speech"),
        ({"says": ["I"], "least": 1, "never": [1]}, "list of patterns"),
    ],
)
def test_bad_speech(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_speech({"title": "X", "speech": table})


def test_evaluation_has_every_kind() -> None:
    assert [Theme.find(str(FOLDER)).files[file].count("\n") for file in EVALUATION] == [6, 6, 4]


def test_the_page_tells_of_every_file_what_the_loader_does() -> None:
    rows = re.findall(r"^\| `([\w./]+)` \| (\w+) \| (.+) \|$", (ROOT / "docs" / "themes.md").read_text("utf-8"), re.M)
    assert {file: absent for file, absent, _ in rows} == dict(FILES)
    assert [file for file, *_ in rows] == list(FILES)
    assert all(len(what) > 20 for *_, what in rows)
