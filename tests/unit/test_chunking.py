"""Chunking: nothing lost, nothing doubled, sentences whole, and what has a layout keeps it."""

import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from deepred_ray.text.chunking import Chunk, Measure, characters, chunk_overlap, chunk_paragraphs

SENTENCES = [
    "The pumps had been running since the second winter, and nobody in the lower gallery heard them any longer.",
    "Mr. Orlov counted the valves twice.",
    "No pressure was lost.",
    '"Is the ice clean?" asked the girl.',
    "He answered that it was clean enough for the boilers, though not for the tanks of the school.",
    "Dr. A. N. Petrov wrote the figures down; the others waited.",
]


def prose(sentences: int, *, width: int = 70) -> str:
    """One hard-wrapped paragraph."""
    text = " ".join(SENTENCES[i % len(SENTENCES)] for i in range(sentences))
    return textwrap.fill(text, width, break_on_hyphens=False, break_long_words=False)


def squeezed(text: str) -> str:
    """The text without any blank."""
    return "".join(text.split())


def limit(size: int, minimum: int) -> int:
    """The longest chunk that the docstring allows."""
    return size + 3 * (minimum + 2) + 250


def byte_level_bpe() -> Tokenizer:
    """A tokenizer like those of today's models, but with few words of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


BPE = byte_level_bpe()


def tokens(texts: Sequence[str]) -> list[int]:
    """Measure texts in tokens."""
    return [len(encoding.ids) for encoding in BPE.encode_batch(list(texts))]


words = st.text(st.sampled_from("abAZ.é漢🚀—-|\"'“”0 \t\x0b\u00a0\u2028"), min_size=1, max_size=30)
lines = st.lists(words, max_size=12).map(" ".join)
texts = st.one_of(
    st.lists(lines, max_size=25).map("\n".join),
    st.lists(st.one_of(lines, st.integers(1, 30).map(prose), st.just("CHAPTER IV"), st.just("THE LONG WINTER")), max_size=12).map(
        "\n\n".join
    ),
    st.lists(lines, max_size=12).map("\r\n".join),
    st.text(max_size=400),
)
sizes = st.integers(1, 600).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size)))
measures = st.sampled_from([characters, tokens])


def check(chunk: Chunk, text: str, bounds: tuple[int, int], measure: Measure) -> None:
    """A chunk reads as its span does, and is as long as it may be and as it says."""
    size, minimum = bounds
    (length,) = measure([chunk.text])
    assert squeezed(text[chunk.start : chunk.end]) == squeezed(chunk.text)
    assert length <= chunk.length
    assert measure is tokens or length == chunk.length
    # A character alone can have more tokens than the size.
    assert chunk.length <= limit(max(size, 4), minimum)


@settings(max_examples=300)
@given(text=texts, bounds=sizes, measure=measures, data=st.data())
def test_paragraph_chunks_hold_all_text_once(text: str, bounds: tuple[int, int], measure: Measure, data: st.DataObject) -> None:
    size, minimum = bounds
    start = data.draw(st.integers(0, len(text)))
    chunks = chunk_paragraphs(text, start=start, size=size, minimum=minimum, measure=measure)
    at = start
    for chunk in chunks:
        assert at <= chunk.start < chunk.end <= len(text)
        assert not text[at : chunk.start].strip()
        assert chunk.length >= minimum or len(chunks) == 1
        check(chunk, text, bounds, measure)
        at = chunk.end
    assert not text[at:].strip()
    assert chunks == chunk_paragraphs(text, start=start, size=size, minimum=minimum, measure=measure)


@settings(max_examples=300)
@given(text=texts, bounds=sizes, measure=measures, data=st.data())
def test_overlapping_chunks_hold_all_text_in_order(
    text: str, bounds: tuple[int, int], measure: Measure, data: st.DataObject
) -> None:
    size, minimum = bounds
    start = data.draw(st.integers(0, len(text)))
    overlap = data.draw(st.integers(0, size - 1))
    chunks = chunk_overlap(text, start=start, size=size, overlap=overlap, minimum=minimum, measure=measure)
    reached, last_start = start, -1
    for chunk in chunks:
        assert last_start < chunk.start
        assert reached < chunk.end
        assert not text[reached : chunk.start].strip()
        assert chunk.length >= minimum or len(chunks) == 1
        check(chunk, text, bounds, measure)
        reached, last_start = chunk.end, chunk.start
    assert not text[reached:].strip()


@settings(max_examples=30)
@given(sentences=st.integers(1, 300), size=st.integers(70, 400))
@pytest.mark.parametrize("mode", [chunk_paragraphs, partial(chunk_overlap, overlap=8)])
def test_chunks_of_prose_have_as_many_tokens_as_asked(mode: Callable[..., list[Chunk]], sentences: int, size: int) -> None:
    *chunks, last = mode(prose(sentences), size=size, minimum=10, measure=tokens)
    for chunk in chunks:
        assert 0.8 * size - max(tokens(SENTENCES)) <= tokens([chunk.text])[0] <= size
    assert tokens([last.text])[0] <= size + 12


@pytest.mark.parametrize("mode", [chunk_paragraphs, partial(chunk_overlap, overlap=0)])
@pytest.mark.parametrize("word", ["x", "漢", "🚀", "é"])
def test_a_word_of_too_many_tokens_is_cut_between_characters(mode: Callable[..., list[Chunk]], word: str) -> None:
    chunks = mode(f"A word: {word * 500}.", size=32, minimum=8, measure=tokens)
    assert "".join(chunk.text for chunk in chunks).replace(" ", "") == f"Aword:{word * 500}."
    # All but the first and the last two are full: within a fourth of the size for what a cut leaves over.
    assert all(24 <= tokens([chunk.text])[0] <= 32 for chunk in chunks[1:-2])


@settings(max_examples=100)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=15),
    mode=st.sampled_from([chunk_paragraphs, chunk_overlap]),
)
def test_no_sentence_is_cut(counts: list[int], mode: Callable[..., list[Chunk]]) -> None:
    text = "\n\n".join(map(prose, counts))
    for chunk in mode(text, size=512, minimum=128):
        assert any(chunk.text.startswith(sentence) for sentence in SENTENCES)
        assert any(chunk.text.endswith(sentence) for sentence in SENTENCES)


def test_an_abbreviation_ends_no_sentence() -> None:
    abbreviations = "Mr. Mrs. Messrs. Mlle. Dr. Prof. Lieut. Capt. J. p. pp. cf. viz. i.e. e.g. No. Nos. Vol. St."
    sentences = [f"We asked {abbreviation} Brown." for abbreviation in abbreviations.split()]
    assert [chunk.text for chunk in chunk_paragraphs(" ".join(sentences), size=30, minimum=0)] == sentences


@settings(max_examples=60)
@given(counts=st.lists(st.integers(1, 40), min_size=4, max_size=15), overlap=st.integers(1, 200))
def test_windows_overlap_by_at_least_what_was_asked(counts: list[int], overlap: int) -> None:
    text = "\n\n".join(map(prose, counts))
    longest = max(map(len, SENTENCES))
    chunks = chunk_overlap(text, size=600, overlap=overlap, minimum=100)
    for before, after in pairwise(chunks):
        assert overlap <= before.end - after.start <= overlap + 2 * longest + 20


def test_no_overlap_repeats_nothing() -> None:
    chunks = chunk_overlap(prose(60), size=400, overlap=0, minimum=50)
    assert all(before.end <= after.start for before, after in pairwise(chunks))


def test_wrapped_lines_are_joined_and_dashes_closed() -> None:
    text = "The station stood above the well-\nknown crater--and the crew, in spite of the cold--\nwhich was great--lived."
    assert chunk_paragraphs(text)[0].text == (
        "The station stood above the well-known crater--and the crew, in spite of the cold--which was great--lived."
    )


def test_offsets_count_from_the_whole_text() -> None:
    front = "TITLE PAGE\n\nPrinted at the colony press\n\n"
    text = front + prose(3)
    chunks = chunk_paragraphs(text, start=len(front))
    legible = " ".join(prose(3).split())
    assert chunks == [Chunk(len(front), len(text), legible, len(legible))]


@pytest.mark.parametrize(
    "layout",
    [
        "    Over the red and quiet sand\n    The little engines go,\n"
        "    And every wheel by its own hand\n    Is turned, and turned below.",
        "    +---+---+---+\n    | K | . | . |\n    +---+---+---+\n    | . | q | . |\n    +---+---+---+",
        "    Year        Water       Grain\n    1921          410          38\n    1922          655          61",
        "To the Council,\nNorthern Gallery,\nSecond Level.",
        "    1. P-K4        P-K4\n    2. Kt-KB3      Kt-QB3\n    3. B-Kt5       P-QR3",
    ],
    ids=["verse", "diagram", "table", "address", "moves"],
)
def test_layout_is_kept(layout: str) -> None:
    text = f"{prose(5)}\n\n{layout}\n\n{prose(5)}"
    assert textwrap.dedent(layout) in "\n\n".join(chunk.text for chunk in chunk_paragraphs(text))


def test_a_book_of_verse_keeps_its_lines() -> None:
    lines = ["The wind went down at evening hour,", "And all the domes were lit;", "One lamp was set in every tower"]
    stanza = "\n".join([*lines, "With somebody by it."])
    text = "\n\n".join([stanza] * 30)
    assert all(stanza in chunk.text for chunk in chunk_paragraphs(text))


def test_a_wrapped_quotation_is_prose() -> None:
    quotation = textwrap.indent(prose(4, width=50), "      ")
    text = "\n\n".join([prose(12), quotation, prose(12)])
    assert " ".join(quotation.split()) in "\n\n".join(chunk.text for chunk in chunk_paragraphs(text))


def test_speeches_stay_apart() -> None:
    text = '"Who is there?" he called.\n\n"Nobody," said the wall.\n\n"Then come in, nobody."'
    assert chunk_paragraphs(text)[0].text == text


@pytest.mark.parametrize("mode", [chunk_paragraphs, chunk_overlap])
@pytest.mark.parametrize(
    "heading", ["CHAPTER IX", "Chapter 9. The Well", "THE DEEP WELL", "XIV.", "Book the Second", "The Deep Well"]
)
def test_headings_stay_with_what_follows(mode: Callable[..., list[Chunk]], heading: str) -> None:
    text = f"\n\n\n{heading}\n\n".join(prose(count) for count in (9, 11, 4, 14, 7, 10))
    chunks = mode(text, size=600, minimum=150)
    assert sum(heading in chunk.text for chunk in chunks) >= 5
    for chunk in chunks:
        assert not chunk.text.endswith(heading)
    if mode is chunk_paragraphs:
        assert sum(chunk.text.startswith(heading) for chunk in chunks) == 5


headed = st.lists(
    st.tuples(st.lists(st.sampled_from(["CHAPTER IX", "THE DEEP WELL", "XIV."]), max_size=3), st.integers(1, 30)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100)
@given(sections=headed, bounds=st.tuples(st.integers(120, 900), st.integers(0, 120)), measure=measures)
@pytest.mark.parametrize("mode", [chunk_paragraphs, partial(chunk_overlap, overlap=50)])
def test_no_chunk_ends_with_a_heading(
    mode: Callable[..., list[Chunk]], sections: list[tuple[list[str], int]], bounds: tuple[int, int], measure: Measure
) -> None:
    text = "\n\n\n".join("\n\n".join([*headings, prose(sentences)]) for headings, sentences in sections)
    size, minimum = bounds
    for chunk in mode(text, size=size, minimum=minimum, measure=measure):
        assert chunk.text.endswith(tuple(SENTENCES))


@pytest.mark.parametrize("caption", ["DIAGRAM 9.", "Diag. 14", "FIG. 3"])
def test_a_caption_stays_with_its_diagram(caption: str) -> None:
    diagram = "    +---+---+---+\n    | K | . | . |\n    +---+---+---+"
    text = f"{prose(5)}\n\n\n{diagram}\n\n\n{caption}\n\n\n{prose(5)}"
    assert f"{textwrap.dedent(diagram)}\n\n{caption}" in "\n\n".join(chunk.text for chunk in chunk_paragraphs(text, minimum=100))
    assert not any(chunk.text.startswith(caption) for chunk in chunk_paragraphs(text, minimum=100))


def test_a_table_of_contents_is_text() -> None:
    contents = "\n\n".join(f"CHAPTER {n}" for n in range(1, 200))
    assert all(len(chunk.text) <= limit(300, 100) for chunk in chunk_paragraphs(contents, size=300, minimum=100))


def test_a_short_rest_joins_the_last_chunk() -> None:
    text = f"{prose(8)}\n\n{prose(2)}"
    (chunk,) = chunk_paragraphs(text, size=len(prose(8)), minimum=250)
    assert (chunk.start, chunk.end) == (0, len(text))


@pytest.mark.parametrize("mode", [chunk_paragraphs, chunk_overlap])
def test_a_short_or_blank_text(mode: Callable[..., list[Chunk]]) -> None:
    assert mode("  \n\n \n") == []
    assert mode("") == []
    assert mode(" Few words.\n") == [Chunk(1, 11, "Few words.", 10)]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("mode", [chunk_paragraphs, chunk_overlap])
@pytest.mark.parametrize(
    "unit",
    ["word and word, ", "x", "Line of text.\n", " ", "\n", "\f", "| a | b |\n", "-\n", "word\u2028", "Word. \x85", "A b.\r\n"],
)
def test_a_megabyte_in_one_block_is_cut_in_linear_time(mode: Callable[..., list[Chunk]], unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    chunks = mode(text)
    assert sum(len(squeezed(chunk.text)) for chunk in chunks) >= len(squeezed(text))
    assert all(256 <= len(chunk.text) <= limit(1024, 256) for chunk in chunks)


def test_every_blank_is_read_as_a_space() -> None:
    for blank in filter(str.isspace, map(chr, range(sys.maxunicode + 1))):
        assert chunk_paragraphs(f"One{blank}two.")[0].text == "One two."


def test_left_over_carriage_returns_change_no_text() -> None:
    text = "\n\n".join(map(prose, (9, 3, 14, 7)))
    unix, dos = (chunk_paragraphs(source) for source in (text, text.replace("\n", "\r\n")))
    assert [chunk.text for chunk in dos] == [chunk.text for chunk in unix]


def test_a_deep_indentation_makes_no_long_chunk() -> None:
    text = "year\n" + "\n".join(" " * 5_000 + str(year) for year in range(1900, 1950))
    assert all(len(chunk.text) <= limit(400, 50) for chunk in chunk_paragraphs(text, size=400, minimum=50))


@pytest.mark.parametrize("before", ["A short remark.", "A short remark. " * 12])
def test_no_window_ends_with_a_heading(before: str) -> None:
    follows = "It was " + "very " * 50 + "cold."
    text = f"{before}\n\nCHAPTER II\n\nTHE LONG WINTER\n\n{follows}\n\n{prose(9)}"
    for chunk in chunk_overlap(text, size=260, overlap=60, minimum=20):
        assert not chunk.text.endswith(("CHAPTER II", "THE LONG WINTER"))


def test_a_long_diagram_is_cut_between_lines_and_keeps_its_columns() -> None:
    rows = ["    year        water"] + [f"    {year}         {year * 7 % 1000:>3}" for year in range(1900, 2000)]
    chunks = chunk_paragraphs("\n".join(rows), size=400, minimum=50)
    assert len(chunks) > 3
    assert "\n".join(chunk.text for chunk in chunks) == textwrap.dedent("\n".join(rows))


@pytest.mark.parametrize(
    ("mode", "bounds", "message"),
    [
        (chunk_paragraphs, {"size": 0}, "size must be at least 1"),
        (chunk_paragraphs, {"size": -5}, "size must be at least 1"),
        (chunk_paragraphs, {"size": 10, "minimum": 11}, "minimum must be from 0"),
        (chunk_overlap, {"minimum": -1}, "minimum must be from 0"),
        (chunk_overlap, {"size": 300, "overlap": 300}, "overlap must be at least 0"),
        (chunk_overlap, {"overlap": -1}, "overlap must be at least 0"),
        (chunk_paragraphs, {"start": 10}, "start must lie in the text"),
        (chunk_overlap, {"start": -1}, "start must lie in the text"),
    ],
)
def test_impossible_bounds_are_refused(mode: Callable[..., list[Chunk]], bounds: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        mode("Some text", **bounds)
