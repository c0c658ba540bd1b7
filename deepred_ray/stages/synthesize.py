"""synthesize: passages become ChatML examples, each in its planned slot.

INPUT   chunks/ with `kept`
OUTPUT  slots/ (the plan, first), candidates/ (every attempt, as it streams), examples/ and dataset/ (at the end, in slot
        order), rejects/synthesize/ (slots that stayed unfilled)
fan-out slot 1:n attempts; a slot is tried until an attempt passes the validators or its attempts are spent
"""

import asyncio
import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from deepred_ray import models
from deepred_ray.config import Config, SynthesizeConfig
from deepred_ray.console import Meter, counts_text, say
from deepred_ray.engine import Engine, EngineSettings, Reply, Sampling
from deepred_ray.errors import InputError, ShortfallError
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import CANDIDATES, CHUNKS, EXAMPLES, REJECTS, SLOTS
from deepred_ray.stages.datacard import write_dataset
from deepred_ray.stages.tables import Row, ShardWriter, score_columns, write
from deepred_ray.storage import rows_table, shard_name
from deepred_ray.text import chatml, prompts
from deepred_ray.text.dedup import NearDuplicates, normalise
from deepred_ray.text.personas import Passage, Slot, best_passages, plan_slots, slots_as_rows
from deepred_ray.text.reject import Reject
from deepred_ray.theme import Theme

MakeEngine = Callable[[EngineSettings], Any]
TASKS_IN_FLIGHT = 32  # enough that one slow slot never idles the engine, few enough for the scheduler
SLOTS_A_SHARD = 16
MOST_AT_ONCE = 4  # attempts at one slot
DRAWS = 16  # of a question that is new
PASSES = 3  # a later pass only makes up for duplicates that a pass could not see


def run(run: Run, config: Config, theme: Theme, make_engine: MakeEngine = Engine) -> Manifest:
    """Plan the slots that are missing, fill those that are empty, and choose the examples.

    `make_engine` is called in each engine actor; what it returns has `chat` and `shutdown` as `engine.Engine` has.

    Raises:
        ShortfallError: more slots than `least_filled` allows stayed empty; what was made is kept.
        ModelError: the model is missing, or vLLM cannot serve it.
    """
    settings = config.synthesize
    model = models.resolve(settings.model or config.model)
    contract: prompts.Contract = settings.contract if settings.contract != "auto" else "plain" if models.is_small(model) else "json"
    recipe = Recipe(theme, settings, contract, model)
    if settings.input:
        import_passages(run, settings.input, theme)
    slots = plan(run, settings, theme)
    passages = passage_texts(run, {slot["chunk_id"] for slot in slots})
    chosen = choose(run, slots)
    for number in range(PASSES):
        empty = [slot for slot in slots if slot["example_id"] not in chosen.filled]
        if not empty or (number and len(empty) <= (1 - settings.least_filled) * len(slots)):
            break
        say(f"  {len(empty)} of {len(slots)} slots to fill with {model.rsplit('/', 1)[-1]}, {contract} replies")
        rows = [slot | {"text": passages[slot["chunk_id"]], "attempt": chosen.next_attempt[slot["example_id"]]} for slot in empty]
        fill(run, rows, recipe, make_engine, chosen, len(slots))
        chosen = choose(run, slots)
    return conclude(run, config, theme, slots, chosen, model)


# --- the plan


def import_passages(run: Run, files: Iterable[str], theme: Theme) -> None:
    """Make chunks/ of ready passages: rows with `id` and `text`, each a work of its own unless it names a `book_id`.

    Raises:
        InputError: a row without them; the message names file and row.
    """
    for name in files:
        path = Path(name).expanduser()
        lines = (
            pq.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_text("utf-8").removesuffix("\n").split("\n")
        )
        rows: list[Row] = []
        for number, line in enumerate(lines, 1):
            try:
                fields = json.loads(line) if isinstance(line, str) else line
                if missing := [key for key in ("id", "text") if fields[key] is None]:
                    raise ValueError(f"no {' and no '.join(missing)}")
                row = {"chunk_id": str(fields["id"]), "title": str(fields.get("title", "")), "text": str(fields["text"])}
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}, row {number}: no passage with id and text: {error!r}") from error
            row["book_id"] = str(fields.get("book_id", row["chunk_id"]))
            rows.append(row | {"start": 0, "end": len(row["text"]), "kept": True, "reason": None, "twin_of": None})
        scored = theme.scorer.score([row["text"] for row in rows])
        columns = {name: [row[name] for row in rows] for name in CHUNKS.names if rows and name in rows[0]}
        table = pa.table(columns | score_columns(scored, theme.scorer.lexicon.themes)).select(CHUNKS.names).cast(CHUNKS)
        run.table("chunks").write_table(table, shard_name([str(path.resolve())]))


