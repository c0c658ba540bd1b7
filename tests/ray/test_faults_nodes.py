"""A node that is lost in the middle of a stage, and an object store that is full with no disk to spill to."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Configure, make_config
from driving import driving, wait_until
from faults import SMALL, Disk, Whole, add_books, begin_before, outcome, same, some_nightly
from mirrors import FaultyMirror, many_books, plant, sample_book
from ray.cluster_utils import Cluster

from deepred_ray.config import Config
from deepred_ray.runs import Run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
STORE_BYTES = 80 * 2**20
PLACE = {"cpus": 1, "custom": {"place": 1}}  # only the node that will be lost has room for it, and later its successor


@pytest.fixture(scope="module")
def cluster(local_ray: str) -> Iterator[Cluster]:
    """A head, where the drivers are; made after the Ray of this process, which settles what address and token all nodes have."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": STORE_BYTES})
    yield cluster
    cluster.shutdown()


def add_place(cluster: Cluster) -> Any:
    node = cluster.add_node(num_cpus=2, resources={"place": 2}, object_store_memory=STORE_BYTES)
    cluster.wait_for_nodes()
    return node


def lose_node(
    cluster: Cluster, config: Config, stage: str, folder: Path, at_work: Callable[[], object], then: Callable[[], None]
) -> str:
    """Run a stage whose work is all on one node, lose that node `at_work`, and bring another; what the driver said, and in the last
    line how it ended. `then` lifts what held the stage."""
    node = add_place(cluster)
    log = folder / "driver.log"
    try:
        with driving(cluster.address, config, folder, stage) as driver:
            wait_until(at_work, driver, log)
            assert Run(config.root, config.run).manifest(stage) is None
            cluster.remove_node(node, allow_graceful=False)
            node = add_place(cluster)
            then()
            status = driver.wait(240)
        return f"{log.read_text()}\nexit status {status}"
    finally:
        cluster.remove_node(node, allow_graceful=False)


@pytest.mark.nightly
def test_books_that_a_lost_node_was_reading_are_read_elsewhere(cluster: Cluster, configure: Configure, tmp_path: Path) -> None:
    ids = many_books(tmp_path / "mirror", 14)
    with FaultyMirror(tmp_path / "mirror", limit=9, then="hold") as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": ids, "resources": PLACE})
        said = lose_node(cluster, config, "acquire", tmp_path, lambda: len(mirror.served) == 9, mirror.lift)
        assert said.endswith("exit status 0"), said
        asked = mirror.books_asked()
    run = Run(config.root, config.run)
    assert outcome(run, "acquire")["books"] == [str(book_id) for book_id in ids]
    assert len(asked) == len(set(asked)) == 14  # what had been fetched was not fetched again


@pytest.mark.nightly
def test_books_that_a_lost_node_was_cutting_are_cut_elsewhere(
    cluster: Cluster, configure: Configure, sample_run: Run, tmp_path: Path
) -> None:
    add_books(sample_run, 80)
    whole = begin_before(sample_run, tmp_path / "whole", "corpus")
    config = configure(corpus={"resources": PLACE})
    (sample_run.folder / "corpus" / "manifest.json").delete()
    chunks = sample_run.table("chunks")
    said = lose_node(cluster, config, "corpus", tmp_path, lambda: len(chunks.files(".parquet")) > 8, lambda: None)
    assert said.endswith("exit status 0"), said
    with driving(cluster.address, make_config(tmp_path / "whole"), tmp_path, "corpus") as driver:
        assert driver.wait(120) == 0
    assert same(sample_run, whole, "corpus")


@pytest.mark.nightly
@pytest.mark.parametrize("stage", ["train", "export", "evaluate"])
def test_a_lost_node_costs_its_own_work_at_most(cluster: Cluster, whole: Whole, stage: str, tmp_path: Path) -> None:
    undisturbed = whole.until(stage)
    run = begin_before(undisturbed, tmp_path / "runs", stage)
    config = make_config(
        tmp_path / "runs",
        model=whole.config.model,
        **{name: section | ({"resources": PLACE} if name == stage else {}) for name, section in ({"export": {}} | SMALL).items()},
    )
    at_work: dict[str, Callable[[], object]] = {
        "train": lambda: list(run.scratch.glob("checkpoints/checkpoint_*")),
        "export": lambda: list(run.scratch.glob(".merged.draft")),
        "evaluate": lambda: run.table("answers").files(".parquet"),
    }
    hold = Path(whole.config.model) / "hold"  # of the evaluation's engine
    hold.touch()
    try:
        said = lose_node(cluster, config, stage, tmp_path, at_work[stage], hold.unlink)
    finally:
        hold.unlink(missing_ok=True)
    print(said)
    assert "Traceback" not in said
    if not said.endswith("exit status 0"):
        assert "was lost" in said
        assert "The same command goes on" in said
        assert run.manifest(stage) is None
        node = add_place(cluster)
        with driving(cluster.address, config, tmp_path, stage) as driver:
            assert driver.wait(240) == 0, (tmp_path / "driver.log").read_text()
        cluster.remove_node(node, allow_graceful=False)
    assert same(run, undisturbed, stage)


