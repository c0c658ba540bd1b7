"""synthesize: passages become ChatML examples, each in its planned slot.

INPUT   chunks/ with `kept`, sources/
OUTPUT  slots/ (the plan, first), candidates/ (every attempt, as it streams), judgements/ (where there is a judge), examples/ and
        dataset/ (at the end, in slot order), rejects/synthesize/ (slots that stayed unfilled)
fan-out slot 1:n attempts

The plan, the choice and the conclusion are tasks, so that the driver holds counts and never rows.
"""

import os
from collections import Counter
from typing import Any

import ray

from deepred_ray import metrics, models
from deepred_ray.config import Config
from deepred_ray.console import Meter, counts_text, say
from deepred_ray.endpoint import EndpointEngine
from deepred_ray.engine import Engine, EngineSettings
from deepred_ray.errors import InputError, ShortfallError
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import CHUNKS, SLOTS
from deepred_ray.stages import judging, sources
from deepred_ray.stages.choosing import conclude, settle
from deepred_ray.stages.datacard import Settled
from deepred_ray.stages.filling import MakeEngine, Recipe, Tally, fill
from deepred_ray.stages.tables import Row
from deepred_ray.storage import rows_table
from deepred_ray.text.personas import Passage, Slot, best_passages, plan_slots, slots_as_rows
from deepred_ray.text.prompts import Contract
from deepred_ray.theme import Theme

PREVIEW = "synthesize/preview.json"
PASSES = 3  # a later pass only makes up for duplicates and low scores, which a pass cannot see


def run(run: Run, config: Config, theme: Theme, make_engine: MakeEngine | None = None) -> Manifest:
    """Plan the slots that are missing, fill those that are empty, and choose the examples.

    `make_engine` is called in each engine actor; what it returns has `chat` and `shutdown` as `engine.Engine` has.

    Raises:
        ShortfallError: more slots than `least_filled` allows stayed empty; what was made is kept.
        ModelError: the model is missing, or the engine cannot serve it.
    """
    settings = config.synthesize
    recipe, engine = recipe_of(run, config, theme), engine_settings(config)
    if settings.input:
        sources.import_passages(run, settings.input, theme)
    extra = {kind: folder for kind in sources.KINDS if (folder := getattr(settings, kind))}
    if extra:
        sources.import_sources(run, extra, theme)
    origins: Counter[str] = in_task(plan, run, config, theme)
    if gaps := origins["none"]:
        say(
            f"  {gaps} of {origins.total()} slots have no passage: all that fit have given {settings.examples_per_passage} examples"
        )
    todo = run.folder / "synthesize" / "todo"
    for number in range(PASSES):
        todo.delete()
        settled: Settled = in_task(settle, run, config, todo, number == 0)
        if not todo.files(".parquet") or (number and settled.empty <= (1 - settings.least_filled) * settled.slots.total()):
            break
        name = recipe.model.rsplit("/", 1)[-1]
        say(f"  {settled.empty} of {settled.slots.total()} slots to fill with {name}, {recipe.contract} replies")
        watch(fill(todo, run.table("candidates"), engine, recipe, make_engine or engine_maker(config)), settled)
        if settings.judge_model:
            judging.judge(run, config, theme, run.folder, run.table("slots"), make_engine)
    todo.delete()
    return account(in_task(conclude, run, config, theme, recipe.model), config, recipe.model)


def in_task(function: Any, *arguments: Any) -> Any:
    """What `function` returns, computed in a task, whose memory ends with it."""
    return ray.get(ray.remote(num_cpus=0, max_retries=0)(function).remote(*arguments))


def planned_slots(run: Run, config: Config, theme: Theme) -> list[Row]:
    """The rows of slots/ and, behind them, those that are missing; what is planned stays planned.

    Raises:
        InputError: there is no passage to plan with.
    """
    settings = config.synthesize
    passages, book_of = [], {}
    for name in ("chunks", "sources"):
        table = run.table(name).read_table(CHUNKS, ["chunk_id", "book_id", "score", "weights", "kept"])
        for row in table.filter(table["kept"]).to_pylist(maps_as_pydicts="strict"):
            source = "books" if name == "chunks" else row["book_id"].partition("/")[0]
            passages.append(Passage(row["chunk_id"], row["book_id"], source, row["score"], row["weights"]))
            book_of[row["chunk_id"]] = row["book_id"]
    if not passages:
        raise InputError(f"run {run.name} has no passage", "Run `deepred corpus` first, with a lower --min-score.")
    books = best_passages([passage for passage in passages if passage.source == "books"], settings.passages)
    extra = [passage for passage in passages if passage.source != "books"]
    planned: list[Row] = run.table("slots").read_table(SLOTS).to_pylist()
    have = [Slot(**{field: row[field] for field in Slot.__dataclass_fields__}) for row in planned]
    new = plan_slots(
        [*books, *extra],
        theme.components,
        theme.personas,
        settings.examples,
        have,
        per_passage=settings.examples_per_passage,
        gap_filling=settings.gap_filling,
    )
    return planned + slots_as_rows(new, book_of)


