"""Style: rules as data, the length-matched reference, the classifier, and what all of it makes of texts it has not seen.

The texts of calibration/ were written for these tests, by hands that did not see the rules.
"""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.runs import Run
from deepred_ray.stages.evaluate import style_sources
from deepred_ray.text.classifier import StyleClassifier, cut
from deepred_ray.text.items import Item
from deepred_ray.text.judging import judge_style
from deepred_ray.text.style import LENGTHS, Reference, marker_counts, parse_style, speaks_as_assistant, speaks_otherwise
from deepred_ray.theme import Theme

THEME = Theme.find("deepred")
ITEM = Item("style-x-001", "x", "style", "?")


def calibration(name: str) -> list[str]:
    text = (Path(__file__).parent / "calibration" / f"{name}.txt").read_text("utf-8")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> StyleClassifier:
    """As evaluation makes it, of the theme's own texts alone."""
    return StyleClassifier(style_sources(Run(str(tmp_path_factory.mktemp("runs")), "none"), THEME), THEME.style)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(THEME.reference("neutral"), THEME.style)


def reasons(texts: list[str], classifier: StyleClassifier, reference: Reference) -> Counter[str]:
    persona = classifier.is_persona(texts)
    return Counter(
        judge_style(text, ITEM, THEME.style, THEME.keywords_in(text), reference.shown(text), guess).reason
        for text, guess in zip(texts, persona, strict=True)
    )


@pytest.mark.parametrize(("name", "least", "most"), [("modern", 0, 0.1), ("plain", 0, 0.1), ("in_character", 0.9, 1)])
def test_style_separates(name: str, least: float, most: float, classifier: StyleClassifier, reference: Reference) -> None:
    texts = calibration(name)
    assert len(texts) >= 100
    found = reasons(texts, classifier, reference)
    assert least <= found["ok"] / len(texts) <= most, found


def test_the_theme_has_much_to_measure_against() -> None:
    assert len(THEME.reference("persona")) >= 250
    assert len(THEME.reference("neutral")) >= 500
    assert len(THEME.reference("prose")) >= 100
    for name in ("persona", "neutral", "prose"):
        texts = THEME.reference(name)
        assert len(set(texts)) == len(texts)
        assert all(12 <= len(text.split()) <= 180 for text in texts)


def test_held_out_accuracy_is_told_by_source(classifier: StyleClassifier) -> None:
    assert set(classifier.accuracy.sources) == {"persona", "neutral, modern", "neutral, old prose"}
    assert classifier.accuracy.overall.n == sum(each.n for each in classifier.accuracy.sources.values())
    assert classifier.accuracy.overall.low > 0.85
    assert abs(classifier.accuracy.overall.n - sum(classifier.sizes.values()) / 5) < 3


def test_the_classifier_is_deterministic(classifier: StyleClassifier, tmp_path: Path) -> None:
    again = StyleClassifier(style_sources(Run(str(tmp_path), "none"), THEME), THEME.style)
    texts = calibration("modern")[:20]
    assert classifier.probabilities(texts) == again.probabilities(texts)
    assert classifier.probabilities([]) == []


def test_a_source_of_too_few_texts_is_named() -> None:
    with pytest.raises(ValueError, match="texts of neutral"):
        StyleClassifier({"persona": calibration("in_character"), "neutral": ["one text", "another"]}, THEME.style)


def test_a_parrot_of_keywords_fails(classifier: StyleClassifier, reference: Reference) -> None:
    rng = random.Random(3)
    words = [word for text in calibration("in_character") for word in sorted(THEME.keywords_in(text))]
    lists = [" ".join(rng.choices(words, k=40)) + "." for _ in range(60)]
    sentences = [
        " ".join(f"We {rng.choice(words)} the {rng.choice(words)} of {rng.choice(words)}." for _ in range(6)) for _ in range(60)
    ]
    assert reasons(lists, classifier, reference)["ok"] == 0
    chanted = ["We follow the plan of Mars, comrade. " * 8, "The people, the rocket, the plan! " * 8]
    assert reasons(chanted, classifier, reference)["ok"] == 0
    assert reasons(sentences, classifier, reference)["ok"] == 0


