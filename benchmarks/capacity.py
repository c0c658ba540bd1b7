"""A model, and no measurement, of large runs: from what cluster_growth.py measured on few nodes to 64 nodes and a whole library.

    python benchmarks/capacity.py
    python benchmarks/capacity.py --gpus 2 16 --tokens-per-second 1500 --train-tokens-per-second 9000

The model is fitted on the clusters but the largest, and then compared with the largest, which it has not seen. What a GPU does
is not measured: --tokens-per-second and --train-tokens-per-second say what is assumed of it.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from corpus_growth import columns
from synthesis_scaling import RESULTS

MIB = 2**20
NODES = 64
# From README.md beside this: corpus_growth.py, 580 books of 0.65 M characters, two cores.
TWINS_S = 14.1 * 60 / 70_000  # a book, one after another
CHUNKING_S = 124 * 60 / 70_000  # a book, on any number of cores
# training_speed.py: 80 conversations.
TRAINED_ON = 14_250 / 80  # tokens an example, prompt and template included
# synthesis_scaling.py: memory of the task that chooses the examples, at 1,000 and at 100,000 slots.
CHOOSING_BYTES = (1.1 * 2**30 - 348 * MIB) / 99_000  # a slot


# The model -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plane:
    """once + node * nodes + row * rows + both * nodes * rows. No coefficient is negative, so more never costs less."""

    once: float
    node: float
    row: float
    both: float

    def __call__(self, nodes: float, rows: float) -> float:
        return self.once + self.node * nodes + (self.row + self.both * nodes) * rows

    def a_row(self, nodes: float) -> float:
        """What one more row costs."""
        return self.row + self.both * nodes


def fit(points: Sequence[tuple[float, float, float]]) -> Plane:
    """The plane nearest to points of (nodes, rows, value), by least squares without negative coefficients.

    Such a plane is the plain least squares of those of its terms that are not zero: with four terms, all sets are tried.
    """
    nodes, rows, values = np.array(points, dtype=float).T
    terms = np.stack([np.ones_like(nodes), nodes, rows, nodes * rows], axis=1)
    scale = np.maximum(np.abs(terms).max(axis=0), 1e-300)
    best, least = np.zeros(4), float(np.square(values).sum())
    for chosen in (list(some) for count in range(1, 5) for some in combinations(range(4), count)):
        found = np.zeros(4)
        found[chosen] = np.linalg.lstsq(terms[:, chosen] / scale[chosen], values, rcond=None)[0]
        off = float(np.square(terms / scale @ found - values).sum())
        if found.min() >= 0 and off < least:
            best, least = found / scale, off
    return Plane(*map(float, best))


@dataclass(frozen=True)
class Fitted:
    """A quantity of a stage: its plane, and how far that is from the held-out cluster (0.1: says 10 % too much), by size."""

    stage: str
    what: str
    plane: Plane
    errors: tuple[float, ...]


Measured = Mapping[str, Any]
QUANTITIES: dict[str, Callable[[Measured], float]] = {
    "CPU s": lambda each: sum(each["cpu"].values()),
    "driver CPU s": lambda each: each["cpu"].get("driver", 0.0),
    "gcs CPU s": lambda each: each["cpu"].get("gcs", 0.0),
    "driver MiB": lambda each: each["memory"].get("driver unique", 0) / MIB,
    "store MiB": lambda each: each["store"] / MIB,
    "created MiB": lambda each: each["created"] / MIB,
    "tasks": lambda each: each["tasks"],
}


def fit_all(measured: Sequence[Measured]) -> Iterator[Fitted]:
    """Every quantity of every stage; of an idle cluster its CPU seconds a second."""
    for stage in dict.fromkeys(each["stage"] for each in measured):
        here = [each for each in measured if each["stage"] == stage]
        quantities = dict(list(QUANTITIES.items())[:1]) if stage == "idle" else QUANTITIES
        for what, value in quantities.items():
            per = (lambda each: each["seconds"]) if stage == "idle" else (lambda each: 1.0)
            points = [(each["nodes"], each["rows"], value(each) / per(each)) for each in here]
            yield Fitted(stage, what, *fit_and_check(points))


def fit_and_check(points: Sequence[tuple[float, float, float]]) -> tuple[Plane, tuple[float, ...]]:
    """The plane through all points but those of the most nodes, and its relative errors at those."""
    most = max(nodes for nodes, _, _ in points)
    plane = fit([point for point in points if point[0] < most])
    held = sorted(point for point in points if point[0] == most)
    return plane, tuple(plane(nodes, rows) / value - 1 for nodes, rows, value in held if value)


# What is asked of it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What shall be made, and with what; a node is a GPU, its cores and one engine.

    Speeds are of one GPU, in tokens a second: `generating` new ones in synthesis, `training` on those of the examples. `delay`
    is seconds between two requests to the mirror.
    """

    books: int
    examples: int
    gpus: int
    cores: int
    generating: float
    training: float
    epochs: int = 3
    delay: float = 2.0


