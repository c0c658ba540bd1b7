"""What all table-writing stages share: rows leave Ray Data as whole Parquet shards, and the driver hears only counts."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from deepred_ray import logs
from deepred_ray.runs import Run
from deepred_ray.schema import CHUNKS
from deepred_ray.storage import Folder, rows_table, shard_name
from deepred_ray.text.themes import Scored

Row = dict[str, Any]
Sort = Callable[[Row], str]


class ShardWriter:
    """Write a batch of rows, each to the table that `sort` names, and return how many went where.

    INPUT any rows; OUTPUT one row a batch: table, reason -> count; fan-out n:1. `folders` maps a table's name to its folder and
    schema; a column `reason` is counted. A repeated task replaces its own files, since names derive from the rows' ids.
    """

    def __init__(self, stage: str, folders: dict[str, tuple[Folder, pa.Schema]], sort: Sort, key: str) -> None:
        self.stage, self.folders, self.sort, self.key = stage, folders, sort, key

    def __call__(self, batch: pa.Table) -> pa.Table:
        sorted_rows: dict[str, list[Row]] = {}
        for row in batch.to_pylist(maps_as_pydicts="strict"):
            sorted_rows.setdefault(self.sort(row), []).append(row)
        counts: Counter[tuple[str, str]] = Counter()
        for name, rows in sorted_rows.items():
            folder, schema = self.folders[name]
            table = rows_table([{column: row[column] for column in schema.names} for row in rows], schema)
            folder.write_table(table, shard_name(f"{row[self.key]}/{row.get('attempt', '')}" for row in rows))
            counts.update((name, row.get("reason") or "") for row in rows)
        logs.enter(self.stage)
        logs.note("rows written", rows=counts.total())
        return pa.table(
            {
                "table": [table for table, _ in counts],
                "reason": [reason for _, reason in counts],
                "count": list(counts.values()),
            }
        )


def write(dataset: ray.data.Dataset, writer: ShardWriter, batch_size: int) -> Iterator[Counter[tuple[str, str]]]:
    """Run the dataset into its tables; yields the counts by (table, reason) so far, as they grow."""
    counts: Counter[tuple[str, str]] = Counter()
    written = dataset.map_batches(writer, batch_size=batch_size, batch_format="pyarrow", num_cpus=0.1)
    for batch in written.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in batch.to_pylist():
            counts[row["table"], row["reason"]] += row["count"]
        yield counts


def score_columns(scored: Scored, themes: Sequence[str]) -> dict[str, pa.Array]:
    """What a scorer found, as the columns of chunks/; a theme without a hit is not in the maps."""
    return {
        "themes": theme_map(scored.counts, themes),
        "total": pa.array(scored.totals, pa.int32()),
        "weights": theme_map(scored.weights, themes),
        "score": pa.array(scored.scores, pa.float32()),
    }


def theme_map(values: np.ndarray, themes: Sequence[str]) -> pa.MapArray:
    """A matrix of shape (rows, themes) as a map from theme to value, zeros left out."""
    rows, columns = np.nonzero(values)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(values)))]).astype(np.int32)
    return pa.MapArray.from_arrays(offsets, pa.array(themes).take(pa.array(columns)), pa.array(values[rows, columns]))


def passage_texts(run: Run, wanted: set[str]) -> dict[str, str]:
    """chunk_id -> text, of chunks/ and of sources/."""
    texts: dict[str, str] = {}
    for name in ("chunks", "sources"):
        table = run.table(name).read_table(CHUNKS, ["chunk_id", "text"])
        table = table.filter(pc.is_in(table["chunk_id"], pa.array(sorted(wanted), pa.string())))
        texts.update(zip(table["chunk_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts
