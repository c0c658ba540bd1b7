"""Rows, batches and rates of training: the same for any number of workers."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

from deepred_ray.config import TrainConfig
from deepred_ray.errors import DeepredError
from deepred_ray.schema import TOKENIZED
from deepred_ray.stages.batches import IGNORED, Batches, Packed, batch_number, collate, micro_batches
from deepred_ray.stages.dropout import QuickDropout, quicken
from deepred_ray.stages.lora import (
    Patience,
    add_adapter,
    gradients,
    honours_packing,
    learning_rate,
    memory_advice,
    require_finite,
    token_losses,
)
from deepred_ray.stages.tokens import arrange
from deepred_ray.storage import Folder, rows_table

CPU = torch.device("cpu")
Conversation = tuple[list[int], list[bool]]


# --- order


@given(st.integers(1, 70), st.integers(0, 3), st.integers(0, 5))
def test_each_epoch_takes_every_batch_once(batches: int, epoch: int, seed: int) -> None:
    steps = range(epoch * batches, (epoch + 1) * batches)
    assert sorted(batch_number(step, batches, seed) for step in steps) == list(range(batches))


def test_the_order_is_a_function_of_seed_and_step() -> None:
    first, second = ([batch_number(step, 50, 0) for step in range(start, start + 50)] for start in (0, 50))
    assert first != second
    assert list(range(50)) not in (first, second)
    assert first == [batch_number(step, 50, 0) for step in range(50)]
    assert first != [batch_number(step, 50, 1) for step in range(50)]


@given(st.lists(st.floats(0, 9, allow_nan=False) | st.none(), max_size=12), st.integers(1, 4))
def test_patience_ends_after_so_many_losses_without_a_better_one(losses: list[float | None], patience: int) -> None:
    seen = Patience(patience)
    measured: list[float] = []
    for loss in losses:
        seen.see(loss)
        measured += [] if loss is None else [loss]
        best = measured.index(min(measured)) if measured else 0
        assert seen.over == (len(measured) - 1 - best >= patience)
        assert Patience(None, seen.best, seen.waited).over is False


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


def tokens_of(folder: Path, conversations: dict[str, Sequence[Conversation]], config: TrainConfig) -> Folder:
    """tokens/ of these conversations, by split, as the stage makes it."""
    root = Folder.open(str(folder))
    rows = [
        {"example_id": f"{split}-{number:03d}", "split": split, "input_ids": ids, "trained": trained}
        for split, made in conversations.items()
        for number, (ids, trained) in enumerate(made)
    ]
    # Shards in another order than their rows: which task ends first must not matter.
    for number, row in enumerate(reversed(rows)):
        (root / "draft").write_table(rows_table([row], TOKENIZED), f"{number:03d}")
    arrange(root / "draft", root / "tokens", config)
    return root / "tokens"


def conversation(start: int, length: int) -> Conversation:
    return list(range(start, start + length)), [place % 3 == 2 or place == length - 1 for place in range(length)]


def test_batches_have_every_conversation_once_each_split_its_own(tmp_path: Path) -> None:
    train, val = ([conversation(10 * number, 2 + number % 7) for number in range(*numbers)] for numbers in ((0, 21), (30, 33)))
    table = tokens_of(tmp_path, {"train": train, "val": val}, TrainConfig(global_batch=4))
    batches, held_out, none = (Batches(table, split) for split in ("train", "val", "test"))
    assert (len(batches), len(held_out), len(none)) == (6, 1, 0)
    assert [sum(len(row.lengths) for row in batch) for batch in batches] == [4, 4, 4, 4, 4, 1]
    assert sorted((row.ids.tolist(), row.trained.tolist()) for row in batches.conversations()) == sorted(train)
    assert sorted((row.ids.tolist(), row.trained.tolist()) for row in held_out.conversations()) == sorted(val)
    assert all(len(row.ids) == sum(row.lengths) for batch in batches for row in batch)
    assert all(len(row.ids) <= max(max(row.lengths) for row in batch) for batch in batches for row in batch)
    assert sum(row.trained_tokens for batch in batches for row in batch) == sum(sum(trained) for _, trained in train)


def test_a_packed_batch_numbers_the_places_of_each_conversation() -> None:
    rows = [packed(([5, 6, 7], "-++"), ([8, 9], "-+")), packed(([1, 2, 3], "--+"))]
    batch = collate(rows, packed=True)
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [1, 2, 3, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7, IGNORED, 9], [IGNORED, IGNORED, 3, IGNORED, IGNORED]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 0, 1]]
    assert all(value.dtype == torch.int64 for value in batch.values())


def test_a_model_that_cannot_pack_gets_each_conversation_in_a_row_of_its_own() -> None:
    rows = [packed(([5, 6], "-+"), ([8, 9, 7], "-+-")), packed(([1, 2, 3, 4], "--+-"))]
    long, middle, short = micro_batches(rows, 9, packed=False)
    assert (long["input_ids"].tolist(), middle["input_ids"].tolist()) == ([[1, 2, 3, 4]], [[8, 9, 7]])
    assert short["input_ids"].tolist() == [[5, 6]]
    assert short["labels"].tolist() == [[IGNORED, 6]]
    together = collate([one for row in rows[::-1] for one in row.apart()], packed=False)
    assert together["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert together["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 0, 0], [8, 9, 7, 0]]
    assert list(micro_batches([], 9, packed=True)) == []


def test_a_micro_batch_has_as_many_rows_as_fit_its_places() -> None:
    def shapes(lengths: Sequence[int], places: int) -> list[tuple[int, ...]]:
        rows = [packed((list(range(length)), "-" * length)) for length in lengths]
        return [tuple(batch["input_ids"].shape) for batch in micro_batches(rows, places, packed=True)]

    assert shapes((40, 70, 30, 30, 20, 40), 80) == [(1, 70), (2, 40), (2, 30), (1, 20)]
    # A little padding is cheaper than a batch more, much of it is not; and a row that alone is too long is computed all the same.
    assert shapes((100, 95, 94, 90, 89), 1000) == [(3, 100), (2, 90)]
    assert shapes((70, 40), 30) == [(1, 70), (1, 40)]


def packed(*parts: tuple[list[int], str]) -> Packed:
    """A row of conversations: their token ids, and + where a token is trained."""
    import numpy as np

    return Packed(
        np.array([token for ids, _ in parts for token in ids]),
        np.array([sign == "+" for _, signs in parts for sign in signs]),
        tuple(len(ids) for ids, _ in parts),
    )


# --- losses, by a real if small Llama


def llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


LLAMA = llama()
ROWS = st.lists(
    st.lists(st.lists(st.tuples(st.integers(0, 98), st.booleans()), min_size=2, max_size=9), min_size=1, max_size=3),
    min_size=1,
    max_size=5,
)


def rows_of(drawn: list[list[list[tuple[int, bool]]]]) -> list[Packed]:
    """Rows of conversations, of which the first token is never trained and the second always."""
    signs = [[["-", "+", *("+" if trained else "-" for _, trained in one[2:])] for one in row] for row in drawn]
    return [
        packed(*(([token for token, _ in one], "".join(sign)) for one, sign in zip(row, marked, strict=True)))
        for row, marked in zip(drawn, signs, strict=True)
    ]


def by_hand(rows: Sequence[Packed]) -> list[float]:
    """The loss of each trained token, of one conversation after the other, with nothing else in sight."""
    losses = []
    for one in (one for row in rows for one in row.apart()):
        with torch.no_grad():
            told = torch.log_softmax(LLAMA(torch.from_numpy(one.ids)[None]).logits[0], 1)
        losses += [-float(told[place - 1, one.ids[place]]) for place in range(1, len(one.ids)) if one.trained[place]]
    return losses


@settings(max_examples=40)
@given(ROWS)
def test_packed_and_unpacked_losses_are_those_of_each_conversation_alone(drawn: list[list[list[tuple[int, bool]]]]) -> None:
    rows = rows_of(drawn)
    with torch.no_grad():
        together = token_losses(LLAMA, collate(rows, packed=True), CPU)
        apart = token_losses(LLAMA, collate([one for row in rows for one in row.apart()], packed=False), CPU)
    assert together.tolist() == pytest.approx(by_hand(rows), abs=1e-4)
    assert apart.tolist() == pytest.approx(by_hand(rows), abs=1e-4)


@settings(max_examples=20)
@given(ROWS, st.integers(1, 4), st.integers(1, 40), st.booleans())
def test_the_gradient_is_the_same_for_any_workers_and_micro_batches(
    drawn: list[list[list[tuple[int, bool]]]], world: int, places: int, pack: bool
) -> None:
    rows, model = rows_of(drawn), add_adapter(llama(), TrainConfig(rank=2, alpha=4, dropout=0.0))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def of(rank: int, world: int, places: int, pack: bool) -> tuple[float, Any]:
        model.zero_grad()
        loss = gradients(model, rows, rank, world, places, pack, CPU)
        return loss, torch.cat([parameter.grad.flatten() for parameter in parameters])

    loss, gradient = of(0, 1, 1000, True)
    shares = [of(rank, world, places, pack) for rank in range(world)]
    assert sum(share for share, _ in shares) == pytest.approx(loss, rel=1e-4)
    assert torch.allclose(sum(share for _, share in shares), gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))


def test_packing_is_tried_on_the_model_before_it_is_done() -> None:
    row = packed(([5, 6, 7, 8], "-+++"), ([8, 9, 10], "-++"))
    assert honours_packing(LLAMA, [row], "f32", CPU)
    assert honours_packing(LLAMA, [packed(([5, 6], "-+")), row], "f32", CPU)
    assert not honours_packing(LLAMA, [packed(([5, 6], "-+"))], "f32", CPU)
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=100, hidden_size=32, state_size=8, num_hidden_layers=2, initializer_range=0.3)
    # Its state runs on from one conversation into the next.
    assert not honours_packing(MambaForCausalLM(config), [row], "f32", CPU)


def test_advice_on_memory_names_what_is_left_to_lower() -> None:
    advice = memory_advice(TrainConfig(gradient_checkpointing=False))
    assert advice.startswith("Try --train.gradient-checkpointing or a lower --train.batch than 4: what is trained so far is kept.")
    least = memory_advice(TrainConfig(batch=1, base_bits=4))
    assert least == "Start afresh, with --fresh or another --run, with a lower --train.max-tokens than 1024, or a smaller model."


def test_quick_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropout, ones = QuickDropout(0.05), torch.ones(301, 997, requires_grad=True)
    dropped = dropout(ones)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.05, abs=0.002)
    assert float(dropped.detach().mean()) == pytest.approx(1, abs=0.002)
    assert set(dropped.unique().tolist()) == {0, float(torch.tensor(1 / 0.95))}
    dropped.sum().backward()
    assert ones.grad is not None
    assert torch.equal(ones.grad, dropped.detach())
    assert not torch.equal(dropout(ones), dropped)
    torch.manual_seed(0)
    assert torch.equal(dropout(ones), dropped)
    assert torch.equal(dropout.eval()(ones), ones)


def test_quick_dropout_takes_the_place_of_the_adapters_and_of_nothing_else() -> None:
    model = add_adapter(llama(), TrainConfig(rank=2, dropout=0.05))
    quicken(model)
    kinds = {type(module) for module in model.modules()}
    assert QuickDropout in kinds
    assert torch.nn.Dropout not in kinds
    assert {module.p for module in model.modules() if isinstance(module, QuickDropout)} == {0.05}


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_none_any_more_ends_training(loss: float) -> None:
    require_finite({"step": 7, "loss": 2.0})
    require_finite({"step": 7, "loss": 2.0, "val_loss": None})
    with pytest.raises(DeepredError, match=f"val_loss is {loss} at step 7"):
        require_finite({"step": 7, "loss": 2.0, "val_loss": loss})