@dataclass(frozen=True)
class Costs:
    """What is measured of the pipeline: planes of synthesis by attempts, and figures of one book, attempt or example."""

    driver: Plane
    workers: Plane
    attempts: float  # an example
    tokens: float  # an example, those of its failed attempts included
    requests: float  # of one more book


@dataclass(frozen=True)
class Taken:
    """Seconds by stage, and what synthesis waits for."""

    download: float
    corpus: float
    synthesis: float
    training: float
    waits_for: str

    @property
    def total(self) -> float:
        return self.download + self.corpus + self.synthesis + self.training

    @property
    def bottleneck(self) -> str:
        """The stage that takes the most."""
        return max(("download", "corpus", "synthesis", "training"), key=lambda name: getattr(self, name))


def costs_of(measured: Sequence[Measured], fitted: Sequence[Fitted]) -> Costs:
    """Figures from the largest size; the workers' plane is fitted like the others."""
    synthesis = [each for each in measured if each["stage"] == "synthesize"]
    driver = next(each.plane for each in fitted if (each.stage, each.what) == ("synthesize", "driver CPU s"))
    workers, _ = fit_and_check([(each["nodes"], each["rows"], each["cpu"]["workers"]) for each in synthesis])
    large = [each for each in synthesis if each["books"] == max(each["books"] for each in synthesis)]
    kept = sum(each["kept"] for each in large)
    acquired = [each for each in measured if each["stage"] == "acquire"]
    return Costs(
        driver,
        workers,
        sum(each["rows"] for each in large) / kept,
        sum(each["detail"]["tokens"] for each in large) / kept,
        fit([(each["nodes"], each["books"], each["detail"]["requests"]) for each in acquired]).row,
    )


def take(plan: Plan, costs: Costs) -> Taken:
    """Stages one after another. Synthesis takes as long as the slowest of: the GPUs, the driver on one core, the nodes' cores."""
    attempts = plan.examples * costs.attempts
    waits = {
        "GPUs": plan.examples * costs.tokens / (plan.gpus * plan.generating),
        "driver": costs.driver(plan.gpus, attempts),
        "cores": costs.workers(plan.gpus, attempts) / (plan.gpus * plan.cores),
    }
    slowest = max(waits, key=lambda name: waits[name])
    return Taken(
        plan.books * costs.requests * plan.delay,
        plan.books * (TWINS_S + CHUNKING_S / (plan.gpus * plan.cores)),
        waits[slowest],
        plan.examples * TRAINED_ON * plan.epochs / (plan.gpus * plan.training),
        slowest,
    )


def most_engines(costs: Costs, generating: float) -> int:
    """How many GPUs of this speed the driver's one core keeps busy; 0 if not even one."""
    a_second = generating * costs.attempts / costs.tokens  # attempts of one GPU
    engines = 0
    while engines < 100_000 and (engines + 1) * a_second * costs.driver.a_row(engines + 1) <= 1:
        engines += 1
    return engines


