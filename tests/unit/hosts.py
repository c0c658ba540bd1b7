"""A server on loopback whose every answer is laid down, faults included."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deepred_ray.download import Downloader

BOOK = b"The Red Star\r\n\r\nChapter I."
CAPTCHA = b"\n<!DOCTYPE html><html><title>Are you a person?</title></html>"


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = BOOK
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None  # claimed; more than the body means that the connection breaks
    chunked: bool = False  # sent as one chunk, and broken off before the last if a `length` is claimed
    open_ended: bool = False  # no length at all: the body ends with the connection


@dataclass
class Mirror:
    """Answers by path; the last one of a path is repeated, and a path without any gives 404."""

    base: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, float, dict[str, str]]] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]

    def take(self, path: str) -> Answer:
        waiting = self.answers.get(path, [Answer(404, b"none")])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


@contextlib.contextmanager
def serve() -> Iterator[Mirror]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.requests.append((self.path, time.monotonic(), dict(self.headers)))
            answer = served.take(self.path)
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            if answer.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif not answer.open_ended:
                self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
            self.end_headers()
            if answer.chunked:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(answer.body), answer.body))
                self.wfile.write(b"" if answer.length else b"0\r\n\r\n")
            else:
                self.wfile.write(answer.body)
            self.close_connection = answer.length is not None or answer.open_ended

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Mirror(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def downloader(base: str, **changes: Any) -> Downloader:
    settings: dict[str, Any] = {"delay": 0.0, "contact": "", "retries": 3, "timeout": 5.0}
    return Downloader(base, **(settings | changes))
