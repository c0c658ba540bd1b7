"""Polite downloads from one host: a pause between requests, robots.txt, Retry-After, and no page taken for a book."""

import random
import re
import time
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import requests

from deepred_ray import __version__
from deepred_ray.errors import MirrorError, PageError

FORBIDDEN_HOSTS = ("www.gutenberg.org", "gutenberg.org")
LONGEST_WAIT_S = 120.0
WEB_PAGE = "an HTML page instead of the file"


@dataclass(frozen=True)
class Fetched:
    url: str
    body: bytes


class Downloader:
    """Requests to one mirror, one at a time, `delay` seconds apart.

    Raises:
        MirrorError: the host is meant for people, does not answer, or forbids us.
    """

    def __init__(self, base: str, *, delay: float, contact: str, retries: int, timeout: float) -> None:
        host = urlsplit(base).hostname
        if not host or urlsplit(base).scheme not in ("http", "https"):
            raise MirrorError(f"mirror {base!r} is not an http or https URL", "For example --mirror https://gutenberg.pglaf.org")
        refuse_forbidden(base)
        self.base = base.rstrip("/")
        self._delay, self._retries, self._timeout = delay, retries, timeout
        self._session = MirrorSession()
        self._session.headers["User-Agent"] = f"deepred_ray/{__version__}" + (f" ({contact})" if contact else "")
        self._last = time.monotonic()  # another downloader may just have asked
        self._robots: RobotFileParser | None = None

    def get(self, path: str, *, page: bool = False) -> Fetched | None:
        """The body at `path`, or None where the mirror has no such file. With `page` false an HTML answer is a
        blocking page and is tried again.

        Raises:
            MirrorError: after the last retry there is still no answer; PageError if there is a page.
        """
        if not self._allowed(path):
            raise MirrorError(f"the robots.txt of {self.base} forbids {path}", "Use another mirror.")
        problem = ""
        for attempt in range(self._retries + 1):
            try:
                answer = self._request(self.base + path)
            except requests.RequestException as error:
                problem, wait = cause(error), backoff(attempt)
                # A host that is down does not come up within seconds; do not hold a book's whole patience for it.
                if isinstance(error, requests.ConnectionError) and attempt >= 2:
                    break
            else:
                if answer.status_code == 404:
                    return None
                html = answer.content[:512].lstrip().lower().startswith((b"<!doctype html", b"<html"))
                if answer.status_code == 200 and (page or not html):
                    return Fetched(self.base + path, answer.content)
                if answer.status_code in (401, 403):
                    raise MirrorError(f"{self.base} refuses us (HTTP {answer.status_code})", "Use another mirror.")
                problem = WEB_PAGE if answer.status_code == 200 else f"HTTP {answer.status_code}"
                wait = retry_after(answer.headers.get("Retry-After")) or backoff(attempt)
            if attempt < self._retries:
                time.sleep(min(wait, LONGEST_WAIT_S))
        failure = PageError if problem == WEB_PAGE else MirrorError
        raise failure(
            f"mirror {self.base} gave no {path}: {problem}",
            "Check --mirror, or wait and repeat the command: what has arrived is kept.",
        )

    def _allowed(self, path: str) -> bool:
        if self._robots is None:
            self._robots = RobotFileParser()
            try:
                answer = self._request(urljoin(self.base, "/robots.txt"))
                self._robots.parse(answer.text.splitlines() if answer.status_code == 200 else [])
            except requests.RequestException:
                self._robots.parse([])  # the request that follows will tell what is wrong
        return self._robots.can_fetch(str(self._session.headers["User-Agent"]), self.base + path)

    def _request(self, url: str) -> requests.Response:
        pause = self._last + self._delay - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        try:
            return self._session.get(url, timeout=self._timeout)
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
            f"{host} is meant for people and blocks programs", "Use a mirror: https://www.gutenberg.org/MIRRORS.ALL lists them."
        )


def cause(error: requests.RequestException) -> str:
    """The system's word in the nest of wrappers that requests raises, or the name of the outermost."""
    if isinstance(error, requests.Timeout):
        return "timed out"
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return found[1] if found else type(error).__name__


def backoff(attempt: int) -> float:
    """Seconds to wait: exponential with full jitter, so that many clients do not return at once."""
    return random.uniform(0.5, 1.0) * 2.0**attempt


def retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header; a date or nonsense counts as none, and the backoff holds."""
    return float(header) if header and header.isdigit() else None
