"""The judge's rubric: read, asked, and its verdict taken as it is or refused by name."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.prompts import Turn
from deepred_ray.text.reject import Reject
from deepred_ray.text.rubric import (
    NO_PASSAGE,
    REASON_CHARS,
    Axis,
    Judged,
    judge_messages,
    judge_schema,
    parse_judgement,
    parse_rubric,
)
from deepred_ray.theme import Theme

TOML = """
[hope]
question = "Does it look ahead?"
one = "It looks back."
three = "It looks round."
five = "It looks ahead."

[voice]
question = "Who speaks?"
one = "One."
three = "Some."
five = "All."
"""
RUBRIC = parse_rubric(TOML)
TURNS = [Turn("Who minds the pumps?", "We do, comrade."), Turn("And at night?", "We do then too.")]
GOOD = {"hope": {"reason": "a plan", "score": 4}, "voice": {"reason": "it says we", "score": 5}}


def test_a_rubric_is_read_in_its_order() -> None:
    assert parse_rubric(TOML) == (
        Axis("hope", "Does it look ahead?", ("It looks back.", "It looks round.", "It looks ahead.")),
        Axis("voice", "Who speaks?", ("One.", "Some.", "All.")),
    )


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("", "no axis"),
        (TOML.replace('five = "All."', ""), "voice: KeyError.*five"),
        (TOML.replace('question = "Does it look ahead?"\n', ""), "hope: KeyError.*question"),
        ("hope = 3", "hope: TypeError"),
    ],
)
def test_a_malformed_rubric_is_named(toml: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rubric(toml)


def test_the_shipped_rubric_has_the_axes_of_the_theme() -> None:
    rubric = Theme.find("deepred").rubric
    names = [axis.name for axis in rubric]
    assert names == ["collectivism", "futurism", "rationalism", "authority", "period", "mission", "grounding", "fluency"]
    assert all(len({axis.question, *axis.anchors}) == 4 for axis in rubric)


def test_the_judge_is_shown_everything() -> None:
    system, request = judge_messages(RUBRIC, "A calm machine.", "The pumps {stood}.", TURNS)
    assert (system["role"], request["role"]) == ("system", "user")
    asked = request["content"]
    assert "A calm machine." in asked
    assert "The pumps {stood}." in asked
    assert "Question: Who minds the pumps?\nAnswer: We do, comrade.\nQuestion: And at night?\nAnswer: We do then too." in asked
    assert "hope: Does it look ahead? 1: It looks back. 3: It looks round. 5: It looks ahead.\nvoice: " in asked
    assert NO_PASSAGE not in asked
    assert NO_PASSAGE in judge_messages(RUBRIC, "A calm machine.", None, TURNS)[1]["content"]


def test_the_schema_wants_a_reason_before_the_score_on_every_axis() -> None:
    schema = json.loads(judge_schema(RUBRIC))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == schema["required"] == ["hope", "voice"]
    assert list(schema["properties"]["hope"]["properties"]) == ["reason", "score"]
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert valid(GOOD)
    for change in (
        {"score": 0},
        {"score": 6},
        {"score": 3.5},
        {"score": "4"},
        {"reason": ""},
        {"reason": "r" * (REASON_CHARS + 1)},
        {"mood": "calm"},
    ):
        assert not valid(GOOD | {"voice": {"reason": "it says we", "score": 5} | change})
    assert not valid({"hope": GOOD["hope"]})
    assert not valid(GOOD | {"wit": GOOD["hope"]})


# --- the verdict


def judged(reply: Any, finish_reason: str = "stop") -> Judged | Reject:
    return parse_judgement(reply if isinstance(reply, str) else json.dumps(reply), finish_reason, RUBRIC)


def test_a_judgement() -> None:
    found = judged(GOOD | {"wit": 3})
    assert found == Judged({"hope": 4, "voice": 5}, {"hope": "a plan", "voice": "it says we"})
    assert isinstance(found, Judged)
    assert found.score == 4.5


@pytest.mark.parametrize(
    ("reply", "finish_reason", "reason", "detail"),
    [
        (GOOD, "length", "truncated", "finish reason length"),
        (GOOD, "error", "engine_error", "finish reason error"),
        ("the engine died", "crash", "engine_crash", "finish reason crash"),
        ("", "stop", "malformed_json", "Expecting value"),
        ("Hope: 4", "stop", "malformed_json", "Expecting value"),
        (json.dumps(GOOD)[:-3], "stop", "malformed_json", ""),
        ("[" * 200_000, "stop", "malformed_json", ""),
        ([GOOD], "stop", "malformed_json", "hope"),
        (None, "stop", "malformed_json", "hope"),
        ({"hope": GOOD["hope"]}, "stop", "malformed_json", "no reason and score for voice"),
        (GOOD | {"voice": 4}, "stop", "malformed_json", "no reason and score for voice"),
        (GOOD | {"voice": {"score": 4}}, "stop", "malformed_json", "no reason and score for voice"),
        (GOOD | {"voice": {"reason": None, "score": 4}}, "stop", "malformed_json", "no reason and score for voice"),
        (GOOD | {"voice": {"reason": "well"}}, "stop", "out_of_range", "voice: None"),
        (GOOD | {"voice": {"reason": "well", "score": 0}}, "stop", "out_of_range", "voice: 0 is no score from 1 to 5"),
        (GOOD | {"voice": {"reason": "well", "score": 6}}, "stop", "out_of_range", "voice: 6"),
        (GOOD | {"voice": {"reason": "well", "score": 4.0}}, "stop", "out_of_range", "voice: 4.0"),
        (GOOD | {"voice": {"reason": "well", "score": "4"}}, "stop", "out_of_range", "voice: '4'"),
        (GOOD | {"voice": {"reason": "well", "score": True}}, "stop", "out_of_range", "voice: True"),
    ],
)
def test_no_score_is_made_up(reply: Any, finish_reason: str, reason: str, detail: str) -> None:
    found = judged(reply, finish_reason)
    assert isinstance(found, Reject)
    assert found.reason == reason
    assert detail in found.detail


ENTRY = st.fixed_dictionaries(
    {"reason": st.text(max_size=20) | st.none(), "score": st.integers(-1, 7) | st.booleans() | st.floats(0, 6)}
)


@given(st.fixed_dictionaries({}, optional={"hope": ENTRY, "voice": ENTRY, "wit": ENTRY}))
def test_what_has_a_score_was_said_and_what_was_said_has_one(reply: dict[str, dict[str, Any]]) -> None:
    whole = all(
        name in reply
        and isinstance(reply[name]["reason"], str)
        and type(reply[name]["score"]) is int
        and 1 <= reply[name]["score"] <= 5
        for name in ("hope", "voice")
    )
    found = judged(reply)
    assert isinstance(found, Judged) == whole
    if isinstance(found, Judged):
        assert found.scores == {name: reply[name]["score"] for name in ("hope", "voice")}
        assert found.reasons == {name: reply[name]["reason"] for name in ("hope", "voice")}
        assert 1 <= found.score <= 5
