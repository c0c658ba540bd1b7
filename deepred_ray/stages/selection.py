"""Which books acquire wants, what the catalogue knows of them, and the plan of what would be fetched."""

import gzip
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta

from rich.markup import escape

from deepred_ray import mirror
from deepred_ray.config import AcquireConfig, Config
from deepred_ray.console import console, counts_text, say, table
from deepred_ray.download import Downloader
from deepred_ray.errors import BadBodyError, InputError, MirrorError
from deepred_ray.runs import Run, decide, settings_of
from deepred_ray.schema import BOOKS, REJECTS
from deepred_ray.stages.fetch import PASSING, politeness
from deepred_ray.storage import Folder
from deepred_ray.text import catalogue
from deepred_ray.text.catalogue import Entry
from deepred_ray.text.selection import PRIORITY, Category, Choice, Selection, category_of, select, shortfalls
from deepred_ray.theme import Theme

# The packed one first: it is a fifth of the other.
CATALOGUE_PATHS = ("/cache/epub/feeds/pg_catalog.csv.gz", "/cache/epub/feeds/pg_catalog.csv")
NAMED = "asked for by its id"
TO_FETCH = "to fetch"
PLAN_HEADER = f"{'id':>6}  {'state':<10}  {'category':<18}  title | first author | why"
MOST_NAMED = 5


@dataclass(frozen=True)
class Wish:
    """A wanted book, why it is wanted, and what the catalogue knows of it."""

    book_id: str
    title: str = ""
    authors: tuple[str, ...] = ()
    birth_year: int | None = None
    death_year: int | None = None
    subjects: tuple[str, ...] = ()  # and bookshelves
    year: int | None = None  # of first publication, where the input says it
    category: str = ""
    reason: str = ""


def choose(settings: AcquireConfig, theme: Theme, downloader: Downloader, run: Run) -> list[Wish]:
    """The wanted books. The catalogue is fetched once and kept in the run; a mirror without one serves ids all the same.

    Raises:
        MirrorError: there is no catalogue to select from, or what is there is none.
        InputError: no book fits what was asked for, or the theme has nothing to choose by.
    """
    require_wishes(settings, theme)
    entries = read_catalogue(downloader, run)
    if settings.selection == "ids":
        if not settings.ids:
            raise InputError("acquire: selection is `ids`, but no ids are named", "Name some: --ids 624 61963")
        choices: Sequence[Choice] = [Choice(book_id, "", NAMED) for book_id in dict.fromkeys(settings.ids)]
    elif settings.selection == "priority":
        choices = [Choice(id_, category_of(work, theme.categories), PRIORITY) for id_, work in theme.priority_works.items()]
    else:
        choices = choose_from(entries, settings, theme, downloader.base)
    return [wish_of(choice, entries.get(choice.book_id)) for choice in choices]


def require_wishes(settings: AcquireConfig, theme: Theme) -> None:
    """Raises InputError if the selection goes by lists of the theme that it lacks."""
    lists: dict[str, tuple[Sized, str]] = {
        "priority": (theme.priority_works, "priority_works.tsv"),
        "subjects": (settings.subjects or theme.subjects, "subjects.txt"),
        "catalogue": ([*theme.priority_works, *theme.categories, *settings.subjects, *theme.subjects], "categories.toml"),
    }
    found, file = lists.get(settings.selection, (settings.selection, ""))
    if not found:
        raise InputError(
            f"theme {theme.name} has no {file}, by which selection `{settings.selection}` goes",
            "Name books with --ids, headings with --subjects or files with --input, or write that file.",
        )


def choose_from(entries: Mapping[int, Entry], settings: AcquireConfig, theme: Theme, base: str) -> Sequence[Choice]:
    """Select from the catalogue, and say what was not found."""
    if not entries:
        raise MirrorError(f"{base} has no catalogue at {CATALOGUE_PATHS[-1]}", "Use another mirror, or selection ids or priority.")
    whole = settings.selection == "catalogue"
    subjects = settings.subjects or theme.subjects
    categories = theme.categories if whole else ()
    found = select(
        entries,
        theme.priority_works if whole else {},
        categories,
        subjects,
        language=settings.language,
        cutoff_year=theme.cutoff_year,
        max_books=settings.max_books,
        max_per_subject=settings.max_per_subject,
    )
    if not found.choices:
        passed = f"; passed over: {counts_text(found.passed_over)}" if found.passed_over else ""
        raise InputError(
            f"the catalogue of {base} has no book in language `{settings.language}` for {listing(subjects)}{passed}",
            "Name other headings with --subjects, as the catalogue writes them: --subjects Chess 'Mars (Planet)'",
        )
    say_found(found, categories, len(entries))
    return found.choices


def say_found(found: Selection, categories: Sequence[Category], of: int) -> None:
    passed = f"; passed over: {counts_text(found.passed_over)}" if found.passed_over else ""
    say(f"  {len(found.choices)} books chosen of {of} in the catalogue{passed}")
    if short := shortfalls(found.choices, categories):
        say(f"  fewer than the theme wants: {', '.join(short)}")
    if found.without:
        say(escape(f"  no book for {listing(found.without)}"))


def listing(subjects: Sequence[str]) -> str:
    """`subject A` or `subjects A, B and 3 more`."""
    rest = len(subjects) - MOST_NAMED
    more = f" and {rest} more" if rest > 0 else ""
    return f"subject{'s' if len(subjects) > 1 else ''} {', '.join(subjects[:MOST_NAMED])}{more}"


