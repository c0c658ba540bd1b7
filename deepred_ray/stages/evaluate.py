"""evaluate: base and tuned model answer the theme's prompts; judged, compared, and put on a page.

INPUT   the base model, adapter/, tokens/ of the held-out works
OUTPUT  evaluation/responses.parquet, report.json, report.html
fan-out prompt 1:3 answers: base, base with the system prompt, tuned with the system prompt
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from deepred_ray import models
from deepred_ray.config import Config
from deepred_ray.console import Meter, say
from deepred_ray.engine import Engine, EngineSettings, Sampling
from deepred_ray.errors import InputError
from deepred_ray.report import build_report, render_html
from deepred_ray.runs import STAGES, Manifest, Run, versions
from deepred_ray.schema import RESPONSES
from deepred_ray.stages.batches import Batches, collate
from deepred_ray.stages.lora import token_losses
from deepred_ray.stages.pool import on_engines, one_block_each
from deepred_ray.stages.tables import Row
from deepred_ray.stages.train import read_metrics
from deepred_ray.storage import rows_table
from deepred_ray.text.judging import Item, Judgement, judge_persona, judge_style, judge_temporal, stratified
from deepred_ray.text.metrics import PerplexityComparison, compare_perplexity
from deepred_ray.theme import Theme

BASE, PROMPTED, TUNED = "base", "base+prompt", "tuned"
CONTEXT_TOKENS = 2048
IN_FLIGHT = 32
SEED = 1969


def run(run: Run, config: Config, theme: Theme) -> Manifest:
    """Ask every system every chosen prompt, greedily.

    Raises:
        InputError: more prompts are asked for than the theme has.
        ModelError: the model is missing, or vLLM cannot serve it with the adapter.
    """
    settings = config.evaluate
    base = models.resolve(config.model)
    adapter = str(run.local_copy("adapter")) if run.manifest("train") else None
    items = list(theme.evaluation)
    if settings.prompts is not None:
        if settings.prompts > len(items):
            raise InputError(f"evaluate.prompts is {settings.prompts}, the theme has {len(items)}")
        items = stratified(items, settings.prompts, SEED)
    answers = ask(config, theme, base, adapter, items)
    by_id = {item.id: item for item in items}
    responses = [judged(row, by_id[row["prompt_id"]], theme) for row in answers]
    perplexity = measure_perplexity(run, config, base, adapter) if adapter else None
    report = build_report(
        run=run.name,
        models={BASE: config.model, PROMPTED: f"{config.model}, with the persona's system prompt"}
        | ({TUNED: f"{config.model} + adapter"} if adapter else {}),
        responses=responses,
        perplexity=perplexity,
        loss=[{key: row.get(key) for key in ("step", "loss", "val_loss")} for row in read_metrics(run).values()],
        stages=[
            {"stage": m.stage, "rows_in": m.rows_in, "kept": m.kept, "rejected": m.rejected, "seconds": m.seconds}
            for m in (run.manifest(stage) for stage in STAGES)
            if m
        ],
        versions=versions(),
    )
    with run.artefact("evaluation") as folder:
        pq.write_table(rows_table(responses, RESPONSES), folder / "responses.parquet")
        (folder / "report.html").write_text(render_html(report), "utf-8")
        (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), "utf-8")
    for verdict in report["verdicts"]:
        say(f"  {verdict['target']}: {verdict['status']} ({verdict['note']})")
    return Manifest(
        "evaluate",
        "answers",
        len(responses),
        len(responses),
        {},
        0.0,
        outputs={
            "verdicts": {v["target"]: v["status"] for v in report["verdicts"]},
            "perplexity": asdict(perplexity) if perplexity else None,
        },
    )


# --- answers


def ask(config: Config, theme: Theme, base: str, adapter: str | None, items: list[Item]) -> list[Row]:
    """Rows of RESPONSES without a verdict, in the order of systems and prompts."""
    systems = [BASE, PROMPTED] + ([TUNED] if adapter else [])
    persona = theme.system
    rows = [
        {"system": system, "prompt_id": item.id, "category": item.category, "kind": item.kind, "prompt": item.prompt}
        for system in systems
        for item in items
    ]
    engine = EngineSettings(
        base,
        CONTEXT_TOKENS,
        config.synthesize.kv_cache_gib,
        config.synthesize.tensor_parallel,
        lora_rank=config.train.rank if adapter else 0,
    )
    arguments = (engine, adapter, persona, Sampling(config.evaluate.max_tokens))
    answered = on_engines(one_block_each(rows), AskPrompts, arguments, config.synthesize, at_once=IN_FLIGHT)
    done: list[Row] = []
    with Meter("evaluate", len(rows), "answers") as meter:
        meter.update(0, "engine starting")
        for batch in answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            done += batch.to_pylist()
            meter.update(len(done))
    order = {(row["system"], row["prompt_id"]): place for place, row in enumerate(rows)}
    return sorted(done, key=lambda row: order[row["system"], row["prompt_id"]])


class AskPrompts:
    """INPUT a system and a prompt; OUTPUT its answer; fan-out 1:1. Holds one engine, which serves base and adapter alike."""

    def __init__(self, engine: EngineSettings, adapter: str | None, persona: str, sampling: Sampling) -> None:
        self.engine = Engine(engine)
        if adapter:
            self.engine.use_adapter(adapter)
        self.persona, self.sampling = persona, sampling

    async def __call__(self, batch: Mapping[str, Iterable[Any]]) -> AsyncIterator[pa.Table]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        yield rows_table(await asyncio.gather(*(self.answer(row) for row in rows)), RESPONSES)

    async def answer(self, row: Row) -> Row:
        system = [] if row["system"] == BASE else [{"role": "system", "content": self.persona}]
        messages = [*system, {"role": "user", "content": str(row["prompt"])}]
        reply = await self.engine.chat(messages, self.sampling, adapter=row["system"] == TUNED)
        return row | {"answer": reply.text.strip(), "finish_reason": reply.finish_reason, "ok": None, "reason": None}

    def __del__(self) -> None:
        if engine := getattr(self, "engine", None):
            engine.shutdown()


def judged(row: Row, item: Item, theme: Theme) -> Any:
    """The row with its verdict, by the judge of the prompt's kind."""
    verdict = judge(row["answer"], item, theme)
    return row | {"ok": verdict.ok, "reason": verdict.reason}


