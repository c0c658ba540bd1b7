"""Looking into a run folder: what its tables hold, and what of each stage is done.

Tables are read file by file, and only in the columns that are asked for: a run may be larger than memory, and may be
looked at while it is written.
"""

import contextlib
import json
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from deepred_ray import console
from deepred_ray.errors import InputError
from deepred_ray.runs import STAGES, Manifest, Run, lease_alive
from deepred_ray.schema import TABLES
from deepred_ray.storage import Folder

# Columns whose values are counted, and what a null in one of them stands for.
COUNTED = {
    "chunks": ("reason",),
    "slots": ("component", "persona"),
    "candidates": ("reason",),
    "examples": ("split", "component", "persona"),
    "tokens": ("split",),
    "responses": ("system", "reason"),
}
NULL_MEANS = {"chunks": "kept", "candidates": "accepted"}
SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
SHOWN_CHARS = 700
SHOWN_ITEMS = 16
COUNTS_SHOWN = 12
BATCH_ROWS = 1024
# Kept for all of 70,000 files, their footers alone would fill gigabytes.
SPARING = {"cache_metadata": False}


@dataclass(frozen=True)
class Table:
    """The Parquet files of one table of a run; at least one."""

    name: str
    files: tuple[Folder, ...]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        filesystem = self.files[0].filesystem
        return sum(int(info.size) for info in filesystem.get_file_info([file.path for file in self.files]))

    @property
    def counted(self) -> tuple[str, ...]:
        return ("reason",) if self.name.startswith("rejects/") else COUNTED.get(self.name, ())

    @contextlib.contextmanager
    def dataset(self) -> Iterator[ds.Dataset]:
        """Raises InputError if a file is broken, or vanished while it was read."""
        try:
            yield ds.dataset([file.path for file in self.files], filesystem=self.files[0].filesystem, format="parquet")
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"table {self.name} cannot be read: {error}", "If the run is being written, ask again in a moment."
            ) from error

    def rows(self) -> int:
        with self.dataset() as dataset:
            return int(dataset.count_rows(**SPARING))

    def schema(self) -> pa.Schema:
        with self.dataset() as dataset:
            return dataset.schema

    def head(self, rows: int) -> list[dict[str, Any]]:
        with self.dataset() as dataset:
            head: pa.Table = dataset.head(rows, batch_size=max(rows, 1), **SPARING)
            return list(head.to_pylist(maps_as_pydicts="strict"))

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows in the order of the files, of all columns or of some."""
        with self.dataset() as dataset:
            # One file after the other: a scan of all reads far ahead of whoever takes long over a batch.
            for fragment in dataset.get_fragments():
                yield from fragment.to_batches(dataset.schema, columns=columns, batch_size=BATCH_ROWS, **SPARING)

    def counts(self) -> dict[str, Counter[str]]:
        """Column -> value -> rows, for the columns that are worth counting."""
        counts: dict[str, Counter[str]] = {column: Counter() for column in self.counted}
        for batch in self.batches(list(counts)) if counts else ():
            for column, counter in counts.items():
                for item in pc.value_counts(batch[column]).to_pylist():
                    value = NULL_MEANS.get(self.name, "none") if item["values"] is None else str(item["values"])
                    counter[value] += item["counts"]
        return counts


def tables(run: Run) -> dict[str, Table]:
    """The tables of a run that have files, in the order that data flows."""
    found = {name: run.table(name).files(".parquet") for name in TABLES}
    responses = run.table("evaluation") / "responses.parquet"
    found["responses"] = [responses] if responses.exists() else []
    found |= {f"rejects/{folder.name}": folder.files(".parquet") for folder in run.table("rejects").folders()}
    return {name: Table(name, tuple(files)) for name, files in found.items() if files}


def require(run: Run) -> None:
    """Raises InputError for a run that does not exist; the message names those that do."""
    if run.exists():
        return
    run.folder.require()
    root = Folder(run.folder.filesystem, run.folder.path.rsplit("/", 1)[0])
    names = [folder.name for folder in root.folders() if (folder / "config.json").exists()]
    where = f"Runs there: {', '.join(names)}." if names else "No run is there; --data-root or $GUTENBERG_DATA names the folder."
    raise InputError(f"no run {run.name} in {root.path}", where)


# --- deepred inspect


def show(run: Run, table: str | None, rows: int, export: Path | None, form: str) -> int:
    """Print all tables of a run, or one with `rows` sample rows, or write it to the file `export`; the exit status, 0.

    `form` of the export is `jsonl`, one object a row with the table's columns, or `sharegpt`, for examples only.

    Raises:
        InputError: no such run or table, a table that is broken, an export that is not possible.
    """
    require(run)
    found = tables(run)
    if table is None:
        if export:
            raise InputError("no table is named for the export", f"Tables of {run.name}: {', '.join(found)}.")
        show_all(run, found)
        return 0
    if table not in found:
        raise InputError(f"run {run.name} has no table {table}", f"It has: {', '.join(found) or 'none yet'}.")
    if export:
        written = export_table(found[table], export, form)
        console.console.print(f"{written} rows of {table} in {export}", markup=False, soft_wrap=True)
    else:
        show_table(found[table], rows)
    return 0


def show_all(run: Run, found: dict[str, Table]) -> None:
    if not found:
        console.console.print(f"run {run.name} has no table yet", markup=False)
        return
    lines = []
    for name, table in found.items():
        counts = "\n".join(counts_lines(table.counts()))
        lines.append([name, counts, f"{table.rows():,}", f"{len(table.files):,}", size_text(table.size)])
    console.table(f"run {run.name}", ["table", "counts", "rows", "files", "size"], lines, right=3)


def show_table(table: Table, rows: int) -> None:
    printer = console.console
    files = "1 file" if len(table.files) == 1 else f"{len(table.files):,} files"
    printer.print(f"[bold]{escape(table.name)}[/bold]: {table.rows():,} rows in {files}, {size_text(table.size)}")
    for line in counts_lines(table.counts()):
        printer.print(f"  {line}", soft_wrap=True)
    print_pairs([(column.name, str(column.type)) for column in table.schema()], "columns")
    for number, row in enumerate(table.head(rows) if rows > 0 else [], 1):
        print_pairs([(name, legible(value)) for name, value in row.items()], f"row {number}")


def counts_lines(counts: dict[str, Counter[str]]) -> list[str]:
    texts = {column: console.counts_text(counter, COUNTS_SHOWN) for column, counter in counts.items()}
    return [f"by {column}: {escape(text)}" for column, text in texts.items() if text]


def print_pairs(pairs: Sequence[tuple[str, str]], title: str) -> None:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="cyan")
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(f"  {name}"), Text(value))
    console.console.print(f"\n[bold]{title}[/bold]")
    console.console.print(grid)


def legible(value: Any) -> str:
    """A value for the eye: text flows and is cut, messages are a dialogue, nothing steers the terminal."""
    if value is None:
        return "(none)"
    if isinstance(value, str):
        text = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(value.split()))
        return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} … ({len(value):,} characters)"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {legible(item)}" for key, item in value.items())
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return "\n".join(f"{legible(message['role'])}: {legible(message['content'])}" for message in value)
        rest = f" … ({len(value):,} values)" if len(value) > SHOWN_ITEMS else ""
        return "; ".join(legible(item) for item in value[:SHOWN_ITEMS]) + rest
    return value.isoformat() if isinstance(value, datetime) else str(value)


def size_text(size: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


# --- deepred inspect --export


def export_table(table: Table, target: Path, form: str) -> int:
    """Write a table as JSON lines; the number of rows. The file appears only when it is whole.

    Raises:
        InputError: the form does not fit the table, or the file cannot be written.
    """
    if form == "sharegpt" and table.name != "examples":
        raise InputError(f"table {table.name} holds no conversations", "Use --format jsonl, or export `examples`.")
    target = target.expanduser().resolve()
    if target.exists() and not target.is_file():
        raise InputError(f"{target} is there and is no file", "Give --export the name of a file.")
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    rows = 0
    try:
        with draft.open("w", encoding="utf-8") as file:
            for batch in table.batches():
                for row in batch.to_pylist(maps_as_pydicts="strict"):
                    line = sharegpt(row) if form == "sharegpt" else row
                    file.write(json.dumps(line, ensure_ascii=False, default=iso) + "\n")
                    rows += 1
        draft.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}", "Give --export another file.") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
    return rows


def sharegpt(example: dict[str, Any]) -> dict[str, Any]:
    """An example as a ShareGPT conversation. Raises InputError for a message of another role than the three."""
    conversation = []
    for message in example["messages"]:
        if message["role"] not in SHAREGPT_ROLES:
            raise InputError(f"example {example['example_id']}: ShareGPT has no role {message['role']!r}")
        conversation.append({"from": SHAREGPT_ROLES[message["role"]], "value": message["content"]})
    return {"id": example["example_id"], "conversations": conversation}


def iso(value: Any) -> str:
    """What JSON cannot hold: times only."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no place in JSON")