def plan(run: Run, settings: SynthesizeConfig, theme: Theme) -> list[Row]:
    """The rows of slots/, with those that are missing added to it; what is planned stays planned."""
    table = run.table("chunks").read_table(CHUNKS, ["chunk_id", "book_id", "score", "themes", "kept"])
    rows = table.filter(table["kept"]).to_pylist(maps_as_pydicts="strict")
    if not rows:
        raise InputError(f"run {run.name} has no passage", "Run `deepred corpus` first, with a lower --min-score.")
    passages = best_passages([Passage(r["chunk_id"], r["book_id"], r["score"], r["themes"]) for r in rows], settings.passages)
    planned = run.table("slots").read_table(SLOTS).to_pylist()
    have = [Slot(r["example_id"], r["component"], r["number"], r["chunk_id"], r["persona"]) for r in planned]
    new = plan_slots(passages, theme.components, theme.personas, settings.examples, have)
    if new:
        book_of = {row["chunk_id"]: row["book_id"] for row in rows}
        added = rows_table(slots_as_rows(new, book_of), SLOTS)
        run.table("slots").write_table(added, f"{len(have):07d}")
        planned += added.to_pylist()
    return planned


def passage_texts(run: Run, wanted: set[str]) -> dict[str, str]:
    table = run.table("chunks").read_table(CHUNKS, ["chunk_id", "text"])
    table = table.filter(pc.is_in(table["chunk_id"], pa.array(sorted(wanted))))
    return dict(zip(table["chunk_id"].to_pylist(), table["text"].to_pylist(), strict=True))


# --- filling slots


@dataclass(frozen=True)
class Recipe:
    """All that turns a slot and its passage into a prompt and judges the reply. Picklable."""

    theme: Theme
    settings: SynthesizeConfig
    contract: Literal["plain", "json"]
    model: str

    def prompt(self, row: Row, attempt: int) -> prompts.Prompt:
        slot = Slot(row["example_id"], row["component"], row["number"], row["chunk_id"], row["persona"])
        theme = self.theme
        return prompts.build(
            slot,
            attempt,
            row["text"],
            theme.scorer.hits(row["text"]),
            contract=self.contract,
            personas=theme.personas,
            axes=theme.axes,
            voice=theme.voice,
            questions=theme.questions,
            topics=theme.topics,
            openings=theme.openings,
            passage_chars=self.settings.passage_chars,
            answer_chars=self.settings.answer_chars,
        )

    def checks(self) -> chatml.Checks:
        forbidden = frozenset(normalise(item.prompt) for item in self.theme.evaluation)
        return chatml.Checks(self.settings.answer_chars, self.theme.era.check, self.theme.scorer.counts, forbidden)

    def sampling(self, prompt: prompts.Prompt) -> Sampling:
        settings = self.settings
        return Sampling(
            max_tokens=prompt.max_tokens,
            temperature=settings.temperature,
            min_p=settings.min_p,
            repetition_penalty=settings.repetition_penalty,
            schema=prompt.schema,
        )