# The program ---------------------------------------------------------------------------------------------------------


def model_table(fitted: Sequence[Fitted]) -> str:
    rows: list[Sequence[str]] = [("stage", "", "once", "a node", "a 1,000 rows", "a node and 1,000 rows", "error at the held-out")]
    for each in fitted:
        plane = each.plane
        errors = ", ".join(f"{error:+.0%}" for error in each.errors)
        figures = (plane.once, plane.node, 1000 * plane.row, 1000 * plane.both)
        rows.append((each.stage, each.what, *(f"{figure:.3g}" for figure in figures), errors))
    return columns(rows)


def far_table(fitted: Sequence[Fitted], costs: Costs, plan: Plan) -> str:
    """What the model says of NODES nodes."""
    attempts = plan.examples * costs.attempts
    rows: list[Sequence[str]] = [("stage", "", "rows", f"{NODES} nodes")]
    for each in fitted:
        if each.stage in ("idle", "synthesize"):
            count = attempts if each.stage == "synthesize" else 0
            rows.append((each.stage, each.what, f"{count:,.0f}", f"{each.plane(NODES, count):,.3g}"))
    return columns(rows)


def plan_table(plans: Sequence[Plan], costs: Costs) -> str:
    """Hours by stage, a row a plan."""
    head = (
        "GPUs",
        "tokens/s",
        "trained/s",
        "download h",
        "corpus h",
        "synthesis h",
        "waits for",
        "training h",
        "total h",
        "longest",
    )
    rows: list[Sequence[str]] = [head]
    for plan in plans:
        taken = take(plan, costs)
        hours = [
            f"{seconds / 3600:.1f}" for seconds in (taken.download, taken.corpus, taken.synthesis, taken.training, taken.total)
        ]
        speeds = (str(plan.gpus), f"{plan.generating:g}", f"{plan.training:g}")
        rows.append((*speeds, *hours[:3], taken.waits_for, *hours[3:], taken.bottleneck))
    return columns(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS / "cluster_growth.json")
    parser.add_argument("--books", type=int, default=70_000)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 4, 8, 64])
    parser.add_argument("--cores", type=int, default=8, help="of the node of each GPU (default: 8)")
    parser.add_argument("--tokens-per-second", type=float, nargs="+", default=[500, 2_000, 10_000], help="generated by one GPU")
    parser.add_argument("--train-tokens-per-second", type=float, default=5_000, help="trained on by one GPU (default: 5000)")
    parser.add_argument("--delay", type=float, default=2.0, help="seconds between two requests to the mirror (default: 2)")
    options = parser.parse_args()
    measured = json.loads(options.results.read_text("utf-8"))["measured"]
    fitted = list(fit_all(measured))
    costs = costs_of(measured, fitted)
    plans = [
        Plan(options.books, options.examples, gpus, options.cores, speed, options.train_tokens_per_second, delay=options.delay)
        for speed in options.tokens_per_second
        for gpus in options.gpus
    ]
    print(f"The model, not a measurement\n\n{model_table(fitted)}\n")
    print(f"Extrapolated, {options.examples:,} examples\n\n{far_table(fitted, costs, plans[0])}\n")
    print(f"An example: {costs.attempts:.2f} attempts, {costs.tokens:.0f} generated tokens; a book: {costs.requests:.2f} requests")
    for speed in options.tokens_per_second:
        print(f"The driver keeps {most_engines(costs, speed):,} GPUs of {speed:g} tokens/s busy")
    print(f"The task that chooses: {options.examples * CHOOSING_BYTES / 2**30:.1f} GiB\n")
    print(f"{options.books:,} books and {options.examples:,} examples, hours\n\n{plan_table(plans, costs)}")


if __name__ == "__main__":
    main()
