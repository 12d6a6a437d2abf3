"""Key layouts: how checkpoints of each family name their tensors, and what pathpipe's networks call the same.

A layout is a function from a state dict to a state dict; it never looks at values, save to fold, split or stack them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch

from pathpipe.errors import SettingsError
from pathpipe.registry import suggest

State = dict[str, torch.Tensor]

# name -> "module:function"; None: the network's own names
LAYOUTS: dict[str, str | None] = {
    "timm": None,
    "dino": "pathpipe.encoders.layouts.dino:from_dino",
    "hf-vit": "pathpipe.encoders.layouts.huggingface:from_hf_vit",
    "hf-dinov2": "pathpipe.encoders.layouts.huggingface:from_hf_dinov2",
    "hf-clip": "pathpipe.encoders.layouts.huggingface:from_hf_clip",
    "beit3": "pathpipe.encoders.layouts.beit3:from_beit3",
    "conch": "pathpipe.encoders.layouts.towers:from_conch",
    "conch-v1.5": "pathpipe.encoders.layouts.towers:from_conch_v1_5",
    "keep": "pathpipe.encoders.layouts.towers:from_keep",
    "ctranspath": "pathpipe.encoders.layouts.convolutional:from_ctranspath",
    "resnet50-trunc": "pathpipe.encoders.layouts.convolutional:from_resnet50",
    "efficientnet-pytorch": "pathpipe.encoders.layouts.convolutional:from_efficientnet_pytorch",
}


def rename(layout: str, state: State) -> State:
    """The tensors under the names of pathpipe's network.

    Args:
        layout: A name of `LAYOUTS`, or a plug-in's own `module:function`.

    Raises:
        SettingsError: There is no such layout.
        StoreError: The checkpoint isn't of that layout.
    """
    if layout in LAYOUTS:
        place = LAYOUTS[layout]
    elif ":" in layout:
        place = layout
    else:
        raise SettingsError(f"there is no key layout `{layout}`", hint=suggest(layout, list(LAYOUTS)))
    if place is None:
        return state
    module, _, name = place.partition(":")
    function: Callable[[State], State] = getattr(import_module(module), name)
    return function(state)
