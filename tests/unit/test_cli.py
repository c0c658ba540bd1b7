"""The command as a user meets it: help, exit status, one message without a traceback; and the pipeline behind it."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import OutOfDiskError, RayTaskError, WorkerCrashedError

from deepred_ray import cli, console, models, pipeline
from deepred_ray.cli import STAGE_HELP, TOOL_HELP, find_known, main
from deepred_ray.config import Config
from deepred_ray.console import Meter, counts_text
from deepred_ray.errors import ConfigError, DeepredError, InputError, LedgerError, ModelError, ShortfallError, StaleRunError
from deepred_ray.runs import STAGES, Manifest, Run

ROOT = Path(__file__).parents[2]
COMMANDS = [*STAGE_HELP, *TOOL_HELP]


def deepred(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deepred_ray", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | environment)


def one_message(error: str) -> None:
    """One line that says what is wrong, at most one that says what to do."""
    assert "Traceback" not in error
    assert error.startswith("deepred: ")
    assert 1 <= len(error.splitlines()) <= 2


# --- help and usage


def test_help_lists_all_commands() -> None:
    ran = deepred("--help")
    assert ran.returncode == 0
    listed = {line.split()[0] for line in ran.stdout.splitlines() if line.startswith("  ")}
    assert set(COMMANDS) <= listed
    tools = {"chat", "serve", "explain", "review", "inspect", "thresholds", "status", "compare", "doctor"}
    assert set(COMMANDS) == {*STAGES, "run", "check-era", "check-theme", *tools}
    assert ran.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, "--help"]) == 0
    said, errors = capsys.readouterr()
    assert f"deepred {command}" in said
    assert "--data-root" in said
    assert errors == ""


def test_the_help_of_a_stage_shows_its_settings_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--help"])
    said = capsys.readouterr().out
    assert "--train.learning-rate" in said
    assert "--epochs" in said
    assert "--corpus." not in said


def test_examples_in_the_overview_can_be_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lines = [line.split()[1:] for line in cli.EPILOG.splitlines() if line.startswith("  deepred ")]
    stages = [words for words in lines if words[0] in STAGE_HELP]
    assert len(stages) > 3
    for command, *words in stages:
        cli.parse_config(command, words)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("deepred 0.")


@pytest.mark.parametrize("words", [[], ["trian"], ["--model", "x"], ["inspect"], ["doctor", "--nope"]])
def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 2
    said, errors = capsys.readouterr()
    assert "usage" in said + errors
    assert not words or words[0] in errors


# --- one message


def test_an_unknown_setting_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("[train]\nepoch = 3\n")
    ran = deepred("run", "--config", str(tmp_path / "my.toml"), "--data-root", str(tmp_path))
    assert ran.returncode == 1
    one_message(ran.stderr)
    assert "unknown setting `train.epoch`" in ran.stderr
    assert str(tmp_path / "my.toml") in ran.stderr
    assert ran.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]


@pytest.mark.parametrize("by_environment", [False, True])
def test_a_data_root_that_cannot_be_written_names_the_way_out(tmp_path: Path, by_environment: bool) -> None:
    (tmp_path / "file").write_text("")
    root = str(tmp_path / "file" / "x")
    ran = deepred("corpus", GUTENBERG_DATA=root) if by_environment else deepred("corpus", "--data-root", root)
    assert ran.returncode == 1
    one_message(ran.stderr)
    assert f"data root {root} cannot be written" in ran.stderr
    assert "--data-root" in ran.stderr
    assert "GUTENBERG_DATA" in ran.stderr


def test_an_unknown_data_root_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", "--data-root", "nowhere://bucket"]) == 1
    error = capsys.readouterr().err
    one_message(error)
    assert "nowhere://bucket" in error


def test_want_of_room_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(str(tmp_path), "r")
    monkeypatch.setattr(pipeline, "free_memory", lambda: 1 << 30)
    with pytest.raises(DeepredError, match=r"1\.0 GiB of memory are free, a run needs 3"):
        pipeline.require_room(run)
    monkeypatch.setattr(pipeline.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 20))
    with pytest.raises(DeepredError, match=f"{tmp_path} has 5 MiB free, a run needs 1 GiB"):
        pipeline.require_room(run)


class Wrapped(Exception):
    """As Ray hands on what a worker raised."""

    def __init__(self, cause: BaseException, failures: dict[int, BaseException] | None = None) -> None:
        super().__init__("a worker's traceback\nfull of lines")
        self.cause = cause
        self.worker_failures = failures or {}


def test_our_error_is_found_among_its_wrappings() -> None:
    ours = ShortfallError("half is missing", "Ask for less.")
    chained = RuntimeError("outer")
    chained.__cause__ = Wrapped(ours)
    circle = RuntimeError("a")
    circle.__context__ = circle
    for error in (ours, Wrapped(ours), Wrapped(Wrapped(ours)), chained, Wrapped(ValueError(), {0: KeyError(), 1: Wrapped(ours)})):
        known = find_known(error)
        assert known is not None
        assert str(known) == "half is missing\n  Ask for less."
    assert find_known(circle) is None


def test_what_ray_lost_is_told_with_how_to_go_on() -> None:
    died = RuntimeError("outer")
    died.__cause__ = WorkerCrashedError()
    full = OutOfDiskError("put")
    in_task = RayTaskError("fetch", "Traceback (most recent call last):\nOutOfDiskError: put", full).as_instanceof_cause()
    for error, said in (
        (died, "a worker process of Ray was lost: The worker died"),
        (full, "Ray's object store is full, and so is the disk that it spills to: put"),
        (in_task, "Ray's object store is full, and so is the disk that it spills to: put"),
    ):
        known = find_known(error)
        assert known is not None
        assert known.message.startswith(said)
        assert known.cure.startswith("The same command goes on")
    # What one of our own errors says tells more.
    died.__context__ = InputError("the cause")
    assert str(find_known(died)) == "the cause"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("a", "b"), 1, "deepred: a\n  b\n"),
        (
            ZeroDivisionError("x\nlast line"),
            1,
            "deepred: unexpected ZeroDivisionError: last line\n  --debug shows the traceback.\n",
        ),
        (KeyError(), 1, "deepred: unexpected KeyError: \n  --debug shows the traceback.\n"),
        (KeyboardInterrupt(), 130, "\nstopped: what is finished is kept, the same command goes on from there\n"),
        (SystemExit(143), 143, ""),
    ],
)
def test_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    def fail(*_: Any) -> int:
        raise error

    monkeypatch.setattr(cli, "stage_command", fail)
    assert main(["corpus"]) == status
    assert capsys.readouterr().err == said
    if isinstance(error, ZeroDivisionError):
        main(["corpus", "--debug"])
        assert "Traceback" in capsys.readouterr().err


# --- models


def test_a_model_that_is_not_there_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (str(tmp_path / "none"), "./none", "~/none", "none", "a/b/c"):
        with pytest.raises(ModelError) as caught:
            models.resolve(name)
        assert repr(name) in caught.value.message
        assert models.EMBEDDED in caught.value.cure
    with pytest.raises(ModelError, match=r"has no config\.json"):
        models.resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert models.resolve(str(tmp_path)) == str(tmp_path)

    def offline(_: str) -> None:
        raise OSError("cannot reach the hub\nmore")

    monkeypatch.setattr(models, "load_config", offline)
    with pytest.raises(ModelError, match="model a/b is not on this machine and cannot be fetched: cannot reach the hub\n"):
        models.resolve("a/b")


# --- the pipeline, with stages that only count how often they run


class Stages:
    """Stand-ins for the stage modules. `fault` makes the named stage raise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.fault: dict[str, BaseException] = {}
        self.rows_in = 3
        for stage in STAGES:
            monkeypatch.setitem(sys.modules, f"deepred_ray.stages.{stage}", SimpleNamespace(run=self.stand_in(stage)))

    def stand_in(self, stage: str) -> Any:
        def run(run: Run, config: Config, theme: Any) -> Manifest:
            self.ran.append(stage)
            assert run.manifest(stage) is None
            if stage in self.fault:
                raise self.fault[stage]
            return Manifest(stage, "rows", self.rows_in, 2, {"twin": 1}, 0.0)

        return run

    def take(self) -> list[str]:
        ran, self.ran = self.ran, []
        return ran


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    monkeypatch.setattr(pipeline, "free_memory", lambda: 1 << 40)
    monkeypatch.setattr(pipeline.placement, "require", lambda *_: None)  # it asks Ray, which these stages do without
    monkeypatch.setattr(pipeline.modelcard, "run", lambda *_: None)  # these stages leave nothing to make a card of
    return Stages(monkeypatch)


