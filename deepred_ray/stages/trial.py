"""Trying before a long run: some slots, their prompts and replies, and what they forecast; or several models side by side.

A trial fills slots as the run would, but in a folder of its own, which the next trial clears: the run is left as it was.
"""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from rich.markup import escape

from deepred_ray import placement
from deepred_ray.config import Config
from deepred_ray.console import console, counts_text, say, table
from deepred_ray.engine import EngineSettings
from deepred_ray.runs import Run
from deepred_ray.schema import CANDIDATES
from deepred_ray.stages import judging
from deepred_ray.stages.filling import TODO, MakeEngine, Recipe, fill
from deepred_ray.stages.pool import write_blocks
from deepred_ray.stages.synthesize import PREVIEW, engine_maker, engine_settings, in_task, planned_slots, recipe_of
from deepred_ray.stages.tables import Row, passage_texts
from deepred_ray.storage import Folder
from deepred_ray.text.metrics import wilson
from deepred_ray.text.prompts import Contract
from deepred_ray.theme import Theme

BENCHMARK_SLOTS = 32
BENCHMARK = "synthesize/benchmark.json"


@dataclass(frozen=True)
class Trial:
    """What one model did with one contract. `seconds` are from the first request to the last reply, without the start-up;
    `quality` is the mean score of the judge over accepted replies, None without one."""

    model: str
    contract: str
    slots: int
    attempts: int
    accepted: int
    rejected: dict[str, int]
    tokens: int
    seconds: float
    first_token_s: float | None
    start_s: float
    quality: float | None = None

    @property
    def rate(self) -> float:
        """Accepted of all attempts."""
        return self.accepted / self.attempts if self.attempts else 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def show(run: Run, config: Config, theme: Theme, n: int, compared: list[str] | None, make_engine: MakeEngine | None = None) -> None:
    """Try `n` slots: with the models `compared`, side by side, or as a preview of the run where there are none.

    Raises:
        InputError: the run has no passage. ModelError: a model is missing, or cannot be served.
    """
    placement.require(config, ["synthesize"])
    with run.lease():
        planned = in_task(planned_slots, run, config, theme)
        slots = spread(planned, n or BENCHMARK_SLOTS)
        if compared is None:
            recipes = [recipe_of(run, config, theme, contract) for contract in contracts(config)]
            preview(run, config, recipes, make_engine, slots, len(planned))
            return
        configs = [config_of_model(config, model) for model in compared]
        benchmark(run, [(each, recipe_of(run, each, theme)) for each in configs], theme, make_engine, slots)


def contracts(config: Config) -> tuple[Contract, ...]:
    return ("plain", "json") if config.synthesize.contract == "auto" else (config.synthesize.contract,)


def config_of_model(config: Config, model: str) -> Config:
    return config.model_copy(update={"synthesize": config.synthesize.model_copy(update={"model": model})})


