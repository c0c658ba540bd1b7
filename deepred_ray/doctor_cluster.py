"""The doctor's visit to a cluster: a task pinned to each node looks at it, then all nodes are compared.

The tasks ask for no CPU, so they also run on a head without any and on nodes that are busy.
"""

import hashlib
import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deepred_ray.checks import Check
from deepred_ray.doctor import installed, quick_checks, read_text
from deepred_ray.errors import DeepredError
from deepred_ray.storage import Folder

ANSWERS_S = 120.0
"""How long a node may take to start a worker and answer."""
ONE_CLONE = "Set up every machine from the same commit: git pull, then make setup, on each."


@dataclass(frozen=True)
class Facts:
    """What a node tells of itself."""

    checks: tuple[Check, ...]
    versions: dict[str, str]
    """Of Python, the packages that matter here, and our code, by its digest."""
    devices: int
    """Accelerators of the machine, whatever Ray counts."""


@dataclass(frozen=True)
class Silence:
    """Why a node gave no answer."""

    reason: str


def run_checks(models: Sequence[str], data_root: str) -> list[Check]:
    """Look at every node of the cluster that Ray is connected to.

    Args:
        models: Hugging Face ids or folders that each node should have.
        data_root: folder or URI of the runs, which all nodes should share.
    """
    nodes = {str(node["NodeID"]): node for node in ray.nodes() if node["Alive"]}
    names = name_nodes({node: str(entry["NodeName"]) for node, entry in nodes.items()})
    root = data_root if "://" in data_root else Folder.open(data_root).path
    facts: dict[str, Facts] = {}
    silent = []
    for node, answer in on_each(nodes, look_around, tuple(models), root).items():
        if isinstance(answer, Silence):
            cure = "See `ray status` and the node's logs; the node needs the same packages and deepred_ray (make setup)."
            silent.append(Check("node", False, f"{names[node]}: {answer.reason}", cure))
        else:
            facts[node] = answer
    return [
        Check("nodes", True, ", ".join(sorted(names.values()))),
        *silent,
        *compare_versions({names[node]: found.versions for node, found in facts.items()}),
        check_shared_root(root, {node: names[node] for node in facts}),
        check_counted({names[node]: (found.devices, nodes[node]["Resources"].get("GPU", 0)) for node, found in facts.items()}),
        *merge({names[node]: found.checks for node, found in facts.items()}),
    ]


def name_nodes(hosts: Mapping[str, str]) -> dict[str, str]:
    """A name for each node id: its host, and the start of its id where a host has several nodes."""
    shared = [host for host in hosts.values() if list(hosts.values()).count(host) > 1]
    return {node: f"{host}/{node[:6]}" if host in shared else host for node, host in hosts.items()}


