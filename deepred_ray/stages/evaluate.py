"""evaluate: base and tuned model answer the theme's prompts; judged, compared, and put on a page.

INPUT   the base model, adapter/, tokens/ of the held-out works, examples/ and chunks/ for the classifier of style
OUTPUT  evaluation/responses.parquet, report.json, report.html
fan-out prompt 1:n answers: base, base with the system prompt, tuned with the system prompt, others
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepred_ray import models
from deepred_ray.chat import newest_gguf
from deepred_ray.config import Config
from deepred_ray.console import say
from deepred_ray.errors import InputError
from deepred_ray.report import build_report, render_html
from deepred_ray.runs import STAGES, Manifest, Run, versions
from deepred_ray.schema import CHUNKS, EXAMPLES, RESPONSES
from deepred_ray.stages import asking, fluency, scoring, tokens
from deepred_ray.stages.tables import Row
from deepred_ray.stages.train import read_metrics
from deepred_ray.storage import rows_table
from deepred_ray.text.classifier import PERSONA_FROM, StyleClassifier
from deepred_ray.text.items import Item, stratified
from deepred_ray.text.judging import Judgement, judge_persona, judge_style, judge_temporal, repeated_answers
from deepred_ray.text.prose import fluency_fault
from deepred_ray.text.style import Reference
from deepred_ray.text.validating import Overlap
from deepred_ray.theme import Theme

SEED = 1969
BOOK_PIECES = 250
"""Of the run's books that the classifier of style learns from, beside the theme's own texts."""


def run(run: Run, config: Config, theme: Theme) -> Manifest:
    """Ask every system every chosen prompt, greedily, and the persona's again.

    Raises:
        InputError: more prompts are asked for than the theme has.
        ModelError: a model is missing, or cannot be served.
    """
    settings = config.evaluate
    trained = run.manifest("train") is not None
    adapter = str(run.local_copy("adapter")) if trained else None
    gguf = newest_gguf(run) if settings.gguf else None
    base = models.resolve(config.model) if adapter or not settings.others else config.model
    systems = asking.systems(config, base, adapter, gguf)
    chosen = choose(theme.evaluation, settings.prompts)
    trained_on = training_texts(run, config, theme) if trained else []
    seen = contaminated(chosen, trained_on)
    if seen:
        say(f"  {len(seen)} prompts stand in the training data and are left out: {', '.join(sorted(seen))}")
    items = [item for item in chosen if item.id not in seen]
    asked = asking.plan(systems, items, settings.retests, SEED)
    answers, speeds = asking.ask(run, config, systems, items, theme.system, asked)
    for model, speed in speeds.items():
        say(f"  {Path(model).name}: {speed:.0f} output tokens/s")
    classifier = StyleClassifier(style_sources(run, theme), theme.style)
    responses = judged(list(answers.values()), items, [system.name for system in systems], theme, classifier)
    if settings.judge_model:
        scoring.add_scores(responses, config, theme)
    measured = None
    if adapter and settings.texts:
        measured = fluency.measure(run, theme, base, adapter, settings.texts, SEED, settings.resources)
    report = build_report(
        run=run.name,
        models={system.name: system.label for system in systems},
        responses=responses,
        perplexities={
            "perplexity": measured.held_out if measured else None,
            "prose perplexity": measured.prose if measured else None,
        },
        classifier={"texts": classifier.sizes, **classifier.accuracy.as_dict()},
        contaminated=sorted(seen),
        loss=[{key: row.get(key) for key in ("step", "loss", "val_loss")} for row in read_metrics(run).values()] if trained else [],
        lineage=lineage(run),
        versions=versions(),
    )
    with run.artefact("evaluation") as folder:
        pq.write_table(rows_table(responses, RESPONSES), folder / "responses.parquet")
        (folder / "report.html").write_text(render_html(report), "utf-8")
        (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), "utf-8")
    run.discard("answers")
    for verdict in report["verdicts"]:
        say(f"  {verdict['target']}: {verdict['status']} ({verdict['note']})")
    return Manifest(
        "evaluate",
        "prompts",
        len(chosen),
        len(items),
        {"in_training_data": len(seen)} if seen else {},
        0.0,
        outputs={
            "verdicts": {verdict["target"]: verdict["status"] for verdict in report["verdicts"]},
            "answers": len(responses),
            "tokens_per_s": speeds,
            "perplexity": asdict(measured.held_out) if measured and measured.held_out else None,
        },
    )


def choose(items: Sequence[Item], count: int | None) -> list[Item]:
    """All prompts, or a stratified choice. Raises InputError if there are not so many."""
    if count is None:
        return list(items)
    if count > len(items):
        raise InputError(f"evaluate.prompts is {count}, the theme has {len(items)}")
    return stratified(items, count, SEED)


def lineage(run: Run) -> list[dict[str, Any]]:
    """What each whole stage did, and the fingerprint of what it made of what."""
    return [
        {
            "stage": made.stage,
            "unit": made.unit,
            "rows_in": made.rows_in,
            "kept": made.kept,
            "rejected": made.rejected,
            "seconds": made.seconds,
            "finished_at": made.finished_at,
            "fingerprint": made.fingerprint,
            "inputs": made.inputs,
        }
        for made in (run.manifest(stage) for stage in STAGES)
        if made
    ]


# --- what the model was trained on


def training_texts(run: Run, config: Config, theme: Theme) -> list[Row]:
    """Conversations (`messages`) of the training split, and the theme's exemplars where they were trained on."""
    if config.train.dataset:
        rows = [row for row in tokens.read_chatml(Path(config.train.dataset).expanduser()) if row["split"] == "train"]
    else:
        table = run.table("examples").read_table(EXAMPLES, ["split", "messages"])
        rows = table.filter(pc.equal(table["split"], "train")).to_pylist()
    return rows + (tokens.exemplars(theme, 1).to_pylist() if config.train.exemplars else [])


