"""A model's reply becomes turns of a conversation, or a named reason for rejecting it. Never a default."""

import json
import re

from deepred_ray.text.prompts import Turn, turn_keys
from deepred_ray.text.reject import Reject

FAILED = {"error": "engine_error", "crash": "engine_crash"}
"""Finish reasons of a reply that is no reply: the engine refused the request, or died of it."""


def refused(reply: str, finish_reason: str) -> Reject | None:
    """Why there is nothing to parse, by either contract."""
    if reason := FAILED.get(finish_reason):
        return Reject(reason, reply[:200])
    return None if reply.strip() else Reject("empty")


def parse_answer(reply: str, finish_reason: str, opening: str) -> str | Reject:
    """The answer by the plain contract: its first paragraph up to its last whole sentence."""
    if reject := refused(reply, finish_reason):
        return reject
    # Past its first paragraph a small model starts over.
    paragraph, *more = (opening + reply).strip().split("\n\n")
    answer = whole_sentences(paragraph) if finish_reason == "length" and not more else paragraph
    return answer or Reject("truncated", "no sentence ends before the token limit")


def parse_conversation(reply: str, finish_reason: str, turns: int) -> list[Turn] | Reject:
    """The conversation by the json contract, of exactly so many turns."""
    if reject := refused(reply, finish_reason):
        return reject
    if finish_reason != "stop":
        return Reject("truncated", f"finish reason {finish_reason}")
    try:
        parsed = json.loads(reply)
        json.dumps(parsed, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
    except (ValueError, RecursionError) as error:
        return Reject("malformed_json", str(error))
    keys = turn_keys(turns)
    wanted = [key for turn in keys for key in turn]
    if not isinstance(parsed, dict) or not all(isinstance(parsed.get(key), str) for key in wanted):
        return Reject("malformed_json", f"without the strings {', '.join(wanted)}")
    return [Turn(parsed[question].strip(), parsed[answer].strip()) for question, answer in keys]


def whole_sentences(text: str) -> str:
    """The text up to its last complete sentence; empty if none is complete."""
    ends = [match.end() for match in re.finditer(r"[.!?…][\"”’]?(?=\s)", text)]
    return text[: ends[-1]] if ends else ""