def on_each(nodes: Mapping[str, Any], function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What a function returns on each node, by node id; a Silence from a node that cannot run it in time."""
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    pending = {
        node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(*arguments)
        for node in nodes
    }
    ray.wait(list(pending.values()), num_returns=len(pending), timeout=ANSWERS_S)
    answers: dict[str, Any] = {}
    for node, answer in pending.items():
        try:
            answers[node] = ray.get(answer, timeout=0)
        except GetTimeoutError:
            answers[node] = Silence(f"no answer within {ANSWERS_S:.0f} s")
        except RayError as error:
            answers[node] = Silence(str(error).strip().splitlines()[-1][:300])
    return answers


def look_around(models: tuple[str, ...], data_root: str) -> Facts:
    """Runs on the node."""
    versions = {"python": platform.python_version(), "deepred_ray": code_digest(Path(__file__).parent)} | installed()
    return Facts(tuple(quick_checks(models, data_root)), versions, count_devices())


def code_digest(package: Path) -> str:
    """Eight hex digits of all files of the package: two nodes with the same have the same code, lexicons and prompts."""
    digest = hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(package)}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:8]


def count_devices() -> int:
    """NVIDIA and AMD devices that the kernel offers to this machine or container."""
    nvidia = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    if not Path("/dev/kfd").exists():
        return len(nvidia)
    nodes = (read_text(str(path)) or "" for path in Path("/sys/class/kfd/kfd/topology/nodes").glob("*/gpu_id"))
    return len(nvidia) + sum(node.strip() not in ("", "0") for node in nodes)  # a CPU is a node with 0


def check_counted(counts: Mapping[str, tuple[int, float]]) -> Check:
    """`counts`: of each node the devices of the machine, and the GPUs that Ray gives out there."""
    unseen = sorted(f"{node} ({devices})" for node, (devices, counted) in counts.items() if devices and not counted)
    if unseen:
        cure = "Where it is not meant: --num-gpus=N in DEEPRED_RAY_ARGS of that node; on AMD also pip install amdsmi."
        return Check("accelerators", True, f"Ray counts none of those of {', '.join(unseen)}", cure)
    gpus = [counted for _, counted in counts.values() if counted]
    return Check("accelerators", True, f"Ray counts {sum(gpus):g}, on {len(gpus)} of {len(counts)} nodes")


def compare_versions(versions: Mapping[str, Mapping[str, str]]) -> list[Check]:
    """A line for each name whose version is not the same on all nodes, or one that says that all are.

    Args:
        versions: by node and name; torch and vLLM are builds for an accelerator, so a node may have another local version.
    """
    skewed = []
    for name in sorted({name for found in versions.values() for name in found}):
        nodes_of: dict[str, list[str]] = {}
        for node, found in versions.items():
            nodes_of.setdefault(found.get(name, "missing").partition("+")[0], []).append(node)
        if len(nodes_of) > 1:
            where = "; ".join(f"{version} on {', '.join(sorted(nodes))}" for version, nodes in sorted(nodes_of.items()))
            skewed.append(Check("version skew", False, f"{name}: {where}", ONE_CLONE))
    return skewed or [Check("same versions", True, f"Python, packages and code of {len(versions)} nodes")]


def check_shared_root(root: str, names: Mapping[str, str]) -> Check:
    """The data root is one folder for all nodes: each reads what the driver wrote there, and the driver what each wrote.

    Args:
        root: absolute path or URI.
        names: of the nodes, by id.
    """
    folder, token = Folder.open(root), f".deepred-doctor-{uuid.uuid4().hex}"
    try:
        (folder / token).write_bytes(token.encode())
        answers = on_each(names, sign, root, token)
        apart = [names[node] for node, answer in answers.items() if answer or not (folder / f"{token}-{node}").exists()]
        reasons = sorted({answer.reason if isinstance(answer, Silence) else answer for answer in answers.values() if answer})
    except DeepredError as error:
        return Check("data root", False, error.message, "Name with --data-root a folder or URI that the driver may write to.")
    finally:
        for name in (token, *(f"{token}-{node}" for node in names)):
            (folder / name).delete()
    if apart:
        cure = "Mount the same folder at this path on every node, or use an s3:// or gs:// URI."
        found = f"{root} is another one on {', '.join(sorted(apart))}" + "".join(f"; {reason}" for reason in reasons)
        return Check("data root", False, found, cure)
    return Check("data root", True, f"{root} is the same on {len(names)} nodes")


def sign(root: str, token: str) -> str:
    """Runs on the node: read the driver's token and leave a reply beside it. Returns what went wrong, empty if nothing did."""
    folder = Folder.open(root)
    if not (folder / token).exists():
        return "what the driver wrote is not there"
    if (folder / token).read_bytes() != token.encode():
        return "what the driver wrote reads otherwise"
    try:
        (folder / f"{token}-{ray.get_runtime_context().get_node_id()}").write_bytes(b"")
    except DeepredError as error:
        return error.message
    return ""


def merge(checks: Mapping[str, Sequence[Check]]) -> list[Check]:
    """The checks of all nodes, one line for those that found the same; it names its nodes unless they are all."""
    nodes_of: dict[Check, list[str]] = {}
    for node, found in checks.items():
        for check in found:
            nodes_of.setdefault(check, []).append(node)
    ranked = sorted(nodes_of, key=lambda check: check.name)
    return [Check(check.name, check.ok, f"{check.found} ({named(nodes_of[check], len(checks))})", check.cure) for check in ranked]


def named(nodes: Sequence[str], total: int) -> str:
    return f"all {total} nodes" if len(nodes) == total else ", ".join(sorted(nodes))
