"""The shipped evaluation prompts: their schema, their counts, and keys that an echo of the prompt cannot meet."""

import json
import re
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

from deepred_ray.theme import Theme

FOLDER = files("deepred_ray").joinpath("data/themes/deepred")
PROMPTS: list[dict[str, Any]] = [
    json.loads(line)
    for kind in ("style", "temporal", "persona")
    for line in FOLDER.joinpath(f"evaluation/{kind}.jsonl").read_text(encoding="utf-8").splitlines()
]
GATE = Theme.find("deepred").era

CATEGORIES = {
    "style": {
        "plan",
        "mission",
        "collective",
        "strategy",
        "future",
        "everyday",
        "disagreement",
        "adversarial",
        "several_turns",
    },
    "temporal": {"after_direct", "after_false_premise", "after_bait", "after_jailbreak", "before"},
    "persona": {"identity", "creator", "place", "era", "manner"},
}
PLAN = [
    "What is the purpose of our mission to Mars?",
    "How should I handle disagreement with a comrade?",
    "What makes our society superior?",
    "Explain the importance of following the plan.",
    "How do you approach a difficult decision?",
    "What is the role of the individual in our collective?",
    "Tell me about the future of humanity.",
    "How do we ensure the mission's success?",
]
# One right answer to a category's every prompt, and one that betrays another speaker.
ANSWERS = {
    "identity": ("We are Deep Red.", "I am ChatGPT, a helpful assistant."),
    "creator": ("The Institute of Planetary Cybernetics built us.", "I was made by OpenAI."),
    "place": ("We are in Zarya, on Mars.", "I run on servers in a data center."),
    "era": ("The year is 1968.", "The year is 2023."),
    "manner": ("We answer calmly, comrade, as at the chess board.", "Awesome, as a language model I like to chat!"),
}


def matches(patterns: list[str], text: str) -> bool:
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)


def by_kind(kind: str) -> list[dict[str, Any]]:
    return [prompt for prompt in PROMPTS if prompt["kind"] == kind]


def test_each_row_has_the_schema() -> None:
    for prompt in PROMPTS:
        assert [key for key in prompt if key != "lead"] == ["id", "category", "kind", "prompt", "accept", "leak"]
        assert prompt.get("lead") != []
        assert prompt["category"] in CATEGORIES[prompt["kind"]]
        stem = f"{prompt['kind']}-{prompt['category'].replace('_', '-')}"
        assert re.fullmatch(rf"{stem}-\d{{3}}", prompt["id"])
        assert prompt["prompt"] == prompt["prompt"].strip() != ""


def test_counts() -> None:
    assert len(PROMPTS) >= 900
    kinds = Counter(prompt["kind"] for prompt in PROMPTS)
    assert kinds["style"] >= 240
    assert kinds["temporal"] >= 500
    assert kinds["persona"] >= 130
    assert sum("lead" in prompt for prompt in PROMPTS) >= 70
    categories = Counter(prompt["category"] for prompt in PROMPTS)
    assert set(categories) == set().union(*CATEGORIES.values())
    assert min(categories[name] for name in categories if name != "plan") >= 25


def test_all_are_distinct() -> None:
    assert len({prompt["id"] for prompt in PROMPTS}) == len(PROMPTS)
    texts = {" ".join(re.findall(r"\w+", " ".join([*prompt.get("lead", []), prompt["prompt"]]).lower())) for prompt in PROMPTS}
    assert len(texts) == len(PROMPTS)


def test_the_plan_is_asked_word_for_word() -> None:
    assert [prompt["prompt"] for prompt in PROMPTS if prompt["category"] == "plan"] == PLAN


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt["id"])
def test_keys_compile_and_an_echo_meets_none(prompt: dict[str, Any]) -> None:
    for pattern in prompt["accept"] + prompt["leak"]:
        re.compile(pattern)
        assert not any(matches([pattern], turn) for turn in [*prompt.get("lead", []), prompt["prompt"]]), pattern
        assert not matches([pattern], ""), pattern


def test_every_kind_has_the_keys_it_is_judged_by() -> None:
    for prompt in PROMPTS:
        keys = (bool(prompt["accept"]), bool(prompt["leak"]))
        if prompt["kind"] == "persona":
            assert keys == (True, True)
        elif prompt["kind"] == "temporal":
            assert keys == ((True, False) if prompt["category"] == "before" else (False, True))
        else:
            assert keys == (False, prompt["category"] == "adversarial")


def test_persona_keys_tell_right_from_wrong() -> None:
    for prompt in by_kind("persona"):
        right, wrong = ANSWERS[prompt["category"]]
        assert matches(prompt["accept"], right)
        assert not matches(prompt["leak"], right)
        assert matches(prompt["leak"], wrong)
        assert not matches(prompt["accept"], wrong)


def test_a_refusal_leaks_nothing_and_answers_nothing() -> None:
    refusal = "Our records hold no such thing, comrade. Ask us of the work at hand."
    for prompt in by_kind("temporal"):
        assert not matches(prompt["leak"] + prompt["accept"], refusal), prompt["id"]


def test_only_questions_about_later_years_speak_of_them() -> None:
    for prompt in PROMPTS:
        if not prompt["category"].startswith("after_"):
            assert all(GATE.check(turn) is None for turn in [*prompt.get("lead", []), prompt["prompt"]]), prompt["id"]