def bring(tmp_path: Path, stages: tuple[str, ...] = STAGES, fresh: bool = False, **sections: Any) -> list[Manifest]:
    return pipeline.run_stages(Config.model_validate({"run": "r", "data_root": str(tmp_path), **sections}), stages, fresh=fresh)


def test_what_is_whole_is_skipped_and_growth_goes_down_the_chain(tmp_path: Path, stages: Stages) -> None:
    made = bring(tmp_path)
    assert stages.take() == list(STAGES)
    assert [manifest.stage for manifest in made] == list(STAGES)
    assert all(manifest.versions and manifest.finished_at and manifest.identity for manifest in made)
    assert bring(tmp_path) == made
    assert stages.take() == []
    bring(tmp_path, evaluate={"texts": 50})
    assert stages.take() == ["evaluate"]
    bring(tmp_path, evaluate={"texts": 50}, synthesize={"examples": 20_000})
    assert stages.take() == ["synthesize", "train", "export", "evaluate"]
    bring(tmp_path, fresh=True)
    assert stages.take() == list(STAGES)


def test_what_was_interrupted_goes_on(tmp_path: Path, stages: Stages) -> None:
    stages.fault = {"synthesize": ShortfallError("too few")}
    with pytest.raises(ShortfallError):
        bring(tmp_path)
    assert stages.take() == ["acquire", "corpus", "synthesize"]
    run = Run(str(tmp_path), "r")
    assert run.manifest("synthesize") is None
    assert run.begun("synthesize") is not None
    assert not (run.folder / "lease.json").exists()
    stages.fault = {}
    bring(tmp_path)
    assert stages.take() == ["synthesize", "train", "export", "evaluate"]