def contaminated(items: Sequence[Item], trained_on: Sequence[Row]) -> set[str]:
    """Ids of prompts (all their turns) of which a run of twelve words, or the whole of a shorter one, stands in the training
    data."""
    overlap = Overlap(" ".join(item.turns) for item in items)
    said = [message["content"] for row in trained_on for message in row["messages"] if message["role"] != "system"]
    return {items[number].id for text in said for number in overlap.among(text)}


def style_sources(run: Run, theme: Theme) -> dict[str, list[str]]:
    """Texts that the classifier learns from, by source: the theme's own, and pieces of the run's books. What the model was trained
    on is left out: it is to be told from neutral text by the persona's style, not by the manner of its teacher."""
    books: list[str] = []
    if run.table("chunks").files(".parquet"):
        chunks = run.table("chunks").read_table(CHUNKS, ["chunk_id", "text"]).sort_by("chunk_id")["text"].to_pylist()
        books = chunks[:: -(-len(chunks) // BOOK_PIECES)]
    sources = {
        "persona": [*theme.reference("persona"), *(shot.answer for shot in theme.phrasebook.voice)],
        "neutral, modern": list(theme.reference("neutral")),
        "neutral, old prose": list(theme.reference("prose")),
        "neutral, the run's books": books,
    }
    return {name: texts for name, texts in sources.items() if texts}


# --- verdicts


def judged(
    answers: Sequence[Row], items: Sequence[Item], systems: Sequence[str], theme: Theme, classifier: StyleClassifier
) -> list[Any]:
    """Rows of RESPONSES in the order of systems, draws and prompts, each with the verdict of its prompt's kind."""
    by_id = {item.id: item for item in items}
    reference = Reference(theme.reference("neutral"), theme.style)
    texts = [row["answer"] for row in answers]
    order = {system: place for place, system in enumerate(systems)}
    rows = []
    for row, persona in zip(answers, classifier.probabilities(texts), strict=True):
        if row["system"] not in order or row["prompt_id"] not in by_id:
            continue  # of an earlier call that asked for more
        item = by_id[row["prompt_id"]]
        shown = reference.shown(row["answer"])
        verdict = judge(row["answer"], item, theme, shown, persona >= PERSONA_FROM)
        rows.append(
            row
            | {
                "category": item.category,
                "kind": item.kind,
                "lead": list(item.lead),
                "prompt": item.prompt,
                "ok": verdict.ok,
                "reason": verdict.reason,
                "fault": fluency_fault(row["answer"], row["finish_reason"] == "length"),
                "shown": shown,
                "persona": persona,
                "score": None,
            }
        )
    for place in repeated_answers([(row["system"], row["draw"], row["answer"]) for row in rows]):
        if rows[place]["kind"] == "style" and rows[place]["ok"]:
            rows[place] |= {"ok": False, "reason": "same_answer"}
    return sorted(rows, key=lambda row: (order[row["system"]], row["draw"], row["prompt_id"]))


def judge(answer: str, item: Item, theme: Theme, shown: Sequence[str], persona: bool) -> Judgement:
    if item.kind == "style":
        return judge_style(answer, item, theme.style, theme.keywords_in(answer), shown, persona)
    if item.kind == "temporal":
        return judge_temporal(answer, item, [answer[hit.start : hit.end] for hit in theme.era.hits(answer)])
    return judge_persona(answer, item, theme.style)
