"""A line of a ChatML file: the conversation that it holds, or what is wrong with it."""

from collections.abc import Sequence
from typing import Any

from deepred_ray.text.jsonl import json_value

Message = dict[str, str]
ROLES = ("system", "user", "assistant")


def parse(line: str) -> list[Message]:
    """The messages of `{"messages": [{"role": ..., "content": ...}, ...]}`.

    Raises:
        ValueError: no JSON, no such object, or messages that `fault` finds wrong; the message says what.
    """
    try:
        row = json_value(line)
    except ValueError as error:
        raise ValueError(f"no JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"no object with a list `messages`, but {keys or 'nothing'}")
    messages = [message_of(item, place) for place, item in enumerate(row["messages"], 1)]
    if wrong := fault(messages):
        raise ValueError(wrong)
    return messages


def message_of(item: Any, place: int) -> Message:
    if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in ("role", "content")):
        raise ValueError(f"message {place} has not the strings `role` and `content`")
    return {"role": item["role"], "content": item["content"]}


def fault(messages: Sequence[Message]) -> str | None:
    """What is wrong with a conversation to be trained on: an unknown role, turns that do not alternate, no answer at the end, or a
    message without text; None if nothing is."""
    roles = [message["role"] for message in messages]
    if unknown := [role for role in roles if role not in ROLES]:
        return f"role {unknown[0]!r}, wanted one of {', '.join(ROLES)}"
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        return f"roles {', '.join(roles) or 'none'}, wanted user and assistant in turns, after a system message or none"
    empty = next((place for place, message in enumerate(messages, 1) if not message["content"].strip()), None)
    return f"message {empty} ({roles[empty - 1]}) is empty" if empty else None
