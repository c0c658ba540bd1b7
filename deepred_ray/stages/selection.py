"""Which books acquire wants, and what the catalogue knows of them."""

import gzip
from dataclasses import dataclass, replace

from deepred_ray.config import AcquireConfig
from deepred_ray.download import Downloader
from deepred_ray.errors import InputError, MirrorError
from deepred_ray.runs import Run
from deepred_ray.text import catalogue
from deepred_ray.theme import Theme

CATALOGUE_PATH = "/cache/epub/feeds/pg_catalog.csv"


@dataclass(frozen=True)
class Wish:
    """A wanted book and what the catalogue knows of it."""

    book_id: str
    title: str = ""
    authors: tuple[str, ...] = ()
    birth_year: int | None = None
    death_year: int | None = None
    subjects: tuple[str, ...] = ()
    year: int | None = None  # of first publication, where the theme's list of works knows it


def choose(settings: AcquireConfig, theme: Theme, downloader: Downloader, run: Run) -> list[Wish]:
    """The wanted books. The catalogue is fetched once and kept in the run; a mirror without one serves ids all the same."""
    entries = read_catalogue(downloader, run)
    if settings.ids:
        ids: list[int] = list(dict.fromkeys(settings.ids))
    elif settings.selection == "priority":
        ids = list(theme.priority_works)
    elif settings.selection == "catalogue":
        if not entries:
            raise MirrorError(
                f"{downloader.base} has no catalogue at {CATALOGUE_PATH}", "Use another mirror, or selection ids or priority."
            )
        ids = catalogue.select(entries, tuple(theme.priority_works), theme.subjects, settings.language, settings.max_books)
    else:
        raise InputError("acquire: selection is `ids`, but no ids are named", "Name some: --ids 624 61963")
    wishes = []
    for book_id in ids:
        wish = Wish(str(book_id), year=theme.priority_works.get(book_id))
        if entry := entries.get(book_id):
            wish = replace(
                wish,
                title=entry.title,
                authors=entry.authors,
                birth_year=entry.birth_year,
                death_year=entry.death_year,
                subjects=entry.subjects,
            )
        wishes.append(wish)
    return wishes


def read_catalogue(downloader: Downloader, run: Run) -> dict[int, catalogue.Entry]:
    kept = run.folder / "acquire" / "pg_catalog.csv.gz"
    if not kept.exists():
        fetched = downloader.get(CATALOGUE_PATH)
        if fetched is None:
            return {}
        kept.write_bytes(gzip.compress(fetched.body))
    try:
        return catalogue.parse(gzip.decompress(kept.read_bytes()).decode("utf-8-sig"))
    except (ValueError, OSError) as error:
        kept.delete()
        raise MirrorError(f"{downloader.base}{CATALOGUE_PATH}: {error}", "Use another mirror.") from error
