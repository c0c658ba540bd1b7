"""Files of mirrors as they came, kept over runs with what recognises them, so that an unchanged one is not sent again."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from deepred_ray.errors import DeepredError
from deepred_ray.storage import Folder

CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


@dataclass(frozen=True)
class Kept:
    body: bytes
    conditions: dict[str, str]  # request headers that make the host answer 304 while the file is the same


class RawCache:
    """One file a URL, `<folder>/<host>/<path>`: a line of JSON, then the body. It is only ever a help: what cannot be written
    or is damaged counts as not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, url: str) -> Kept | None:
        try:
            head, _, body = self._file(url).read_bytes().partition(b"\n")
            kept = json.loads(head)
            return Kept(body, kept["conditions"]) if kept["sha256"] == hashlib.sha256(body).hexdigest() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Keep a body, if the answer's `headers` hold something to recognise it by."""
        conditions = {request: headers[name] for name, request in CONDITIONS.items() if name in headers}
        if not conditions:
            return
        head = json.dumps({"url": url, "conditions": conditions, "sha256": hashlib.sha256(body).hexdigest()})
        with contextlib.suppress(DeepredError):
            Folder.open(str(self._file(url))).write_bytes(head.encode() + b"\n" + body)

    def _file(self, url: str) -> Path:
        parts = urlsplit(url)
        host = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        return self.folder / host / quote(parts.path, safe="")
