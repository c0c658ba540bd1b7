"""Stages in the order that data flows, each skipped, extended, resumed or refused by what its run folder says."""

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from deepred_ray import logs, metrics, models, placement, review
from deepred_ray.config import Config
from deepred_ray.console import counts_text, say
from deepred_ray.doctor import free_memory
from deepred_ray.errors import DeepredError, InputError
from deepred_ray.runs import OUTPUTS, STAGES, Manifest, Run, decide, digest, settings_of, versions
from deepred_ray.stages import deploy, modelcard
from deepred_ray.storage import file_sha256
from deepred_ray.theme import Theme

INCREMENTAL = ("acquire", "corpus", "synthesize")  # these add to what they made; the others make it again from new inputs
LEAST_FREE_BYTES = 1 << 30
LEAST_MEMORY_BYTES = 3 << 30  # Ray, an engine and the embedded model


def run_stages(config: Config, stages: Sequence[str], *, fresh: bool) -> list[Manifest]:
    """Bring each of `stages` to where the configuration wants it; their manifests. Ray must be connected.

    Raises:
        StaleRunError, RunBusyError: the run folder cannot be used as asked.
        InputError: a stage before is missing. ModelError: a model that a stage needs is missing.
        DeepredError: the cluster can never hold what a stage asks for.
    """
    theme = Theme.find(config.theme)
    run = Run(config.root, config.run)
    require_room(run)
    with run.lease():
        if fresh:
            run.discard_from(stages[0])
        hashes = theme.hashes()
        # Refuse before the first stage works, not after an hour of it.
        if set(stages) & {"synthesize", "train", "export", "evaluate"}:
            models.require(config.model)
        if "synthesize" in stages and config.synthesize.model and not config.synthesize.endpoint:
            models.require(config.synthesize.model)
        left: list[str] = []
        for stage in stages:
            identity, growth = settings_of(config, stage, hashes)
            manifest = run.manifest(stage)
            state = decide(stage, run.begun(stage), manifest, identity, growth, manifest.inputs if manifest else {})
            if left or state != "skip":
                left.append(stage)
        placement.require(config, left)
        (run.folder / "config.json").write_json(config.model_dump(mode="json"))
        logs.enter(None, run.name)
        for stage in stages:
            metrics.show("deepred_stage_state", metrics.WAITING, stage)
        manifests = [run_stage(run, config, theme, stage) for stage in stages]
        if set(stages) & {"export", "evaluate"}:
            modelcard.run(run, config, theme)
        if "export" in stages:
            deploy.run(run, config, theme)
        return manifests


def run_stage(run: Run, config: Config, theme: Theme, stage: str) -> Manifest:
    logs.enter(stage, run.name)
    identity, growth = settings_of(config, stage, theme.hashes())
    inputs = inputs_of(run, config, stage)
    begun, manifest = run.begun(stage), run.manifest(stage)
    state = decide(stage, begun, manifest, identity, growth, inputs)
    if state == "skip" and manifest:
        say(f"[bold]{stage}[/bold]: whole and fresh, skipped ({manifest.kept} of {manifest.rows_in} {manifest.unit} kept)")
        logs.note("stage skipped", **ledger(manifest))
        metrics.show_whole(manifest)
        return manifest
    words = "extending" if state == "extend" else "going on" if begun else "starting"
    say(f"[bold]{stage}[/bold]: {words}")
    if begun and stage not in INCREMENTAL and begun["inputs"] != inputs:
        for output in OUTPUTS[stage]:
            run.discard(output)
    run.begin(stage, identity, growth, inputs)
    started = time.monotonic()
    with observed(words):
        made = import_module(f"deepred_ray.stages.{stage}").run(run, config, theme)
        manifest = replace(
            made,
            seconds=round(time.monotonic() - started, 1),
            identity=identity,
            growth=growth,
            inputs=inputs,
            versions=versions(),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        run.finish(manifest)
    metrics.show_whole(manifest)
    logs.note("stage finished", **ledger(manifest), seconds=manifest.seconds)
    rejected = f", rejected: {counts_text(manifest.rejected)}" if manifest.rejected else ""
    say(f"[bold]{stage}[/bold]: {manifest.kept} of {manifest.rows_in} {manifest.unit} kept{rejected} ({manifest.seconds:.0f} s)")
    return manifest


@contextlib.contextmanager
def observed(words: str) -> Iterator[None]:
    """Tell of the stage that begins, and of its failure, in metrics and events."""
    logs.note("stage started", how=words)
    metrics.show("deepred_stage_state", metrics.RUNNING)
    try:
        yield
    except BaseException as error:
        metrics.show("deepred_stage_state", metrics.FAILED)
        logs.failure("stage failed", error)
        raise


def ledger(manifest: Manifest) -> dict[str, Any]:
    """The counts of a whole stage, as an event tells them."""
    return {name: getattr(manifest, name) for name in ("unit", "rows_in", "kept", "rejected")}


def inputs_of(run: Run, config: Config, stage: str) -> dict[str, str]:
    """Fingerprints of what a stage reads: the stage before, or the file or folder that stands in for it.

    Raises:
        InputError: it is not there, or not whole.
    """
    if stage == "acquire":
        return {}
    if stage == "synthesize" and config.synthesize.input:
        return {name: fingerprint_file(name) for name in config.synthesize.input}
    if stage == "train" and config.train.dataset:
        return {"dataset": fingerprint_file(config.train.dataset)}
    if stage == "export" and config.export.adapter:
        return {"adapter": fingerprint_file(str(Path(config.export.adapter) / "adapter_model.safetensors"))}
    before = STAGES[STAGES.index(stage) - 1]
    if stage == "evaluate":
        # The base alone can be evaluated; then there is no run to speak of.
        trained = run.manifest("train")
        if trained is None and run.begun("train") is None and run.begun("corpus") is None:
            return {}
        before = "train"
    if stage == "export":
        before = "train"
    manifest = run.manifest(before)
    if manifest is None:
        raise InputError(
            f"run {run.name} has no whole `{before}`, which `{stage}` needs",
            f"Run `deepred {before} --run {run.name}` first, or `deepred run` for all stages.",
        )
    inputs = {before: manifest.fingerprint}
    if stage in ("synthesize", "train") and (by_hand := review.rejected_by_hand(run)):
        inputs["reviews"] = digest(sorted(by_hand))
    return inputs


def fingerprint_file(name: str) -> str:
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"no file {path}")
    return file_sha256(path)


def require_room(run: Run) -> None:
    """Raises DeepredError if the data root does not answer, cannot be written or is nearly full, or memory is short."""
    run.folder.require()
    try:
        run.scratch.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(run.scratch).free
    except OSError as error:
        raise DeepredError(
            f"data root {run.scratch.parent} cannot be written: {error.strerror or error}",
            "Choose another --data-root, or set GUTENBERG_DATA.",
        ) from error
    if free < LEAST_FREE_BYTES:
        raise DeepredError(
            f"data root {run.scratch.parent} has {free / 2**20:.0f} MiB free, a run needs 1 GiB at least",
            "Choose another --data-root.",
        )
    memory = free_memory()
    if memory < LEAST_MEMORY_BYTES:
        raise DeepredError(
            f"{memory / 2**30:.1f} GiB of memory are free, a run needs {LEAST_MEMORY_BYTES / 2**30:.0f}",
            "End other programs, or give the container or WSL2 more.",
        )
