"""Image towers of vision-language checkpoints (CONCH, CONCH v1.5, KEEP): their text halves are left out."""

from __future__ import annotations

import re

from pathpipe.encoders.layouts import State
from pathpipe.errors import StoreError

_CONCH_PARTS = ("trunk.", "attn_pool_contrast.", "ln_contrast.")


def from_conch(state: State) -> State:
    """CoCa of CONCH: trunk, contrastive pooler and its norm; caption pooler, projection and text are left out."""
    return _tower(state, "visual.", _CONCH_PARTS)


def from_conch_v1_5(state: State) -> State:
    """The image tower as its authors publish it alone."""
    return _tower(state, "", _CONCH_PARTS)


def from_keep(state: State) -> State:
    """KEEP: image trunk and projection; it calls the gain of LayerScale `weight` where timm says `gamma`."""
    renamed: State = {}
    for key, value in state.items():
        if key.startswith("visual."):
            name = re.sub(r"\.(ls[12])\.weight$", r".\1.gamma", key.removeprefix("visual."))
            renamed[f"trunk.{name}"] = value
        elif key.startswith("visual_head."):
            renamed[f"head.{key.removeprefix('visual_head.')}"] = value
    if not renamed:
        raise StoreError("the checkpoint has no image tower (visual.*)")
    return renamed


def _tower(state: State, prefix: str, parts: tuple[str, ...]) -> State:
    tower = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(tuple(f"{prefix}{part}" for part in parts))
    }
    if not tower:
        raise StoreError(f"the checkpoint has no image tower ({prefix}trunk.*)")
    return tower
