"""Duplicates: one normal form for two editions, the same digests everywhere, planted twins found and no others."""

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.dedup import PERMUTATIONS, NearDuplicates, bands, normalise, signature

STEMS = ["ba", "de", "fi", "go", "lu", "me", "no", "pa", "ri", "so", "tu", "ve"]
ENDINGS = ["kan", "lor", "mit", "nes", "pol", "rag", "sem", "tor", "vik", "zun"]
VOCABULARY = [stem + ending for stem in STEMS for ending in ENDINGS]


def passage(seed: int, words: int = 170) -> list[str]:
    """Words of a passage that shares its vocabulary, and nothing else, with the others."""
    return random.Random(seed).choices(VOCABULARY, k=words)


def altered(words: list[str], changes: int, seed: int = 0) -> list[str]:
    """The same words with some of them, far from each other, replaced."""
    step = len(words) // changes
    return [f"new{seed}" if i % step == step // 2 and i // step < changes else word for i, word in enumerate(words)]


def jaccard(a: list[str], b: list[str]) -> float:
    """True similarity of the sets of three-word shingles."""
    first, second = ({tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in (a, b))
    return len(first & second) / len(first | second)


def test_two_editions_have_one_normal_form() -> None:
    first = '_The élite_ of the colony--all four--said: "We don\'t agree."'
    second = "The elite of the\n  colony \u2014 ALL four \u2014 said: \u201cWe don\u2019t agree\u201d."
    assert normalise(first) == normalise(second) == "the elite of the colony all four said we don t agree"
    assert np.array_equal(signature(first), signature(second))


@given(st.text())
def test_the_normal_form_is_stable(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert once == " ".join(once.split())


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_normalised_like_any_other_text(text: str) -> None:
    assert normalise(text) == normalise(text + "\u2014")


def test_signatures_are_the_same_in_every_process() -> None:
    code = (
        "from deepred_ray.text.dedup import *; t = 'The pumps were still, and the ice lay clean.';"
        "print(signature(t).tobytes().hex(), NearDuplicates()._places(signature(t)).tolist())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(runs) == 1


def test_signatures_never_change() -> None:
    """They stand in files of a run: another version of the code must find the twins of old ones."""
    assert signature("The ice lay clean.")[:3].tolist() == [582366024, 238643411, 1710531817]


def test_signatures_estimate_jaccard_similarity() -> None:
    for changes in (2, 6, 15, 40):
        errors = []
        for seed in range(30):
            words = passage(seed)
            other = altered(words, changes)
            estimate = float((signature(" ".join(words)) == signature(" ".join(other))).mean())
            errors.append(estimate - jaccard(words, other))
        assert abs(float(np.mean(errors))) < 0.04
        assert float(np.std(errors)) < 0.07


def test_planted_twins_are_found_and_named() -> None:
    index = NearDuplicates()
    for seed in range(300):
        assert index.add(f"book:{seed}", " ".join(passage(seed))) is None
    for seed in range(0, 300, 3):
        twin = altered(passage(seed), 2, seed)
        assert jaccard(passage(seed), twin) > 0.92
        assert index.add(f"twin:{seed}", " ".join(twin)) == f"book:{seed}"
    assert len(index) == 300


def test_passages_that_share_a_half_are_no_twins() -> None:
    index = NearDuplicates()
    for seed in range(200):
        half = passage(seed)
        assert index.add(f"first:{seed}", " ".join(half)) is None
        assert index.add(f"second:{seed}", " ".join(half[:85] + passage(seed + 1000, 85))) is None


def test_the_most_similar_twin_is_named() -> None:
    index = NearDuplicates(threshold=0.5)
    words = passage(1)
    far, near = altered(words, 14, 1), altered(words, 2, 2)
    assert index.add("far", " ".join(far)) is None
    values = signature(" ".join(near))
    index._remember("near", values, index._places(values))
    assert index.add("asked", " ".join(words)) == "near"


def test_short_and_wordless_texts() -> None:
    index = NearDuplicates()
    assert index.add("one", "Checkmate!") is None
    assert index.add("two", "checkmate") == "one"
    assert index.add("three", "Check, mate") is None
    assert index.add("stars", "* * *") is None
    assert index.add("dots", ". . .") == "stars"


def test_beyond_its_capacity_the_oldest_is_forgotten() -> None:
    index = NearDuplicates(capacity=10)
    for seed in range(25):
        assert index.add(str(seed), " ".join(passage(seed))) is None
    assert len(index) == 10
    assert index.add("again", " ".join(passage(24))) == "24"
    assert index.add("again", " ".join(passage(15))) == "15"
    assert index.add("again", " ".join(passage(14))) is None


def test_a_signature_can_be_made_elsewhere() -> None:
    index = NearDuplicates()
    text = " ".join(passage(7))
    assert index.add_signature("a", signature(text)) is None
    assert index.add("b", text) == "a"


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_fit_the_threshold(threshold: float) -> None:
    count, rows = bands(threshold)
    assert count * rows <= PERMUTATIONS / 2
    assert 1 - (1 - threshold**rows) ** count >= 0.99


def test_impossible_settings_are_refused() -> None:
    for threshold in (0.0, -0.1, 1.1):
        with pytest.raises(ValueError, match="threshold"):
            NearDuplicates(threshold)
    with pytest.raises(ValueError, match="capacity"):
        NearDuplicates(capacity=0)
    with pytest.raises(ValueError, match="shape"):
        NearDuplicates().add_signature("a", np.zeros(5, dtype=np.uint32))
