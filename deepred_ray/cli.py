"""The `deepred` command: parse, call a stage, report. No logic, and no heavy import before the arguments are read."""

import argparse
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro
from pydantic import BaseModel, ConfigDict, create_model

from deepred_ray import __version__
from deepred_ray.config import Config, Section, load, read_toml
from deepred_ray.errors import ConfigError, DeepredError, loss

if TYPE_CHECKING:
    from deepred_ray.runs import Run

STAGE_HELP = {
    "acquire": "Fetch books from a Gutenberg mirror, or take local files (--input), strip, date and sort them out.",
    "corpus": "Cut books into chunks, score them by the theme's lexicon, keep the passages.",
    "synthesize": "Turn passages into ChatML examples with vLLM engine actors.",
    "train": "Fine-tune the model on the examples (or --dataset FILE.jsonl) with LoRA under Ray Train.",
    "export": "Merge the adapter, write GGUF, load it in llama.cpp and let it answer.",
    "evaluate": "Ask base and tuned model, and --others, the evaluation prompts; judge, compare, and write a report.",
    "run": "All stages, from books to a talking model. What is whole is skipped, what was interrupted goes on.",
}
TOOL_HELP = {
    "chat": "Talk with the tuned model of a run (its GGUF, in llama.cpp).",
    "serve": "Offer the tuned model of a run with an OpenAI-compatible API on loopback, by llama.cpp or vLLM.",
    "explain": "The whole lineage of one example: book, passage, prompt, attempts, verdicts, split.",
    "review": "Look at the examples of a run and reject some by hand; training leaves them out.",
    "check-era": "Which lines of a file could not have been written before the theme's cutoff year.",
    "check-theme": "What a theme of your own lacks or contradicts: every file, row by row.",
    "inspect": "Counts, schema and samples of any table of a run; export as JSONL or ShareGPT.",
    "thresholds": "What each threshold would keep of a run's chunks, by matches and by score; chunks by exact number of matches.",
    "status": "What of a run is done, running and left, and whether it is safe to submit again.",
    "compare": "Two evaluated runs side by side: settings, rates on the same prompts (paired), perplexities, targets.",
    "doctor": "Check this machine, or each node of a cluster: versions, accelerators, memory, disk, models, data root.",
}
EPILOG = """\
examples:
  deepred run --config jobs/configs/demo.toml
  deepred run --config jobs/configs/priority.toml --mirror http://127.0.0.1:8600 --delay 0 --synthesize.passages 200
  deepred acquire --ids 624 61963 33870 --run utopias
  deepred acquire --config jobs/configs/full.toml --plan
  deepred acquire --subjects Chess "Mars (Planet)" --max-per-subject 5 --run small
  deepred corpus --run utopias --min-score 1.5
  deepred synthesize --run utopias --examples 400 --preview 12
  deepred synthesize --run utopias --examples 400
  deepred synthesize --run utopias --benchmark --models smollm2,Qwen/Qwen2.5-7B-Instruct
  deepred explain utopias core-000017
  deepred train --dataset my_chats.jsonl --model Qwen/Qwen2.5-1.5B-Instruct --run mine --train.workers 4
  deepred inspect utopias examples --rows 5
  deepred thresholds utopias --output thresholds/
  deepred evaluate --run utopias --others Qwen/Qwen2.5-1.5B-Instruct other.gguf
  deepred evaluate --run elsewhere --others my-model@http://127.0.0.1:1234/v1 --evaluate.prompts 100
  deepred compare utopias small
  deepred chat --run utopias
  deepred serve --run utopias --port 8080

A run is a folder <data root>/<run>; repeating a command goes on where it stopped. `deepred COMMAND --help` lists settings."""
THRESHOLDS_HELP = """\
A match is a keyword of the plan in a chunk, once for each theme that lists it, however often it stands there. The first table
has for each number of matches the chunks with exactly so many, and those with as many or more: what `--min-matches n` of
`deepred corpus` keeps. The second has the scores that keep nine chunks of ten, eight of ten and so on, for `--min-score`. The
third has the keyword hits of each theme by number of matches. What the run itself uses is marked.

Every chunk counts, kept or dropped, but those dropped as `too_short` or `twin`. Twins are sought among kept chunks only: a lower
threshold keeps a little less than the tables say, since it brings new twins.

DIR gets matches_01.parquet and so on (chunks with exactly so many matches, in the columns of chunks/), thresholds.tsv,
scores.tsv, themes.tsv and a picture, thresholds.png; all of them appear at the end, and replace older ones."""
EPILOGS = {
    "thresholds": THRESHOLDS_HELP,
    "check-era": """\
For each line of FILE one JSON object is printed: `line` (its number), `ok`, `hits` (each with `term`, `year`, its first year, and
`reason`: coinage, name, sense, pattern or year) and `text`. The exit status is 0 if every line is ok, 1 if any is not.""",
    "check-theme": """\
THEME is the name of one that ships, or a folder. The easiest way to a theme of your own is to copy one and to rewrite it:

  cp -r examples/themes/keeper mine        # a small one; deepred_ray/data/themes/deepred is a large one
  deepred check-theme mine                 # until no line says NOT
  deepred run --theme mine --run first --input books/ --examples 40

Each line is `ok`, `but` (it works, and could be better) or `NOT` (a run would fail), with the file and the row. The exit status is
1 if any line is NOT. docs/themes.md tells what each file holds, which may be left out, and what is taken instead.""",
    "review": """\
At the keyboard: Enter or k keeps an example, r rejects it (`r too vague` with a note), b goes back, s skips, p shows the whole
passage, q quits. Each verdict is written at once; training leaves out what is rejected.""",
}
# Sections that a stage's command shows besides its own.
SHOWN = {"corpus": ("acquire", "corpus"), "run": ("acquire", "corpus", "synthesize", "train", "export", "evaluate")}
# An input flag means the stage's own input where two sections have one.
OWN_INPUT = {"synthesize": "--synthesize.input"}
TOLD = re.compile(r"^deepred_ray\.errors\.\w+: (.+)(?:\n  (\S.*))?$", re.M)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all that was asked for is there, 1 it is not, 2 wrong usage, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"deepred {__version__}")
        return 0
    command, rest = words[0], words[1:]
    debug = "--debug" in rest
    try:
        if command in STAGE_HELP:
            return stage_command(command, rest)
        if command in TOOL_HELP:
            return tool_command(command, rest)
        print(f"deepred: no command {command!r}\n\n{overview()}", file=sys.stderr)
        return 2
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException as error:
        return report(error, debug)


