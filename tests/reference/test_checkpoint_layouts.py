"""What each family's checkpoint computes, in plain torch functions with its own names, against our network.

Small networks of each family with random weights: an error in a key, an order of query, key and value, an epsilon, a
scale or an activation shows as a different vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pathpipe.encoders.build import Pooled, build_network
from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.encoder import EncoderRecord, Pooling
from pathpipe.encoders.layouts import rename
from pathpipe.encoders.weights import fit_positions, load_strictly
from tests.unit.encoders import published
from tests.unit.encoders.published import State

DIM, DEPTH, PATCH, GRID, HEADS = 32, 2, 8, 4, 4
SIDE = PATCH * GRID


def _ours(
    like: str, state: State, images: torch.Tensor, smaller: dict[str, Any], pooling: Pooling | None = None
) -> torch.Tensor:
    record: EncoderRecord = encoder_record(like)
    arguments = {**record.arguments, **smaller}
    record = record.model_copy(update={"arguments": arguments, "pooling": pooling or record.pooling})
    network = build_network(record)
    renamed = fit_positions(network, rename(record.layout, dict(state)), record.layout)
    load_strictly(network, renamed, Path(like))
    with torch.inference_mode():
        return Pooled(network, record.pooling).eval()(images)


def _images(side: int = SIDE) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(5))


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert expected.std() > 0.05 and (expected[0] - expected[1]).abs().max() > 0.01, "nothing to compare"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def _linear(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def _norm(x: torch.Tensor, state: State, name: str, eps: float = 1e-6) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _batch_norm(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"])


def _attend(qkv: Sequence[torch.Tensor], heads: int) -> torch.Tensor:
    """Softmax attention, head by head."""
    out = []
    for one, two, three in zip(*(part.chunk(heads, -1) for part in qkv), strict=True):
        scores = one @ two.transpose(-1, -2) / one.shape[-1] ** 0.5
        out.append(scores.softmax(-1) @ three)
    return torch.cat(out, -1)


def _patches(images: torch.Tensor, state: State, name: str, patch: int = PATCH) -> torch.Tensor:
    tokens = F.conv2d(images, state[f"{name}.weight"], state.get(f"{name}.bias"), stride=patch)
    return tokens.flatten(2).transpose(1, 2)


def _three(x: torch.Tensor, state: State, names: tuple[str, str, str]) -> torch.Tensor:
    return _attend([_linear(x, state, name) for name in names], HEADS)


def test_hugging_face_vit() -> None:
    state, images = published.filled(published.hf_vit(DIM, DEPTH, PATCH, GRID, 64)), _images()
    x = _patches(images, state, "embeddings.patch_embeddings.projection")
    x = torch.cat([state["embeddings.cls_token"].expand(2, -1, -1), x], 1) + state["embeddings.position_embeddings"]
    for number in range(DEPTH):
        layer = f"encoder.layer.{number}"
        h = _norm(x, state, f"{layer}.layernorm_before", 1e-12)
        own = f"{layer}.attention.attention"
        x = x + _linear(
            _three(h, state, (f"{own}.query", f"{own}.key", f"{own}.value")), state, f"{layer}.attention.output.dense"
        )
        h = F.gelu(_linear(_norm(x, state, f"{layer}.layernorm_after", 1e-12), state, f"{layer}.intermediate.dense"))
        x = x + _linear(h, state, f"{layer}.output.dense")
    expected = _norm(x, state, "layernorm", 1e-12)[:, 0]
    small = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": DIM,
        "depth": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": 2,
    }
    _close(_ours("phikon", state, images, small), expected)


def _dinov2(images: torch.Tensor, state: State, position: torch.Tensor) -> torch.Tensor:
    """All tokens of a Hugging Face Dinov2, with or without registers and SwiGLU."""
    x = _patches(images, state, "embeddings.patch_embeddings.projection")
    x = torch.cat([state["embeddings.cls_token"].expand(2, -1, -1), x], 1) + position
    if "embeddings.register_tokens" in state:
        x = torch.cat([x[:, :1], state["embeddings.register_tokens"].expand(2, -1, -1), x[:, 1:]], 1)
    for number in range(DEPTH):
        layer = f"encoder.layer.{number}"
        own = f"{layer}.attention.attention"
        h = _norm(x, state, f"{layer}.norm1")
        h = _three(h, state, (f"{own}.query", f"{own}.key", f"{own}.value"))
        x = x + state[f"{layer}.layer_scale1.lambda1"] * _linear(h, state, f"{layer}.attention.output.dense")
        h = _norm(x, state, f"{layer}.norm2")
        if f"{layer}.mlp.weights_in.weight" in state:
            gate, value = _linear(h, state, f"{layer}.mlp.weights_in").chunk(2, -1)
            h = _linear(F.silu(gate) * value, state, f"{layer}.mlp.weights_out")
        else:
            h = _linear(F.gelu(_linear(h, state, f"{layer}.mlp.fc1")), state, f"{layer}.mlp.fc2")
        x = x + state[f"{layer}.layer_scale2.lambda1"] * h
    return _norm(x, state, "layernorm")


@pytest.mark.parametrize(
    ("like", "swiglu", "registers"), [("phikon-v2", False, 0), ("midnight-12k", True, 0), ("hibou-b", True, 4)]
)
def test_hugging_face_dinov2(like: str, swiglu: bool, registers: int) -> None:
    hidden = 48
    shapes = published.hf_dinov2(DIM, DEPTH, PATCH, GRID, hidden, swiglu=swiglu, registers=registers)
    state, images = published.filled(shapes), _images()
    tokens = _dinov2(images, state, state["embeddings.position_embeddings"])
    ratio = (2 if swiglu else 1) * hidden / DIM
    small = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": DIM,
        "depth": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": ratio,
    }
    _close(_ours(like, state, images, small, "cls"), tokens[:, 0])
    mean = tokens[:, 1 + registers :].mean(1)  # registers belong to no mean
    _close(_ours(like, state, images, small, "mean"), mean)
    _close(_ours(like, state, images, small, "cls+mean"), torch.cat([tokens[:, 0], mean], -1))


def test_positions_of_another_input_size_are_stretched_as_hugging_face_does() -> None:
    state = published.filled(published.hf_dinov2(DIM, DEPTH, PATCH, 6, 48))
    images, position = _images(), state["embeddings.position_embeddings"]
    grid = position[:, 1:].reshape(1, 6, 6, DIM).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(GRID, GRID), mode="bicubic", align_corners=False)
    stretched = torch.cat([position[:, :1], grid.permute(0, 2, 3, 1).reshape(1, GRID * GRID, DIM)], 1)
    small = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": DIM,
        "depth": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": 1.5,
    }
    _close(_ours("phikon-v2", state, images, small), _dinov2(images, state, stretched)[:, 0])


def test_dinov2_with_registers_and_sharded_blocks() -> None:
    state = published.filled(published.dinov2(DIM, DEPTH, PATCH, GRID, 48, swiglu=True, registers=4, chunk=1))
    images = _images()
    x = _patches(images, state, "patch_embed.proj")
    x = torch.cat([state["cls_token"].expand(2, -1, -1), x], 1) + state["pos_embed"]
    x = torch.cat([x[:, :1], state["register_tokens"].expand(2, -1, -1), x[:, 1:]], 1)
    for number in range(DEPTH):
        block = f"blocks.{number}.{number}"
        h = _attend(_linear(_norm(x, state, f"{block}.norm1"), state, f"{block}.attn.qkv").chunk(3, -1), HEADS)
        x = x + state[f"{block}.ls1.gamma"] * _linear(h, state, f"{block}.attn.proj")
        gate, value = _linear(_norm(x, state, f"{block}.norm2"), state, f"{block}.mlp.w12").chunk(2, -1)
        x = x + state[f"{block}.ls2.gamma"] * _linear(F.silu(gate) * value, state, f"{block}.mlp.w3")
    small = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": DIM,
        "depth": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": 3,
    }
    _close(_ours("openmidnight", state, images, small), _norm(x, state, "norm")[:, 0])


def test_clip_with_its_projection() -> None:
    state, images = published.filled(published.hf_clip(DIM, DEPTH, PATCH, GRID, 64, 512)), _images()
    own = {key.removeprefix("vision_model."): value for key, value in state.items()}
    x = _patches(images, own, "embeddings.patch_embedding")
    x = torch.cat([own["embeddings.class_embedding"].expand(2, 1, -1), x], 1)
    x = _norm(x + own["embeddings.position_embedding.weight"], own, "pre_layrnorm", 1e-5)
    for number in range(DEPTH):
        layer = f"encoder.layers.{number}"
        names = (f"{layer}.self_attn.q_proj", f"{layer}.self_attn.k_proj", f"{layer}.self_attn.v_proj")
        h = _three(_norm(x, own, f"{layer}.layer_norm1", 1e-5), own, names)
        x = x + _linear(h, own, f"{layer}.self_attn.out_proj")
        h = _linear(_norm(x, own, f"{layer}.layer_norm2", 1e-5), own, f"{layer}.mlp.fc1")
        x = x + _linear(h * torch.sigmoid(1.702 * h), own, f"{layer}.mlp.fc2")  # OpenAI's GELU
    expected = _norm(x[:, 0], own, "post_layernorm", 1e-5) @ state["visual_projection.weight"].T
    small = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": DIM,
        "depth": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": 2,
    }
    _close(_ours("plip", state, images, small), expected)


def _timm_trunk(
    images: torch.Tensor, state: State, position: torch.Tensor, scale: str | None, patch: int = PATCH
) -> torch.Tensor:
    """All normalised tokens of a ViT in timm's names."""
    x = _patches(images, state, "patch_embed.proj", patch)
    x = torch.cat([state["cls_token"].expand(len(images), -1, -1), x], 1) + position
    for number in range(DEPTH):
        block = f"blocks.{number}"
        one, two = (state[f"{block}.ls{i}.{scale}"] if scale else torch.ones(1) for i in (1, 2))
        h = _attend(_linear(_norm(x, state, f"{block}.norm1"), state, f"{block}.attn.qkv").chunk(3, -1), HEADS)
        x = x + one * _linear(h, state, f"{block}.attn.proj")
        h = F.gelu(_linear(_norm(x, state, f"{block}.norm2"), state, f"{block}.mlp.fc1"))
        x = x + two * _linear(h, state, f"{block}.mlp.fc2")
    return _norm(x, state, "norm")


