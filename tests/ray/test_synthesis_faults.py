"""synthesize under fire: engines and nodes that die, a prompt that kills, a full disk, an interrupt. Finished rows stay, and every
slot is filled once."""

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Configure
from driving import command, driving, wait_until
from ray.cluster_utils import Cluster
from scripted import ScriptedEngine, write_model

from deepred_ray.config import Config
from deepred_ray.runs import Run
from deepred_ray.schema import CANDIDATES, CHUNKS, EXAMPLES, REJECTS, SLOTS
from deepred_ray.stages import synthesize
from deepred_ray.theme import Theme

pytestmark = pytest.mark.ray
SLOTS_WANTED = 48


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def attempts(run: Run) -> list[tuple[str, int]]:
    rows = run.table("candidates").read_table(CANDIDATES, ["example_id", "attempt"]).to_pylist()
    return [(row["example_id"], row["attempt"]) for row in rows]


def check_filled(run: Run, count: int = SLOTS_WANTED) -> None:
    """Every planned slot has its one example, and no attempt was written twice."""
    slots = run.table("slots").read_table(SLOTS, ["example_id"])["example_id"].to_pylist()
    examples = run.table("examples").read_table(EXAMPLES, ["example_id"])["example_id"].to_pylist()
    assert examples == slots
    assert len(set(slots)) == len(slots) == count
    tried = attempts(run)
    assert len(tried) == len(set(tried))
    manifest = run.manifest("synthesize")
    assert manifest is not None
    assert (manifest.rows_in, manifest.kept) == (len(tried), count)


def engines(model: Path) -> dict[int, str]:
    """Process id -> node of the engines that were ever started."""
    return {int(file.name): file.read_text() for file in (model / "pids").glob("*")}


def test_a_killed_engine_actor_is_replaced(
    local_ray: str, configure: Configure, sample_run: Run, model: Path, tmp_path: Path
) -> None:
    config = configure(model=str(model), synthesize={"examples": SLOTS_WANTED})
    log = tmp_path / "driver.log"
    (model / "hold").touch()
    with driving(local_ray, config, tmp_path, "synthesize") as driver:
        wait_until(lambda: sample_run.table("candidates").files(".parquet"), driver, log)
        left = attempts(sample_run)
        (first,) = engines(model)
        os.kill(first, signal.SIGKILL)
        (model / "hold").unlink()
        assert driver.wait(120) == 0, log.read_text()
    assert len(engines(model)) == 2
    assert left
    assert set(left) <= set(attempts(sample_run))
    check_filled(sample_run)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that can take no engine, and no node that can."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
    yield cluster
    cluster.shutdown()


def test_a_node_that_is_lost_takes_no_row_with_it(
    local_ray: str, configure: Configure, sample_run: Run, model: Path, tmp_path: Path, cluster: Cluster
) -> None:
    one, two = (cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20) for _ in range(2))
    cluster.wait_for_nodes()
    config = configure(model=str(model), synthesize={"examples": SLOTS_WANTED, "engines": 2, "in_flight": 8})
    log = tmp_path / "driver.log"
    (model / "hold").touch()
    with driving(cluster.address, config, tmp_path, "synthesize") as driver:
        wait_until(lambda: len(set(engines(model).values())) == 2 and sample_run.table("candidates").files(".parquet"), driver, log)
        left = attempts(sample_run)
        used = set(engines(model).values())
        lost = next(node for node in (one, two) if node.node_id in used)
        cluster.remove_node(lost, allow_graceful=False)
        (model / "hold").unlink()
        assert driver.wait(170) == 0, log.read_text()
    assert set(left) <= set(attempts(sample_run))
    check_filled(sample_run)


