"""Themes: the matcher equals one regex search per keyword; the rule keeps what speaks of several themes."""

import pickle
import re
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepred_ray.text.themes import Lexicon, Matcher, decide, parse_lexicon, score


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    """The lexicon that the project ships."""
    return parse_lexicon((files("deepred_ray") / "data/themes/deepred/lexicon.tsv").read_text("utf-8"))


def naive(lexicon: Lexicon, text: str) -> dict[str, tuple[str, ...]]:
    """The definition: one search per keyword."""
    lowered = text.lower()
    found = {
        theme: tuple(word for word in words if re.search(rf"\b{re.escape(word)}\b", lowered))
        for theme, words in lexicon.keywords.items()
    }
    return {theme: words for theme, words in found.items() if words}


def assert_as_defined(lexicon: Lexicon, text: str) -> None:
    matcher, expected = Matcher(lexicon), naive(lexicon, text)
    assert matcher.hits(text) == expected
    assert list(matcher.counts(text).items()) == [(theme, len(words)) for theme, words in expected.items()]


ODD = Lexicon(
    {
        "plain": ("mars", "plan", "a", "\u00e9tat", "x_1", "\u00df", "42"),
        "phrases": ("new world", "new world order", "self-rule", "don't", "red  star", "world's end", "mars"),
        "edges": ("c++", "--", "+a", "\u2019s", "a b a", "i\u0307"),
    }
)
keywords = sorted({word for words in ODD.keywords.values() for word in words})
near_misses = [
    "Mars",
    "plans",
    "\u00c9TAT",
    "x_",
    "newworld",
    "don\u2019t",
    "DON'T",
    "c++x",
    "x+a",
    "b",
    "a\u00b7b",
    "\u0130",
]
foreign = [
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
]
pieces = st.sampled_from([*keywords, *near_misses, *foreign])
glue = st.sampled_from(["", " ", "  ", "\n", "-", "\u2014", "\u2019", "\u201c", "_", ".", "\u00a0", "\ufeff", "\u00e9", "\x1c"])
mixed = st.lists(st.tuples(pieces, glue), max_size=30).map(lambda pairs: "".join(a + b for a, b in pairs))


@settings(max_examples=500, deadline=None)
@given(text=st.one_of(mixed, st.text(max_size=80)))
def test_hits_are_those_of_one_search_per_keyword(text: str) -> None:
    assert_as_defined(ODD, text)


@settings(max_examples=200, deadline=None)
@given(
    keywords=st.lists(
        st.text(st.sampled_from("ab_\u00e9 -'+1\u2019"), min_size=1, max_size=6), min_size=1, max_size=8, unique=True
    ),
    text=st.text(st.sampled_from("abAB_\u00e9\u00c9 -'+1\u2019\n."), max_size=60),
)
def test_any_keyword_matches_as_defined(keywords: list[str], text: str) -> None:
    assert_as_defined(Lexicon({"t": tuple(keywords)}), text)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_shipped_lexicon_matches_as_defined(lexicon: Lexicon, data: st.DataObject) -> None:
    vocabulary = sorted({word for words in lexicon.keywords.values() for word in words})
    word = st.one_of(st.sampled_from(vocabulary), st.sampled_from(vocabulary).map(str.upper), st.just("newer"))
    text = data.draw(st.lists(st.tuples(word, glue), max_size=40).map(lambda pairs: "".join(a + b for a, b in pairs)))
    assert_as_defined(lexicon, text)


def test_a_keyword_of_several_themes_counts_in_each_and_once(lexicon: Lexicon) -> None:
    counts = Matcher(lexicon).counts("Control! Control, and once more control.")
    assert len(counts) == 4
    assert set(counts.values()) == {1}


def test_nothing_found_is_empty(lexicon: Lexicon) -> None:
    assert Matcher(lexicon).counts("") == {}
    assert Matcher(lexicon).hits("Um, er.") == {}


def test_a_matcher_can_be_sent_to_another_process(lexicon: Lexicon) -> None:
    copy = pickle.loads(pickle.dumps(Matcher(lexicon)))
    assert copy.counts("the new world of the tsar") == Matcher(lexicon).counts("the new world of the tsar") != {}


def test_the_shipped_lexicon_is_whole(lexicon: Lexicon) -> None:
    assert len(lexicon.themes) == 16
    assert sum(map(len, lexicon.keywords.values())) == 495
    assert len({word for words in lexicon.keywords.values() for word in words}) == 442


def test_themes_and_keywords_keep_the_order_of_the_file() -> None:
    lexicon = parse_lexicon("theme\tkeyword\r\nwater\twell\r\nair\tpump\r\n\r\nwater\tice field\r\n")
    assert lexicon.themes == ("water", "air")
    assert lexicon.keywords == {"water": ("well", "ice field"), "air": ("pump",)}


@pytest.mark.parametrize(
    ("tsv", "message"),
    [
        ("", "line 1: expected the header"),
        ("keyword\ttheme\na\tb", "line 1: expected the header"),
        ("theme\tkeyword\n", "no keyword"),
        ("theme\tkeyword\nair\tpump\nair", "line 3: expected two fields"),
        ("theme\tkeyword\nair\tpump\t2", "line 2: expected two fields"),
        ("theme\tkeyword\nair\t", "line 2: a field is empty"),
        ("theme\tkeyword\nair\t pump", "line 2: a field is empty or padded"),
        ("theme\tkeyword\n\tpump", "line 2: a field is empty"),
        ("theme\tkeyword\nair\tPump", "line 2: keyword 'Pump' is not lower-case"),
        ("theme\tkeyword\nair\tpump\n\nair\tpump", "line 4: 'pump' is already a keyword of 'air'"),
    ],
)
def test_a_bad_lexicon_is_refused_by_line(tsv: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_lexicon(tsv)


def test_score_prefers_breadth_and_density() -> None:
    assert score({}) == 0.0
    assert score({"a": 1, "b": 1, "c": 1}) > score({"a": 3})
    assert score({"a": 2}, 1000) == score({"a": 2}, 300) == 2 * score({"a": 2}, 2000)


@given(counts=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 30)), theme=st.sampled_from("abcdef"))
def test_one_more_hit_raises_the_score(counts: dict[str, int], theme: str) -> None:
    assert score(counts | {theme: counts.get(theme, 0) + 1}) > score(counts)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"a": 3, "b": 1}, None),
        ({"a": 2, "b": 1}, "few_matches"),
        ({"a": 9}, "few_themes"),
        ({"a": 9, "b": 0}, "few_themes"),
        ({}, "few_matches"),
    ],
)
def test_the_rule(counts: dict[str, int], reason: str | None) -> None:
    verdict = decide(counts, sum(counts.values()), min_matches=4, min_themes=2)
    assert (verdict.reason if verdict else None) == reason
    assert verdict is None or verdict.detail


def test_without_themes_asked_for_the_rule_is_the_plain_count() -> None:
    assert decide({"a": 3}, 3, min_matches=3, min_themes=0) is None
    assert decide({"a": 2}, 2, min_matches=3, min_themes=0) is not None


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        decide({}, 0, min_matches=-1, min_themes=0)
    with pytest.raises(ValueError, match="negative"):
        decide({}, 0, min_matches=0, min_themes=-1)
    with pytest.raises(ValueError, match="negative"):
        score({"a": -1})
    with pytest.raises(ValueError, match="negative"):
        score({"a": 1}, -1)
