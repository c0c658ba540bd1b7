"""Judging: another model scores every accepted attempt on the theme's rubric, at temperature 0.

INPUT   candidates/ without a judgement of this model, with their passages
OUTPUT  judgements/, one row an attempt: scores and reasons, or why there are none
fan-out 1:1
"""

import asyncio
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray

from deepred_ray import logs, models
from deepred_ray.config import Config
from deepred_ray.console import Meter, counts_text, say
from deepred_ray.engine import Engine, EngineSettings, Sampling
from deepred_ray.errors import ModelError
from deepred_ray.restarting import RestartingEngine
from deepred_ray.runs import Run
from deepred_ray.schema import CANDIDATES, JUDGEMENTS, MESSAGE, SLOTS
from deepred_ray.selftest import enforces_schema
from deepred_ray.stages.pool import blocks, on_engines, read_block, write_blocks
from deepred_ray.stages.tables import Row, passage_texts
from deepred_ray.storage import Folder, rows_table, shard_name
from deepred_ray.text.prompts import as_turns
from deepred_ray.text.reject import Reject
from deepred_ray.text.rubric import judge_messages, judge_schema, parse_judgement
from deepred_ray.theme import Theme

AXIS_TOKENS = 64  # a reason and a score
PENDING = pa.schema(
    [("example_id", pa.string()), ("attempt", pa.int16()), ("text", pa.large_string()), ("messages", pa.list_(MESSAGE))]
)


def judge(
    run: Run,
    config: Config,
    theme: Theme,
    folder: Folder,
    slots: Folder,
    make_engine: Callable[[EngineSettings], Any] | None = None,
) -> None:
    """Score what `folder`/candidates has accepted into `folder`/judgements; what the judge has scored before is left alone.

    Raises:
        ModelError: the judge is missing, cannot be served, or does not keep to a schema.
    """
    settings = config.synthesize
    model = judge_model(config)
    todo = run.folder / "synthesize" / "judging"
    todo.delete()
    count: int = ray.get(ray.remote(num_cpus=0)(write_pending).remote(run, folder, slots, model, todo, settings.in_flight))
    if not count:
        return
    say(f"  {count} replies for {model.rsplit('/', 1)[-1]} to judge")
    engine = EngineSettings(model, settings.max_model_len, settings.kv_cache_gib, settings.tensor_parallel)
    arguments = (todo, folder / "judgements", engine, theme, make_engine or Engine)
    done: Counter[str] = Counter()
    with Meter("judge", count, "replies") as meter:
        meter.update(0, "engine starting")
        judged = on_engines(blocks(todo), Judge, arguments, settings, settings.resources)
        for batch in judged.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                done[row["reason"]] += row["count"]
            failed = {reason: n for reason, n in done.items() if reason}
            meter.update(done.total(), f"without a score: {counts_text(failed)}" if failed else "")
    todo.delete()


def judge_model(config: Config) -> str:
    """Raises ModelError if it is missing, or is the model that it would judge."""
    model = models.resolve(str(config.synthesize.judge_model))
    if not config.synthesize.endpoint and model == models.resolve(config.synthesize.model or config.model):
        raise ModelError(f"the judge is the model that it judges: {model}", "Name another one with --judge-model.")
    return model


def write_pending(run: Run, folder: Folder, slots: Folder, model: str, todo: Folder, in_flight: int) -> int:
    """The accepted attempts that this judge has not seen, with their passages; how many there are."""
    accepted = (folder / "candidates").read_table(CANDIDATES, ["example_id", "attempt", "messages", "reason"]).to_pylist()
    known = scores(folder, model)
    chunk_of = {row["example_id"]: row["chunk_id"] for row in slots.read_table(SLOTS, ["example_id", "chunk_id"]).to_pylist()}
    wanted = [row for row in accepted if row["reason"] is None and (row["example_id"], row["attempt"]) not in known]
    texts = passage_texts(run, {chunk_of[row["example_id"]] for row in wanted} - {None})
    rows = [
        {name: row[name] for name in ("example_id", "attempt", "messages")} | {"text": texts.get(chunk_of[row["example_id"]])}
        for row in wanted
    ]
    write_blocks(todo, rows, PENDING, in_flight)
    return len(rows)


def scores(folder: Folder, model: str) -> dict[tuple[str, int], Row]:
    """The judgements of this judge by example and attempt."""
    rows = (folder / "judgements").read_table(JUDGEMENTS).to_pylist(maps_as_pydicts="strict")
    return {(row["example_id"], row["attempt"]): row for row in rows if row["model"] == model}


def mean_score(folder: Folder, model: str) -> float | None:
    """Over all attempts that have one; None if there is none."""
    found = [row["score"] for row in scores(folder, model).values() if row["score"] is not None]
    return statistics.fmean(found) if found else None


class Judge:
    """INPUT a block of accepted attempts with their passages; writes judgements/, one row an attempt; OUTPUT counts by reason
    (empty: scored). Holds one engine."""

    def __init__(
        self, todo: Folder, judgements: Folder, engine: EngineSettings, theme: Theme, make_engine: Callable[[EngineSettings], Any]
    ) -> None:
        logs.enter("synthesize")
        self.todo, self.judgements = todo, judgements
        self.rubric, self.description = theme.rubric, str(theme.facts["description"])
        self.model = engine.model
        self.engine = RestartingEngine(make_engine, engine)
        self.sampling = Sampling(max_tokens=AXIS_TOKENS * len(self.rubric), schema=judge_schema(self.rubric))
        self.testing = asyncio.Lock()
        self.tested = False

    async def __call__(self, batch: Mapping[str, Sequence[Any]]) -> AsyncIterator[pa.Table]:
        async with self.testing:
            if not self.tested and (fault := await enforces_schema(self.engine)):
                raise ModelError(f"the judge {self.model} does not keep to a JSON schema: {fault}", "Name another --judge-model.")
            self.tested = True
        judged = await asyncio.gather(*(self.judge(row) for row in read_block(self.todo, batch, PENDING)))
        name = shard_name(f"{row['example_id']}/{row['attempt']}" for row in judged)
        await asyncio.to_thread(lambda: self.judgements.write_table(rows_table(judged, JUDGEMENTS), name))
        counts = Counter(row["reason"] or "" for row in judged)
        yield pa.table({"reason": pa.array(counts, pa.string()), "count": pa.array(counts.values(), pa.int64())})

    async def judge(self, row: Row) -> Row:
        messages = judge_messages(self.rubric, self.description, row["text"], as_turns(row["messages"]))
        reply = await self.engine.chat(messages, self.sampling)
        parsed = parse_judgement(reply.text, reply.finish_reason, self.rubric)
        refused = parsed if isinstance(parsed, Reject) else None
        return {
            "example_id": row["example_id"],
            "attempt": row["attempt"],
            "model": self.model,
            "score": None if isinstance(parsed, Reject) else parsed.score,
            "scores": None if isinstance(parsed, Reject) else parsed.scores,
            "reasons": None if isinstance(parsed, Reject) else parsed.reasons,
            "reply": reply.text,
            "reason": refused.reason if refused else None,
            "detail": refused.detail if refused else None,
        }

    def __del__(self) -> None:
        if engine := getattr(self, "engine", None):
            engine.shutdown()
