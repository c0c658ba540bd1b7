"""What `deepred run` ends with: the stages, where the time went, base and tuned model side by side, and the paths."""

from collections.abc import Sequence

from rich.markup import escape

from deepred_ray.console import console, counts_text, table
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import RESPONSES
from deepred_ray.stages.asking import BASE, TUNED
from deepred_ray.storage import Folder

QUESTIONS = 3


def show(run: Run, manifests: Sequence[Manifest]) -> None:
    """Print the end of a whole run."""
    whole = sum(manifest.seconds for manifest in manifests) or 1.0
    rows = [
        [
            manifest.stage,
            manifest.unit,
            f"{manifest.rows_in:,}",
            f"{manifest.kept:,}",
            f"{sum(manifest.rejected.values()):,}",
            f"{manifest.seconds:.0f}",
            f"{manifest.seconds / whole:.0%}",
        ]
        for manifest in manifests
    ]
    total = ["", "", "", "", "", f"{whole:.0f}", ""]
    console.print()
    table("Stages", ["stage", "unit", "rows in", "kept", "rejected", "seconds", "share"], [*rows, total], right=5)
    for manifest in manifests:
        if manifest.rejected:
            console.print(f"{manifest.stage} rejected: {counts_text(manifest.rejected, 8)}")
    answers = side_by_side(run)
    if answers:
        console.print()
        table(
            "The same question to both",
            ["question", "base model", "tuned model"],
            [[escape(" ".join(cell.split())) for cell in row] for row in answers],
        )
    console.print()
    for name, path in paths(run, manifests):
        console.print(f"{name:<9} {path}", soft_wrap=True)
    console.print(f"talk with it: deepred chat --run {run.name} --data-root {place_of(run).rsplit('/', 1)[0]}", soft_wrap=True)


def side_by_side(run: Run) -> list[list[str]]:
    """Question, the base model's answer and the tuned model's: the plan's own questions first, where they were asked."""
    file = Folder(run.folder.filesystem, f"{run.folder.path}/evaluation")
    answers: dict[str, dict[str, str]] = {}
    rows = file.read_table(RESPONSES, ["system", "draw", "category", "lead", "prompt", "answer"]).to_pylist()
    first = [row for row in rows if row["draw"] == 0 and not row["lead"]]
    for row in sorted(first, key=lambda row: row["category"] != "plan"):
        answers.setdefault(row["prompt"], {})[row["system"]] = row["answer"]
    both = [[prompt, found[BASE], found[TUNED]] for prompt, found in answers.items() if {BASE, TUNED} <= found.keys()]
    return both[:QUESTIONS]


def paths(run: Run, manifests: Sequence[Manifest]) -> list[tuple[str, str]]:
    ggufs = [file["path"] for manifest in manifests if manifest.stage == "export" for file in manifest.outputs["gguf"].values()]
    places = ["dataset/theme_dataset.jsonl", "adapter", *ggufs, "evaluation/report.html"]
    names = ["dataset", "adapter", *["GGUF"] * len(ggufs), "report"]
    return [(name, f"{place_of(run)}/{place}") for name, place in zip(names, places, strict=True)]


def place_of(run: Run) -> str:
    """The run's folder as a user names it: a path, or a URI."""
    return run.folder.path if run.folder.local else f"{run.root.partition('://')[0]}://{run.folder.path}"
