"""asking: several systems answer the evaluation prompts, all prompts of a model batched by one engine, which is loaded once.

INPUT   what each system is to be asked, in blocks
OUTPUT  answers/, written as they come: a command that was stopped goes on from there
fan-out 1:1
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from deepred_ray import logs, metrics, models
from deepred_ray.config import Config
from deepred_ray.console import Meter
from deepred_ray.endpoint import EndpointEngine
from deepred_ray.engine import Engine, EngineSettings, Messages, Sampling
from deepred_ray.errors import InputError, ModelError
from deepred_ray.llama import Llama
from deepred_ray.restarting import RestartingEngine
from deepred_ray.runs import Run
from deepred_ray.schema import ANSWERS, ASKED
from deepred_ray.stages.pool import blocks, on_engines, read_block, write_blocks
from deepred_ray.stages.tables import Row
from deepred_ray.storage import Folder, rows_table, shard_name
from deepred_ray.text.items import Item

BASE, PROMPTED, TUNED = "base", "base+prompt", "tuned"
ANSWERED, TODO = "answers", "answers.todo"
CONTEXT_TOKENS = 2048
LLAMA_AT_ONCE = 4
RETEST_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Source:
    """What a model is loaded from: a Hugging Face id or folder, a .gguf file, or the name that the server at `url` knows."""

    kind: Literal["hf", "gguf", "endpoint"]
    model: str
    url: str = ""
    adapter: str | None = None


@dataclass(frozen=True)
class System:
    """One way to ask a model: with the persona's system prompt or without, with the adapter or without."""

    name: str
    source: Source
    prompted: bool = True
    adapted: bool = False

    @property
    def label(self) -> str:
        """For a page: the model, and what is done with it."""
        model = self.source.model.rsplit("/", 1)[-1] + (f" at {self.source.url}" if self.source.url else "")
        return model + (" + adapter" if self.adapted else "") + (", with the persona's system prompt" if self.prompted else "")


def systems(config: Config, base: str, adapter: str | None, gguf: Path | None) -> list[System]:
    """The systems of an evaluation; the one that is judged is the tuned one, else the last.

    Raises:
        InputError: two models go by one name. ModelError: a model or a file that was named is not there.
    """
    source = Source("hf", base, adapter=adapter)
    others = [parse_source(name) for name in config.evaluate.others]
    found: list[System] = []
    if adapter or not others:
        found += [System(BASE, source, prompted=False), System(PROMPTED, source)]
    for other in others:
        name = Path(other.model).stem if other.kind != "endpoint" else other.model
        if not adapter:
            found.append(System(f"{name} bare", other, prompted=False))
        found.append(System(name, other))
    if gguf:
        found.append(System(f"{TUNED} GGUF", Source("gguf", str(gguf))))
    if adapter:
        found.append(System(TUNED, source, adapted=True))
    if len({system.name for system in found}) < len(found):
        raise InputError(f"two of the models go by one name: {', '.join(system.name for system in found)}")
    return found


def parse_source(name: str) -> Source:
    """What --others names. Raises ModelError if it is not there."""
    model, at, url = name.partition("@")
    if at and "://" in url:
        return Source("endpoint", model, url)
    if name.endswith(".gguf"):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise ModelError(f"no GGUF file {path}", "Mend --others.")
        return Source("gguf", str(path))
    return Source("hf", models.resolve(name))


# --- what is asked


def plan(systems: Sequence[System], items: Sequence[Item], retests: int, seed: int) -> list[Row]:
    """Rows of ASKED. A retest asks the persona's prompts again, in an order of its own. What wants no
    adapter comes first."""
    rows = [
        {"system": system.name, "prompt_id": item.id, "draw": 0}
        for system in sorted(systems, key=lambda system: system.adapted)
        for item in items
    ]
    for draw in range(1, retests + 1):
        again = [item for item in items if item.kind == "persona"]
        random.Random(f"{seed}/{draw}").shuffle(again)
        rows += [{"system": system.name, "prompt_id": item.id, "draw": draw} for system in systems for item in again]
    adapted = {system.name: system.adapted for system in systems}
    return sorted(rows, key=lambda row: adapted[row["system"]])


def ask(
    run: Run, config: Config, systems: Sequence[System], items: Sequence[Item], persona: str, rows: Sequence[Row]
) -> tuple[dict[tuple[str, str, int], Row], dict[str, float]]:
    """Answers (rows of ANSWERS) by system, prompt and draw, those among them that an earlier call has written; and for each model
    that was asked now, output tokens a second from its first request to its last reply.

    Raises:
        ModelError: a model cannot be served.
    """
    answers, todo = run.table(ANSWERED), run.table(TODO)
    known = read_answers(answers)
    by_name = {system.name: system for system in systems}
    speeds: dict[str, float] = {}
    with Meter("evaluate", len(rows), "answers") as meter:
        for source in dict.fromkeys(system.source for system in systems):
            left = [row for row in rows if by_name[row["system"]].source == source and key_of(row) not in known]
            if not left:
                continue
            meter.update(len(known), f"{Path(source.model).name} starting")
            todo.delete()
            write_blocks(todo, left, ASKED, config.synthesize.in_flight)
            arguments = (
                run,
                EngineMaker(config),
                source,
                by_name,
                {item.id: item.turns for item in items},
                persona,
                config.evaluate.max_tokens,
            )
            asked = on_engines(
                blocks(todo), AskPrompts, arguments, config.synthesize, config.evaluate.resources, remote=source.kind != "hf"
            )
            done: list[Row] = []
            for batch in asked.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                done += batch.to_pylist()
                metrics.count("deepred_rows", done[-1]["count"], reason=metrics.KEPT)
                metrics.count("deepred_tokens", done[-1]["tokens"])
                meter.update(len(known) + sum(block["count"] for block in done))
            seconds = max(block["ended"] for block in done) - min(block["started"] for block in done)
            speeds[source.model] = sum(block["tokens"] for block in done) / seconds
            todo.delete()
            known = read_answers(answers)
    return known, speeds


