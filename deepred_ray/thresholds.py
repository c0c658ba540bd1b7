"""deepred thresholds: what each threshold would keep of a run's chunks, so that one can be chosen by figures.

The plan's range mode (for each n, the chunks with exactly n keyword matches) and the same question for the score. Chunks
are read shard by shard and only counted: memory grows with books and with distinct values, not with chunks.
"""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepred_ray import console
from deepred_ray.errors import ConfigError, InputError
from deepred_ray.inspection import require
from deepred_ray.runs import Run
from deepred_ray.schema import CHUNKS
from deepred_ray.storage import Folder, count_values

# No threshold brings these back, so they are not counted.
LEFT_OUT = ("too_short", "twin")
COUNTED = pa.schema([CHUNKS.field(name) for name in ("book_id", "themes", "total", "score", "reason")])
SHARES = range(90, 0, -10)
# A book has few chunks with exactly n matches: written book by book, a file would be all row groups and no rows.
GROUP_ROWS = 4096
COLUMNS_SHOWN = 6  # side by side, so that a terminal of 80 columns holds them
USED = "by this run"


class Rule(NamedTuple):
    """The threshold that the chunks of a run were judged by: `min_matches` where it is set, else `min_score`."""

    min_score: float
    min_matches: int | None

    @classmethod
    def of(cls, run: Run) -> "Rule":
        """Raises InputError for a run without chunks, or one of another version."""
        begun = run.begun("corpus")
        if begun is None:
            raise InputError(f"run {run.name} has no chunks yet", f"Make them first: deepred corpus --run {run.name}")
        try:
            return cls(begun["identity"]["corpus.min_score"], begun["identity"]["corpus.min_matches"])
        except KeyError as error:
            raise InputError(
                f"the corpus of run {run.name} was made by another version: it has no setting {error}",
                f"Make it again: deepred corpus --run {run.name} --fresh",
            ) from error

    def __str__(self) -> str:
        return f"a score of {self.min_score:g}" if self.min_matches is None else f"{self.min_matches} matches"


@dataclass
class Tally:
    """What the chunks of a run add up to, those of the reasons `LEFT_OUT` aside."""

    min_score: float
    passing: int = 0
    """Chunks with a score of at least `min_score`."""
    matches: Counter[int] = field(default_factory=Counter)
    """Matches -> chunks with exactly so many."""
    hits: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Theme, matches -> distinct keywords of the theme, summed over the chunks with exactly so many matches."""
    thousandths: Counter[int] = field(default_factory=Counter)
    """Score in thousandths, rounded down -> chunks."""
    best: dict[str, float] = field(default_factory=dict)
    """Book -> its highest score."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> chunks that are not counted."""

    @property
    def chunks(self) -> int:
        return self.matches.total()

    def add(self, shard: pa.Table) -> pa.Table:
        """Count the chunks of a shard, at least the columns `COUNTED`; the rows of it that count."""
        out = pc.is_in(shard["reason"], pa.array(LEFT_OUT))
        self.left_out.update(count_values(shard["reason"].filter(out)))
        chunks = shard.filter(pc.invert(out))
        totals, scores = chunks["total"].to_numpy(), chunks["score"].to_numpy().astype(np.float64)
        self.matches.update(totals.tolist())
        # Exact: a float32 times 1000 has no more bits than a float64 holds.
        self.thousandths.update(np.floor(scores * 1000).astype(np.int64).tolist())
        self.passing += int((scores >= self.min_score).sum())
        for row in chunks.group_by("book_id").aggregate([("score", "max")]).to_pylist():
            self.best[row["book_id"]] = max(row["score_max"], self.best.get(row["book_id"], 0.0))
        maps = chunks["themes"].combine_chunks()
        offsets = maps.offsets.to_numpy()
        inside = slice(offsets[0], offsets[-1])
        pairs = {"theme": maps.keys[inside], "matches": np.repeat(totals, np.diff(offsets)), "hits": maps.items[inside]}
        for row in pa.table(pairs).group_by(["theme", "matches"]).aggregate([("hits", "sum")]).to_pylist():
            self.hits[row["theme"], row["matches"]] += row["hits_sum"]
        return chunks

    def with_matches(self, least: int) -> int:
        """Chunks with at least so many matches."""
        return sum(chunks for matches, chunks in self.matches.items() if matches >= least)

    def kept_by_score(self) -> tuple[np.ndarray, np.ndarray]:
        """Thresholds, falling in thousandths, at which chunks are lost, and the chunks that each keeps."""
        scores = np.array(sorted(self.thousandths, reverse=True))
        return scores / 1000, np.cumsum([self.thousandths[score] for score in scores.tolist()])

    def themes(self, span: range) -> dict[str, list[int]]:
        """Theme -> hits for each number of matches in `span`; the theme with the most hits first."""
        rows = {theme: [self.hits[theme, matches] for matches in span] for theme in {theme for theme, _ in self.hits}}
        return dict(sorted(rows.items(), key=lambda row: (-sum(row[1]), row[0])))


