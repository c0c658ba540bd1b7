"""Prompts: drawn by slot and attempt alone, by either contract, with a schema that the engine can enforce."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text import prompts
from deepred_ray.text.personas import Persona, Slot
from deepred_ray.text.phrasebook import (
    ANY,
    Exchange,
    Length,
    Phrasebook,
    Question,
    parse_axes,
    parse_openings,
    parse_questions,
    parse_requests,
    parse_voice,
    question_form,
)
from deepred_ray.text.prompts import Contract, Prompt, Turn
from deepred_ray.theme import Theme

PERSONAS = {
    "keeper": Persona("keeper", "core", frozenset({"air"}), 1.0, ("You keep the air.", "The air is your work.")),
    "player": Persona("player", "chess", frozenset({"chess"}), 1.0, ("You play chess.",)),
}
AXES_TOML = """
asker = ["a baker", "a pilot", "a pupil"]
intent = ["is in doubt", "is in haste"]
tone = ["kindly", "sternly"]
form = { why = "a question that asks why", open = "an open question" }
turns = [{ count = 1, weight = 3 }, { count = 2, weight = 1 }]
length = [
    { name = "short", words = [10, 20], max_tokens = 40, plain_tokens = 30, weight = 1 },
    { name = "long", words = [40, 60], max_tokens = 110, plain_tokens = 50, weight = 2 },
]
"""
VOICE = (
    Exchange("keeper", frozenset({"air"}), "Is the air good?", "We have sweetened it since dawn, comrade."),
    Exchange("keeper", frozenset({"air"}), "Is it thin?", "Thin outside and thick within; so we built it."),
    Exchange("player", frozenset({"air", "chess"}), "Who moves?", "White moves, and the whole hall breathes in."),
    Exchange("player", frozenset({"chess"}), "Who wins?", "Whoever learns most from the loss."),
)
QUESTIONS = (
    Question(frozenset({"air"}), "What is {topic} to us?", "open"),
    Question(frozenset({"air", "chess"}), "{topic} again, and why?", "why"),
    Question(frozenset({ANY}), "Who thinks of {topic}?", "open"),
    Question(frozenset({ANY}), "What has {thing} to do with {topic}?", "open"),
    Question(frozenset({"air"}), "{thing}, or {topic}?", "choice"),
    Question(frozenset({"chess"}), "Who taught you to play?", "open"),
)
FRAMES = ("In the archive I found {thing}.", "They tell of {thing}.")
REQUESTS = {
    "books": "From a book:\n{source}\n\nOf {asker}, who {intent}: {form}, answered {tone} in {low} to {high} words.",
    "speeches": "From a speech: {source}",
    "none": "Of {topic}, by {asker}.",
    "plain": "You remember: {source}",
}
BOOK = Phrasebook(
    personas=PERSONAS,
    axes=parse_axes(AXES_TOML),
    voice=VOICE,
    questions=QUESTIONS,
    frames=FRAMES,
    followups=("And then?", "Who says so?"),
    topics=frozenset({"oxygen", "throne"}),
    openings={"any": ("Comrade, we", "Friend, we"), "core": ("The air is ours, and we",)},
    requests=REQUESTS,
    common=frozenset({"morn"}),
)
HITS = {"air": ("oxygen", "the"), "power": ("throne",)}
# The morning is common; the door is all that it tells of.
PASSAGE = "The bellows had stopped. Nobody in the long hall dared to breathe the morning. A boy ran to the door."
ANSWER_CHARS = (50, 500)
TOLD = {frame.replace("{thing}", "the door") + " " for frame in FRAMES}
# The throne is the power's, which only a question on any theme asks about.
ABOUT = {"What is oxygen to us?", "Oxygen again, and why?", "Who thinks of oxygen?", "Who thinks of throne?"}
NAMED = {"What has the door to do with oxygen?", "What has the door to do with throne?", "The door, or oxygen?"}


def _build(
    attempt: int = 0,
    slot: str = "core-000000",
    persona: str = "keeper",
    source: str = "books",
    passage: str | None = PASSAGE,
    contract: Contract = "json",
    passage_chars: int = 1500,
) -> Prompt:
    made = Slot(example_id=slot, component="core", number=0, source=source, chunk_id="c0", persona=persona)
    hits = HITS if passage else {}
    return prompts.build(
        made, attempt, passage, hits, BOOK, contract=contract, passage_chars=passage_chars, answer_chars=ANSWER_CHARS
    )


def _drawn(of: Callable[[Prompt], Any], **changes: Any) -> set[Any]:
    return {of(_build(attempt, **changes)) for attempt in range(80)}


# Building


@pytest.mark.parametrize("contract", ["json", "plain"])
def test_slot_and_attempt_decide_the_prompt(contract: Contract) -> None:
    assert _build(3, contract=contract) == _build(3, contract=contract)
    assert len(_drawn(lambda prompt: json.dumps(prompt.messages()) + str(prompt.openings), contract=contract)) > 10
    assert len({_build(0, f"core-{i:06d}", contract=contract).axes["length"] for i in range(30)}) == 2


@pytest.mark.parametrize(("contract", "axes"), [("json", ("asker", "intent", "tone")), ("plain", ("asker",))])
def test_all_that_may_vary_varies(contract: Contract, axes: tuple[str, ...]) -> None:
    assert _drawn(lambda prompt: prompt.system, contract=contract) == set(PERSONAS["keeper"].system)
    values = {"asker": BOOK.axes.askers, "intent": BOOK.axes.intents, "tone": BOOK.axes.tones}
    for axis in axes:
        assert _drawn(lambda prompt, axis=axis: prompt.axes.get(axis), contract=contract) - {None} == set(values[axis])
    assert _drawn(lambda prompt: prompt.axes["length"], contract=contract) == {"short", "long"}
    # A thing of the passage is named in a sentence of its own, or only in a question that is open or a choice.
    forms = {"json": {"why", "open"}, "plain": {"open", "choice", "situation"}}
    assert _drawn(lambda prompt: prompt.axes["form"], contract=contract) == forms[contract]
    assert _drawn(lambda prompt: prompt.turns, contract=contract) == {1, 2}
    assert _drawn(lambda prompt: prompt.axes["contract"], contract=contract) == {contract}


def test_only_what_had_an_effect_is_told_of_a_plain_prompt() -> None:
    for attempt in range(40):
        prompt = _build(attempt, contract="plain")
        told = {"contract", "length", "form", "turns"}
        assert set(prompt.axes) - {"asker"} == told
        introduced = f"I am {prompt.axes.get('asker')}. "
        assert prompt.questions[0].startswith(introduced) == ("asker" in prompt.axes)


def test_the_json_contract_asks_for_all_of_it() -> None:
    for attempt in range(40):
        prompt = _build(attempt)
        system, request = prompt.messages()
        assert system == {"role": "system", "content": prompt.system}
        assert request["role"] == "user"
        assert PASSAGE in request["content"]
        assert all(prompt.axes[axis] in request["content"] for axis in ("asker", "intent", "tone"))
        assert BOOK.axes.forms[prompt.axes["form"]] in request["content"]
        assert all(json.dumps(shot)[1:-1] in request["content"] for shot in prompt.shots)
        assert (prompt.questions, prompt.schema) == ((), prompts.reply_schema(ANSWER_CHARS, prompt.turns))
        assert ('"answer2"' in request["content"]) == (prompt.turns == 2)


def test_each_kind_of_source_has_its_request() -> None:
    assert "From a speech: The bellows" in _build(source="speeches").request
    assert "From a book" in _build(source="scripts").request
    topics = _drawn(lambda prompt: prompt.request.split(",")[0], source="none", passage=None)
    assert topics == {"Of oxygen", "Of throne"}


def test_the_json_contract_cuts_the_passage() -> None:
    content = _build(passage_chars=30).request
    assert "The bellows had stopped.\n" in content
    assert "Nobody" not in content


def test_exemplars_are_the_personas_own_then_near_ones() -> None:
    own = {VOICE[0].answer, VOICE[1].answer}
    for attempt in range(20):
        assert set(_build(attempt).shots) == {*own, VOICE[2].answer}
        assert set(_build(attempt, persona="player").shots) == {VOICE[2].answer, VOICE[3].answer}


def test_the_plain_contract_draws_the_questions() -> None:
    for attempt in range(40):
        prompt = _build(attempt, contract="plain")
        assert (prompt.schema, prompt.request) == (None, "")
        assert len(prompt.questions) == len(prompt.openings) == len(set(prompt.openings)) == prompt.turns
        first = prompt.questions[0].removeprefix(f"I am {prompt.axes.get('asker')}. ")
        assert "the door" in first.lower()
        assert first in NAMED or any(first.startswith(frame) and first.removeprefix(frame) in ABOUT for frame in TOLD)
        assert set(prompt.questions[1:]) <= set(BOOK.followups)
        said = [Turn(question, "We hold.") for question in prompt.questions[:-1]]
        messages = prompt.messages(said)
        assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * len(said), "user"]
        assert messages[-1]["content"] == prompt.questions[-1]


def test_a_small_model_remembers_what_it_is_asked_about_and_its_example_does_not() -> None:
    prompt = _build(contract="plain")
    assert prompt.messages()[0]["content"] == f"{prompt.system}\n\nYou remember: A boy ran to the door."
    assert prompt.system in PERSONAS["keeper"].system
    # Neither a gap nor a request that has the passage itself has anything to remember.
    for other in (_build(contract="plain", source="none", passage=None), _build()):
        assert (other.memory, other.messages()[0]["content"]) == ("", other.system)


LONG = "It was late. The lamp\nburned! Who had left the gate open? Nobody knew, and nobody asked. Then the bell rang twice."


@pytest.mark.parametrize(
    ("thing", "limit", "told"),
    [
        ("the gate", 80, "Who had left the gate open? Nobody knew, and nobody asked."),
        ("the gate", 200, "Who had left the gate open? Nobody knew, and nobody asked. Then the bell rang twice."),
        ("The lamp", 26, "The lamp burned!"),
        ("", 14, "It was late."),
        ("a cairn", 14, "It was late."),
    ],
)
def test_an_excerpt_begins_with_the_sentence_that_names_the_thing(thing: str, limit: int, told: str) -> None:
    assert prompts.excerpt(LONG, thing, limit) == told


@given(st.lists(st.sampled_from(["we", "dug.", "the", "well", "and", "rest!", "at", "noon"]), min_size=1), st.integers(20, 90))
def test_an_excerpt_holds_its_thing_and_its_limit(words: list[str], limit: int) -> None:
    text = prompts.excerpt(" ".join([*words, "the anvil", *words]), "the anvil", limit)
    assert "the anvil" in text
    assert len(text) <= limit


def test_openings_are_the_groups_and_anybodys() -> None:
    anybody = {"Comrade, we", "Friend, we"}
    assert _drawn(lambda prompt: prompt.openings[0], contract="plain") == {*anybody, "The air is ours, and we"}
    assert _drawn(lambda prompt: prompt.openings[0], contract="plain", persona="player") == anybody


def test_a_gap_is_filled_on_a_topic_of_the_persona() -> None:
    questions = _drawn(lambda prompt: prompt.questions[0].split(". ")[-1], contract="plain", source="none", passage=None)
    words = ("oxygen", "throne")
    assert questions == {f"{word.title()} again, and why?" for word in words} | {
        text for word in words for text in (f"What is {word} to us?", f"Who thinks of {word}?")
    }


@given(
    st.integers(0, 10**6),
    st.dictionaries(st.sampled_from(["air", "chess", "power"]), st.lists(st.sampled_from(["oxygen", "throne", "rook"]))),
    st.lists(st.sampled_from(["the door", "an old lamp"]), unique=True),
    st.sampled_from(["open", "why", "choice", "how"]),
)
def test_a_question_is_on_the_passage(seed: int, hits: dict[str, list[str]], things: list[str], form: str) -> None:
    text, got, thing = prompts.draw_question(random.Random(seed), BOOK, hits, things, form)
    assert "{" not in text
    assert text[0].isupper()
    assert thing in things if things else thing == ""
    assert thing in text.lower()
    # A rook is no topic.
    topics = {word for words in hits.values() for word in words} - {"rook"}
    assert any(word in text.lower() for word in topics) == bool(topics)
    assert "rook" not in text
    framed = any(text.startswith(frame.replace("{thing}", thing)) for frame in FRAMES for thing in things)
    assert framed == (got == "situation")
    assert framed or not things or topics
    if not topics:
        assert text.endswith("Who taught you to play?")


def test_the_form_asked_for_is_that_of_the_question_where_the_bank_has_it() -> None:
    def forms(form: str, hits: dict[str, list[str]], things: list[str]) -> set[str]:
        return {prompts.draw_question(random.Random(seed), BOOK, hits, things, form)[1] for seed in range(60)}

    assert forms("why", {"air": ["oxygen"]}, []) == {"why"}
    assert forms("how", {"air": ["oxygen"]}, []) == {"why", "open"}
    assert forms("choice", {"air": ["oxygen"]}, ["the door"]) == {"choice", "situation"}
    assert forms("why", {"power": ["throne"]}, []) == {"open"}


def test_a_bank_without_a_fitting_question_asks_one_without_gaps() -> None:
    book = replace(BOOK, questions=(QUESTIONS[0], QUESTIONS[-1]))
    drawn = prompts.draw_question(random.Random(1), book, {"power": ["throne"]}, [], "why")
    assert drawn == ("Who taught you to play?", "open", "")


def test_shares_of_framed_and_of_introduced_questions() -> None:
    drawn = [_build(attempt, contract="plain") for attempt in range(600)]
    framed = sum(any(frame in prompt.questions[0] for frame in TOLD) for prompt in drawn)
    introduced = sum(prompt.questions[0].startswith("I am a ") for prompt in drawn)
    assert framed / 600 == pytest.approx(prompts.FRAMED, abs=0.07)
    assert introduced / 600 == pytest.approx(prompts.INTRODUCED, abs=0.06)


def test_room_is_made_for_every_turn() -> None:
    lengths = {length.name: length for length in BOOK.axes.lengths}
    for attempt in range(40):
        prompt = _build(attempt)
        length = lengths[prompt.axes["length"]]
        assert prompt.axes["turns"] == str(prompt.turns)
        assert prompt.max_tokens == prompt.turns * (length.max_tokens + prompts.JSON_TOKENS)
        assert f"in {length.words[0]} to {length.words[1]} words" in prompt.request
        assert ("There are 2 questions in all" in prompt.request) == (prompt.turns == 2)
        plain = _build(attempt, contract="plain")
        # Each answer is a request of its own.
        assert plain.max_tokens == lengths[plain.axes["length"]].plain_tokens


def test_several_turns_ask_each_follow_up_once() -> None:
    book = replace(BOOK, axes=replace(BOOK.axes, turns={3: 1.0}))
    slot = Slot(example_id="core-000000", component="core", number=0, source="books", chunk_id="c0", persona="keeper")
    for attempt in range(20):
        prompt = prompts.build(slot, attempt, PASSAGE, HITS, book, contract="plain", passage_chars=1500, answer_chars=ANSWER_CHARS)
        assert (prompt.turns, set(prompt.questions[1:])) == (3, set(BOOK.followups))
        assert sorted(prompt.openings) == sorted({*BOOK.openings["any"], *BOOK.openings["core"]})


@pytest.mark.parametrize("contract", ["json", "plain"])
def test_the_shipped_theme_builds_a_prompt_for_every_persona(contract: Contract) -> None:
    theme = Theme.find("deepred")
    keywords = theme.scorer.lexicon.keywords
    for name in theme.personas:
        for source in theme.phrasebook.requests.keys() - {"plain"}:
            slot = Slot(example_id=f"core-{name}", component="core", number=0, source=source, chunk_id="c0", persona=name)
            for present in ({}, {"chess": keywords["chess"][:3]}, {key: words[:2] for key, words in keywords.items()}):
                passage = None if source == "none" else PASSAGE
                prompt = prompts.build(
                    slot, 0, passage, present, theme.phrasebook, contract=contract, passage_chars=1500, answer_chars=ANSWER_CHARS
                )
                assert prompt.system in theme.personas[name].system
                said = [Turn(question, "We hold.") for question in prompt.questions]
                assert not any("{" in message["content"].split("Reply with")[0] for message in prompt.messages(said[:-1]))
                assert (PASSAGE in prompt.request) == (contract == "json" and source != "none")
                assert ("A boy ran to the door." in prompt.memory) == (contract == "plain" and source != "none")


def test_a_conversation_is_messages_and_turns_again() -> None:
    turns = [Turn("Who?", "We."), Turn("And then?", "Then we rest.")]
    messages = prompts.as_messages("You keep the air.", turns)
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert prompts.as_turns(messages) == turns


# Schema


@given(st.integers(1, 5))
def test_each_turn_has_its_two_keys_in_the_schema_and_in_the_request(turns: int) -> None:
    schema = json.loads(prompts.reply_schema(ANSWER_CHARS, turns))
    keys = [key for turn in prompts.turn_keys(turns) for key in turn]
    assert keys == ["question", "answer", *(f"{part}{turn}" for turn in range(2, turns + 1) for part in ("question", "answer"))]
    # In the order in which a conversation is told, since an engine writes them in the order of the schema.
    assert list(schema["properties"]) == schema["required"] == keys
    for number, key in enumerate(keys):
        bounds = (schema["properties"][key]["minLength"], schema["properties"][key]["maxLength"])
        assert bounds == (ANSWER_CHARS if number % 2 else (12, 240))
    assert ", ".join(f'"{key}"' for key in keys) in prompts.json_form(turns, VOICE)


def test_exemplars_are_shown_as_replies() -> None:
    lines = prompts.json_form(1, VOICE[:2]).splitlines()[1:]
    assert [json.loads(line) for line in lines] == [{"question": each.question, "answer": each.answer} for each in VOICE[:2]]


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


REQUESTS_TOML = 'books = "\\n{source}"\nnone = "{topic}"\nplain = "You know {source}\\n"'


def test_what_is_read() -> None:
    axes = parse_axes(AXES_TOML)
    assert axes.lengths[1] == Length("long", (40, 60), 110, 50, 2.0)
    assert axes.turns == {1: 3.0, 2: 1.0}
    line = '{"persona": "keeper", "themes": ["air"], "question": "Is the air good?", "answer": "It is."}'
    assert parse_voice(line, PERSONAS) == (Exchange("keeper", frozenset({"air"}), "Is the air good?", "It is."),)
    assert parse_questions("themes\tquestion\nair,chess\tWhy?\n") == (Question(frozenset({"air", "chess"}), "Why?", "why"),)
    assert parse_openings('any = ["We"]\ncore = ["Our"]') == {"any": ("We",), "core": ("Our",)}
    assert parse_requests(REQUESTS_TOML) == {"books": "{source}", "none": "{topic}", "plain": "You know {source}"}


@pytest.mark.parametrize(
    ("question", "form"),
    [
        ("Why is the sky red?", "why"),
        ("Why?", "why"),
        ("Or?", "open"),
        ("How far is it to the pole?", "how"),
        ("Is luck possible in a game where nothing is hidden?", "yes_no"),
        ("Do you trust your figures or old workers?", "choice"),
        ("I resigned yesterday. How does one live with that?", "situation"),
        ("Teach me patience, comrade.", "request"),
        ("Which quiet move would help us?", "open"),
        ("What would you say, then?", "open"),
    ],
)
def test_the_form_of_a_question(question: str, form: str) -> None:
    assert question_form(question) == form


def test_every_form_of_the_shipped_bank_can_be_asked_for() -> None:
    book = Theme.find("deepred").phrasebook
    assert {question.form for question in book.questions} == set(book.axes.forms)


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
        parse_voice(f"{good}\n{line}", PERSONAS)


def test_malformed_banks_are_named() -> None:
    with pytest.raises(ValueError, match="line 3"):
        parse_questions("themes\tquestion\nair\tWhy?\nair Why?\n")
    with pytest.raises(ValueError, match="any"):
        parse_openings('core = ["We"]')
    with pytest.raises(ValueError, match="no request for none, plain"):
        parse_requests('books = "{source}"')
    with pytest.raises(ValueError, match="books: KeyError"):
        parse_requests(REQUESTS_TOML.replace("source", "sauce", 1))
    for old, new, message in (
        ("tone", "tune", "tone"),
        ("count = 1", "count = 0", "below 1"),
        ("plain_tokens", "tokens", "plain_tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_axes(AXES_TOML.replace(old, new))