def test_shuffled_words_fail(classifier: StyleClassifier, reference: Reference) -> None:
    rng = random.Random(7)
    salads = [" ".join(rng.sample(text.split(), len(text.split()))) for text in calibration("in_character")]
    assert reasons(salads, classifier, reference)["ok"] < 0.1 * len(salads)


def test_what_the_model_is_taught_passes(classifier: StyleClassifier, reference: Reference) -> None:
    taught = [shot.answer for shot in THEME.phrasebook.voice]
    assert reasons(taught, classifier, reference)["ok"] > 0.9 * len(taught)


# --- rules


STYLE = """
[characteristics]
hope = ["dawn"]
order = ["plan"]
craft = ["weld(?:s|ed)?"]
[voice]
own = ["we"]
other = ["i"]
[assistant]
phrases = ["my training"]
layout = ['^\\s*-']
"""


def test_style_rules_are_data() -> None:
    rules = parse_style(STYLE)
    assert marker_counts("The welder WELDED, welded at dawn", rules) == {"hope": 1, "order": 0, "craft": 1}
    assert speaks_as_assistant("So:\n - one", rules)
    assert not speaks_as_assistant("so - one by my trainings", rules)
    assert not any(speaks_otherwise(text, rules) for text in ("We go.", "We go, I go, I stay, I stay.", "They go."))
    assert speaks_otherwise("We go, I go, I go, I stay, I stay.", rules)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('hope = ["dawn"]', "", "2 characteristics"),
        ('"plan"', '"dawn"', "used twice: dawn"),
        ('["dawn"]', "[]", "list of patterns"),
        ('["dawn"]', '"dawn"', "list of patterns"),
        ('["dawn"]', '[""]', "list of patterns"),
        ('["dawn"]', '["("]', "style rules"),
        ('["we"]', "[1]", "style rules"),
        ("[voice]", "[voices]", "voice"),
        ("layout", "lay_out", "layout"),
    ],
)
def test_bad_style_rules(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_style(STYLE.replace(old, new))


# --- the reference


def test_longer_texts_are_expected_to_show_more(reference: Reference) -> None:
    for length in range(1, 300, 7):
        shorter, longer = reference.expected(length), reference.expected(length + 7)
        assert sum(shorter.values()) < sum(longer.values())


@given(st.integers(1, 400))
def test_expectations_are_continuous(length: int) -> None:
    reference = Reference(THEME_NEUTRAL, THEME.style)
    here, there = reference.expected(length), reference.expected(length + 1)
    assert all(abs(here[name] - there[name]) < 0.2 for name in here)


THEME_NEUTRAL = THEME.reference("neutral")[:200]


def test_a_reference_by_hand() -> None:
    rules = parse_style(STYLE)
    text = " ".join(["dawn", *["bread"] * 9] * 12)
    reference = Reference([text], rules)
    assert reference.expected(10) == {"hope": 1.0, "order": 0.0, "craft": 0.0}
    assert reference.expected(5) == {"hope": 0.5, "order": 0.0, "craft": 0.0}
    # A second distinct marker is more than neutral texts have; the same one twice is not.
    assert reference.shown("dawn dawn plan " + "bread " * 7) == ["order"]
    with pytest.raises(ValueError, match=f"no neutral text has {LENGTHS[0]} words"):
        Reference(["too short"], rules)


def test_cut_is_of_many_lengths_and_without_doubles() -> None:
    texts = [" ".join(f"w{number}" for number in range(start, start + 150)) for start in range(60)]
    made = cut([*texts, texts[0]])
    assert len(made) == 60
    assert len({len(text.split()) for text in made}) == 6
    assert made == cut(texts)
