"""Engines under Ray Data: actors that hold one each, fed with small blocks of rows.

A block is a file, and the actor that takes it reads it: engines may hold every CPU there is, so nothing beside them may need one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray.data

from deepred_ray import placement
from deepred_ray.config import Resources, SynthesizeConfig
from deepred_ray.stages.tables import Row
from deepred_ray.storage import Folder, rows_table

BLOCKS = 16  # that an engine has at a time
AHEAD = 4  # times the rows it works on: a block ends with its slowest row, and until then no other takes its place
MOST_BLOCKS = 2000  # of a table: the driver holds something for each, and each is files to read and to write


def write_blocks(folder: Folder, rows: Sequence[Row], schema: pa.Schema, in_flight: int) -> None:
    """Write rows for engines that work on `in_flight` of them at a time, so many that none waits, and so that several engines share
    a short table evenly."""
    size = max(1, min(AHEAD * in_flight, len(rows)) // BLOCKS, -(-len(rows) // MOST_BLOCKS))
    for start in range(0, len(rows), size):
        folder.write_table(rows_table(rows[start : start + size], schema), f"{start:09d}")


def blocks(folder: Folder) -> ray.data.Dataset:
    """The blocks that `write_blocks` wrote, by name, for `read_block`."""
    return one_block_each([{"block": file.name} for file in folder.files(".parquet")])


def one_block_each(rows: Sequence[Row]) -> ray.data.Dataset:
    return ray.data.from_items(list(rows), override_num_blocks=len(rows))


def read_block(folder: Folder, batch: Mapping[str, Sequence[Any]], schema: pa.Schema) -> list[Row]:
    (name,) = batch["block"]
    rows: list[Row] = (folder / str(name)).read_shard(schema).to_pylist(maps_as_pydicts="strict")
    return rows


def on_engines(
    dataset: ray.data.Dataset,
    actor: type,
    arguments: tuple[Any, ...],
    settings: SynthesizeConfig,
    resources: Resources,
    *,
    remote: bool = False,
    at_once: int = BLOCKS,
) -> ray.data.Dataset:
    """What `actor`, which is made with `arguments` and holds an engine, gives for each block of the dataset. An engine that is only
    a connection to a `remote` one needs no accelerator."""
    return dataset.map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            min_size=settings.fewest_engines,
            max_size=settings.engines,
            max_tasks_in_flight_per_actor=at_once,
            max_concurrent_calls_per_actor=at_once,
        ),
        **placement.options(resources, 0 if remote else settings.tensor_parallel),
    )
