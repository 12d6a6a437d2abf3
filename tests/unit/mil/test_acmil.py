"""ACMIL: branches, masking and likeness, and multi-head attention without keys and values against one with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import layer_norm

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bags
from pathpipe.mil.losses import map_similarity
from pathpipe.mil.models.acmil import Acmil
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.testing.bags import random_bag

DIM = 6


def build(outputs: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    model = build_model(Recipe("acmil", {"hidden": 8, "attention_dim": 4, "dropout": 0.0, **options}), DIM, outputs)
    assert isinstance(model, Acmil)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.5)
    return model.eval()


def test_parameter_counts() -> None:
    def count(**options: Any) -> int:
        return sum(p.numel() for p in build_model(Recipe("acmil", options), 1024, 2).parameters())

    assert count() == 662_417
    linear, heads = 512 * 512 + 512, 6 * (512 * 2 + 2)
    branch = 512 + linear + 512 * 512 + 2 * linear + 1024  # query, its layer, keys, values and output, norm
    assert count(attention="multi-head") == 1024 * 512 + 5 * branch + 2 * linear + 1024 + heads


@pytest.mark.parametrize("attention", ["gated", "multi-head"])
@pytest.mark.parametrize(
    ("top", "ratio", "masked"), [(10, 0.6, 6), (3, 0.6, 1), (1, 0.6, 0), (10, 0.0, 0), (0, 1.0, 0)]
)
def test_training_masks_a_share_of_the_strongest_of_each_map(
    attention: str, top: int, ratio: float, masked: int
) -> None:
    model = build(attention=attention, mask_top=top, mask_ratio=ratio)
    batch = Bags.pack([random_bag(25, DIM), random_bag(40, DIM)])
    plain, training = model(batch), model.train()(batch)
    for raw, weights in zip(batch.split(plain.attention_raw), batch.split(training.attention), strict=True):
        for column in range(raw.shape[1]):
            gone = set((weights[:, column] == 0).nonzero()[:, 0].tolist())
            assert len(gone) == masked
            assert gone <= set(raw[:, column].argsort(descending=True)[:top].tolist())
        torch.testing.assert_close(weights.sum(0), torch.ones(raw.shape[1]))
    if masked == 6:
        assert (training.attention == 0).any(1).sum() > 12  # maps draw by themselves
    if not masked:
        torch.testing.assert_close(training.attention, plain.attention)


def test_every_one_of_the_strongest_is_masked_sometimes() -> None:
    model, batch = build(branches=1, mask_top=5, mask_ratio=0.4).train(), Bags.pack([random_bag(12, DIM)])
    raw = build(branches=1)(batch).attention_raw[:, 0]
    counts = sum((model(batch).attention[:, 0] == 0).int() for _ in range(200))
    best = raw.argsort(descending=True)[:5]
    assert isinstance(counts, torch.Tensor) and counts.sum() == 400
    assert counts[best].sum() == 400 and (counts[best] - 80).abs().max() < 30


@pytest.mark.parametrize("instances", [1, 2, 5])
def test_masking_never_takes_all_of_a_bag(instances: int) -> None:
    model = build(mask_top=10, mask_ratio=1.0).train()
    batch = Bags.pad([random_bag(instances, DIM), random_bag(9, DIM)])
    attention = model(batch).attention
    assert batch.mask is not None and torch.isfinite(attention).all()
    torch.testing.assert_close(attention.sum(1), torch.ones(2, 5))
    assert (attention[~batch.mask] == 0).all() and (attention[0] > 0).sum() == 5


def test_branches_and_likeness_join_the_loss() -> None:
    model = build(mask_top=0).train()
    batch = Bags.pack([random_bag(9, DIM), random_bag(4, DIM)])
    output = model(batch)
    rows = output.auxiliary["branches"]
    assert rows.bag.tolist() == [0] * 5 + [1] * 5 and rows.share is None
    hidden = model.encode(batch).features
    for bag, (features, maps) in enumerate(zip(batch.split(hidden), batch.split(output.attention), strict=True)):
        for branch, head in enumerate(model.branch_heads):
            torch.testing.assert_close(rows.logits[bag * 5 + branch], head(maps[:, branch] @ features))
        torch.testing.assert_close(output.logits[bag], model.head(maps.mean(1) @ features))
    expected = torch.stack([map_similarity(maps) for maps in batch.split(output.attention)]).mean()
    torch.testing.assert_close(output.losses["diversity"], expected)
    total = output.total_loss(lambda logits, bag, share: torch.tensor(1.0 if bag is None else 2.0))
    assert total.item() == pytest.approx(3.0 + expected.item())
    weighed = build(mask_top=0, branch_weight=0.5, diversity_weight=0.0).train()(batch)
    assert weighed.total_loss(lambda logits, bag, share: torch.tensor(1.0 if bag is None else 2.0)).item() == 2.0


def test_a_level_start_is_that_of_the_branches_too() -> None:
    model = build()
    model.level([1])
    for head in (model.head, *model.branch_heads):
        assert not head.weight[1].any() and head.bias[1] == 0 and head.weight[0].any()


def test_one_branch_is_gated_attention() -> None:
    model, batch = build(branches=1, mask_top=0), Bags.pack([random_bag(9, DIM), random_bag(4, DIM)])
    other = build_model(Recipe("gated-abmil", {"hidden": 8, "attention_dim": 4, "dropout": 0.0}), DIM, 3)
    state = {name.replace("branches.attend", "attend"): value for name, value in model.state_dict().items()}
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert missing == ["embed.0.bias"] and not unexpected
    for mode in (True, False):
        mine, theirs = model.train(mode)(batch), other.train(mode)(batch)
        torch.testing.assert_close(mine.logits, theirs.logits)
        torch.testing.assert_close(mine.attention, theirs.attention)
        assert not mine.auxiliary and not mine.losses


@torch.no_grad()
def test_multi_head_attention_with_keys_and_values_written_out() -> None:
    heads, width = 4, 8
    model = build(attention="multi-head", heads=heads, mask_top=0)
    for probe in model.branches.probes:
        probe.query.normal_()
    bag = random_bag(13, DIM)
    output = model.train()(Bags.pack([bag]))
    hidden = model.encode(Bags.pack([bag])).features
    maps, rows = [], []
    for branch, (probe, out) in enumerate(zip(model.branches.probes, model.branches.outputs, strict=True)):
        query = probe.query_layer(probe.query).view(heads, -1)
        keys = probe.key_layer(hidden).view(13, heads, -1)
        weights = (torch.einsum("hd,nhd->nh", query, keys) / (width // heads) ** 0.5).softmax(0)
        torch.testing.assert_close(output.attention.view(13, heads, 5)[..., branch], weights)
        maps.append(weights)
        rows.append(model.branch_heads[branch](attended(out, weights, hidden)))
    torch.testing.assert_close(output.auxiliary["branches"].logits, torch.stack(rows))
    bag_feature = attended(model.branches.bag_output, torch.stack(maps).mean(0), hidden)
    torch.testing.assert_close(output.embedding[0], bag_feature)
    torch.testing.assert_close(output.losses["diversity"], map_similarity(torch.stack(maps, dim=2)))


def attended(out: Any, weights: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """What the heads (N, H) attend to, values written out, through output layer and norm."""
    values = out.value(hidden).view(len(hidden), weights.shape[1], -1)
    joined = torch.einsum("nh,nhd->hd", weights, values).flatten()
    return layer_norm(out.out(joined), (len(joined),), out.norm.weight, out.norm.bias, 1e-6)


def test_multi_head_attention_starts_even() -> None:
    model = build_model(Recipe("acmil", {"hidden": 8, "attention": "multi-head"}), DIM, 2).eval()
    attention = model(Bags.pack([random_bag(10, DIM)])).attention
    torch.testing.assert_close(attention, torch.full((10, 40), 0.1), rtol=0, atol=1e-5)


def test_refuses_heads_that_do_not_fit() -> None:
    with pytest.raises(SettingsError, match="hidden 8 can't be shared by 3 heads"):
        build(attention="multi-head", heads=3)
