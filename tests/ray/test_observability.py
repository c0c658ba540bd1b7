"""What a run tells of itself to Prometheus and in its event log, against its manifests, on a real Ray head."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from conftest import make_config
from driving import DRIVER, TAKES_S
from prometheus_client.parser import text_string_to_metric_families
from scripted import write_model
from test_jobs import RAY, end, environment, free_ports, wait_until_ready

from deepred_ray import metrics
from deepred_ray.config import Config
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import CANDIDATES, CHUNKS, SLOTS
from deepred_ray.stages import synthesize
from deepred_ray.theme import Theme

pytestmark = pytest.mark.ray
SHOWN_WITHIN_S = 15  # after a driver has ended; Ray itself keeps its gauges for 20
MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
RAYS_LABELS = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}


@dataclass(frozen=True)
class Head:
    """A Ray head: where drivers connect, where Prometheus would ask, and the folder with Ray's list of such places."""

    address: str
    metrics: str
    folder: Path


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    temporary = tempfile.mkdtemp(prefix="dr", dir="/tmp")  # socket paths must be short
    gcs, dashboard, agent, scraped, client = free_ports(5)
    command = [RAY, "start", "--head", "--block", f"--port={gcs}", "--num-cpus=2", "--node-ip-address=127.0.0.1"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--metrics-export-port={scraped}", f"--ray-client-server-port={client}", f"--temp-dir={temporary}"]
    command += ["--object-store-memory=200000000", "--disable-usage-stats"]
    log = Path(temporary, "start.log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment(), stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{dashboard}", log)
        yield Head(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{scraped}/metrics", Path(temporary))
    finally:
        end(process)
        shutil.rmtree(temporary, ignore_errors=True)


def drive(head: Head, config: Config, stage: str) -> Manifest:
    """The manifest of a stage that a driver of its own brought about."""
    run = Run(config.root, config.run)
    settings = config.model_dump(mode="json") | {"ray": {"address": head.address}}
    (run.folder / "config.json").write_json(settings)
    command = [sys.executable, str(DRIVER), stage, "--run", config.run, "--data-root", config.root]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TAKES_S)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = run.manifest(stage)
    assert manifest is not None
    return manifest


class Scraped:
    """What the head's endpoint says of our metrics, and which of Ray's own it has."""

    def __init__(self, head: Head) -> None:
        text = requests.get(head.metrics, timeout=10).text
        every = list(text_string_to_metric_families(text))
        families = [family for family in every if family.name.startswith("ray_deepred_")]
        self.rays = {sample.name for family in every if family not in families for sample in family.samples}
        self.help = {family.name.removeprefix("ray_"): family.documentation for family in families}
        self.samples = [sample for family in families for sample in family.samples]

    def of(self, name: str, label: str, **wanted: str) -> Counter[str]:
        """The samples of a metric by one of its labels, summed over the others."""
        found: Counter[str] = Counter()
        for sample in self.samples:
            if sample.name == name and wanted.items() <= sample.labels.items():
                found[sample.labels[label]] += int(sample.value)
        return found


def scrape_until_whole(head: Head, stage: str, drivers: int = 1) -> tuple[Scraped, str]:
    """What the endpoint says once the last of so many drivers has told that the stage is whole; that driver's WorkerId."""
    deadline = time.monotonic() + SHOWN_WITHIN_S
    while True:
        scraped = Scraped(head)
        workers = sorted(scraped.of("ray_deepred_rows_total", "WorkerId", stage=stage))
        if len(workers) == drivers:
            state = scraped.of("ray_deepred_stage_state", "stage", stage=stage, WorkerId=workers[-1])
            if state == {stage: metrics.WHOLE}:
                return scraped, workers[-1]
        assert time.monotonic() < deadline, f"{workers} of {stage} and no whole stage among {scraped.samples}"
        time.sleep(0.5)


@contextlib.contextmanager
def showing_once(head: Head) -> Iterator[None]:
    """A driver that sets a gauge, of a run `still`, when it begins, and lives as long as the block."""
    code = (
        "import sys; from deepred_ray import cluster, config, logs, metrics; logs.enter('train', 'still');"
        f"cluster.connect(config.RayConfig(address='{head.address}')); metrics.show('deepred_train_step', 7); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=environment(), stdin=subprocess.PIPE) as driver:
        try:
            yield
        finally:
            driver.kill()


def by_reason(manifest: Manifest) -> dict[str, int]:
    return {"kept": manifest.kept, **manifest.rejected}


def events(run: Run, stage: str) -> list[list[dict[str, Any]]]:
    """The events of each command of a stage, in order."""
    files = sorted((run.scratch / "logs").glob(f"*-{stage}.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def poison(run: Run, config: Config, model: Path) -> None:
    """Let the engine die of one slot's passage."""
    synthesize.plan(run, config, Theme.find(config.theme))
    slots = run.table("slots").read_table(SLOTS).to_pylist()
    chunk = next(slot["chunk_id"] for slot in slots if slot["component"] == "chess")
    texts = run.table("chunks").read_table(CHUNKS, ["chunk_id", "text"]).to_pylist()
    (model / "poison").write_text(next(row["text"] for row in texts if row["chunk_id"] == chunk))


def test_prometheus_and_the_event_log_tell_what_the_manifests_say(head: Head, sample_run: Run, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    filling = {"examples": 48, "least_filled": 0.9, "contract": "json"}
    config = make_config(tmp_path / "runs", model=str(model), synthesize=filling)
    run = sample_run
    run.discard_from("corpus")

    # What a stage has made, as counters and as the ledger, is what its manifest says.
    manifest = drive(head, config, "corpus")
    scraped, _ = scrape_until_whole(head, "corpus")
    assert manifest.rejected
    assert scraped.of("ray_deepred_ledger_rows", "reason", stage="corpus") == by_reason(manifest)
    assert scraped.of("ray_deepred_rows_total", "reason", stage="corpus") == by_reason(manifest)
    assert scraped.of("ray_deepred_done", "step", stage="corpus") == {"corpus": 6, "twins": 6}
    assert scraped.of("ray_deepred_wanted", "step", stage="corpus") == {"corpus": 6, "twins": 6}

    poison(run, config, model)
    with showing_once(head):
        drive(head, config, "synthesize")
        (first,) = events(run, "synthesize")
        (model / "poison").unlink()
        more = make_config(tmp_path / "runs", model=str(model), synthesize=filling | {"examples": 60})
        manifest = drive(head, more, "synthesize")
        # Ray drops a gauge that nobody sets for 20 seconds.
        assert Scraped(head).of("ray_deepred_train_step", "run", stage="train") == {"still": 7}

    # Two drivers made the rows: the counters of both add up, and the ledger is of the whole run.
    scraped, second = scrape_until_whole(head, "synthesize", drivers=2)
    assert scraped.of("ray_deepred_rows_total", "stage", stage="synthesize") == {"synthesize": manifest.rows_in}
    assert scraped.of("ray_deepred_ledger_rows", "reason", stage="synthesize", WorkerId=second) == by_reason(manifest)
    tokens = run.table("candidates").read_table(CANDIDATES, ["tokens"])["tokens"].to_pylist()
    assert scraped.of("ray_deepred_tokens_total", "run") == {"test": sum(tokens)}

    # Every name, text and label is one that is documented.
    assert all(scraped.help[name] == metrics.MEASURES[name].text for name in scraped.help)
    for sample in scraped.samples:
        measure = metrics.MEASURES[sample.name.removeprefix("ray_").removesuffix("_total")]
        ours = {name for name in sample.labels if not name.startswith("otel_")} - RAYS_LABELS
        assert ours == {"run", "stage", *measure.tags}

    # Prometheus would find it in the list that its configuration names.
    (job,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    ((listed,),) = (discovery["files"] for discovery in job["file_sd_configs"])
    (ray,) = json.loads((head.folder / Path(listed).name).read_text())
    assert urlsplit(head.metrics).port in {int(target.rpartition(":")[2]) for target in ray["targets"]}

    # What the dashboard asks of Ray itself is there, but for GPUs.
    asked = set(re.findall(r"ray_\w+", (MONITORING / "grafana-dashboard.json").read_text()))
    wanted = {name for name in asked if not re.match(r"ray_(deepred|node_gpus|node_gram)", name)}
    assert wanted
    assert wanted <= scraped.rays

    # The engine's deaths, told by its own process.
    restarts = [event for event in first if event["event"] == "engine restarted"]
    assert restarts
    assert scraped.of("ray_deepred_engine_restarts_total", "stage") == {"synthesize": len(restarts)}
    assert {event["pid"] for event in restarts}.isdisjoint({first[0]["pid"]})
    assert {event["level"] for event in restarts} == {"warning"}

    # The event log has its beginning, its end and its counts, and each line says where it is from.
    ((begun, *_, ended),) = events(run, "corpus")
    assert (begun["event"], begun["command"], ended["event"]) == ("run started", "corpus", "run finished")
    _, last = events(run, "synthesize")
    finished = next(event for event in last if event["event"] == "stage finished")
    assert (finished["rows_in"], finished["kept"], finished["rejected"]) == (manifest.rows_in, manifest.kept, manifest.rejected)
    for event in first + last:
        assert event["run"] == "test"
        assert len(event["node"]) == 56
    assert {event["stage"] for event in last[1:]} == {"synthesize"}
