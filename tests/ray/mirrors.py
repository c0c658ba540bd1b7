"""A Gutenberg mirror on loopback that can be busy, show captcha pages, break off, go away or keep its caller waiting."""

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from deepred_ray.mirror import SAMPLES, QuietHandler

CAPTCHA = b"<!DOCTYPE html><html><body>Are you a person?</body></html>"
MOST_FAULTS = 2  # of one path, so that a caller who tries three times gets through


class FaultyMirror:
    """Serves `folder` while the block lasts.

    `busy`, `captcha` and `cut` are the shares of requests answered by HTTP 503, by an HTML page and by half a file; which ones
    follows from path and count, not from time. From the book after the first `limit` on, it drops every connection
    (`then="gone"`), asks its callers to come back tomorrow (`then="busy"`) or does not answer (`then="hold"`), until `limit` is
    None again. `broken` has paths that are busy for so many requests. Files are recognised by their Last-Modified only with
    `dated`.
    """

    def __init__(
        self,
        folder: Path = SAMPLES,
        *,
        busy: float = 0.0,
        captcha: float = 0.0,
        cut: float = 0.0,
        limit: int | None = None,
        then: str = "gone",
        dated: bool = False,
        broken: Mapping[str, int] | None = None,
    ) -> None:
        self.shares = {"busy": busy, "captcha": captcha, "cut": cut}
        self.limit, self.then, self.dated, self.broken = limit, then, dated, broken or {}
        self.asked: list[str] = []  # every path, in order
        self.faults: Counter[str] = Counter()
        self.served: list[str] = []  # paths of books that were answered without a fault
        self.unchanged: list[str] = []  # and of those, for which the caller has the file already
        self.changed = threading.Condition()
        handler = partial(FaultyHandler, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.server.mirror = self  # type: ignore[attr-defined]
        self.base = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "FaultyMirror":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.lift()
        self.server.shutdown()
        self.server.server_close()

    def lift(self) -> None:
        """Be a good mirror from now on."""
        with self.changed:
            self.limit = None
            self.shares = dict.fromkeys(self.shares, 0.0)
            self.changed.notify_all()

    def fault(self, path: str) -> str:
        """What to answer this request with: "", busy, captcha or cut."""
        with self.changed:
            count = self.asked.count(path)
            self.asked.append(path)
            draw = int(hashlib.sha256(f"{path} {count}".encode()).hexdigest()[:8], 16) / 16**8
            if count < self.broken.get(path, 0):
                return "busy"
            if count >= MOST_FAULTS:
                return ""
            for kind, share in self.shares.items():
                if draw < share:
                    self.faults[kind] += 1
                    return kind
                draw -= share
            return ""

    def admits(self) -> bool:
        """Whether one more book is sent; waits for `lift` if the mirror holds."""
        with self.changed:
            if self.limit is None or len(self.served) < self.limit:
                return True
            if self.then != "hold":
                return False
            return self.changed.wait_for(lambda: self.limit is None, timeout=120)

    def books_asked(self) -> list[str]:
        return [path for path in self.asked if path.endswith(".txt") and path != "/robots.txt"]


class FaultyHandler(QuietHandler):
    def do_GET(self) -> None:
        mirror: FaultyMirror = self.server.mirror  # type: ignore[attr-defined]
        kind = mirror.fault(self.path)
        if kind == "busy":
            self.send_response(503)
            self.send_header("Retry-After", str(len(mirror.asked) % 2))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif kind == "captcha":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CAPTCHA)))
            self.end_headers()
            self.wfile.write(CAPTCHA)
        elif kind == "cut" and (file := Path(self.translate_path(self.path))).is_file():
            self.send_response(200)
            self.send_header("Content-Length", str(file.stat().st_size))
            self.end_headers()
            self.wfile.write(file.read_bytes()[: file.stat().st_size // 2])
            self.close_connection = True
        elif self.path not in mirror.books_asked():
            super().do_GET()
        elif mirror.admits():
            super().do_GET()
            with mirror.changed:
                mirror.served.append(self.path)
        elif mirror.then == "busy":
            self.send_response(429)
            self.send_header("Retry-After", "86400")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.close_connection = True

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified" or self.server.mirror.dated:  # type: ignore[attr-defined]
            super().send_header(keyword, value)

    def send_response(self, code: int, message: str | None = None) -> None:
        if code == 304:
            self.server.mirror.unchanged.append(self.path)  # type: ignore[attr-defined]
        super().send_response(code, message)


def plant(folder: Path, book_id: int, body: bytes, name: str = "cache/epub/{id}/pg{id}.txt") -> None:
    """Put a book into a mirror's folder, as its own UTF-8 edition or under another name."""
    path = folder / name.format(id=book_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def sample_book(book_id: int) -> bytes:
    """The first sample book, as if it had this number."""
    sample = (SAMPLES / "cache" / "epub" / "900001" / "pg900001.txt").read_bytes()
    return sample.replace(b"900001", str(book_id).encode())


def many_books(folder: Path, count: int) -> list[int]:
    """A mirror without a catalogue, with `count` books; their ids."""
    ids = list(range(910001, 910001 + count))
    for book_id in ids:
        plant(folder, book_id, sample_book(book_id))
    return ids
