"""The judge's rubric: what another model scores an example by, how it is asked, and what its reply is worth."""

import json
import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from deepred_ray.text.chatml import FAILED
from deepred_ray.text.jsonl import json_value
from deepred_ray.text.prompts import Turn
from deepred_ray.text.reject import Reject

LOWEST: Final = 1
HIGHEST: Final = 5
REASON_CHARS: Final = 160
NO_PASSAGE: Final = "(none: the conversation is on a topic of its own; score grounding by whether it keeps to that topic)"


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that is scored from 1 to 5, with what earns 1, 3 and 5."""

    name: str
    question: str
    anchors: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """Scores and reasons by axis."""

    scores: dict[str, int]
    reasons: dict[str, str]

    @property
    def score(self) -> float:
        """Mean over the axes, 1 to 5."""
        return statistics.fmean(self.scores.values())


def parse_rubric(toml: str) -> tuple[Axis, ...]:
    """Raises ValueError naming the axis that is malformed, or if there is none."""
    axes = []
    for name, entry in tomllib.loads(toml).items():
        try:
            axes.append(Axis(name, entry["question"], (entry["one"], entry["three"], entry["five"])))
        except (KeyError, TypeError) as error:
            raise ValueError(f"rubric.toml, {name}: {error!r}") from error
    if not axes:
        raise ValueError("rubric.toml: no axis")
    return tuple(axes)


def judge_messages(rubric: Sequence[Axis], description: str, passage: str | None, turns: Sequence[Turn]) -> list[dict[str, str]]:
    """The request for a judgement. `description` says whose voice is wanted."""
    axes = "\n".join(
        f"{axis.name}: {axis.question} 1: {axis.anchors[0]} 3: {axis.anchors[1]} 5: {axis.anchors[2]}" for axis in rubric
    )
    conversation = "\n".join(f"Question: {turn.question}\nAnswer: {turn.answer}" for turn in turns)
    return [
        {
            "role": "system",
            "content": "You are a strict editor. You score a conversation by a rubric and give reasons. You reply in JSON.",
        },
        {
            "role": "user",
            "content": f"The voice that is wanted:\n{description}\n\nThe passage:\n{passage or NO_PASSAGE}\n\n"
            f"The conversation:\n{conversation}\n\nThe rubric, 1 to 5 on each axis:\n{axes}\n\n"
            "For each axis give first a reason of a few words, then the score.",
        },
    ]


def judge_schema(rubric: Sequence[Axis]) -> str:
    """JSON schema of a judgement: the reason comes first, so that the score follows from it."""
    axis = {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "minLength": 3, "maxLength": REASON_CHARS},
            "score": {"type": "integer", "enum": list(range(LOWEST, HIGHEST + 1))},
        },
        "required": ["reason", "score"],
        "additionalProperties": False,
    }
    names = [each.name for each in rubric]
    return json.dumps(
        {"type": "object", "properties": dict.fromkeys(names, axis), "required": names, "additionalProperties": False}
    )


def parse_judgement(reply: str, finish_reason: str, rubric: Sequence[Axis]) -> Judged | Reject:
    """The judgement in a reply, or why there is none: no score is ever made up for what was not said."""
    if finish_reason != "stop":
        return Reject(FAILED.get(finish_reason, "truncated"), f"finish reason {finish_reason}")
    try:
        found = json_value(reply)
    except ValueError as error:
        return Reject("malformed_json", str(error))
    scores: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for axis in rubric:
        entry = found.get(axis.name) if isinstance(found, dict) else None
        if not isinstance(entry, dict) or not isinstance(entry.get("reason"), str):
            return Reject("malformed_json", f"no reason and score for {axis.name}")
        score = entry.get("score")
        if type(score) is not int or not LOWEST <= score <= HIGHEST:
            return Reject("out_of_range", f"{axis.name}: {score!r} is no score from {LOWEST} to {HIGHEST}")
        scores[axis.name], reasons[axis.name] = score, entry["reason"]
    return Judged(scores, reasons)
