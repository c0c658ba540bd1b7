"""What a theme's prompts are made of: sampled axes, exemplary exchanges, banks of questions and openings."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from deepred_ray.text.jsonl import json_value
from deepred_ray.text.personas import Persona

AUXILIARIES = frozenset(
    "am|is|are|was|were|do|does|did|can|could|will|would|shall|should|may|might|must|has|have|had".split("|")  # noqa: SIM905
)


ANY = "any"
"""Stands for every theme in the themes of a question."""


@dataclass(frozen=True, slots=True)
class Length:
    """`words` bounds an answer; `max_tokens` leaves room for its last sentence, `plain_tokens` is what a small model is given."""

    name: str
    words: tuple[int, int]
    max_tokens: int
    plain_tokens: int
    weight: float


@dataclass(frozen=True, slots=True)
class Axes:
    """What is sampled outside the model so that examples differ. `forms` maps a form of questions to its description,
    `turns` a number of turns to its weight."""

    askers: tuple[str, ...]
    intents: tuple[str, ...]
    tones: tuple[str, ...]
    forms: Mapping[str, str]
    lengths: tuple[Length, ...]
    turns: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exemplary question and answer of the theme's voice."""

    persona: str
    themes: frozenset[str]
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the bank; `{topic}` in it stands for a keyword of the passage, `{thing}` for a thing that it tells of.
    `form` is `question_form` of it."""

    themes: frozenset[str]
    text: str
    form: str


@dataclass(frozen=True, slots=True)
class Phrasebook:
    """All that prompts are made of but the passage. `topics` are the keywords that can stand for `{topic}`; `frames` are sentences
    that name a `{thing}` before a question; `openings` are by persona group, or for `any`; `requests` are the json contract's by
    kind of source; `common` are the stems of words that no question names as a thing."""

    personas: Mapping[str, Persona]
    axes: Axes
    voice: tuple[Exchange, ...]
    questions: tuple[Question, ...]
    frames: tuple[str, ...]
    followups: tuple[str, ...]
    topics: frozenset[str]
    openings: Mapping[str, tuple[str, ...]]
    requests: Mapping[str, str]
    common: frozenset[str]


def parse_axes(toml: str) -> Axes:
    """Raises ValueError naming what is missing or malformed."""
    entry = tomllib.loads(toml)
    try:
        lengths = tuple(
            Length(item["name"], (item["words"][0], item["words"][1]), item["max_tokens"], item["plain_tokens"], item["weight"])
            for item in entry["length"]
        )
        turns = {int(item["count"]): float(item["weight"]) for item in entry["turns"]}
        axes = Axes(tuple(entry["asker"]), tuple(entry["intent"]), tuple(entry["tone"]), dict(entry["form"]), lengths, turns)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"axes.toml: {error!r}") from error
    if not all((axes.askers, axes.intents, axes.tones, axes.forms, axes.lengths)) or min(axes.turns, default=0) < 1:
        raise ValueError("axes.toml: an axis is empty, or a number of turns is below 1")
    return axes


def parse_voice(jsonl: str, personas: Mapping[str, Persona]) -> tuple[Exchange, ...]:
    """Raises ValueError naming the line that is no exchange of a known persona."""
    exchanges = []
    for number, line in enumerate(jsonl.splitlines(), 1):
        try:
            row = json_value(line)
            exchange = Exchange(row["persona"], frozenset(row["themes"]), row["question"], row["answer"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"voice.jsonl, line {number}: {error!r}") from error
        if exchange.persona not in personas:
            raise ValueError(f"voice.jsonl, line {number}: unknown persona {exchange.persona!r}")
        exchanges.append(exchange)
    return tuple(exchanges)


def parse_questions(tsv: str) -> tuple[Question, ...]:
    """Raises ValueError naming the line that has not two columns."""
    questions = []
    for number, line in enumerate(tsv.splitlines()[1:], 2):
        themes, tab, text = line.partition("\t")
        if not tab or not text:
            raise ValueError(f"questions.tsv, line {number}: expected themes, a tab and a question")
        questions.append(Question(frozenset(themes.split(",")), text, question_form(text)))
    return tuple(questions)


def parse_openings(toml: str) -> dict[str, tuple[str, ...]]:
    """Openings by persona group, and under `any`. Raises ValueError if there is none for any."""
    openings = {group: tuple(entries) for group, entries in tomllib.loads(toml).items()}
    if not openings.get("any"):
        raise ValueError("openings.toml: `any` is missing or empty")
    return openings


def parse_requests(toml: str) -> dict[str, str]:
    """Requests by kind of source. Raises ValueError if one that is needed is missing, or has a blank that nothing fills."""
    requests = {name: str(text).strip() for name, text in tomllib.loads(toml).items()}
    if missing := {"books", "none", "plain"} - requests.keys():
        raise ValueError(f"requests.toml: no request for {', '.join(sorted(missing))}")
    for name, text in requests.items():
        try:
            text.format(source="", asker="", intent="", tone="", form="", low=0, high=0, topic="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"requests.toml, {name}: {error!r}") from error
    return requests


def question_form(question: str) -> str:
    """How a question is put: request, choice, why, how, yes_no, situation (something is told before it is asked) or open."""
    *before, last = [part for part in question.replace("!", ".").replace("?", "?.").split(".") if part.strip()]
    if not last.rstrip().endswith("?"):
        return "request"
    words = last.lower().replace(",", " ").replace("?", " ").split() or [""]
    if " or " in last.lower() and words[0] not in ("how", "why", "who"):
        return "choice"
    if before:
        return "situation"
    if words[0] in ("why", "how"):
        return words[0]
    return "yes_no" if words[0] in AUXILIARIES else "open"
