"""Faults made for real, a small run that goes through every stage, and what came of it, to compare with an undisturbed one."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from scripted import ScriptedEngine, ScriptedMaker

from deepred_ray import cli, models
from deepred_ray.config import Config
from deepred_ray.pipeline import run_stages
from deepred_ray.runs import STAGES, Run
from deepred_ray.schema import BOOKS, CANDIDATES, CHUNKS, EXAMPLES, REJECTS, SLOTS, TOKENS
from deepred_ray.stages import asking, synthesize
from deepred_ray.stages.train import read_metrics
from deepred_ray.storage import rows_table

SLOTS_WANTED = 24
GROWN = "size=3g"  # of a disk with room: a run wants 1 GiB free before it begins
SMALL: dict[str, Any] = {
    "synthesize": {"examples": SLOTS_WANTED, "in_flight": 8},
    "train": {
        "rank": 4, "alpha": 8, "max_tokens": 1024, "batch": 4, "global_batch": 4, "precision": "f32", "checkpoint_steps": 2,
        "epochs": 2, "dropout": 0.0,
    },
    "evaluate": {"prompts": 20, "retests": 0, "texts": 2},
}  # fmt: skip


def write_model(folder: Path) -> Path:
    """A model of random weights with the embedded model's tokenizer, which llama.cpp knows: small enough for every stage."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(models.resolve("smollm2"))
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = tokenizer.eos_token_id
    made = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=end, **shape)
    )
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def scripted_engines(patch: pytest.MonkeyPatch) -> None:
    """Let the scripted engine write examples and answer the evaluation, in this process's runs."""
    patch.setattr(synthesize, "run", partial(synthesize.run, make_engine=ScriptedEngine))
    patch.setattr(asking, "EngineMaker", ScriptedMaker)


class Whole:
    """A run that goes through every stage undisturbed, each when it is asked for; the model of it lies beside it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.run = Run(config.root, config.run)

    def until(self, stage: str) -> Run:
        """The run with all stages up to this one. To be copied, not written."""
        with pytest.MonkeyPatch.context() as patch:
            scripted_engines(patch)
            run_stages(self.config, STAGES[: STAGES.index(stage) + 1], fresh=False)
        return self.run


def some_nightly(values: Sequence[Any], always: Sequence[Any]) -> list[Any]:
    """Parameters of a test, of which only those in `always` are for every change."""
    return [value if value in always else pytest.param(value, marks=pytest.mark.nightly) for value in values]


# --- what came of a run


def outcome(run: Run, stage: str) -> Any:
    """What a stage made, in a form that is the same for every run that lost and doubled nothing."""
    manifest = run.manifest(stage)
    assert manifest is not None
    return OUTCOMES[stage](run) | {"rejected": manifest.rejected, "rows_in": manifest.rows_in}


def once(values: list[Any]) -> list[Any]:
    """The values, sorted; each is there once."""
    twice = [value for value, count in Counter(values).items() if count > 1]
    assert not twice, twice
    return sorted(values)


def acquired(run: Run) -> dict[str, Any]:
    rejects = run.table("rejects/acquire").read_table(REJECTS).to_pylist()
    return {
        "books": once(run.table("books").read_table(BOOKS)["book_id"].to_pylist()),
        "rejects": once([(row["id"], row["reason"]) for row in rejects]),
    }


def chunked(run: Run) -> dict[str, Any]:
    columns = ["chunk_id", "text", "score", "kept", "reason", "twin_of"]
    rows = run.table("chunks").read_table(CHUNKS, columns).to_pylist()
    once([row["chunk_id"] for row in rows])
    return {"chunks": sorted(rows, key=lambda row: row["chunk_id"])}


def filled(run: Run) -> dict[str, Any]:
    slots = run.table("slots").read_table(SLOTS, ["example_id"])["example_id"].to_pylist()
    examples = run.table("examples").read_table(EXAMPLES, ["example_id"])["example_id"].to_pylist()
    assert examples == slots
    attempts = run.table("candidates").read_table(CANDIDATES, ["example_id", "attempt"]).to_pylist()
    once([(row["example_id"], row["attempt"]) for row in attempts])
    manifest = run.manifest("synthesize")
    assert manifest is not None
    assert manifest.rows_in == len(attempts) == manifest.kept + sum(manifest.rejected.values())
    return {"slots": once(slots)}


def trained(run: Run) -> dict[str, Any]:
    rows = run.table("tokens").read_table(TOKENS, ["example_ids"])["example_ids"].to_pylist()
    weights = load_file(str(run.local_copy("adapter") / "adapter_model.safetensors"))
    return {
        "examples": once([name for row in rows for name in row]),
        "steps": once(list(read_metrics(run))),
        "weights": {name: tensor.numpy() for name, tensor in weights.items()},
    }


def exported(run: Run) -> dict[str, Any]:
    manifest = run.manifest("export")
    assert manifest is not None
    made = [file["path"].rsplit("/", 1) for file in manifest.outputs["gguf"].values()]
    files = [run.local_copy("merged") / "model.safetensors", *(run.local_copy(folder) / name for folder, name in made)]
    assert not list(run.scratch.glob(".*.draft"))
    return {"files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}}


def evaluated(run: Run) -> dict[str, Any]:
    rows = pq.read_table(run.local_copy("evaluation") / "responses.parquet").to_pylist()
    once([(row["system"], row["prompt_id"], row["draw"]) for row in rows])
    return {"answers": sorted((row["system"], row["prompt_id"], row["answer"]) for row in rows)}


OUTCOMES: dict[str, Callable[[Run], dict[str, Any]]] = dict(
    zip(STAGES, (acquired, chunked, filled, trained, exported, evaluated), strict=True)
)


def same(run: Run, undisturbed: Run, stage: str) -> bool:
    """Whether the stage made what it makes undisturbed. How often a slot was tried is another each time."""
    ours, theirs = outcome(run, stage), outcome(undisturbed, stage)
    if stage == "synthesize":
        return bool(ours["slots"] == theirs["slots"])
    weights, others = ours.pop("weights", {}), theirs.pop("weights", {})
    return bool(ours == theirs) and all(np.allclose(values, others[name], atol=1e-5) for name, values in weights.items())


def add_books(run: Run, copies: int) -> None:
    """So many copies of each of the run's books, in one shard a book: work that lasts for a while."""
    for book in run.table("books").read_table(BOOKS).to_pylist():
        rows = [book | {"book_id": f"{book['book_id']}-{copy:03d}"} for copy in range(copies)]
        run.table("books").write_table(rows_table(rows, BOOKS), f"copies-{book['book_id']}")


