"""The one actor of acquire that talks to a mirror."""

import json
import time
from typing import Any

from deepred_ray.config import AcquireConfig
from deepred_ray.download import Downloader
from deepred_ray.errors import MirrorError, PageError

# Best first: the mirror's own UTF-8 edition, then the uploaded variants.
BOOK_PATHS = (
    "/cache/epub/{id}/pg{id}.txt",
    "/files/{id}/{id}-0.txt",
    "/files/{id}/{id}-8.txt",
    "/files/{id}/{id}.txt",
)
MOST_FAILURES = 3  # in a row; one book may fail alone, but then the mirror is gone, and asking on is no use


def politeness(settings: AcquireConfig) -> dict[str, Any]:
    return {
        "delay": settings.delay,
        "contact": settings.contact,
        "retries": settings.retries,
        "timeout": settings.timeout,
    }


class FetchBooks:
    """INPUT wish; OUTPUT raw bytes of a book, or a problem; fan-out 1:1. The one actor that talks to the host.

    It raises nothing: an error here would end the dataset and lose the books that arrived and are not written yet.
    """

    def __init__(self, base: str, politeness: dict[str, Any]) -> None:
        self.downloader = Downloader(base, **politeness)
        self.failures = 0

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        wish = json.loads(batch["wish"][0])
        url, body, problem = "", b"", "not_on_mirror"
        if self.failures >= MOST_FAILURES:
            problem = "mirror_gone"
        else:
            try:
                for path in BOOK_PATHS:
                    if fetched := self.downloader.get(path.format(id=wish["book_id"])):
                        url, body, problem = fetched.url, fetched.body, ""
                        break
                self.failures = 0
            except MirrorError as error:
                self.failures += 1
                url, problem = str(error.message), "html_page" if isinstance(error, PageError) else "download_failed"
                if self.failures >= MOST_FAILURES:
                    problem = "mirror_gone"
        return {
            "wish": [batch["wish"][0]],
            "raw": [body],
            "url": [url],
            "problem": [problem],
            "fetched_at": [int(time.time())],
        }
