"""Downloads from a real server on loopback that is busy, broken, blocking or gone."""

import gzip
import pickle
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from hosts import BOOK, CAPTCHA, Answer, Mirror, downloader, serve
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray import __version__, download
from deepred_ray.download import Fetched, backoff, is_loopback, retry_after
from deepred_ray.errors import BadBodyError, BusyError, MirrorError
from deepred_ray.text.reject import Reject


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serve() as made:
        yield made


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "backoff", lambda attempt: 0.001)


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
        Answer(200, BOOK[:5], length=len(BOOK), chunked=True),
        Answer(200, gzip.compress(BOOK)[:-9], (("Content-Encoding", "gzip"),), length=99),
        Answer(200, BOOK, (("Content-Encoding", "gzip"),)),
        Answer(304, b""),
    ],
    ids=["busy", "too many", "error", "captcha", "page", "broken off", "chunk missing", "zip broken off", "no zip", "304 unasked"],
)
def test_a_passing_fault_is_tried_again(mirror: Mirror, fault: Answer) -> None:
    mirror.answers["/x"] = [fault, fault, Answer()]
    fetched = downloader(mirror.base).get("/x")
    assert fetched is not None
    assert fetched.body == BOOK
    assert mirror.paths == ["/robots.txt", "/x", "/x", "/x"]


@pytest.mark.parametrize(
    "whole",
    [
        Answer(chunked=True),
        Answer(open_ended=True),
        Answer(200, gzip.compress(BOOK), (("Content-Encoding", "gzip"),)),
    ],
    ids=["chunked", "open", "zipped"],
)
def test_a_body_may_come_in_any_wrapping(mirror: Mirror, whole: Answer) -> None:
    mirror.answers["/x"] = [whole]
    assert downloader(mirror.base).get("/x") == Fetched(f"{mirror.base}/x", BOOK)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Answer(503), "HTTP 503"),
        (Answer(200, CAPTCHA), "a web page instead of the file ('<!DOCTYPE html><html><title>Are you a person?</title></html')"),
        (Answer(200, BOOK[:5], length=26), "broke off after 5 bytes (ProtocolError)"),
    ],
)
def test_a_lasting_fault_ends_after_the_retries(mirror: Mirror, fault: Answer, said: str) -> None:
    mirror.answers["/x"] = [fault]
    with pytest.raises(MirrorError) as caught:
        downloader(mirror.base, retries=2).get("/x")
    assert caught.value.message == f"mirror {mirror.base} gave no /x: {said}"
    assert "--mirror" in caught.value.cure
    assert mirror.paths.count("/x") == 3


@pytest.mark.parametrize(
    ("fault", "reason"), [(Answer(200, CAPTCHA), "html_page"), (Answer(200, BOOK[:5], length=26), "cut_short"), (Answer(), "odd")]
)
def test_what_came_instead_of_the_file_is_handed_on(mirror: Mirror, fault: Answer, reason: str) -> None:
    mirror.answers["/x"] = [fault]
    odd = None if reason != "odd" else lambda body: Reject("odd", f"{len(body)} bytes")
    with pytest.raises(BadBodyError) as caught:
        downloader(mirror.base, retries=0).get("/x", fault=odd)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (copied.reason, copied.body, copied.message) == (reason, fault.body, caught.value.message)


def test_a_wrong_body_is_asked_for_again(mirror: Mirror) -> None:
    mirror.answers["/x"] = [Answer(body=b"another book"), Answer()]
    fetched = downloader(mirror.base).get("/x", fault=lambda body: None if body == BOOK else Reject("wrong_book"))
    assert fetched == Fetched(f"{mirror.base}/x", BOOK)


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
        with pytest.raises(MirrorError, match=f"mirror {base} gave no /robots.txt: Connection refused") as caught:
            downloader(base, retries=1000).get("/x")
    assert "what has arrived is kept" in caught.value.cure


def test_a_host_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(MirrorError, match="timed out"):
            downloader(base, retries=1000, timeout=0.05).get("/x")


@pytest.mark.parametrize(("limit", "value"), [("LONGEST_BODY_S", 0.0), ("LARGEST_BODY", 10)])
def test_a_body_without_end_is_given_up(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, limit: str, value: float) -> None:
    mirror.answers["/x"] = [Answer()]
    made = downloader(mirror.base, retries=0)
    monkeypatch.setattr(download, limit, value)
    with pytest.raises(MirrorError, match=f"no end after {len(BOOK)} bytes"):
        made.get("/x")


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


