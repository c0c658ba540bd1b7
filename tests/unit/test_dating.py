"""Publication years from title pages and notes, and the temporal rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.dating import CONFIDENCES, Dating, date_work, temporal_rule
from deepred_ray.text.reject import Reject


@pytest.mark.parametrize(
    ("front_matter", "year", "confidence"),
    [
        ("THE PUMPS\n\nby Ada Example\n\n1907\n", 1907, "title_page"),
        ("THE PUMPS\n\nby Ada Example [1908]\n", 1908, "title_page"),
        ("London: Example & Sons, Ltd.\n1909\n", 1909, "title_page"),
        ("LONDON: WILLIAM EXAMPLE 1911\n", 1911, "title_page"),
        ("NEW YORK\n\nMCMXII\n", 1912, "title_page"),
        ("NEW YORK:\n\nM.DCCCC.XII.\n", 1912, "title_page"),
        ("_First published 1913_\n", 1913, "title_page"),
        ("First printed serially in _The Lamp_, 1913.\n_Since reprinted_ 1914; 1915.\n", 1913, "title_page"),
        ("COPYRIGHT, 1914, BY\nADA EXAMPLE\n\n1915\n", 1914, "title_page"),
        ("Entered according to Act of Congress, in the year 1914, by\n", 1914, "title_page"),
        ("Copyright 1914 by A. Example. Copyright renewed 1942.", 1914, "title_page"),
        ("This etext was produced from Far Worlds July 1932.\nExtensive research did not", 1932, "magazine"),
        ('produced from "Far Worlds," February,\n1933.', 1933, "magazine"),
        ("produced from _Far Worlds_ March and\n    April 1938.", 1938, "magazine"),
        ("produced from _Far Worlds Stories_ No. 30 1936.", 1936, "magazine"),
        (
            "| This etext was produced from Far Worlds August, |\n| September and October 1928. Other notes |",
            1928,
            "magazine",
        ),
        ("Transcribed from the 1911 A. B. Example (revised) edition by Cy Typist", 1911, "edition"),
        ("Prepared from the 1919 edition and first posted in\nAugust, 1994.", 1919, "edition"),
        ("Copyright, 1914, 1921, by Ada Example", 1914, "title_page"),
        ("Copyright 1914, renewed 1942, by Ada Example", 1914, "title_page"),
        ("Copyright MCMXIV by Ada Example", 1914, "title_page"),
        ("London, MDCCCXC", 1890, "title_page"),
        ("LONDON:\nPrinted in the Year M.DCCC.XC.", 1890, "title_page"),
        ("NEW YORK · 1914", 1914, "title_page"),
        ("Original publication: New York: E. X. Ample & Co., 1914", 1914, "title_page"),
        ("Date of first publication: 1914\nDate first posted: 1 April 2008", 1914, "title_page"),
        ("Planet Stories July 1932", 1932, "magazine"),
        ("_Amazing Tales_, July 1932", 1932, "magazine"),
        ("The following is an e-text of The Pumps by Ada Example, copyright 1914", 1914, "title_page"),
        ("FIFTH EDITION\n\nLONDON\n\n1921\n", 1921, "edition"),
    ],
)
def test_evidence(front_matter: str, year: int, confidence: str) -> None:
    dating = date_work("The Pumps", front_matter, 1870, 1940)
    assert (dating.year, dating.confidence) == (year, confidence)
    assert dating.evidence


@pytest.mark.parametrize(
    "front_matter",
    [
        "LOOKING AHEAD\n\nFrom 2000 to 1887\n",
        "BOOK ONE: 1925\n",
        "A Tale of 1902\n",
        "ANTARCTIC\n\n1910-1913\n",
        "Boston, December 26, 2000\n",
        "They fell 2000 feet.",
        "It was the year 1900 and the pumps stood still",
        "THE PLANET, IN 1902.]",
        "first posted in August, 1994. Updated: May 2011",
        "1850\n",
        "Boston, December, 2000\n",
        "Copyright renewed 1935 by Ada Example",
        "© 1935 (renewed)",
        "THIS ELECTRONIC VERSION OF THE COMPLETE WORKS OF ADA EXAMPLE IS\nCOPYRIGHT 1990-1993 BY A LIBRARY",
        "She lived here from 1900 to 1910. The book was found later.",
        "THE MILD MIMIC",
    ],
)
def test_what_is_no_date_of_publication(front_matter: str) -> None:
    assert date_work("Looking Ahead", front_matter, 1870, 1940) == Dating(1940, "the author died in 1940", "author_life")


def test_year_of_the_title_is_no_imprint() -> None:
    assert date_work("1924", "1924\n\nby Ada Example\n\n1919\n", 1870, 1940).year == 1919


def test_yearbook() -> None:
    assert date_work("The Example Factbook 1999", "", None, None) == Dating(1999, "The Example Factbook 1999", "metadata")


def test_imprint_after_death_is_an_edition() -> None:
    assert date_work("The Republic of Ice", "LONDON\n1888\n", -428, -348).confidence == "edition"


def test_new_translation_counts_as_new() -> None:
    dating = date_work("Ice", "First published 1881\nTranslation copyright 1985 by B. Sample", 1821, 1881)
    assert (dating.year, dating.confidence) == (1985, "title_page")


def test_imprint_of_a_translation_is_its_date_also_after_the_authors_death() -> None:
    dating = date_work("Ice", "ICE\n\nTranslated by B. Sample\n\nLONDON\n\n1972\n", 1821, 1881)
    assert (dating.year, dating.confidence) == (1972, "title_page")
    assert temporal_rule(dating, 1881, 1969) == Reject("published_after_cutoff", "1972 by title_page: 1972")


def test_nothing_known() -> None:
    assert date_work("Ice", "", None, None).year is None
    assert date_work("Ice", "", None, None).confidence == "none"


@given(st.text(), st.text(), st.none() | st.integers(-500, 1990), st.none() | st.integers(-500, 2020))
def test_any_text_gives_an_ordered_word_and_evidence(title: str, front: str, birth: int | None, death: int | None) -> None:
    dating = date_work(title, front, birth, death)
    assert dating.confidence in CONFIDENCES
    assert (dating.year is None) == (dating.confidence == "none")


@given(st.integers(1450, 2099), st.integers(1600, 2050))
def test_known_year_decides(year: int, cutoff: int) -> None:
    result = temporal_rule(Dating(year, "1", "title_page"), None, cutoff)
    assert (result is None) == (year < cutoff)
    assert result is None or result.reason == "published_after_cutoff"


@pytest.mark.parametrize(
    ("dating", "death_year", "reason"),
    [
        (Dating(1968, "", "title_page"), 2001, None),
        (Dating(1969, "", "magazine"), 1960, "published_after_cutoff"),
        (Dating(1915, "", "edition"), 1981, None),
        (Dating(1985, "", "edition"), 1881, None),
        (Dating(1985, "", "edition"), 1990, "undatable"),
        (Dating(1946, "", "author_life"), 1946, None),
        (Dating(1992, "", "author_life"), 1992, "undatable"),
        (Dating(-348, "", "author_life"), -348, None),
        (Dating(None, "", "none"), None, "undatable"),
        (Dating(None, "", "none"), 1900, None),
    ],
)
def test_temporal_rule(dating: Dating, death_year: int | None, reason: str | None) -> None:
    result = temporal_rule(dating, death_year, 1969)
    assert (result.reason if isinstance(result, Reject) else None) == reason
