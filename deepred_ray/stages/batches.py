"""Global batches out of tokens/, read when their step comes, and as tensors."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from deepred_ray.storage import Folder

IGNORED = -100  # what torch's cross entropy leaves out
PADDING = 1 / 16
"""Share by which a row of a micro-batch may be shorter than the longest: a smaller batch costs less than computing padding."""


@dataclass(frozen=True)
class Packed:
    """Conversations one after the other: their token ids (int64) and which of them are trained, both (tokens,), and the length of
    each conversation."""

    ids: np.ndarray
    trained: np.ndarray
    lengths: tuple[int, ...]

    def apart(self) -> Iterator["Packed"]:
        """Each conversation in a row of its own."""
        for start, stop in pairwise(np.cumsum([0, *self.lengths])):
            yield Packed(self.ids[start:stop], self.trained[start:stop], (int(stop - start),))

    @property
    def trained_tokens(self) -> int:
        return int(self.trained.sum())


class Batches:
    """The global batches of one split; each is read when it is asked for."""

    def __init__(self, tokens: Folder, split: str) -> None:
        self._file = (tokens / "tokens.parquet").parquet()
        metadata = self._file.metadata
        place = self._file.schema_arrow.names.index("split")
        self._groups = [
            group for group in range(metadata.num_row_groups) if metadata.row_group(group).column(place).statistics.min == split
        ]

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, number: int) -> list[Packed]:
        table = self._file.read_row_group(self._groups[number], columns=["lengths", "input_ids", "trained"])
        return [
            Packed(np.array(row["input_ids"], np.int64), np.array(row["trained"], bool), tuple(row["lengths"]))
            for row in table.to_pylist()
        ]

    def __iter__(self) -> Iterator[list[Packed]]:
        return (self[number] for number in range(len(self)))

    def conversations(self) -> Iterator[Packed]:
        """Every conversation of the split, in a row of its own."""
        return (one for batch in self for row in batch for one in row.apart())


def batch_number(step: int, batches: int, seed: int) -> int:
    """Which global batch optimizer step `step` (from 0) takes: a function of seed and step alone, whatever the workers."""
    epoch, place = divmod(step, batches)
    order = list(range(batches))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order[place]


def micro_batches(rows: Sequence[Packed], places: int, packed: bool) -> Iterator[dict[str, Any]]:
    """The rows, as they are or with each conversation apart, as tensors of at most `places` tokens or of one row; longest first,
    and only those together that want little padding."""
    batch: list[Packed] = []
    for row in sorted(rows if packed else (one for row in rows for one in row.apart()), key=lambda row: -len(row.ids)):
        longest = len(batch[0].ids) if batch else len(row.ids)
        if batch and ((len(batch) + 1) * longest > places or len(row.ids) < (1 - PADDING) * longest):
            yield collate(batch, packed)
            batch = []
        batch.append(row)
    if batch:
        yield collate(batch, packed)


def collate(rows: Sequence[Packed], packed: bool) -> dict[str, Any]:
    """input_ids and labels, each (rows, longest) and int64, with what tells conversations and padding apart. Padding is token 0,
    which every vocabulary has: nothing attends to it and no loss is of it.

    `packed`: position_ids that begin again with each conversation, and with the padding; without an attention mask transformers
    takes from them that attention is block-diagonal. Else attention_mask.
    """
    import torch

    shape = (len(rows), max(len(row.ids) for row in rows))
    ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED)
    positions, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for place, row in enumerate(rows):
        length = len(row.ids)
        ids[place, :length] = row.ids
        labels[place, :length] = np.where(row.trained, row.ids, IGNORED)
        mask[place, :length] = 1
        positions[place] = np.concatenate([np.arange(part) for part in (*row.lengths, shape[1] - length)])
    told = {"position_ids": positions} if packed else {"attention_mask": mask}
    return {name: torch.from_numpy(array) for name, array in {"input_ids": ids, "labels": labels, **told}.items()}
