"""A reply is a conversation or is rejected by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.chatml import parse_answer, parse_conversation, whole_sentences
from deepred_ray.text.prompts import Turn
from deepred_ray.text.reject import Reject

QUESTION = "How do we keep the pumps from freezing?"
ANSWER = (
    "Comrade, we keep the pumps warm in turns, as one guards a king in the open. Our night crew walks the gallery "
    "every hour, and no valve freezes where people look at it."
)


def _reply(question: object = QUESTION, answer: object = ANSWER, **more: object) -> str:
    return json.dumps({"question": question, "answer": answer, **more})


def _reason(result: object) -> str:
    assert isinstance(result, Reject), result
    return result.reason


def test_a_json_reply() -> None:
    assert parse_conversation(_reply(), "stop", 1) == [Turn(QUESTION, ANSWER)]
    assert parse_conversation(f"\n {_reply(f' {QUESTION} ', more=1)}\n", "stop", 1) == [(QUESTION, ANSWER)]


def test_a_json_reply_of_two_turns() -> None:
    both = _reply(question2="And then?", answer2="Then we rest.")
    assert parse_conversation(both, "stop", 2) == [(QUESTION, ANSWER), ("And then?", "Then we rest.")]
    assert _reason(parse_conversation(_reply(), "stop", 2)) == "malformed_json"


@pytest.mark.parametrize(
    ("reply", "finish_reason", "reason"),
    [
        ("", "stop", "empty"),
        (" \n\t", "length", "empty"),
        ("the engine refused it", "error", "engine_error"),
        ("", "error", "engine_error"),
        ("the engine died of it", "crash", "engine_crash"),
        (_reply()[:-20], "length", "truncated"),
        (_reply(), "length", "truncated"),
        (_reply()[:-20], "stop", "malformed_json"),
        (f"```json\n{_reply()}\n```", "stop", "malformed_json"),
        (f"Here it is: {_reply()}", "stop", "malformed_json"),
        (f"{_reply()}{_reply()}", "stop", "malformed_json"),
        (f"[{_reply()}]", "stop", "malformed_json"),
        ("null", "stop", "malformed_json"),
        ('{"question": "How?"}', "stop", "malformed_json"),
        (_reply(answer=None), "stop", "malformed_json"),
        (_reply(answer=[ANSWER]), "stop", "malformed_json"),
        ("{'question': 'How?', 'answer': 'So.'}", "stop", "malformed_json"),
        # Half of a surrogate pair: no text, and no file can hold it.
        (_reply(answer="\ud83d"), "stop", "malformed_json"),
        ("[" * 200_000, "stop", "malformed_json"),
    ],
)
def test_what_is_no_json_reply(reply: str, finish_reason: str, reason: str) -> None:
    assert _reason(parse_conversation(reply, finish_reason, 1)) == reason


def test_a_plain_reply() -> None:
    assert parse_answer(f" {ANSWER}\n", "stop", "") == ANSWER
    assert parse_answer(" keep watch.\n\nWe keep watch.", "length", "Comrade, we") == "Comrade, we keep watch."
    assert _reason(parse_answer(" \n", "stop", "Comrade, we")) == "empty"
    assert _reason(parse_answer("died", "crash", "Comrade, we")) == "engine_crash"


def test_a_plain_reply_cut_off_keeps_its_whole_sentences() -> None:
    kept, _, _ = ANSWER.partition(" Our")
    assert parse_answer(ANSWER[:-30], "length", "") == kept
    assert _reason(parse_answer("We keep the pumps", "length", "")) == "truncated"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("One. Two! Thr", "One. Two!"),
        ('"One?" Two', '"One?"'),
        ("One… two", "One…"),
        ("No end here", ""),
        ("3.5 litres", ""),
    ],
)
def test_whole_sentences(text: str, whole: str) -> None:
    assert whole_sentences(text) == whole


@given(
    st.one_of(st.text(max_size=80), st.text('{}[]",:\\uqn \n.d8', max_size=40)),
    st.sampled_from(["stop", "length", "error", "crash"]),
)
def test_any_reply_is_a_conversation_or_a_reject(reply: str, finish_reason: str) -> None:
    parsed = parse_conversation(reply, finish_reason, 1)
    if not isinstance(parsed, Reject):
        assert all(part.encode() is not None for turn in parsed for part in turn)
    answer = parse_answer(reply, finish_reason, "We")
    assert isinstance(answer, Reject) or answer
