"""Gutenberg's catalogue: its columns, its authors' years, and the choice of books by subject."""

import csv
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text import catalogue
from deepred_ray.text.catalogue import Entry, parse, select
from deepred_ray.theme import Theme

COLUMNS = ("Text#", "Type", "Issued", "Title", "Language", "Authors", "Subjects", "LoCC", "Bookshelves")
SUBJECTS = ("Chess", "Mars (Planet)", "Utopias", "Science fiction")


def _csv(*rows: dict[str, str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    for row in rows:
        writer.writerow({"Text#": "1", "Type": "Text", "Title": "The Ice Canal", "Language": "en", **row})
    return out.getvalue()


def _entry(book_id: int, *subjects: str, language: str = "en") -> Entry:
    return Entry(book_id, "A book", (), None, None, language, subjects)


@pytest.mark.parametrize(
    ("author", "years"),
    [
        ("Holt, Alexander, 1881-1949", (1881, 1949)),
        ("Holt, Alexander, 1881?-1949?", (1881, 1949)),
        ("Holt, Alexander, 1881-1949 [Translator]", (1881, 1949)),
        ("Holt, A. V. (Alexander Verrin), 1881-", (1881, None)),
        ("Holt, Alexander, -1949", (None, 1949)),
        ("Archon of Myrene, 428? BCE-348? BCE", (-428, -348)),
        ("Quintus Faber, 43 BCE-18", (-43, 18)),
        ("Holt, Alexander", (None, None)),
        ("Holt, Alexander, active 12th century", (None, None)),
        ("Holt, Alexander, 1880 or 1881-1949", (None, None)),
        ("Various", (None, None)),
    ],
)
def test_life_dates(author: str, years: tuple[int | None, int | None]) -> None:
    assert catalogue.life(author) == years


@given(st.one_of(st.none(), st.integers(-999, 2000)), st.one_of(st.none(), st.integers(-999, 2000)))
def test_written_years_are_read_back(birth: int | None, death: int | None) -> None:
    def written(year: int | None) -> str:
        return "" if year is None else f"{abs(year)} BCE" if year < 0 else str(year)

    assert catalogue.life(f"Holt, Alexander, {written(birth)}-{written(death)}") == (birth, death)


def test_an_entry() -> None:
    row = {
        "Text#": "77",
        "Title": "The Ice Canal:\r\nA Tale\n of Mars",
        "Language": "en; fr",
        "Authors": "Holt, Alexander, 1881-1949; Sandel, Inge, 1850- [Translator]",
        "Subjects": "Mars (Planet) -- Fiction; Utopias",
        "Bookshelves": "Science Fiction",
    }
    assert parse(_csv(row)) == {
        77: Entry(
            77,
            "The Ice Canal: A Tale of Mars",
            ("Holt, Alexander", "Sandel, Inge"),
            1881,
            1949,
            "en; fr",
            ("Mars (Planet) -- Fiction", "Utopias", "Science Fiction"),
        )
    }


def test_only_texts_are_books_and_authors_may_be_missing() -> None:
    entries = parse(_csv({"Text#": "1", "Type": "Sound"}, {"Text#": "2"}, {"Text#": "3", "Type": "Dataset"}))
    assert list(entries) == [2]
    assert (entries[2].authors, entries[2].birth_year, entries[2].death_year) == ((), None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column Text#"),
        ("<html><body>blocked</body></html>", "no column Text#"),
        ("Text#,Type,Title,Language,Authors,Subjects\n", "no column Bookshelves"),
        (_csv({"Text#": "seven"}), "line 2: Text# is 'seven'"),
        # A download that broke off, in the middle of its last row.
        (_csv({"Text#": "7"}) + "8,Text", "line 3"),
        (_csv({"Text#": "7"}) + "8,Text,2001-01-01,Half a", "line 3"),
    ],
)
def test_what_is_no_catalogue(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_selection_ranks_by_distinct_subjects() -> None:
    entries = [
        _entry(5, "Utopias -- Fiction", "Utopias"),
        _entry(4, "Chess -- Fiction", "UTOPIAS"),
        _entry(3, "Chess"),
        _entry(2, "Chessmen", "Gardening"),
        _entry(1, "Chess", "Utopias", language="fr"),
    ]
    by_id = {entry.book_id: entry for entry in entries}
    assert select(by_id, [], SUBJECTS, "en", 10) == [4, 3, 5]
    assert select(by_id, [], SUBJECTS, "fr", 10) == [1]
    assert select(by_id, [], SUBJECTS, "en", 1) == [4]


def test_priority_comes_first_and_whole() -> None:
    by_id = {number: _entry(number, "Chess") for number in range(1, 6)}
    assert select(by_id, [4, 99], SUBJECTS, "en", 4) == [4, 99, 1, 2]
    assert select(by_id, [4, 99], SUBJECTS, "en", 1) == [4, 99]


def test_a_book_in_two_languages_is_in_either() -> None:
    by_id = {1: _entry(1, "Chess", language="en; fr"), 2: _entry(2, "Chess", language="enm")}
    assert select(by_id, [], SUBJECTS, "en", 10) == [1]


def test_no_subjects_select_nothing() -> None:
    assert select({1: _entry(1, "Chess")}, [7], [], "en", 10) == [7]


@pytest.mark.parametrize("subject", Theme.find("deepred").subjects)
def test_each_heading_of_the_theme_can_be_found(subject: str) -> None:
    assert select({1: _entry(1, f"{subject} -- Fiction")}, [], [subject], "en", 10) == [1]
    assert select({1: _entry(1, f"x{subject}x")}, [], [subject], "en", 10) == []


def test_seventy_thousand_rows_take_seconds() -> None:
    text = _csv(
        *(
            {
                "Text#": str(number),
                "Title": f"The Annals of Town {number}",
                "Language": "de" if number % 5 == 0 else "en",
                "Authors": f"Author, Number {number}, {1700 + number % 200}-{1760 + number % 200}; Second, Name, 1800-",
                "Subjects": f"Gardening -- Fiction; Town {number} -- History; {SUBJECTS[number % 40 % 4]} -- Fiction"
                if number % 40 < 4
                else "Gardening; Weather -- Periodicals; Travel -- Early works",
                "Bookshelves": "Best Books; Browsing: History",
            }
            for number in range(1, 70_001)
        )
    )
    begun = time.process_time()
    entries = parse(text)
    chosen = select(entries, [69_999], Theme.find("deepred").subjects, "en", 3_000)
    assert time.process_time() - begun < 20
    assert len(entries) == 70_000
    assert len(set(chosen)) == len(chosen) == 3_000
    assert chosen[0] == 69_999
