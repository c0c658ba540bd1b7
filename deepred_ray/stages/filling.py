"""Filling slots: engine actors that try each slot until an attempt passes the validators or its attempts are spent.

INPUT   todo/ (empty slots with their passages and the number of their next attempt)
OUTPUT  candidates/, every attempt, written as slots are done with
fan-out slot 1:n attempts
"""

import asyncio
import hashlib
import itertools
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deepred_ray import logs
from deepred_ray.config import SynthesizeConfig
from deepred_ray.engine import EngineSettings, Reply, Sampling
from deepred_ray.errors import ModelError
from deepred_ray.restarting import RestartingEngine
from deepred_ray.schema import CANDIDATES, SLOTS
from deepred_ray.selftest import enforces_schema
from deepred_ray.stages.pool import blocks, on_engines, read_block
from deepred_ray.stages.tables import Row
from deepred_ray.storage import Folder, rows_table, shard_name
from deepred_ray.text import chatml, prompts, validating
from deepred_ray.text.dedup import normalise
from deepred_ray.text.personas import Slot
from deepred_ray.text.prompts import Contract, Prompt, Turn
from deepred_ray.text.reject import Reject
from deepred_ray.theme import Theme

MakeEngine = Callable[[EngineSettings], Any]
TODO = pa.schema([*SLOTS, ("text", pa.large_string()), ("attempt", pa.int32())])
MOST_AT_ONCE = 4  # attempts at one slot
FULL = 1 / 4  # of what an engine has in flight: with fewer requests it is nearly as long at each token
DRAWS = 16  # of a question that is new
WRITE_EVERY_S = 2.0
WRITE_ROWS = 64


@dataclass(frozen=True)
class Recipe:
    """All that turns a slot and its passage into a prompt and judges the reply. Picklable."""

    theme: Theme
    settings: SynthesizeConfig
    contract: Contract
    model: str

    def prompt(self, row: Row, attempt: int) -> Prompt:
        """The prompt of one attempt at a slot: `row` has the columns of slots/, and the passage or None as `text`."""
        slot = Slot(**{name: row[name] for name in ("example_id", "component", "number", "source", "chunk_id", "persona")})
        hits = {} if row["text"] is None else self.theme.scorer.hits(row["text"])
        return prompts.build(
            slot,
            attempt,
            row["text"],
            hits,
            self.theme.phrasebook,
            contract=self.contract,
            passage_chars=self.settings.passage_chars,
            answer_chars=self.settings.answer_chars,
        )

    def checks(self) -> validating.Checks:
        theme, length = self.theme, self.settings.answer_chars
        overlap = validating.Overlap(" ".join(item.turns) for item in theme.evaluation)
        return validating.Checks(length, theme.speech, theme.era.check, theme.keywords_in, theme.common, overlap)

    def sampling(self, prompt: Prompt) -> Sampling:
        settings = self.settings
        return Sampling(
            max_tokens=prompt.max_tokens,
            temperature=settings.temperature,
            min_p=settings.min_p,
            repetition_penalty=settings.repetition_penalty,
            schema=prompt.schema,
            bad_words=self.theme.unspoken if prompt.schema is None else (),
        )


