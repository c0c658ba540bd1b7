"""The adapter's products on a CPU are what vLLM's own operations give, row by row."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

from vllm.lora.ops.torch_ops import lora_ops  # noqa: E402

from deepred_ray import lora_cpu  # noqa: E402


def metadata(slots: list[int], lengths: list[int]) -> tuple[object, ...]:
    starts = torch.tensor([sum(lengths[:place]) for place in range(len(lengths))])
    return starts, torch.tensor(lengths), torch.tensor(slots), len(lengths), max(lengths), sum(lengths)


@pytest.mark.parametrize("shape", [(1, 1, 4, 8), (1, 4, 8)])
def test_one_slot_is_a_product(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs, weights = torch.randn(7, 8), torch.randn(*shape)
    ours, theirs = torch.zeros(7, 4), torch.zeros(7, 4)
    told = metadata([0, 0, 0], [3, 1, 3])
    lora_cpu.shrink(inputs, weights, ours, *told, 2.0)
    lora_ops.sgmv_shrink(inputs, weights, theirs, *told, 2.0)
    torch.testing.assert_close(ours, theirs)
    wide = weights.transpose(-1, -2).contiguous()
    for add in (True, False):
        first, second = torch.ones(7, 12), torch.ones(7, 12)
        lora_cpu.expand_slice(ours, wide, first, *told, 4, 8, add)
        lora_ops.sgmv_expand_slice(ours, wide, second, *told, 4, 8, add)
        torch.testing.assert_close(first, second)


def test_rows_without_an_adapter_get_nothing() -> None:
    ours = torch.ones(5, 4)
    lora_cpu.shrink(torch.randn(5, 8), torch.randn(1, 4, 8), ours, *metadata([0, -1], [2, 3]), 1.0)
    assert (ours[:2] != 0).all()
    assert (ours[2:] == 0).all()


def test_several_slots_are_left_to_vllm() -> None:
    called: list[str] = []
    chosen = lora_cpu.for_one_slot(lambda *_: called.append("product"), lambda *_: called.append("general"))
    chosen(None, torch.zeros(1, 4, 8))
    chosen(None, torch.zeros(2, 4, 8))
    assert called == ["product", "general"]


def test_vllm_finds_the_plugin() -> None:
    from importlib.metadata import entry_points

    assert "deepred_lora_cpu" in {point.name for point in entry_points(group="vllm.general_plugins")}
