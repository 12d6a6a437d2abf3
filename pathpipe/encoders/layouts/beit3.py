"""BEiT-3 checkpoints (MUSK) in the names of timm's ViT: the image expert only.

Reference: Wang et al. 2023, Image as a foreign language. Every layer has an expert A for images and B for text.
"""

from __future__ import annotations

import re

import torch

from pathpipe.encoders.layouts import State
from pathpipe.errors import StoreError

# Positions start at 2, as in Fairseq: the first two rows are never used.
_FIRST_POSITION = 2
_OUTSIDE = {
    "beit3.vision_embed.cls_token": "cls_token",
    "beit3.vision_embed.proj.weight": "patch_embed.proj.weight",
    "beit3.vision_embed.proj.bias": "patch_embed.proj.bias",
    "beit3.encoder.layer_norm.A.weight": "norm.weight",
    "beit3.encoder.layer_norm.A.bias": "norm.bias",
}
_POSITIONS = "beit3.encoder.embed_positions.A.weight"
_INSIDE = {
    "self_attn_layer_norm.A": "norm1",
    "self_attn.out_proj.A": "attn.proj",
    "self_attn.inner_attn_ln.A": "attn.norm",
    "final_layer_norm.A": "norm2",
    "ffn.A.fc1": "mlp.fc1",
    "ffn.A.fc2": "mlp.fc2",
    "ffn.A.ffn_layernorm": "mlp.norm",
}
_TEXT = ("beit3.text_embed.", "beit3.vision_embed.mask_token", "vision_head.", "language_head.", "logit_scale")
_LAYER = re.compile(r"beit3\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def from_beit3(state: State) -> State:
    """The image tower without text expert, heads and mask token.

    Raises:
        StoreError: It has no positions, or a projection of an attention is missing.
    """
    if _POSITIONS not in state:
        raise StoreError(f"the checkpoint has no `{_POSITIONS}`: it is not of BEiT-3")
    renamed: State = {"pos_embed": state[_POSITIONS][None, _FIRST_POSITION:]}
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        if key == _POSITIONS or key.startswith(_TEXT) or ".B." in key:
            continue
        found = _LAYER.fullmatch(key)
        if found is None:
            renamed[_OUTSIDE.get(key, key)] = value
            continue
        number, name, leaf = found.groups()
        which = re.fullmatch(r"self_attn\.([qkv])_proj\.A", name)
        if which:
            parts.setdefault(f"blocks.{number}.attn.qkv.{leaf}", {})[which[1]] = value
        else:
            renamed[f"blocks.{number}.{_INSIDE.get(name, name)}.{leaf}"] = value
    for key, three in parts.items():
        if set(three) != set("qkv"):
            raise StoreError(f"the checkpoint has only {', '.join(sorted(three))} for {key}")
        renamed[key] = torch.cat([three[name] for name in "qkv"])
    return renamed
