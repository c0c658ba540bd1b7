"""Files kept from earlier runs: asked for by condition, and done without where they cannot be trusted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import BOOK, CAPTCHA, Answer, Mirror, downloader, serve

from deepred_ray import download
from deepred_ray.download import Fetched
from deepred_ray.rawcache import Kept, RawCache
from deepred_ray.text.reject import Reject


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serve() as made:
        yield made


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "backoff", lambda attempt: 0.001)


TAGGED = Answer(headers=(("ETag", '"v1"'), ("Last-Modified", "Fri, 31 Dec 1999 12:00:00 GMT")))
CONDITIONS = {"If-None-Match": '"v1"', "If-Modified-Since": "Fri, 31 Dec 1999 12:00:00 GMT"}


def conditions(mirror: Mirror) -> list[dict[str, str]]:
    return [{name: headers[name] for name in CONDITIONS if name in headers} for path, _, headers in mirror.requests if path == "/x"]


def test_an_unchanged_file_is_not_sent_again(mirror: Mirror, tmp_path: Path) -> None:
    mirror.answers["/x"] = [
        TAGGED,
        Answer(304, b""),
        Answer(body=b"The second edition", headers=(("ETag", '"v2"'),)),
        Answer(304, b""),
    ]
    bodies = [downloader(mirror.base, cache=tmp_path).get("/x") for _ in range(4)]
    assert [fetched and fetched.body for fetched in bodies] == [BOOK, BOOK, b"The second edition", b"The second edition"]
    assert conditions(mirror) == [{}, CONDITIONS, CONDITIONS, {"If-None-Match": '"v2"'}]
    host = mirror.base.removeprefix("http://")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [f"{host}/%2Fx"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(),
        Answer(headers=TAGGED.headers, open_ended=True),
        Answer(200, CAPTCHA, TAGGED.headers),
        Answer(503, BOOK, TAGGED.headers),
    ],
    ids=["no validator", "no length", "page", "busy"],
)
def test_what_cannot_be_recognised_or_trusted_is_not_kept(mirror: Mirror, tmp_path: Path, answer: Answer) -> None:
    mirror.answers["/x"] = [answer, Answer()]
    made = downloader(mirror.base, cache=tmp_path)
    for _ in range(2):
        assert made.get("/x") == Fetched(f"{mirror.base}/x", BOOK)
    assert list(tmp_path.iterdir()) == []
    assert conditions(mirror) == [{}] * len(conditions(mirror))


def test_a_kept_file_that_is_none_any_more_is_fetched_whole(mirror: Mirror, tmp_path: Path) -> None:
    mirror.answers["/x"] = [TAGGED]
    made = downloader(mirror.base, cache=tmp_path)
    made.get("/x")
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", b"\xff\n", b"[]\n", whole.replace(b"Red", b"Rad")):
        file.write_bytes(damaged)
        assert RawCache(tmp_path).load(f"{mirror.base}/x") is None
        assert made.get("/x") == Fetched(f"{mirror.base}/x", BOOK)
    assert made.get("/x", fault=lambda body: Reject("odd") if len(mirror.requests) < 9 else None) is not None
    assert conditions(mirror) == [{}] * 8
    assert RawCache(tmp_path).load(f"{mirror.base}/x") == Kept(BOOK, CONDITIONS)


def test_a_cache_that_cannot_be_written_is_done_without(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mirror.answers["/x"] = [TAGGED]
    assert downloader(mirror.base, cache=tmp_path / "file").get("/x") is not None
