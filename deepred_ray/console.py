"""What the user sees: progress on a terminal, readable lines without one. Everything else goes to the run's log file."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from deepred_ray import logs, metrics

LINE_EVERY_S = 10.0
HEARTBEAT_S = 30.0
# No emoji: `:crown:` in a text that is shown is no wish for a picture of one.
console = Console(highlight=False, emoji=False)


@contextlib.contextmanager
def chatter_to(log: Path) -> Iterator[None]:
    """Send whatever this process and its children write to stdout and stderr to `log`, but keep `console` on the screen.

    Works on file descriptors, since Ray, vLLM and their C++ parts write past Python.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    screen, errors = os.dup(1), os.dup(2)
    stream = TextIOWrapper(os.fdopen(os.dup(screen), "wb", buffering=0), write_through=True, encoding="utf-8", errors="replace")
    before = console.file
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    console.file = stream
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(screen, 1)
        os.dup2(errors, 2)
        os.close(screen)
        os.close(errors)
        console.file = before
        stream.close()


def say(text: str) -> None:
    """One line for the user, with the time where there is no terminal; also an event of the run's log."""
    logs.note("said", logging.WARNING if "[yellow]" in text else logging.INFO, message=Text.from_markup(text).plain.strip())
    if console.is_terminal:
        console.print(text, soft_wrap=True)
    else:
        console.print(f"{datetime.now():%H:%M:%S} {text}", markup=True, soft_wrap=True)


class Meter:
    """Progress of one piece of work. `update` may be called as often as one likes."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self._started = self._spoke = time.monotonic()
        self._done, self._note = 0, ""
        self._ended = threading.Event()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("  {task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(f"{name} ({unit})", total=total, note="")

    def __enter__(self) -> "Meter":
        if self._bar:
            self._bar.start()
        else:
            threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._bar:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self._started

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        self._done, self._note = done, note
        self.total = total or self.total
        metrics.show("deepred_done", done, step=self.name, unit=self.unit)
        if self.total:
            metrics.show("deepred_wanted", self.total, step=self.name, unit=self.unit)
        if self._bar:
            self._bar.update(self._task, completed=done, total=self.total, note=note)
        elif time.monotonic() - self._spoke >= LINE_EVERY_S:
            self._speak()

    def _beat(self) -> None:
        """Tell from time to time how far it is, even if nothing gets done: an engine may be minutes at its first replies."""
        while not self._ended.wait(1.0):
            if time.monotonic() - self._spoke >= HEARTBEAT_S:
                self._speak()

    def _speak(self) -> None:
        self._spoke = time.monotonic()
        rate = self._done / (self._spoke - self._started)
        left = f", {(self.total - self._done) / rate:.0f} s left" if self.total and rate > 0 else f", after {self.seconds:.0f} s"
        of = f"/{self.total}" if self.total else ""
        say(f"  {self.name}: {self._done}{of} {self.unit}{', ' + self._note if self._note else ''}{left}")


def counts_text(counts: Mapping[str, int], limit: int = 4) -> str:
    """`12 copied, 3 off_theme`: the largest counts first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[limit:])
    return ", ".join([f"{count} {name}" for name, count in ordered[:limit]] + ([f"{rest} other"] if rest else []))


def table(title: str, columns: list[str], rows: list[list[str]], right: int = 0) -> None:
    """Print a table; the last `right` columns are numbers."""
    grid = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        grid.add_column(column, justify="right" if position >= len(columns) - right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    console.print(grid)
