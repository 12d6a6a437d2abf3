"""TransMIL, RRT, S4MIL and the plain transformer against slow references written out from their equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from pathpipe.errors import SettingsError, StoreError
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.grid import Ppeg, from_regions, square_side, to_regions, wrapped_to_square
from pathpipe.mil.model import MILModule
from pathpipe.mil.models.vit import Block, Vit
from pathpipe.mil.nystrom import NystromAttention, pseudo_inverse
from pathpipe.mil.position import sincos_2d
from pathpipe.mil.region_attention import CrossRegionAttention, MultiHeadAttention
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.mil.s4d import S4D, S4DKernel, causal_convolution
from pathpipe.testing.bags import random_bag


@pytest.mark.parametrize(
    ("name", "parameters"),
    # rrt: 524,800 + 1,050,624 (qkv, out) + 120 (EPEG without bias) + 1,536 + 1,050,624 + 3 norms + 65,664 + 1,026
    [("transmil", 2_672_146), ("s4mil", 1_085_954), ("rrt", 2_697_466), ("vit", 4_732_930)],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in build_model(Recipe(name), 1024, 2).parameters()) == parameters


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 1000])
def test_a_square_is_filled_with_the_first_tiles(count: int) -> None:
    side = math.ceil(math.sqrt(count))
    assert square_side(count) == side
    tokens = torch.arange(float(count))[:, None]
    square = wrapped_to_square(tokens)
    assert len(square) == side**2
    assert torch.equal(square[:count], tokens)
    assert torch.equal(square[count:], tokens[: side**2 - count])


def test_position_encoding_is_three_convolutions_and_nothing_when_they_are_zero() -> None:
    torch.manual_seed(0)
    layer, tokens = Ppeg(6), torch.randn(2, 25, 6)
    image = tokens.transpose(1, 2).reshape(2, 6, 5, 5)
    expected = image + sum(conv(image) for conv in (layer.seven, layer.five, layer.three))
    torch.testing.assert_close(layer(tokens), expected.flatten(2).transpose(1, 2))
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(layer(tokens), tokens)


def _softmax_attention(layer: NystromAttention, tokens: Tensor) -> Tensor:
    """Full attention with the layer's weights, the convolution of the values added."""
    query, key, value = layer.to_qkv(tokens).unflatten(-1, (3, layer.heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
    return layer.to_out((weights @ value + layer.residual(value)).transpose(1, 2).flatten(2))


def test_nystrom_with_a_landmark_a_token_is_full_attention() -> None:
    torch.manual_seed(0)
    layer = NystromAttention(32, 4, landmarks=24, iterations=30, zero_tokens=True, dropout=0.0).double()
    tokens = torch.randn(2, 24, 32, dtype=torch.float64) * 3
    attended, row = layer(tokens)
    torch.testing.assert_close(attended, _softmax_attention(layer, tokens), rtol=0, atol=1e-3)
    torch.testing.assert_close(row.sum(-1), torch.ones(2, 4, dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(layer.first(tokens), attended[:, 0])


@pytest.mark.parametrize("zero_tokens", [True, False])
@pytest.mark.parametrize("count", [3, 8, 37])
def test_nystrom_is_its_three_matrices(count: int, zero_tokens: bool) -> None:
    """Softmax(Q Kl) pinv(Softmax(Ql Kl)) Softmax(Ql K) V with numpy's inverse, every matrix written out."""
    torch.manual_seed(0)
    layer = NystromAttention(8, 2, landmarks=4, iterations=60, zero_tokens=zero_tokens, dropout=0.0).double()
    tokens = torch.randn(1, count, 8, dtype=torch.float64) * 3
    run = -(-count // 4)
    runs = 4 if zero_tokens else -(-count // run)
    front = run * runs - count
    filled = torch.cat([torch.zeros(front, 8, dtype=torch.float64), tokens[0]])
    used = filled if zero_tokens else tokens[0]
    groups = [filled[run * i : run * (i + 1)] for i in range(runs)]
    if not zero_tokens:
        groups[0] = groups[0][front:]
    outs, rows = [], []
    begin = front if zero_tokens else 0
    weight_q, weight_k, weight_v = layer.to_qkv.weight.detach().view(3, 2, 4, 8).unbind(0)
    for head in range(2):
        query, key, value = (used @ w[head].T for w in (weight_q, weight_k, weight_v))
        means = torch.stack([group.mean(0) for group in groups])
        landmark_q, landmark_k = means @ weight_q[head].T, means @ weight_k[head].T
        first = (query @ landmark_k.T / 2).softmax(-1)
        inner = np.linalg.pinv((landmark_q @ landmark_k.T / 2).softmax(-1).numpy())
        matrix = first @ torch.from_numpy(inner) @ (landmark_q @ key.T / 2).softmax(-1)
        near = conv2d(value[None, None], layer.residual.weight[head][None], padding=(16, 0))[0, 0]
        outs.append((matrix @ value + near)[begin:])
        rows.append(matrix[begin, begin:])
    attended, row = layer(tokens)
    torch.testing.assert_close(attended[0], layer.to_out(torch.cat(outs, 1)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(row[0], torch.stack(rows), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(layer.first(tokens)[0], attended[0, 0])


def test_zero_tokens_make_no_difference_where_none_are_needed() -> None:
    torch.manual_seed(0)
    layer = NystromAttention(8, 2, landmarks=4, iterations=6, zero_tokens=True, dropout=0.0)
    tokens = torch.randn(1, 12, 8)
    with_them = layer(tokens)[0]
    layer.zero_tokens = False
    torch.testing.assert_close(layer(tokens)[0], with_them)


def test_pseudo_inverse_of_a_sample_does_not_depend_on_its_company() -> None:
    torch.manual_seed(0)
    alone = torch.randn(1, 2, 5, 5).softmax(-1)
    together = torch.cat([alone, 50 * torch.rand(1, 2, 5, 5)])
    torch.testing.assert_close(pseudo_inverse(together, 6)[:1], pseudo_inverse(alone, 6))


def test_transmil_takes_bags_of_equal_length_together_as_one_by_one() -> None:
    model = _random("transmil", {"hidden": 16, "heads": 2, "landmarks": 8})
    bags = [random_bag(30, 6, seed=seed) for seed in range(3)] + [random_bag(28, 6), random_bag(9, 6)]
    together = model(Bags.pack(bags))
    alone = [model(Bags.pack([bag])) for bag in bags]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together.attention_raw, torch.cat([one.attention_raw for one in alone]))
    assert together.attention_raw.shape == (127, 2)
    assert not together.attention_raw.requires_grad


@pytest.mark.parametrize("count", [1, 4, 5, 64, 65, 200])
@pytest.mark.parametrize("regions", [1, 2, 8])
def test_regions_round_trip_and_hold_neighbours_of_the_square(count: int, regions: int) -> None:
    tokens = torch.arange(1.0, count + 1)[:, None].repeat(1, 3)
    parts = to_regions(tokens, regions)
    size = math.isqrt(parts.shape[1])
    assert parts.shape[0] == regions**2 and size**2 == parts.shape[1]
    assert torch.equal(from_regions(parts, count), tokens)
    assert parts.count_nonzero() == tokens.count_nonzero()
    side = size * regions
    square = torch.cat([tokens[:, 0], torch.zeros(side**2 - count)]).view(side, side)
    last = regions - 1
    assert torch.equal(parts[regions * last, :, 0].view(size, size), square[last * size :, :size])


def test_position_encoding_by_queries_is_a_convolution_of_the_attention_map() -> None:
    torch.manual_seed(0)
    layer, tokens = MultiHeadAttention(12, 3, 0.0, kernel=5), torch.randn(4, 9, 12)
    query, key, value = layer.to_qkv(tokens).unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)
    scores = query @ key.mT / 2
    assert layer.position is not None
    bias = torch.tensor([0.3, -1.0, 2.0])  # of the published code: a softmax can't feel it
    convolved = conv2d(scores, layer.position.weight, bias, padding=(2, 0), groups=3)
    expected = layer.to_out(((scores + convolved).softmax(-1) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(tokens), expected)


def test_a_zero_position_encoding_is_plain_attention() -> None:
    torch.manual_seed(0)
    layer, tokens = MultiHeadAttention(12, 3, 0.0, kernel=5), torch.randn(4, 9, 12)
    assert layer.position is not None
    nn.init.zeros_(layer.position.weight)
    plain = nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        plain.in_proj_weight.copy_(layer.to_qkv.weight)
        plain.in_proj_bias.copy_(layer.to_qkv.bias)
    plain.out_proj.load_state_dict(layer.to_out.state_dict())
    torch.testing.assert_close(layer(tokens), plain(tokens, tokens, tokens)[0])


def test_cross_region_attention_hands_back_by_its_equations() -> None:
    torch.manual_seed(0)
    layer, regions = CrossRegionAttention(8, 2, tokens=3, dropout=0.0), torch.randn(4, 6, 8)
    scores = regions @ layer.score.weight.T  # (R, p, n)
    summaries = torch.einsum("rpn,rpc->nrc", scores.softmax(1), regions)
    attended = layer.attend(summaries)
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    weights = (scores - low) / (high - low) * scores.softmax(2)
    torch.testing.assert_close(layer(regions), torch.einsum("rpn,nrc->rpc", weights, attended))


def test_one_summary_a_region_is_shared_out_by_the_rescaled_score_alone() -> None:
    scores = torch.tensor([[[0.0, 1.0, 4.0]]])
    torch.testing.assert_close(CrossRegionAttention.handed_back(scores), torch.tensor([[[0.0, 0.25, 1.0]]]))
    for dtype in (torch.float32, torch.float16):  # a region of one tile, and one of zeros alone
        assert not CrossRegionAttention.handed_back(torch.ones(1, 2, 1, dtype=dtype)).any()
        assert not CrossRegionAttention.handed_back(torch.zeros(1, 2, 4, dtype=dtype)).any()


def test_state_space_kernel_is_the_recurrence() -> None:
    """x_l = e^(dt A) x_(l-1) + (e^(dt A) - 1) / A u_l, y = 2 Re C x, tile by tile in complex128."""
    torch.manual_seed(0)
    kernel, signal = S4DKernel(3, 4).double(), torch.randn(3, 50, dtype=torch.float64)
    rate = torch.complex(-kernel.log_decay.exp(), kernel.frequency)
    decay = (rate * kernel.log_dt.exp()[:, None]).exp()
    state, outputs = torch.zeros(3, 4, dtype=torch.cdouble), []
    for step in range(50):
        state = decay * state + (decay - 1) / rate * signal[:, step : step + 1]
        outputs.append(2 * (torch.view_as_complex(kernel.c) * state).sum(1).real)
    torch.testing.assert_close(causal_convolution(kernel(50), signal), torch.stack(outputs, 1))
    single = S4DKernel(3, 4)
    single.load_state_dict(kernel.state_dict())
    got = causal_convolution(single.float()(50), signal.float())
    torch.testing.assert_close(got, torch.stack(outputs, 1).float(), rtol=1e-4, atol=1e-4)


def test_a_longer_kernel_begins_like_a_shorter_one() -> None:
    torch.manual_seed(0)
    kernel = S4DKernel(5, 16)
    torch.testing.assert_close(kernel(1000)[:, :37], kernel(37), rtol=1e-4, atol=1e-5)


def test_state_space_layer_looks_back_only() -> None:
    torch.manual_seed(0)
    layer, features = S4D(6, 4), torch.randn(20, 6)
    changed = features.clone()
    changed[12] += 1.0
    before, after = (layer(Bags.pack([Bag(part)])).features for part in (features, changed))
    torch.testing.assert_close(before[:12], after[:12])
    assert (before[12:] - after[12:]).abs().amax(1).min() > 1e-6


def _full_transformer(model: Vit, tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the class token's attention in the last block, by torch's own layers on all tokens."""
    options = model.options
    mlp_dim = round(options.mlp_ratio * options.hidden)
    tokens = torch.cat([model.token, model.embed(tiles)])[None]
    for block in (*model.blocks, model.last):
        assert isinstance(block, Block)
        layer = nn.TransformerEncoderLayer(
            options.hidden, options.heads, mlp_dim, 0.0, "gelu", batch_first=True, norm_first=True
        ).train()  # evaluation takes a fused path
        weights = {
            "self_attn.in_proj": block.to_qkv, "self_attn.out_proj": block.to_out, "linear1": block.mlp[0],
            "linear2": block.mlp[3], "norm1": block.norms[0], "norm2": block.norms[1],
        }  # fmt: skip
        values = {
            f"{name}{'_' if name.endswith('in_proj') else '.'}{part}": getattr(module, part)
            for name, module in weights.items()
            for part in ("weight", "bias")
        }
        layer.load_state_dict(values)
        inner = layer.norm1(tokens)
        attention = layer.self_attn(inner, inner, inner, average_attn_weights=False)[1][0, :, 0]  # (H, 1 + N)
        tokens = layer(tokens)
    return model.head(model.norm(tokens[:, 0])), attention[:, 1:].T


@pytest.mark.parametrize("layers", [1, 3])
def test_plain_transformer_is_torchs_own(layers: int) -> None:
    model = _random("vit", {"hidden": 16, "heads": 2, "layers": layers})
    assert isinstance(model, Vit)
    tiles = torch.from_numpy(random_bag(11, 6).features)
    with torch.no_grad():
        output = model(Bags.pack([Bag(tiles)]))
        logits, attention = _full_transformer(model, tiles)
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.attention, attention / attention.sum(0))


def test_positions_are_sines_and_cosines_of_each_axis() -> None:
    got = sincos_2d(torch.tensor([[0, 0], [2, 3]]), 8)
    assert got[0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    expected = [f(v * r) for v in (2, 3) for f in (math.sin, math.cos) for r in (1, 0.01)]
    np.testing.assert_allclose(got[1], expected, rtol=1e-6)


def test_positions_matter_only_relative_to_the_bag_and_only_when_asked_for() -> None:
    bag = random_bag(12, 6)
    assert bag.xy0 is not None
    moved = Bag(bag.features, bag.xy0 + np.array([1000, 70_000]))
    stretched = Bag(bag.features, bag.xy0 * 2)
    for position in ("none", "sincos"):
        model = _random("vit", {"hidden": 16, "heads": 2, "position": position})
        here, there, wide = (model(Bags.pack([one])).logits for one in (bag, moved, stretched))
        torch.testing.assert_close(here, there)
        assert torch.allclose(here, wide) == (position == "none")
        wider_steps = _random("vit", {"hidden": 16, "heads": 2, "position": position, "step_px": 512})
        torch.testing.assert_close(wider_steps(Bags.pack([stretched])).logits, here)


def test_positions_need_coordinates() -> None:
    model = _random("vit", {"hidden": 16, "heads": 2, "position": "sincos"})
    with pytest.raises(StoreError, match=r"no coordinates.*position=none"):
        model(Bags.pack([Bag(random_bag(3, 6).features)]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transmil", {"hidden": 20}, "hidden .20. must be divisible by heads .8."),
        ("rrt", {"hidden": 20}, "hidden .20. must be divisible by heads .8."),
        ("rrt", {"kernel": 4}, "kernel .4. must be odd"),
        ("vit", {"hidden": 20}, "hidden .20. must be divisible by heads .8."),
        ("vit", {"hidden": 6, "heads": 2, "position": "sincos"}, "divisible by 4"),
        ("s4mil", {"state": 3}, "multiple of 2"),
    ],
)
def test_refuses_options_that_do_not_fit_together(name: str, options: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_model(Recipe(name, options), 6, 2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("transmil", {"iterations": 1}),
        ("transmil", {"zero_tokens": False}),
        ("rrt", {"layers": 2}),
        ("rrt", {"regions": 3}),
        ("rrt", {"kernel": 1}),
        ("rrt", {"cross_tokens": 1}),
        ("rrt", {"shortcut": True}),
        ("rrt", {"attention_dim": 3}),
        ("s4mil", {"state": 4}),
        ("s4mil", {"activation": "gelu"}),
        ("vit", {"layers": 1}),
        ("vit", {"mlp_ratio": 1.0}),
    ],
)
def test_options_change_the_answer(name: str, options: dict) -> None:
    small = {"hidden": 16} if name == "s4mil" else {"hidden": 16, "heads": 2}
    small |= {"landmarks": 8} if name == "transmil" else {}
    small |= {"regions": 2} if name == "rrt" else {}
    batch = Bags.pack([random_bag(30, 6)])
    plain, other = (_random(name, given)(batch).logits for given in (small, small | options))
    assert not torch.allclose(plain, other, atol=1e-4)


def _random(name: str, options: dict) -> MILModule:
    torch.manual_seed(0)
    model = build_model(Recipe(name, options), 6, 2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model
