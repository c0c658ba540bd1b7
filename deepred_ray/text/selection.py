"""Which books of the catalogue a theme wants, in which order, and why."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from deepred_ray.text.catalogue import Entry

PRIORITY = "priority work"
OTHER_LANGUAGE, BORN_TOO_LATE, OTHER_EDITION = "other_language", "born_too_late", "other_edition"
# Nobody published before this age: an author born later than so many years before the cutoff wrote after it.
YOUNGEST_AUTHOR = 10
_WORDS = re.compile(r"\w+|--")
_Fit = tuple[int, int, int, str]  # minus the number of headings, number of languages, id, reason: the best is the least


@dataclass(frozen=True, slots=True)
class Work:
    """A work that the theme names by its id: `category` as the list has it, `year` of first publication."""

    title: str
    category: str
    year: int


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of books of which the corpus should have `least` to `most`.

    `subjects` and `bookshelves` are headings that its books have one of; `works` names the categories of the list of
    priority works that belong to it.
    """

    name: str
    least: int
    most: int
    subjects: tuple[str, ...]
    bookshelves: tuple[str, ...]
    works: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen book; `category` is "" for one that is there for a subject alone."""

    book_id: int
    category: str
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Books in the order of their rank, how many fitting ones were passed over by reason, and subjects without a book."""

    choices: tuple[Choice, ...]
    passed_over: dict[str, int]
    without: tuple[str, ...]


def parse_works(tsv: str) -> dict[int, Work]:
    """Works by id, in the order of the list. Raises ValueError that names a line without id, title, category, year."""
    works = {}
    for number, line in enumerate(tsv.splitlines()[1:], 2):
        try:
            book_id, title, category, year = line.split("\t")
            works[int(book_id)] = Work(title, category, int(year))
        except ValueError as error:
            raise ValueError(f"priority_works.tsv, line {number}: {error}") from error
    return works


