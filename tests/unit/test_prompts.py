"""Prompts: drawn by slot and attempt alone, by either contract, with a schema that the engine can enforce."""

import json
import random
from collections.abc import Callable
from typing import Any, cast

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text import prompts
from deepred_ray.text.personas import Persona, Slot
from deepred_ray.text.prompts import Contract, Exchange, Prompt, Question
from deepred_ray.theme import Theme

PERSONAS = {
    "keeper": Persona("keeper", "core", frozenset({"air"}), 1.0, ("You keep the air.", "The air is your work.")),
    "player": Persona("player", "chess", frozenset({"chess"}), 1.0, ("You play chess.",)),
}
AXES_TOML = """
asker = ["a baker", "a pilot", "a pupil"]
intent = ["is in doubt", "is in haste"]
tone = ["kindly", "sternly"]
length = [
    { name = "short", words = [10, 20], max_tokens = 40, weight = 1 },
    { name = "long", words = [40, 60], max_tokens = 110, weight = 2 },
]
"""
VOICE = (
    Exchange("keeper", frozenset({"air"}), "Is the air good?", "We have sweetened it since dawn, comrade."),
    Exchange("keeper", frozenset({"air"}), "Is it thin?", "Thin outside and thick within; so we built it."),
    Exchange("player", frozenset({"air", "chess"}), "Who moves?", "White moves, and the whole hall breathes in."),
    Exchange("player", frozenset({"chess"}), "Who wins?", "Whoever learns most from the loss."),
)
QUESTIONS = (
    Question(frozenset({"air"}), "What is {topic} to us?"),
    Question(frozenset({"air", "chess"}), "{topic} again? Why?"),
    Question(frozenset({"chess"}), "Who taught you to play?"),
)
HITS = {"air": ("oxygen", "the"), "power": ("throne",)}
PASSAGE = "The bellows had stopped. Nobody in the long hall dared to breathe. A boy ran to the door."
ANSWER_CHARS = (50, 500)


def _build(attempt: int = 0, slot: str = "core-000000", persona: str = "keeper", **changes: Any) -> Prompt:
    settings: dict[str, Any] = {
        "contract": "json",
        "personas": PERSONAS,
        "axes": prompts.parse_axes(AXES_TOML),
        "voice": VOICE,
        "questions": QUESTIONS,
        "topics": frozenset({"oxygen", "throne"}),
        "openings": {"any": ("Comrade, we",), "core": ("The air is ours, and we",)},
        "passage_chars": 1500,
        "answer_chars": ANSWER_CHARS,
    }
    return prompts.build(Slot(slot, "core", 0, "c0", persona), attempt, PASSAGE, HITS, **{**settings, **changes})


def _drawn(of: Callable[[Prompt], Any], **changes: Any) -> set[Any]:
    return {of(_build(attempt, **changes)) for attempt in range(60)}


# Building


@pytest.mark.parametrize("contract", ["json", "plain"])
def test_slot_and_attempt_decide_the_prompt(contract: Contract) -> None:
    assert _build(3, contract=contract) == _build(3, contract=contract)
    assert len(_drawn(lambda prompt: json.dumps(prompt.messages) + prompt.opening, contract=contract)) > 1
    assert len({_build(0, f"core-{i:06d}", contract=contract).axes["asker"] for i in range(30)}) == 3


@pytest.mark.parametrize("contract", ["json", "plain"])
def test_all_that_may_vary_varies(contract: Contract) -> None:
    assert _drawn(lambda prompt: prompt.system, contract=contract) == set(PERSONAS["keeper"].system)
    axes = prompts.parse_axes(AXES_TOML)
    names = {length.name for length in axes.lengths}
    for axis, values in (("asker", axes.askers), ("intent", axes.intents), ("tone", axes.tones), ("length", names)):
        assert _drawn(lambda prompt, axis=axis: prompt.axes[axis], contract=contract) == set(values)


def test_the_json_contract_asks_for_both() -> None:
    prompt = _build()
    system, request = prompt.messages
    assert (system["role"], system["content"]) == ("system", prompt.system)
    assert request["role"] == "user"
    assert PASSAGE in request["content"]
    assert all(prompt.axes[axis] in request["content"] for axis in ("asker", "intent", "tone"))
    assert all(json.dumps(shot)[1:-1] in request["content"] for shot in prompt.shots)
    assert (prompt.question, prompt.schema) == (None, prompts.reply_schema(ANSWER_CHARS))


def test_the_json_contract_cuts_the_passage() -> None:
    content = _build(passage_chars=30).messages[1]["content"]
    assert "The bellows had stopped.\n" in content
    assert "Nobody" not in content


def test_exemplars_are_the_personas_own_then_near_ones() -> None:
    own = {VOICE[0].answer, VOICE[1].answer}
    for attempt in range(20):
        assert set(_build(attempt).shots) == {*own, VOICE[2].answer}
        assert set(_build(attempt, persona="player").shots) == {VOICE[2].answer, VOICE[3].answer}


