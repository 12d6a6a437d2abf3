"""DSMIL: critical instances, attention by likeness to them, and two streams with one target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pathpipe.mil.bag import Bags
from pathpipe.mil.models.dsmil import Dsmil
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.testing.bags import random_bag
from pathpipe.testing.contract import labelled

DIM = 6


def build(outputs: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    model = build_model(Recipe("dsmil", options), DIM, outputs)
    assert isinstance(model, Dsmil)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.3)
    return model.eval()


def test_parameter_counts() -> None:
    def count(**options: Any) -> int:
        return sum(p.numel() for p in build_model(Recipe("dsmil", options), 1024, 2).parameters())

    assert count() == 153_860
    assert count(value_layer=True) == 153_860 + 1024 * 1024 + 1024
    assert count(hidden=512) == 1024 * 512 + 512 + 512 * 2 + 2 + 512 * 128 + 128 + 128 * 128 + 128 + 2 * 512 * 2 + 2


@torch.no_grad()
def test_a_forward_pass_written_out_in_numpy() -> None:
    model, bag = build(), random_bag(11, DIM)
    output = model(Bags.pack([bag]))
    weight = {name: value.numpy().astype(np.float64) for name, value in model.state_dict().items()}
    x = np.asarray(bag.features, np.float64)
    scores = x @ weight["head.weight"].T + weight["head.bias"]
    inner = np.maximum(x @ weight["query.0.weight"].T + weight["query.0.bias"], 0)
    queries = np.tanh(inner @ weight["query.2.weight"].T + weight["query.2.bias"])
    vectors = []
    for column in range(3):
        likeness = queries @ queries[scores[:, column].argmax()] / np.sqrt(128)
        share = np.exp(likeness - likeness.max())
        share /= share.sum()
        np.testing.assert_allclose(output.attention[:, column].numpy(), share, rtol=1e-5)
        vectors.append(share @ x)
    # the published bag classifier: a convolution with C channels in and out, as wide as a bag vector
    convolution = nn.Conv1d(3, 3, DIM)
    convolution.weight.copy_(model.bag_head.weight.view(3, 3, DIM))
    assert convolution.bias is not None
    convolution.bias.copy_(model.bag_head.bias)
    expected = convolution(torch.tensor(np.stack(vectors), dtype=torch.float32)[None])[0, :, 0]
    torch.testing.assert_close(output.logits[0], expected)


def test_queries_of_zero_give_even_attention() -> None:
    model = build()
    with torch.no_grad():
        model.query[2].weight.zero_()
        model.query[2].bias.zero_()
    attention = model(Bags.pack([random_bag(8, DIM)])).attention
    torch.testing.assert_close(attention, torch.full((8, 3), 1 / 8))


def test_the_max_stream_is_trained_by_the_tasks_loss_and_weighs_half() -> None:
    model = build().train()
    batch = labelled(Bags.pack([random_bag(8, DIM), random_bag(3, DIM)]), torch.tensor([1, 0]))
    output = model(batch)
    stream = output.auxiliary["max"]
    expected = torch.stack([part.max(0).values for part in batch.split(output.instance_logits)])
    assert torch.equal(stream.logits, expected) and stream.bag.tolist() == [0, 1] and not output.losses

    def criterion(logits: torch.Tensor, bag: Any, share: Any) -> torch.Tensor:
        return logits.new_tensor(4.0 if bag is None else 10.0)

    assert output.total_loss(criterion).item() == 0.5 * 4 + 0.5 * 10
    assert build(max_weight=0.25).train()(batch).total_loss(criterion).item() == 0.75 * 4 + 0.25 * 10


def test_average_is_of_both_streams_and_in_prediction_only() -> None:
    batch = Bags.pack([random_bag(8, DIM), random_bag(3, DIM)])
    plain, both = build(), build(average=True)
    output = plain(batch)
    stream = torch.stack([part.max(0).values for part in batch.split(output.instance_logits)])
    torch.testing.assert_close(both(batch).logits, (output.logits + stream) / 2)
    torch.testing.assert_close(both.train()(batch).logits, output.logits)
    assert not output.auxiliary


def test_the_value_layer_is_what_is_summed() -> None:
    model, batch = build(value_layer=True), Bags.pack([random_bag(8, DIM)])
    output = model(batch)
    expected = output.attention.T @ model.value(batch.features)
    torch.testing.assert_close(output.embedding, expected.flatten()[None])


@pytest.mark.parametrize("hidden", [None, 5])
def test_stages_join_to_the_whole(hidden: int | None) -> None:
    model, batch = build(hidden=hidden), Bags.pack([random_bag(8, DIM)])
    inner = model.encode(batch)
    assert inner.features.shape == (8, hidden or DIM)
    assert torch.equal(model.aggregate(inner).logits, model(batch).logits)
    torch.testing.assert_close(model.head(inner.features), model(batch).instance_logits)
