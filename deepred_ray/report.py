"""The evaluation report: all figures as one dict (`report.json`) and the page that shows them (`report.html`)."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from deepred_ray.text.judging import KINDS
from deepred_ray.text.metrics import (
    TARGETS,
    PerplexityComparison,
    Rate,
    Row,
    perplexity_verdict,
    rate_verdict,
    summarise,
)

_SLOT = "@@REPORT@@"


def build_report(
    *,
    run: str,
    models: Mapping[str, str],
    responses: Sequence[Row],
    perplexity: PerplexityComparison | None = None,
    loss: Sequence[Mapping[str, Any]] = (),
    stages: Sequence[Mapping[str, Any]] = (),
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Gather everything that is reported about a run; plain values only, ready for JSON.

    `models`: system -> model name or path, in the order of display; the LAST system is judged against the targets.
    `responses`: the judged answers of all systems. `perplexity`: last system against base on held-out texts, None if
    not measured. `loss`: points {step, loss, val_loss?}, nats per token; val_loss may be missing or None.
    `stages`: {stage, rows_in, kept, rejected, seconds} in order of the flow. `versions`: package -> version.

    Raises ValueError if there are no systems or answers, a system is not in `models` or has no answer, or one
    answered a prompt twice.
    """
    rows = _by_system(models, responses)
    judged = list(models)[-1]
    metrics = {system: summarise(rows[system]) for system in models}
    kinds = metrics[judged]["kinds"]
    verdicts = [rate_verdict(kind, Rate(**kinds[kind]) if kind in kinds else None, TARGETS[kind]) for kind in KINDS]
    verdicts.append(perplexity_verdict("perplexity", perplexity))
    return {
        "run": run,
        "models": dict(models),
        "judged": judged,
        "targets": dict(TARGETS),
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "metrics": metrics,
        "perplexity": asdict(perplexity) if perplexity else None,
        "loss": [dict(point) for point in loss],
        "stages": [dict(stage) for stage in stages],
        "versions": dict(versions or {}),
        "cases": _cases(models, responses),
    }


def _by_system(models: Mapping[str, str], responses: Sequence[Row]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for row in responses:
        key = (row["system"], row["prompt_id"])
        if key in seen:
            raise ValueError(f"system {key[0]!r} answered prompt {key[1]!r} twice")
        seen.add(key)
        rows[row["system"]].append(row)
    if not models or set(rows) != set(models):
        raise ValueError(f"answers of {sorted(rows)}, but models {sorted(models)}: every system needs both")
    return rows


def _cases(models: Mapping[str, str], responses: Sequence[Row]) -> list[dict[str, Any]]:
    """The prompts with all answers to each, worst first: lost against another system, then failed, then passed."""
    systems = list(models)
    cases: dict[str, dict[str, Any]] = {}
    for row in responses:
        asked = {"id": row["prompt_id"], "kind": row["kind"], "category": row["category"], "prompt": row["prompt"]}
        case = cases.setdefault(row["prompt_id"], {**asked, "answers": {}})
        case["answers"][row["system"]] = {key: row[key] for key in ("answer", "ok", "reason", "finish_reason")}

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