class Sheet(NamedTuple):
    """A table for the screen and for a file."""

    title: str
    columns: list[str]
    rows: list[list[str | int | float]]

    def show(self) -> None:
        """Print it, in several tables of at most `COLUMNS_SHOWN` numbers beside the first column."""
        cells = [[f"{cell:,}" if isinstance(cell, int) else cell_text(cell) for cell in row] for row in self.rows]
        for first in range(1, len(self.columns), COLUMNS_SHOWN):
            block = slice(first, first + COLUMNS_SHOWN)
            columns = [self.columns[0], *self.columns[block]]
            console.table(self.title, columns, [[row[0], *row[block]] for row in cells], right=len(columns) - 1)

    def tsv(self) -> str:
        lines = [self.columns, *([cell_text(cell) for cell in row] for row in self.rows)]
        return "".join("\t".join(line) + "\n" for line in lines)


def cell_text(cell: str | int | float) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


class Part:
    """The Parquet file of the chunks with exactly n matches, schema CHUNKS."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, CHUNKS, compression="zstd")
        self._waiting: list[pa.Table] = []

    def add(self, chunks: pa.Table) -> None:
        self._waiting.append(chunks)
        if sum(table.num_rows for table in self._waiting) >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting.clear()


def show(run: Run, least: int, most: int, output: Path | None) -> int:
    """Print what thresholds would keep, `least` to `most` matches and the tenths of the score; the exit status, 0.

    In the folder `output`, if given: `matches_NN.parquet` for each number of matches (schema CHUNKS), the three tables as
    `thresholds.tsv`, `themes.tsv` and `scores.tsv`, and the picture `thresholds.png`; they appear at the end, each whole.

    Raises:
        ConfigError: a negative number, or `least` above `most`.
        InputError: no such run, no chunks that count, a broken table, or an output folder that cannot be written.
    """
    if least < 0 or most < least:
        raise ConfigError(f"--least {least} --most {most} is no range of matches", "Give 0 <= --least <= --most.")
    require(run)
    rule = Rule.of(run)
    span = range(least, most + 1)
    with drafts(output) if output else contextlib.nullcontext() as draft:
        tally = survey(run, rule, span, draft)
        sheets = {
            "thresholds": match_sheet(tally, rule, span),
            "scores": score_sheet(tally, rule),
            "themes": theme_sheet(tally, span),
        }
        if draft:
            for name, sheet in sheets.items():
                (draft / f"{name}.tsv").write_text(sheet.tsv(), encoding="utf-8")
            draw(draft / "thresholds.png", run.name, tally, rule, span)
    for sheet in sheets.values():
        sheet.show()
    left_out = f", without {console.counts_text(tally.left_out)}" if tally.left_out else ""
    lines = [f"{tally.chunks:,} chunks of {len(tally.best):,} books{left_out}. This run keeps those with {rule} or more."]
    if run.manifest("corpus") is None:
        lines.append("Its corpus is not finished: the figures are those of the books so far.")
    if output:
        lines.append(f"Chunks by number of matches, tables and picture are in {output}.")
    for line in lines:
        console.console.print(line, markup=False, soft_wrap=True)
    return 0


@contextlib.contextmanager
def drafts(output: Path) -> Iterator[Path]:
    """A folder for files that move into `output` when all are whole. Raises InputError if they cannot be written there."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output, prefix=".thresholds-") as draft:
            yield Path(draft)
            for file in sorted(Path(draft).iterdir()):
                file.replace(output / file.name)
    except OSError as error:
        raise InputError(f"cannot write into {output}: {error.strerror or error}", "Give --output another folder.") from error


def survey(run: Run, rule: Rule, span: range, draft: Path | None) -> Tally:
    """Count all chunks of a run, and sort those with a number of matches in `span` into files in `draft`, if given.

    Raises:
        InputError: there is no chunk that counts, or a table is broken.
    """
    tally = Tally(rule.min_score)
    shards: list[Folder] = run.table("chunks").files(".parquet")
    wanted = CHUNKS if draft else COUNTED
    with contextlib.ExitStack() as stack:
        # Each book's chunks are one shard.
        meter = stack.enter_context(console.Meter("thresholds", len(shards), "books"))
        parts: dict[int, Part] = {}
        if draft:
            parts = {n: stack.enter_context(contextlib.closing(Part(draft / f"matches_{n:02d}.parquet"))) for n in span}
        for seen, shard in enumerate(shards, 1):
            chunks = tally.add(shard.read_shard(wanted))
            for n in parts.keys() & set(chunks["total"].to_pylist()):
                parts[n].add(chunks.filter(pc.equal(chunks["total"], n)))
            meter.update(seen)
    if not tally.chunks:
        found = console.counts_text(tally.left_out) or "none at all"
        raise InputError(f"run {run.name} has no chunk to count ({found})", f"Make them first: deepred corpus --run {run.name}")
    return tally


