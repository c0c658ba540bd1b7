"""Themes: the plan's counts, the lexicon, what raises a score, and the rule."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.themes import Entry, Lexicon, Scorer, parse_lexicon, verdicts
from deepred_ray.theme import Theme

HEADER = "theme\tterm\tstrength\trarity\tplan\n"


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    """Of the lexicon that the project ships."""
    return Theme.find("deepred").scorer


SMALL = Scorer(
    Lexicon(
        (
            Entry("chess", "gambit", 3, 4.0, True),
            Entry("chess", "pawn", 2, 3.0, True),
            Entry("chess", "sacrificed pawn", 3, 4.0, False),
            Entry("chess", "play", 0, 1.0, True),
            Entry("space", "mars", 3, 3.0, True),
            Entry("space", "ether", 1, 3.0, False),
            Entry("power", "gambit", 1, 4.0, True),
        )
    ),
    {"chess": 1.0, "space": 1.5, "power": 0.5},
)


def test_the_shipped_lexicon_holds_the_plans_keywords(scorer: Scorer) -> None:
    keywords = scorer.lexicon.keywords
    assert len(keywords) == 16
    assert sum(map(len, keywords.values())) == 495
    assert len({word for words in keywords.values() for word in words}) == 442


def test_counts_are_the_plans(scorer: Scorer) -> None:
    texts = ["Control! Control, and once more control.", "", "The people of Mars made a plan for the new world.", "Um, er."]
    for text in texts:
        expected = {
            theme: tuple(word for word in words if re.search(rf"\b{re.escape(word)}\b", text.lower()))
            for theme, words in scorer.lexicon.keywords.items()
        }
        assert scorer.hits(text) == {theme: words for theme, words in expected.items() if words}
        assert scorer.counts(text) == {theme: len(words) for theme, words in expected.items() if words}
    assert len(scorer.counts(texts[0])) == 4
    assert scorer.score(texts).totals.tolist() == [sum(scorer.counts(text).values()) for text in texts]


def test_what_is_no_keyword_of_the_plan_counts_only_in_the_score() -> None:
    scored = SMALL.score(["A pawn sacrificed.", "A sacrificed pawn.", "The ether."])
    assert scored.counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert scored.weights.tolist() == [[6, 0, 0], [18, 0, 0], [0, 3, 0]]
    assert np.allclose(scored.scores, [1, 1, 1.5] * np.log1p([0.6, 1.8, 0.3]))


def score(text: str) -> float:
    return float(SMALL.score([text]).scores[0])


def test_the_score_is_of_rarity_breadth_and_density() -> None:
    assert score("nothing of the kind") == score("play, play") == 0
    assert score("gambit") > score("pawn") > score("ether") > 0
    assert score("mars, ether") - score("mars") < score("pawn, ether") - score("pawn")  # another theme over another term
    assert score("pawn") < score("pawn, pawn") < score("pawn, gambit")
    assert np.isclose(score("pawn" + " " * 996), 2 * score("pawn" + " " * 1996))
    assert score("pawn") == score("pawn" + " " * 996)


WORDS = st.lists(st.sampled_from(["gambit", "pawn", "mars", "ether", "play", "and", "sacrificed"]), max_size=12)


@given(words=WORDS, term=st.sampled_from(["gambit", "pawn", "mars", "ether"]))
def test_one_more_hit_raises_the_score(words: list[str], term: str) -> None:
    assert score(" ".join([*words, "and", term])) > score(" ".join([*words, "and"]))


@given(texts=st.lists(WORDS.map(" ".join), max_size=6))
def test_a_text_is_scored_alike_alone_and_among_others(texts: list[str]) -> None:
    together = SMALL.score(texts)
    for number, text in enumerate(texts):
        alone = SMALL.score([text])
        assert together.counts[number].tolist() == alone.counts[0].tolist()
        assert np.allclose(together.weights[number], alone.weights[0])
        assert np.isclose(together.scores[number], alone.scores[0])


def test_the_rule() -> None:
    scored = SMALL.score(["gambit", "pawn", "mars, ether, pawn and gambit", "nothing"])
    assert scored.totals.tolist() == [2, 1, 4, 0]

    def reasons(min_score: float, min_matches: int | None) -> list[str]:
        return [r.reason if r else "" for r in verdicts(scored, min_score=min_score, min_matches=min_matches)]

    assert reasons(0.7, None) == ["", "low_score", "", "low_score"]
    assert reasons(99.0, 2) == ["", "few_matches", "", "few_matches"]
    assert reasons(0.0, None) == [""] * 4
    for min_score, min_matches in ((-1.0, None), (0.0, -1)):
        with pytest.raises(ValueError, match="negative"):
            reasons(min_score, min_matches)


@pytest.mark.parametrize("relevance", [{}, {"chess": 1.0, "space": 1.0}, {"chess": 1.0, "space": 1.0, "power": -1.0}])
def test_every_theme_needs_a_relevance(relevance: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="power"):
        Scorer(SMALL.lexicon, relevance | {"space": 1.0, "chess": 1.0})


def test_a_lexicon_keeps_the_order_of_the_file() -> None:
    lexicon = parse_lexicon(HEADER + "water\twell\t2\t1.5\t1\r\nair\tpump\t0\t2\t0\n\nwater\tice field\t3\t4\t1\n")
    assert lexicon.themes == ("water", "air")
    assert lexicon.terms == ("well", "pump", "ice field")
    assert lexicon.keywords == {"water": ("well", "ice field"), "air": ()}
    assert lexicon.entries[0] == Entry("water", "well", 2, 1.5, True)


@pytest.mark.parametrize(
    ("tsv", "message"),
    [
        ("", "line 1: expected the header"),
        ("theme\tkeyword\na\tb", "line 1: expected the header"),
        (HEADER, "no term"),
        (HEADER + "air\tpump\t1\t2\t1\nair", "line 3: expected 5 fields"),
        (HEADER + "air\tpump\t1\t2\t1\t2", "line 2: expected 5 fields"),
        (HEADER + "air\t\t1\t2\t1", "line 2: a field is empty"),
        (HEADER + "air\t pump\t1\t2\t1", "line 2: a field is empty or padded"),
        (HEADER + "air\tPump\t1\t2\t1", "line 2: term 'Pump' is not lower-case"),
        (HEADER + "air\tpump\t4\t2\t1", "line 2: strength must be 0 to 3"),
        (HEADER + "air\tpump\t1\t-2\t1", "line 2: strength must be 0 to 3, rarity 0 to 10"),
        (HEADER + "air\tpump\t1\tnan\t1", "line 2: strength must be 0 to 3, rarity 0 to 10"),
        (HEADER + "air\tpump\t1\t2\tyes", "line 2: strength must be 0 to 3, rarity 0 to 10, plan 0 or 1"),
        (HEADER + "air\tpump\tone\t2\t1", "line 2: invalid literal for int() with base 10: 'one'"),
        (HEADER + "air\tpump\t1\t2\t1\n\nair\tpump\t2\t2\t0", "line 4: 'pump' is already a term of 'air'"),
    ],
)
def test_a_bad_lexicon_is_refused_by_line(tsv: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_lexicon(tsv)