@pytest.mark.usefixtures("local_ray")
def test_a_prompt_that_kills_the_engine_is_given_up_and_the_rest_goes_on(
    configure: Configure, sample_run: Run, model: Path
) -> None:
    # By the json contract, a request has the whole passage.
    config = configure(model=str(model), synthesize={"examples": SLOTS_WANTED, "least_filled": 0.9, "contract": "json"})
    theme = Theme.find(config.theme)
    synthesize.plan(sample_run, config, theme)
    slots = sample_run.table("slots").read_table(SLOTS).to_pylist()
    chunk = next(slot["chunk_id"] for slot in slots if slot["component"] == "chess")
    texts = {
        row["chunk_id"]: row["text"] for row in sample_run.table("chunks").read_table(CHUNKS, ["chunk_id", "text"]).to_pylist()
    }
    (model / "poison").write_text(texts[chunk])
    doomed = {slot["example_id"] for slot in slots if slot["chunk_id"] == chunk}
    assert 0 < len(doomed) < 0.1 * SLOTS_WANTED

    manifest = synthesize.run(sample_run, config, theme, make_engine=ScriptedEngine)
    manifest.check()
    assert (manifest.kept, manifest.outputs["unfilled"]) == (SLOTS_WANTED - len(doomed), len(doomed))
    rejects = sample_run.table("rejects/synthesize").read_table(REJECTS).to_pylist()
    assert {row["id"] for row in rejects if row["reason"] == "unfilled"} == doomed
    crashed = [row for row in sample_run.table("candidates").read_table(CANDIDATES).to_pylist() if row["reason"] == "engine_crash"]
    # One crash tells enough: another attempt at the slot would cost another start of the engine.
    assert Counter(row["example_id"] for row in crashed) == dict.fromkeys(doomed, 1)
    assert {row["detail"] for row in crashed} == {"RuntimeError: the engine died"}


def test_an_interrupt_keeps_what_is_finished(
    local_ray: str, configure: Configure, sample_run: Run, model: Path, tmp_path: Path
) -> None:
    config = configure(model=str(model), synthesize={"examples": SLOTS_WANTED})
    log = tmp_path / "driver.log"
    (model / "hold").touch()
    with driving(local_ray, config, tmp_path, "synthesize") as driver:
        wait_until(lambda: sample_run.table("candidates").files(".parquet"), driver, log)
        left = attempts(sample_run)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(60) == 130, log.read_text()
    assert "stopped: what is finished is kept, the same command goes on from there" in log.read_text()
    assert sample_run.manifest("synthesize") is None
    assert set(left) <= set(attempts(sample_run))
    (model / "hold").unlink()
    with driving(local_ray, config, tmp_path, "synthesize") as driver:
        assert driver.wait(120) == 0, log.read_text()
    assert set(left) <= set(attempts(sample_run))
    check_filled(sample_run)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("least", [None, 1])
def test_two_engines_share_the_slots(configure: Configure, sample_run: Run, model: Path, least: int | None) -> None:
    config: Config = configure(
        model=str(model), synthesize={"examples": SLOTS_WANTED, "engines": 2, "engines_least": least, "in_flight": 4}
    )
    manifest = synthesize.run(sample_run, config, Theme.find(config.theme), make_engine=ScriptedEngine)
    assert manifest.kept == SLOTS_WANTED
    assert len(engines(model)) >= (1 if least else 2)
    tried = attempts(sample_run)
    assert len(tried) == len(set(tried)) == manifest.rows_in


# --- a full disk

FILL = """
set -u
candidates=$1; shift
mkdir -p "$candidates"
mount -t tmpfs -o size=48k none "$candidates"
"$@"; echo "full: $?"
mount -o remount,size=64m "$candidates"
ls "$candidates" | grep -c parquet; echo
"$@"; echo "room: $?"
mkdir "$candidates.kept" && cp "$candidates"/*.parquet "$candidates.kept"
"""


def test_a_full_disk_stops_the_stage_and_loses_nothing(configure: Configure, sample_run: Run, model: Path) -> None:
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "--fork", "--kill-child"]
    if subprocess.run([*namespace, "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True).returncode:
        pytest.skip("this machine permits no mounts in a namespace of one's own (`unshare --user --mount`)")
    config = configure(model=str(model), synthesize={"examples": SLOTS_WANTED, "in_flight": 8})
    words = command(config, None, "synthesize")
    folder = f"{sample_run.folder.path}/candidates"
    script = [*namespace, "sh", "-c", FILL, "sh", folder, *words]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert "full: 1" in said, said
    assert "No space left on device" in said
    assert "room: 0" in said, said
    kept = Run(config.root, config.run)
    kept.table("candidates").delete()
    os.rename(f"{folder}.kept", folder)
    check_filled(kept)
