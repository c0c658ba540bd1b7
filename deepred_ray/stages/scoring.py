"""scoring: a judge model scores greedy answers on the theme's rubric, at temperature 0.

INPUT   rows of RESPONSES
OUTPUT  their `score`; null where the judge's reply was none
fan-out 1:1
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from deepred_ray import models
from deepred_ray.config import Config
from deepred_ray.console import Meter, say
from deepred_ray.engine import Engine, EngineSettings, Sampling
from deepred_ray.errors import ModelError
from deepred_ray.restarting import RestartingEngine
from deepred_ray.selftest import enforces_schema
from deepred_ray.stages.judging import AXIS_TOKENS
from deepred_ray.stages.pool import on_engines, one_block_each
from deepred_ray.stages.tables import Row
from deepred_ray.text.prompts import Turn
from deepred_ray.text.reject import Reject
from deepred_ray.text.rubric import judge_messages, judge_schema, parse_judgement
from deepred_ray.theme import Theme

IN_FLIGHT = 64


def add_scores(responses: Sequence[Row], config: Config, theme: Theme) -> None:
    """Raises ModelError if the judge cannot be served, or does not keep to a JSON schema."""
    model = models.resolve(str(config.evaluate.judge_model))
    greedy = [place for place, row in enumerate(responses) if row["draw"] == 0]
    asked = [{"place": place, "prompt": responses[place]["prompt"], "answer": responses[place]["answer"]} for place in greedy]
    settings = config.synthesize
    engine = EngineSettings(model, settings.max_model_len, settings.kv_cache_gib, settings.tensor_parallel)
    resources = config.evaluate.resources
    scored = on_engines(one_block_each(asked), ScoreAnswers, (engine, theme), settings, resources, at_once=IN_FLIGHT)
    missing = done = 0
    with Meter("judge", len(asked), "answers") as meter:
        meter.update(0, "judge starting")
        for batch in scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                responses[row["place"]]["score"] = row["score"]
                missing += row["score"] is None
                done += 1
            meter.update(done)
    if missing:
        say(f"  the judge's reply was no judgement for {missing} of {len(asked)} answers")


class ScoreAnswers:
    """INPUT a prompt and an answer; OUTPUT its score; fan-out 1:1. Holds one engine."""

    def __init__(self, engine: EngineSettings, theme: Theme) -> None:
        self.rubric, self.description = theme.rubric, str(theme.facts["description"])
        self.sampling = Sampling(max_tokens=AXIS_TOKENS * len(self.rubric), schema=judge_schema(self.rubric))
        self.model, self.engine = engine.model, RestartingEngine(Engine, engine)
        self.testing = asyncio.Lock()
        self.tested = False

    async def __call__(self, batch: Mapping[str, Sequence[Any]]) -> AsyncIterator[pa.Table]:
        async with self.testing:
            if not self.tested and (fault := await enforces_schema(self.engine)):
                raise ModelError(
                    f"the judge {self.model} does not keep to a JSON schema: {fault}",
                    "Name another --evaluate.judge-model.",
                )
            self.tested = True
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        scores = await asyncio.gather(*(self.score(row) for row in rows))
        yield pa.table({"place": pa.array([int(row["place"]) for row in rows]), "score": pa.array(scores, pa.float32())})

    async def score(self, row: Row) -> float | None:
        turns = [Turn(str(row["prompt"]), str(row["answer"]))]
        reply = await self.engine.chat(judge_messages(self.rubric, self.description, None, turns), self.sampling)
        judged = parse_judgement(reply.text, reply.finish_reason, self.rubric)
        return None if isinstance(judged, Reject) else judged.score

    def __del__(self) -> None:
        if engine := getattr(self, "engine", None):
            engine.shutdown()