def overview() -> str:
    listing = "\n".join(f"  {name:<11} {text}" for name, text in (STAGE_HELP | TOOL_HELP).items())
    title = "deepred: old books become a model with a voice and a period of its own"
    return f"{title}\n\nusage: deepred COMMAND [options]\n\n{listing}\n\n{EPILOG}"


def report(error: BaseException, debug: bool) -> int:
    """Say what went wrong in one message; the traceback only when asked for."""
    if isinstance(error, KeyboardInterrupt):
        print("\nstopped: what is finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    known = find_known(error)
    if debug:
        traceback.print_exception(error)
    if known is not None:
        print(f"deepred: {known}", file=sys.stderr)
    else:
        last = str(error).strip().splitlines() or [""]
        print(f"deepred: unexpected {type(error).__name__}: {last[-1]}\n  --debug shows the traceback.", file=sys.stderr)
    return 1


def find_known(error: BaseException) -> DeepredError | None:
    """The error of ours in a chain of causes, since Ray wraps what a worker raised; else what Ray tells of a process, node or store
    that failed."""
    seen: set[int] = set()
    lost: DeepredError | None = None
    todo: list[BaseException | None] = [error]
    while todo:
        current = todo.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, DeepredError):
            # Ray's copy is of both types; its text is a worker's traceback, its fields are ours.
            return DeepredError(current.message, current.cure) if hasattr(current, "message") else None
        lost = loss(current) or lost  # the innermost: what wraps it says where it was, not what it is
        todo += [getattr(current, "cause", None), current.__cause__, current.__context__]
        todo += list(getattr(current, "worker_failures", {}).values())
    # What a function mapped by Ray Data raised arrives as the text of a traceback only.
    told = TOLD.search(str(error))
    return DeepredError(told[1], told[2] or "") if told else lost