# --- a full object store

CONNECT = """
import sys, time
import ray
from deepred_ray.cluster import connect
from deepred_ray.config import RayConfig
connect(RayConfig(address=sys.argv[1]))
"""
BALLAST = f"""{CONNECT}
held, size = [], 8 * 2**20
while size > 2**16:
    try:
        held.append(ray.put(bytes(size)))
    except ray.exceptions.RayError:
        size //= 2
print("full", flush=True)
time.sleep(600)
"""
ROOM = f"""{CONNECT}
while True:
    try:
        ray.put(bytes({STORE_BYTES // 2}))
        break
    except ray.exceptions.RayError:
        time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def cramped(local_ray: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Ray whose object store spills to a disk of 2 MiB."""
    disk = Disk(tmp_path_factory.mktemp("spill"))
    disk.fill(2 * 2**20)
    arguments = {"num_cpus": 2, "object_store_memory": STORE_BYTES, "object_spilling_directory": str(disk.folder)}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    yield cluster.address
    cluster.shutdown()
    disk.remove()


@pytest.fixture
def full_store(cramped: str) -> Iterator["subprocess.Popen[str]"]:
    """A driver that fills the object store of that Ray for as long as it lives."""
    ballast = subprocess.Popen([sys.executable, "-c", BALLAST, cramped], stdout=subprocess.PIPE, text=True)
    assert ballast.stdout
    assert any(line == "full\n" for line in ballast.stdout)  # Ray has its word, too
    yield ballast
    ballast.kill()
    ballast.wait()


def runs_into_a_full_store(address: str, ballast: "subprocess.Popen[str]", config: Config, stage: str, folder: Path) -> str:
    """What a stage says that meets a full object store; "" if it needs no room there. Then there is room, and it goes on."""
    log = folder / "driver.log"
    with driving(address, config, folder, stage) as driver:
        status = driver.wait(240)
        said = log.read_text()
    assert "Traceback" not in said
    ballast.kill()
    ballast.wait()
    # Ray takes its time to notice that the owner of the ballast is gone.
    subprocess.run([sys.executable, "-c", ROOM, address], check=True, timeout=120, capture_output=True)
    if status:
        assert Run(config.root, config.run).manifest(stage) is None
        with driving(address, config, folder, stage) as driver:
            assert driver.wait(240) == 0, log.read_text()
    return said if status else ""


@pytest.mark.nightly
def test_books_wait_for_room_in_the_object_store(
    cramped: str, full_store: "subprocess.Popen[str]", configure: Configure, tmp_path: Path
) -> None:
    ids = list(range(910001, 910007))
    for book_id in ids:
        chapter = sample_book(book_id).split(b"CHAPTER")[3]
        plant(tmp_path / "mirror", book_id, sample_book(book_id).replace(chapter, chapter * 200))
    with FaultyMirror(tmp_path / "mirror") as mirror:
        config = configure(acquire={"mirror": mirror.base, "ids": ids, "retries": 0})
        said = runs_into_a_full_store(cramped, full_store, config, "acquire", tmp_path)
    print(said)
    assert "Ray's object store is full, and so is the disk that it spills to: Local disk is full" in said
    assert outcome(Run(config.root, config.run), "acquire")["books"] == [str(book_id) for book_id in ids]


@pytest.mark.parametrize("stage", some_nightly(["corpus", "synthesize", "train", "export", "evaluate"], always=["corpus"]))
def test_a_full_object_store_stops_a_stage_in_order_or_not_at_all(
    cramped: str,
    full_store: "subprocess.Popen[str]",
    small: Config,
    whole: Whole,
    stage: str,
    tmp_path: Path,
) -> None:
    undisturbed = whole.until(stage)
    run = begin_before(undisturbed, tmp_path / "runs", stage)
    said = runs_into_a_full_store(cramped, full_store, small, stage, tmp_path)
    print(said)
    if said:
        assert "Ray's object store is full, and so is the disk that it spills to" in said
    assert same(run, undisturbed, stage)
