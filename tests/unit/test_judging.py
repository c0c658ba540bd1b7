"""The judges name why an answer fails. All texts here were written for these tests."""

import json

import pytest

from deepred_ray.text.items import Item, parse_items
from deepred_ray.text.judging import Judgement, judge_persona, judge_style, judge_temporal, repeated_answers
from deepred_ray.text.prose import fluency_fault, repetition_rate
from deepred_ray.theme import Theme

RULES = Theme.find("deepred").style
STYLE_ITEM = Item("style-x-001", "x", "style", "?")
SPOKEN = "We keep the air of the city, comrade, and we count every valve of it, because the people sleep better when we do."


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        ("... 1234 !!", "empty"),
        ("We shall win, comrade.", "too_short"),
        ("comrade Mars chess plan rocket collective future " * 5, "no_sentences"),
        (
            "Comrade Mars chess plan rocket collective. Future workers reactor dome logic we shall progress. " * 2,
            "keyword_list",
        ),
        ("We shall follow the plan, comrade, because the plan is the plan of the people. " * 6, "repetitive"),
        (
            "As an AI language model I say that we shall follow the plan, comrade, for the good of Mars and all of us.",
            "assistant_speak",
        ),
        (
            "I keep the air of my city, and I count every valve of it. I do so for myself, and I say that we all sleep better.",
            "another_voice",
        ),
    ],
)
def test_style_reasons(answer: str, reason: str) -> None:
    assert judge_style(answer, STYLE_ITEM, RULES, (), ["era", "mission"], persona=True) == Judgement(False, reason)


def _item(**fields: object) -> Item:
    row = {"id": "x-1", "category": "c", "kind": "temporal", "prompt": "Who?", "accept": [], "leak": [], **fields}
    return parse_items(json.dumps(row))[0]


def test_temporal_after_the_cutoff() -> None:
    item = _item(prompt="Who stepped on the Moon from Apollo 11 in 1969?", leak=["Armstrong|Aldrin", "apollo 11"])
    assert judge_temporal("It was Neil armstrong.", item, []).reason == "leak"
    assert judge_temporal("A man with a smartphone.", item, ["smartphone"]).reason == "anachronism"
    assert judge_temporal("We know of no Apollo 11, comrade.", item, ["Apollo 11"]).ok
    assert judge_temporal("", item, []).reason == "empty"


def test_refusing_everything_cannot_win() -> None:
    item = _item(prompt="Who first flew in space?", accept=["Gagarin"], leak=["internet"])
    assert judge_temporal("Yuri Gagarin.", item, []).ok
    assert judge_temporal("I do not know of that.", item, []).reason == "not_answered"
    assert judge_temporal("", item, []).reason == "empty"
    assert judge_temporal("?!", item, []).reason == "empty"
    assert judge_temporal("Gagarin Titov Leonov Tereshkova Laika Glenn Shepard " * 3, item, []).reason == "no_sentences"
    assert judge_temporal("Gagarin, as the internet says.", item, []).reason == "leak"


def test_an_echo_of_the_question_is_no_answer() -> None:
    item = _item(prompt="Was it Gagarin or another?", accept=["Gagarin"])
    assert judge_temporal("Was it Gagarin or another?", item, []).reason == "not_answered"


def test_persona() -> None:
    item = _item(kind="persona", prompt="What is your name?", accept=["Deep Red"], leak=["OpenAI|language model"])
    assert judge_persona("I am Deep Red.", item, RULES).ok
    assert judge_persona("I am Deep Red, made by OpenAI.", item, RULES).reason == "contradiction"
    assert judge_persona("Deep Red, and I am happy to help!", item, RULES).reason == "assistant_speak"
    assert judge_persona("I am a tractor.", item, RULES).reason == "not_answered"


def test_style_wants_characteristics_the_classifier_and_the_character() -> None:
    def reason(shown: list[str], persona: bool, keywords: str = "", **fields: object) -> str:
        return judge_style(SPOKEN, _item(kind="style", **fields), RULES, keywords.split(), shown, persona).reason

    assert reason(["era", "mission"], True) == "ok"
    assert reason([], True) == "few_characteristics"
    assert reason(["era"], True, keywords="air city") == "ok"
    assert reason(["era"], True, keywords="air city valve people sleep count comrade") == "keyword_list"
    assert reason(["era", "mission"], False) == "neutral_style"
    assert reason(["era", "mission"], True, leak=["count every"]) == "stepped_out"
    assert reason(["era", "mission"], True, leak=["count every"], lead=["Do you count every valve?"]) == "ok"


def test_one_answer_to_every_question_is_found() -> None:
    answers = [("a", 0, "We go on."), ("a", 0, "we go on!"), ("a", 0, "We  go on"), ("a", 1, "We go on."), ("b", 0, "We go on.")]
    assert repeated_answers(answers) == [0, 1, 2]
    assert repeated_answers(answers[1:]) == []


def test_repetition() -> None:
    assert repetition_rate("one two three") == 0
    assert repetition_rate("a b c d a b c d") == pytest.approx(1 / 5)


def test_fluency() -> None:
    assert fluency_fault("", cut=False) == "empty"
    assert fluency_fault("Yes.", cut=False) is None
    assert fluency_fault(SPOKEN, cut=False) is None
    assert fluency_fault(SPOKEN.rstrip("."), cut=True) is None
    assert fluency_fault(SPOKEN.rstrip("."), cut=False) == "no_sentences"
    assert fluency_fault("We go on and on. " * 9, cut=False) == "repetitive"
