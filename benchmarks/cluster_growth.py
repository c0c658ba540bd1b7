"""What the pipeline itself costs as nodes and rows grow: acquire, corpus and synthesize on 1, 2, 4 and 8 raylets of this machine.

    python benchmarks/cluster_growth.py mirror/files
    python benchmarks/cluster_growth.py mirror/files --nodes 1 2 --sizes 8:300     to see it work in two minutes

Each raylet is a Ray node of one CPU with its own object store; the driver is on the first. The books are synthetic (see
synthetic.py), in Gutenberg's own layout, behind a mirror on loopback that keeps no pause. The engines, one a node, hardly wait (see
synthesis_scaling.py). A stage is a driver of its own on the same cluster. Two sizes part what a run costs once from what a row
costs. The measurements go to results/cluster_growth.json, from which capacity.py makes its model.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import books
import psutil
import synthetic
from corpus_growth import columns
from processes import name_of
from synthesis_scaling import IN_FLIGHT, INSTANT, LEAST_ROWS, RESULTS, WaitingEngine, processes_of, recorded

from deepred_ray import cluster, pipeline
from deepred_ray.config import Config
from deepred_ray.mirror import QuietHandler
from deepred_ray.runs import Run
from deepred_ray.schema import BOOKS, CANDIDATES
from deepred_ray.stages import synthesize

RUN = "growth"
STAGES = ("acquire", "corpus", "synthesize")
NODE = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
FIRST_ID = 800_001
EVERY_S = 0.25
SELDOM = 4  # samples: what costs more to ask for than CPU time
SETTLE_S = 8.0  # a new cluster starts workers and agents ahead of need
IDLE_S = 15.0
MIB = 2**20


# What is measured ----------------------------------------------------------------------------------------------------


@dataclass
class Measurement:
    """One stage on one cluster, or the `idle` cluster, seen from outside.

    `cpu` has seconds by kind of process: driver, gcs, raylets, agents (all else that Ray starts) and workers. `memory` has the most
    bytes of one process of a kind: `driver unique` is what its end would free, all others are resident, of workers by task.
    `store` is the most bytes in all object stores together, `created` the bytes that were ever put there.
    """

    stage: str
    nodes: int
    books: int
    rows: int = 0
    kept: int = 0
    seconds: float = 0.0
    cpu: Counter[str] = field(default_factory=Counter)
    memory: Counter[str] = field(default_factory=Counter)
    store: int = 0
    created: int = 0
    spilled: int = 0
    tasks: int = 0
    detail: dict[str, float] = field(default_factory=dict)


def kind_of(name: str) -> str:
    """The kind of a process below the cluster, by its name."""
    if (name.startswith("ray::") and not name.endswith("Agent")) or name == "default_worker.py":
        return "workers"
    return {"gcs_server": "gcs", "raylet": "raylets"}.get(name, "agents")


class Watch:
    """Adds what the processes below this one spend to a measurement; `driver` is the process id of the stage's own."""

    def __init__(self, address: str, found: Measurement) -> None:
        self.state, self.found = state_of(address), found
        self.spent: dict[tuple[int, float], float] = {}
        self.samples = 0
        self.look(None)  # what was spent before is not this measurement's
        found.cpu.clear()
        self.before, self.tasks_before = self.store(), self.tasks()

    def look(self, driver: int | None) -> None:
        seldom = self.samples % SELDOM == 0
        for process in processes_of(os.getpid())[1:]:
            with suppress(psutil.Error):  # it ended meanwhile
                name = name_of(process)
                kind = "driver" if process.pid == driver else kind_of(name)
                key = (process.pid, process.create_time())
                cpu = sum(process.cpu_times()[:2])
                self.found.cpu[kind] += cpu - self.spent.get(key, 0.0)
                self.spent[key] = cpu
                label = name.removeprefix("ray::").split("(")[0].split(".")[0] if kind == "workers" else kind
                self.found.memory[label] = max(self.found.memory[label], process.memory_info().rss)
                if kind == "driver" and seldom:
                    self.found.memory["driver unique"] = max(self.found.memory["driver unique"], process.memory_full_info().uss)
        if seldom:
            self.found.store = max(self.found.store, self.store().object_store_bytes_used)
        self.samples += 1

    def store(self) -> Any:
        """Ray's counts of all object stores together."""
        from ray._private.internal_api import get_memory_info_reply

        return get_memory_info_reply(self.state).store_stats

    def tasks(self) -> int:
        """Tasks and calls of actors so far, attempts of the same one apart; Ray remembers the last 100,000."""
        return len({(event.task_id, event.attempt_number) for event in self.state._get_all_task_events()})

    def end(self) -> None:
        after = self.store()
        self.found.created = after.cumulative_created_bytes - self.before.cumulative_created_bytes
        self.found.spilled = after.spilled_bytes_total - self.before.spilled_bytes_total
        self.found.tasks = self.tasks() - self.tasks_before


