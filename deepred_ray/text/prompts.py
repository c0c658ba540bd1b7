"""A passage, a persona and sampled axes become chat messages, by one of two reply contracts.

`json`: the model writes the whole conversation as one JSON object, by a schema that the engine enforces.
`plain`: questions and opening words are drawn from the theme's banks and the model, which remembers the passage, only goes on, one
answer a request, for models too small for JSON.
Everything that varies is drawn from a generator seeded by the example id and the attempt, never from the model.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from deepred_ray.text.grounding import things
from deepred_ray.text.personas import Persona, Slot
from deepred_ray.text.phrasebook import ANY, Exchange, Phrasebook, Question

Contract = Literal["plain", "json"]
SHOTS = 3
JSON_TOKENS = 120
"""Tokens of a turn of JSON beside its answer: the question, keys and braces."""
MEMORY_CHARS = 320
"""Of the passage, around the thing that is asked about, for a small model: reading takes it longer than answering."""
FRAMED = 0.5
"""Share of plain questions on a passage that name a thing of it in a sentence before them."""
INTRODUCED = 0.25
"""Share of plain conversations whose asker says who is asking."""


class Turn(NamedTuple):
    """One question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to the engine for one attempt, and what its example will carry.

    `questions` and the `openings` of their answers are those of the turns, and `memory` is what the model knows beside its system
    prompt; all are empty where the model writes the conversation by `request` and `schema`. `max_tokens` bounds each reply. `shots`
    are the answers shown, which a reply must not copy.
    """

    system: str
    turns: int
    questions: tuple[str, ...]
    openings: tuple[str, ...]
    memory: str
    request: str
    schema: str | None
    max_tokens: int
    axes: dict[str, str]
    shots: tuple[str, ...]

    def messages(self, said: Sequence[Turn] = ()) -> list[dict[str, str]]:
        """The request that follows the turns `said`."""
        asked = self.questions[len(said)] if self.questions else self.request
        return [*as_messages(f"{self.system}\n\n{self.memory}".strip(), said), {"role": "user", "content": asked}]


def as_messages(system: str, turns: Sequence[Turn]) -> list[dict[str, str]]:
    """A conversation as ChatML messages."""
    messages = [{"role": "system", "content": system}]
    for turn in turns:
        messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
    return messages


def as_turns(messages: Sequence[Mapping[str, str]]) -> list[Turn]:
    """The turns of ChatML messages that `as_messages` made."""
    said = [message["content"] for message in messages[1:]]
    return [Turn(question, answer) for question, answer in zip(said[::2], said[1::2], strict=True)]


def turn_keys(turns: int) -> list[Turn]:
    """The keys of question and answer of each turn in a reply by the json contract."""
    return [Turn(f"question{number}", f"answer{number}") for number in ("", *range(2, turns + 1))]


def reply_schema(answer_chars: tuple[int, int], turns: int = 1) -> str:
    """JSON schema of a reply. The strings are bounded, so that a model that rambles ends in valid JSON."""
    properties: dict[str, Any] = {}
    for question, answer in turn_keys(turns):
        properties[question] = {"type": "string", "minLength": 12, "maxLength": 240}
        properties[answer] = {"type": "string", "minLength": answer_chars[0], "maxLength": answer_chars[1]}
    return json.dumps({"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False})


def cut_passage(text: str, limit: int) -> str:
    """The passage up to `limit` characters, ending at a sentence where one ends in its second half."""
    if len(text) <= limit:
        return text
    cut = text[:limit]
    end = max(cut.rfind(mark) for mark in (". ", "! ", "? ", ".\n"))
    return cut[: end + 1] if end > limit // 2 else cut


def excerpt(passage: str, thing: str, limit: int) -> str:
    """Up to `limit` characters of the passage, in one line, from the sentence that names the thing."""
    text = " ".join(passage.split())
    at = max(0, text.find(thing))
    ends = [match.end() for match in re.finditer(r"[.!?] ", text[:at])]
    start = ends[-1] if ends else 0
    if at - start > limit // 2:
        start = text.find(" ", at - limit // 2) + 1
    return cut_passage(text[start:], limit)


def build(
    slot: Slot,
    attempt: int,
    passage: str | None,
    hits: Mapping[str, Sequence[str]],
    book: Phrasebook,
    *,
    contract: Contract,
    passage_chars: int,
    answer_chars: tuple[int, int],
) -> Prompt:
    """The prompt of one attempt at a slot. `hits` maps theme to the keywords found in the passage; both are empty for a slot
    that fills a gap, which speaks of one of the theme's topics."""
    rng = random.Random(f"{slot.example_id}/{attempt}")
    persona, axes = book.personas[slot.persona], book.axes
    if passage is None:
        hits = dict.fromkeys(sorted(persona.themes), sorted(book.topics))
    system = rng.choice(persona.system)
    asker, intent, tone = rng.choice(axes.askers), rng.choice(axes.intents), rng.choice(axes.tones)
    form = rng.choice(list(axes.forms))
    length = rng.choices(axes.lengths, [choice.weight for choice in axes.lengths])[0]
    turns = rng.choices(list(axes.turns), list(axes.turns.values()))[0]
    drawn = {"contract": contract, "asker": asker, "length": length.name, "form": form, "turns": str(turns)}
    if contract == "plain":
        told = things(passage, book.common) if passage else []
        question, drawn["form"], thing = draw_question(rng, book, hits, told, form)
        if rng.random() < INTRODUCED:
            question = f"I am {asker}. {question}"
        else:
            del drawn["asker"]
        return Prompt(
            system,
            turns,
            questions=(question, *rng.sample(book.followups, turns - 1)),
            openings=tuple(rng.sample([*book.openings["any"], *book.openings.get(persona.group, ())], turns)),
            memory=book.requests["plain"].format(source=excerpt(passage, thing, MEMORY_CHARS)) if passage else "",
            request="",
            schema=None,
            max_tokens=length.plain_tokens,
            axes=drawn,
            shots=(),
        )
    shots = draw_shots(rng, persona, book.voice)
    request = book.requests.get(slot.source, book.requests["books"]).format(
        source=cut_passage(passage or "", passage_chars),
        topic=rng.choice(sorted(book.topics)),
        asker=asker,
        intent=intent,
        tone=tone,
        form=axes.forms[form],
        low=length.words[0],
        high=length.words[1],
    )
    return Prompt(
        system,
        turns,
        questions=(),
        openings=(),
        memory="",
        request=request + "\n" + json_form(turns, shots),
        schema=reply_schema(answer_chars, turns),
        # A token is at least a character of JSON; a model that needs more is cut off and rejected.
        max_tokens=turns * (length.max_tokens + JSON_TOKENS),
        axes=drawn | {"intent": intent, "tone": tone},
        shots=tuple(shot.answer for shot in shots),
    )


