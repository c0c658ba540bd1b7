"""A command, timed and watched from outside: seconds, the memory of all its processes, and when Ray's workers had work."""

import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_EVERY_S = 0.2
_UNIQUE_EVERY = 5  # samples: adding up a process's own pages takes the system a while
_CONNECT = """
from deepred_ray import cluster
from deepred_ray.config import RayConfig
cluster.connect(RayConfig())
cluster.disconnect()
"""
_DATA_TASK = re.compile(r"ray::\w+\(")  # what Ray calls a worker while it has a task of Ray Data: ray::FlatMap(function)


@dataclass
class Peak:
    """The most memory that one process held, in bytes; `name` is the last that it had with work to do.

    `resident` has the pages that it shares with others too, such as Ray's object store; `unique` has only its own.
    """

    name: str
    resident: int = 0
    unique: int = 0

    def see(self, process: psutil.Process, unique: bool) -> None:
        self.resident = max(self.resident, process.memory_info().rss)
        if unique:
            self.unique = max(self.unique, process.memory_full_info().uss)


@dataclass(frozen=True)
class Measured:
    """A command's seconds, and the most memory of its own process and of each one below it.

    `before` the first task of Ray Data, `working` until the last one ended, `after` that: these make `seconds`.
    `worker_seconds` is the time of the tasks, summed over workers.
    """

    before: float
    working: float
    after: float
    worker_seconds: float
    driver: Peak
    others: tuple[Peak, ...]

    @property
    def seconds(self) -> float:
        return self.before + self.working + self.after

    @property
    def largest_other(self) -> Peak:
        return max(self.others, key=lambda peak: peak.unique)


def deepred(*words: str) -> list[str]:
    """The command line of `deepred` in this environment."""
    return [sys.executable, "-m", "deepred_ray", *words]


def measure(command: Sequence[str]) -> Measured:
    """Run a command and watch it. Ends the program, with what the command said, if it fails."""
    peaks: dict[int, Peak] = {}
    first = last = worker_seconds = 0.0
    started = before = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        running = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        samples = 0
        while running.poll() is None:
            now = time.perf_counter()
            working = watch(running.pid, peaks, unique=samples % _UNIQUE_EVERY == 0)
            if working:
                first, last = first or now, now
                worker_seconds += working * (now - before)
            before = now
            samples += 1
            time.sleep(_EVERY_S)
        ended = time.perf_counter()
        if running.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read()}")
    driver = peaks.pop(running.pid)
    first, last = first or ended, last or ended
    return Measured(first - started, last - first, ended - last, worker_seconds, driver, tuple(peaks.values()))


def watch(pid: int, peaks: dict[int, Peak], *, unique: bool) -> int:
    """Raise the peaks of a process and of all below it; how many of them are workers with a task."""
    working = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        command = psutil.Process(pid)
        for process in [command, *command.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                name = name_of(process)
                peak = peaks.setdefault(process.pid, Peak(name))
                peak.see(process, unique)
                working += _DATA_TASK.match(name) is not None
                if name.startswith("ray::") and name != "ray::IDLE":
                    peak.name = name
    return working


def name_of(process: psutil.Process) -> str:
    """What Ray calls its worker, or the script's or the program's name."""
    words = process.cmdline()
    if words and words[0].startswith("ray::"):
        return words[0]
    return next((Path(word).name for word in words if word.endswith(".py")), process.name())


def ray_start(repeat: int = 3) -> float:
    """Median seconds of a process that connects to a Ray of its own and leaves."""
    return statistics.median(measure([sys.executable, "-c", _CONNECT]).seconds for _ in range(repeat))