def date_in(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("asked", ["1", date_in(1e6)], ids=["seconds", "date"])
def test_retry_after_is_obeyed_even_after_the_last_try(mirror: Mirror, asked: str) -> None:
    answer = Answer(503, headers=(("Retry-After", asked if asked == "1" else date_in(2)),))
    mirror.answers["/x"] = [answer]
    made = downloader(mirror.base, retries=0)
    with pytest.raises(MirrorError, match="HTTP 503"):
        made.get("/x")
    assert made.get("/other") is None
    assert gaps(mirror)[-1] >= 0.9


def test_no_wait_at_all_is_obeyed_too(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "backoff", lambda attempt: pytest.fail("the host asked for no wait"))
    mirror.answers["/x"] = [Answer(503, headers=(("Retry-After", "0"),)), Answer()]
    assert downloader(mirror.base).get("/x") is not None


@pytest.mark.parametrize("status", [429, 503])
def test_a_host_that_asks_for_hours_is_left_alone(mirror: Mirror, status: int) -> None:
    mirror.answers["/x"] = [Answer(status, headers=(("Retry-After", "86400"),)), Answer()]
    tomorrow = datetime.now().astimezone() + timedelta(days=1)
    with pytest.raises(BusyError, match=f"86400 s, until {tomorrow:%Y-%m-%d %H:}") as caught:
        downloader(mirror.base).get("/x")
    assert "Repeat the command then" in caught.value.cure
    assert mirror.paths.count("/x") == 1


NOON = {"Date": "Fri, 31 Dec 1999 12:00:00 GMT"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": " 0 "}, 0),
        (NOON | {"Retry-After": "Fri, 31 Dec 1999 12:01:30 GMT"}, 90),
        (NOON | {"Retry-After": "Friday, 31-Dec-99 12:01:30 GMT"}, 90),
        (NOON | {"Retry-After": "Fri, 31 Dec 1999 11:59:59 GMT"}, 0),
        ({"Retry-After": "Fri, 31 Dec 1999 12:01:30 GMT"}, 0),  # by our clock
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "Fri, 99 Dec 1999 12:00:00 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_a_date_or_nothing(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@given(st.text())
def test_no_retry_after_is_a_fault_of_ours(text: str) -> None:
    wait = retry_after({"Retry-After": text})
    assert wait is None or wait >= 0


@pytest.mark.parametrize(("attempt", "longest"), [(0, 1), (1, 2), (4, 16), (5, 30), (50, 30), (5000, 30)])
def test_waits_grow_to_a_limit_and_scatter(attempt: int, longest: float) -> None:
    waits = {backoff(attempt) for _ in range(20)}
    assert len(waits) > 1
    assert all(0.5 * longest <= wait <= longest for wait in waits)


@pytest.mark.parametrize(("asked", "gap"), [("1", 1.0), ("0", 0.0), ("soon", 0.0)])
def test_a_crawl_delay_longer_than_ours_is_obeyed(mirror: Mirror, asked: str, gap: float) -> None:
    mirror.answers["/robots.txt"] = [Answer(body=f"User-agent: *\nCrawl-delay: {asked}\n".encode())]
    made = downloader(mirror.base, delay=0.05)
    made.get("/x")
    made.get("/y")
    assert gaps(mirror)[-1] >= max(gap, 0.05)


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
    for none in (Answer(404), Answer(200, CAPTCHA), Answer(200, b"")):
        mirror.answers["/robots.txt"] = [none]
        assert downloader(mirror.base, retries=0).get("/x") is not None


def test_a_robots_txt_that_does_not_come_at_once_is_no_leave(mirror: Mirror) -> None:
    rules = Answer(body=b"\xef\xbb\xbfUser-agent: *\nDisallow: /x\n")
    mirror.answers |= {"/robots.txt": [Answer(503), Answer(200, CAPTCHA), rules], "/x": [Answer()]}
    with pytest.raises(MirrorError, match="forbids /x"):
        downloader(mirror.base).get("/x")
    mirror.answers["/robots.txt"] = [Answer(503)]
    with pytest.raises(MirrorError, match=r"gave no /robots\.txt: HTTP 503"):
        downloader(mirror.base).get("/x")
    assert "/x" not in mirror.paths


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
    assert "force-main-site" in caught.value.cure
    assert downloader(base, force_main_site=True).base == base.rstrip("/")


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
    assert downloader(mirror.base, force_main_site=True).get("/far") is not None


@pytest.mark.parametrize("base", ["http://127.0.0.1:1", "http://localhost", "http://[::1]:8000/x", "http://127.9.9.9"])
def test_this_machine_is_told_from_others(base: str) -> None:
    assert is_loopback(base)
    assert not is_loopback(base.replace("127.", "128.").replace("localhost", "local.example").replace("::1", "::2"))