def _part(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


SMALL = {"patch_size": PATCH, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}


def test_keep_is_a_projection_of_length_one() -> None:
    state, images = published.filled(published.keep(DIM, DEPTH, PATCH, GRID, 768)), _images()
    trunk = _part(state, "visual.")
    token = _timm_trunk(images, trunk, trunk["pos_embed"], "weight")[:, 0]
    projected = _linear(F.gelu(_linear(token, state, "visual_head.0")), state, "visual_head.2")
    found = _ours("keep", state, images, {"img_size": SIDE, **SMALL})
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2))
    _close(10 * found, 10 * projected / projected.norm(dim=-1, keepdim=True))


def test_conch_reads_its_tokens_with_one_query() -> None:
    state = published.filled(published.conch(DIM, DEPTH, 16, 28, 512, 768))
    images, trunk = _images(448), _part(state, "visual.trunk.")  # its builder's own size: 28 patches of 16 px
    tokens = _timm_trunk(images, trunk, trunk["pos_embed"], None, patch=16)
    pool = _part(state, "visual.attn_pool_contrast.")
    context, query = _norm(tokens, pool, "ln_k", 1e-5), _norm(pool["query"], pool, "ln_q", 1e-5).expand(2, 1, -1)
    bias = pool["attn.in_proj_bias"].chunk(3)
    q = query @ pool["attn.q_proj_weight"].T + bias[0]
    k = context @ pool["attn.k_proj_weight"].T + bias[1]
    v = context @ pool["attn.v_proj_weight"].T + bias[2]
    read = _linear(_attend((q, k, v), 8), pool, "attn.out_proj")[:, 0]
    expected = _norm(read, state, "visual.ln_contrast", 1e-5)
    small = {"embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}
    _close(_ours("conch", state, images, small), expected)


def test_conch_v1_5_stretches_its_positions_at_every_forward() -> None:
    grid, wanted = 4, 8
    state = published.filled(published.conch_v1_5(DIM, DEPTH, PATCH, grid, 768))
    images, trunk = _images(PATCH * wanted), _part(state, "trunk.")
    own = trunk["pos_embed"][:, 1:].reshape(1, grid, grid, DIM).permute(0, 3, 1, 2)
    factor = (wanted + 0.1) / grid  # DINO's safety from rounding, which its authors kept
    own = F.interpolate(own, scale_factor=(factor, factor), mode="bicubic").permute(0, 2, 3, 1).reshape(1, -1, DIM)
    tokens = _timm_trunk(images, trunk, torch.cat([trunk["pos_embed"][:, :1], own], 1), "gamma")
    pool = _part(state, "attn_pool_contrast.")
    key, value = _linear(_norm(tokens, pool, "ln_k", 1e-5), pool, "to_kv").chunk(2, -1)
    query = _linear(_norm(pool["query"], pool, "ln_q", 1e-5), pool, "to_q").expand(2, 1, -1)
    read = _linear(_attend((query, key, value), 8), pool, "to_out")[:, 0]
    expected = _norm(read, state, "ln_contrast", 1e-5)
    _close(_ours("conch-v1.5", state, images, {"img_size": PATCH * grid, **SMALL}), expected)


def test_beit3_image_expert() -> None:
    state, images = published.filled(published.beit3(DIM, DEPTH, PATCH, GRID, 64)), _images()
    x = _patches(images, state, "beit3.vision_embed.proj")
    x = torch.cat([state["beit3.vision_embed.cls_token"].expand(2, -1, -1), x], 1)
    x = x + state["beit3.encoder.embed_positions.A.weight"][2:]
    for number in range(DEPTH):
        layer = f"beit3.encoder.layers.{number}"
        h = _norm(x, state, f"{layer}.self_attn_layer_norm.A", 1e-5)
        names = (f"{layer}.self_attn.q_proj.A", f"{layer}.self_attn.k_proj.A", f"{layer}.self_attn.v_proj.A")
        h = _norm(_three(h, state, names), state, f"{layer}.self_attn.inner_attn_ln.A", 1e-5)
        x = x + _linear(h, state, f"{layer}.self_attn.out_proj.A")
        h = F.gelu(_linear(_norm(x, state, f"{layer}.final_layer_norm.A", 1e-5), state, f"{layer}.ffn.A.fc1"))
        x = x + _linear(_norm(h, state, f"{layer}.ffn.A.ffn_layernorm", 1e-5), state, f"{layer}.ffn.A.fc2")
    expected = _norm(x, state, "beit3.encoder.layer_norm.A", 1e-5)[:, 0]
    _close(_ours("musk", state, images, {"img_size": SIDE, "mlp_ratio": 2, **SMALL}), expected)


def _windows(x: torch.Tensor, state: State, block: str, heads: int, window: int, shift: int) -> torch.Tensor:
    """Swin's attention, window by window; windows that a shift wrapped around attend only within one region."""
    side = x.shape[1]
    x = torch.roll(x, (-shift, -shift), (1, 2))
    row = torch.arange(side)
    region = (row >= side - window).int() + (row >= side - shift).int() if shift else torch.zeros(side, dtype=torch.int)
    regions = region[:, None] * 3 + region[None, :]
    table = state[f"{block}.attn.relative_position_bias_table"]
    cells = [(i, j) for i in range(window) for j in range(window)]
    index = torch.tensor(
        [[(a[0] - b[0] + window - 1) * (2 * window - 1) + a[1] - b[1] + window - 1 for b in cells] for a in cells]
    )
    out = torch.zeros_like(x)
    for top in range(0, side, window):
        for left in range(0, side, window):
            part = x[:, top : top + window, left : left + window].reshape(len(x), window * window, -1)
            ids = regions[top : top + window, left : left + window].reshape(-1)
            apart = ids[:, None] != ids[None, :]
            q, k, v = _linear(part, state, f"{block}.attn.qkv").chunk(3, -1)
            read = []
            for head, (one, two, three) in enumerate(
                zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True)
            ):
                scores = one @ two.transpose(-1, -2) / one.shape[-1] ** 0.5 + table[index][..., head]
                read.append(scores.masked_fill(apart, float("-inf")).softmax(-1) @ three)
            done = _linear(torch.cat(read, -1), state, f"{block}.attn.proj")
            out[:, top : top + window, left : left + window] = done.reshape(len(x), window, window, -1)
    return torch.roll(out, (shift, shift), (1, 2))


