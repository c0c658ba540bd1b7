"""The mirror of the sample books: real HTTP, on loopback only, for as long as it is wanted."""

from pathlib import Path

import pytest

from deepred_ray.download import Downloader
from deepred_ray.errors import MirrorError
from deepred_ray.mirror import SAMPLES, serve_samples
from deepred_ray.text import catalogue

FILES = sorted(path.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("*") if path.is_file())


def downloader(base: str) -> Downloader:
    return Downloader(base, delay=0, contact="", retries=0, timeout=10)


def test_every_sample_is_served_as_it_lies() -> None:
    with serve_samples() as base:
        made = downloader(base)
        for name in FILES:
            fetched = made.get(f"/{name}")
            assert fetched is not None
            assert fetched.body == (SAMPLES / name).read_bytes()
    assert len([name for name in FILES if name.endswith(".txt")]) == 8


def test_the_catalogue_names_the_books_that_are_there() -> None:
    with serve_samples() as base:
        fetched = downloader(base).get("/cache/epub/feeds/pg_catalog.csv")
    assert fetched is not None
    there = {int(Path(name).parent.name) for name in FILES if name.endswith(".txt")}
    assert there <= catalogue.parse(fetched.body.decode("utf-8-sig")).keys()


def test_what_is_not_there_is_missing_and_nothing_above_is_served() -> None:
    with serve_samples() as base:
        made = downloader(base)
        assert made.get("/files/1/1.txt") is None
        assert made.get("/%2e%2e/README.md") is None
        assert (SAMPLES.parent / "README.md").is_file()


def test_mirrors_are_independent_and_end_with_their_block() -> None:
    with serve_samples() as first:
        with serve_samples() as second:
            assert first != second
            assert first.startswith("http://127.0.0.1:")
            assert downloader(second).get(f"/{FILES[0]}") is not None
        assert downloader(first).get(f"/{FILES[0]}") is not None
        with pytest.raises(MirrorError):
            downloader(second).get(f"/{FILES[0]}")
