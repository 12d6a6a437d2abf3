"""Key layouts of checkpoints that aren't timm's own."""

from __future__ import annotations

import re

import torch

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


def from_efficientnet_pytorch(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
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
