"""Which books are chosen out of the catalogue, in which order and why, against a slow oracle on 70,000 rows."""

import csv
import io
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepred_ray.text import catalogue
from deepred_ray.text.catalogue import Entry
from deepred_ray.text.selection import Category, Headings, Work, category_of, parse_categories, parse_works, select, shortfalls
from deepred_ray.theme import Theme

THEME = Theme.find("deepred")
COLUMNS = ("Text#", "Type", "Issued", "Title", "Language", "Authors", "Subjects", "LoCC", "Bookshelves")
CHESS = Category("chess", 2, 3, ("Chess",), ("Chess",), ("Games",))
MARS = Category("mars", 1, 2, ("Mars (Planet)", "Martians"), ("Science Fiction",), ())


def entry(
    book_id: int,
    *subjects: str,
    title: str = "",
    author: str = "Holt, Alexander",
    born: int | None = None,
    languages: tuple[str, ...] = ("en",),
    shelves: tuple[str, ...] = (),
) -> Entry:
    return Entry(book_id, title or f"Book {book_id}", (author,) if author else (), born, None, languages, subjects, shelves)


def chosen(
    entries: Sequence[Entry],
    categories: Sequence[Category] = (),
    subjects: Sequence[str] = (),
    works: Mapping[int, Work] | None = None,
    max_books: int = 100,
    max_per_subject: int | None = None,
) -> list[int]:
    found = select(
        {e.book_id: e for e in entries},
        works or {},
        categories,
        subjects,
        language="en",
        cutoff_year=1969,
        max_books=max_books,
        max_per_subject=max_per_subject,
    )
    return [choice.book_id for choice in found.choices]


# --- headings


@pytest.mark.parametrize(
    ("heading", "subject", "found"),
    [
        ("Chess", "Chess", True),
        ("Chess", "Chess -- Openings", True),
        ("Chess", "chess players -- Fiction", True),
        ("Chess", "Chessmen", False),
        ("Mars (Planet)", "Mars (Planet) -- Fiction", True),
        ("Mars (Planet)", "Mars (Roman deity)", False),
        ("Satire", "Political satire, English", True),
        ("Evolution", "Human evolution", True),
        ("Science fiction", "Browsing: Science-Fiction & Fantasy", True),
        ("Science fiction", "Computer science -- Fiction", False),
        ("Russia -- Fiction", "Russia -- Fiction", True),
        ("Russia -- Fiction", "Russia -- History -- Fiction", False),
        ("Russia", "Prussia -- History", False),
        ("Labor", "Slave labor -- Russia", True),
        ("Russian Literature", "Category: Russian Literature", True),
        ("ÉVOLUTION", "évolution -- Fiction", True),
    ],
)
def test_a_heading_is_found_as_whole_words(heading: str, subject: str, found: bool) -> None:
    assert Headings([heading, "Gardening"]).within(subject) == (frozenset({heading}) if found else frozenset())


def test_headings_that_overlap_are_all_found() -> None:
    headings = Headings(["Human evolution", "Evolution", "Evolution theory", "Chess"])
    assert headings.within("Human evolution theory -- Chess") == {"Human evolution", "Evolution", "Evolution theory", "Chess"}


@pytest.mark.parametrize("subject", THEME.subjects)
def test_each_heading_of_the_theme_can_be_found(subject: str) -> None:
    assert chosen([entry(1, f"{subject} -- Fiction")], subjects=[subject]) == [1]
    assert chosen([entry(1, "History", shelves=(subject,))], subjects=[subject]) == [1]
    assert chosen([entry(1, f"x{subject}x")], subjects=[subject]) == []


# --- the theme's files


def test_the_targets_are_those_of_the_plan() -> None:
    targets = {category.name: (category.least, category.most) for category in THEME.categories}
    assert targets == {
        "russian": (15, 20),
        "utopian": (20, 30),
        "science fiction": (30, 40),
        "chess": (5, 10),
        "political": (20, 30),
    }
    counts = Counter(category_of(work, THEME.categories) for work in THEME.priority_works.values())
    assert counts == {
        "russian": 14,
        "utopian": 9,
        "science fiction": 17,
        "chess": 2,
        "political": 8,
        "Isolation/Survival": 4,
        "Satire": 4,
    }
    assert len(THEME.priority_works) == 58
    assert len(THEME.subjects) == 57
    assert THEME.priority_works[1497] == Work("The Republic", "Utopian/Dystopian", -375)


