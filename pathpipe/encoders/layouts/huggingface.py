"""Checkpoints of Hugging Face's ViT, Dinov2 and CLIP classes in the names of timm's ViT."""

from __future__ import annotations

import re

import torch

from pathpipe.encoders.layouts import State
from pathpipe.encoders.layouts.dino import fold_registers
from pathpipe.errors import StoreError

_VIT = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_VIT_BLOCK = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
_DINOV2 = {**_VIT, "embeddings.register_tokens": "register_tokens"}
_DINOV2_BLOCK = {
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
    "norm1": "norm1",
    "norm2": "norm2",
}
_CLIP = {
    "embeddings.patch_embedding": "trunk.patch_embed.proj",
    "pre_layrnorm": "trunk.norm_pre",  # spelled so by its authors
    "post_layernorm": "trunk.norm",
}
_CLIP_BLOCK = {
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
}


def from_hf_vit(state: State) -> State:
    """`ViTModel`: separate query, key and value; the pooler (never trained by self-supervision) is left out."""
    state = _without(_stripped(state, "vit."), ("pooler.", "mask_token", "embeddings.mask_token"))
    return _renamed(state, "encoder.layer.", _VIT, _VIT_BLOCK, "attention.attention.")


def from_hf_dinov2(state: State) -> State:
    """`Dinov2Model`, with or without SwiGLU and registers."""
    state = _without(_stripped(state, "dinov2."), ("embeddings.mask_token",))
    return fold_registers(
        _renamed(state, "encoder.layer.", _DINOV2, _DINOV2_BLOCK, "attention.attention."), "register_tokens"
    )


def from_hf_clip(state: State) -> State:
    """The image half of `CLIPModel` with its projection, for `architectures.projected.plip`."""
    projection = state.get("visual_projection.weight")
    image = {
        key.removeprefix("vision_model."): value for key, value in state.items() if key.startswith("vision_model.")
    }
    if projection is None or "embeddings.class_embedding" not in image:
        raise StoreError("the checkpoint has no image half of CLIP (vision_model.*, visual_projection)")
    token, position = image.pop("embeddings.class_embedding"), image.pop("embeddings.position_embedding.weight")
    image.pop("embeddings.position_ids", None)  # a buffer that counts from 0
    renamed = _renamed(image, "encoder.layers.", _CLIP, _CLIP_BLOCK, "self_attn.", ("q_proj", "k_proj", "v_proj"))
    renamed = {key if key.startswith("trunk.") else f"trunk.{key}": value for key, value in renamed.items()}
    renamed["trunk.cls_token"], renamed["trunk.pos_embed"] = token.reshape(1, 1, -1), position[None]
    renamed["head.0.weight"] = projection
    return renamed


def _renamed(
    state: State,
    layers: str,
    outside: dict[str, str],
    inside: dict[str, str],
    attention: str,
    qkv: tuple[str, str, str] = ("query", "key", "value"),
) -> State:
    """New names from two tables, outside and inside a block; query, key and value stacked into one matrix."""
    renamed: State = {}
    parts: dict[str, dict[str, torch.Tensor]] = {}
    block = re.compile(re.escape(layers) + r"(\d+)\.(.+)")
    for key, value in state.items():
        found = block.fullmatch(key)
        if found is None:
            renamed[_looked_up(key, outside)] = value
            continue
        number, rest = found[1], found[2]
        name, _, leaf = rest.removeprefix(attention).partition(".")
        if rest.startswith(attention) and name in qkv:
            parts.setdefault(f"blocks.{number}.attn.qkv.{leaf}", {})[name] = value
        else:
            renamed[f"blocks.{number}.{_looked_up(rest, inside)}"] = value
    for key, three in parts.items():
        missing = [name for name in qkv if name not in three]
        if missing:
            raise StoreError(f"the checkpoint has no {missing[0]} for {key}")
        renamed[key] = torch.cat([three[name] for name in qkv])
    return renamed


def _looked_up(key: str, table: dict[str, str]) -> str:
    if key in table:
        return table[key]
    name, _, leaf = key.rpartition(".")
    return f"{table[name]}.{leaf}" if name in table else key


def _stripped(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _without(state: State, left_out: tuple[str, ...]) -> State:
    return {key: value for key, value in state.items() if not key.startswith(left_out)}
