"""The dashboard, the page and the event log say what the metrics and the code say."""

import json
import logging
import multiprocessing
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray import logs, metrics
from deepred_ray.errors import DeepredError, InputError

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "monitoring" / "grafana-dashboard.json").read_text())
TARGETS = [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
ADDED_BY_RAY = {"NodeAddress"}


def asked(query: str) -> list[tuple[str, set[str]]]:
    """Our metrics in a query, as Ray exports them, each with the labels that select its samples."""
    found = re.findall(r"ray_(deepred_\w+)(?:\{(.*?)\})?", query)
    return [(name, set(re.findall(r"(\w+)\s*[!=~]+", selectors))) for name, selectors in found]


def exported(name: str) -> str:
    return name + ("_total" if metrics.MEASURES[name].kind == "Counter" else "")


def labels(name: str) -> set[str]:
    measure = metrics.MEASURES[name.removesuffix("_total")]
    return {"run", "stage", *measure.tags} | ADDED_BY_RAY


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[title for title, _ in TARGETS])
def test_a_panel_asks_for_metrics_and_labels_that_exist(title: str, target: dict[str, Any]) -> None:
    query = target["expr"]
    ours = asked(query)
    assert {name for name, _ in ours} <= {exported(name) for name in metrics.MEASURES}
    for name, selectors in ours:
        # The variable at the top of the dashboard narrows every panel of ours.
        assert "run" in selectors
        assert selectors <= labels(name)
        kept = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
        assert kept <= labels(name)
        assert set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))) <= kept


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for _, target in TARGETS for name, _ in asked(target["expr"])}
    assert shown == {exported(name) for name in metrics.MEASURES}


def test_the_runs_to_choose_from_are_those_that_prometheus_has() -> None:
    (variable,) = (variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "run")
    name, label = re.fullmatch(r"label_values\(ray_(\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
    assert name in {exported(name) for name in metrics.MEASURES}
    assert label == "run"


def test_grafana_can_lay_the_panels_out() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {"${datasource}"}
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_the_page_lists_each_metric_with_its_kind_and_tags() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    rows = re.findall(r"^\| `ray_(deepred_\w+)` \| (\w+) \| (.*?) \|", page, re.MULTILINE)
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", tags))) for name, kind, tags in rows}
    assert listed == {exported(name): (measure.kind.lower(), measure.tags) for name, measure in metrics.MEASURES.items()}


def test_the_page_lists_each_event() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    (table,) = re.findall(r"^\| event \| fields \|\n(.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    listed = {event for row in table.splitlines()[1:] for event in re.findall(r"`([^`]+)`", row.split("|")[1])}
    sources = (path.read_text() for path in (ROOT / "deepred_ray").rglob("*.py"))
    written = {event for source in sources for event in re.findall(r"logs\.(?:note|failure)\(\"([^\"]+)\"", source)}
    assert listed == written | {"log"}


@given(st.lists(st.dictionaries(st.sampled_from(["", "other", "empty"]), st.integers(0, 9)), max_size=6))
def test_counters_grow_to_the_last_totals(grown: list[dict[str, int]]) -> None:
    counted: Counter[str] = Counter()
    total: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "count", lambda name, more, reason: counted.update({(name, reason): more}))
        growing = metrics.Growing()
        for more in grown:
            total.update(more)
            growing.rows(total)
    assert counted == Counter({("deepred_rows", reason or "kept"): rows for reason, rows in total.items()})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "20260101-000000-corpus.log"


@pytest.fixture
def as_worker() -> Iterator[pytest.MonkeyPatch]:
    """An environment to change, and the state of a process that has just begun."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch
    for handler in [handler for handler in logs.logger.handlers if isinstance(handler, logs.EventFile)]:
        logs.logger.removeHandler(handler)
    logs._here.update(run=None, stage=None)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_an_event_says_of_what_run_stage_and_node_it_is(log: Path) -> None:
    with logs.events_to(log, "mars"):
        logs.note("run started", command="corpus")
        logs.enter("corpus")
        logs.note("stage finished", logging.WARNING, rejected={"few_matches": 2})
        logging.getLogger("ray.data").warning("%d blocks spilled", 3)
    logs.note("after the end")

    first, second, third = lines(log.with_suffix(".jsonl"))
    assert list(first)[:8] == ["time", "level", "event", "run", "stage", "node", "host", "pid"]
    common = {"run": "mars", "node": None, "host": socket.gethostname(), "pid": os.getpid()}
    assert first.items() >= (common | {"level": "info", "event": "run started", "stage": None, "command": "corpus"}).items()
    assert second.items() >= (common | {"level": "warning", "event": "stage finished", "stage": "corpus"}).items()
    assert second["rejected"] == {"few_matches": 2}
    ray = {"event": "log", "stage": "corpus", "logger": "ray.data", "message": "3 blocks spilled"}
    assert third.items() >= (common | ray).items()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            InputError("no file x", "Make one."),
            {"level": "error", "error": "InputError", "message": "no file x", "cure": "Make one."},
        ),
        (ValueError("first\nlast"), {"level": "error", "error": "ValueError", "message": "last"}),
        (KeyboardInterrupt(), {"level": "warning", "error": "KeyboardInterrupt", "message": "told to stop"}),
    ],
)
def test_a_failure_has_its_message_and_cure(log: Path, error: BaseException, told: dict[str, str]) -> None:
    with logs.events_to(log, "mars"):
        logs.failure("stage failed", error)
    (event,) = lines(log.with_suffix(".jsonl"))
    assert event.items() >= told.items()
    assert ("cure" in event) == isinstance(error, DeepredError)


@pytest.mark.parametrize(("host", "file"), [(socket.gethostname(), "a.jsonl"), ("elsewhere", f"a.{socket.gethostname()}.jsonl")])
def test_a_worker_writes_beside_its_driver_or_on_another_host_to_its_own_file(
    as_worker: pytest.MonkeyPatch, tmp_path: Path, host: str, file: str
) -> None:
    as_worker.setenv(logs.PLACE, json.dumps({"run": "mars", "stem": str(tmp_path / "a"), "host": host}))
    logs.enter("synthesize")
    logs.note("rows written", rows=3)
    assert [path.name for path in tmp_path.iterdir()] == [file]
    (event,) = lines(tmp_path / file)
    assert (event["run"], event["stage"], event["rows"]) == ("mars", "synthesize", 3)


def test_no_event_is_written_where_no_driver_asked_for_it(as_worker: pytest.MonkeyPatch, tmp_path: Path) -> None:
    as_worker.chdir(tmp_path)
    as_worker.delenv(logs.PLACE, raising=False)
    logs.note("rows written", rows=3)
    assert list(tmp_path.iterdir()) == []


def write_many(log: Path, worker: int) -> None:
    file = logs.EventFile(log)
    for number in range(50):
        record = logging.LogRecord("deepred", logging.INFO, "", 0, "rows written", None, None)
        record.fields = {"worker": worker, "number": number, "text": "§" * 3000}
        file.emit(record)


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(log, worker)) for worker in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert Counter((line["worker"], line["number"]) for line in lines(log)) == Counter(
        (worker, number) for worker in range(4) for number in range(50)
    )


@given(st.text(), st.text())
def test_any_text_is_one_line(message: str, value: str) -> None:
    record = logging.LogRecord("ray", logging.INFO, "", 0, "%s", (message,), None)
    line = logs.line(record)
    assert line.count("\n") == 1
    assert json.loads(line)["message"] == message
    ours = logging.LogRecord("deepred", logging.INFO, "", 0, "x", None, None)
    ours.fields = {"value": value}
    assert json.loads(logs.line(ours))["value"] == value