def key_of(row: Row) -> tuple[str, str, int]:
    return row["system"], row["prompt_id"], row["draw"]


def read_answers(folder: Folder) -> dict[tuple[str, str, int], Row]:
    return {key_of(row): row for row in folder.read_table(ANSWERS).to_pylist()}


# --- engines


@dataclass(frozen=True)
class EngineMaker:
    """Makes the engine of a source; called in the actor that holds it."""

    config: Config

    def __call__(self, source: Source) -> Any:
        config = self.config
        if source.kind == "endpoint":
            return EndpointEngine(EngineSettings(source.model, CONTEXT_TOKENS, 0.0, endpoint=source.url))
        if source.kind == "gguf":
            return LlamaEngine(Path(source.model))
        engine = Engine(
            EngineSettings(
                source.model,
                CONTEXT_TOKENS,
                config.synthesize.kv_cache_gib,
                config.synthesize.tensor_parallel,
                lora_rank=adapter_rank(source.adapter) if source.adapter else 0,
            )
        )
        if source.adapter:
            engine.use_adapter(source.adapter)
        return engine


def adapter_rank(adapter: str) -> int:
    from peft import PeftConfig

    return int(PeftConfig.from_pretrained(adapter).r)


class LlamaEngine(EndpointEngine):
    """A GGUF file, by llama.cpp's own server on loopback."""

    def __init__(self, gguf: Path) -> None:
        self.llama = Llama(gguf, context=CONTEXT_TOKENS, name="gguf", parallel=LLAMA_AT_ONCE)
        super().__init__(EngineSettings("gguf", CONTEXT_TOKENS, 0.0, endpoint=self.llama.address))


class AskPrompts:
    """INPUT a block of ASKED; writes answers/; OUTPUT how many, their tokens, and when. Holds one engine, which serves base and
    adapter alike."""

    def __init__(
        self,
        run: Run,
        make_engine: Callable[[Source], Any],
        source: Source,
        systems: Mapping[str, System],
        turns: Mapping[str, Sequence[str]],
        persona: str,
        max_tokens: int,
    ) -> None:
        self.todo, self.answers = run.table(TODO), run.table(ANSWERED)
        self.systems, self.turns, self.persona, self.max_tokens = systems, turns, persona, max_tokens
        for path in (source.adapter, source.model if source.kind == "gguf" else None):
            if path:
                run.here(path)
        self.engine = RestartingEngine(make_engine, source)

    async def __call__(self, batch: Mapping[str, Sequence[Any]]) -> AsyncIterator[pa.Table]:
        logs.enter("evaluate")
        started = time.time()
        rows = await asyncio.gather(*(self.answer(row) for row in read_block(self.todo, batch, ASKED)))
        ended = time.time()
        name = shard_name("/".join(map(str, key_of(row))) for row in rows)
        await asyncio.to_thread(lambda: self.answers.write_table(rows_table(rows, ANSWERS), name))
        logs.note("rows written", rows=len(rows))
        tokens = sum(row["tokens"] for row in rows)
        yield pa.table({"count": [len(rows)], "tokens": [tokens], "started": [started], "ended": [ended]})

    async def answer(self, row: Row) -> Row:
        system = self.systems[row["system"]]
        sampling = Sampling(self.max_tokens, temperature=RETEST_TEMPERATURE if row["draw"] else 0.0)
        told = {"adapter": True} if system.adapted else {}
        messages: Messages = [{"role": "system", "content": self.persona}] if system.prompted else []
        text, finish, tokens = "", "error", 0
        for turn in self.turns[row["prompt_id"]]:
            messages.append({"role": "user", "content": turn})
            reply = await self.engine.chat(messages, sampling, **told)
            if reply.finish_reason == "error":
                raise ModelError(f"{system.name} refused prompt {row['prompt_id']}: {reply.text}")
            if reply.finish_reason == "crash":
                raise ModelError(
                    f"the engine of {system.name} dies of prompt {row['prompt_id']}: {reply.text}",
                    "The log of the run has its last words. The same command goes on behind the answers that came.",
                )
            text, finish, tokens = reply.text.strip(), reply.finish_reason, reply.tokens
            messages.append({"role": "assistant", "content": text})
        return row | {"answer": text, "finish_reason": finish, "tokens": tokens}

    def __del__(self) -> None:
        if engine := getattr(self, "engine", None):
            engine.shutdown()