def parse_categories(toml: str) -> tuple[Category, ...]:
    """Raises ValueError unless every category has all its keys, a name of its own and 0 <= least <= most."""
    categories: dict[str, Category] = {}
    for number, entry in enumerate(tomllib.loads(toml).get("category", []), 1):
        try:
            category = Category(
                entry["name"],
                int(entry["least"]),
                int(entry["most"]),
                tuple(entry["subjects"]),
                tuple(entry["bookshelves"]),
                tuple(entry["works"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"categories.toml, category {number}: {error!r}") from error
        if not 0 <= category.least <= category.most or category.name in categories:
            raise ValueError(f"categories.toml, category {number} ({category.name}): targets out of order, or a name twice")
        categories[category.name] = category
    return tuple(categories.values())


def category_of(work: Work, categories: Iterable[Category]) -> str:
    """The category that a priority work belongs to, else the list's own name for it."""
    return next((category.name for category in categories if work.category in category.works), work.category)


class Headings:
    """Finds which of some headings stand in a subject: whole words, whatever case and punctuation, but not across "--"."""

    def __init__(self, headings: Iterable[str]) -> None:
        self._beginning: dict[str, list[tuple[list[str], str]]] = {}
        for heading in dict.fromkeys(headings):
            if words := _words(heading):
                self._beginning.setdefault(words[0], []).append((words, heading))
        self.within = cache(self._within)  # many books share a subject

    def _within(self, subject: str) -> frozenset[str]:
        words = _words(subject)
        return frozenset(
            heading
            for start, word in enumerate(words)
            for wanted, heading in self._beginning.get(word, ())
            if words[start : start + len(wanted)] == wanted
        )


def select(
    entries: Mapping[int, Entry],
    works: Mapping[int, Work],
    categories: Sequence[Category],
    subjects: Sequence[str],
    *,
    language: str,
    cutoff_year: int,
    max_books: int,
    max_per_subject: int | None = None,
) -> Selection:
    """The wanted books, in this order:

    1. The priority works, all of them, whether the catalogue has them or not.
    2. The categories take turns, one book each, in the order of the theme, until each has its `most`, priority works
       included. A category takes the book that fits it best: that has the most of its headings; of those one in the
       wanted language alone before one in several; of those the one with the lowest id.
    3. The subjects take turns likewise, in their order, at most `max_per_subject` books for each; a book fits the
       better, the more of the subjects it has. A subject is looked for among the bookshelves too.

    A book is taken once. Passed over are books in another language, books whose first author was born too late to
    publish before the cutoff, and other editions (same title and first author) of a priority work or of a book with a
    lower id. The order depends neither on `max_books` nor on that of the rows, so a larger limit continues the list.
    """
    choices = [Choice(book_id, category_of(work, categories), PRIORITY) for book_id, work in works.items()]
    headings = Headings([*subjects, *(heading for kind in categories for heading in (*kind.subjects, *kind.bookshelves))])
    by_category: dict[str, list[_Fit]] = {category.name: [] for category in categories}
    by_subject: dict[str, list[_Fit]] = {subject: [] for subject in subjects}
    editions = {_edition(entries[book_id]) for book_id in works if book_id in entries}
    passed: Counter[str] = Counter()
    for book_id in sorted(entries.keys() - works.keys()):
        entry = entries[book_id]
        in_subjects, on_shelves = _found(headings, entry.subjects), _found(headings, entry.bookshelves)
        anywhere = in_subjects | on_shelves
        if not anywhere:  # most books
            continue
        hits = [subject for subject in by_subject if subject in anywhere]
        labels = {category.name: _labels(category, in_subjects, on_shelves) for category in categories}
        if not (hits or any(labels.values())):
            continue
        if why := _unwanted(entry, language, cutoff_year, editions):
            passed[why] += 1
            continue
        editions.add(_edition(entry))
        for name, found in labels.items():
            if found:
                by_category[name].append((-len(found), len(entry.languages), book_id, f"category {name}: {', '.join(found)}"))
        for subject in hits:
            by_subject[subject].append((-len(hits), len(entry.languages), book_id, f"subject {subject}"))
    counts = Counter(choice.category for choice in choices)
    taken = set(works)
    room = {category.name: category.most - counts[category.name] for category in categories}
    choices += [Choice(book_id, name, reason) for name, book_id, reason in _in_turn(by_category, room, taken)]
    caps = dict.fromkeys(subjects, max_per_subject)
    choices += [Choice(book_id, "", reason) for _, book_id, reason in _in_turn(by_subject, caps, taken)]
    without = tuple(subject for subject, fits in by_subject.items() if not fits)
    return Selection(tuple(choices[: max(max_books, len(works))]), dict(passed), without)


def shortfalls(choices: Sequence[Choice], categories: Iterable[Category]) -> list[str]:
    """The categories that have less than their `least`: "chess 3 of 5"."""
    counts = Counter(choice.category for choice in choices)
    return [
        f"{category.name} {counts[category.name]} of {category.least}"
        for category in categories
        if counts[category.name] < category.least
    ]


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.casefold())


def _found(headings: Headings, texts: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*map(headings.within, texts))


def _labels(category: Category, in_subjects: frozenset[str], on_shelves: frozenset[str]) -> list[str]:
    """The headings of a category that a book has, as its reason names them."""
    return [f"{heading} (subject)" for heading in category.subjects if heading in in_subjects] + [
        f"{heading} (bookshelf)" for heading in category.bookshelves if heading in on_shelves
    ]


def _edition(entry: Entry) -> tuple[str, str]:
    """What the editions of one work have in common."""
    return " ".join(_words(entry.title)), entry.authors[0].casefold() if entry.authors else ""


def _unwanted(entry: Entry, language: str, cutoff_year: int, editions: set[tuple[str, str]]) -> str | None:
    if language not in entry.languages:
        return OTHER_LANGUAGE
    if entry.birth_year is not None and entry.birth_year >= cutoff_year - YOUNGEST_AUTHOR:
        return BORN_TOO_LATE
    return OTHER_EDITION if _edition(entry) in editions else None


def _in_turn(
    queues: Mapping[str, Sequence[_Fit]], limits: Mapping[str, int | None], taken: set[int]
) -> Iterator[tuple[str, int, str]]:
    """Queue, book and reason: in each round the best of every queue that none has taken yet; it goes into `taken`."""
    waiting = {name: iter(sorted(fits)) for name, fits in queues.items()}
    given: Counter[str] = Counter()
    while waiting:
        for name in list(waiting):
            limit = limits[name]
            best = next((fit for fit in waiting[name] if fit[2] not in taken), None)
            if best is None or (limit is not None and given[name] >= limit):
                del waiting[name]
                continue
            *_, book_id, reason = best
            given[name] += 1
            taken.add(book_id)
            yield name, book_id, reason
