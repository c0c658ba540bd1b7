"""The evaluation report: all figures as one dict (`report.json`) and the page that shows them (`report.html`)."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from deepred_ray.text.items import KINDS
from deepred_ray.text.metrics import (
    MOST_PERPLEXITY,
    TARGETS,
    PerplexityComparison,
    Rate,
    Row,
    paired,
    perplexity_verdict,
    rate_verdict,
    summarise,
)

_SLOT = "@@REPORT@@"
SHOWN = ("answer", "ok", "reason", "finish_reason", "fault", "shown", "persona", "score")


def build_report(
    *,
    run: str,
    models: Mapping[str, str],
    responses: Sequence[Row],
    perplexities: Mapping[str, PerplexityComparison | None] | None = None,
    classifier: Mapping[str, Any] | None = None,
    contaminated: Sequence[str] = (),
    loss: Sequence[Mapping[str, Any]] = (),
    lineage: Sequence[Mapping[str, Any]] = (),
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Gather everything that is reported about a run; plain values only, ready for JSON.

    `models`: system -> what it is, in the order of display; the LAST system is judged against the targets. `responses`: the judged
    answers of all systems. `perplexities`: by name of `MOST_PERPLEXITY`, last system against base, None if not measured.
    `classifier`: `texts` by source, and its held-out accuracy, `overall` and by source. `contaminated`: ids of prompts left out,
    since they stand in the training data. `loss`: points {step, loss, val_loss?}, nats per token; val_loss may be missing or None.
    `lineage`: {stage, unit, rows_in, kept, rejected by reason, seconds, finished_at, fingerprint, inputs} in order of the flow.
    `versions`: package -> version.

    Of the result, `verdicts` are {target, status, note}, `metrics` is `summarise` of each system, `comparisons` are {first, second,
    kind, ...} with the figures of `Paired`: every other system against the judged one, on greedy answers. `cases` are the prompts,
    worst first: {id, kind, category, lead, prompt, answers: system -> {answer, ok, reason, finish_reason, fault, shown, persona,
    score, retests: [{answer, ok, reason}]}}.

    Raises ValueError if there are no systems or answers, a system is not in `models` or has no answer, or one answered a prompt
    twice.
    """
    rows = _by_system(models, responses)
    judged = list(models)[-1]
    measured = perplexities or {}
    metrics = {system: summarise(rows[system]) for system in models}
    kinds = metrics[judged]["kinds"]
    verdicts = [rate_verdict(kind, Rate(**kinds[kind]) if kind in kinds else None, TARGETS[kind]) for kind in TARGETS]
    verdicts += [perplexity_verdict(name, measured.get(name), most) for name, most in MOST_PERPLEXITY.items()]
    return {
        "run": run,
        "models": dict(models),
        "judged": judged,
        "targets": dict(TARGETS),
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "metrics": metrics,
        "comparisons": _comparisons(rows, judged),
        "perplexities": {name: asdict(each) for name, each in measured.items() if each},
        "classifier": dict(classifier or {}),
        "contaminated": list(contaminated),
        "loss": [dict(point) for point in loss],
        "lineage": [dict(stage) for stage in lineage],
        "versions": dict(versions or {}),
        "cases": _cases(models, responses),
    }


def _comparisons(rows: Mapping[str, Sequence[Row]], judged: str) -> list[dict[str, Any]]:
    """Each other system against the judged one, kind by kind."""

    def verdicts(system: str, kind: str) -> dict[str, bool]:
        return {
            row["prompt_id"]: row["fault"] is None if kind == "fluency" else row["ok"]
            for row in rows[system]
            if row["draw"] == 0 and kind in (row["kind"], "fluency")
        }

    found = []
    for system in rows:
        for kind in (*KINDS, "fluency"):
            first, second = verdicts(system, kind), verdicts(judged, kind)
            both = sorted(first.keys() & second.keys())
            if system != judged and both:
                figures = paired([first[name] for name in both], [second[name] for name in both])
                found.append({"first": system, "second": judged, "kind": kind, **asdict(figures)})
    return found


def _by_system(models: Mapping[str, str], responses: Sequence[Row]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    seen: set[tuple[str, str, int]] = set()
    for row in responses:
        key = (row["system"], row["prompt_id"], row["draw"])
        if key in seen:
            raise ValueError(f"system {key[0]!r} answered prompt {key[1]!r} twice")
        seen.add(key)
        rows[row["system"]].append(row)
    if not models or set(rows) != set(models):
        raise ValueError(f"answers of {sorted(rows)}, but models {sorted(models)}: every system needs both")
    return {system: rows[system] for system in models}


def _cases(models: Mapping[str, str], responses: Sequence[Row]) -> list[dict[str, Any]]:
    """The prompts with all answers to each, worst first: lost against another system, then failed, then passed."""
    systems = list(models)
    cases: dict[str, dict[str, Any]] = {}
    for row in sorted(responses, key=lambda row: row["draw"]):
        asked = {"id": row["prompt_id"], "kind": row["kind"], "category": row["category"], "lead": row["lead"]}
        case = cases.setdefault(row["prompt_id"], {**asked, "prompt": row["prompt"], "answers": {}})
        if row["draw"] == 0:
            case["answers"][row["system"]] = {**{key: value for key, value in row.items() if key in SHOWN}, "retests": []}
        else:
            again = {"answer": row["answer"], "ok": row["ok"], "reason": row["reason"]}
            case["answers"][row["system"]]["retests"].append(again)

    def rank(case: dict[str, Any]) -> tuple[int, str]:
        answers = case["answers"]
        if answers.get(systems[-1], {"ok": False})["ok"]:
            return 2, case["id"]
        return (0 if any(answers[system]["ok"] for system in systems if system in answers) else 1), case["id"]

    return sorted(cases.values(), key=rank)


def render_html(report: Mapping[str, Any]) -> str:
    """The report as one self-contained page that asks nothing of the network.

    The figures go in as a JSON block in which nothing can end the script element. Raises ValueError for a figure that
    is not finite, which JSON cannot hold.
    """
    block = json.dumps(report, ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        block = block.replace(character, f"\\u{ord(character):04x}")
    template = resources.files("deepred_ray").joinpath("data/report.html").read_text(encoding="utf-8")
    return template.replace(_SLOT, block)
