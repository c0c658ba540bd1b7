"""A reply is an exchange or is rejected by name: each reason has an example of its own."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.chatml import Checks, judge, parse_reply, whole_sentences
from deepred_ray.text.dedup import normalise
from deepred_ray.text.prompts import PASSAGE_MARK, Prompt, as_messages
from deepred_ray.text.reject import Reject

QUESTION = "How do we keep the pumps from freezing?"
ANSWER = (
    "Comrade, we keep the pumps warm in turns, as one guards a king in the open. Our night crew walks the gallery "
    "every hour, and no valve freezes where people look at it."
)
PASSAGE = (
    "The miller's daughter had counted eleven sacks on the cart before the axle broke, and the rye lay in the ford "
    "until the cattle came down to drink."
)
SHOT = "Every lamp on the southern road was lit by a hand that nobody paid, and not one of them has gone out."

PLAIN = Prompt(
    system="You keep the pumps.",
    question=QUESTION,
    opening="",
    messages=[],
    schema=None,
    max_tokens=60,
    axes={},
    shots=(),
)
JSON = replace(PLAIN, question=None, schema="{}", shots=(SHOT,))
CHECKS = Checks(
    answer_chars=(40, 300),
    era=lambda text: Reject("anachronism", "transistor") if "transistor" in text else None,
    theme_hits=lambda text: {"machines": text.count("pump") + text.count("valve")},
    forbidden=frozenset({normalise("Who keeps the pumps in order?")}),
)


def _reply(question: object = QUESTION, answer: object = ANSWER, **more: object) -> str:
    return json.dumps({"question": question, "answer": answer, **more})


def _reason(result: object) -> str:
    assert isinstance(result, Reject), result
    return result.reason


# Parsing


def test_a_json_reply() -> None:
    assert parse_reply(_reply(), "stop", JSON) == (QUESTION, ANSWER)
    assert parse_reply(f"\n {_reply(f' {QUESTION} ', more=1)}\n", "stop", JSON) == (QUESTION, ANSWER)


@pytest.mark.parametrize(
    ("reply", "finish_reason", "reason"),
    [
        ("", "stop", "empty"),
        (" \n\t", "length", "empty"),
        ("the engine died", "error", "engine_error"),
        ("", "error", "engine_error"),
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
    assert _reason(parse_reply(reply, finish_reason, JSON)) == reason


def test_a_plain_reply() -> None:
    assert parse_reply(f" {ANSWER}\n", "stop", PLAIN) == (QUESTION, ANSWER)


def test_a_plain_reply_cut_off_keeps_its_whole_sentences() -> None:
    kept, _, _ = ANSWER.partition(" Our")
    assert parse_reply(ANSWER[:-30], "length", PLAIN) == (QUESTION, kept)
    assert _reason(parse_reply("We keep the pumps", "length", PLAIN)) == "truncated"


def test_an_opening_begins_the_answer() -> None:
    prompt = replace(PLAIN, opening="Comrade, we")
    assert parse_reply(" keep watch.", "stop", prompt) == (QUESTION, "Comrade, we keep watch.")


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
    st.sampled_from(["stop", "length", "error"]),
    st.sampled_from([PLAIN, JSON]),
)
def test_any_reply_is_an_exchange_or_a_reject(reply: str, finish_reason: str, prompt: Prompt) -> None:
    parsed = parse_reply(reply, finish_reason, prompt)
    if not isinstance(parsed, Reject):
        assert all(isinstance(part, str) and part.encode() is not None for part in parsed)
        result = judge(*parsed, PASSAGE, prompt, CHECKS)
        assert result is None or isinstance(result, Reject)


# Judging


@pytest.mark.parametrize("prompt", [PLAIN, JSON])
def test_a_good_exchange_is_kept(prompt: Prompt) -> None:
    assert judge(QUESTION, ANSWER, PASSAGE, prompt, CHECKS) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("We keep our pumps and valves warm.", "answer_length"),
        (f"{ANSWER} {ANSWER}", "answer_length"),
        ("", "answer_length"),
        (f"<|im_start|>{ANSWER}", "markup"),
        (f"**Comrade** {ANSWER}", "markup"),
        (f"{ANSWER}\nuser\nAnd now?", "markup"),
        (f"# The pumps\n{ANSWER}", "markup"),
        (f"{ANSWER} See http://pumps.example.", "markup"),
        (f"As an AI, {ANSWER}", "meta_talk"),
        (f"In the passage it is said: {ANSWER}", "meta_talk"),
        (f"I'm sorry. {ANSWER}", "meta_talk"),
        (ANSWER.rstrip(".") + " and then", "unfinished"),
        (f"{PASSAGE_MARK} {ANSWER}", "unfinished"),
        ("Мы держим насосы в тепле всю ночь, товарищ, и ни один клапан не замёрзнет.", "language"),
        ("1234 5678 1234 5678 1234 5678 1234 5678.", "language"),
        ("We keep our pumps, we keep our valves, " * 5 + "we keep our pumps.", "repetitive"),
        ("Comrade, I keep the pumps warm by myself, and our valves never freeze.", "out_of_character"),
        ("The night crew keeps the pumps warm, and no valve freezes in the gallery.", "out_of_character"),
        (f"{ANSWER} Thus before the axle broke, and the rye lay in the ford!", "copied"),
        ("We bring our bread up from the ovens while the people of the south dome sleep.", "off_theme"),
        (f"{ANSWER} Each has a transistor.", "anachronism"),
    ],
)
def test_every_reason_to_reject_an_answer(answer: str, reason: str) -> None:
    assert _reason(judge(QUESTION, answer, PASSAGE, PLAIN, CHECKS)) == reason


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Why?", "question_length"),
        ("Why so cold? " * 40, "question_length"),
        ("What does the author of this passage say of the pumps?", "meta_talk"),
        ("What is it that ```code``` does?", "markup"),
        ("Who keeps the pumps in order?", "evaluation_overlap"),
        ("WHO keeps the pumps in order", "evaluation_overlap"),
        ("Does a transistor work in the cold?", "anachronism"),
    ],
)
def test_every_reason_to_reject_a_question(question: str, reason: str) -> None:
    assert _reason(judge(question, ANSWER, PASSAGE, PLAIN, CHECKS)) == reason


def test_a_copied_exemplar_is_named() -> None:
    copy = f"{ANSWER} The road was lit by a hand that nobody paid."
    found = judge(QUESTION, copy, PASSAGE, JSON, CHECKS)
    assert _reason(found) == "copied"
    assert "exemplar" in str(found)
    assert judge(QUESTION, copy, PASSAGE, PLAIN, CHECKS) is None


def test_a_run_of_seven_words_is_no_copy() -> None:
    assert judge(QUESTION, f"{ANSWER} And the rye lay in the ford.", PASSAGE, PLAIN, CHECKS) is None


def test_messages_of_an_example() -> None:
    messages = as_messages("You keep the pumps.", QUESTION, ANSWER)
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert [message["content"] for message in messages] == ["You keep the pumps.", QUESTION, ANSWER]