# --- deepred status


def status(run: Run) -> int:
    """Print what of each stage is done, who writes, and whether it is safe to submit again.

    The exit status is 0 for every run that exists, whole or not: a script that wants to know more reads the manifests.

    Raises:
        InputError: no such run.
    """
    require(run)
    holder = run.lease_holder()
    alive = holder is not None and lease_alive(holder, socket.gethostname())
    manifests = {stage: run.manifest(stage) for stage in STAGES}
    begun = [stage for stage in STAGES if manifests[stage] is None and run.begun(stage) is not None]
    lines = []
    for stage, manifest in manifests.items():
        if manifest:
            changed = [name for name in STAGES if name in manifest.inputs and not is_fresh(manifest, name, manifests[name])]
            state = f"whole, but `{changed[0]}` changed" if changed else "whole"
            lines.append([stage, state, done_text(manifest)])
        elif stage in begun:
            # The one writer of a run works on its stages in order.
            state = "running" if alive and stage == begun[0] else "interrupted"
            lines.append([stage, state, escape(progress(run, stage))])
        else:
            lines.append([stage, "not begun", ""])
    console.table(f"run {run.name}", ["stage", "state", "so far"], lines)
    everything = all(state == "whole" for _, state, _ in lines)
    console.console.print(verdict(holder, alive=alive, everything=everything), markup=False, soft_wrap=True)
    return 0


