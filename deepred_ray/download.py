"""Polite downloads from one host: a pause between requests, robots.txt, Retry-After, and nothing taken for a file that is none."""

import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import requests
import urllib3.exceptions

from deepred_ray import __version__, logs, loopback
from deepred_ray.errors import BadBodyError, BusyError, MirrorError
from deepred_ray.rawcache import Kept, RawCache
from deepred_ray.text import decoding
from deepred_ray.text.reject import Reject

FORBIDDEN_HOSTS = ("www.gutenberg.org", "gutenberg.org")
LONGEST_WAIT_S = 120.0  # that a host may ask for; one that asks for more is left alone
LONGEST_BACKOFF_S = 30.0  # that we choose ourselves
LONGEST_BODY_S = 300.0
LARGEST_BODY = 200 * 2**20
SILENT_TRIES = 3  # a host that is down does not come up within seconds
HEAD_BYTES = 40_000  # of a body, enough to see what it is

Fault = Callable[[bytes], Reject | None]  # what is wrong with a body, if anything


@dataclass(frozen=True)
class Fetched:
    url: str
    body: bytes


@dataclass(frozen=True)
class Answer:
    """`body` is all that came; `broken` says why it is not the whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: str


class Downloader:
    """Requests to one mirror, one at a time, `delay` seconds apart, or the robots.txt's Crawl-delay if that is longer.

    `cache` is a folder for files with a validator; they are asked for again only by condition.

    Raises:
        MirrorError: the host is meant for people, does not answer, or forbids us.
    """

    def __init__(
        self,
        base: str,
        *,
        delay: float,
        contact: str,
        retries: int,
        timeout: float,
        force_main_site: bool = False,
        cache: Path | None = None,
    ) -> None:
        host = urlsplit(base).hostname
        # Dots alone would lead out of the cache's folder.
        if not (host or "").strip(".") or urlsplit(base).scheme not in ("http", "https"):
            raise MirrorError(f"mirror {base!r} is not an http or https URL", "For example --mirror https://gutenberg.pglaf.org")
        if not force_main_site:
            refuse_forbidden(base)
        self.base = base.rstrip("/")
        self._delay, self._retries, self._timeout = delay, retries, timeout
        self._session = requests.Session() if force_main_site else MirrorSession()
        self._agent = f"deepred_ray/{__version__}" + (f" ({contact})" if contact else "")
        self._session.headers["User-Agent"] = self._agent
        self._cache = RawCache(cache) if cache else None
        self._last = time.monotonic()  # another downloader may just have asked
        self._robots: RobotFileParser | None = None

    def get(self, path: str, *, fault: Fault | None = None) -> Fetched | None:
        """The body at `path`, or None where the mirror has no such file. An answer in which `fault` finds one, by default
        a web page, is not taken and asked for again.

        Raises:
            BadBodyError: what comes is not the file, and the last retry brought no other.
            BusyError: the host asks for a longer pause than we wait.
            MirrorError: robots.txt forbids the path, or there is still no answer.
        """
        if self._robots is None:
            self._robots = self._read_robots()
        if not self._robots.can_fetch(self._agent, self.base + path):
            raise MirrorError(f"the robots.txt of {self.base} forbids {path}", "Use another mirror.")
        body = self._ask(self.base + path, fault or page_fault)
        return None if body is None else Fetched(self.base + path, body)

    def _read_robots(self) -> RobotFileParser:
        robots = RobotFileParser()
        try:
            body = self._ask(urljoin(self.base, "/robots.txt"), page_fault) or b""
        except BadBodyError:
            body = b""  # a host that has a page for every path
        robots.parse(body.decode("utf-8", "replace").lstrip("\ufeff").splitlines())
        self._delay = max(self._delay, float(robots.crawl_delay(self._agent) or 0))
        return robots

    def _ask(self, url: str, fault: Fault) -> bytes | None:
        """A whole body without a fault, or None for 404; tried again as often as it is worth while."""
        kept = self._cache.load(url) if self._cache else None
        if kept and fault(kept.body):
            kept = None
        problem, body = Reject("download_failed"), b""
        for attempt in range(self._retries + 1):
            try:
                answer = self._request(url, kept)
            except requests.RequestException as error:
                problem = Reject("download_failed", cause(error))
                if is_silent(error) and attempt + 1 >= SILENT_TRIES:
                    break
            else:
                if answer.status in (404, 410):
                    return None
                if answer.status in (401, 403):
                    raise MirrorError(f"{self.base} refuses us (HTTP {answer.status})", "Use another mirror.")
                if answer.status == 304 and kept:
                    return kept.body
                found = problem_of(answer, fault)
                if found is None:
                    self._keep(url, answer)
                    return answer.body
                problem, body = found, answer.body
                if answer.status != 200 and (wait := retry_after(answer.headers)) is not None:
                    self._obey(wait)  # also after the last try: the next file is of the same host
                    continue
            if attempt < self._retries:
                wait = backoff(attempt)
                logs.note("retry", logging.WARNING, path=urlsplit(url).path, reason=problem.detail, wait_s=round(wait, 1))
                time.sleep(wait)
        message = f"mirror {self.base} gave no {urlsplit(url).path}: {problem.detail}"
        cure = "Check --mirror, or wait and repeat the command: what has arrived is kept."
        if problem.reason == "download_failed":
            raise MirrorError(message, cure)
        raise BadBodyError(message, cure, problem.reason, body)

    def _obey(self, wait: float) -> None:
        if wait > LONGEST_WAIT_S:
            until = datetime.now().astimezone() + timedelta(seconds=wait)
            raise BusyError(
                f"{self.base} asks us to stay away for {wait:.0f} s, until {until:%Y-%m-%d %H:%M:%S %Z}",
                "Repeat the command then, or use another mirror: what has arrived is kept.",
            )
        logs.note("mirror asks for a pause", logging.WARNING, wait_s=wait)
        time.sleep(wait)

    def _keep(self, url: str, answer: Answer) -> None:
        # Without a length a body can be cut short unseen; such a one would stay for ever.
        if self._cache and ("Content-Length" in answer.headers or "chunked" in answer.headers.get("Transfer-Encoding", "")):
            self._cache.keep(url, answer.body, answer.headers)

    def _request(self, url: str, kept: Kept | None) -> Answer:
        pause = self._last + self._delay - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        try:
            with self._session.get(url, timeout=self._timeout, headers=kept.conditions if kept else None, stream=True) as response:
                return Answer(response.status_code, response.headers, *read_body(response.raw))
        finally:
            self._last = time.monotonic()


class MirrorSession(requests.Session):
    """Follows a mirror's redirects, but not to a host that is meant for people."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target:
            refuse_forbidden(urljoin(resp.url, target))
        return target


def refuse_forbidden(url: str) -> None:
    """Raises MirrorError for a host that is meant for people."""
    host = urlsplit(url).hostname
    if host in FORBIDDEN_HOSTS:
        raise MirrorError(
            f"{host} is meant for people and blocks programs",
            "Use a mirror: https://www.gutenberg.org/MIRRORS.ALL lists them. --acquire.force-main-site asks it all the same.",
        )


def is_loopback(url: str) -> bool:
    """Whether the host is this machine, by name or number."""
    return loopback.is_loopback(urlsplit(url).hostname or "")


def read_body(stream: urllib3.response.BaseHTTPResponse) -> tuple[bytes, str]:
    """What came of a body, and why it is not the whole; the host chooses the pace, but not without end."""
    pieces: list[bytes] = []
    size, started = 0, time.monotonic()
    try:
        while piece := stream.read1(2**16, decode_content=True):
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST_BODY or time.monotonic() - started > LONGEST_BODY_S:
                return b"".join(pieces), f"no end after {size} bytes in {time.monotonic() - started:.0f} s"
    except (urllib3.exceptions.HTTPError, OSError) as error:
        return b"".join(pieces), f"broke off after {size} bytes ({cause(error)})"
    return b"".join(pieces), ""


def problem_of(answer: Answer, fault: Fault) -> Reject | None:
    """Why an answer is not the file."""
    if answer.status != 200:
        return Reject("download_failed", f"HTTP {answer.status}")
    if answer.broken:
        return Reject("cut_short", answer.broken)
    return fault(answer.body)


def page_fault(body: bytes) -> Reject | None:
    """A web page where a file should be."""
    head = decoding.decode(body[:HEAD_BYTES])
    if isinstance(head, Reject) and head.reason == "html_page":
        return Reject("html_page", f"a web page instead of the file ({head.detail!r})")
    return None


def is_silent(error: requests.RequestException) -> bool:
    """Whether there was no connection or no answer at all, and not one that broke."""
    return isinstance(error, requests.Timeout) or bool(error.args and isinstance(error.args[0], urllib3.exceptions.MaxRetryError))


def cause(error: Exception) -> str:
    """The system's word in the nest of wrappers that requests raises, or the name of the outermost."""
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "timed out"
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return found[1] if found else type(error).__name__


def backoff(attempt: int) -> float:
    """Seconds to wait: exponential with jitter, so that many clients do not return at once."""
    return random.uniform(0.5, 1.0) * min(2**attempt, LONGEST_BACKOFF_S)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks us to wait, by a number or a date; None where it does not say or the word is nonsense.

    A date is measured by the host's own clock where the answer has it.
    """
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked)
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return None
    try:
        now = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        now = datetime.now().astimezone()
    return max(0.0, until.timestamp() - now.timestamp())