def test_ctranspath_as_its_authors_publish_it() -> None:
    """Convolutional stem, shifted windows, merging of 2x2 tokens at the end of a stage."""
    dim, depths, heads, window, side = 16, (2, 2), (2, 4), 7, 112
    state = published.filled(published.ctranspath(dim, depths, heads, side))
    images = _images(side)
    x = images
    for conv, norm in (("0", "1"), ("3", "4")):
        name = "patch_embed.proj"
        x = F.conv2d(x, state[f"{name}.{conv}.weight"], stride=2, padding=1)
        x = F.relu(_batch_norm(x, state, f"{name}.{norm}"))
    x = F.conv2d(x, state["patch_embed.proj.6.weight"], state["patch_embed.proj.6.bias"]).permute(0, 2, 3, 1)
    x = _norm(x, state, "patch_embed.norm", 1e-5)
    for stage, depth in enumerate(depths):
        for number in range(depth):
            block = f"layers.{stage}.blocks.{number}"
            shift = window // 2 if number % 2 and x.shape[1] > window else 0
            x = x + _windows(_norm(x, state, f"{block}.norm1", 1e-5), state, block, heads[stage], window, shift)
            h = F.gelu(_linear(_norm(x, state, f"{block}.norm2", 1e-5), state, f"{block}.mlp.fc1"))
            x = x + _linear(h, state, f"{block}.mlp.fc2")
        if stage < len(depths) - 1:
            four = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
            merged = _norm(torch.cat(four, -1), state, f"layers.{stage}.downsample.norm", 1e-5)
            x = _linear(merged, state, f"layers.{stage}.downsample.reduction")
    expected = _norm(x, state, "norm", 1e-5).mean((1, 2))
    found = _ours(
        "ctranspath", state, images, {"embed_dim": dim, "depths": depths, "num_heads": heads, "img_size": side}
    )
    _close(found, expected)


def test_truncated_resnet_is_the_third_stage_averaged() -> None:
    state, images = published.filled(published.resnet50()), _images(64)
    state = {key: value / 5 if value.dim() == 4 else value for key, value in state.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return _batch_norm(x, state, name)

    x = F.relu(norm(F.conv2d(images, state["conv1.weight"], stride=2, padding=3), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, blocks in ((1, 3), (2, 4), (3, 6)):
        for number in range(blocks):
            block, stride = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            h = F.relu(norm(F.conv2d(x, state[f"{block}.conv1.weight"]), f"{block}.bn1"))
            h = F.relu(norm(F.conv2d(h, state[f"{block}.conv2.weight"], stride=stride, padding=1), f"{block}.bn2"))
            h = norm(F.conv2d(h, state[f"{block}.conv3.weight"]), f"{block}.bn3")
            if number == 0:
                x = norm(F.conv2d(x, state[f"{block}.downsample.0.weight"], stride=stride), f"{block}.downsample.1")
            x = F.relu(x + h)
    expected = x.mean((2, 3))
    found = _ours("resnet50-trunc", state, images, {})
    assert found.shape == (2, 1024)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
