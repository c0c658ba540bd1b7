"""How the corpus stage grows with the books: `deepred corpus`, run as a user would, on 1, 3 and 10 times a folder's books.

    python benchmarks/corpus_growth.py mirror/files --ids all --times 1 3 10

The books are synthetic (see synthetic.py). Memory is the most that one process held: unique pages / all resident ones, which count
Ray's object store in every process that looked at it. Last comes a model of a whole library; it is no measurement.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import books
import synthetic
from processes import Measured, Peak, deepred, measure, ray_start

LIBRARY = 70_000  # books of Project Gutenberg, roughly
CORES = (1, 8, 64)
HEADER = ("", "books", "M chars", "chunks", "passages", "s", "net s", "M chars/s", "s/char", "driver MiB", "largest other MiB")
MODEL = """
A model of {library} books, not a measurement: the straight line through {first}x and {last}x on the {here} cores here, parted by
  {constant:8.1f} s  once, whatever the books: process, Ray, the workers' imports
  {serial:8.2f} ms a book with no task of Ray Data at work, mostly the one search for twins: serial, on any number of cores
  {parallel:8.2f} ms a book of the tasks' time: parallel
Assumed: books of this length; the line goes on; the tasks' time parts evenly over the cores, none of which waits for disk,
network or the driver's scheduling, and each of which is as fast as one here (Amdahl's law, and nothing besides).
"""


@dataclass(frozen=True)
class Case:
    """A number of books, what the stage made of them, and its run of median seconds."""

    times: int
    books: int
    characters: int
    chunks: int
    passages: int
    measured: Measured


def run_case(sources: Sequence[books.Book], times: int, root: Path, repeat: int) -> Case:
    """Make the books, and run the stage on them `repeat` times from the start."""
    characters = 0

    def counted() -> Iterator[books.Book]:
        nonlocal characters
        for book in synthetic.synthetic_books(sources, times, seed=synthetic.SEED):
            characters += len(book.text)
            yield book

    run = books.write_run(root, f"times-{times}", counted())
    runs = []
    for _ in range(repeat):
        run.discard_from("corpus")
        runs.append(measure(deepred("corpus", "--data-root", str(root), "--run", run.name)))
    made = run.manifest("corpus")
    assert made is not None  # it is written last, by a command that did not fail
    median = sorted(runs, key=lambda measured: measured.seconds)[len(runs) // 2]
    return Case(times, times * len(sources), characters, made.rows_in, made.kept, median)


def table(cases: Sequence[Case], start: float) -> str:
    """A row a case; `net` is seconds less Ray's start, `s/char` is relative to the first case."""
    rows: list[Sequence[str]] = [HEADER]
    first = cases[0]
    for case in cases:
        net = case.measured.seconds - start
        ratio = net / (first.measured.seconds - start) * first.characters / case.characters
        rows.append(
            (
                f"{case.times}x",
                str(case.books),
                f"{case.characters / 1e6:.1f}",
                str(case.chunks),
                str(case.passages),
                f"{case.measured.seconds:.1f}",
                f"{net:.1f}",
                f"{case.characters / 1e6 / net:.2f}",
                f"{ratio:.2f}",
                mebibytes(case.measured.driver),
                f"{mebibytes(case.measured.largest_other)} {case.measured.largest_other.name}",
            )
        )
    return columns(rows)


def memory(case: Case) -> str:
    """A row for each process: the driver, then the others, the largest first."""
    rows = [(f"processes at {case.times}x", "MiB")]
    by_size = sorted(case.measured.others, key=lambda peak: -peak.unique)
    rows += [("driver", mebibytes(case.measured.driver)), *((peak.name, mebibytes(peak)) for peak in by_size)]
    return columns(rows)


def model(first: Case, last: Case) -> str:
    """What the library would take on several numbers of cores, with the assumptions; or why that cannot be told."""
    more = last.books - first.books
    alone, alone_first = (case.measured.before + case.measured.after for case in (last, first))
    serial = (alone - alone_first) / more
    parallel = (last.measured.worker_seconds - first.measured.worker_seconds) / more
    constant = alone_first - serial * first.books
    if serial < 0 or parallel < 0:
        return "\nNo model: more books took less time, so these sizes are too close, or the machine was busy."
    said = MODEL.format(
        library=LIBRARY,
        first=first.times,
        last=last.times,
        here=os.cpu_count(),
        constant=constant,
        serial=serial * 1000,
        parallel=parallel * 1000,
    )
    rows = [("cores", "minutes", "serial")]
    for cores in CORES:
        waiting = constant + serial * LIBRARY
        seconds = waiting + parallel * LIBRARY / cores
        rows.append((str(cores), f"{seconds / 60:.1f}", f"{waiting / seconds:.0%}"))
    return said + columns(rows)


def mebibytes(peak: Peak) -> str:
    return f"{peak.unique / 2**20:.0f} / {peak.resident / 2**20:.0f}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    books.add_arguments(parser)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 3, 10], help="sizes to run (default: 1 3 10)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each size, of which the median counts (default: 1)")
    options = parser.parse_args()
    sources = books.chosen_books(options)
    start = ray_start()
    print(f"Ray's start and end, in a process that does nothing else: {start:.1f} s, of `s` and not of `net s`\n", flush=True)
    cases = []
    with tempfile.TemporaryDirectory(prefix="deepred-growth-") as root:
        for times in options.times:
            cases.append(run_case(sources, times, Path(root), options.repeat))
            print(f"{times}x: {cases[-1].measured.seconds:.1f} s", flush=True)
    print(f"\n{table(cases, start)}\n\n{memory(cases[-1])}")
    if len(cases) > 1:
        print(model(cases[0], cases[-1]))


if __name__ == "__main__":
    main()