def is_fresh(manifest: Manifest, name: str, source: Manifest | None) -> bool:
    """Whether the stage was made of what stage `name` holds now."""
    return source is not None and source.fingerprint == manifest.inputs[name]


def done_text(manifest: Manifest) -> str:
    rejected = f", rejected: {escape(console.counts_text(manifest.rejected))}" if manifest.rejected else ""
    counts = f"{manifest.kept:,} of {manifest.rows_in:,} {manifest.unit} kept{rejected}"
    return f"{counts}\n{manifest.finished_at}, {manifest.seconds:,.0f} s"


def progress(run: Run, stage: str) -> str:
    """How far a stage came that is not whole, told from what it has written."""
    found = tables(run)
    rows = {name: table.rows() for name, table in found.items() if name not in ("tokens", "examples")}
    if stage == "acquire":
        return f"{rows.get('books', 0):,} books kept, {rows.get('rejects/acquire', 0):,} rejected"
    if stage == "corpus":
        # One file a book.
        books = len(found["chunks"].files) if "chunks" in found else 0
        books += rows.get("rejects/corpus", 0)
        return f"{rows.get('chunks', 0):,} chunks of {books:,} of {rows.get('books', 0):,} books"
    if stage == "synthesize":
        accepted = accepted_slots(found["candidates"]) if "candidates" in found else 0
        tries = rows.get("candidates", 0)
        return f"{accepted:,} of {rows.get('slots', 0):,} slots have an accepted reply, {tries:,} tries"
    if stage == "train":
        step = last_step(run)
        return "no step is logged" if step is None else f"step {step:,}"
    if stage == "export":
        # A folder each, which appears when its file is whole and verified.
        return f"GGUF: {', '.join(folder.name for folder in run.table('gguf').folders()) or 'none'}"
    return f"{rows.get('responses', 0):,} answers"


def accepted_slots(candidates: Table) -> int:
    """Slots with a candidate that the validators accepted."""
    batches = candidates.batches(["example_id", "reason"])
    accepted = [batch.filter(pc.is_null(batch["reason"]))["example_id"] for batch in batches]
    return int(pc.count_distinct(pa.chunked_array(accepted, pa.string())).as_py())


def last_step(run: Run) -> int | None:
    """The optimizer step of the last whole line of train/metrics.jsonl; None where there is none."""
    file = run.folder / "train" / "metrics.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else None


def verdict(holder: dict[str, Any] | None, *, alive: bool, everything: bool) -> str:
    """Whether it is safe to submit again, in one line or two."""
    safe = f"safe: repeating the command {'skips every stage' if everything else 'goes on from here'}"
    if holder is None:
        return safe
    who = f"process {holder['pid']} on host {holder['host']}"
    if not alive:
        return f"{who} ended without giving the run back; the next command takes it over\n{safe}"
    return f"not now: {who} is writing (last heartbeat {time.time() - float(holder['beat']):.0f} s ago)"