def spread(slots: list[Row], n: int) -> list[Row]:
    """`n` slots, or all, at equal distances: every component, and passages of every rank."""
    n = min(n, len(slots))
    return [slots[number * len(slots) // n] for number in range(n)]


def run_trial(run: Run, recipe: Recipe, engine: EngineSettings, make_engine: MakeEngine, slots: list[Row], name: str) -> Trial:
    """Fill these slots in a folder of their own. `slots` have the columns of slots/."""
    folder = trial_folder(run, name)
    folder.delete()
    texts = passage_texts(run, {slot["chunk_id"] for slot in slots if slot["chunk_id"]})
    rows = [slot | {"text": texts.get(slot["chunk_id"]), "attempt": 0} for slot in slots]
    write_blocks(folder / "todo", rows, TODO, recipe.settings.in_flight)
    started = datetime.now(UTC)
    for _ in fill(folder / "todo", folder / "candidates", engine, recipe, make_engine):
        pass
    made = candidates(run, name)
    reasons = Counter(row["reason"] for row in made)
    accepted = reasons.pop(None, 0)
    firsts = sorted(row["first_token_s"] for row in made if row["first_token_s"] is not None)
    begun = min(row["started_at"] for row in made)
    return Trial(
        recipe.model,
        recipe.contract,
        len(slots),
        len(made),
        accepted,
        dict(reasons),
        sum(row["tokens"] for row in made),
        max((row["started_at"] - begun).total_seconds() + row["seconds"] for row in made),
        firsts[len(firsts) // 2] if firsts else None,
        (begun - started).total_seconds(),
    )


def trial_folder(run: Run, name: str) -> Folder:
    return run.folder / "synthesize" / "trials" / name


def candidates(run: Run, name: str) -> list[Row]:
    """The attempts of a trial."""
    rows: list[Row] = (trial_folder(run, name) / "candidates").read_table(CANDIDATES).to_pylist(maps_as_pydicts="strict")
    return rows


# --- deepred synthesize --preview


def preview(
    run: Run, config: Config, recipes: list[Recipe], make_engine: MakeEngine | None, slots: list[Row], planned: int
) -> None:
    """Show prompts and replies of some slots, by each recipe, and what they forecast for all that are planned."""
    trials = []
    for recipe in recipes:
        say(f"{len(slots)} of {planned} planned slots with {recipe.model.rsplit('/', 1)[-1]}, {recipe.contract} replies")
        name = f"preview-{recipe.contract}"
        trials.append(run_trial(run, recipe, engine_settings(config), make_engine or engine_maker(config), slots, name))
        show_replies(run, recipe, slots, name)
    columns = ["contract", "attempts", "accepted", "yield (95 %)", "tokens/s", "attempts needed", "hours", "rejects expected"]
    table(f"Forecast for {planned} slots from {len(slots)}", columns, [forecast_row(trial, planned) for trial in trials])
    if len(slots) < config.synthesize.in_flight:
        say(f"  {len(slots)} slots do not fill an engine that works on {config.synthesize.in_flight}: the hours are an upper bound")
    best = max(trials, key=lambda trial: trial.rate)
    if len(trials) > 1:
        say(f"--synthesize.contract auto will use [bold]{best.contract}[/bold] in this run")
    (run.folder / PREVIEW).write_json(
        {"contract": best.contract, "model": best.model, "trials": [asdict(trial) for trial in trials]}
    )


def show_replies(run: Run, recipe: Recipe, slots: list[Row], name: str) -> None:
    """Each slot's first prompt, and all its attempts with their verdicts."""
    by_slot: dict[str, list[Row]] = {}
    for row in candidates(run, name):
        by_slot.setdefault(row["example_id"], []).append(row)
    texts = passage_texts(run, {slot["chunk_id"] for slot in slots if slot["chunk_id"]})
    for slot in slots:
        attempts = sorted(by_slot[slot["example_id"]], key=lambda row: int(row["attempt"]))
        prompt = recipe.prompt(slot | {"text": texts.get(slot["chunk_id"])}, attempts[0]["attempt"])
        console.rule(f"{slot['example_id']}  {slot['persona']}  {slot['chunk_id'] or 'no passage'}", align="left")
        for message in prompt.messages():
            console.print(f"[dim]{message['role']}:[/dim] {escape(message['content'])}", soft_wrap=True)
        for row in attempts:
            verdict = f"[red]{row['reason']}[/red]: {escape(row['detail'] or '')}" if row["reason"] else "[green]accepted[/green]"
            console.print(f"[bold]attempt {row['attempt']}[/bold], {row['tokens']} tokens, {verdict}")
            for reply in row["replies"]:
                console.print(f"  {escape(reply)}", soft_wrap=True)


def forecast_row(trial: Trial, slots: int) -> list[str]:
    low, high = wilson(trial.accepted, trial.attempts)
    needed = slots / trial.rate if trial.rate else float("inf")
    hours = needed * trial.tokens / trial.attempts / trial.tokens_per_s / 3600 if trial.tokens_per_s else float("inf")
    expected = {reason: round(count * needed / trial.attempts) for reason, count in trial.rejected.items()} if trial.rate else {}
    return [
        trial.contract,
        f"{trial.attempts}",
        f"{trial.accepted}",
        f"{trial.rate:.0%} ({low:.0%} to {high:.0%})",
        f"{trial.tokens_per_s:.0f}",
        f"{needed:,.0f}",
        f"{hours:,.2f}",
        counts_text(expected, 4),
    ]


# --- deepred synthesize --benchmark --models A,B


def benchmark(
    run: Run, compared: list[tuple[Config, Recipe]], theme: Theme, make_engine: MakeEngine | None, slots: list[Row]
) -> None:
    """Let several models fill the same slots, and say which does it how fast and how well."""
    trials = []
    for number, (config, recipe) in enumerate(compared):
        say(f"{recipe.model.rsplit('/', 1)[-1]}, {recipe.contract} replies: {len(slots)} slots")
        name = f"model-{number}"
        engine = replace(engine_settings(config), timed=True)
        trial = run_trial(run, recipe, engine, make_engine or engine_maker(config), slots, name)
        if config.synthesize.judge_model:
            folder = trial_folder(run, name)
            judging.judge(run, config, theme, folder, folder / "todo", make_engine)
            trial = replace(trial, quality=judging.mean_score(folder, judging.judge_model(config)))
        trials.append(trial)
    columns = ["model", "contract", "tokens/s", "first token", "start", "yield (95 %)", "accepted/min", "judged", "rejected"]
    table(f"{len(slots)} slots each", columns, [benchmark_row(trial) for trial in trials])
    file = run.folder / BENCHMARK
    file.write_json([asdict(trial) | {"yield": trial.rate, "tokens_per_s": trial.tokens_per_s} for trial in trials])
    say(f"in {file.path}")


def benchmark_row(trial: Trial) -> list[str]:
    low, high = wilson(trial.accepted, trial.attempts)
    return [
        trial.model.rsplit("/", 1)[-1],
        trial.contract,
        f"{trial.tokens_per_s:.0f}",
        "unknown" if trial.first_token_s is None else f"{trial.first_token_s:.2f} s",
        f"{trial.start_s:.0f} s",
        f"{trial.rate:.0%} ({low:.0%} to {high:.0%})",
        f"{60 * trial.accepted / trial.seconds:.1f}" if trial.seconds else "unknown",
        "not asked" if trial.quality is None else f"{trial.quality:.2f}",
        counts_text(trial.rejected, 3),
    ]
