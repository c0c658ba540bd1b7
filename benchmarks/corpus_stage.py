"""The whole corpus stage against the plan's script: the same stripped books in, passages on disk out.

    python benchmarks/corpus_stage.py mirror/files --repeat 3

Both are commands timed from outside, with the start of Python and of Ray in the time, and both keep what has three matches.
Beyond the plan's script the stage scores, drops near-duplicates and writes every chunk with its verdict.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import books
import matcher
import plan_baseline
from processes import Measured, deepred, measure, ray_start

from deepred_ray.runs import Run
from deepred_ray.theme import Theme

MIN_MATCHES = "3"


def run_plan(sources: Sequence[books.Book], folder: Path) -> tuple[float, int]:
    """Seconds that the plan's script takes, and how many chunks passed."""
    corpus, passed = folder / "corpus.jsonl", folder / "passed.jsonl"
    with corpus.open("w", encoding="utf-8") as file:
        for book in sources:
            file.write(json.dumps({"id": book.book_id, "title": book.title, "author": "", "text": book.body}) + "\n")
    measured = measure([sys.executable, plan_baseline.__file__, str(corpus), str(passed), "--min-matches", MIN_MATCHES])
    with passed.open(encoding="utf-8") as file:
        return measured.seconds, sum(1 for _ in file)


def run_stage(run: Run, repeat: int) -> list[Measured]:
    """The stage from the start, `repeat` times, the quickest first."""
    runs = []
    for _ in range(repeat):
        run.discard_from("corpus")
        runs.append(measure(deepred("corpus", "--data-root", run.root, "--run", run.name, "--min-matches", MIN_MATCHES)))
    return sorted(runs, key=lambda measured: measured.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    books.add_arguments(parser)
    parser.add_argument("--repeat", type=int, default=3, help="runs of the stage, of which the median counts (default: 3)")
    options = parser.parse_args()
    sources = books.chosen_books(options)
    chunks = matcher.chunk_texts(sources)
    scorer = Theme.find(books.THEME).scorer
    scoring = matcher.seconds(lambda: matcher.score_all(scorer, chunks))
    start = ray_start()
    with tempfile.TemporaryDirectory(prefix="deepred-stage-") as folder:
        run = books.write_run(Path(folder), "stage", sources)
        runs = run_stage(run, options.repeat)
        made = run.manifest("corpus")
        assert made is not None  # it is written last, by a command that did not fail
        plan_seconds, passed = run_plan(sources, Path(folder))
    median = runs[len(runs) // 2]
    print(f"{len(sources)} books, {sum(len(book.body) for book in sources) / 1e6:.1f} M characters, {os.cpu_count()} cores")
    print(f"plan's script   {plan_seconds:7.1f} s, {passed} passages")
    print(f"deepred corpus  {median.seconds:7.1f} s, {made.kept} passages of {made.rows_in} chunks, rejected: {made.rejected}")
    print(f"                {', '.join(f'{measured.seconds:.1f}' for measured in runs)} s in all runs")
    net = plan_seconds / (median.seconds - start)
    print(f"ratio           {plan_seconds / median.seconds:7.1f}, {net:.1f} without Ray's start")
    print(f"Ray's start     {start:7.1f} s, {start / median.seconds:.0%} of the stage")
    share = scoring / median.worker_seconds
    print(
        f"scoring         {scoring:7.1f} s alone on one core, {share:.0%} of the {median.worker_seconds:.1f} s of the stage's tasks"
    )


if __name__ == "__main__":
    main()
