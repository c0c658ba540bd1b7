"""Header fields and stripping, on small texts of each generation of Gutenberg file."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepred_ray.text.gutenberg import Stripped, parse_header, strip
from deepred_ray.text.reject import Reject

PARAGRAPH = (
    "The pumps of the northern settlement ran through the whole winter, and nobody in the long gallery could sleep\n"
    "without their sound. When they stopped at last, every lamp was lit, and the old engineer walked from door\n"
    "to door to say that it was only the ice, that it had come again, and that he would go down himself to look.\n"
)
BODY = "CHAPTER I\n\n" + "\n".join([PARAGRAPH] * 6).rstrip()
TITLE_PAGE = "THE WINTER PUMPS\n\nby\n\nAda Example\n\n1907\n\n\n"

MODERN_HEAD = """The Project Gutenberg EBook of The Winter Pumps, by Ada Example

This eBook is for the use of anyone anywhere.

Title: The Winter Pumps
       A Tale of the Ice

Author: Ada Example and Ben Sample

Release Date: May 3, 2006 [EBook #4242]

Language: English

Character set encoding: ISO-8859-1

"""
FULL_LICENCE = "\n\n*** START: FULL LICENSE ***\n\nProject Gutenberg-tm terms.\n"
LICENCE = "\n\nUpdated editions will replace the previous one." + FULL_LICENCE
SMALL_PRINT = """***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***
By using this PROJECT GUTENBERG-tm etext you accept this statement.
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*

"""
OLD_HEAD = "**The Project Gutenberg Etext of The Winter Pumps, by Ada Example**\n\nDecember, 1994  [Etext #77]\n\n\n"
END_LINE = "\n\n\nEnd of the Project Gutenberg EBook of The Winter Pumps, by\nAda Example\n"

AUSTRALIAN = """Title: The Winter Pumps
Author: Ada Example
* A Project Gutenberg of Australia eBook *
eBook No.: 0100021.txt
Language: English
Date first posted: August 2001
Date most recently updated: November 2008

This eBook was produced by: Cy Typist

Project Gutenberg of Australia eBooks are created from printed editions
which are in the public domain in Australia, unless a copyright notice
is included. We do NOT keep any eBooks in compliance with a particular
paper edition.

Copyright laws are changing all over the world. Be sure to check the
copyright laws for your country before downloading or redistributing this
file.

This eBook is made available at no cost and with almost no restrictions
whatsoever. You may copy it, give it away or re-use it under the terms
of the Project Gutenberg of Australia License which may be viewed online at
http://gutenberg.net.au/licence.html

To contact Project Gutenberg of Australia go to http://gutenberg.net.au

-----------------------------------------------------------------

A Project Gutenberg of Australia eBook

Title: The Winter Pumps
Author: Ada Example

"""
CANADIAN = """* A Project Gutenberg Canada Ebook *

This ebook is made available at no cost and with very few
restrictions. These restrictions apply only if (1) you make
a change in the ebook, or (2) you are making commercial use of
the ebook. If either of these conditions applies, please
check gutenberg.ca/links/licence.html before proceeding.

This work is in the Canadian public domain, but may be
under copyright in some countries. If you live outside Canada,
check your country's copyright laws. IF THE BOOK IS UNDER
COPYRIGHT IN YOUR COUNTRY, DO NOT DOWNLOAD
OR REDISTRIBUTE THIS FILE.

Title: The Winter Pumps
Author: Ada Example (1870-1940)
Date of first publication: 1907
Edition used as base for this ebook:
   London: Example, 1909
Date first posted: 1 April 2008
Date last updated: 1 April 2008
Project Gutenberg Canada ebook #101

This ebook was produced by: Cy Typist

"""
START = "*** START OF THE PROJECT GUTENBERG EBOOK THE WINTER PUMPS ***\n\n\n"
END = "\n\n\n*** END OF THE PROJECT GUTENBERG EBOOK THE WINTER PUMPS ***\n" + LICENCE
LIBRARY = "<<THIS ELECTRONIC VERSION OF THE COMPLETE WORKS OF ADA EXAMPLE IS\nCOPYRIGHT 1990-1993 BY A LIBRARY>>\n\n"

GENERATIONS = {
    "this": (
        MODERN_HEAD + "*** START OF THIS PROJECT GUTENBERG EBOOK THE WINTER PUMPS ***\n\n\n",
        END_LINE + "\n*** END OF THIS PROJECT GUTENBERG EBOOK THE WINTER PUMPS ***\n" + LICENCE,
        "start:modern+end:line",
    ),
    "no space": (
        MODERN_HEAD + "***START OF THE PROJECT GUTENBERG EBOOK THE WINTER PUMPS***\n\n\n",
        "\n\n\n***END OF THE PROJECT GUTENBERG EBOOK THE WINTER PUMPS***\n" + LICENCE,
        "start:modern+end:modern",
    ),
    "wrapped": (
        MODERN_HEAD + "***START OF THE PROJECT GUTENBERG EBOOK THE WINTER PUMPS AND\nWHAT CAME AFTER***\n\n\n",
        "\n\n\n***END OF THE PROJECT GUTENBERG EBOOK THE WINTER PUMPS AND\nWHAT CAME AFTER***\n" + LICENCE,
        "start:modern+end:modern",
    ),
    "small print first": (OLD_HEAD + SMALL_PRINT, END_LINE, "start:smallprint+end:line"),
    "small print first, no end": (OLD_HEAD + SMALL_PRINT, "", "start:smallprint"),
    "small print last": (
        MODERN_HEAD + "*** START OF THE PROJECT GUTENBERG EBOOK THE WINTER PUMPS ***\n\n",
        "\n\n*** END OF THE PROJECT GUTENBERG EBOOK THE WINTER PUMPS ***\n\nAbout dates.\n\n" + SMALL_PRINT,
        "start:modern+end:modern",
    ),
    "header without marker": (
        OLD_HEAD,
        "\n\nEnd of Project Gutenberg's The Winter Pumps\n",
        "start:legacy+end:line",
    ),
    "licence only": (OLD_HEAD, FULL_LICENCE, "start:legacy+end:licence"),
    "no stars": (
        MODERN_HEAD + "START OF THIS PROJECT GUTENBERG EBOOK THE WINTER PUMPS\n\n\n",
        "\n\n\nEND OF THIS PROJECT GUTENBERG EBOOK THE WINTER PUMPS\n" + LICENCE,
        "start:modern+end:line",
    ),
    "copyrighted": (
        "*This is a COPYRIGHTED Project Gutenberg eBook, Details Below*\n\n" + MODERN_HEAD + START,
        END,
        "start:modern+end:modern",
    ),
    "copyrighted small print": (
        OLD_HEAD + SMALL_PRINT.replace("PUBLIC DOMAIN", "COPYRIGHT PROTECTED"),
        END_LINE,
        "start:smallprint+end:line",
    ),
    "wrapped small print": (OLD_HEAD + SMALL_PRINT.replace("DOMAIN ", "DOMAIN\n"), END_LINE, "start:smallprint+end:line"),
    "one header after another": (MODERN_HEAD + START + OLD_HEAD + SMALL_PRINT, END_LINE + END, "start:modern+end:line"),
    "starred end line": (
        OLD_HEAD + SMALL_PRINT,
        "\n\n*** End of The Project Gutenberg Etext of The Winter Pumps ***\n",
        "start:smallprint+end:modern",
    ),
    "German": (OLD_HEAD + SMALL_PRINT, "\n\nEnde dieses Projekt Gutenberg Etextes The Winter Pumps\n", "start:smallprint+end:line"),
    "French": (MODERN_HEAD + START, "\n\nFin du Project Gutenberg EBook de The Winter Pumps\n" + END, "start:modern+end:line"),
    "nothing": ("", "", "none"),
}
CREDITS = {
    "none": "",
    "produced": "Produced by Cy Typist and the Online\nDistributed Proofreading Team at http://www.pgdp.net\n\n\n",
    "prepared": "E-text prepared by Cy Typist\n\n\nNote: Project Gutenberg also has an HTML version of this\n      file.\n\n\n",
    "transcribed": "Transcribed from the 1907 Example Press edition by Cy Typist, email cy@example.org\n\n\n",
    "bracket": "Produced by Cy Typist\n\n\n"
    "[Transcriber's Note: Two misprints [of one\nletter] were corrected.\n\nItalics are lost.]\n\n\n",
    "box": "Produced by Cy Typist\n\n\n"
    "   +-------------------+\n   | Transcriber's Note |\n   |                   |\n"
    "   | Spelling is kept. |\n   +-------------------+\n\n\n",
    "heading": "Transcriber's Notes\n\nItalics stand between _underscores_.\n\nSpelling was left as printed.\n\n\n",
}
CREDITS |= {
    "address": "Cy Typist, cy@example.org\n\n\n",
    "German": "Anmerkungen zur Transkription\n\nDie Orthographie wurde beibehalten; gesperrt ist _so_.\n\n\n",
    "library": LIBRARY,
}
TAILS = {
    "none": "",
    "heading": "\n\n\nTranscriber's Note:\n\n    This etext was produced from _Far Worlds_ May 1952.\n"
    "    Spelling errors were corrected.\n",
    "bracket": "\n\n[Transcriber's Notes: A torn page [***] hides a line;\nsee the original.]\n",
    "box": "\n\n  +-----------------+\n  | Errors corrected |\n"
    "  | Page 3: teh      |\n  | Spelling is kept |\n  +-----------------+\n",
}
TAILS |= {
    "unsigned": "\n\n\nNote: I have made the following\nchanges to the text:\n\n  PAGE  ORIGINAL  CHANGED TO\n    16  teh  the\n",
    "credit": "\n\n\nE-text prepared by Cy Typist, with thanks to\nwww.example.org\n",
    "French": "\n\n\nNote sur la transcription: les coquilles ont \u00e9t\u00e9 corrig\u00e9es.\n",
}
ADVERTISEMENTS = """

BY THE SAME AUTHOR

THE SUMMER LAMPS. Crown 8vo, cloth gilt, 6s.

"A clever book."--_The Lamp._

ICE. Third Edition. 3s. 6d. net.

LONDON: EXAMPLE AND SONS, PUBLISHERS.
"""


def stripped(text: str) -> Stripped:
    result = strip(text)
    assert isinstance(result, Stripped), result
    return result


def rejected(result: object) -> str:
    assert isinstance(result, Reject), result
    return result.reason


# Header


def test_fields_and_continued_title() -> None:
    header = parse_header(MODERN_HEAD + "*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\nTitle: not this\n")
    assert header.title == "The Winter Pumps A Tale of the Ice"
    assert header.authors == ("Ada Example", "Ben Sample")
    assert (header.language, header.release, header.encoding) == ("English", "May 3, 2006", "ISO-8859-1")
    assert header.ebook_id == "4242"


def test_old_header() -> None:
    header = parse_header(OLD_HEAD)
    assert (header.title, header.authors) == ("The Winter Pumps", ("Ada Example",))
    assert (header.release, header.ebook_id, header.language) == ("December, 1994", "77", None)


def test_no_header_gives_nothing() -> None:
    header = parse_header(BODY)
    assert (header.title, header.authors, header.ebook_id) == (None, (), None)


# Stripping


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("credits", CREDITS)
@pytest.mark.parametrize("tail", TAILS)
def test_body_comes_back(generation: str, credits: str, tail: str) -> None:
    head, end, rule = GENERATIONS[generation]
    result = stripped(head + CREDITS[credits] + TITLE_PAGE + BODY + TAILS[tail] + end)
    assert result.text == TITLE_PAGE + BODY
    assert result.text[result.body_start :] == BODY
    expected = [rule] * (rule != "none") + ["credits"] * (credits != "none") + ["notes"] * (tail != "none")
    if generation != "header without marker" and generation != "licence only":
        assert result.rule == ("+".join(expected) or "none")
    assert "START OF" not in result.notes


SENTENCES = st.lists(
    st.sampled_from(
        [
            "The pump stood still.",
            "No one spoke in the gallery.",
            '"It is the ice," said the engineer.',
            "I",
            "PART TWO",
            "* * * * *",
        ]
    ),
    min_size=4,
    max_size=30,
)


@settings(max_examples=60)
@given(generation=st.sampled_from(sorted(GENERATIONS)), sentences=SENTENCES)
def test_wrapping_any_body_gives_it_back(generation: str, sentences: list[str]) -> None:
    body = PARAGRAPH + "\n" + "\n\n".join(sentences) + "\n\n" + "\n".join([PARAGRAPH] * 4).rstrip()
    head, end, _ = GENERATIONS[generation]
    result = stripped(head + "\n\n" + body + "\n\n" + end)
    assert result.text == body
    assert result.body_start == 0


def test_notes_tell_what_was_transcribed() -> None:
    head, end, _ = GENERATIONS["this"]
    result = stripped(head + CREDITS["produced"] + BODY + TAILS["heading"] + end)
    assert "Far Worlds_ May 1952" in result.notes
    assert "Release Date" not in result.notes


def test_printers_and_the_projects_name_may_be_mentioned() -> None:
    head, end, _ = GENERATIONS["this"]
    body = BODY + "\n\nNo press since Gutenberg had printed so much; a project of Gutenberg would have failed."
    assert stripped(head + body + end).text == body


def test_indented_first_line_keeps_its_indent() -> None:
    head, end, _ = GENERATIONS["this"]
    assert stripped(head + "\n\n      THE PUMPS\n\n" + BODY + end).text.startswith("      THE PUMPS")


def test_start_without_end_is_truncated() -> None:
    assert rejected(strip(GENERATIONS["this"][0] + BODY)) == "truncated"


@pytest.mark.parametrize("words", ["the Project Gutenberg-tm License", "*** END OF THIS PROJECT GUTENBERG EBOOK X ***"])
def test_licence_in_the_body_is_never_let_through(words: str) -> None:
    head, end, _ = GENERATIONS["this"]
    text = head + BODY + f"\n\nSee {words}.\n\n" + "\n".join([PARAGRAPH] * 200) + end
    assert rejected(strip(text)) == "licence_remains"
    assert rejected(strip(BODY + f"\n\nSee {words}.\n")) == "licence_remains"


def test_too_short() -> None:
    head, end, _ = GENERATIONS["this"]
    assert rejected(strip(head + PARAGRAPH + end)) == "too_short"


@pytest.mark.parametrize(
    "tail", ["THE END\n\nThis site is full of FREE ebooks - Project Gutenberg Australia", "Project Gutenberg Australia"]
)
def test_australian(tail: str) -> None:
    result = stripped(AUSTRALIAN + TITLE_PAGE + BODY + f"\n\n{tail}\n")
    assert result.text.removesuffix("\n\nTHE END") == TITLE_PAGE + BODY
    assert result.rule == "start:legacy+end:line+credits"


def test_canadian_says_when_the_book_was_published() -> None:
    result = stripped(CANADIAN + TITLE_PAGE + BODY + "\n\n[End of _The Winter Pumps_, by Ada Example]\n")
    assert result.text == TITLE_PAGE + BODY
    assert "Date of first publication: 1907" in result.notes
    assert "2008" not in result.notes


def test_original_publication_of_the_header_is_a_note() -> None:
    head = MODERN_HEAD.replace("Language: English", "Original publication: London: Example, 1907\n\nLanguage: English")
    assert stripped(head + START + BODY + END).notes == "Original publication: London: Example, 1907"


def test_second_start_line_after_the_credits() -> None:
    assert stripped(MODERN_HEAD + START + CREDITS["produced"] + START + BODY + END).text == BODY


def test_several_works_are_not_cut_to_one() -> None:
    work = MODERN_HEAD + START + BODY
    assert rejected(strip(work + END + "\n\n" + work + END)) == "several_works"
    assert rejected(strip(work + "\n\n" + START + BODY + END)) == "licence_remains"


def test_note_inside_the_book_is_not_its_end() -> None:
    body = BODY + "\n\nTranscriber's Note: a page is torn here.\n\nCHAPTER II\n\n" + PARAGRAPH.rstrip()
    assert stripped(MODERN_HEAD + START + body + END).text == body


@pytest.mark.parametrize("note", ["", "\n\nTranscriber's Note: Spelling was corrected.\n"])
def test_advertisements_after_the_end_are_cut(note: str) -> None:
    book = BODY + "\n\nTHE END"
    result = stripped(MODERN_HEAD + START + book + ADVERTISEMENTS + note + END)
    assert result.text == book
    assert "8vo" not in result.notes


@pytest.mark.parametrize(
    "after",
    [
        PARAGRAPH,
        "NOTES\n\n[1] The lamp cost 6s. in cloth, 8vo, and $ 2 net.\n\n[2] Third Edition, by the same author.\n",
        "INDEX\n\nIce, 1\n\nLamps, 6s., $1, cloth, publishers, edition, 2\n",
        "PRINTED BY EXAMPLE AND SONS, PUBLISHERS, LONDON\n",
    ],
)
def test_what_else_follows_the_end_is_kept(after: str) -> None:
    book = BODY + "\n\nTHE END\n\n\n" + after.rstrip()
    assert stripped(MODERN_HEAD + START + book + END).text == book


# Front matter


def front(text: str) -> str:
    result = stripped(text)
    return result.text[result.body_start :]


def test_contents_end_where_the_first_entry_comes_again() -> None:
    contents = "CONTENTS\n\n  I. THE ICE ........ 1\n  II. THE LAMPS ..... 20\n  III. THE DOOR ..... 41\n\n\n"
    body = "CHAPTER I\n\nTHE ICE\n\n" + PARAGRAPH + "\n\nCHAPTER II\n\nTHE LAMPS\n\n" + "\n".join([PARAGRAPH] * 4).rstrip()
    assert front(TITLE_PAGE + contents + body) in body
    assert PARAGRAPH in front(TITLE_PAGE + contents + body)
    assert "41" not in front(TITLE_PAGE + contents + body)


def test_preface_that_the_contents_leave_out_is_body() -> None:
    contents = "CONTENTS\n\n  The Ice\n  The Lamps\n\n\n"
    body = "INTRODUCTION\n\n" + PARAGRAPH + "\n\nThe Ice\n\n" + "\n".join([PARAGRAPH] * 4).rstrip()
    assert front(TITLE_PAGE + contents + body) == body


def test_publishers_list_and_epigraph_are_front_matter() -> None:
    front_matter = (
        TITLE_PAGE
        + "All rights reserved. No part of this book may be printed again or read aloud without leave from\n"
        + "the publishers, who will be glad to send a list of all that they have printed in this same cheap series.\n\n"
        + "     Who sleeps below the ice shall hear the pumps,\n     and who has heard them shall not sleep again,\n"
        + "     nor shall he wake his neighbour with a song\n     that he has heard below the ice at night.\n\n"
    )
    assert front(front_matter + BODY) == BODY


def test_short_speeches_before_the_first_paragraph_belong_to_the_body() -> None:
    body = '"Listen!"\n\nNobody moved.\n\n' + "\n".join([PARAGRAPH] * 4).rstrip()
    assert front(TITLE_PAGE + body) == body


def test_nothing_to_tell_apart_gives_zero() -> None:
    moves = "\n".join(f"{n}. P-K4   P-K4" for n in range(1, 100))
    assert stripped(moves).body_start == 0


def test_verse_is_body() -> None:
    stanza = (
        "The pumps go round below the ice,\n  And none shall sleep who hears;\n"
        "The lamp is lit, the door is shut,\n  And so go by the years."
    )
    poems = "THE ICE\n\n" + "\n\n".join([stanza] * 20) + "\n\nNOTE\n\n" + PARAGRAPH.rstrip()
    assert front(TITLE_PAGE + poems).startswith(stanza)


def test_first_chapter_is_kept_when_only_the_second_comes_again() -> None:
    contents = "CONTENTS\n\n  A Long Name for the Ice ... 1\n  The Lamps ..... 20\n\n\n"
    body = "I\n\nThe Ice\n\n" + "\n".join([PARAGRAPH] * 4) + "\n\nThe Lamps\n\n" + PARAGRAPH.rstrip()
    assert PARAGRAPH in front(TITLE_PAGE + contents + body).split("The Lamps")[0]


def test_terms_of_performance_are_front_matter() -> None:
    terms = (
        "_The play may be given by amateurs upon payment of a royalty of five pounds for each performance, and no changes\n"
        "shall be made in it for your production unless they are allowed by the owners, who will answer any letter._\n\n"
    )
    assert front(TITLE_PAGE + terms + BODY) == BODY


# Whole books

PARTS = st.fixed_dictionaries(
    {
        "generation": st.sampled_from(sorted(GENERATIONS)),
        "credits": st.sampled_from(sorted(CREDITS)),
        "tail": st.sampled_from(sorted(TAILS)),
        "contents": st.booleans(),
        "preface": st.booleans(),
        "advertisements": st.booleans(),
        "chapters": st.lists(st.sampled_from(["The Ice", "The Lamps", "The Door", "Winter"]), min_size=2, unique=True),
        "paragraphs": st.integers(2, 5),
    }
)


@settings(max_examples=200)
@given(PARTS)
def test_any_book_keeps_its_chapters_and_nothing_else(parts: dict[str, Any]) -> None:
    head, end, _ = GENERATIONS[parts["generation"]]
    names = parts["chapters"]
    contents = "CONTENTS\n\n" + "".join(f"  {number}. {name} .... {9 * number}\n" for number, name in enumerate(names, 1)) + "\n\n"
    preface = f"PREFACE\n\n{PARAGRAPH}\n\n" if parts["preface"] else ""
    chapters = "\n\n".join(
        f"CHAPTER {number}\n\n{name.upper()}\n\n" + "\n".join([PARAGRAPH] * parts["paragraphs"])
        for number, name in enumerate(names, 1)
    )
    book = TITLE_PAGE + contents * parts["contents"] + preface + chapters.rstrip() + "\n\nTHE END"
    text = head + CREDITS[parts["credits"]] + book + ADVERTISEMENTS * parts["advertisements"] + TAILS[parts["tail"]] + end
    result = stripped(text)
    assert result.text == book
    body = result.text[result.body_start :]
    assert body.count(PARAGRAPH.strip()) == book.count(PARAGRAPH.strip())
    assert "1907" not in body
    assert "...." not in body