def judge(answer: str, item: Item, theme: Theme) -> Judgement:
    if item.kind == "style":
        return judge_style(answer, theme.scorer.counts(answer), theme.style)
    if item.kind == "temporal":
        return judge_temporal(answer, item, [answer[hit.start : hit.end] for hit in theme.era.hits(answer)])
    return judge_persona(answer, item, theme.style)


# --- fluency


def measure_perplexity(run: Run, config: Config, base: str, adapter: str) -> PerplexityComparison | None:
    """Base and tuned model on the assistant's tokens of held-out examples; None if no example is held out."""
    if not len(Batches(run.table("tokens"), "val")):
        return None
    scores = ray.get(score_held_out.remote(run, base, adapter, config.evaluate.texts))
    return compare_perplexity(scores["base"], scores["tuned"], seed=SEED)


@ray.remote(num_cpus=1, max_retries=0)
def score_held_out(run: Run, base: str, adapter: str, texts: int) -> dict[str, list[tuple[float, int]]]:
    """(summed nats, trained tokens) of each text, for the base and for the base with its adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
    scores: dict[str, list[tuple[float, int]]] = {"base": [], "tuned": []}
    with torch.no_grad():
        for row in islice(Batches(run.table("tokens"), "val").conversations(), texts):
            batch = collate([row], packed=False)
            scores["tuned"].append((float(token_losses(model, batch, "cpu").sum()), row.trained_tokens))
            with model.disable_adapter():
                scores["base"].append((float(token_losses(model, batch, "cpu").sum()), row.trained_tokens))
    return scores
