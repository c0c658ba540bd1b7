"""Gutenberg's catalogue: its columns, its authors' years, and what is no catalogue."""

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text import catalogue
from deepred_ray.text.catalogue import Entry, parse, read

COLUMNS = ("Text#", "Type", "Issued", "Title", "Language", "Authors", "Subjects", "LoCC", "Bookshelves")


def _csv(*rows: dict[str, str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    for row in rows:
        writer.writerow({"Text#": "1", "Type": "Text", "Title": "The Ice Canal", "Language": "en", **row})
    return out.getvalue()


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
            ("en", "fr"),
            ("Mars (Planet) -- Fiction", "Utopias"),
            ("Science Fiction",),
        )
    }


def test_only_texts_are_books_and_authors_may_be_missing() -> None:
    entries = parse(_csv({"Text#": "1", "Type": "Sound"}, {"Text#": "2"}, {"Text#": "3", "Type": "Dataset"}))
    assert list(entries) == [2]
    assert (entries[2].authors, entries[2].birth_year, entries[2].death_year) == ((), None, None)


def test_the_order_of_columns_and_columns_more_do_not_matter() -> None:
    header = ("Bookshelves", "Subjects", "Authors", "Language", "New", "Title", "Type", "Text#")
    assert parse(f"{','.join(header)}\nPolitics,Labor,,en,x,Two Roads,Text,9\n") == {
        9: Entry(9, "Two Roads", (), None, None, ("en",), ("Labor",), ("Politics",))
    }


def test_a_row_twice_is_one_book() -> None:
    assert list(parse(_csv({"Text#": "7"}, {"Text#": "8"}, {"Text#": "7"}))) == [7, 8]


WHOLE = _csv({"Text#": "7", "Title": 'A "quoted", title'}, {"Text#": "8", "Title": "On two\nlines"}, {"Text#": "9"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column Text#, .*; it begins ''"),
        ("<html><body>blocked</body></html>", "no column Text#, .*; it begins '<html><body>blocked"),
        ('{"count": 70000, "results": []}', "no column Text#"),
        ('<?xml version="1.0"?>\n<rdf:RDF>\n</rdf:RDF>\n', "no column Text#"),
        ("id,title\n1,The Ice Canal\n", "no column Text#"),
        ("Text#,Type,Title,Language,Authors,Subjects\n", "no column Bookshelves;"),
        (_csv(), "no row of type Text"),
        (_csv({"Type": "Sound"}), "no row of type Text"),
        (_csv({"Text#": "seven"}), "line 2: Text# is 'seven'"),
        (_csv({"Text#": "-7"}), "line 2: Text# is '-7'"),
        (_csv({"Text#": "7"}, {"Text#": "7", "Title": "Another"}), "line 3: Text# 7 has another row"),
        # A download that broke off: in a row, in a row's last cell, within quotes.
        (_csv({"Text#": "7"}) + "8,Text", "line 3: the row has 2 columns of 9"),
        (_csv({"Text#": "7"}) + "8,Text,2001-01-01,Half a,en,,,,Scien", "line 3: the file breaks off here"),
        (_csv({"Text#": "7"}) + '8,Text,2001-01-01,"Half, a', "line 3: unexpected end of data"),
        (_csv({"Text#": "7"}) + "8,Text,2001-01-01,T,en,,,,,one more\n", "line 3: the row has 10 columns of 9"),
        (_csv({"Text#": "7", "Title": "On two\nlines"}, {"Text#": "x"}), "line 4: Text# is 'x'"),
        (_csv({"Text#": "7"}, {"Text#": "8", "Title": "A\0B"}), "line 3: a NUL byte"),
        (_csv({"Text#": "7"}, {"Text#": "8", "Title": "A" * 200_000}), "line 3: field larger than field limit"),
        (_csv({"Text#": "7"}) + '8,Text,2001-01-01,"T"x,en,,,,\n', "line 3: ',' expected after '\"'"),
    ],
)
def test_what_is_no_catalogue(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(text.encode())


@given(st.integers(1, len(WHOLE) - 1))
def test_no_part_of_a_catalogue_passes_for_the_whole_unless_it_ends_with_a_row(length: int) -> None:
    part = WHOLE[:length]
    try:
        entries = parse(part)
    except ValueError:
        return
    assert part.endswith("\n")
    assert entries == {book_id: entry for book_id, entry in parse(WHOLE).items() if book_id in entries}


def test_packed_or_not_with_a_mark_of_its_encoding_or_without() -> None:
    text = _csv({"Title": "Æneid — «X»"})
    for plain in (text.encode(), text.encode("utf-8-sig")):
        assert read(plain) == read(gzip.compress(plain)) == parse(text)
    assert parse(text)[1].title == "Æneid — «X»"


@pytest.mark.parametrize("damage", ["cut", "flipped", "headless"])
def test_a_damaged_gzip_is_named(damage: str) -> None:
    packed = bytearray(gzip.compress(WHOLE.encode()))
    if damage == "cut":
        packed = packed[:-9]
    elif damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    else:
        packed = packed[:5]
    with pytest.raises(ValueError, match="damaged gzip: "):
        read(bytes(packed))


def test_bytes_that_are_no_utf8_are_named_with_their_line() -> None:
    data = _csv({"Text#": "7"}, {"Text#": "8", "Title": "Café"}).encode("latin-1")
    with pytest.raises(ValueError, match="catalogue line 3: byte 0xe9 is not UTF-8"):
        read(data)
    with pytest.raises(ValueError, match=r"is not UTF-8|NUL"):
        read(WHOLE.encode("utf-16"))
