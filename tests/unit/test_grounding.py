"""What ties a text to its passage: stems, content words, and the things that a question can name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.grounding import LEAST_LETTERS, content, shared, stem, things


@pytest.mark.parametrize(
    "forms",
    [
        ["labour", "labours", "labouring", "laboured", "labourer", "labourers"],
        ["city", "cities"],
        ["nation", "nations"],
        ["station", "stations"],
        ["king", "kings"],
        ["thing", "things"],
        ["dark", "darkness", "darkly"],
        ["house", "houses", "housing"],
        ["govern", "government", "governments"],
    ],
)
def test_forms_of_a_word_have_one_stem(forms: list[str]) -> None:
    assert len({stem(form) for form in forms}) == 1


def test_a_stem_keeps_enough_to_tell_words_apart() -> None:
    assert [stem(word) for word in ("red", "ring", "used", "eyes", "is", "")] == ["red", "ring", "used", "eyes", "is", ""]
    assert stem("lamp") != stem("lane")


@given(st.text("abdeinorsty", max_size=12))
def test_a_stem_begins_its_word_and_is_not_too_short(word: str) -> None:
    short = stem(word)
    assert word.startswith(short)
    assert len(short) >= min(len(word), LEAST_LETTERS - 1)


def test_content_is_of_long_words_that_are_not_common() -> None:
    text = "The Stoker's lamps, 1961: the pumps -- and THE lamp's oil! A cafés' row."
    assert content(text, {"pump"}) == {"stok", "lamp", "caf"}
    assert content("", set()) == set()


def test_what_is_shared_is_in_the_passage_and_in_any_of_the_texts() -> None:
    passage = "All night the stoker nursed the pumps."
    assert shared(passage, ["Who stoked them?", "We nurse a pump."], {"night"}) == {"stok", "nurs", "pump"}
    assert shared(passage, ["Nights, comrade."], {"night"}) == set()


WORDS = st.lists(st.sampled_from(["stoker", "pumps", "pump", "gallery", "frost", "night", "oil"]), max_size=8)


@given(WORDS, WORDS, st.sets(st.sampled_from(["stok", "pump", "frost"])))
def test_sharing_is_mutual_and_grows_with_the_text(first: list[str], second: list[str], common: set[str]) -> None:
    one, other = " ".join(first), " ".join(second)
    found = shared(one, [other], common)
    assert found == shared(other, [one], common)
    assert not found & common
    assert shared(one, [one], common) == content(one, common)
    assert found <= shared(one, [other, "frost and galleries"], common)


# --- things


@pytest.mark.parametrize(
    ("passage", "found"),
    [
        ("He hid behind the glass roof of the hall, with an old lamp.", ["the glass roof", "the hall", "an old lamp"]),
        ("There was a cairn; the cairn was old, and a cairn it stayed.", ["a cairn", "the cairn"]),
        ("They saw the\nglass  roof and left.", ["the glass roof"]),
        # No noun ends these phrases, or none that one can ask about.
        ("It was the best, a cold, the poor and the rising, the former.", []),
        ("He saw the very door, the second gate, a nearly empty hall, the same lamp.", []),
        # A noun that another follows is not the end of its phrase, nor is what a capital begins.
        ("The door was shut. He kept the tower guards awake, and the Tsar knew.", []),
        ("He lathe bench, and breathe door.", []),
        ("", []),
    ],
)
def test_things_of_a_passage(passage: str, found: list[str]) -> None:
    assert things(passage, set()) == found


def test_a_common_noun_is_no_thing() -> None:
    assert things("They left the hall, and the lamps were lit.", {"lamp"}) == ["the hall"]


@given(st.lists(st.sampled_from(["the", "a", "glass", "roof", "very", "lamp,", "and", "cold", "of", "Door", "hall."]), max_size=25))
def test_a_thing_stands_in_its_passage_once(words: list[str]) -> None:
    passage = " ".join(words)
    found = things(passage, {"cold"})
    assert len(set(found)) == len(found)
    assert all(thing in passage and thing.split()[0] in ("the", "a") and 2 <= len(thing.split()) <= 3 for thing in found)
    assert not any(thing.endswith(" cold") or " very " in thing for thing in found)