def json_form(turns: int, shots: Sequence[Exchange]) -> str:
    """The form of the reply, with the exemplars as objects of the same form."""
    keys = ", ".join(f'"{key}"' for turn in turn_keys(turns) for key in turn)
    examples = "\n".join(json.dumps({"question": shot.question, "answer": shot.answer}, ensure_ascii=False) for shot in shots)
    more = "" if turns == 1 else f" Each later question takes up the answer before it. There are {turns} questions in all."
    return f"Reply with one JSON object with the keys {keys}.{more} The manner is that of these:\n{examples}"


def draw_shots(rng: random.Random, persona: Persona, voice: Sequence[Exchange]) -> list[Exchange]:
    own = [exchange for exchange in voice if exchange.persona == persona.id]
    near = [exchange for exchange in voice if exchange.persona != persona.id and exchange.themes & persona.themes]
    first = rng.sample(own, min(2, len(own)))
    return first + rng.sample(near, min(SHOTS - len(first), len(near)))


def draw_question(
    rng: random.Random, book: Phrasebook, hits: Mapping[str, Sequence[str]], things: Sequence[str], form: str
) -> tuple[str, str, str]:
    """A question on the passage, its form, and the thing that it names, if any: about one of the passage's keywords that can be a
    topic and one of the things it tells of, in the form asked for where the bank has such a question. Half of the questions name
    the thing in a sentence of its own."""
    topics = {theme: [word for word in words if word in book.topics] for theme, words in hits.items()}
    themes = {theme for theme, words in topics.items() if words}
    thing = rng.choice(things) if things else ""
    frame = rng.choice(book.frames) if thing and (not themes or rng.random() < FRAMED) else ""
    named = bool(thing and themes and not frame)
    fitting = [
        question
        for question in book.questions
        if ("{thing}" in question.text) == named and ("{topic}" in question.text) == bool(themes)
        if not themes or question.themes & (themes | {ANY})
    ]
    fitting = fitting or [question for question in book.questions if "{" not in question.text]
    question: Question = rng.choice([question for question in fitting if question.form == form] or fitting)
    words = sorted({word for theme in (themes if ANY in question.themes else question.themes & themes) for word in topics[theme]})
    text = question.text.replace("{topic}", rng.choice(words)) if words else question.text
    text = text.replace("{thing}", thing)
    text = f"{frame.replace('{thing}', thing)} {text[0].upper()}{text[1:]}".strip()
    return text, "situation" if frame else question.form, thing if frame or named else ""
