"""The configuration: one message that names what is wrong and where, the shipped files, and flags that win over a file."""

import os
from pathlib import Path
from typing import Any

import pytest

from deepred_ray.cli import STAGE_HELP, Asked, main, parse_config
from deepred_ray.config import Config, load, read_toml
from deepred_ray.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[2] / "jobs/configs").glob("*.toml"))


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "my.toml").write_text(text, "utf-8")
    return str(tmp_path / "my.toml")


# --- files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modell = 'x'", ["unknown setting `modell`"]),
        ("[train]\nepoch = 3", ["unknown setting `train.epoch`"]),
        ("[trian]\nepochs = 3", ["unknown setting `trian`"]),
        ("[train]\nepochs = 'many'", ["`train.epochs` = 'many'", "valid integer"]),
        ("[acquire]\nids = 624", ["`acquire.ids` = 624", "valid tuple"]),
        ("acquire = 3", ["`acquire` = 3", "valid dictionary"]),
        ("[train]\nepochs = 0", ["`train.epochs` = 0", "greater than or equal to 1"]),
        ("[train]\nlearning_rate = nan", ["`train.learning_rate` = nan", "greater than 0"]),
        ("[train]\nprecision = 'f8'", ["`train.precision` = 'f8'", "'bf16'"]),
        ("[export]\nquantizations = ['q8_0', 'q9']", ["`export.quantizations.1` = 'q9'"]),
        ("[synthesize]\nvalidation_share = 0.6", ["`synthesize.validation_share` = 0.6", "less than or equal to 0.5"]),
        ("run = '../elsewhere'", ["`run` = '../elsewhere'", "pattern"]),
        ("[train]\nepochs = 0\nrank = 0\nwarmth = 1", ["`train.epochs` = 0", "`train.rank` = 0", "unknown setting `train.warmth`"]),
        ("[synthesize]\npassages = -5", ["`synthesize.passages` = -5"]),
        ("[evaluate]\nprompts = 0", ["`evaluate.prompts` = 0"]),
        ("[ray]\ncpus = 0", ["`ray.cpus` = 0"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: list[str]
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(read_toml(file), file)
    assert str(caught.value).count(file) == 1
    assert all(words in caught.value.message for words in said)
    assert caught.value.cure
    assert main(["run", "--config", file]) == 1
    assert capsys.readouterr() == ("", f"deepred: {caught.value}\n")


@pytest.mark.parametrize(("data", "said"), [(b"run = ", "is not TOML"), (b"run = '\xff'", "is not TOML"), (None, "No such file")])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes | None, said: str
) -> None:
    file = tmp_path / "my.toml"
    if data is not None:
        file.write_bytes(data)
    assert main(["corpus", "--config", str(file)]) == 1
    error = capsys.readouterr().err
    assert str(file) in error
    assert said in error
    assert "Traceback" not in error


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load(read_toml(written(tmp_path, "")), "my.toml") == Config()


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().train.epochs = 4


def test_a_configuration_survives_the_run_folder() -> None:
    config = Config(run="x", acquire={"ids": (1, 2)}, synthesize={"answer_chars": (10, 20)})  # type: ignore[arg-type]
    assert load(config.model_dump(mode="json"), "config.json") == config


def test_the_data_root_is_the_setting_else_the_environment_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUTENBERG_DATA", "/data")
    assert Config(data_root="file:///b/x").root == "file:///b/x"
    assert Config().root == "/data"
    monkeypatch.delenv("GUTENBERG_DATA")
    assert Config().root == "./runs"
    assert "GUTENBERG_DATA" not in os.environ


# --- what ships


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_load_for_every_stage(path: Path) -> None:
    config = load(read_toml(str(path)), str(path))
    assert config.run == path.stem
    for stage in STAGE_HELP:
        assert parse_config(stage, ["--config", str(path)]) == Asked(config)


def test_full_has_the_figures_of_the_plan() -> None:
    config = load(read_toml(str(next(path for path in SHIPPED if path.stem == "full"))), "full.toml")
    assert config.model == "Qwen/Qwen2.5-1.5B-Instruct"
    assert (config.acquire.selection, config.acquire.max_books, config.acquire.delay) == ("catalogue", 500, 2.0)
    assert (config.synthesize.examples, config.synthesize.validation_share) == (10_000, 0.1)
    train = config.train
    assert (train.rank, train.alpha, train.dropout, train.epochs, train.learning_rate) == (32, 64, 0.05, 3, 5e-5)
    assert (train.warmup, train.weight_decay, train.batch, train.global_batch) == (0.1, 0.01, 4, 16)
    assert train.precision == "auto"


def test_demo_asks_no_foreign_host_and_others_keep_their_distance() -> None:
    found = {path.stem: load(read_toml(str(path)), str(path)).acquire for path in SHIPPED}
    assert found.keys() == {"demo", "full", "priority"}
    assert found.pop("demo").mirror == "sample"
    assert all(settings.delay >= 2 for settings in found.values())


# --- command line


def test_flags_win_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    file = written(tmp_path, "run = 'filed'\nmodel = 'a/b'\n[acquire]\nids = [1, 2]\ndelay = 7\n[train]\nepochs = 9\nrank = 8")
    asked = parse_config("run", ["--config", file, "--ids", "3", "--train.epochs", "2", "--fresh"])
    config = asked.config
    assert asked == Asked(config, fresh=True)
    assert (config.run, config.model, config.acquire.delay, config.train.rank) == ("filed", "a/b", 7, 8)
    assert config.acquire.ids == (3,)
    assert config.train.epochs == 2
    assert parse_config("run", [f"--config={file}"])[0].train.epochs == 9


def test_settings_of_stages_that_a_command_does_not_show_come_from_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[corpus]\nsize = 512\n[train]\nepochs = 9")
    config = parse_config("train", ["--config", file, "--train.rank", "4"]).config
    assert (config.corpus.size, config.train.epochs, config.train.rank) == (512, 9, 4)


@pytest.mark.parametrize(
    ("command", "words", "found"),
    [
        ("acquire", ["--mirror", "http://127.0.0.1:8600"], {"acquire": {"mirror": "http://127.0.0.1:8600"}}),
        ("acquire", ["--ids", "624", "61963", "33870"], {"acquire": {"ids": (624, 61963, 33870)}}),
        ("acquire", ["--delay", "0.5", "--acquire.selection", "catalogue"], {"acquire": {"delay": 0.5, "selection": "catalogue"}}),
        (
            "run",
            ["--model", "a/b", "--run", "mine", "--data-root", "file:///b/x"],
            {"model": "a/b", "run": "mine", "data_root": "file:///b/x"},
        ),
        (
            "run",
            ["--examples", "40", "--passages", "9", "--epochs", "2"],
            {"synthesize": {"examples": 40, "passages": 9}, "train": {"epochs": 2}},
        ),
        ("synthesize", ["--examples", "40", "--synthesis-model", "c/d"], {"synthesize": {"examples": 40, "model": "c/d"}}),
        ("train", ["--dataset", "x.jsonl", "--workers", "4"], {"train": {"dataset": "x.jsonl", "workers": 4}}),
        (
            "train",
            ["--train.workers", "4", "--train.no-gradient-checkpointing"],
            {"train": {"workers": 4, "gradient_checkpointing": False}},
        ),
        (
            "export",
            ["--adapter", "a", "--export.quantizations", "f16", "q8_0"],
            {"export": {"adapter": "a", "quantizations": ("f16", "q8_0")}},
        ),
        ("acquire", ["--input", "a.txt", "b"], {"acquire": {"input": ("a.txt", "b")}}),
        ("corpus", ["--input", "a.txt", "b"], {"acquire": {"input": ("a.txt", "b")}}),
        ("corpus", ["--corpus.min-matches", "5"], {"corpus": {"min_matches": 5}}),
        ("synthesize", ["--input", "a.jsonl"], {"synthesize": {"input": ("a.jsonl",)}}),
        ("synthesize", ["--input=a.jsonl"], {"synthesize": {"input": ("a.jsonl",)}}),
        (
            "synthesize",
            ["--endpoint", "http://127.0.0.1:1234", "--judge-model", "e/f", "--synthesize.scripts", "films"],
            {"synthesize": {"endpoint": "http://127.0.0.1:1234", "judge_model": "e/f", "scripts": "films"}},
        ),
        (
            "evaluate",
            ["--ray.address", "auto", "--evaluate.prompts", "5"],
            {"ray": {"address": "auto"}, "evaluate": {"prompts": 5}},
        ),
    ],
)
def test_flags(command: str, words: list[str], found: dict[str, Any]) -> None:
    assert parse_config(command, words) == Asked(Config.model_validate(found | {"acquire": ids_selected(found)}))


def ids_selected(found: dict[str, Any]) -> dict[str, Any]:
    acquire: dict[str, Any] = found.get("acquire", {})
    return acquire | ({"selection": "ids"} if "ids" in acquire else {})


@pytest.mark.parametrize("named", ["priority", "catalogue", "ids"])
def test_naming_ids_means_to_select_by_them(tmp_path: Path, named: str) -> None:
    file = written(tmp_path, f"[acquire]\nselection = '{named}'")
    assert parse_config("acquire", ["--config", file, "--ids", "5"])[0].acquire.selection == "ids"
    assert parse_config("acquire", ["--config", file])[0].acquire.selection == named


@pytest.mark.parametrize(
    ("named", "selection"), [("", "subjects"), ("priority", "subjects"), ("subjects", "subjects"), ("catalogue", "catalogue")]
)
def test_naming_subjects_means_to_select_by_them_unless_the_catalogue_is(tmp_path: Path, named: str, selection: str) -> None:
    file = written(tmp_path, f"[acquire]\nselection = '{named}'" if named else "")
    words = ["--config", file, "--subjects", "Chess", "Mars (Planet)", "--max-per-subject", "5", "--plan"]
    asked = parse_config("acquire", words)
    acquire = asked.config.acquire
    assert asked == Asked(asked.config, plan=True)
    assert (acquire.selection, acquire.subjects, acquire.max_per_subject) == (selection, ("Chess", "Mars (Planet)"), 5)
    assert parse_config("acquire", ["--config", file, "--subjects", "Chess", "--ids", "5"])[0].acquire.selection == "ids"


def test_only_synthesize_can_be_tried(capsys: pytest.CaptureFixture[str]) -> None:
    asked = parse_config("synthesize", ["--preview", "8", "--benchmark", "--models", "a,b/c"])
    assert asked == Asked(asked.config, preview=8, benchmark=True, models="a,b/c")
    for flag in ("--preview", "--benchmark", "--models"):
        assert main(["corpus", flag, "8"]) == 2
        assert flag in capsys.readouterr().err


def test_only_acquire_has_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", "--plan"]) == 2
    assert "--plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--nope"], ["--examples", "many"], ["--examples", "0"], ["--synthesize.validation-share", "2"], ["--config"], ["stray"]],
)
def test_a_wrong_flag_is_wrong_usage(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["synthesize", *words]) == 2
    error = capsys.readouterr().err
    assert words[0] in error or "example" in error or "validation" in error
    assert "Traceback" not in error
