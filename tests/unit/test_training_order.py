"""Rows, batches and rates of training: the same for any number of workers."""

import math
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepred_ray.config import TrainConfig
from deepred_ray.schema import TOKENS
from deepred_ray.stages.lora import IGNORED, Rows, batch_rows, learning_rate, loss_sum
from deepred_ray.storage import Folder, rows_table

PAD = 99


def epoch_rows(epoch: int, rows: int, config: TrainConfig) -> list[int]:
    steps = math.ceil(rows / config.global_batch)
    return [row for step in range(epoch * steps, (epoch + 1) * steps) for row in batch_rows(step, rows, config)]


# --- order


@given(st.integers(1, 70), st.integers(1, 20), st.integers(0, 3), st.integers(0, 5))
def test_each_epoch_takes_every_row_once(rows: int, batch: int, epoch: int, seed: int) -> None:
    config = TrainConfig(global_batch=batch, seed=seed)
    assert sorted(epoch_rows(epoch, rows, config)) == list(range(rows))


@given(st.integers(1, 70), st.integers(1, 20), st.integers(0, 50), st.integers(1, 9))
def test_the_workers_share_the_global_batch_whatever_their_number(rows: int, batch: int, step: int, world: int) -> None:
    chosen = batch_rows(step, rows, TrainConfig(global_batch=batch))
    shares = [chosen[rank::world] for rank in range(world)]
    assert 1 <= len(chosen) <= batch
    assert sorted(row for share in shares for row in share) == sorted(chosen)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_order_is_a_function_of_seed_and_step() -> None:
    config = TrainConfig(global_batch=16)
    first, second = epoch_rows(0, 100, config), epoch_rows(1, 100, config)
    assert first == epoch_rows(0, 100, config)
    assert first != second
    assert first != epoch_rows(0, 100, TrainConfig(global_batch=16, seed=1))
    assert list(range(100)) not in (first, second)
    # Asking for more epochs does not change those that are done.
    assert first == epoch_rows(0, 100, TrainConfig(global_batch=16, epochs=9))
    assert [len(batch_rows(step, 100, config)) for step in range(8)] == [16] * 6 + [4, 16]


# --- learning rate


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    config = TrainConfig(learning_rate=1e-3, warmup=0.1)
    rates = [learning_rate(step, 110, config) for step in range(110)]
    assert rates[:11] == pytest.approx([1e-3 * (step + 1) / 11 for step in range(11)])
    assert rates[11] == pytest.approx(1e-3)
    assert rates[11 + 33] == pytest.approx(1e-3 * 0.75)  # a third of the way: (1 + cos 60°) / 2
    assert rates[11 + 66] == pytest.approx(1e-3 * 0.25)
    assert rates[109] == pytest.approx(0.5e-3 * (1 + math.cos(math.pi * 98 / 99)))
    assert learning_rate(110, 110, config) == pytest.approx(0, abs=1e-12)


@given(st.integers(1, 400), st.floats(0, 0.99))
def test_every_step_learns_and_none_too_fast(steps: int, warmup: float) -> None:
    config = TrainConfig(learning_rate=5e-5, warmup=warmup)
    rates = [learning_rate(step, steps, config) for step in range(steps)]
    assert all(0 < rate <= 5e-5 * (1 + 1e-12) for rate in rates)
    assert max(rates) == pytest.approx(5e-5)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])


# --- batches


def token_rows(folder: Path, rows: Iterable[tuple[str, list[int], list[bool]]]) -> Folder:
    table = Folder.open(str(folder)) / "tokens"
    made = [
        {"example_id": f"{number:03d}", "split": split, "input_ids": ids, "trained": trained}
        for number, (split, ids, trained) in enumerate(rows)
    ]
    table.write_table(rows_table(made, TOKENS), "tokens")
    return table


def test_rows_are_those_of_their_split_in_order(tmp_path: Path) -> None:
    table = token_rows(tmp_path, [("train", [1, 2], [False, True]), ("val", [3], [True]), ("train", [4], [True])])
    train, held_out, none = (Rows(table, split) for split in ("train", "val", "test"))
    assert [ids.tolist() for ids in train.ids] == [[1, 2], [4]]
    assert [ids.tolist() for ids in held_out.ids] == [[3]]
    assert len(none) == 0
    assert none.trained_tokens([]) == 0


def test_batches_are_padded_and_masked(tmp_path: Path) -> None:
    table = token_rows(
        tmp_path,
        [("train", [5, 6, 7], [False, True, True]), ("train", [8], [True]), ("train", [1, 2, 3, 4], [False, False, True, False])],
    )
    rows = Rows(table, "train")
    short, long = rows.micro_batches([2, 0, 1], 2, PAD)
    assert short["input_ids"].tolist() == [[8, PAD, PAD], [5, 6, 7]]
    assert short["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert short["labels"].tolist() == [[8, IGNORED, IGNORED], [IGNORED, 6, 7]]
    assert long["input_ids"].tolist() == [[1, 2, 3, 4]]
    assert long["labels"].tolist() == [[IGNORED, IGNORED, 3, IGNORED]]
    assert all(value.dtype == torch.int64 for batch in (short, long) for value in batch.values())
    # The first token of a row has nothing before it.
    assert rows.trained_tokens([0, 1, 2]) == 3
    assert list(rows.micro_batches([], 2, PAD)) == []


class Bigrams:
    """A model whose logits depend on the token before alone, so that padding cannot hide behind attention."""

    def __init__(self) -> None:
        self.weights = torch.from_numpy(np.random.default_rng(1).normal(size=(100, 100)))

    def __call__(self, input_ids: Any, attention_mask: Any, use_cache: bool, logits_to_keep: Any) -> Any:
        return SimpleNamespace(logits=self.weights[input_ids][:, logits_to_keep])


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 98), st.booleans()), min_size=1, max_size=9), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_the_loss_is_the_same_for_any_workers_and_micro_batches(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[list[tuple[int, bool]]], world: int, size: int
) -> None:
    made = [("train", [token for token, _ in row], [trained for _, trained in row]) for row in drawn]
    rows, model, device = Rows(token_rows(tmp_path_factory.mktemp("rows"), made), "train"), Bigrams(), torch.device("cpu")
    chosen = batch_rows(0, len(rows), TrainConfig(global_batch=8))
    batches = [batch for rank in range(world) for batch in rows.micro_batches(chosen[rank::world], size, PAD)]
    assert all(len(batch["input_ids"]) <= size for batch in batches)
    assert sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches) == rows.trained_tokens(chosen)
    by_hand = -sum(
        float(torch.log_softmax(model.weights[rows.ids[row][place - 1]], 0)[rows.ids[row][place]])
        for row in chosen
        for place in range(1, len(rows.ids[row]))
        if rows.trained[row][place]
    )
    assert sum(float(loss_sum(model, batch, device)) for batch in batches) == pytest.approx(by_hand, rel=1e-4, abs=1e-4)
