"""Does an engine keep to a schema? Engines that ignore it in each of the ways that servers do."""

import asyncio
import json
from collections.abc import Callable

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.engine import Messages, Reply, Sampling
from deepred_ray.selftest import COLOURS, QUESTION, SCHEMA, enforces_schema

GOOD = {"colour": "ultramarine", "word": "river"}


class Speaker:
    """Says what it was made to say."""

    def __init__(self, text: str, finish_reason: str = "stop") -> None:
        self.reply = Reply(text, finish_reason, 20, 8)
        self.asked: list[tuple[Messages, Sampling]] = []

    async def chat(self, messages: Messages, sampling: Sampling, *, opening: str = "") -> Reply:
        assert opening == ""
        self.asked.append((messages, sampling))
        return self.reply


def fault(text: str, finish_reason: str = "stop") -> str | None:
    return asyncio.run(enforces_schema(Speaker(text, finish_reason)))


@pytest.mark.parametrize("colour", COLOURS)
def test_an_engine_that_keeps_to_it(colour: str) -> None:
    for word in ("sea", "crosses-over"):
        assert fault(json.dumps({"word": word, "colour": colour})) is None


@pytest.mark.parametrize(
    ("text", "finish_reason", "said"),
    [
        ("The dog looked at the river.", "stop", "the reply is no JSON: 'The dog looked at the river.'"),
        ("```json\n" + json.dumps(GOOD) + "\n```", "stop", "the reply is no JSON: "),
        ("The dog " * 40, "length", "the reply ended by length: 'The dog The dog"),
        (json.dumps(GOOD), "length", "the reply ended by length: "),
        ("schemas are not supported", "error", "the reply ended by error: 'schemas are not supported'"),
        ("[" * 100_000, "stop", "the reply is no JSON: "),
        (json.dumps({"story": "The dog"}), "stop", "the reply has other keys: "),
        (json.dumps({"colour": "ultramarine"}), "stop", "the reply has other keys: "),
        (json.dumps(GOOD | {"mood": "wet"}), "stop", "the reply has other keys: "),
        (json.dumps([GOOD]), "stop", "the reply has other keys: "),
        ("null", "stop", "the reply has other keys: 'null'"),
        (json.dumps(GOOD | {"colour": "blue"}), "stop", "a value is none of those allowed: 'blue'"),
        (json.dumps(GOOD | {"colour": ["ultramarine"]}), "stop", "a value is none of those allowed: ['ultramarine']"),
        (json.dumps(GOOD | {"word": "dog" * 5}), "stop", "a string has not 3 to 12 characters: 'dogdogdogdogdog'"),
        (json.dumps(GOOD | {"word": ""}), "stop", "a string has not 3 to 12 characters: ''"),
        (json.dumps(GOOD | {"word": 12345}), "stop", "a string has not 3 to 12 characters: 12345"),
    ],
)
def test_an_engine_that_does_not(text: str, finish_reason: str, said: str) -> None:
    found = fault(text, finish_reason)
    assert found is not None
    assert found.startswith(said)
    assert len(found) < 150


def test_it_asks_once_for_prose_under_the_schema() -> None:
    engine = Speaker(json.dumps(GOOD))
    asyncio.run(enforces_schema(engine))
    ((messages, sampling),) = engine.asked
    assert messages == [{"role": "user", "content": QUESTION}]
    assert (sampling.schema, sampling.temperature) == (SCHEMA, 0.0)


VALUES: st.SearchStrategy[object] = st.sampled_from(["ultramarine", "vermilion", "blue", "ab", "abc", "a" * 12, "a" * 13, 7, None])


@given(st.dictionaries(st.sampled_from(["colour", "word", "mood"]), VALUES), st.sampled_from([json.dumps, str]))
def test_the_verdict_is_that_of_a_validator(value: dict[str, object], write: Callable[[object], str]) -> None:
    text = write(value)
    try:
        valid = jsonschema.Draft202012Validator(json.loads(SCHEMA)).is_valid(json.loads(text))
    except ValueError:
        valid = False
    assert (fault(text) is None) == valid
