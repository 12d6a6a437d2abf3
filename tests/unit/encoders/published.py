"""Checkpoints as each family publishes them: key names and shapes written down by hand, filled with random numbers."""

from __future__ import annotations

import torch

Shapes = dict[str, tuple[int, ...]]
State = dict[str, torch.Tensor]


def filled(shapes: Shapes, seed: int = 0) -> State:
    """Random values; norms near 1, so that a forward pass stays tame."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        values = 0.2 * torch.randn(shape, generator=generator)
        centred = name.endswith((".weight", "lambda1", "gamma", "running_var")) and len(shape) == 1
        state[name] = values.abs() + 0.7 if centred else values
    return state


def on_meta(shapes: Shapes) -> State:
    """Shapes alone: no memory."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _linear(name: str, inner: int, outer: int) -> Shapes:
    return {f"{name}.weight": (outer, inner), f"{name}.bias": (outer,)}


def _norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _batch_norm(name: str, dim: int) -> Shapes:
    buffers = {f"{name}.running_mean": (dim,), f"{name}.running_var": (dim,), f"{name}.num_batches_tracked": ()}
    return {**_norm(name, dim), **buffers}


def hf_vit(dim: int, depth: int, patch: int, grid: int, hidden: int) -> Shapes:
    """`ViTModel` of transformers with its pooler (Phikon)."""
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, dim),
        "embeddings.position_embeddings": (1, 1 + grid * grid, dim),
        "embeddings.patch_embeddings.projection.weight": (dim, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (dim,),
    }
    for number in range(depth):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{layer}.attention.attention.{part}", dim, dim)
        shapes |= _linear(f"{layer}.attention.output.dense", dim, dim)
        shapes |= _linear(f"{layer}.intermediate.dense", dim, hidden) | _linear(f"{layer}.output.dense", hidden, dim)
        shapes |= _norm(f"{layer}.layernorm_before", dim) | _norm(f"{layer}.layernorm_after", dim)
    return shapes | _norm("layernorm", dim) | _linear("pooler.dense", dim, dim)


def hf_dinov2(
    dim: int, depth: int, patch: int, grid: int, hidden: int, *, swiglu: bool = False, registers: int = 0
) -> Shapes:
    """`Dinov2Model` of transformers (Phikon-v2, Midnight), with registers Hibou's; `hidden` of SwiGLU is its gate's."""
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, dim),
        "embeddings.mask_token": (1, dim),
        "embeddings.position_embeddings": (1, 1 + grid * grid, dim),
        "embeddings.patch_embeddings.projection.weight": (dim, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (dim,),
    }
    if registers:
        shapes["embeddings.register_tokens"] = (1, registers, dim)
    for number in range(depth):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{layer}.attention.attention.{part}", dim, dim)
        shapes |= _linear(f"{layer}.attention.output.dense", dim, dim)
        shapes |= {f"{layer}.layer_scale1.lambda1": (dim,), f"{layer}.layer_scale2.lambda1": (dim,)}
        shapes |= _norm(f"{layer}.norm1", dim) | _norm(f"{layer}.norm2", dim)
        if swiglu:
            shapes |= _linear(f"{layer}.mlp.weights_in", dim, 2 * hidden)
            shapes |= _linear(f"{layer}.mlp.weights_out", hidden, dim)
        else:
            shapes |= _linear(f"{layer}.mlp.fc1", dim, hidden) | _linear(f"{layer}.mlp.fc2", hidden, dim)
    return shapes | _norm("layernorm", dim)


def hf_clip(dim: int, depth: int, patch: int, grid: int, hidden: int, out: int) -> Shapes:
    """`CLIPModel` of transformers, its text half in outline (PLIP)."""
    vision = "vision_model"
    shapes: Shapes = {
        "logit_scale": (),
        "text_projection.weight": (out, 16),
        "text_model.embeddings.token_embedding.weight": (40, 16),
        "text_model.final_layer_norm.weight": (16,),
        "visual_projection.weight": (out, dim),
        f"{vision}.embeddings.class_embedding": (dim,),
        f"{vision}.embeddings.patch_embedding.weight": (dim, 3, patch, patch),
        f"{vision}.embeddings.position_embedding.weight": (1 + grid * grid, dim),
        f"{vision}.embeddings.position_ids": (1, 1 + grid * grid),
    }
    for number in range(depth):
        layer = f"{vision}.encoder.layers.{number}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= _linear(f"{layer}.self_attn.{part}", dim, dim)
        shapes |= _norm(f"{layer}.layer_norm1", dim) | _norm(f"{layer}.layer_norm2", dim)
        shapes |= _linear(f"{layer}.mlp.fc1", dim, hidden) | _linear(f"{layer}.mlp.fc2", hidden, dim)
    return shapes | _norm(f"{vision}.pre_layrnorm", dim) | _norm(f"{vision}.post_layernorm", dim)


