"""Linear layers with weights packed for oneDNN on the CPU: the one place with private torch ops.

Where the ops are missing the plain layers stay. Packing copies a weight, so the original goes.
"""

import torch
from torch import nn

_ROWS = 64  # oneDNN picks the layout for about so many tokens a step


class PackedLinear(nn.Module):
    """y = x W^T + b in `x`'s dtype; W is packed in a dtype that the CPU multiplies fast.

    A CPU without bf16 instructions is seven times slower in bf16 than in fp32, so there a bf16
    layer multiplies the same bf16 values as fp32 and rounds the result, as bf16 hardware does.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        dtype = _fast_dtype(linear.weight.dtype)
        self.dtype = dtype
        self.memory_bytes = linear.weight.numel() * dtype.itemsize
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(
            linear.weight.detach().to(dtype), _ROWS
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [..., in features] → [..., out features]."""
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self.dtype), self.packed, self.bias, "none", [], ""
        )
        return y.to(x.dtype)


def pack(model: nn.Module) -> None:
    """Replace every linear layer of a model on the CPU, one by one."""
    if not _can_pack():
        return
    parents = [each for each in model.modules() if not isinstance(each, nn.Linear)]
    for parent in parents:  # which hold the only reference to a layer: its weight is freed at once
        for name, child in parent.named_children():
            if type(child) is nn.Linear and child.weight.dtype in (torch.float32, torch.bfloat16):
                setattr(parent, name, PackedLinear(child))
    for parameter in model.parameters():  # what is left points into the mapped weights file
        parameter.data = parameter.data.clone()


def packed_bytes(model: nn.Module) -> int:
    return sum(each.memory_bytes for each in model.modules() if isinstance(each, PackedLinear))


def has_fast_bf16() -> bool:
    """Whether this CPU has bf16 instructions that oneDNN uses."""
    return hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported") and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _fast_dtype(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype is torch.float32 or has_fast_bf16() else torch.float32


def _can_pack() -> bool:
    ops = torch.ops.mkldnn
    wanted = ("_reorder_linear_weight", "_linear_pointwise")
    return torch._C._has_mkldnn and all(hasattr(ops, name) for name in wanted)
