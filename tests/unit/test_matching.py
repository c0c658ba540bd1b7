"""The matcher equals one regular expression a term, on any text, for any term."""

import pickle
import re
from collections import Counter
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepred_ray.text.matching import Matcher
from deepred_ray.text.themes import parse_lexicon

SHIPPED = parse_lexicon((files("deepred_ray") / "data/themes/deepred/lexicon.tsv").read_text("utf-8")).terms
ODD = (
    *("mars", "plan", "a", "\u00e9tat", "x_1", "\u00df", "42", "\u03c3\u03bf\u03c6\u03cc\u03c2", "\u0446\u0430\u0440\u044c"),
    *("interplanetary", "interplanetaries", "counterrevolutionary", "counterrevolutionist", "\U0001d51e"),
    *("new world", "new world order", "self-rule", "don't", "red  star", "world's end", "l'\u00e9tat"),
    *("c++", "--", "+a", "\u2019s", "a b a", "i\u0307"),
)


def naive(terms: tuple[str, ...], texts: list[str]) -> dict[tuple[int, int], int]:
    """The definition: one regular expression a term; overlapping places count."""
    return {
        (number, index): len(places)
        for number, text in enumerate(texts)
        for index, term in enumerate(terms)
        if (places := places_of(term, text.lower()))
    }


def places_of(term: str, lowered: str) -> list[int]:
    regex = (
        re.compile(rf"(?=(\b{re.escape(term)}\b))")
        if re.fullmatch(r"\w(.*\w)?", term, re.S)
        else re.compile(rf"\b{re.escape(term)}\b")
    )
    return [match.start() for match in regex.finditer(lowered)]


def found(terms: tuple[str, ...], texts: list[str]) -> dict[tuple[int, int], int]:
    hits = Matcher(terms).find(texts)
    pairs = list(zip(hits.text.tolist(), hits.term.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    return dict(zip(pairs, hits.often.tolist(), strict=True))


near_misses = ["Mars", "plans", "\u00c9TAT", "x_", "newworld", "don\u2019t", "DON'T", "c++x", "x+a", "b", "a\u00b7b", "\u0130"]
foreign = [
    *(
        "\u212a",
        "_",
        "mars_",
        "_mars_",
        "\u706b\u661f",
        "mars\u706b",
        "\u0301",
        "\u0435",
        "self",
        "rule",
        "world",
        "new",
        "\u03a3\u039f\u03a6\u038c\u03a3",
    ),
]
long = [
    *(
        "Counterrevolutionaries",
        "COUNTERREVOLUTIONARY",
        "interplanetar",
        "\u0426\u0410\u0420\u042c",
        "\U0001d51f",
        "L'\u00c9tat",
        "NEW WORLD",
    ),
]
pieces = st.sampled_from([*ODD, *near_misses, *foreign, *long])
glue = st.sampled_from(["", " ", "  ", "\n", "-", "\u2014", "\u2019", "\u201c", "_", ".", "\u00a0", "\ufeff", "\u00e9", "\x1c"])
mixed = st.lists(st.tuples(pieces, glue), max_size=30).map(lambda pairs: "".join(a + b for a, b in pairs))


@settings(max_examples=500)
@given(texts=st.lists(st.one_of(mixed, st.text(max_size=80)), max_size=4))
def test_hits_are_those_of_one_search_per_term(texts: list[str]) -> None:
    assert found(ODD, texts) == naive(ODD, texts)


@settings(max_examples=300)
@given(
    terms=st.lists(st.text(st.sampled_from("ab_\u00e9 -'+1\u2019"), min_size=1, max_size=6), min_size=1, max_size=8, unique=True),
    text=st.text(st.sampled_from("abAB_\u00e9\u00c9 -'+1\u2019\n."), max_size=60),
)
def test_any_term_matches_as_defined(terms: list[str], text: str) -> None:
    assert found(tuple(terms), [text, text[::-1]]) == naive(tuple(terms), [text, text[::-1]])


@settings(max_examples=50)
@given(data=st.data())
def test_the_shipped_terms_match_as_defined(data: st.DataObject) -> None:
    some = tuple(data.draw(st.lists(st.sampled_from(SHIPPED), min_size=20, max_size=20, unique=True)))
    word = st.one_of(st.sampled_from(some), st.sampled_from(SHIPPED).map(str.upper), st.just("newer"))
    text = data.draw(st.lists(st.tuples(word, glue), max_size=40).map(lambda pairs: "".join(a + b for a, b in pairs)))
    assert found(some, [text]) == naive(some, [text])


def test_words_that_share_a_slot_of_the_table_are_told_apart() -> None:
    """Sixty thousand words in a table of as many slots: nearly every chain has several."""
    words = [f"{a}{b}" for a in ("ka", "lo", "mi") for b in range(20_000)]
    hits = Matcher(words).find([" ".join(words[::7]), "ka20000 lo 1"])
    assert hits.text.tolist() == [0] * len(words[::7])
    assert Counter(hits.term.tolist()) == Counter(range(0, len(words), 7))


def test_texts_do_not_run_into_each_other() -> None:
    hits = Matcher(["new world", "new", "world"]).find(["a new", "world", "", "new world\nnew"])
    assert list(zip(hits.text.tolist(), hits.term.tolist(), hits.often.tolist(), strict=True)) == [
        (0, 1, 1),
        (1, 2, 1),
        (3, 0, 1),
        (3, 1, 2),
        (3, 2, 1),
    ]


def test_nothing_to_find() -> None:
    for terms, texts in (((), ["mars"]), (("mars",), []), (("mars",), ["", "Um, er."])):
        assert found(terms, texts) == {}


def test_a_matcher_can_be_sent_to_another_process() -> None:
    matcher = Matcher(SHIPPED)
    text = ["the new world of the tsar"]
    assert pickle.loads(pickle.dumps(matcher)).find(text).term.tolist() == matcher.find(text).term.tolist() != []


@pytest.mark.parametrize("terms", [["Mars"], [""], ["mars", "mars"]])
def test_terms_that_cannot_be(terms: list[str]) -> None:
    with pytest.raises(ValueError, match="term"):
        Matcher(terms)
