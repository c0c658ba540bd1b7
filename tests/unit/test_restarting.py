"""An engine that dies is started again; whoever kills it is found, and everybody else is answered, once."""

import asyncio
from collections import Counter
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.engine import EngineSettings, Messages, Reply, Sampling
from deepred_ray.errors import ModelError
from deepred_ray.restarting import ATTEMPTS, RestartingEngine

SETTINGS = EngineSettings("tiny", 512, 0.1)


class Mortal:
    """Answers what it is asked. It dies of any request named in `poison`, with all that are in flight, and stays dead."""

    made = 0
    answered: ClassVar[Counter[str]] = Counter()
    poison: frozenset[str] = frozenset()

    def __init__(self, _: EngineSettings) -> None:
        type(self).made += 1
        self.dead = asyncio.Event()

    async def chat(self, messages: Messages, sampling: Sampling, *, opening: str = "") -> Reply:
        text = messages[0]["content"]
        for _ in range(len(text) % 3 + 1):
            await asyncio.sleep(0)
            if text in self.poison:
                self.dead.set()
            if self.dead.is_set():
                raise RuntimeError("engine core died")
        self.answered[text] += 1
        return Reply(opening + text, "stop", 1, 1)

    def shutdown(self) -> None:
        raise OSError("nothing is left to end")


def mortal(poison: set[str]) -> type[Mortal]:
    return type("Victim", (Mortal,), {"made": 0, "answered": Counter(), "poison": frozenset(poison)})


async def ask(engine: RestartingEngine, texts: list[str]) -> list[Reply]:
    return await asyncio.gather(*(engine.chat([{"role": "user", "content": text}], Sampling(8), opening="> ") for text in texts))


@given(st.lists(st.text("abcdef", min_size=1, max_size=4), max_size=12, unique=True), st.data())
def test_whoever_is_not_to_blame_is_answered_once(texts: list[str], data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.sampled_from(texts))) if texts else set()
    victim = mortal(poison)

    async def scenario() -> None:
        engine = RestartingEngine(victim, SETTINGS)
        replies = await ask(engine, texts)
        for text, reply in zip(texts, replies, strict=True):
            if text in poison:
                assert (reply.text, reply.finish_reason) == ("RuntimeError: engine core died", "crash")
            else:
                assert (reply.text, reply.finish_reason) == (f"> {text}", "stop")
        # One for the death of all, then one for each attempt of each culprit; the last death needs no new engine.
        assert engine.restarts <= len(poison) * ATTEMPTS + 1
        # Whoever comes later finds an engine at full width.
        assert [reply.finish_reason for reply in await ask(engine, ["x", "y", "z"])] == ["stop"] * 3

    asyncio.run(scenario())
    assert victim.answered == Counter([*(set(texts) - poison), "x", "y", "z"])


def test_a_death_that_nobody_is_to_blame_for_costs_no_request() -> None:
    class Unlucky(Mortal):
        async def chat(self, messages: Messages, sampling: Sampling, *, opening: str = "") -> Reply:
            if type(self).made == 1:
                raise RuntimeError("the node lost power")
            return await super().chat(messages, sampling, opening=opening)

    Unlucky.made, Unlucky.answered = 0, Counter()

    async def scenario() -> None:
        engine = RestartingEngine(Unlucky, SETTINGS)
        assert {reply.finish_reason for reply in await ask(engine, list("abcde"))} == {"stop"}
        assert engine.restarts == 1

    asyncio.run(scenario())


def test_an_engine_that_cannot_start_again_is_told() -> None:
    def make(settings: EngineSettings) -> Any:
        if made:
            raise ModelError("vLLM cannot serve tiny: no memory")
        made.append(mortal({"bad"})(settings))
        return made[0]

    made: list[Any] = []

    async def scenario() -> None:
        await ask(RestartingEngine(make, SETTINGS), ["good", "bad"])

    with pytest.raises(ModelError, match="no memory"):
        asyncio.run(scenario())
