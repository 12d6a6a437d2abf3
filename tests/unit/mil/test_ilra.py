"""ILRA: latents that gather and spread, against multi-head attention of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, multi_head_attention_forward

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bags
from pathpipe.mil.models.ilra import Ilra
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.testing.bags import random_bag

DIM, WIDTH, HEADS = 6, 8, 4


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    model = build_model(Recipe("ilra", {"hidden": WIDTH, "heads": HEADS, **options}), DIM, 3)
    assert isinstance(model, Ilra)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.3)
    return model.eval()


def block(layer: Any, query_of: Tensor, key_of: Tensor) -> tuple[Tensor, Tensor]:
    """Queries, keys and values through a layer of their own and torch's multi-head attention; its weights too."""
    query = layer.query(query_of)
    if hasattr(layer, "key"):
        key, inner_key, inner_query = layer.key(key_of), layer.inner_key.weight, layer.inner_query
        query_weight, query_bias = inner_query.weight, inner_query.bias
    else:  # one latent: whatever is compared, its weight is 1
        key, inner_key = key_of, torch.rand(WIDTH, WIDTH)
        query_weight, query_bias = torch.rand(WIDTH, WIDTH), torch.rand(WIDTH)
    value = layer.inner_value
    bias = torch.cat([query_bias, torch.zeros(WIDTH), value.bias])
    out, weights = multi_head_attention_forward(
        query[:, None],
        key[:, None],
        layer.value(key_of)[:, None],
        WIDTH,
        HEADS,
        in_proj_weight=torch.cat([query_weight, inner_key, value.weight]),
        in_proj_bias=bias,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=layer.out.weight,
        out_proj_bias=layer.out.bias,
        average_attn_weights=False,
    )
    norms = [norm if isinstance(norm, torch.nn.LayerNorm) else None for norm in layer.norms]
    result = query + out[:, 0]
    result = result if norms[0] is None else layer_norm(result, (WIDTH,), norms[0].weight, norms[0].bias)
    result = result + torch.relu(layer.feed(result))
    result = result if norms[1] is None else layer_norm(result, (WIDTH,), norms[1].weight, norms[1].bias)
    if layer.gate is not None:
        gate = layer.gate[0](query_of)
        result = result * gate * gate.sigmoid()
    assert weights is not None
    return result, weights[0]  # (H, queries, keys)


@torch.no_grad()
@pytest.mark.parametrize("latents", [1, 3])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_prediction_with_torchs_multi_head_attention(latents: int, norm: bool, layers: int) -> None:
    model, bags = build(latents=latents, norm=norm, layers=layers), [random_bag(9, DIM), random_bag(4, DIM)]
    batch = Bags.pack(bags)
    output = model(batch)
    for number, bag in enumerate(bags):
        x = torch.from_numpy(bag.features)
        for gather, spread in zip(model.gather, model.spread, strict=True):
            latent, _ = block(gather, gather.latents, x)
            x, _ = block(spread, x, latent)
        pooled, weights = block(model.pool, model.pool.latents, x)
        torch.testing.assert_close(output.logits[number], model.head(pooled.mean(0)), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(batch.split(output.attention)[number], weights.flatten(0, 1).T, rtol=1e-5, atol=1e-6)


def test_parameter_counts() -> None:
    d = 256
    square, gate_in = d * d + d, 1024 * d + d
    gather = d + 2 * square + (1024 * d + gate_in) + d * d + 3 * square + square  # of the first block
    spread = 2 * gate_in + 4 * square
    later = (d + 2 * square + d * d + square + d * d + 3 * square + square) + (2 * square + 4 * square)
    pool = d + 2 * square + d * d + square + d * d + 3 * square
    model = build_model(Recipe("ilra"), 1024, 2)
    assert sum(p.numel() for p in model.parameters()) == gather + spread + later + pool + 2 * d + 2


def test_attention_has_a_map_a_head_and_query() -> None:
    assert build(latents=3)(Bags.pack([random_bag(5, DIM)])).attention.shape == (5, HEADS * 3)


def test_refuses_heads_that_do_not_fit() -> None:
    with pytest.raises(SettingsError, match="hidden 8 can't be shared by 3 heads"):
        build(heads=3)