def prompt_sha(prompt: Prompt) -> str:
    """Of all that the engine is told for an attempt."""
    return hashlib.sha256(json.dumps([prompt.messages(), prompt.questions, prompt.openings]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Tally:
    """Attempts by component and reason (empty: accepted), and generated tokens."""

    counts: Counter[tuple[str, str]]
    tokens: int

    @property
    def reasons(self) -> Counter[str]:
        """Attempts of all components by reason."""
        found: Counter[str] = Counter()
        for (_, reason), count in self.counts.items():
            found[reason] += count
        return found

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.counts + other.counts, self.tokens + other.tokens)


def fill(todo: Folder, candidates: Folder, engine: EngineSettings, recipe: Recipe, make_engine: MakeEngine) -> Iterator[Tally]:
    """Stream attempts at the slots of todo/ into candidates/; yields what has been done so far, as it grows."""
    settings = recipe.settings
    arguments = (todo, candidates, engine, recipe, make_engine)
    counts = on_engines(blocks(todo), FillSlots, arguments, settings, settings.resources, remote=bool(settings.endpoint))
    done = Tally(Counter(), 0)
    for batch in counts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in batch.to_pylist():
            done += Tally(Counter({(row["component"], row["reason"]): row["count"]}), row["tokens"])
        yield done


class FillSlots:
    """INPUT a block of empty slots with their passages; writes candidates/, one row an attempt, as slots are done with; OUTPUT
    counts by component and reason; fan-out 1:n. Holds one engine.

    A block that is given to another actor, because the first one died, goes on behind what the first one wrote.
    """

    def __init__(self, todo: Folder, candidates: Folder, engine: EngineSettings, recipe: Recipe, make_engine: MakeEngine) -> None:
        logs.enter("synthesize")
        self.recipe = recipe
        self.todo, self.candidates = todo, candidates
        self.checks = recipe.checks()
        self.asked = accepted_questions(candidates)
        self.engine = RestartingEngine(make_engine, engine)
        self.room = asyncio.Semaphore(recipe.settings.in_flight)
        self.active = 0
        self.testing = asyncio.Lock()
        self.tested = recipe.contract == "plain"

    async def __call__(self, batch: Mapping[str, Sequence[Any]]) -> AsyncIterator[pa.Table]:
        rows = read_block(self.todo, batch, TODO)
        await self.test()
        writer = Writer(self.candidates, rows)
        if writer.earlier:
            logs.note("block taken over", logging.WARNING, block=str(batch["block"][0]), attempts=len(writer.earlier))
        earlier = Counter(attempt["example_id"] for attempt in writer.earlier)
        filled = {attempt["example_id"] for attempt in writer.earlier if attempt["reason"] is None}
        pending = {
            asyncio.ensure_future(self.fill(row | {"attempt": row["attempt"] + earlier[row["example_id"]]}))
            for row in rows
            if row["example_id"] not in filled
        }
        components = {row["example_id"]: row["component"] for row in rows}
        yield tally_table(writer.earlier, components)
        while pending:
            # Not longer than a write may wait: an engine that hangs must not keep finished rows from the disk.
            done, pending = await asyncio.wait(pending, timeout=WRITE_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            attempts = [attempt for task in done for attempt in task.result()]
            await writer.add(attempts)
            if attempts:
                yield tally_table(attempts, components)
        await writer.write()

    async def test(self) -> None:
        """Raises ModelError, before the first slot, if the engine does not keep to a schema."""
        async with self.testing:
            if not self.tested and (fault := await enforces_schema(self.engine)):
                raise ModelError(
                    f"{self.recipe.model} under this engine does not keep to a JSON schema: {fault}",
                    "Use --synthesize.contract plain, or an engine with structured output.",
                )
            self.tested = True

    async def fill(self, row: Row) -> list[Row]:
        """Attempts at one slot until one is accepted. When few slots are left each gets several at a time, since an engine
        that is not full wastes more than an attempt too many."""
        attempts: list[Row] = []
        settings, numbers = self.recipe.settings, itertools.count(row["attempt"])
        async with self.room:
            self.active += 1
            try:
                while len(attempts) < settings.attempts and all(attempt["reason"] for attempt in attempts):
                    if any(attempt["reason"] == CRASH for attempt in attempts):
                        break  # its passage, most likely; each more attempt would cost a start of the engine
                    spare = int(FULL * settings.in_flight) // self.active if attempts else 1
                    width = min(max(1, spare), MOST_AT_ONCE, settings.attempts - len(attempts))
                    attempts += await asyncio.gather(*(self.attempt(row, *self.prompt(row, numbers)) for _ in range(width)))
            finally:
                self.active -= 1
        for superseded in [attempt for attempt in attempts if attempt["reason"] is None][1:]:
            superseded |= {"reason": "superseded", "messages": None}
        return attempts

    def prompt(self, row: Row, numbers: Iterator[int]) -> tuple[int, Prompt]:
        """The next attempt whose first question nobody has been asked yet; after many repeated ones, the next at all."""
        for number in itertools.islice(numbers, DRAWS):
            prompt = self.recipe.prompt(row, number)
            if not prompt.questions or normalise(prompt.questions[0]) not in self.asked:
                break
        self.asked.update(normalise(question) for question in prompt.questions[:1])
        return number, prompt

    async def attempt(self, row: Row, number: int, prompt: Prompt) -> Row:
        started = datetime.now(UTC)
        sampling = self.recipe.sampling(prompt)
        replies, parsed = await converse(self.engine, prompt, sampling)
        return candidate(row, number, prompt, sampling, replies, parsed, self.recipe, self.checks, started)

    def __del__(self) -> None:
        if engine := getattr(self, "engine", None):
            engine.shutdown()


async def converse(engine: Any, prompt: Prompt, sampling: Sampling) -> tuple[list[Reply], list[Turn] | Reject]:
    """The engine's replies to a prompt, and the conversation that they make, or why they make none."""
    if prompt.schema:
        reply = await engine.chat(prompt.messages(), sampling)
        return [reply], chatml.parse_conversation(reply.text, reply.finish_reason, prompt.turns)
    replies: list[Reply] = []
    said: list[Turn] = []
    for question, opening in zip(prompt.questions, prompt.openings, strict=True):
        reply = await engine.chat(prompt.messages(said), sampling, opening=opening)
        replies.append(reply)
        answer = chatml.parse_answer(reply.text, reply.finish_reason, opening)
        if isinstance(answer, Reject):
            return replies, answer
        said.append(Turn(question, answer))
    return replies, said


def candidate(
    row: Row,
    attempt: int,
    prompt: Prompt,
    sampling: Sampling,
    replies: Sequence[Reply],
    parsed: list[Turn] | Reject,
    recipe: Recipe,
    checks: validating.Checks,
    started: datetime,
) -> Row:
    """A row of candidates/: the attempt, and what the validators say that need no other row."""
    turns = [] if isinstance(parsed, Reject) else parsed
    refused = parsed if isinstance(parsed, Reject) else validating.fault(turns, row["text"], prompt.shots, checks)
    question = prompt.questions[0] if prompt.questions else turns[0].question if turns else None
    openings = prompt.openings or ("",)
    return {
        "example_id": row["example_id"],
        "attempt": attempt,
        "system": prompt.system,
        "question": question,
        "messages": None if refused else prompts.as_messages(prompt.system, turns),
        "replies": [opening + reply.text for opening, reply in zip(openings, replies, strict=False)],
        "finish_reason": replies[-1].finish_reason,
        "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
        "tokens": sum(reply.tokens for reply in replies),
        "started_at": started,
        "seconds": (datetime.now(UTC) - started).total_seconds(),
        "first_token_s": replies[0].first_token_s,
        "model": recipe.model,
        "sampling": json.dumps({key: value for key, value in asdict(sampling).items() if key not in ("schema", "bad_words")}),
        "prompt_sha": prompt_sha(prompt),
        "axes": prompt.axes,
        "reason": refused.reason if refused else None,
        "detail": refused.detail if refused else None,
    }


class Writer:
    """Writes one block's attempts, a shard every few seconds, under names that tell the block."""

    def __init__(self, folder: Folder, rows: Sequence[Row]) -> None:
        self.folder = folder
        self.name = shard_name(f"{row['example_id']}/{row['attempt']}" for row in rows)
        # Asked for one by one, since they have no gap: a listing takes longer the more blocks are done.
        numbered = (folder / f"{self.name}-{number:04d}.parquet" for number in itertools.count())
        shards = list(itertools.takewhile(Folder.exists, numbered))
        self.earlier: list[Row] = [row for file in shards for row in file.read_shard(COUNTED).to_pylist()]
        self.shards = len(shards)
        self.waiting: list[Row] = []
        self.wrote = time.monotonic()

    async def add(self, attempts: list[Row]) -> None:
        self.waiting += attempts
        if len(self.waiting) >= WRITE_ROWS or time.monotonic() - self.wrote > WRITE_EVERY_S:
            await self.write()

    async def write(self) -> None:
        if self.waiting:
            rows, self.waiting = self.waiting, []
            name = f"{self.name}-{self.shards:04d}"
            self.shards += 1
            # In a thread: a slow disk must not keep the engine waiting.
            await asyncio.to_thread(lambda: self.folder.write_table(rows_table(rows, CANDIDATES), name))
            logs.note("rows written", rows=len(rows))
        self.wrote = time.monotonic()


CRASH = chatml.FAILED["crash"]
COUNTED = pa.schema([CANDIDATES.field(name) for name in ("example_id", "reason", "tokens")])


def tally_table(attempts: Sequence[Row], components: Mapping[str, str]) -> pa.Table:
    """Counts of attempts by component and reason, and their tokens."""
    counts = Counter((components[attempt["example_id"]], attempt["reason"] or "") for attempt in attempts)
    tokens: Counter[tuple[str, str]] = Counter()
    for attempt in attempts:
        tokens[components[attempt["example_id"]], attempt["reason"] or ""] += attempt["tokens"]
    return pa.table(
        {
            "component": pa.array([component for component, _ in counts], pa.string()),
            "reason": pa.array([reason for _, reason in counts], pa.string()),
            "count": pa.array(list(counts.values()), pa.int64()),
            "tokens": pa.array([tokens[key] for key in counts], pa.int64()),
        }
    )


def accepted_questions(candidates: Folder) -> set[str]:
    """The normal forms of the first questions of all accepted attempts."""
    table = candidates.read_table(CANDIDATES, ["question", "reason"])
    return {normalise(question) for question in table.filter(pc.is_null(table["reason"]))["question"].to_pylist()}
