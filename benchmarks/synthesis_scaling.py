"""How synthesis scales when the engines cost nothing: the pipeline alone, with engines that wait instead of computing.

    python benchmarks/synthesis_scaling.py mirror/files --ids all
    python benchmarks/synthesis_scaling.py mirror/files --books 8 --rows 128 --slots 500     to see it work in two minutes

An engine answers with replies that SmolLM2-135M-Instruct gave (results/replies.jsonl, with seconds and tokens as measured with 32
requests in flight on two CPU cores), after their seconds divided by --speed. Every fifth word is one of the prompt's instead, since
no two replies of a model are alike. Prompts, validators, tables and Ray are the pipeline's own, with the plain contract and 32
slots in flight. What is printed is written to results/synthesis_scaling.txt too.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import books
import psutil
from corpus_growth import columns
from processes import deepred, measure, name_of

from deepred_ray import cluster
from deepred_ray.config import Config, RayConfig
from deepred_ray.engine import EngineSettings, Messages, Reply, Sampling
from deepred_ray.runs import Run
from deepred_ray.schema import CANDIDATES
from deepred_ray.stages import filling, synthesize
from deepred_ray.stages.choosing import settle
from deepred_ray.stages.filling import FillSlots, Recipe, Tally, fill
from deepred_ray.stages.pool import BLOCKS
from deepred_ray.storage import Folder
from deepred_ray.text import chatml, validating
from deepred_ray.text.anachronism import Gate
from deepred_ray.text.validating import Overlap
from deepred_ray.theme import Theme

RESULTS = Path(__file__).parent / "results"
REPLIES = RESULTS / "replies.jsonl"
RAY_CPUS = 12  # for eight actors, whatever the machine has
INSTANT = 1000.0  # speed at which two cores have more to do than they can
OFTEN = 4  # times as many slots where the cores are short, to make little of what a process does once
PROFILED = 800  # slots
FED = (500, 2_000, 10_000)  # tokens a second of an engine
EVERY_S = 0.5
UNIQUE_EVERY = 2  # samples
IN_FLIGHT = 32  # as when the seconds of the replies were measured
LEAST_ROWS = 128  # slots that an engine has at a time: with fewer, one engine could be left without a first request
WARM = "The language identifier is loaded when it is first used, once a process, in half a second."


# The engine ----------------------------------------------------------------------------------------------------------


class WaitingEngine:
    """Answers nobody before all `engines` were asked: their start is not what is measured. Each leaves its process id in `folder`.

    A reply is a function of what is asked.
    """

    def __init__(
        self, settings: EngineSettings, *, replies: Sequence[dict[str, Any]], speed: float, folder: str, engines: int
    ) -> None:
        self.replies, self.speed, self.engines = replies, speed, engines
        self.folder = Path(folder)
        self.waiting = True
        validating.foreign(WARM)

    async def chat(self, messages: Messages, sampling: Sampling, *, opening: str = "") -> Reply:
        if self.waiting:
            (self.folder / str(os.getpid())).touch()
        while self.waiting and len(list(self.folder.iterdir())) < self.engines:
            await asyncio.sleep(0.05)
        self.waiting = False
        rng = random.Random(f"{messages}{opening}")
        reply = rng.choice(self.replies)
        words, told = reply["text"].split(" "), re.findall(r"\b[a-z]{4,}\b", messages[0]["content"])
        for place in range(rng.randrange(5), len(words), 5):
            if words[place].isalpha():
                words[place] = rng.choice(told)
        await asyncio.sleep(reply["seconds"] / self.speed)
        prompt_tokens = sum(len(message["content"]) for message in messages) // 4
        return Reply(" ".join(words), reply["finish_reason"], prompt_tokens, reply["tokens"])

    def shutdown(self) -> None:
        """There is nothing to end."""


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in REPLIES.read_text("utf-8").splitlines()]


# A case, which a process of its own runs -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A synthesis to be run: `slots` by `engines`, whole, or only its filling."""

    root: str
    slots: int
    engines: int
    speed: float
    whole: bool

    @property
    def started(self) -> Path:
        """Folder with a file for each engine that is there."""
        return Path(self.root) / "engines"

    @property
    def filled(self) -> Path:
        """What a case that only fills leaves when all slots are filled."""
        return Path(self.root) / "filled"

    def config(self) -> Config:
        settings = {"examples": self.slots, "engines": self.engines, "contract": "plain", "in_flight": IN_FLIGHT}
        return Config.model_validate({"run": RUN, "data_root": self.root, "model": f"{self.root}/model", "synthesize": settings})

    def make_engine(self) -> Callable[[EngineSettings], WaitingEngine]:
        return partial(WaitingEngine, replies=recorded(), speed=self.speed, folder=str(self.started), engines=self.engines)


