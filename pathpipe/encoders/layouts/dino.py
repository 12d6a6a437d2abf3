"""DINO, iBOT and DINOv2 checkpoints in the names of timm's ViT.

References: Caron et al. 2021 (DINO); Zhou et al. 2022 (iBOT); Oquab et al. 2024 (DINOv2); Darcet et al. 2024
(registers).
"""

from __future__ import annotations

import re

from pathpipe.encoders.layouts import State

_TRAINING_ONLY = ("mask_token", "masked_embed")  # what stands for a hidden patch
_CHUNK = re.compile(r"blocks\.\d+\.(\d+)\.")


def from_dino(state: State) -> State:
    """Undo what differs from timm: training-only tokens, chunked blocks, fused SwiGLU names, registers.

    With registers timm adds positions to patches only, so the class token's own position is folded into it.
    """
    renamed: State = {}
    for key, value in state.items():
        if key in _TRAINING_ONLY:
            continue
        name = _CHUNK.sub(r"blocks.\1.", key)  # blocks come in groups when trained sharded; their own number goes on
        renamed[name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")] = value
    return fold_registers(renamed, "register_tokens")


def fold_registers(state: State, registers: str) -> State:
    """Positions of a ViT with registers as timm keeps them: those of the patches, the first one in the class token."""
    if registers not in state:
        return state
    folded = dict(state)
    folded["reg_token"] = folded.pop(registers)
    position = folded["pos_embed"]
    folded["cls_token"] = folded["cls_token"] + position[:, :1]
    folded["pos_embed"] = position[:, 1:]
    return folded
