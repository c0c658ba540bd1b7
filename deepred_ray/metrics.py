"""Our metrics, which Ray's agent on each node offers to Prometheus, as `ray_deepred_...`.

The driver alone sets them, but for the engines' restarts, so that no row is counted by two. Gauges tell what is true of the run
now, whoever made it: Ray drops one that was not set for some 20 seconds, so a thread sets all again while the driver lives.
Counters tell what one driver did in its life, under a WorkerId of its own; those of a driver that is killed lack its last 10
seconds. Outside Ray nothing is recorded.
"""

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from deepred_ray import logs

if TYPE_CHECKING:
    from deepred_ray.runs import Manifest

WAITING, RUNNING, WHOLE, FAILED = range(4)  # of deepred_stage_state
KEPT = "kept"
AGAIN_S = 5.0  # half of the time in which Ray's processes report once


@dataclass(frozen=True)
class Measure:
    """One metric; all have the tags run and stage, and `tags` besides."""

    kind: Literal["Counter", "Gauge"]
    text: str
    tags: tuple[str, ...] = ()


MEASURES = {
    "deepred_ledger_rows": Measure(
        "Gauge",
        "Rows of a whole stage, as in its manifest, by reason: kept, or why rejected. Of the run, whichever drivers made them.",
        ("reason",),
    ),
    "deepred_rows": Measure(
        "Counter",
        "Rows that this driver has made, by reason (kept, or why rejected), as they are made: a row that is made again counts "
        "again, and one that a later step drops has counted as kept. Of corpus all chunks: each driver settles them anew.",
        ("reason",),
    ),
    "deepred_done": Measure(
        "Gauge", "How far the step of a stage is, in its unit; what an earlier driver did is in it.", ("step", "unit")
    ),
    "deepred_wanted": Measure("Gauge", "How far the step of a stage has to come, in its unit.", ("step", "unit")),
    "deepred_yield": Measure(
        "Gauge", "Share of a stage's rows that were kept: of synthesize the attempts so far, of others when they are whole."
    ),
    "deepred_tokens": Measure("Counter", "Tokens that engines generated for this driver."),
    "deepred_engine_restarts": Measure("Counter", "Engines that died and were started again, by the actor that holds them."),
    "deepred_stage_state": Measure("Gauge", "0 waiting, 1 running, 2 whole, 3 failed or stopped."),
    "deepred_stage_seconds": Measure("Gauge", "Seconds that a whole stage took the driver that ended it."),
    "deepred_train_step": Measure("Gauge", "Optimizer steps done."),
    "deepred_train_loss": Measure("Gauge", "Training loss of the last step."),
    "deepred_train_val_loss": Measure("Gauge", "Loss of the last validation."),
    "deepred_train_tokens_per_second": Measure("Gauge", "Tokens a second in training, all workers together."),
}


@cache
def instrument(name: str) -> Any:
    """Ray's object for a metric of MEASURES, one a process."""
    from ray.util import metrics

    measure = MEASURES[name]
    return getattr(metrics, measure.kind)(name, description=measure.text, tag_keys=("run", "stage", *measure.tags))


def connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


class Shown(threading.Thread):
    """The gauges of this driver, set again and again until it leaves Ray."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def run(self) -> None:
        while connected():
            for (name, tags), value in list(self.values.items()):
                instrument(name).set(value, tags=dict(tags))
            time.sleep(AGAIN_S)


_shown = Shown()
_showing = threading.Lock()


def show(name: str, value: float, stage: str | None = None, **tags: str) -> None:
    """Set a gauge, of the stage that this process is in if no other is named, for as long as this process is a driver."""
    global _shown
    if not connected():
        return
    tags = logs.here() | ({"stage": stage} if stage else {}) | tags
    with _showing:
        if not _shown.is_alive():
            _shown = Shown()
            _shown.start()
        _shown.values[name, tuple(sorted(tags.items()))] = value
    instrument(name).set(value, tags=tags)


def count(name: str, more: float, **tags: str) -> None:
    """Let a counter grow."""
    if more > 0 and connected():
        instrument(name).inc(more, tags=logs.here() | tags)


class Growing:
    """Counters that follow totals, which a loop knows anew each time."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._tokens = 0

    def rows(self, totals: Mapping[str, int]) -> None:
        """Rows by reason so far; "" is for those that are kept."""
        for reason, total in totals.items():
            count("deepred_rows", total - self._rows.get(reason, 0), reason=reason or KEPT)
        self._rows = dict(totals)

    def tokens(self, total: int) -> None:
        count("deepred_tokens", total - self._tokens)
        self._tokens = total


def show_whole(manifest: "Manifest") -> None:
    """The ledger of a whole stage."""
    for reason, rows in {KEPT: manifest.kept, **manifest.rejected}.items():
        show("deepred_ledger_rows", rows, manifest.stage, reason=reason)
    show("deepred_yield", manifest.kept / max(1, manifest.rows_in), manifest.stage)
    show("deepred_stage_seconds", manifest.seconds, manifest.stage)
    show("deepred_stage_state", WHOLE, manifest.stage)