def dinov2(
    dim: int,
    depth: int,
    patch: int,
    grid: int,
    hidden: int,
    *,
    swiglu: bool = False,
    registers: int = 0,
    chunk: int = 0,
) -> Shapes:
    """DINOv2's own names (OpenMidnight, DinoBloom, GPFM); `chunk`: blocks a group, as sharded training leaves them."""
    shapes: Shapes = {
        "cls_token": (1, 1, dim),
        "mask_token": (1, dim),
        "pos_embed": (1, 1 + grid * grid, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, dim)
    for number in range(depth):
        block = f"blocks.{number // chunk}.{number}" if chunk else f"blocks.{number}"
        shapes |= _vit_block(block, dim, None if swiglu else hidden)
        if swiglu:
            shapes |= _linear(f"{block}.mlp.w12", dim, 2 * hidden) | _linear(f"{block}.mlp.w3", hidden, dim)
        shapes |= {f"{block}.ls1.gamma": (dim,), f"{block}.ls2.gamma": (dim,)}
    return shapes | _norm("norm", dim)


def ibot(dim: int, depth: int, patch: int, grid: int) -> Shapes:
    """iBOT's teacher with its projection head (CytoFM), inside `backbone.`."""
    shapes: Shapes = {
        "cls_token": (1, 1, dim),
        "masked_embed": (1, dim),
        "pos_embed": (1, 1 + grid * grid, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
    }
    for number in range(depth):
        shapes |= _vit_block(f"blocks.{number}", dim, 4 * dim)
    shapes |= _norm("norm", dim)
    head: Shapes = {
        "head.mlp.0.weight": (8, dim),
        "head.last_layer.weight_g": (9, 1),
        "head.last_layer.weight_v": (9, 4),
    }
    return {f"backbone.{name}": shape for name, shape in shapes.items()} | head


def timm_vit(dim: int, depth: int, patch: int, grid: int, *, scale: str | None) -> Shapes:
    """timm's ViT; `scale` is what the gain of LayerScale is called, if there is one."""
    shapes: Shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + grid * grid, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
    }
    for number in range(depth):
        shapes |= _vit_block(f"blocks.{number}", dim, 4 * dim)
        if scale:
            shapes |= {f"blocks.{number}.ls1.{scale}": (dim,), f"blocks.{number}.ls2.{scale}": (dim,)}
    return shapes | _norm("norm", dim)


def keep(dim: int, depth: int, patch: int, grid: int, out: int) -> Shapes:
    """KEEP: `visual`, `visual_head`, and a BERT in outline."""
    visual = timm_vit(dim, depth, patch, grid, scale="weight")
    head = _linear("visual_head.0", dim, out) | _linear("visual_head.2", out, out)
    text: Shapes = {"text.embeddings.word_embeddings.weight": (30, 16), "logit_scale": ()}
    return {f"visual.{name}": shape for name, shape in visual.items()} | head | text


def conch(dim: int, depth: int, patch: int, grid: int, out: int, caption: int) -> Shapes:
    """CoCa of CONCH: image tower, caption pooler, projection, text halves in outline."""
    trunk = timm_vit(dim, depth, patch, grid, scale=None)
    shapes: Shapes = {f"visual.trunk.{name}": shape for name, shape in trunk.items()}
    for pooler, width, queries in (("contrast", out, 1), ("caption", caption, 256)):
        name = f"visual.attn_pool_{pooler}"
        shapes |= {
            f"{name}.query": (queries, width),
            f"{name}.attn.q_proj_weight": (width, width),
            f"{name}.attn.k_proj_weight": (width, dim),
            f"{name}.attn.v_proj_weight": (width, dim),
            f"{name}.attn.in_proj_bias": (3 * width,),
        }
        shapes |= _linear(f"{name}.attn.out_proj", width, width)
        shapes |= _norm(f"{name}.ln_q", width) | _norm(f"{name}.ln_k", dim) | _norm(f"visual.ln_{pooler}", width)
    text: Shapes = {"text.cls_emb": (16,), "text_decoder.text_projection": (16, 40), "logit_scale": ()}
    return shapes | {"visual.proj_contrast": (out, out)} | text


def conch_v1_5(dim: int, depth: int, patch: int, grid: int, out: int) -> Shapes:
    """The image tower of CONCH v1.5."""
    trunk = timm_vit(dim, depth, patch, grid, scale="gamma")
    shapes: Shapes = {f"trunk.{name}": shape for name, shape in trunk.items()}
    pooler = "attn_pool_contrast"
    shapes |= {
        f"{pooler}.query": (1, out),
        f"{pooler}.to_q.weight": (out, out),
        f"{pooler}.to_kv.weight": (2 * out, dim),
        f"{pooler}.to_out.weight": (out, out),
    }
    return shapes | _norm(f"{pooler}.ln_k", dim) | _norm(f"{pooler}.ln_q", out) | _norm("ln_contrast", out)


def beit3(dim: int, depth: int, patch: int, grid: int, hidden: int) -> Shapes:
    """MUSK: BEiT-3 with an expert A for images and B for text, and two heads."""
    encoder = "beit3.encoder"
    shapes: Shapes = {
        "logit_scale": (),
        "vision_head.weight": (dim, dim),
        "language_head.weight": (dim, dim),
        "beit3.text_embed.weight": (50, dim),
        "beit3.vision_embed.mask_token": (1, 1, dim),
        "beit3.vision_embed.cls_token": (1, 1, dim),
        "beit3.vision_embed.proj.weight": (dim, 3, patch, patch),
        "beit3.vision_embed.proj.bias": (dim,),
        f"{encoder}.embed_positions.A.weight": (3 + grid * grid, dim),
        f"{encoder}.embed_positions.B.weight": (30, dim),
    }
    for expert in "AB":
        for number in range(depth):
            layer = f"{encoder}.layers.{number}"
            for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                shapes |= _linear(f"{layer}.self_attn.{part}.{expert}", dim, dim)
            shapes |= _norm(f"{layer}.self_attn.inner_attn_ln.{expert}", dim)
            shapes |= _norm(f"{layer}.self_attn_layer_norm.{expert}", dim)
            shapes |= _norm(f"{layer}.final_layer_norm.{expert}", dim)
            shapes |= _linear(f"{layer}.ffn.{expert}.fc1", dim, hidden) | _linear(
                f"{layer}.ffn.{expert}.fc2", hidden, dim
            )
            shapes |= _norm(f"{layer}.ffn.{expert}.ffn_layernorm", hidden)
        shapes |= _norm(f"{encoder}.layer_norm.{expert}", dim)
    return shapes


def ctranspath(dim: int, depths: tuple[int, ...], heads: tuple[int, ...], side: int, window: int = 7) -> Shapes:
    """CTransPath as its authors publish it: merging at the end of a stage, masks and indices beside the weights."""
    shapes: Shapes = {
        "patch_embed.proj.0.weight": (dim // 8, 3, 3, 3),
        "patch_embed.proj.3.weight": (dim // 4, dim // 8, 3, 3),
    }
    shapes |= _batch_norm("patch_embed.proj.1", dim // 8) | _batch_norm("patch_embed.proj.4", dim // 4)
    shapes |= {"patch_embed.proj.6.weight": (dim, dim // 4, 1, 1), "patch_embed.proj.6.bias": (dim,)}
    shapes |= _norm("patch_embed.norm", dim)
    for stage, (depth, number_of_heads) in enumerate(zip(depths, heads, strict=True)):
        width, grid = dim * 2**stage, side // 4 // 2**stage
        for number in range(depth):
            block = f"layers.{stage}.blocks.{number}"
            shapes |= _norm(f"{block}.norm1", width) | _norm(f"{block}.norm2", width)
            shapes |= {
                f"{block}.attn.relative_position_bias_table": ((2 * window - 1) ** 2, number_of_heads),
                f"{block}.attn.relative_position_index": (window**2, window**2),
            }
            shapes |= _linear(f"{block}.attn.qkv", width, 3 * width) | _linear(f"{block}.attn.proj", width, width)
            shapes |= _linear(f"{block}.mlp.fc1", width, 4 * width) | _linear(f"{block}.mlp.fc2", 4 * width, width)
            if number % 2 and grid > window:
                shapes[f"{block}.attn_mask"] = ((grid // window) ** 2, window**2, window**2)
        if stage < len(depths) - 1:
            shapes |= {f"layers.{stage}.downsample.reduction.weight": (2 * width, 4 * width)}
            shapes |= _norm(f"layers.{stage}.downsample.norm", 4 * width)
    return shapes | _norm("norm", dim * 2 ** (len(depths) - 1))


def resnet50() -> Shapes:
    """A whole ResNet-50."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)} | _batch_norm("bn1", 64)
    inner = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for number in range(blocks):
            block = f"layer{stage + 1}.{number}"
            sizes = ((width, inner, 1), (width, width, 3), (4 * width, width, 1))
            for index, (outer, inside, kernel) in enumerate(sizes, start=1):
                shapes |= {f"{block}.conv{index}.weight": (outer, inside, kernel, kernel)}
                shapes |= _batch_norm(f"{block}.bn{index}", outer)
            if number == 0:
                shapes |= {f"{block}.downsample.0.weight": (4 * width, inner, 1, 1)}
                shapes |= _batch_norm(f"{block}.downsample.1", 4 * width)
            inner = 4 * width
    return shapes | _linear("fc", 2048, 1000)


def _vit_block(block: str, dim: int, hidden: int | None) -> Shapes:
    shapes = _norm(f"{block}.norm1", dim) | _norm(f"{block}.norm2", dim)
    shapes |= _linear(f"{block}.attn.qkv", dim, 3 * dim) | _linear(f"{block}.attn.proj", dim, dim)
    if hidden is not None:
        shapes |= _linear(f"{block}.mlp.fc1", dim, hidden) | _linear(f"{block}.mlp.fc2", hidden, dim)
    return shapes
