"""Downloads from a real server on loopback that is busy, broken, blocking or gone."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest

from deepred_ray import __version__, download
from deepred_ray.download import Downloader, backoff, retry_after
from deepred_ray.errors import MirrorError

BOOK = b"The Red Star\r\n\r\nChapter I."
CAPTCHA = b"\n<!DOCTYPE html><html><title>Are you a person?</title></html>"


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = BOOK
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None  # claimed; more than the body means that the connection breaks


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
            self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
            self.end_headers()
            self.wfile.write(answer.body)
            self.close_connection = answer.length is not None

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


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serve() as made:
        yield made


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "backoff", lambda attempt: 0.001)


def downloader(base: str, **changes: Any) -> Downloader:
    settings: dict[str, Any] = {"delay": 0.0, "contact": "", "retries": 3, "timeout": 5.0}
    return Downloader(base, **(settings | changes))


# --- what arrives


def test_a_file_arrives_as_it_lies(mirror: Mirror) -> None:
    mirror.answers["/files/1/1.txt"] = [Answer(body=bytes(range(256)))]
    fetched = downloader(mirror.base + "/").get("/files/1/1.txt")
    assert fetched == download.Fetched(f"{mirror.base}/files/1/1.txt", bytes(range(256)))
    assert mirror.paths == ["/robots.txt", "/files/1/1.txt"]


def test_we_say_who_we_are(mirror: Mirror) -> None:
    downloader(mirror.base, contact="ann@example.org").get("/x")
    downloader(mirror.base).get("/x")
    agents = [headers["User-Agent"] for _, _, headers in mirror.requests]
    assert agents == [f"deepred_ray/{__version__} (ann@example.org)"] * 2 + [f"deepred_ray/{__version__}"] * 2


def test_a_missing_file_is_none_and_not_asked_for_again(mirror: Mirror) -> None:
    assert downloader(mirror.base).get("/files/1/1.txt") is None
    assert mirror.paths == ["/robots.txt", "/files/1/1.txt"]


@pytest.mark.parametrize(
    "fault",
    [
        Answer(503, b"busy"),
        Answer(429, b"slowly"),
        Answer(500, b""),
        Answer(200, CAPTCHA),
        Answer(200, b"<HTML><body>Please wait"),
        Answer(200, BOOK[:5], length=len(BOOK)),
    ],
    ids=["busy", "too many", "error", "captcha", "page", "broken off"],
)
def test_a_passing_fault_is_tried_again(mirror: Mirror, fault: Answer) -> None:
    mirror.answers["/x"] = [fault, fault, Answer()]
    fetched = downloader(mirror.base).get("/x")
    assert fetched is not None
    assert fetched.body == BOOK
    assert mirror.paths == ["/robots.txt", "/x", "/x", "/x"]


@pytest.mark.parametrize(("fault", "said"), [(Answer(503), "HTTP 503"), (Answer(200, CAPTCHA), "an HTML page instead of the file")])
def test_a_lasting_fault_ends_after_the_retries(mirror: Mirror, fault: Answer, said: str) -> None:
    mirror.answers["/x"] = [fault]
    with pytest.raises(MirrorError) as caught:
        downloader(mirror.base, retries=2).get("/x")
    assert caught.value.message == f"mirror {mirror.base} gave no /x: {said}"
    assert "--mirror" in caught.value.cure
    assert mirror.paths.count("/x") == 3


def test_a_page_is_taken_where_a_page_is_wanted(mirror: Mirror) -> None:
    mirror.answers["/list.html"] = [Answer(body=CAPTCHA)]
    fetched = downloader(mirror.base).get("/list.html", page=True)
    assert fetched is not None
    assert fetched.body == CAPTCHA


def test_a_book_that_speaks_of_html_is_a_book(mirror: Mirror) -> None:
    mirror.answers["/x"] = [Answer(body=BOOK + CAPTCHA)]
    assert downloader(mirror.base).get("/x") is not None


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_not_argued_with(mirror: Mirror, status: int) -> None:
    mirror.answers["/x"] = [Answer(status)]
    with pytest.raises(MirrorError, match=f"refuses us \\(HTTP {status}\\)"):
        downloader(mirror.base).get("/x")
    assert mirror.paths.count("/x") == 1


def test_a_host_that_is_down_is_named_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        base = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MirrorError, match=f"mirror {base} gave no /x") as caught:
            downloader(base, retries=1000).get("/x")
    assert "what has arrived is kept" in caught.value.cure


def test_a_host_that_does_not_answer_is_given_up(mirror: Mirror) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(MirrorError, match="timed out"):
            downloader(base, retries=1, timeout=0.05).get("/x")


# --- manners


def gaps(mirror: Mirror) -> list[float]:
    """Seconds between the requests, as the server saw them come."""
    times = [at for _, at, _ in mirror.requests]
    return [later - earlier for earlier, later in pairwise(times)]


def test_the_delay_stands_between_all_requests(mirror: Mirror) -> None:
    mirror.answers |= {"/a": [Answer()], "/b": [Answer(503), Answer(200, CAPTCHA), Answer()]}
    started = time.monotonic()
    polite = downloader(mirror.base, delay=0.05)
    for path in ("/a", "/b", "/none", "/a"):
        polite.get(path)
    assert mirror.paths == ["/robots.txt", "/a", "/b", "/b", "/b", "/none", "/a"]
    assert min(gaps(mirror)) >= 0.05
    # Another downloader may just have asked the same host.
    assert mirror.requests[0][1] - started >= 0.05


def test_retry_after_is_obeyed(mirror: Mirror) -> None:
    mirror.answers["/x"] = [Answer(503, headers=(("Retry-After", "1"),)), Answer()]
    assert downloader(mirror.base).get("/x") is not None
    assert gaps(mirror)[-1] >= 1


def test_a_wait_has_an_end(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LONGEST_WAIT_S", 0.01)
    mirror.answers["/x"] = [Answer(503, headers=(("Retry-After", "86400"),)), Answer()]
    assert downloader(mirror.base).get("/x") is not None


def test_retry_after_is_seconds_or_nothing() -> None:
    assert retry_after("120") == 120
    assert [retry_after(header) for header in (None, "", "soon", "-1", "Fri, 31 Dec 1999 23:59:59 GMT")] == [None] * 5


def test_waits_grow_and_scatter() -> None:
    for attempt in range(8):
        waits = {backoff(attempt) for _ in range(20)}
        assert len(waits) > 1
        assert all(0.5 * 2**attempt <= wait <= 2**attempt for wait in waits)


@pytest.mark.parametrize("agent", ["*", "deepred_ray"])
def test_robots_txt_is_obeyed(mirror: Mirror, agent: str) -> None:
    mirror.answers |= {"/robots.txt": [Answer(body=f"User-agent: {agent}\nDisallow: /files/\n".encode())], "/cache/x": [Answer()]}
    made = downloader(mirror.base, contact="ann@example.org")
    with pytest.raises(MirrorError, match=r"robots\.txt.* forbids /files/1"):
        made.get("/files/1")
    assert made.get("/cache/x") is not None
    assert mirror.paths == ["/robots.txt", "/cache/x"]


def test_robots_txt_for_others_or_none_at_all_forbids_nothing(mirror: Mirror) -> None:
    mirror.answers |= {"/robots.txt": [Answer(body=b"User-agent: other\nDisallow: /\n")], "/x": [Answer()]}
    assert downloader(mirror.base).get("/x") is not None
    mirror.answers["/robots.txt"] = [Answer(500)]
    assert downloader(mirror.base).get("/x") is not None


def test_a_mirror_in_a_folder_has_its_robots_txt_at_the_root_of_the_host(mirror: Mirror) -> None:
    mirror.answers |= {
        "/robots.txt": [Answer(body=b"User-agent: *\nDisallow: /pub/gutenberg/files/\n")],
        "/pub/gutenberg/cache/x": [Answer()],
    }
    made = downloader(f"{mirror.base}/pub/gutenberg")
    assert made.get("/cache/x") is not None
    with pytest.raises(MirrorError, match="forbids /files/1"):
        made.get("/files/1")
    assert mirror.paths == ["/robots.txt", "/pub/gutenberg/cache/x"]


# --- hosts


@pytest.mark.parametrize("base", ["https://www.gutenberg.org", "http://gutenberg.org/", "https://WWW.Gutenberg.org:443/files"])
def test_the_site_for_people_is_refused(base: str) -> None:
    with pytest.raises(MirrorError, match="meant for people") as caught:
        downloader(base)
    assert "MIRRORS" in caught.value.cure


@pytest.mark.parametrize("base", ["", "sample.txt", "ftp://host/x", "/local/folder", "gutenberg.pglaf.org"])
def test_what_is_no_web_address_is_refused(base: str) -> None:
    with pytest.raises(MirrorError, match="is not an http or https URL"):
        downloader(base)


def test_redirects_are_followed_but_not_to_a_site_for_people(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    people = mirror.base.replace("127.0.0.1", "localhost")
    mirror.answers |= {
        "/near": [Answer(302, b"", (("Location", "/x"),))],
        "/far": [Answer(302, b"", (("Location", f"{people}/x"),))],
        "/x": [Answer()],
    }
    monkeypatch.setattr(download, "FORBIDDEN_HOSTS", ("localhost",))
    made = downloader(mirror.base)
    assert made.get("/near") is not None
    with pytest.raises(MirrorError, match="meant for people"):
        made.get("/far")
    assert mirror.paths == ["/robots.txt", "/near", "/x", "/far"]
