"""Checkpoints of EfficientNet-Lite0, CTransPath (Swin with a convolutional stem) and the truncated ResNet-50."""

from __future__ import annotations

import re

from pathpipe.encoders.layouts import State
from pathpipe.errors import StoreError

# Blocks a stage of EfficientNet-Lite0 (Tan & Le 2019, table 1, without squeeze and excitation).
LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)
_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# What Swin computes from its shape; checkpoints may carry it.
_SWIN_BUFFERS = ("attn_mask", "relative_position_index")


def from_efficientnet_pytorch(state: State) -> State:
    """EfficientNet-Lite0 of the `efficientnet-pytorch` layout, in the names of timm's `tf_efficientnet_lite0`.

    Raises:
        StoreError: A key isn't of that layout.
    """
    places = [(stage, index) for stage, blocks in enumerate(LITE0_STAGES) for index in range(blocks)]
    renamed = {}
    for key, value in state.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(\w+)", key)
        if block:
            number, part, leaf = int(block[1]), block[2], block[3]
            names = _FIRST_BLOCK if number == 0 else _OTHER_BLOCKS
            if number >= len(places) or part not in names:
                raise StoreError(f"key `{key}` is not of EfficientNet-Lite0")
            stage, index = places[number]
            renamed[f"blocks.{stage}.{index}.{names[part]}.{leaf}"] = value
        else:
            part, _, leaf = key.partition(".")
            if part not in _STEM:
                raise StoreError(f"key `{key}` is not of EfficientNet-Lite0")
            renamed[f"{_STEM[part]}.{leaf}"] = value
    return renamed


def from_ctranspath(state: State) -> State:
    """CTransPath as its authors publish it (patches merged at the end of a stage) or as timm has it (at the start).

    timm moved the merging into the following stage: `layers.0.downsample` became `layers.1.downsample`.
    """
    state = {key: value for key, value in state.items() if not key.endswith(_SWIN_BUFFERS)}
    if not any(key.startswith("layers.0.downsample.") for key in state):
        return state
    return {
        re.sub(r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) + 1}.downsample.", key): value
        for key, value in state.items()
    }


def from_resnet50(state: State) -> State:
    """A whole ResNet-50 without its last stage and classifier."""
    return {key: value for key, value in state.items() if not key.startswith(("layer4.", "fc."))}
