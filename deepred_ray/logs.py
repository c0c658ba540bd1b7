"""What happens in a run, as JSON lines: <run>/logs/<time>-<command>.jsonl, beside the raw chatter of the libraries.

One object a line: `time`, `level`, `event`, `run`, `stage`, `node` (Ray's id; null outside Ray), `host`, `pid`, and what the event
has to tell. The driver and its workers append to one file; workers on another host to one of their own beside it, with the host in
its name, since appends from several hosts may overwrite each other on network storage.
"""

import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deepred_ray.errors import DeepredError

PLACE = "DEEPRED_EVENTS"
"""Environment variable that tells workers where to write: JSON with run, stem of the file and host of the driver."""
logger = logging.getLogger("deepred")
logger.setLevel(logging.INFO)
logger.propagate = False
logger.addHandler(logging.NullHandler())
_here: dict[str, str | None] = {"run": None, "stage": None}


def enter(stage: str | None, run: str | None = None) -> None:
    """Say which stage, and of which run, this process works on from now on."""
    _here["stage"] = stage
    _here["run"] = run or _here["run"] or told().get("run")


def here() -> dict[str, str]:
    """Run and stage that this process works on, "" for what it does not know."""
    return {name: value or "" for name, value in _here.items()}


def told() -> dict[str, str]:
    """What the driver told this worker; empty in a process that no driver started."""
    found: dict[str, str] = json.loads(os.environ.get(PLACE, "{}"))
    return found


def note(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write one event, where there is a file for it. Never raises for a file that cannot be written."""
    if (place := told()) and not any(isinstance(handler, EventFile) for handler in logger.handlers):
        same = place["host"] == socket.gethostname()
        logger.addHandler(EventFile(Path(place["stem"] + ("" if same else f".{socket.gethostname()}") + ".jsonl")))
        enter(_here["stage"])
    logger.log(level, event, extra={"fields": fields})


def failure(event: str, error: BaseException, **fields: Any) -> None:
    """Write what ended something: an error, with its cure where it is one of ours, or a wish to stop."""
    if isinstance(error, DeepredError):
        fields |= {"message": error.message, "cure": error.cure}
    elif isinstance(error, Exception):
        fields |= {"message": (str(error).strip().splitlines() or [""])[-1]}
    else:
        fields |= {"message": "told to stop"}
    level = logging.ERROR if isinstance(error, Exception) else logging.WARNING
    note(event, level, error=type(error).__name__, **fields)


@contextlib.contextmanager
def events_to(log: Path, run: str) -> Iterator[None]:
    """Write this driver's events, its workers' and Ray's own warnings beside `log`, while the block lasts."""
    stem = str(log.with_suffix(""))
    os.environ[PLACE] = json.dumps({"run": run, "stem": stem, "host": socket.gethostname()})
    file = EventFile(Path(stem + ".jsonl"))
    enter(None, run)
    # Ray Data and Ray Train let nothing up to "ray" once they are imported.
    loggers = logger, *map(logging.getLogger, ("ray", "ray.data", "ray.train"))
    for one in loggers:
        one.addHandler(file)
    try:
        yield
    finally:
        for one in loggers:
            one.removeHandler(file)
        os.environ.pop(PLACE, None)
        _here.update(run=None, stage=None)


def worker_env() -> dict[str, str]:
    """What a worker wants in its environment to write events."""
    return {PLACE: os.environ[PLACE]} if PLACE in os.environ else {}


class EventFile(logging.Handler):
    """Appends each record as a line, in one write, so that the lines of several processes stay whole. It holds no file open."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path = path
        self.last: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record is self.last:
            return  # a child's handler has told it
        self.last = record
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
            try:
                os.write(file, line(record).encode("utf-8", "replace"))
            finally:
                os.close(file)
        except OSError:
            self.handleError(record)


def line(record: logging.LogRecord) -> str:
    """A record of ours, or of another logger as event `log`, as one line of JSON."""
    ours = record.name == logger.name
    fields = vars(record)["fields"] if ours else {"logger": record.name, "message": record.getMessage()}
    common = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "event": record.msg if ours else "log",
        **_here,
        "node": node(),
        "host": socket.gethostname(),
        "pid": record.process,
    }
    return json.dumps(common | fields, ensure_ascii=False, default=str) + "\n"


def node() -> str | None:
    """Ray's id of the node that this process runs on; None outside Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    found: str = ray.get_runtime_context().get_node_id()
    return found