RUN = "scaling"


def prepare(case: Case) -> Run:
    """The run as its corpus stage left it."""
    run = Run(case.root, RUN)
    run.discard_from("synthesize")
    model = Path(case.root) / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    case.started.mkdir(exist_ok=True)
    for file in [*case.started.iterdir(), case.filled]:
        file.unlink(missing_ok=True)
    return run


def planned(case: Case, run: Run, in_task: Callable[..., Any]) -> Folder:
    """Plan the slots of a case; the folder of those to be filled, all of them."""
    theme = Theme.find(books.THEME)
    in_task(synthesize.plan, run, case.config(), theme)
    todo = run.folder / "synthesize" / "todo"
    in_task(settle, run, case.config(), todo, True)
    return todo


def run_case(case: Case) -> None:
    """What the driver does."""
    os.environ.pop("RAY_ADDRESS", None)
    cluster.connect(RayConfig(cpus=RAY_CPUS))
    run, config, theme = Run(case.root, RUN), case.config(), Theme.find(books.THEME)
    if case.whole:
        synthesize.run(run, config, theme, case.make_engine())
    else:
        todo = planned(case, run, synthesize.in_task)
        engine, recipe = synthesize.engine_settings(config), synthesize.recipe_of(run, config, theme)
        done: list[Tally] = list(fill(todo, run.table("candidates"), engine, recipe, case.make_engine()))
        assert done
        case.filled.touch()
    cluster.disconnect()


# Watching it ---------------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A case seen from outside. By process name (a worker has that of its task): the most `unique` and `resident` bytes of one
    process, `seconds` in which there was one, and CPU seconds of all from the last engine's start to the end of filling."""

    unique: Counter[str] = field(default_factory=Counter)
    resident: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    cpu: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    window: float = 0.0
    total: float = 0.0


def watch_case(case: Case, folder: Path) -> Watched:
    """Run a case in a process of its own. Ends the program, with what the case said, if it fails."""
    seen = Watched()
    first: dict[int, float] = {}
    spent: dict[int, float] = {}
    command = [sys.executable, __file__, str(folder), "--case", json.dumps(asdict(case))]
    started = now = time.perf_counter()
    begun = 0.0
    with tempfile.TemporaryFile("w+") as said:
        running = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        samples = 0
        while running.poll() is None:
            before, now = now, time.perf_counter()
            names: set[str] = set()
            opening = not begun and len(list(case.started.iterdir())) >= case.engines
            counting = (begun or opening) and not case.filled.exists()
            for process in processes_of(running.pid):
                with suppress(psutil.Error):  # it ended meanwhile
                    name = "driver" if process.pid == running.pid else label(process)
                    names.add(name)
                    look(process, name, seen, unique=samples % UNIQUE_EVERY == 0)
                    cpu = sum(process.cpu_times()[:2])
                    if opening:
                        first[process.pid] = cpu
                    if counting:
                        begin = spent.get(process.pid, first.get(process.pid, 0.0))
                        seen.cpu[name] += cpu - begin
                        spent[process.pid] = cpu
            begun = begun or (now if opening else 0.0)
            if counting:
                seen.window = now - begun
            for name in names:
                seen.seconds[name] += now - before
            samples += 1
            time.sleep(EVERY_S)
        seen.total = time.perf_counter() - started
        if running.returncode:
            said.seek(0)
            sys.exit(f"{case} failed:\n{said.read()[-5000:]}")
    return seen