def fill(run: Run, rows: list[Row], recipe: Recipe, make_engine: MakeEngine, chosen: "Chosen", total: int) -> None:
    """Stream attempts at these slots into candidates/; `chosen` is what there is already."""
    asked, done = frozenset(normalise(row["question"]) for row in chosen.filled.values()), len(chosen.filled)
    settings = recipe.settings
    engine = EngineSettings(recipe.model, settings.max_model_len, settings.kv_cache_gib, settings.tensor_parallel)
    gpus = settings.tensor_parallel if ray.cluster_resources().get("GPU", 0) else 0
    tasks = min(settings.in_flight, TASKS_IN_FLIGHT)
    slots_a_task = max(1, settings.in_flight // tasks)
    attempts = ray.data.from_items(rows, override_num_blocks=math.ceil(len(rows) / slots_a_task)).map_batches(
        FillSlots,
        fn_constructor_args=(engine, recipe, make_engine, asked),
        batch_size=slots_a_task,
        compute=ray.data.ActorPoolStrategy(
            size=settings.engines, max_tasks_in_flight_per_actor=tasks, max_concurrent_calls_per_actor=tasks
        ),
        num_cpus=1,
        num_gpus=gpus,
    )
    writer = ShardWriter({"candidates": (run.table("candidates"), CANDIDATES)}, sort=lambda _: "candidates", key="example_id")
    with Meter("synthesize", total, "slots") as meter:
        meter.update(done, "engine starting")
        for counts in write(attempts, writer, SLOTS_A_SHARD):
            reasons = {reason: n for (_, reason), n in counts.items()}
            accepted = reasons.pop("", 0)
            tried = accepted + sum(reasons.values())
            meter.update(done + accepted, f"{tried} attempts" + (f", rejected {counts_text(reasons, 2)}" if reasons else ""))


class FillSlots:
    """INPUT slots with their passages; OUTPUT candidates, one an attempt; fan-out 1:n. Holds one engine.

    Every slot of a batch is worked on at the same time, and Ray Data keeps several batches in flight.
    """

    def __init__(self, engine: EngineSettings, recipe: Recipe, make_engine: MakeEngine, asked: frozenset[str]) -> None:
        self.recipe = recipe
        self.checks = recipe.checks()
        self.engine = make_engine(engine)
        self.active = 0
        self.asked = set(asked)

    async def __call__(self, batch: Mapping[str, Iterable[Any]]) -> AsyncIterator[pa.Table]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        filled = await asyncio.gather(*(self.fill(row) for row in rows))
        yield rows_table([attempt for attempts in filled for attempt in attempts], CANDIDATES)

    async def fill(self, row: Row) -> list[Row]:
        """Attempts at one slot until one is accepted. When few slots are left each gets several at a time, since an engine
        that is not full wastes more than an attempt too many."""
        attempts: list[Row] = []
        settings, numbers = self.recipe.settings, itertools.count(row["attempt"])
        self.active += 1
        try:
            while len(attempts) < settings.attempts and all(attempt["reason"] for attempt in attempts):
                spare = settings.in_flight // self.active if attempts else 1
                width = min(max(1, spare), MOST_AT_ONCE, settings.attempts - len(attempts))
                attempts += await asyncio.gather(*(self.attempt(row, *self.prompt(row, numbers)) for _ in range(width)))
        finally:
            self.active -= 1
        accepted = [attempt for attempt in attempts if attempt["reason"] is None]
        for attempt in accepted[1:]:
            attempt |= {"reason": "superseded", "answer": None}
        return attempts

    def prompt(self, row: Row, numbers: Iterator[int]) -> tuple[int, prompts.Prompt]:
        """The next attempt whose question nobody has been asked yet; after many repeated ones, the next at all."""
        number = next(numbers)
        prompt = self.recipe.prompt(row, number)
        for _ in range(DRAWS):
            if normalise(prompt.question or "") not in self.asked:
                break
            number = next(numbers)
            prompt = self.recipe.prompt(row, number)
        if prompt.question is not None:
            self.asked.add(normalise(prompt.question))
        return number, prompt

    async def attempt(self, row: Row, number: int, prompt: prompts.Prompt) -> Row:
        reply = await self.engine.chat(prompt.messages, self.recipe.sampling(prompt), opening=prompt.opening)
        return candidate(row, number, prompt, reply, self.checks, self.recipe.model)

    def __del__(self) -> None:
        if engine := getattr(self, "engine", None):
            engine.shutdown()


def candidate(row: Row, attempt: int, prompt: prompts.Prompt, reply: Reply, checks: chatml.Checks, model: str) -> Row:
    """A row of candidates/: the attempt, and what the validators say that need no other row."""
    parsed = chatml.parse_reply(reply.text, reply.finish_reason, prompt)
    refused = parsed if isinstance(parsed, Reject) else chatml.judge(*parsed, row["text"], prompt, checks)
    question, answer = (prompt.question, None) if isinstance(parsed, Reject) else parsed
    return {
        "example_id": row["example_id"],
        "attempt": attempt,
        "system": prompt.system,
        "question": question,
        "answer": None if refused else answer,
        "reply": prompt.opening + reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "tokens": reply.tokens,
        "model": model,
        "prompt_sha": hashlib.sha256(json.dumps([prompt.messages, prompt.opening]).encode()).hexdigest()[:16],
        "axes": prompt.axes,
        "reason": refused.reason if refused else None,
        "detail": refused.detail if refused else None,
    }


# --- the choice


@dataclass(frozen=True)
class Chosen:
    """The accepted candidate of each filled slot, how many attempts each slot had and the number of its next one, and
    attempts by reason of rejection."""

    filled: dict[str, Row]
    attempts: Counter[str]
    next_attempt: dict[str, int]
    rejected: Counter[str]
    tried: int


def choose(run: Run, slots: list[Row]) -> Chosen:
    """Per slot the first accepted attempt that repeats no earlier slot's question or answer.

    In slot order, so that a run that grew chooses for its old slots what it chose before.
    """
    by_slot: dict[str, list[Row]] = {}
    table = run.table("candidates").read_table(CANDIDATES, ["example_id", "attempt", "system", "question", "answer", "reason"])
    for row in table.to_pylist():
        by_slot.setdefault(row["example_id"], []).append(row)
    filled: dict[str, Row] = {}
    rejected: Counter[str] = Counter()
    questions: set[str] = set()
    answers = NearDuplicates(threshold=0.7, capacity=len(slots))
    for slot in slots:
        for row in sorted(by_slot.get(slot["example_id"], ()), key=lambda row: int(row["attempt"])):
            reason = row["reason"]
            if reason is None and slot["example_id"] in filled:
                reason = "superseded"
            elif reason is None and normalise(row["question"]) in questions:
                reason = "duplicate_question"
            elif reason is None and answers.add(slot["example_id"], row["answer"]):
                reason = "duplicate_answer"
            if reason:
                rejected[reason] += 1
            else:
                filled[slot["example_id"]] = row
                questions.add(normalise(row["question"]))
    tried = {slot["example_id"]: [int(row["attempt"]) for row in by_slot.get(slot["example_id"], ())] for slot in slots}
    attempts = Counter({example_id: len(numbers) for example_id, numbers in tried.items()})
    following = {example_id: max(numbers, default=-1) + 1 for example_id, numbers in tried.items()}
    return Chosen(filled, attempts, following, rejected, attempts.total())


def conclude(run: Run, config: Config, theme: Theme, slots: list[Row], chosen: Chosen, model: str) -> Manifest:
    """Write examples/, dataset/ and the unfilled slots, and account for every attempt."""
    filled = [slot for slot in slots if slot["example_id"] in chosen.filled]
    unfilled = [slot for slot in slots if slot["example_id"] not in chosen.filled]
    if not filled:
        raise ShortfallError(
            f"synthesize filled none of {len(slots)} slots: {counts_text(chosen.rejected)}",
            f"`deepred inspect {run.name} candidates` shows the replies; try another --model, or --synthesize.contract.",
        )
    held_out = held_out_works({slot["book_id"] for slot in slots}, config.synthesize.validation_share)
    examples = []
    for slot in filled:
        row = chosen.filled[slot["example_id"]]
        examples.append(
            {
                "example_id": slot["example_id"],
                "component": slot["component"],
                "persona": slot["persona"],
                "chunk_id": slot["chunk_id"],
                "book_id": slot["book_id"],
                "attempt": row["attempt"],
                "messages": prompts.as_messages(row["system"], row["question"], row["answer"]),
                "split": "val" if slot["book_id"] in held_out else "train",
            }
        )
    run.table("examples").write_table(rows_table(examples, EXAMPLES), "examples")
    rejects = [
        {
            "id": slot["example_id"],
            "reason": "unfilled",
            "detail": f"{chosen.attempts[slot['example_id']]} attempts, none accepted",
            "raw": None,
        }
        for slot in unfilled
    ]
    run.table("rejects/synthesize").write_table(rows_table(rejects, REJECTS), "unfilled")
    write_dataset(run, config, theme, examples, chosen.rejected, model)
    if len(filled) < config.synthesize.least_filled * len(slots):
        raise ShortfallError(
            f"synthesize filled {len(filled)} of {len(slots)} slots; rejected: {counts_text(chosen.rejected)}",
            "Repeat the command for more attempts, or lower --synthesize.least-filled to go on with what there is.",
        )
    if unfilled:
        say(f"  [yellow]{len(unfilled)} slots stayed unfilled[/yellow]")
    return Manifest(
        "synthesize",
        "attempts",
        chosen.tried,
        len(filled),
        dict(chosen.rejected),
        0.0,
        outputs={"slots": len(slots), "filled": len(filled), "unfilled": len(unfilled), "model": model},
    )


def held_out_works(works: set[str], share: float) -> set[str]:
    """Works whose examples are for validation: those whose hash falls into the share, at least one of several."""
    order = {work: int(hashlib.sha256(work.encode()).hexdigest()[:8], 16) / 16**8 for work in works}
    chosen = {work for work, place in order.items() if place < share}
    return chosen or ({min(order, key=lambda work: order[work])} if len(order) > 1 else set())