GOOD = 'name = "a"\nleast = 1\nmost = 2\nsubjects = ["X"]\nbookshelves = []\nworks = []\n'


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[[category]]\n" + GOOD.replace("least = 1\n", ""), "category 1: KeyError..least"),
        ("[[category]]\n" + GOOD.replace("most = 2", "most = 0"), r"category 1 \(a\): targets out of order"),
        (f"[[category]]\n{GOOD}[[category]]\n{GOOD}", r"category 2 \(a\): .* a name twice"),
        ("[[category]]\n" + GOOD.replace('["X"]', "3"), "category 1: TypeError"),
    ],
)
def test_a_wrong_category_is_named(toml: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_categories(toml)


def test_categories_may_be_none_and_a_wrong_work_is_named() -> None:
    assert parse_categories("# none\n") == ()
    assert parse_categories("[[category]]\n" + GOOD) == (Category("a", 1, 2, ("X",), (), ()),)
    with pytest.raises(ValueError, match=r"priority_works\.tsv, line 3"):
        parse_works("id\ttitle\tcategory\tyear\n1\tA\tB\t1900\n2\tA\tB\n")


# --- the order


def test_the_priority_works_come_first_and_whole() -> None:
    works = {4: Work("Four", "Games", 1900), 99: Work("Not there", "Other", 1900)}
    books = [entry(number, "Chess") for number in range(1, 6)]
    assert chosen(books, subjects=["Chess"], works=works, max_books=4) == [4, 99, 1, 2]
    assert chosen(books, subjects=["Chess"], works=works, max_books=1) == [4, 99]
    # A priority work counts for its category's target: two places are left of three.
    assert chosen(books, [CHESS], works=works) == [4, 99, 1, 2]


def test_categories_take_turns_and_each_the_best_fitting_book() -> None:
    books = [
        entry(1, "Mars (Planet) -- Fiction"),
        entry(2, "Mars (Planet)", "Martians -- Fiction"),
        entry(3, "Chess", languages=("en", "fr")),
        entry(4, "Chess -- Openings"),
        entry(5, "Chess", shelves=("Chess",)),
        entry(6, "Martians", shelves=("Science Fiction",), languages=("de", "en")),
        entry(7, "Gardening"),
    ]
    assert chosen(books, [CHESS, MARS]) == [5, 2, 4, 6, 3]
    found = select({e.book_id: e for e in books}, {}, [CHESS, MARS], [], language="en", cutoff_year=1969, max_books=9)
    assert [(choice.category, choice.reason) for choice in found.choices][:3] == [
        ("chess", "category chess: Chess (subject), Chess (bookshelf)"),
        ("mars", "category mars: Mars (Planet) (subject), Martians (subject)"),
        ("chess", "category chess: Chess (subject)"),
    ]


def test_no_subject_eats_all() -> None:
    books = [entry(number, "Chess") for number in range(1, 50)] + [entry(100, "Utopias"), entry(101, "Utopias", "Chess")]
    assert chosen(books, subjects=["Chess", "Utopias"], max_books=5) == [101, 100, 1, 2, 3]
    assert chosen(books, subjects=["Chess", "Utopias"], max_per_subject=2) == [101, 100, 1]
    assert chosen(books, subjects=["Utopias", "Chess"], max_per_subject=1) == [101, 1]


def test_other_editions_other_languages_and_later_authors_are_passed_over() -> None:
    works = {50: Work("The Ice Canal", "x", 1900)}
    books = [
        entry(50, title="The Ice Canal"),
        entry(3, "Chess", title="The ice-canal"),
        entry(4, "Chess", title="The Ice Canal", author="Sandel, Inge"),
        entry(6, "Chess", title="Openings"),
        entry(5, "Chess", title="OPENINGS."),
        entry(7, "Chess", title="Beowulf", author=""),
        entry(8, "Chess", title="Beowulf", author=""),
        entry(9, "Chess", born=1958),
        entry(10, "Chess", born=1959),
        entry(11, "Chess", languages=("fr",)),
        entry(12, "Gardening", born=1990),
    ]
    found = select({e.book_id: e for e in books}, works, [], ["Chess"], language="en", cutoff_year=1969, max_books=99)
    assert [choice.book_id for choice in found.choices] == [50, 4, 5, 7, 9]
    assert found.passed_over == {"other_edition": 3, "born_too_late": 1, "other_language": 1}


def test_what_is_missing_is_told() -> None:
    books = {1: entry(1, "Chess")}
    found = select(books, {}, [CHESS, MARS], ["Chess", "Utopias"], language="en", cutoff_year=1969, max_books=9)
    assert shortfalls(found.choices, [CHESS, MARS]) == ["chess 1 of 2", "mars 0 of 1"]
    assert found.without == ("Utopias",)


# --- 70,000 rows, and an oracle that is slow and of another build

SPICES = (
    "Chess -- Openings; Chess",
    "Chess problems",
    "Chess players -- Fiction; Russia -- Fiction",
    "Utopias -- Fiction; Socialism -- Fiction",
    "Utopias -- Early works to 1800; Political science -- Early works to 1800",
    "Dystopias -- Fiction; Science fiction",
    "Russian fiction -- Translations into English; Russia -- Social life and customs -- 1533-1917 -- Fiction",
    "Short stories, Russian -- Translations into English",
    "Russian drama -- Translations into English",
    "Science fiction; Mars (Planet) -- Fiction; Martians -- Fiction",
    "Science fiction, English; Time travel -- Fiction",
    "Robots -- Fiction; Automata -- Fiction",
    "Interplanetary voyages -- Fiction",
    "Political science; State, The",
    "Anarchism; Labor -- History",
    "Communism -- Russia; Revolutions",
    "Shipwrecks -- Fiction; Castaways -- Fiction; Survival -- Fiction",
    "Frontier and pioneer life -- Oregon",
    "Human evolution; Evolution (Biology)",
    "Good and evil -- Religious aspects",
    "Prophecies -- Early works to 1800; End of the world",
    "Working class -- England; Rich and poor",
)
PLAIN = (
    "Gardening; Weather -- Periodicals",
    "Computer science -- Fiction; Cooking",
    "Prussia -- History -- Frederick II, 1740-1786",
    "United States -- History -- Civil War, 1861-1865 -- Regimental histories",
    "Love stories; Man-woman relationships -- Fiction; England -- Fiction",
    "Dogs -- Juvenile fiction; Short stories",
    "Mars (Roman deity); Mythology, Roman",
    "",
)
SHELVES = (
    "",
    "",
    "",
    "Best Books Ever Listings",
    "Browsing: Science-Fiction & Fantasy",
    "Politics",
    "Category: Russian Literature",
)
LANGUAGES = ("en",) * 14 + ("fr", "de", "fi", "en; fr", "de; en", "zh")
LIVES = (
    ", 1828-1905",
    ", 1866-",
    ", 428? BCE-348? BCE",
    ", -1749",
    "",
    ", 1959-",
    ", 1971-",
    ", 1958-2001",
    ", 1828-1905 [Editor]",
)


def generated(count: int, seed: int) -> list[dict[str, str]]:
    """Rows of a catalogue: about one in nine has a heading of the theme, one in 25 is another edition of an earlier."""
    draw = random.Random(seed)
    ids = draw.sample(range(100, count * 2), count - 40) + draw.sample(sorted(THEME.priority_works), 40)
    rows: list[dict[str, str]] = []
    for number, book_id in enumerate(dict.fromkeys(ids)):
        if rows and draw.random() < 0.04:
            row = draw.choice(rows) | {"Issued": "2019-01-01"}
        else:
            author = f"Author, Number {number % 9000}{draw.choice(LIVES)}"
            row = {
                "Type": "Sound" if draw.random() < 0.03 else "Text",
                "Title": f'The "Annals" of Town {number}' + ("\r\nA Second Line" if number % 50 == 0 else ""),
                "Language": draw.choice(LANGUAGES),
                "Authors": "" if draw.random() < 0.05 else f"{author}; Second, Name, 1800- [Translator]",
                "Subjects": draw.choice(SPICES if draw.random() < 0.1 else PLAIN),
                "Bookshelves": draw.choice(SHELVES) if draw.random() < 0.2 else "",
            }
        rows.append(row | {"Text#": str(book_id)})
    return rows


def as_csv(rows: Sequence[Mapping[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


HEADINGS = {*THEME.subjects, *(heading for c in THEME.categories for heading in (*c.subjects, *c.bookshelves))}


@cache
def standing_in(text: str) -> set[str]:
    def stands(heading: str) -> bool:
        pattern = re.compile(rf"(?<!\w){re.escape(heading)}(?!\w)", re.I)
        return any(map(pattern.search, [text] if "--" in heading else text.replace("-", " ").split("  ")))

    return {heading for heading in HEADINGS if stands(heading)}


def oracle(rows: Sequence[Mapping[str, str]], max_books: int, cap: int) -> list[tuple[int, str]]:
    """(id, category) of the choice from `rows` by the deepred theme: every turn looks at every book anew."""

    def cells(cell: str) -> list[str]:
        return [part for part in cell.split("; ") if part]

    def edition(row: Mapping[str, str]) -> tuple[str, str]:
        author = re.sub(r"( \[.*)?$", "", row["Authors"].split("; ")[0])
        return " ".join(row["Title"].split()), re.sub(r", [^,]*-[^,]*$", "", author)

    def born(row: Mapping[str, str]) -> int:
        found = re.search(r", (\d{4})-[^;,]*$", row["Authors"].split("; ")[0])
        return int(found[1]) if found else 0

    texts = {int(row["Text#"]): row for row in rows if row["Type"] == "Text"}
    choice: list[tuple[int, str]] = []
    for book_id, work in THEME.priority_works.items():
        choice.append((book_id, next((c.name for c in THEME.categories if work.category in c.works), work.category)))
    priority_editions = {edition(texts[book_id]) for book_id, _ in choice if book_id in texts}
    fits: dict[str, dict[int, tuple[int, int, int]]] = {name: {} for name in [*(c.name for c in THEME.categories), *THEME.subjects]}
    seen: set[tuple[str, str]] = set()
    for book_id, row in sorted(texts.items()):
        if book_id in THEME.priority_works or "en" not in cells(row["Language"]) or born(row) >= 1959:
            continue
        in_subjects = set().union(*map(standing_in, cells(row["Subjects"])))
        on_shelves = set().union(*map(standing_in, cells(row["Bookshelves"])))
        hits = (in_subjects | on_shelves) & set(THEME.subjects)
        counts = {subject: len(hits) for subject in hits}
        for c in THEME.categories:
            counts[c.name] = len(in_subjects & set(c.subjects)) + len(on_shelves & set(c.bookshelves))
        if any(counts.values()) and edition(row) not in seen | priority_editions:
            seen.add(edition(row))
            for name, count in counts.items():
                if count:
                    fits[name][book_id] = (-count, len(cells(row["Language"])), book_id)

    def turn(name: str, category: str) -> bool:
        left = set(fits[name]) - {book_id for book_id, _ in choice}
        if not left:
            return False
        choice.append((min(left, key=lambda book_id: fits[name][book_id]), category))
        return True

    open_ = {c.name: c.most for c in THEME.categories}
    while open_:
        for name, most in list(open_.items()):
            if sum(category == name for _, category in choice) >= most or not turn(name, name):
                del open_[name]
    given: Counter[str] = Counter()
    going = list(THEME.subjects)
    while going and len(choice) < max_books:
        for subject in list(going):
            if given[subject] < cap and turn(subject, ""):
                given[subject] += 1
            else:
                going.remove(subject)
    return choice[:max_books]


def by_theme(entries: Mapping[int, Entry], max_books: int, cap: int) -> list[tuple[int, str]]:
    found = select(
        entries,
        THEME.priority_works,
        THEME.categories,
        THEME.subjects,
        language="en",
        cutoff_year=1969,
        max_books=max_books,
        max_per_subject=cap,
    )
    return [(choice.book_id, choice.category) for choice in found.choices]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return generated(70_000, 1969)


def test_of_seventy_thousand_rows_the_right_five_hundred_are_chosen(rows: list[dict[str, str]]) -> None:
    assert len(rows) > 69_000
    entries = catalogue.read(as_csv(rows))
    found = by_theme(entries, 500, 40)
    assert found == oracle(rows, 500, 40)
    assert len(found) == len(dict(found)) == 500
    assert [book_id for book_id, _ in found[:58]] == list(THEME.priority_works)
    counts = Counter(category for _, category in found)
    assert {c.name: counts[c.name] for c in THEME.categories} == {c.name: c.most for c in THEME.categories}
    texts = {int(row["Text#"]): row for row in rows if row["Type"] == "Text"}
    assert all("en" in texts[book_id]["Language"].split("; ") for book_id, _ in found[58:])
    shuffled = random.Random(7).sample(rows, len(rows))
    assert by_theme(catalogue.read(as_csv(shuffled)), 500, 40) == found
    assert by_theme(entries, 200, 40) == found[:200]
    few = by_theme(entries, 500, 4)
    assert len(few) < 500
    assert few == found[: len(few)]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(200, 1500), st.integers(58, 400), st.integers(1, 9))
def test_any_catalogue_gives_what_the_oracle_says_and_a_larger_limit_continues_it(
    seed: int, count: int, max_books: int, cap: int
) -> None:
    rows = generated(count, seed)
    entries = catalogue.read(as_csv(rows))
    found = by_theme(entries, max_books, cap)
    assert found == oracle(rows, max_books, cap)
    assert found == by_theme(entries, max_books + 100, cap + 3)[: len(found)]
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert found == by_theme(catalogue.read(as_csv(shuffled)), max_books, cap)