def processes_of(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def label(process: psutil.Process) -> str:
    """What a process is for: a worker has the name of its task's function."""
    name = name_of(process)
    if name.startswith("ray::MapWorker"):
        return "engine actors"
    return re.sub(r"^ray::(\w+).*", r"\1", name)


def look(process: psutil.Process, name: str, seen: Watched, *, unique: bool) -> None:
    seen.resident[name] = max(seen.resident[name], process.memory_info().rss)
    if unique:
        seen.unique[name] = max(seen.unique[name], process.memory_full_info().uss)


@dataclass(frozen=True)
class Filled:
    """The attempts that a case left. `seconds` are from the first request to the last reply; `steady` counts attempts a second
    between the tenth and the seventieth per cent of all, when every engine has enough to do."""

    attempts: int
    accepted: int
    tokens: int
    seconds: float
    steady: float
    shards: int

    @property
    def rate(self) -> float:
        return self.attempts / self.seconds


def filled(run: Run) -> Filled:
    folder = run.table("candidates")
    table = folder.read_table(CANDIDATES, ["started_at", "seconds", "tokens", "reason"])
    starts = [moment.timestamp() for moment in table["started_at"].to_pylist()]
    ends = sorted(start + seconds for start, seconds in zip(starts, table["seconds"].to_pylist(), strict=True))
    early, late = len(ends) // 10, 7 * len(ends) // 10
    return Filled(
        len(ends),
        table["reason"].null_count,
        sum(table["tokens"].to_pylist()),
        ends[-1] - min(starts),
        (late - early) / (ends[late] - ends[early]),
        len(folder.files(".parquet")),
    )


# More engines --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Engines:
    """A case that only filled, with what was seen of it."""

    case: Case
    filled: Filled
    watched: Watched

    @property
    def cpu(self) -> float:
        """CPU seconds an attempt, of all processes."""
        return sum(self.watched.cpu.values()) / self.filled.attempts


def run_engines(case: Case, folder: Path) -> Engines:
    run = prepare(case)
    watched = watch_case(case, folder)
    return Engines(case, filled(run), watched)


def engines_table(measured: Sequence[Engines], speed: float) -> str:
    first = measured[0]
    rows: list[Sequence[str]] = [
        (
            "engines",
            "speed",
            "slots",
            "attempts",
            "accepted",
            "s",
            "attempts/s",
            "ratio",
            "steady/s",
            "ratio",
            "cores busy",
            "CPU ms",
        )
    ]
    for each in measured:
        done = each.filled
        same = each.case.speed == speed
        rows.append(
            (
                str(each.case.engines),
                f"{each.case.speed:g}",
                str(each.case.slots),
                str(done.attempts),
                f"{done.accepted / done.attempts:.0%}",
                f"{done.seconds:.1f}",
                f"{done.rate:.1f}",
                f"{done.rate / first.filled.rate:.2f}" if same else "",
                f"{done.steady:.1f}",
                f"{done.steady / first.filled.steady:.2f}" if same else "",
                f"{sum(each.watched.cpu.values()) / each.watched.window:.2f}",
                f"{1000 * each.cpu:.2f}",
            )
        )
    return columns(rows)


def feeding(full: Engines) -> str:
    """What a core can feed, from the case in which all cores were busy."""
    done = full.filled
    tokens, cores = done.tokens / done.attempts, os.cpu_count() or 1
    most = sorted(full.watched.cpu.items(), key=lambda item: -item[1])
    by_name = ", ".join(f"{name} {cpu / sum(full.watched.cpu.values()):.0%}" for name, cpu in most[:5])
    lines = [
        f"CPU: {1000 * full.cpu:.2f} ms an attempt, over all processes ({by_name})",
        f"{cores} cores are full at {cores / full.cpu:.0f} attempts/s by that cost; {done.steady:.0f} were measured",
        f"an attempt has {tokens:.0f} tokens, so a core feeds {tokens / full.cpu:.0f} tokens/s:",
        *(f"  {tokens / full.cpu / fed:6.1f} engines of {fed:,} tokens/s" for fed in FED),
    ]
    return "\n".join(lines)


# Where the time goes -------------------------------------------------------------------------------------------------


class Clock:
    """CPU seconds of functions, each without those of the others that it called. A function is named by who called it too."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._here = threading.local()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            stack = self._here.__dict__.setdefault("stack", [])
            path = f"{stack[-1][0]} > {name}" if stack else name
            stack.append([path, 0.0])
            start = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.thread_time() - start
                self.seconds[path] += spent - stack.pop()[1]
                self.calls[path] += 1
                if stack:
                    stack[-1][1] += spent

        return call


def clocked() -> Iterator[tuple[Any, str, str]]:
    """Owner, attribute and name of the functions whose time is told."""
    yield filling, "read_block", "read block"
    yield Recipe, "prompt", "prompt"
    yield type(Theme.find(books.THEME).scorer), "hits", "keywords"
    yield chatml, "parse_answer", "parse reply"
    for name in ("form_fault", "foreign", "voice_fault", "copied", "ungrounded"):
        yield validating, name, name
    yield Overlap, "find", "evaluation overlap"
    yield Gate, "check", "era"
    yield filling, "prompt_sha", "prompt hash"
    yield filling, "rows_table", "write: rows to Arrow"
    yield Folder, "write_table", "write: Parquet"


def profile(case: Case) -> str:
    """A row a part of the work: its CPU time an attempt. One engine, in this process and without Ray."""
    run = prepare(case)
    config = case.config()
    todo = planned(case, run, lambda function, *arguments: function(*arguments))
    clock = Clock()
    with ExitStack() as stack:
        for owner, attribute, name in clocked():
            stack.enter_context(mock.patch.object(owner, attribute, clock.timed(name, getattr(owner, attribute))))
        recipe = synthesize.recipe_of(run, config, Theme.find(books.THEME))
        actor = FillSlots(todo, run.table("candidates"), synthesize.engine_settings(config), recipe, case.make_engine())
        clock.seconds.clear()
        start = time.process_time()
        asyncio.run(fill_all(actor, todo))
        spent = time.process_time() - start
    attempts = filled(run).attempts
    clock.seconds["all else: the engine's stand-in, asyncio, rows"] = spent - sum(clock.seconds.values())
    rows: list[Sequence[str]] = [("part", "CPU ms an attempt", "share", "calls an attempt")]
    for name, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        calls = f"{clock.calls[name] / attempts:.2f}" if clock.calls[name] else ""
        rows.append((name, f"{1000 * seconds / attempts:.3f}", f"{seconds / spent:.0%}", calls))
    rows.append(("sum", f"{1000 * spent / attempts:.3f}", "", ""))
    return columns(rows)


async def fill_all(actor: FillSlots, todo: Folder) -> None:
    """All blocks, as many at a time as an engine has under Ray Data."""
    room = asyncio.Semaphore(BLOCKS)

    async def one(name: str) -> None:
        async with room:
            async for _ in actor({"block": [name]}):
                pass

    await asyncio.gather(*(one(file.name) for file in todo.files(".parquet")))


# Memory --------------------------------------------------------------------------------------------------------------

MEMORY = ("slots", "attempts", "s", "settle s", "conclude s", "shards", "driver MiB", "engine actor", "settle", "conclude")


def memory_row(case: Case, folder: Path) -> list[str]:
    """A whole synthesis."""
    run = prepare(case)
    seen = watch_case(case, folder)
    done = filled(run)

    def mebibytes(name: str) -> str:
        return f"{seen.unique[name] / 2**20:.0f} / {seen.resident[name] / 2**20:.0f}"

    return [
        f"{case.slots:,}",
        f"{done.attempts:,}",
        f"{seen.total:.0f}",
        f"{seen.seconds['settle']:.0f}",
        f"{seen.seconds['conclude']:.0f}",
        f"{done.shards:,}",
        *(mebibytes(name) for name in ("driver", "engine actors", "settle", "conclude")),
    ]


# The program ---------------------------------------------------------------------------------------------------------


def make_corpus(options: argparse.Namespace, root: Path) -> str:
    """The run with passages; how many there are. All chunks with three keywords pass: slots should not run out of passages."""
    run = books.write_run(root, RUN, books.chosen_books(options))
    measure(deepred("corpus", "--data-root", str(root), "--run", RUN, "--min-matches", "3"))
    made = run.manifest("corpus")
    assert made is not None
    return f"{made.kept:,} passages"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    books.add_arguments(parser)
    parser.add_argument("--speed", type=float, default=20.0, help="divides the recorded seconds (default: 20; 1: as measured)")
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 8], help="numbers of engines (default: 1 8; at most 12)")
    parser.add_argument("--rows", type=int, default=640, help="slots an engine (default: 640; 128 or more)")
    parser.add_argument("--slots", type=int, nargs="*", default=[1_000, 10_000, 100_000], help="for the driver's memory")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        run_case(Case(**json.loads(options.case)))
        return
    if options.rows < LEAST_ROWS or max(options.engines) > RAY_CPUS:
        parser.error(f"--rows from {LEAST_ROWS}, --engines to {RAY_CPUS}")
    said: list[str] = []

    def say(text: str, *, last: bool = True) -> None:
        print(text, flush=True)
        (RESULTS / "synthesis_scaling.txt").write_text("\n".join([*said, text]) + "\n", "utf-8")
        if last:
            said.append(text)

    with tempfile.TemporaryDirectory(prefix="deepred-scaling-") as root:
        say(f"{make_corpus(options, Path(root))}; {os.cpu_count()} cores\n")
        cases = [Case(root, options.rows * engines, engines, options.speed, False) for engines in options.engines]
        most = max(options.engines)
        cases.append(Case(root, OFTEN * options.rows * most, most, INSTANT, False))
        measured = [run_engines(case, options.folder) for case in cases]
        say("Filling, the same number of slots an engine; CPU ms of an attempt over all processes\n")
        say(engines_table(measured, options.speed))
        say(f"\n{feeding(measured[-1])}\n")
        say(f"One engine in one process, without Ray, {PROFILED} slots\n")
        say(profile(Case(root, PROFILED, 1, INSTANT, False)))
        if options.slots:
            say("\nWhole syntheses by two engines: MiB of one process, unique / resident\n")
            rows: list[Sequence[str]] = [MEMORY]
            for slots in options.slots:
                rows.append(memory_row(Case(root, slots, 2, INSTANT, True), options.folder))
                say(columns(rows), last=slots == options.slots[-1])


if __name__ == "__main__":
    main()
