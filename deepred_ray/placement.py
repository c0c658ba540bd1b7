"""Where work may run: what each unit of a stage's work asks of Ray, and whether the cluster has room for it.

  fetching      one actor, as the mirror's pauses are for all nodes together; beside the driver if the mirror is on its loopback
  text work     tasks on any node with the CPUs
  engines       actors with accelerators where the cluster has any
  training      workers, likewise
  driver        where `ray job submit` puts it: off a head of --num-cpus=0 with --entrypoint-num-cpus=0.1

Ray makes what fits no node wait, for ever and silently, so `require` refuses it before the first stage.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from deepred_ray.config import Config, Resources
from deepred_ray.console import say
from deepred_ray.errors import DeepredError

FETCHING_CPUS = 0.1
TOKENIZING_CPUS = 0.5
PARTS = 10_000  # of a resource, which Ray counts in so many
GIB = 2**30
Bundle = dict[str, float]
"""Amounts by Ray's name of the resource: CPU, GPU, memory (bytes) and custom ones."""


@dataclass(frozen=True)
class Demand:
    """`count` units that must have room at the same time, each on one node; `lower` is the setting that asks for fewer."""

    what: str
    count: int
    bundle: Bundle
    lower: str

    def __str__(self) -> str:
        return f"{self.count} {self.what}{'s' * (self.count > 1)} of {amounts(self.bundle)}"


def options(resources: Resources, accelerators: int = 0) -> dict[str, Any]:
    """Arguments for Ray's tasks and actors, and for Ray Data's; `accelerators` is what the work uses by default."""
    found: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": gpus(resources, accelerators)}
    if resources.memory_gib:
        found["memory"] = int(resources.memory_gib * GIB)
    if resources.custom:
        found["resources"] = dict(resources.custom)
    return found


def bundle(resources: Resources, accelerators: int = 0) -> Bundle:
    """What `options` asks for, by Ray's names, as Ray Train's workers want it."""
    asked = {"CPU": resources.cpus, "GPU": gpus(resources, accelerators), "memory": resources.memory_gib * GIB, **resources.custom}
    return {name: amount for name, amount in asked.items() if amount}


def gpus(resources: Resources, accelerators: int) -> float:
    if resources.gpus is not None:
        return resources.gpus
    return accelerators if accelerators and has_accelerators() else 0


def has_accelerators() -> bool:
    """Whether the cluster has GPUs, or an autoscaler can bring some."""
    return bool(ray.cluster_resources().get("GPU")) or any("GPU" in node for node in nodes_to_come(1))


