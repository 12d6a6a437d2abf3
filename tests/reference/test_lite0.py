"""The offline encoder against an independent forward pass of the original layout, in plain torch functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import chelsea, immunohistochemistry
from torch.nn import functional as F

from pathpipe.encoders.build import build_network
from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.fetch import find_weights
from pathpipe.encoders.layouts.convolutional import LITE0_STAGES, from_efficientnet_pytorch
from pathpipe.encoders.load import load_encoder
from pathpipe.encoders.transform import Transform
from pathpipe.encoders.weights import load_strictly, read_state
from pathpipe.errors import StoreError

NAME = "efficientnet-lite0"
# kernel and first stride of each stage (Tan & Le 2019, table 1)
KERNELS, STRIDES = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)


def _same_conv(x: torch.Tensor, weight: torch.Tensor, stride: int, groups: int = 1) -> torch.Tensor:
    """Convolution with TensorFlow's SAME padding: the odd pixel goes right and below."""
    kernel = weight.shape[-1]
    pads = []
    for side in (x.shape[-1], x.shape[-2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def _norm(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-3)


def _original_forward(x: torch.Tensor, state: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(features, logits) with the checkpoint's own names."""
    x = F.relu6(_norm(_same_conv(x, state["_conv_stem.weight"], 2), state, "_bn0"))
    number = 0
    for stage, blocks in enumerate(LITE0_STAGES):
        for index in range(blocks):
            name, before = f"_blocks.{number}", x
            stride = STRIDES[stage] if index == 0 else 1
            if f"{name}._expand_conv.weight" in state:
                x = F.relu6(_norm(F.conv2d(x, state[f"{name}._expand_conv.weight"]), state, f"{name}._bn0"))
            depthwise = state[f"{name}._depthwise_conv.weight"]
            assert depthwise.shape[-1] == KERNELS[stage]
            x = F.relu6(_norm(_same_conv(x, depthwise, stride, x.shape[1]), state, f"{name}._bn1"))
            x = _norm(F.conv2d(x, state[f"{name}._project_conv.weight"]), state, f"{name}._bn2")
            if stride == 1 and x.shape == before.shape:
                x = x + before
            number += 1
    x = F.relu6(_norm(F.conv2d(x, state["_conv_head.weight"]), state, "_bn1"))
    features = x.mean(dim=(2, 3))
    return features, F.linear(features, state["_fc.weight"], state["_fc.bias"])


def _tiles() -> np.ndarray:
    return np.stack(
        [immunohistochemistry()[:224, :224], immunohistochemistry()[200:424, 250:474], chelsea()[20:244, 90:314]]
    )


def test_features_equal_the_original_layout() -> None:
    state = read_state(find_weights(encoder_record(NAME), None))
    expected, _ = _original_forward((torch.from_numpy(_tiles()).permute(0, 3, 1, 2).float() - 127) / 128, state)
    found = load_encoder(NAME, None, "cpu").embed(_tiles())
    assert found.shape == (3, 1280)
    assert np.abs(found - expected.numpy()).max() < 1e-4
    assert expected.std() > 0.1, "features of three different pictures must differ"


def test_a_cat_is_a_cat() -> None:
    """Mapping and normalisation are right only if ImageNet's own classes come out."""
    record = encoder_record(NAME).model_copy(update={"arguments": {"num_classes": 1000}})
    network = build_network(record).eval()
    path = find_weights(record, None)
    load_strictly(network, from_efficientnet_pytorch(read_state(path)), path)
    cat = np.ascontiguousarray(chelsea()[:, 75:375])
    with torch.inference_mode():
        best = network(Transform(record)(torch.from_numpy(cat[None])))[0].topk(3).indices.tolist()
    assert set(best) <= {281, 282, 283, 284, 285, 287}, "tabby, tiger, Persian, Siamese, Egyptian cat, lynx"


def test_other_keys_are_refused() -> None:
    with pytest.raises(StoreError, match="not of EfficientNet-Lite0"):
        from_efficientnet_pytorch({"_blocks.40._bn1.weight": torch.zeros(1)})
    with pytest.raises(StoreError, match=r"conv1\.weight"):
        from_efficientnet_pytorch({"conv1.weight": torch.zeros(1)})
