import pytest
import torch
from torch import nn

from batch_api.engine.linears import PackedLinear, pack, packed_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 3, 200])
def test_a_packed_layer_computes_what_the_plain_one_does(
    dtype: torch.dtype, bias: bool, rows: int
) -> None:
    plain = nn.Linear(40, 24, bias=bias, dtype=dtype)
    x = torch.randn(1, rows, 40, dtype=dtype)
    with torch.inference_mode():
        y = PackedLinear(plain)(x)

        assert (y.dtype, y.shape) == (dtype, (1, rows, 24))
        torch.testing.assert_close(y, plain(x))


def test_packing_keeps_tied_embeddings_and_counts_its_bytes() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(50, 16), "head": nn.Linear(16, 50, bias=False)})
    weight = model["embed"].weight
    model["head"].weight = weight
    x = torch.randn(2, 16)
    with torch.inference_mode():
        expected = model["head"](x)

        pack(model)

        torch.testing.assert_close(model["head"](x), expected)
    assert model["embed"].weight is weight
    assert packed_bytes(model) == 50 * 16 * 4
