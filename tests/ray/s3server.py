"""moto's S3 server on loopback, which asks for a key, and can fail a share of its requests as a busy server does."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
from conftest import CREDENTIALS
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

BUCKET = "zarya"
ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>{}</Message></Error>'


class Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Requests are counted, not told."""


class S3Server:
    """Serves a bucket while the block lasts. Each `every`th request is answered 503, as S3 does when it is asked too fast; 0 fails
    none. `requests` counts them by method, `failed` those that were failed."""

    def __init__(self, *, every: int = 0) -> None:
        self.every = every
        self.requests: Counter[str] = Counter()
        self.failed = 0
        self._lock = threading.Lock()
        self._moto: Callable[..., Iterable[bytes]] = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.environment = CREDENTIALS | {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": "us-east-1"}

    def __enter__(self) -> "S3Server":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        key, secret = CREDENTIALS.values()
        self.client = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret
        )
        self.client.create_bucket(Bucket=BUCKET)
        for key in self.objects():  # moto keeps its buckets as long as the process lives
            self.client.delete_object(Bucket=BUCKET, Key=key)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Every object of the bucket under `prefix`, without the markers of folders."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ()) if not item["Key"].endswith("/")]
        return {key: self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def _answer(self, request: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if f"Credential={CREDENTIALS['AWS_ACCESS_KEY_ID']}/" not in request.get("HTTP_AUTHORIZATION", ""):
            return refuse(request, start, "403 Forbidden", "InvalidAccessKeyId", "No such access key.")
        with self._lock:
            self.requests[request["REQUEST_METHOD"]] += 1
            busy = bool(self.every) and self.requests.total() % self.every == 0
            self.failed += busy
        if busy:
            return refuse(request, start, "503 Slow Down", "SlowDown", "Please reduce your request rate.")
        return self._moto(request, start)


def refuse(request: WSGIEnvironment, start: StartResponse, status: str, code: str, message: str) -> list[bytes]:
    # What was not read of this request would be taken for the next one.
    request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
    body = b"" if request["REQUEST_METHOD"] == "HEAD" else ERROR.format(code, message).encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
