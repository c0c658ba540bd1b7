"""What a line of a ChatML file must be to be trained on, and what is said of one that is not."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.errors import InputError
from deepred_ray.stages.tokens import read_chatml
from deepred_ray.text.conversations import fault, parse

SYSTEM = {"role": "system", "content": "You are Deep Red."}
ASK = {"role": "user", "content": "Who moves first?"}
ANSWER = {"role": "assistant", "content": "White, comrade."}


def line(*messages: object) -> str:
    return json.dumps({"messages": list(messages)})


def test_conversations_with_and_without_system_message_and_of_several_turns_are_read_as_they_are() -> None:
    for messages in ([ASK, ANSWER], [SYSTEM, ASK, ANSWER], [SYSTEM, ASK, ANSWER, ASK, ANSWER]):
        assert parse(line(*messages)) == messages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[1]", "no object with a list `messages`, but list"),
        ('{"conversations": []}', "but conversations"),
        ('{"messages": "hello"}', "but messages"),
        (line(ASK, "hello"), "message 2 has not the strings"),
        (line(ASK, {"role": "assistant", "content": None}), "message 2 has not the strings"),
        (line(ASK, ANSWER | {"role": "bot"}), "role 'bot', wanted one of system, user, assistant"),
        (line(), "roles none"),
        (line(SYSTEM), "roles system, wanted user and assistant in turns"),
        (line(ASK), "roles user, wanted"),
        (line(ANSWER, ASK), "roles assistant, user"),
        (line(ASK, ASK, ANSWER), "roles user, user, assistant"),
        (line(ASK, SYSTEM, ANSWER), "roles user, system, assistant"),
        (line(ASK, ANSWER | {"content": " \n"}), r"message 2 \(assistant\) is empty"),
        (line(SYSTEM, ASK | {"content": ""}, ANSWER), r"message 2 \(user\) is empty"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


@given(
    st.lists(st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.sampled_from("ab ")}))
)
def test_a_faultless_conversation_ends_with_an_answer_and_alternates(messages: list[dict[str, str]]) -> None:
    if fault(messages) is None:
        assert messages[-1]["role"] == "assistant"
        turns = [message["role"] for message in messages if message["role"] != "system"]
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert all(message["content"].strip() for message in messages)


def test_a_dataset_is_split_by_line(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    for count, held in ((2, [2]), (9, [9]), (10, [10]), (25, [10, 20])):
        file.write_text("".join(line(SYSTEM, ASK, ANSWER) + "\n" for _ in range(count)))
        rows = read_chatml(file)
        assert [row["example_id"] for row in rows] == [f"line-{number:07d}" for number in range(1, count + 1)]
        assert [number for number, row in enumerate(rows, 1) if row["split"] == "val"] == held


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "No such file"),
        (b"", "line 1: no JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        (line(ASK, ANSWER).encode(), "has one conversation"),
        ((line(ASK, ANSWER) + "\n" + line(ASK) + "\n").encode(), "line 2: roles user, wanted"),
    ],
)
def test_a_bad_dataset_is_named(tmp_path: Path, data: bytes | None, message: str) -> None:
    file = tmp_path / "set.jsonl"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(InputError, match=f"set.jsonl.*{message}"):
        read_chatml(file)