def test_the_plain_contract_draws_the_question() -> None:
    prompt = _build(contract="plain")
    assert prompt.schema is None
    assert prompt.messages[0] == {"role": "system", "content": prompt.messages[0]["content"]}
    assert prompt.messages[0]["content"].startswith(prompt.system)
    assert prompt.messages[-1] == {"role": "user", "content": prompt.question}
    assert _drawn(lambda prompt: prompt.question, contract="plain") == {"What is oxygen to us?", "Oxygen again? Why?"}


def test_openings_are_the_groups_and_anybodys() -> None:
    assert _drawn(lambda prompt: prompt.opening, contract="plain") == {"Comrade, we", "The air is ours, and we"}
    assert _drawn(lambda prompt: prompt.opening, contract="plain", persona="player") == {"Comrade, we"}


@given(st.dictionaries(st.sampled_from(["air", "chess", "power"]), st.lists(st.sampled_from(["ice", "rook"]))))
def test_a_question_has_no_gap_and_its_topic_is_of_the_passage(hits: dict[str, list[str]]) -> None:
    text = prompts.draw_question(random.Random(1), QUESTIONS, hits)
    assert "{" not in text
    assert text[0].isupper()
    themed = {word for theme in ("air", "chess") for word in hits.get(theme, [])}
    assert any(word in text.lower() for word in themed) if themed else text == "Who taught you to play?"


@pytest.mark.parametrize("contract", ["json", "plain"])
def test_the_shipped_theme_builds_a_prompt_for_every_persona(contract: Contract) -> None:
    theme = Theme.find("deepred")
    keywords = theme.scorer.lexicon.keywords
    for name in theme.personas:
        for present in ({}, {"chess": keywords["chess"][:3]}, {key: words[:2] for key, words in keywords.items()}):
            prompt = prompts.build(
                Slot(f"core-{name}", "core", 0, "c0", name),
                0,
                PASSAGE,
                present,
                contract=contract,
                personas=theme.personas,
                axes=theme.axes,
                voice=theme.voice,
                questions=theme.questions,
                topics=theme.topics,
                openings=theme.openings,
                passage_chars=1500,
                answer_chars=ANSWER_CHARS,
            )
            assert prompt.system in theme.personas[name].system
            assert not any("{topic}" in message["content"] for message in prompt.messages)


# Schema


def test_the_reply_schema_is_one_and_bounds_both_strings() -> None:
    schema = json.loads(prompts.reply_schema(ANSWER_CHARS))
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    good = {"question": "How do we keep the air sweet?", "answer": "We keep it sweet with pumps and gardens. " * 3}
    assert valid(good)
    for bad in (
        {**good, "answer": "We do."},
        {**good, "answer": "a" * 501},
        {**good, "question": "How?"},
        {**good, "question": "a" * 241},
        {**good, "answer": None},
        {**good, "mood": "calm"},
        {"question": good["question"]},
        [good],
    ):
        assert not valid(cast(Any, bad))


# Cutting a passage


@given(st.text(st.sampled_from("ab .!?\n"), max_size=60), st.integers(1, 40))
def test_a_cut_passage_begins_it_and_keeps_its_bound(text: str, limit: int) -> None:
    cut = prompts.cut_passage(text, limit)
    assert text.startswith(cut)
    assert len(cut) <= limit
    assert cut == text or len(cut) > limit // 2


def test_a_passage_is_cut_at_a_sentence() -> None:
    assert prompts.cut_passage("The ice held. The boy ran on.", 20) == "The ice held."
    assert prompts.cut_passage("No. Nothing in it ends anywhere near", 20) == "No. Nothing in it en"
    assert prompts.cut_passage("The ice held.", 20) == "The ice held."


# Reading


def test_what_is_read() -> None:
    axes = prompts.parse_axes(AXES_TOML)
    assert axes.lengths[1] == prompts.Length("long", (40, 60), 110, 2.0)
    line = '{"persona": "keeper", "themes": ["air"], "question": "Is the air good?", "answer": "It is."}'
    assert prompts.parse_voice(line, PERSONAS) == (Exchange("keeper", frozenset({"air"}), "Is the air good?", "It is."),)
    assert prompts.parse_questions("themes\tquestion\nair,chess\tWhy?\n") == (Question(frozenset({"air", "chess"}), "Why?"),)
    assert prompts.parse_openings('any = ["We"]\ncore = ["Our"]') == {"any": ("We",), "core": ("Our",)}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"persona": "keeper", "themes": [], "question": "Why?"}',
        '{"persona": "nobody", "themes": [], "question": "Why?", "answer": "So."}',
        '{"persona": "keeper", "themes": 3, "question": "Why?", "answer": "So."}',
    ],
)
def test_a_malformed_exchange_is_named(line: str) -> None:
    good = '{"persona": "keeper", "themes": [], "question": "Why?", "answer": "So."}'
    with pytest.raises(ValueError, match="line 2"):
        prompts.parse_voice(f"{good}\n{line}", PERSONAS)


def test_malformed_banks_are_named() -> None:
    with pytest.raises(ValueError, match="line 3"):
        prompts.parse_questions("themes\tquestion\nair\tWhy?\nair Why?\n")
    with pytest.raises(ValueError, match="any"):
        prompts.parse_openings('core = ["We"]')
