"""model card: what the adapter is, of what, how well, and whence. Written anew after each export and each evaluation.

INPUT   manifests of the run, train/metrics.jsonl, evaluation/report.json if there is one
OUTPUT  adapter/README.md and merged/README.md
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepred_ray import models
from deepred_ray.config import Config
from deepred_ray.runs import STAGES, Manifest, Run
from deepred_ray.stages.datacard import md_table
from deepred_ray.stages.train import read_metrics
from deepred_ray.stages.verify import perplexity_change
from deepred_ray.theme import Theme

EMBEDDED_SOURCE = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_LICENCE = "apache-2.0"  # of its authors' model card
TRAIN_SETTINGS = (
    "rank",
    "alpha",
    "dropout",
    "learning_rate",
    "warmup",
    "weight_decay",
    "epochs",
    "global_batch",
    "max_tokens",
    "seed",
)


def run(run: Run, config: Config, theme: Theme) -> None:
    """Write the card wherever a model of the run lies."""
    manifests = {stage: made for stage in STAGES if (made := run.manifest(stage))}
    if "train" not in manifests:
        return  # an adapter from elsewhere has a card of its own
    report = run.folder / "evaluation" / "report.json"
    evaluation = report.read_json() if report.exists() and "evaluate" in manifests else None
    losses = [(step, row["loss"], row.get("val_loss")) for step, row in read_metrics(run).items()]
    text = card(run.name, config, theme, manifests, losses, evaluation, licence(config.model))
    for name in ("adapter", "merged"):
        if (run.folder / name).exists():
            (run.folder / name / "README.md").write_bytes(text.encode())


def licence(model: str) -> str | None:
    """The licence in the header of the base's own card, in its folder or the Hugging Face cache; None if none is told there."""
    if model == models.EMBEDDED:
        return EMBEDDED_LICENCE
    from huggingface_hub import metadata_load, try_to_load_from_cache

    folder = Path(model).expanduser()
    readme: Any = folder / "README.md" if folder.is_dir() else try_to_load_from_cache(model, "README.md")
    # The cache also tells, by an object of its own, that it knows of no such file.
    header = metadata_load(readme) if isinstance(readme, str | Path) and Path(readme).is_file() else None
    told = (header or {}).get("license")
    return str(told) if told else None


def card(
    name: str,
    config: Config,
    theme: Theme,
    manifests: Mapping[str, Manifest],
    losses: Sequence[tuple[int, float, float | None]],
    evaluation: Mapping[str, Any] | None,
    licence: str | None,
) -> str:
    """The card in Markdown, with the header that model hubs read. `losses`: step, training loss and, where it was measured,
    validation loss, in nats a token."""
    title, train = theme.title, manifests["train"]
    settings = config.train.model_dump()
    base = EMBEDDED_SOURCE if config.model == models.EMBEDDED else config.model
    header = ["---", "library_name: peft", f"base_model: {base}"]
    header += [f"license: {licence}"] if licence else []
    header += ["language: [en]", "pipeline_tag: text-generation", "tags: [lora, persona, deepred_ray]", "---"]
    parts = [
        "\n".join(header),
        f"# {title}: LoRA adapter of run `{name}`",
        f"`{base}`, tuned to speak as {title}, who knows nothing of {theme.cutoff_year} or later. "
        + (f"The base's licence is {licence}." if licence else "The base's folder tells no licence: see where it is from."),
        f"""## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "adapter")
```

It was tuned with a system prompt, and is to be asked with one, such as:

> {theme.system}""",
        "## Training\n\n"
        + f"{data_line(manifests)} {train.outputs['trained_tokens']:,} of their tokens count (the assistant's words and "
        + f"the end of its turn), {train.outputs['steps']} optimizer steps.\n\n"
        + md_table(["setting", "value"], [(key, settings[key]) for key in TRAIN_SETTINGS]),
        "## Loss, nats a token\n\n" + md_table(["step", "training", "validation"], loss_rows(losses)),
    ]
    if export := manifests.get("export"):
        parts.append("## GGUF files\n\n" + gguf_lines(export))
    if evaluation:
        parts.append("## Evaluation\n\n" + evaluation_lines(evaluation))
    parts.append("## Lineage\n\n" + md_table(["stage", "rows in", "kept", "rejected", "fingerprint"], lineage(manifests.values())))
    versions = ", ".join(f"{package} {version}" for package, version in sorted(train.versions.items()))
    parts.append(f"Made by deepred_ray with {versions}.")
    return "\n\n".join(parts) + "\n"


def data_line(manifests: Mapping[str, Manifest]) -> str:
    made = manifests.get("synthesize")
    kept = manifests["train"].kept
    return f"{kept} conversations, machine-made ({made.outputs['model']}) from old books." if made else f"{kept} conversations."


def loss_rows(losses: Sequence[tuple[int, float, float | None]]) -> list[tuple[Any, ...]]:
    """The first step, each with a validation loss, and the last."""
    shown = [row for place, row in enumerate(losses) if place in (0, len(losses) - 1) or row[2] is not None]
    return [(step, f"{loss:.3f}", "" if val is None else f"{val:.3f}") for step, loss, val in shown]


def gguf_lines(export: Manifest) -> str:
    rows = [
        (
            name,
            f"{file['bytes'] / 2**20:.0f} MiB",
            f"{file['top1_agreement']:.1%} of {file['tokens']}",
            f"{file['token_ids_equal']} of {file['texts']}",
            f"{file['perplexity']:.2f} ({perplexity_change(file):+.1%})",
        )
        for name, file in export.outputs["gguf"].items()
    ]
    difference = export.outputs["merge"]["largest_logit_difference"]
    return (
        md_table(
            [
                "quantization",
                "size",
                "llama.cpp's next token is transformers'",
                "texts with the same token ids",
                "perplexity (against the merged model's)",
            ],
            rows,
        )
        + f"\n\nLogits of merged model and adapter differ by {difference:.4f} at most."
    )


def evaluation_lines(report: Mapping[str, Any]) -> str:
    rows = [(verdict["target"], verdict["status"], verdict["note"]) for verdict in report["verdicts"]]
    return md_table(["target", "verdict", "measured"], rows)


def lineage(manifests: Iterable[Manifest]) -> list[tuple[Any, ...]]:
    return [(made.stage, made.rows_in, made.kept, sum(made.rejected.values()), made.fingerprint[:12]) for made in manifests]