def plan(run: Run, config: Config, theme: Theme) -> Counter[str]:
    """Add the missing slots to slots/; how many of all come from which source."""
    have = run.table("slots").read_table(SLOTS, ["number"]).num_rows
    planned = planned_slots(run, config, theme)
    if planned[have:]:
        run.table("slots").write_table(rows_table(planned[have:], SLOTS), f"{have:07d}")
    return Counter(row["source"] for row in planned)


def recipe_of(run: Run, config: Config, theme: Theme, contract: Contract | None = None) -> Recipe:
    """How slots become prompts; the contract by the setting, the preview of this run, or the size of the model."""
    settings = config.synthesize
    model = synthesis_model(config)
    if contract is None and settings.contract != "auto":
        contract = settings.contract
    if contract is None:
        contract = previewed_contract(run, model)
    if contract is None:
        contract = "json" if settings.endpoint or not models.is_small(model) else "plain"
    return Recipe(theme, settings, contract, model)


def synthesis_model(config: Config) -> str:
    """A folder or id that an engine loads, or the name that an endpoint knows."""
    named = config.synthesize.model or config.model
    return named if config.synthesize.endpoint else models.resolve(named)


def previewed_contract(run: Run, model: str) -> Contract | None:
    """The contract that yielded more when this run was previewed with this model; None without such a preview of both."""
    file = run.folder / PREVIEW
    if not file.exists():
        return None
    found = file.read_json()
    measured: Contract = found["contract"]
    return measured if found["model"] == model and len(found["trials"]) > 1 else None


def engine_settings(config: Config) -> EngineSettings:
    settings = config.synthesize
    return EngineSettings(
        synthesis_model(config),
        settings.max_model_len,
        settings.kv_cache_gib,
        settings.tensor_parallel,
        # Engines on one CPU share its cores.
        threads=max(1, (os.cpu_count() or 1) // settings.engines) if settings.engines > 1 else None,
        endpoint=settings.endpoint,
    )


def engine_maker(config: Config) -> MakeEngine:
    return EndpointEngine if config.synthesize.endpoint else Engine


def watch(tallies: Any, settled: Settled) -> None:
    """Show accepted slots of those planned, by component, with yield and tokens a second."""
    growing = metrics.Growing()
    with Meter("synthesize", settled.slots.total(), "slots") as meter:
        before = settled.filled
        meter.update(before.total(), "engine starting")
        for tally in tallies:
            growing.rows(tally.reasons)
            growing.tokens(tally.tokens)
            filled, tried = before.total() + tally.reasons[""], settled.attempts.total() + tally.counts.total()
            metrics.show("deepred_yield", filled / max(1, tried))
            meter.update(*progress(tally, before, settled.slots, meter.seconds))


def progress(tally: Tally, before: Counter[str], slots: Counter[str], seconds: float) -> tuple[int, str]:
    """How many slots are filled, and the rest in words: by component, the yield, the speed and the commonest rejects."""
    accepted: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for (component, reason), count in tally.counts.items():
        if reason:
            reasons[reason] += count
        else:
            accepted[component] += count
    tried = accepted.total() + reasons.total()
    parts = ", ".join(f"{name} {before[name] + accepted[name]}/{count}" for name, count in slots.items())
    share = f", yield {accepted.total() / tried:.0%}" if tried else ""
    rejected = f", rejected {counts_text(reasons, 2)}" if reasons else ""
    return before.total() + accepted.total(), f"{parts}{share}, {tally.tokens / max(seconds, 1e-3):.0f} tokens/s{rejected}"


def account(settled: Settled, config: Config, model: str) -> Manifest:
    """The manifest of a whole stage. Raises ShortfallError if too many slots are empty."""
    slots, filled = settled.slots.total(), settled.filled.total()
    rejected = counts_text(settled.rejected)
    if not filled:
        raise ShortfallError(
            f"synthesize filled none of {slots} slots: {rejected}",
            f"`deepred inspect {config.run} candidates` shows the replies; try another --model, or --synthesize.contract.",
        )
    if filled < config.synthesize.least_filled * slots:
        raise ShortfallError(
            f"synthesize filled {filled} of {slots} slots; rejected: {rejected}",
            "Repeat the command for more attempts, or lower --synthesize.least-filled to go on with what there is.",
        )
    if filled < slots:
        say(f"  [yellow]{slots - filled} slots stayed unfilled[/yellow]")
    return Manifest(
        "synthesize",
        "attempts",
        settled.attempts.total(),
        filled,
        settled.rejected,
        0.0,
        outputs={"slots": slots, "filled": filled, "unfilled": slots - filled, "model": model},
    )