def state_of(address: str) -> Any:
    from ray._private.internal_api import get_state_from_address

    return get_state_from_address(address)


# A cluster and its mirror --------------------------------------------------------------------------------------------


@contextmanager
def growing_cluster() -> Iterator[Any]:
    """A cluster of one node, below this process."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    try:
        yield made
    finally:
        made.shutdown()


def grow(made: Any, nodes: int) -> None:
    """Add nodes until there are so many."""
    for _ in range(nodes - len(made.list_all_nodes())):
        made.add_node(**NODE)
    made.wait_for_nodes()


@contextmanager
def mirror(folder: Path, asked: list[str]) -> Iterator[str]:
    """Base URL of a mirror of `folder`; the paths that it is asked for are appended to `asked`."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def make_mirror(sources: Sequence[books.Book], count: int, folder: Path) -> None:
    """`count` synthetic books as Gutenberg's own UTF-8 editions, numbered from FIRST_ID."""
    made = synthetic.synthetic_books(sources[:count], -(-count // len(sources)), synthetic.SEED)
    for number, book in zip(range(FIRST_ID, FIRST_ID + count), made, strict=False):
        path = folder / "cache" / "epub" / str(number) / f"pg{number}.txt"
        path.parent.mkdir(parents=True)
        path.write_text(gutenberg_text(number, book), "utf-8")


def gutenberg_text(number: int, book: books.Book) -> str:
    edge = f"OF THE PROJECT GUTENBERG EBOOK {book.title.upper()} ***"
    header = f"Title: {book.title}\n\nAuthor: A Chain\n\nRelease date: January 1, 2000 [eBook #{number}]\n\nLanguage: English\n"
    return f"{header}\n*** START {edge}\n\n{book.text}\n\n*** END {edge}\n"


# Stages --------------------------------------------------------------------------------------------------------------


def config_of(root: Path, base: str, address: str, nodes: int, count: int, slots: int) -> Config:
    ids = tuple(range(FIRST_ID, FIRST_ID + count))
    return Config.model_validate(
        {
            "run": RUN,
            "data_root": str(root / "runs"),
            "model": str(root / "model"),
            "acquire": {"mirror": base, "ids": ids, "delay": 0.0, "keep_undatable": True},
            "corpus": {"min_matches": 3},  # four chunks of five: slots should not run out of passages
            "synthesize": {"examples": slots, "engines": nodes, "contract": "plain", "in_flight": IN_FLIGHT},
            "ray": {"address": address},
        }
    )


def drive(stage: str, config: Config) -> None:
    """What the driver does."""
    started = Path(config.model) / "engines"
    engine = partial(WaitingEngine, replies=recorded(), speed=INSTANT, folder=str(started), engines=config.synthesize.engines)
    synthesize.run = partial(synthesize.run, make_engine=engine)
    cluster.connect(config.ray)
    pipeline.run_stages(config, [stage], fresh=False)
    cluster.disconnect()


def measure_stage(stage: str, config: Config, folder: Path, asked: list[str], environment: dict[str, str]) -> Measurement:
    """Run a stage in a process of its own. Ends the program, with what the stage said, if it fails."""
    assert config.ray.address
    found = Measurement(stage, config.synthesize.engines, len(config.acquire.ids))
    command = [sys.executable, __file__, str(folder), "--drive", stage, config.model_dump_json()]
    watch = Watch(config.ray.address, found)
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        driver = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=os.environ | environment)
        while driver.poll() is None:
            watch.look(driver.pid)
            time.sleep(EVERY_S)
        found.seconds = time.perf_counter() - began
        if driver.returncode:
            said.seek(0)
            sys.exit(f"{stage} on {found.nodes} nodes failed:\n{said.read()[-5000:]}")
    time.sleep(2)  # Ray's own counts come in every second
    watch.end()
    run = Run(config.root, RUN)
    manifest = run.manifest(stage)
    assert manifest is not None  # the driver did not fail
    found.rows, found.kept = manifest.rows_in, manifest.kept
    found.detail = details(stage, run, asked)
    return found


def details(stage: str, run: Run, asked: Sequence[str]) -> dict[str, float]:
    if stage == "acquire":
        texts = run.table("books").read_table(BOOKS, ["text"])["text"]
        return {"characters": sum(len(text.as_py()) for text in texts), "requests": len(asked)}
    if stage == "synthesize":
        made = run.table("candidates").read_table(CANDIDATES, ["tokens"])["tokens"]
        return {"tokens": sum(made.to_pylist()), "shards": len(run.table("candidates").files(".parquet"))}
    return {}


def measure_idle(address: str, nodes: int) -> Measurement:
    found = Measurement("idle", nodes, 0)
    time.sleep(SETTLE_S)
    watch = Watch(address, found)
    began = time.perf_counter()
    while time.perf_counter() - began < IDLE_S:
        time.sleep(EVERY_S * SELDOM)
        watch.look(None)
    found.seconds = time.perf_counter() - began
    return found


def measure_size(address: str, nodes: int, count: int, slots: int, served: Path, folder: Path) -> Iterator[Measurement]:
    """All stages of a new run."""
    asked: list[str] = []
    with tempfile.TemporaryDirectory(prefix="deepred-cluster-") as name, mirror(served, asked) as base:
        root = Path(name)
        (root / "model" / "engines").mkdir(parents=True)
        (root / "model" / "config.json").write_text("{}")
        config = config_of(root, base, address, nodes, count, slots)
        for stage in STAGES:
            yield measure_stage(stage, config, folder, asked, {"XDG_CACHE_HOME": str(root / "cache")})


def measure_all(options: argparse.Namespace, served: Path) -> Iterator[Measurement]:
    """One cluster, larger each time. Ray starts new workers for each driver, so no stage finds warm ones."""
    with growing_cluster() as made:
        for nodes in sorted(options.nodes):
            grow(made, nodes)
            yield measure_idle(made.address, nodes)
            for count, slots in options.sizes:
                yield from measure_size(made.address, nodes, count, slots, served, options.folder)


# The program ---------------------------------------------------------------------------------------------------------

HEADER = (
    "nodes",
    "stage",
    "rows",
    "s",
    "CPU s",
    "driver",
    "gcs",
    "raylets",
    "agents",
    "workers",
    "driver MiB",
    "store MiB",
    "tasks",
)


def table(measured: Sequence[Measurement]) -> str:
    """A row a measurement; `driver MiB` is its own memory / all resident, `store MiB` the most at a time / ever created."""
    rows: list[Sequence[str]] = [HEADER]
    for each in measured:
        rows.append(
            (
                str(each.nodes),
                each.stage,
                f"{each.rows:,}",
                f"{each.seconds:.0f}",
                f"{each.cpu.total():.1f}",
                *(f"{each.cpu[kind]:.1f}" for kind in HEADER[5:10]),
                f"{each.memory['driver unique'] / MIB:.0f} / {each.memory['driver'] / MIB:.0f}",
                f"{each.store / MIB:.1f} / {each.created / MIB:.1f}",
                str(each.tasks),
            )
        )
    return columns(rows)


def size(text: str) -> tuple[int, int]:
    """BOOKS:SLOTS."""
    count, slots = text.split(":")
    return int(count), int(slots)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    books.add_arguments(parser)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of raylets (default: 1 2 4 8)")
    parser.add_argument("--sizes", type=size, nargs="+", default=[(8, 1_100), (32, 3_300)], metavar="BOOKS:SLOTS")
    parser.add_argument("--results", type=Path, default=RESULTS / "cluster_growth.json", help="where to write the measurements")
    parser.add_argument("--drive", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(options.drive[0], Config.model_validate_json(options.drive[1]))
        return
    least = LEAST_ROWS * max(options.nodes)
    if any(slots < least for _, slots in options.sizes):
        parser.error(f"{max(options.nodes)} nodes want {least} slots at least, so that each engine gets a first one")
    logging.getLogger("ray").setLevel(logging.WARNING)
    os.environ.pop("RAY_ADDRESS", None)
    measured: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="deepred-mirror-") as name:
        make_mirror(books.chosen_books(options), max(count for count, _ in options.sizes), Path(name))
        for found in measure_all(options, Path(name)):
            measured.append(found)
            print(table([found]), flush=True)
            record = {"cores": os.cpu_count(), "measured": [vars(each) for each in measured]}
            options.results.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"\n{table(measured)}")


if __name__ == "__main__":
    main()
