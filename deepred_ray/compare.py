"""Two runs side by side: what they were made with, and how their judged systems answered the same prompts."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from deepred_ray.console import console, table
from deepred_ray.errors import InputError
from deepred_ray.runs import Run
from deepred_ray.text.items import KINDS
from deepred_ray.text.metrics import paired

Report = dict[str, Any]


def show(first: Run, second: Run, *, as_json: bool) -> int:
    """Print the comparison; the exit status, 0. Raises InputError for a run that was not evaluated."""
    found = compare(read_report(first), read_report(second), read_settings(first), read_settings(second))
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    one, two = found["runs"]
    if settings := [[row["setting"], *map(shown, row["values"])] for row in found["settings"]]:
        table("Settings that differ", ["setting", one, two], settings)
    table(
        "Answers",
        ["kind", one, two, "common prompts", f"only {one}", f"only {two}", "difference, points", "p"],
        [
            [
                row["kind"],
                *(f"{each['rate']:.1%} of {each['n']}" if each else "-" for each in row["rates"]),
                *paired_cells(row["paired"]),
            ]
            for row in found["kinds"]
        ],
        right=7,
    )
    if found["perplexities"]:
        table(
            "Perplexity, base and tuned",
            ["texts", one, two],
            [[row["name"], *map(perplexity_cell, row["values"])] for row in found["perplexities"]],
            right=2,
        )
    table("Targets", ["target", one, two], [[row["target"], *row["statuses"]] for row in found["verdicts"]])
    if found["other_theme"]:
        console.print("The two asked other prompts in part: only common ones are paired.")
    return 0


def compare(first: Report, second: Report, settings_one: Mapping[str, Any], settings_two: Mapping[str, Any]) -> dict[str, Any]:
    """All that `show` prints. Verdicts are paired over the greedy answers to prompts that both were asked."""
    prompts = [{case["id"]: case for case in report["cases"]} for report in (first, second)]
    common = [name for name, case in prompts[0].items() if name in prompts[1] and prompts[1][name]["prompt"] == case["prompt"]]
    kinds = []
    for kind in (*KINDS, "fluency"):
        asked = [name for name in common if kind in (prompts[0][name]["kind"], "fluency")]
        verdicts = [
            [passed(report, cases[name], kind) for name in asked] for report, cases in zip((first, second), prompts, strict=True)
        ]
        rates = [report["metrics"][report["judged"]]["kinds"].get(kind) for report in (first, second)]
        if any(rates):
            kinds.append({"kind": kind, "rates": rates, "paired": asdict(paired(*verdicts)) if asked else None})
    names = list(dict.fromkeys([*first["perplexities"], *second["perplexities"]]))
    statuses = [{verdict["target"]: verdict["status"] for verdict in report["verdicts"]} for report in (first, second)]
    return {
        "runs": [first["run"], second["run"]],
        "judged": [report["models"][report["judged"]] for report in (first, second)],
        "settings": [
            {"setting": name, "values": [settings_one.get(name), settings_two.get(name)]}
            for name in sorted(settings_one.keys() | settings_two.keys())
            if settings_one.get(name) != settings_two.get(name)
        ],
        "kinds": kinds,
        "perplexities": [
            {"name": name, "values": [report["perplexities"].get(name) for report in (first, second)]} for name in names
        ],
        "verdicts": [
            {"target": name, "statuses": [found.get(name, "-") for found in statuses]}
            for name in dict.fromkeys([*statuses[0], *statuses[1]])
        ],
        "common_prompts": len(common),
        "other_theme": len(common) < max(map(len, prompts)),
    }


def passed(report: Report, case: Mapping[str, Any], kind: str) -> bool:
    answer = case["answers"][report["judged"]]
    return answer["fault"] is None if kind == "fluency" else bool(answer["ok"])


def read_report(run: Run) -> Report:
    file = run.folder / "evaluation" / "report.json"
    if not file.exists():
        raise InputError(f"run {run.name} was not evaluated", f"Run `deepred evaluate --run {run.name}` first.")
    report: Report = file.read_json()
    if "comparisons" not in report:
        raise InputError(f"run {run.name} was evaluated by an older version", "Evaluate it again with --fresh.")
    return report


def read_settings(run: Run) -> dict[str, Any]:
    """Settings by dotted name, without where and under which name the run lies."""
    config = (run.folder / "config.json").read_json()
    flat = {
        f"{name}.{key}" if isinstance(section, dict) else name: value
        for name, section in config.items()
        for key, value in (section.items() if isinstance(section, dict) else [("", section)])
    }
    return {name: value for name, value in flat.items() if name not in ("run", "data_root")}


def shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def paired_cells(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return ["0", "-", "-", "-", "-"]
    interval = f"{100 * found['difference']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"
    return [str(found["n"]), str(found["only_first"]), str(found["only_second"]), interval, f"{found['p']:.3f}"]


def perplexity_cell(found: Mapping[str, Any] | None) -> str:
    return f"{found['base']:.2f}, {found['tuned']:.2f}" if found else "-"
