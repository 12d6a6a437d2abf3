"""Gated attention against numbers worked out in float64 numpy from the equations of Ilse et al. 2018."""

from __future__ import annotations

import numpy as np
import torch

from pathpipe.mil.attention import Attention, GatedAttention
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.pooling import softmax_over_instances, sum_over_instances


def _ramp(*shape: int, scale: float, shift: float = 0.0) -> np.ndarray:
    return (scale * np.sin(np.arange(1, np.prod(shape) + 1)) + shift).reshape(shape)


RAW = [0.70409, -0.599197, 0.696906, -0.581816]
ATTENTION = [0.393565, 0.106907, 0.390747, 0.108781]
EMBEDDING = [0.447802, 0.533161, 0.128334]
ENTROPY = 1.2145300798


def _layer() -> GatedAttention:
    layer = GatedAttention(3, 2).double()
    with torch.no_grad():
        layer.content.weight.copy_(torch.from_numpy(_ramp(2, 3, scale=0.5)))
        layer.gate.weight.copy_(torch.from_numpy(_ramp(2, 3, scale=0.5, shift=0.1)))
        layer.score.weight.copy_(torch.tensor([[1.0, -1.0]]))
        for part in (layer.content, layer.gate, layer.score):
            part.bias.zero_()
    return layer


def test_gated_attention() -> None:
    hidden = torch.from_numpy(_ramp(4, 3, scale=1.0))
    batch = Bags.pack([Bag(hidden)])
    with torch.no_grad():
        raw = _layer()(hidden)
        attention = softmax_over_instances(raw, batch)
        embedding = sum_over_instances(attention, hidden, batch)
    np.testing.assert_allclose(raw[:, 0], RAW, atol=1e-6)
    np.testing.assert_allclose(attention[:, 0], ATTENTION, atol=1e-6)
    np.testing.assert_allclose(embedding[0, 0], EMBEDDING, atol=1e-6)
    np.testing.assert_allclose(-(attention * attention.log()).sum(), ENTROPY, atol=1e-9)


def test_gated_attention_padded_beside_a_longer_bag() -> None:
    hidden = torch.from_numpy(_ramp(4, 3, scale=1.0))
    batch = Bags.pad([Bag(hidden), Bag(torch.ones(9, 3))])
    with torch.no_grad():
        attention = softmax_over_instances(_layer()(batch.features.double()), batch)
        embedding = sum_over_instances(attention, batch.features.double(), batch)
    np.testing.assert_allclose(attention[0, :, 0], [*ATTENTION, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(embedding[0, 0], EMBEDDING, atol=1e-6)


def test_plain_attention_equals_its_equation() -> None:
    """Equation 8 of the paper in numpy, biases included."""
    rng = np.random.default_rng(0)
    hidden, content, score = rng.normal(size=(7, 3)), rng.normal(size=(2, 3)), rng.normal(size=(1, 2))
    layer = Attention(3, 2).double()
    with torch.no_grad():
        layer.content.weight.copy_(torch.from_numpy(content))
        layer.content.bias.copy_(torch.tensor([0.3, -0.2]))
        layer.score.weight.copy_(torch.from_numpy(score))
        layer.score.bias.fill_(0.7)
        raw = layer(torch.from_numpy(hidden))
    np.testing.assert_allclose(raw, np.tanh(hidden @ content.T + [0.3, -0.2]) @ score.T + 0.7, atol=1e-12)