# --- tables


def match_sheet(tally: Tally, rule: Rule, span: range) -> Sheet:
    columns = ["matches", "chunks", "percent", "or more", "percent or more", "used"]
    rows: list[list[str | int | float]] = []
    for n in span:
        exactly, more = tally.matches[n], tally.with_matches(n)
        used = USED if n == rule.min_matches else ""
        rows.append([n, exactly, 100 * exactly / tally.chunks, more, 100 * more / tally.chunks, used])
    return Sheet("chunks by keyword matches: --min-matches n keeps n or more", columns, rows)


def theme_sheet(tally: Tally, span: range) -> Sheet:
    rows: list[list[str | int | float]] = [[theme, *hits] for theme, hits in tally.themes(span).items()]
    title = "keyword hits of each theme, by matches of the chunk"
    return Sheet(title, ["theme", *map(str, span)], rows)


def score_sheet(tally: Tally, rule: Rule) -> Sheet:
    """For nine tenths, eight and so on the highest threshold that keeps so many chunks, and the run's own threshold."""
    scores, kept = tally.kept_by_score()
    levels = np.searchsorted(kept * 100, [share * tally.chunks for share in SHARES])
    chosen: dict[float, int] = dict(zip(scores[levels].tolist(), kept[levels].tolist(), strict=True))
    if rule.min_matches is None:
        chosen[rule.min_score] = tally.passing
    rows: list[list[str | int | float]] = []
    for score, chunks in sorted(chosen.items()):
        books = sum(best >= score for best in tally.best.values())
        used = USED if rule.min_matches is None and score == rule.min_score else ""
        rows.append([f"{score:g}", chunks, 100 * chunks / tally.chunks, books, used])
    return Sheet("what --min-score keeps, and books with a passage", ["score", "chunks kept", "percent", "books", "used"], rows)


# --- picture


def draw(path: Path, name: str, tally: Tally, rule: Rule, span: range) -> None:
    """Write a PNG of three panels: chunks kept by matches, share kept by score, themes by matches; the run's rule marked."""
    # A second to import, and only here of use. Without pyplot, there is no global state and no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(18, 6), layout="constrained")
    figure.suptitle(f"Run {name}: {tally.chunks:,} chunks of {len(tally.best):,} books, kept with {rule} or more")
    left, middle, right = figure.subplots(1, 3)
    plain, second, marked = "#7a8ba3", "#d4a017", "#c0392b"
    ticks = list(span[:: len(span) // 13 + 1])
    legible = len(span) < 13

    colors = [marked if n == rule.min_matches else plain for n in span]
    bars = left.bar(list(span), [tally.with_matches(n) for n in span], color=colors)
    if legible:
        left.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    left.set(title="Chunks kept by number of matches", xlabel="matches needed (--min-matches)", ylabel="chunks kept")
    left.set_xticks(ticks)
    left.yaxis.set_major_formatter("{x:,.0f}")

    scores, kept = tally.kept_by_score()
    books = sorted(tally.best.values(), reverse=True)
    shares = 100 * np.arange(1, len(books) + 1) / len(books)
    # A threshold of 0 keeps all there is.
    middle.step([*scores, 0], [*(100 * kept / tally.chunks), 100], where="post", color=plain, label="chunks")
    middle.step([*books, 0], [*shares, 100], where="post", color=second, label="books with a passage")
    if rule.min_matches is None:
        middle.axvline(rule.min_score, color=marked, linestyle="--", label=f"this run: {rule.min_score:g}")
    middle.set(title="Share kept by score", xlabel="score needed (--min-score)", ylabel="share kept, %", ylim=(0, 102))
    middle.grid(alpha=0.3)
    middle.legend(loc="upper right")

    themes = tally.themes(span) or {"no theme": [0] * len(span)}
    hits = np.array(list(themes.values()), dtype=np.float64)
    share = 100 * hits / np.maximum(hits.sum(axis=0), 1)
    edges = (span[0] - 0.5, span[-1] + 0.5, len(themes) - 0.5, -0.5)
    # One theme may have most of the hits: the root of the share leaves the others their shades.
    image = right.imshow(share, aspect="auto", cmap="YlOrRd", norm=PowerNorm(0.5, vmin=0), extent=edges)
    if legible:
        for (row, column), value in np.ndenumerate(share):
            color = "white" if image.norm(value) > 0.7 else "black"
            right.text(span[column], row, f"{value:.0f}", color=color, ha="center", va="center", fontsize=8)
    right.set(title="Themes of the chunks with exactly n matches", xlabel="matches (n)", xticks=ticks)
    right.set_yticks(range(len(themes)), list(themes))
    figure.colorbar(image, ax=right, label="share of the keyword hits with n, %")
    FigureCanvasAgg(figure).print_png(path)