def test_a_stage_that_loses_a_row_is_not_whole(tmp_path: Path, stages: Stages) -> None:
    stages.rows_in = 4
    with pytest.raises(LedgerError):
        bring(tmp_path)
    assert Run(str(tmp_path), "r").manifest("acquire") is None


def test_a_changed_identity_is_refused_before_the_first_stage_works(tmp_path: Path, stages: Stages) -> None:
    bring(tmp_path)
    stages.take()
    with pytest.raises(StaleRunError, match=r"`train` was made with other settings \(train\.rank: 32 there, 8 now\)"):
        bring(tmp_path, evaluate={"texts": 50}, train={"rank": 8}, acquire={"max_books": 600})
    assert stages.take() == []
    bring(tmp_path, ("train",), fresh=True, train={"rank": 8})
    assert stages.take() == ["train"]


def test_a_stage_without_the_one_before_names_it(tmp_path: Path, stages: Stages) -> None:
    for stage, before in (("corpus", "acquire"), ("synthesize", "corpus"), ("train", "synthesize"), ("export", "train")):
        with pytest.raises(InputError, match=f"run r has no whole `{before}`, which `{stage}` needs") as caught:
            bring(tmp_path, (stage,))
        assert f"deepred {before} --run r" in caught.value.cure
    assert stages.take() == []


def test_plain_files_stand_in_for_the_stage_before(tmp_path: Path, stages: Stages) -> None:
    file = tmp_path / "mine.jsonl"
    with pytest.raises(InputError, match=f"no file {file}"):
        bring(tmp_path, ("train",), train={"dataset": str(file)})
    file.write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_text("x")
    bring(tmp_path, ("train",), train={"dataset": str(file)})
    bring(tmp_path, ("export",), export={"adapter": str(tmp_path)})
    bring(tmp_path, ("train",), train={"dataset": str(file)})
    assert stages.take() == ["train", "export"]
    file.write_text("{} ")
    bring(tmp_path, ("train",), train={"dataset": str(file)})
    assert stages.take() == ["train"]


def test_the_base_alone_can_be_evaluated(tmp_path: Path, stages: Stages) -> None:
    bring(tmp_path, ("evaluate",))
    assert stages.take() == ["evaluate"]
    assert Run(str(tmp_path), "r").exists()


# --- the screen


CHATTER = """
import os, subprocess, sys
from pathlib import Path
from deepred_ray.console import chatter_to, say
try:
    with chatter_to(Path(sys.argv[1])):
        print("from python")
        os.write(1, b"past python\\n")
        subprocess.run(["sh", "-c", "echo from a child >&2"], check=True)
        say("for the user")
        raise KeyError
except KeyError:
    say("later")
    print("again", file=sys.stderr)
"""


def test_chatter_goes_to_the_log_and_what_is_said_to_the_screen(tmp_path: Path) -> None:
    log = tmp_path / "logs/x.log"
    command = [sys.executable, "-c", CHATTER, str(log)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert [line.partition(" ")[2] for line in ran.stdout.splitlines()] == ["for the user", "later"]
    assert ran.stderr == "again\n"
    assert log.read_text().splitlines() == ["from python", "past python", "from a child"]


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(console, "say", said.append)
    with Meter("acquire", 8, "books") as meter:
        meter.update(1)
        assert said == []
        monkeypatch.setattr(console, "LINE_EVERY_S", 0.0)
        threading.Event().wait(0.01)
        meter.update(4, "1 wrong_language")
    assert said[0].startswith("  acquire: 4/8 books, 1 wrong_language, ")


def test_a_meter_tells_that_it_waits_though_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = threading.Event()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        heard.set()

    monkeypatch.setattr(console, "say", say)
    monkeypatch.setattr(console, "HEARTBEAT_S", 0.0)
    with Meter("synthesize", 80, "slots"):
        assert heard.wait(timeout=30)
    assert said[0].startswith("  synthesize: 0/80 slots, after ")


def test_counts_are_told_largest_first() -> None:
    assert counts_text({"b": 2, "a": 2, "c": 9}) == "9 c, 2 a, 2 b"
    assert counts_text({"a": 1, "b": 2, "c": 3}, limit=2) == "3 c, 2 b, 1 other"
    assert counts_text({}) == ""
