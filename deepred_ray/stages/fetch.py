"""The one actor of acquire that talks to a mirror: which paths it asks, and what it takes for a book."""

import json
import time
from typing import Any

from deepred_ray import logs
from deepred_ray.config import AcquireConfig
from deepred_ray.download import HEAD_BYTES, Downloader, Fault, page_fault
from deepred_ray.errors import BadBodyError, BusyError, MirrorError
from deepred_ray.runs import cache_folder
from deepred_ray.text import decoding, gutenberg
from deepred_ray.text.reject import Reject

# The mirror's own UTF-8 edition; the uploaded files in a folder a book; and those in a tree of the id's digits.
LAYOUTS = {
    "cache": ("/cache/epub/{id}/pg{id}.txt",),
    "flat": ("/files/{id}/{id}-0.txt", "/files/{id}/{id}-8.txt", "/files/{id}/{id}.txt"),
    "tree": ("/{digits}/{id}/{id}-0.txt", "/{digits}/{id}/{id}-8.txt", "/{digits}/{id}/{id}.txt"),
}
QUALITY = ("/pg{id}.txt", "-0.txt", "-8.txt", "/{id}.txt")  # UTF-8, 8-bit, and last the one that may be without its accents
TRIES_A_ROUND = 4  # of a file; a book that needs more goes behind the others
MOST_FAILURES = 3  # in a row; one book may fail alone, but then the mirror is gone, and asking on is no use
# Rejects of the road, not of the book: tried again when the stage is repeated, and those of a fault in the same call.
FAULTS = ("download_failed", "cut_short", "html_page", "wrong_book", "truncated", "mirror_gone", "mirror_busy")
PASSING = (*FAULTS, "not_on_mirror", "unreadable_file")


def politeness(settings: AcquireConfig) -> dict[str, Any]:
    """How a Downloader behaves. What the sample mirror serves is not kept: its port is another every time."""
    return {
        "delay": settings.delay,
        "contact": settings.contact,
        "retries": settings.retries,
        "timeout": settings.timeout,
        "force_main_site": settings.force_main_site,
        "cache": None if settings.mirror == "sample" else cache_folder() / "mirror",
    }


class FetchBooks:
    """INPUT wish; OUTPUT raw bytes of a book, or a problem and the bytes that came instead; fan-out 1:1.

    The one actor that talks to the host. It raises nothing: an error here would end the dataset and lose the books that
    arrived and are not written yet.
    """

    def __init__(self, base: str, politeness: dict[str, Any]) -> None:
        logs.enter("acquire")
        retries = min(politeness["retries"], TRIES_A_ROUND - 1)
        self.downloader = Downloader(base, **(politeness | {"retries": retries}))
        self.answered: set[str] = set()  # layouts that the mirror has
        self.failures = 0
        self.given_up = ("", "")  # problem and last words of a mirror that is asked no more

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        wish = batch["wish"][0]
        body = b""
        problem, url = self.given_up
        if not problem:
            try:
                problem, url, body = self.fetch(int(json.loads(wish)["book_id"]))
                self.failures = 0
            except BadBodyError as error:
                problem, url, body = error.reason, error.message, error.body
                self.failures += problem != "wrong_book"  # that is a mirror which answers
            except BusyError as error:
                problem, url = self.given_up = "mirror_busy", error.message
            except MirrorError as error:
                problem, url = "download_failed", error.message
                self.failures += 1
            if self.failures >= MOST_FAILURES:
                problem, url = self.given_up = "mirror_gone", url
        return {"wish": [wish], "raw": [body], "url": [url], "problem": [problem], "fetched_at": [int(time.time())]}

    def fetch(self, book_id: int) -> tuple[str, str, bytes]:
        """Problem or "", the book's URL or what is said of the problem, and body.

        Raises:
            MirrorError: the mirror does not answer; BadBodyError if it has something at the book's path that is not the book.
        """
        wrong: BadBodyError | None = None
        places = paths(book_id, self.answered)
        for layout, path in places:
            try:
                fetched = self.downloader.get(path, fault=fault_of(book_id))
            except BadBodyError as error:
                wrong = wrong or error  # another path may have the book
                continue
            if fetched:
                self.answered.add(layout)
                return "", fetched.url, fetched.body
        if wrong:
            raise wrong
        return "not_on_mirror", f"nothing at {len(places)} paths, from {places[0][1]} to {places[-1][1]}", b""


def paths(book_id: int, answered: set[str]) -> list[tuple[str, str]]:
    """Layout and path of every place where a mirror can have a book: layouts that answered first, in each the best variant."""
    digits = "/".join(str(book_id)[:-1]) or "0"
    found = [
        (layout not in answered, next(rank for rank, end in enumerate(QUALITY) if path.endswith(end)), layout, path)
        for layout, patterns in LAYOUTS.items()
        for path in patterns
    ]
    return [(layout, path.format(id=book_id, digits=digits)) for _, _, layout, path in sorted(found)]


def fault_of(book_id: int) -> Fault:
    """What tells a web page, or a book whose own header has another number, from the book of this number."""

    def fault(body: bytes) -> Reject | None:
        if page := page_fault(body):
            return page
        head = decoding.decode(body[:HEAD_BYTES])
        number = None if isinstance(head, Reject) else gutenberg.parse_header(head.text).ebook_id
        if number and number.lstrip("0") != str(book_id):
            return Reject("wrong_book", f"its header says that it is number {number}")
        return None

    return fault