def wish_of(choice: Choice, entry: Entry | None) -> Wish:
    wish = Wish(str(choice.book_id), category=choice.category, reason=choice.reason)
    if entry is None:
        return wish
    return replace(
        wish,
        title=entry.title,
        authors=entry.authors,
        birth_year=entry.birth_year,
        death_year=entry.death_year,
        subjects=entry.subjects + entry.bookshelves,
    )


# --- the catalogue


def kept_catalogue(run: Run) -> Folder:
    return run.folder / "acquire" / "pg_catalog.csv.gz"


def catalogue_sha(run: Run) -> str | None:
    """sha256 of the CSV that this run keeps, unpacked; None if it keeps none."""
    kept = kept_catalogue(run)
    return hashlib.sha256(catalogue.unpack(kept.read_bytes())).hexdigest() if kept.exists() else None


def read_catalogue(downloader: Downloader, run: Run) -> dict[int, Entry]:
    """The catalogue that the run keeps, else the mirror's, which is then kept; empty where the mirror has none.

    Raises:
        MirrorError: the mirror has something else there; nothing is kept.
    """
    kept = kept_catalogue(run)
    if kept.exists():
        try:
            return catalogue.read(kept.read_bytes())
        except ValueError as error:
            say(escape(f"  {kept.path} is damaged and fetched again: {error}"))
    fault: MirrorError | None = None
    for path in CATALOGUE_PATHS:
        try:
            fetched = downloader.get(path)
            if fetched is None:
                continue
            entries = catalogue.read(fetched.body)
        except BadBodyError as error:
            fault = error
        except ValueError as error:
            fault = MirrorError(f"{downloader.base}{path}: {error}", "Use another mirror, or wait until this one is mended.")
        else:
            kept.write_bytes(gzip.compress(catalogue.unpack(fetched.body), mtime=0))
            return entries
    if fault:
        raise fault
    return {}


# --- the plan


def show_plan(run: Run, config: Config, theme: Theme) -> None:
    """Show what acquire would fetch and why; nothing but the catalogue is fetched.

    Raises:
        InputError: the books are local files, which are not fetched. StaleRunError: acquire would refuse this run.
    """
    settings = config.acquire
    if settings.input:
        raise InputError("--plan shows what would be fetched, but --input reads local files", "Leave out one of the two.")
    decide("acquire", run.begun("acquire"), run.manifest("acquire"), *settings_of(config, "acquire", theme.hashes()), {})
    with mirror.serve_samples() if settings.mirror == "sample" else nullcontext(settings.mirror) as base:
        wishes = choose(settings, theme, Downloader(base, **politeness(settings)), run)
    state = state_of_books(run)
    # A line a book, whatever the width: to be read, and to be searched.
    for line in [PLAN_HEADER, *(plan_line(wish, theme, state) for wish in wishes)]:
        console.print(line, soft_wrap=True, markup=False)
    if any(wish.category for wish in wishes):
        table("Categories", ["category", "target", "chosen", "priority works", "to fetch"], category_rows(wishes, theme, state), 4)
    missing = sum(wish.book_id not in state for wish in wishes)
    requests = missing + 1 if missing else 0
    least = timedelta(seconds=round(requests * settings.delay))
    say(
        escape(
            f"{missing} of {len(wishes)} books to fetch from {settings.mirror}: {requests} requests or more (robots.txt, and one "
            f"for each book that is where it is looked for first), {settings.delay:g} s apart: {least} h or more"
        )
    )


def plan_line(wish: Wish, theme: Theme, state: Mapping[str, str]) -> str:
    work = theme.priority_works.get(int(wish.book_id))
    title = wish.title or (work.title if work else "(not in the catalogue)")
    words = f"{title} | {wish.authors[0] if wish.authors else '-'} | {wish.reason}"
    return f"{wish.book_id:>6}  {state.get(wish.book_id, TO_FETCH):<10}  {wish.category or '-':<18}  {words}"


def state_of_books(run: Run) -> dict[str, str]:
    """What the run has of books that need not be fetched again, by id."""
    rejects = run.table("rejects/acquire").read_table(REJECTS, ["id", "reason"]).to_pylist()
    books = run.table("books").read_table(BOOKS, ["book_id"])["book_id"].to_pylist()
    return {row["id"]: f"rejected: {row['reason']}" for row in rejects if row["reason"] not in PASSING} | dict.fromkeys(
        books, "there"
    )


def category_rows(wishes: Sequence[Wish], theme: Theme, state: Mapping[str, str]) -> list[list[str]]:
    """A row for each of the theme's categories, then for the others that books have, last for those without one."""
    targets = {category.name: f"{category.least}-{category.most}" for category in theme.categories}
    chosen = Counter(wish.category for wish in wishes)
    priority = Counter(wish.category for wish in wishes if wish.reason == PRIORITY)
    missing = Counter(wish.category for wish in wishes if wish.book_id not in state)
    return [
        [name or "by subject or id", targets.get(name, ""), str(chosen[name]), str(priority[name]), str(missing[name])]
        for name in [*targets, *sorted(chosen.keys() - targets.keys() - {""}), *([""] if chosen[""] else [])]
    ]