class Asked(NamedTuple):
    """What a stage's command was asked for."""

    config: Config
    fresh: bool = False
    plan: bool = False
    preview: int = 0
    benchmark: bool = False
    models: str = ""


def parse_config(command: str, words: list[str]) -> Asked:
    """The configuration of a stage's command, and its switches.

    Raises:
        ConfigError: the file or a value in it is wrong. SystemExit: --help was asked for, or a flag is wrong.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--config", "--run", "--data-root"):
        first.add_argument(flag)
    named = first.parse_known_args(words)[0]
    file = named.config
    base = load(read_toml(file), file) if file else settings_of_run(named.run, named.data_root, words)
    sections = SHOWN.get(command, (command,))
    own = OWN_INPUT.get(command, "--input")
    words = [own + word.removeprefix("--input") if word.partition("=")[0] == "--input" else word for word in words]

    class Command(BaseModel):
        model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

        config: str | None = None
        """TOML file with settings; flags override it. jobs/configs/ has some that ship."""
        fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
        """Delete what this stage and those after it have made in this run, and make it again."""
        debug: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
        """Show tracebacks."""

    class Plannable(Command):
        plan: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
        """Show which books would be fetched, why, and how long that takes at the least; fetch nothing but the catalogue."""

    class Triable(Command):
        preview: int = 0
        """Fill so many of the planned slots in a folder aside, show prompts and replies, and forecast yield, time and rejects of
        the whole run; nothing of the run is changed. With contract `auto` both contracts are tried."""
        benchmark: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
        """Let several models (`models`) fill the same slots, 32 or as many as `preview` says, and compare speed, yield and, with a
        judge model, quality."""
        models: str = ""
        """Models to compare, separated by commas."""

    names = [
        name
        for name, field in Config.model_fields.items()
        if name in (*sections, "ray") or not (isinstance(field.annotation, type) and issubclass(field.annotation, Section))
    ]
    fields: dict[str, Any] = {}
    for name in names:
        info = Config.model_fields[name]
        annotation: Any = info.annotation
        for extra in info.metadata:
            annotation = Annotated[annotation, extra]
        fields[name] = (annotation, info)
    bases: dict[str, type[BaseModel]] = {"acquire": Plannable, "synthesize": Triable}
    shape: Any = create_model("Settings", __base__=bases.get(command, Command), **fields)
    default = shape(config=file, **{name: getattr(base, name) for name in names})
    parsed = tyro.cli(shape, default=default, args=words, prog=f"deepred {command}", description=STAGE_HELP[command])
    values = base.model_dump() | {name: dump(getattr(parsed, name)) for name in names}
    switches = {name: getattr(parsed, name) for name in Asked._fields[1:] if hasattr(parsed, name)}
    return Asked(load(values, "command line"), **switches)


def settings_of_run(run: str | None, data_root: str | None, words: list[str]) -> Config:
    """Without a file, an existing run goes on with the settings it was made with."""
    default = Config.model_validate({key: value for key, value in (("run", run), ("data_root", data_root)) if value})
    if {"-h", "--help"} & set(words):
        return default
    from deepred_ray.storage import Folder

    file = Folder.open(default.root) / default.run / "config.json"
    if not file.exists():
        return default
    return load(file.read_json() | {"run": default.run, "data_root": default.data_root}, file.path)


def dump(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def stage_command(command: str, words: list[str]) -> int:
    asked = parse_config(command, words)
    config, fresh, plan = asked[:3]
    from deepred_ray.console import chatter_to, say
    from deepred_ray.runs import STAGES, Run

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Run(config.root, config.run)
    if plan:
        show_plan(run, config, fresh)
        return 0
    stages: tuple[str, ...] = STAGES if command == "run" else (command,)
    if command == "corpus" and config.acquire.input:
        stages = ("acquire", "corpus")
    from deepred_ray import pipeline

    pipeline.require_room(run)
    log = run.scratch / "logs" / f"{datetime.now():%Y%m%d-%H%M%S}-{command}.log"
    say(f"run {run.name} in {run.folder.path}; details in {log}")
    from deepred_ray import cluster, logs, models, summary

    try:
        with chatter_to(log), logs.events_to(log, run.name):
            try:
                models.trust(config.trust_remote_code)
                cluster.connect(config.ray)
                logs.note("run started", command=command, stages=stages, version=__version__, data_root=config.root)
                if asked.preview or asked.benchmark:
                    try_out(run, asked)
                    return 0
                manifests = pipeline.run_stages(config, stages, fresh=fresh)
                logs.note("run finished")
            except BaseException as error:
                logs.failure("run failed", find_known(error) or error)
                raise
            finally:
                cluster.disconnect()
            if command == "run":
                summary.show(run, manifests)
    except Exception:
        with log.open("a") as file:
            traceback.print_exc(file=file)
        print(f"deepred: failed; {log} has the details", file=sys.stderr)
        raise
    return 0


def show_plan(run: "Run", config: Config, fresh: bool) -> None:
    """Raises ConfigError for --fresh: a plan deletes nothing."""
    from deepred_ray.stages import selection
    from deepred_ray.theme import Theme

    if fresh:
        raise ConfigError("--plan changes nothing, and --fresh deletes what is there", "Leave out one of the two.")
    selection.show_plan(run, config, Theme.find(config.theme))


def try_out(run: "Run", asked: Asked) -> None:
    """Raises ConfigError for switches that make no sense together."""
    from deepred_ray.stages import trial
    from deepred_ray.theme import Theme

    if asked.fresh:
        raise ConfigError("a trial changes nothing, and --fresh deletes what is there", "Leave out one of the two.")
    names = [name.strip() for name in asked.models.split(",") if name.strip()]
    if asked.benchmark and not names:
        raise ConfigError("--benchmark compares models, and none is named", "Name them with --models A,B.")
    trial.show(run, asked.config, Theme.find(asked.config.theme), asked.preview, names if asked.benchmark else None)


def tool_command(command: str, words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"deepred {command}",
        description=TOOL_HELP[command],
        epilog=EPILOGS.get(command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--data-root", default="", help="folder or URI of all runs (default: $GUTENBERG_DATA, else ./runs)")
    if command == "compare":
        parser.add_argument("run", help="name of a run")
        parser.add_argument("other", help="name of another")
        parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    if command in ("inspect", "thresholds", "status", "explain", "review"):
        parser.add_argument("run", help="name of the run")
    if command == "explain":
        parser.add_argument("example_id", help="the slot, such as core-000017 (`deepred inspect RUN examples`)")
        parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    if command == "review":
        parser.add_argument("--component", help="only examples of this component")
        parser.add_argument("--persona", help="only examples of this persona")
        parser.add_argument("--all", action="store_true", help="also those that have been reviewed before")
        parser.add_argument("--sample", type=int, metavar="N", help="only N of them, drawn at random, the same each time")
        parser.add_argument("--lowest", action="store_true", help="those with the judge's lowest scores first")
        parser.add_argument("--reject", nargs="+", metavar="ID", help="reject these, without looking at them")
        parser.add_argument("--restore", nargs="+", metavar="ID", help="take these back")
        parser.add_argument("--note", help="why, for --reject and --restore")
        parser.add_argument("--list", action="store_true", help="list what is rejected, with the notes")
    if command == "check-era":
        parser.add_argument("file", help="text in UTF-8, a line at a time; - is the standard input")
        parser.add_argument(
            "--theme", default="deepred", help="theme with the dated lexicon and the cutoff year (default: deepred)"
        )
    if command == "check-theme":
        parser.add_argument("theme", help="name of a theme that ships, or a folder with a theme.toml")
    if command == "inspect":
        parser.add_argument("table", nargs="?", help="books, chunks, slots, candidates, examples, tokens, responses, rejects/STAGE")
        parser.add_argument("--rows", type=int, default=3, help="rows to show (default: 3)")
        parser.add_argument("--export", metavar="FILE", help="write the whole table there instead")
        parser.add_argument("--format", choices=("jsonl", "sharegpt"), default="jsonl", help="form of --export (default: jsonl)")
    if command == "thresholds":
        parser.add_argument("--least", type=int, default=1, metavar="N", help="smallest number of matches to show (default: 1)")
        parser.add_argument("--most", type=int, default=10, metavar="N", help="largest number of matches to show (default: 10)")
        parser.add_argument("--output", metavar="DIR", help="also write the chunks, tables and a picture there")
    if command == "chat":
        parser.add_argument("--run", default="deepred", help="name of the run (default: deepred)")
        parser.add_argument("--gguf", help="talk with this GGUF file instead")
        parser.add_argument("--persona", help="persona whose system prompt is used (default: the theme's first)")
        parser.add_argument("--theme", help="theme of the personas (default: the run's)")
        parser.add_argument("--temperature", type=float, default=0.7, help="0 is deterministic (default: 0.7)")
        parser.add_argument("--ask", metavar="QUESTION", help="answer one question and leave")
    if command == "serve":
        parser.add_argument("--run", default="deepred", help="name of the run, and of the model in the API (default: deepred)")
        parser.add_argument(
            "--engine",
            choices=("llama.cpp", "vllm"),
            default="llama.cpp",
            help="llama.cpp with the run's smallest GGUF file, or vLLM with base and adapter (default: llama.cpp)",
        )
        parser.add_argument("--gguf", help="serve this GGUF file instead, by llama.cpp")
        parser.add_argument("--port", type=int, default=8080, help="0 is any free one, with llama.cpp (default: 8080)")
    if command == "doctor":
        parser.add_argument(
            "--model", nargs="+", default=[], help="models to look for: Hugging Face ids or folders (default: the embedded one)"
        )
        parser.add_argument("--config", metavar="FILE", help="look for the models of this configuration, and at its data root")
        parser.add_argument("--address", help="look at each node of this Ray cluster instead of this machine; auto: at the job's")
        parser.add_argument("--deep", action="store_true", help="also start Ray here and run a task")
    options = parser.parse_args(words)
    if command == "check-era":
        from deepred_ray import era

        return era.check(options.file, options.theme)
    if command == "check-theme":
        from deepred_ray import themecheck

        return themecheck.check(options.theme)
    root = Config(data_root=options.data_root).root
    if command == "doctor":
        from deepred_ray import doctor

        return doctor.examine(options)
    if command == "chat":
        from deepred_ray import chat

        return chat.talk(root, options)
    if command == "serve":
        from deepred_ray import serve

        return serve.serve(root, options)
    from deepred_ray import inspection
    from deepred_ray.runs import Run

    run = Run(root, options.run)
    if command == "compare":
        from deepred_ray import compare

        other = Run(root, options.other)
        inspection.require(run)
        inspection.require(other)
        return compare.show(run, other, as_json=options.json)
    if command == "explain":
        from deepred_ray import explain

        inspection.require(run)
        return explain.explain(run, options.example_id, as_json=options.json)
    if command == "review":
        from deepred_ray import review

        inspection.require(run)
        return review.review(run, options)
    if command == "status":
        return inspection.status(run)
    if command == "thresholds":
        from deepred_ray import thresholds

        return thresholds.show(run, options.least, options.most, Path(options.output).expanduser() if options.output else None)
    target = Path(options.export) if options.export else None
    return inspection.show(run, options.table, options.rows, target, options.format)