def beside_driver() -> dict[str, Any]:
    """Arguments for an actor that must run on the driver's node, even if that is a head without CPUs."""
    return {"num_cpus": 0, "label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}


# --- is there room?


def demands(config: Config, stage: str) -> list[list[Demand]]:
    """What a stage asks for, step by step; the demands of one step want their room together."""
    if stage == "acquire":
        fetching = Demand("fetching actor", 1, {"CPU": FETCHING_CPUS}, "")
        reading = Demand("reading task", 1, bundle(config.acquire.resources), "`acquire.resources`")
        return [[fetching, reading]]
    if stage == "corpus":
        return [[Demand("chunking task", 1, bundle(config.corpus.resources), "`corpus.resources`")]]
    if stage == "synthesize":
        settings = config.synthesize
        each = bundle(settings.resources, 0 if settings.endpoint else settings.tensor_parallel)
        return [[Demand("engine", settings.fewest_engines, each, "`synthesize.engines` or `synthesize.resources`")]]
    if stage == "train":
        tokenizing = Demand("tokenizing actor", 1, {"CPU": TOKENIZING_CPUS}, "")
        workers = bundle(config.train.resources, 1)
        return [[tokenizing], [Demand("training worker", config.train.workers, workers, "`train.workers` or `train.resources`")]]
    if stage == "export":
        return [[Demand("merging task", 1, bundle(config.export.resources), "`export.resources`")]]
    each = bundle(config.evaluate.resources, config.synthesize.tensor_parallel)
    return [[Demand("engine", config.synthesize.fewest_engines, each, "`synthesize.engines` or `evaluate.resources`")]]


def require(config: Config, stages: Sequence[str]) -> None:
    """Refuse what the cluster can never hold; tell of what must wait for others, or for nodes to come.

    Raises:
        DeepredError: no node is as large as a unit of some stage, or all nodes together have room for too few.
    """
    nodes = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    steps = [(stage, step) for stage in stages for step in demands(config, stage)]
    for stage, step in steps:
        if fits(step, nodes):
            continue
        if fits(step, nodes + nodes_to_come(sum(demand.count for demand in step))):
            say(f"  [yellow]{stage} waits for nodes[/yellow]: it wants {listed(step)}, which the autoscaler may bring")
            continue
        cure = f"Lower {step[-1].lower}, or add nodes" if step[-1].lower else "Add nodes"
        raise DeepredError(
            f"{stage} wants {listed(step)} at once, and the cluster has {shortage(step, nodes)}",
            f"{cure}; `ray status` shows what there is.",
        )
    free = free_resources()
    for stage, step in steps:
        if fits(step, nodes) and not fits(step, free):
            say(f"  [yellow]the cluster is busy[/yellow]: {stage} waits for {listed(step)}; `ray status` shows who has it")
            return


def fits(step: Iterable[Demand], nodes: Sequence[Bundle]) -> bool:
    """Whether all units find room, put one by one on the first node that has it (first fit, the largest first). That is exact for
    units of one size."""
    units = [demand.bundle for demand in step for _ in range(demand.count)]
    room = [{name: round(amount * PARTS) for name, amount in node.items()} for node in nodes]
    for unit in sorted(units, key=lambda unit: sorted(unit.items()), reverse=True):
        wanted = {name: round(amount * PARTS) for name, amount in unit.items()}
        node = next((node for node in room if all(node.get(name, 0) >= amount for name, amount in wanted.items())), None)
        if node is None:
            return False
        for name, amount in wanted.items():
            node[name] -= amount
    return True


def shortage(step: Sequence[Demand], nodes: Sequence[Bundle]) -> str:
    """What is missing, in words: what no node has enough of, or how many units there is room for."""
    for demand in step:
        if not fits([Demand(demand.what, 1, demand.bundle, "")], nodes):
            largest = {name: max((node.get(name, 0) for node in nodes), default=0) for name in demand.bundle}
            short = {name: amount for name, amount in largest.items() if amount < demand.bundle[name]}
            if short:
                return f"no node with more than {amounts(short)}"
            return f"no node with {amounts(demand.bundle)} together"
    last = step[-1]
    room = 0
    while room < last.count and fits([*step[:-1], Demand(last.what, room + 1, last.bundle, "")], nodes):
        room += 1
    return f"room for {room}" + (f" beside {listed(step[:-1])}" if len(step) > 1 else "")


def nodes_to_come(units: int) -> list[Bundle]:
    """What an autoscaler can add, where there is one: up to `units` nodes of each kind."""
    config = ray._private.state.state.get_cluster_config()
    return [
        dict(group.resources)
        for group in (config.node_group_configs if config else ())
        for _ in range(units if group.max_count < 0 else min(units, group.max_count - group.min_count))
    ]


def free_resources() -> list[Bundle]:
    """What nobody holds now, by node."""
    return [dict(node) for node in ray._private.state.available_resources_per_node().values()]


def listed(step: Iterable[Demand]) -> str:
    return " and ".join(map(str, step))


def amounts(bundle: Bundle) -> str:
    """Amounts for a reader: 1 CPU, 2 GPU, 3.5 GiB of memory."""
    words = [f"{amount / GIB:.3g} GiB of memory" if name == "memory" else f"{amount:g} {name}" for name, amount in bundle.items()]
    return ", ".join(words) or "nothing"
