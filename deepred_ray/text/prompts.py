"""A passage, a persona and sampled axes become chat messages, by one of two reply contracts.

`json`: the model writes question and answer as one JSON object, by a schema that the engine enforces.
`plain`: question and opening words are drawn from the theme's banks and the model only goes on, for models too small for JSON.
Everything that varies is drawn from a generator seeded by the example id and the attempt, never from the model.
"""

import json
import random
import tomllib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from deepred_ray.text.personas import Persona, Slot

Contract = Literal["plain", "json"]
SHOTS = 3
PLAIN_TOKENS = 72
"""A small model keeps to its point for two or three sentences."""
PASSAGE_MARK = "From the archive of Earth:"


@dataclass(frozen=True, slots=True)
class Length:
    """`words` bounds an answer; `max_tokens` leaves room for its last sentence."""

    name: str
    words: tuple[int, int]
    max_tokens: int
    weight: float


@dataclass(frozen=True, slots=True)
class Axes:
    """What is sampled outside the model so that examples differ."""

    askers: tuple[str, ...]
    intents: tuple[str, ...]
    tones: tuple[str, ...]
    lengths: tuple[Length, ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exemplary question and answer of the theme's voice."""

    persona: str
    themes: frozenset[str]
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the bank; `{topic}` in it stands for a keyword of the passage."""

    themes: frozenset[str]
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to the engine for one attempt, and what its example will carry.

    `question` is None where the model writes it; `opening` begins the answer, and the model goes on from there. `shots` are
    the answers shown, which a reply must not copy.
    """

    system: str
    question: str | None
    opening: str
    messages: list[dict[str, str]]
    schema: str | None
    max_tokens: int
    axes: dict[str, str]
    shots: tuple[str, ...]


def parse_axes(toml: str) -> Axes:
    entry = tomllib.loads(toml)
    lengths = tuple(
        Length(length["name"], (length["words"][0], length["words"][1]), length["max_tokens"], float(length["weight"]))
        for length in entry["length"]
    )
    return Axes(tuple(entry["asker"]), tuple(entry["intent"]), tuple(entry["tone"]), lengths)


def parse_voice(jsonl: str, personas: Mapping[str, Persona]) -> tuple[Exchange, ...]:
    """Raises ValueError naming the line that is no exchange of a known persona."""
    exchanges = []
    for number, line in enumerate(jsonl.splitlines(), 1):
        try:
            row = json.loads(line)
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
        questions.append(Question(frozenset(themes.split(",")), text))
    return tuple(questions)


def parse_openings(toml: str) -> dict[str, tuple[str, ...]]:
    """Openings by persona group, and under `any`. Raises ValueError if there is none for any."""
    openings = {group: tuple(entries) for group, entries in tomllib.loads(toml).items()}
    if not openings.get("any"):
        raise ValueError("openings.toml: `any` is missing or empty")
    return openings


def reply_schema(answer_chars: tuple[int, int]) -> str:
    """JSON schema of a reply. The strings are bounded, so that a model that rambles ends in valid JSON."""
    return json.dumps(
        {
            "type": "object",
            "properties": {
                "question": {"type": "string", "minLength": 12, "maxLength": 240},
                "answer": {"type": "string", "minLength": answer_chars[0], "maxLength": answer_chars[1]},
            },
            "required": ["question", "answer"],
            "additionalProperties": False,
        }
    )


def cut_passage(text: str, limit: int) -> str:
    """The passage up to `limit` characters, ending at a sentence where one ends in its second half."""
    if len(text) <= limit:
        return text
    cut = text[:limit]
    end = max(cut.rfind(mark) for mark in (". ", "! ", "? ", ".\n"))
    return cut[: end + 1] if end > limit // 2 else cut


def build(
    slot: Slot,
    attempt: int,
    passage: str,
    hits: Mapping[str, Sequence[str]],
    *,
    contract: Contract,
    personas: Mapping[str, Persona],
    axes: Axes,
    voice: Sequence[Exchange],
    questions: Sequence[Question],
    topics: Set[str],
    openings: Mapping[str, Sequence[str]],
    passage_chars: int,
    answer_chars: tuple[int, int],
) -> Prompt:
    """The prompt of one attempt at a slot. `hits` maps theme to the keywords found in the passage."""
    rng = random.Random(f"{slot.example_id}/{attempt}")
    persona = personas[slot.persona]
    system = rng.choice(persona.system)
    asker, intent, tone = rng.choice(axes.askers), rng.choice(axes.intents), rng.choice(axes.tones)
    length = rng.choices(axes.lengths, [choice.weight for choice in axes.lengths])[0]
    drawn = {"asker": asker, "intent": intent, "tone": tone, "length": length.name}
    source = cut_passage(passage, passage_chars)
    if contract == "json":
        shots = draw_shots(rng, persona, voice)
        return Prompt(
            system,
            None,
            "",
            json_messages(system, shots, source, asker, intent, tone, length),
            reply_schema(answer_chars),
            # A token is at least a character of JSON; a model that needs more is cut off and rejected.
            max_tokens=length.max_tokens + 120,
            axes=drawn,
            shots=tuple(shot.answer for shot in shots),
        )
    question = draw_question(rng, questions, {theme: [word for word in words if word in topics] for theme, words in hits.items()})
    opening = rng.choice([*openings["any"], *openings.get(persona.group, ())])
    return Prompt(system, question, opening, plain_messages(system, question), None, PLAIN_TOKENS, drawn, ())


def draw_shots(rng: random.Random, persona: Persona, voice: Sequence[Exchange]) -> list[Exchange]:
    own = [exchange for exchange in voice if exchange.persona == persona.id]
    near = [exchange for exchange in voice if exchange.persona != persona.id and exchange.themes & persona.themes]
    first = rng.sample(own, min(2, len(own)))
    return first + rng.sample(near, min(SHOTS - len(first), len(near)))


def draw_question(rng: random.Random, questions: Sequence[Question], hits: Mapping[str, Sequence[str]]) -> str:
    """A question on the passage's themes: about one of its keywords where the passage has one that can be a topic."""
    themes = {theme for theme, words in hits.items() if words}
    fitting = [question for question in questions if question.themes & themes and "{topic}" in question.text]
    if not fitting:
        return rng.choice([plain for plain in questions if "{topic}" not in plain.text]).text
    question = rng.choice(fitting)
    topics = sorted({word for theme in question.themes & themes for word in hits[theme]})
    text = question.text.replace("{topic}", rng.choice(topics))
    return text[0].upper() + text[1:]


def plain_messages(system: str, question: str) -> list[dict[str, str]]:
    """No exemplar and no passage: a small model copies the one and tells the other on, where it should answer."""
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def json_messages(
    system: str, shots: Sequence[Exchange], source: str, asker: str, intent: str, tone: str, length: Length
) -> list[dict[str, str]]:
    """One request for question and answer together, with the exemplars as objects of the same form."""
    examples = "\n".join(json.dumps({"question": shot.question, "answer": shot.answer}, ensure_ascii=False) for shot in shots)
    low, high = length.words
    request = (
        f"{PASSAGE_MARK}\n{source}\n\n"
        f"Write one exchange between Deep Red and {asker}, who {intent}. The question stands by itself and does not mention "
        f"the archive. Deep Red answers {tone}, in {low} to {high} words, drawing on what the archive says, in its own words. "
        f"Reply with one JSON object, as in these:\n{examples}"
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": request}]


def as_messages(system: str, question: str, answer: str) -> list[dict[str, Any]]:
    """The ChatML messages of an accepted example."""
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
