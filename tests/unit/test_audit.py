"""The audit of the installed packages, against a service on loopback that speaks OSV's API."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

import audit

SCRIPT = Path(audit.__file__)


@contextmanager
def service(known: dict[str, str], status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """URL of a service that knows one advisory for each package of `known` (its id), and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(query)
            name = query["package"]["name"]
            found = {"vulns": [advisory(known[name], name)]} if name in known else {}
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def advisory(name: str, package: str) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "9999"}]
    affected = {"package": {"name": package, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": name, "summary": "It can be made to run code.", "details": "More.", "affected": [affected]}


def run(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, env=os.environ | {"OSV_URL": url})


def test_a_known_vulnerability_fails() -> None:
    with service({"pyarrow": "PYSEC-2999-1"}) as (url, asked):
        done = run(url)
    assert done.returncode == 1, done.stderr
    assert "pyarrow" in done.stdout
    assert "PYSEC-2999-1" in done.stdout
    looked_up = {query["package"]["name"]: query["version"] for query in asked}
    assert {"ray", "torch", "transformers"} <= looked_up.keys()
    assert audit.OWN not in looked_up
    assert "+" not in looked_up["torch"]
    # Asked of a process of its own: what tests import may bring packages of theirs onto the path.
    told = [sys.executable, "-c", "import audit; print(*audit.installed())"]
    installed = subprocess.run(told, cwd=SCRIPT.parent, capture_output=True, text=True, check=True).stdout.split()
    assert looked_up.keys() == {canonicalize_name(package.partition("==")[0]) for package in installed}


def test_nothing_known_passes() -> None:
    with service({}) as (url, asked):
        done = run(url)
    assert done.returncode == 0, done.stderr
    assert "No known vulnerabilities found" in done.stdout + done.stderr
    assert len(asked) > 50


def test_a_service_that_is_not_there_is_told_loudly_and_does_not_fail() -> None:
    with service({}, status=503) as (url, _):
        broken = run(url)
    gone = run(url)
    for done in (broken, gone):
        assert done.returncode == 0
        assert "NO AUDIT" in done.stderr
