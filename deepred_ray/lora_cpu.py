"""A vLLM plugin, which vLLM loads in each of its processes: one adapter on a CPU by matrix products.

vLLM 0.32's CPU path (`vllm.lora.ops.torch_ops`) gathers a copy of the adapter's weights for every token, which reads hundreds of
times the memory that it needs to, and takes the row without an adapter (index -1) for one of the last slot. With one slot for
adapters, as our engine has, a product with that slot's weights is the same, and rows without an adapter get nothing.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any


def register() -> None:
    """Replace the operations of linear layers, where one slot is all there is; others compute as before. Does nothing off a CPU."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.lora.punica_wrapper import punica_cpu

    punica_cpu.sgmv_shrink = for_one_slot(shrink, punica_cpu.sgmv_shrink)
    punica_cpu.sgmv_expand_slice = for_one_slot(expand_slice, punica_cpu.sgmv_expand_slice)


def for_one_slot(product: Callable[..., None], general: Callable[..., None]) -> Callable[..., None]:
    @wraps(general)
    def chosen(inputs: Any, weights: Any, *rest: Any) -> None:
        return (product if len(weights) == 1 else general)(inputs, weights, *rest)

    return chosen


def matrix(weights: Any, dtype: Any) -> Any:
    """The weights (1, [1,] out, in) of the only slot, transposed."""
    return weights.reshape(-1, weights.shape[-1]).to(dtype).T


def shrink(inputs: Any, weights: Any, output: Any, starts: Any, lengths: Any, slots: Any, *sizes_and_scaling: Any) -> None:
    """output (tokens, rank) = scaling * inputs (tokens, in) x A; zero for sequences without an adapter."""
    import torch

    adapted = (torch.repeat_interleave(slots, lengths) >= 0).to(output.dtype).unsqueeze(1)
    made = inputs.to(output.dtype) @ matrix(weights, output.dtype)
    output[:, : made.shape[1]] = sizes_and_scaling[-1] * adapted * made


def expand_slice(
    inputs: Any, weights: Any, output: Any, starts: Any, lengths: Any, slots: Any, *sizes_offset_size_and_add: Any
) -> None:
    """output (tokens, out), from an offset on, += inputs (tokens, rank) x B."""
    *_, offset, size, add = sizes_offset_size_and_add
    made = inputs.to(output.dtype) @ matrix(weights, output.dtype)
    if add:
        output[:, offset : offset + size] += made
    else:
        output[:, offset : offset + size] = made