def begin_before(undisturbed: Run, root: Path, stage: str) -> Run:
    """A run in data root `root` that has all stages before this one, as the undisturbed one has."""
    shutil.copytree(undisturbed.folder.path, root / undisturbed.name, symlinks=True)
    run = Run(str(root), undisturbed.name)
    run.discard_from(stage)
    return run


# --- what a user sees


def bring(config: Config, stage: str) -> None:
    run_stages(config, [stage], fresh=False)


def told(config: Config, stage: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command of this stage says in the end, where it must fail."""
    capsys.readouterr()
    with pytest.raises(Exception) as caught:  # noqa: PT011, the message is what is looked at
        bring(config, stage)
    assert cli.report(caught.value, debug=False) == 1
    said = capsys.readouterr().err
    message = said[said.rindex("deepred: ") :]
    assert not message.startswith("deepred: unexpected "), message
    assert "Traceback" not in message, message
    return message


@contextlib.contextmanager
def striking(strike: Callable[[], bool], missed: str) -> Iterator[None]:
    """Call `strike` again and again while the block lasts, until it says that it struck; the block must live to see it."""
    ended = threading.Event()
    struck: list[bool] = []

    def watch() -> None:
        while not struck and not ended.wait(0.002):
            if strike():
                struck.append(True)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert struck, missed


@contextlib.contextmanager
def when_begun(run: Run, stage: str, strike: Callable[[], None]) -> Iterator[None]:
    """Call `strike` once the stage has been begun by the block, before its first row; the block must live to see it."""
    begun = Path(run.folder.path, stage, "begun.json")
    begun.unlink(missing_ok=True)

    def strike_once() -> bool:
        if not begun.exists():
            return False
        strike()
        return True

    with striking(strike_once, f"{stage} was not begun"):
        yield


# --- processes


def workers(named: str) -> list[int]:
    """Process ids of this process's Ray workers with this in their title, which tells what they are at."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if named in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


@contextlib.contextmanager
def killing(named: str, ready: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Kill one worker that is at this, once `ready`; the block must live to see it."""

    def kill() -> bool:
        if not ready() or not (pids := workers(named)):
            return False
        os.kill(pids[0], signal.SIGKILL)
        return True

    with striking(kill, f"no process was at {named}"):
        yield


# --- disks


class Disk:
    """A folder that is a disk of its own: it can be filled, and turned read-only, while a run writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "-o", GROWN, "none", str(folder))
        self.mounts = 1

    def fill(self, left: int) -> None:
        """Leave so many bytes."""
        stat = os.statvfs(self.folder)
        mount("-o", f"remount,size={(stat.f_blocks - stat.f_bfree) * stat.f_frsize + left}", str(self.folder))

    def make_room(self) -> None:
        mount("-o", f"remount,{GROWN}", str(self.folder))

    def forbid(self) -> None:
        """Let nobody open a file to write from now on, as a file server does that fears for its disk."""
        mount("--bind", str(self.folder), str(self.folder))
        self.mounts += 1
        mount("-o", "remount,bind,ro", str(self.folder))

    def permit(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
        self.mounts -= 1

    def remove(self) -> None:
        while self.mounts:
            self.permit()


def mount(*words: str) -> None:
    """Where nothing can be mounted these tests prove nothing, and say so: in CI as a failure."""
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"these tests want root and leave to mount a tmpfs: {done.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
