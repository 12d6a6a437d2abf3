"""Other poolings of an encoder's tokens: the same network and weights, other vectors, and so another encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pathpipe.encoders.build import build_network
from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.load import encoder_identity, load_encoder
from pathpipe.encoders.transform import Transform
from pathpipe.errors import SettingsError

TINY = "timm:test_vit"


def test_poolings_are_views_of_the_same_tokens(tmp_path: Path) -> None:
    record = encoder_record(TINY)
    network = build_network(record).eval()
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    tiles = np.random.default_rng(0).integers(0, 256, (3, record.input_px, record.input_px, 3)).astype(np.uint8)
    with torch.inference_mode():
        images = Transform(record)(torch.from_numpy(tiles))
        tokens = network.forward_features(images).numpy()  # type: ignore[operator]
    prefix = int(network.num_prefix_tokens)  # type: ignore[arg-type]
    first, patches = tokens[:, 0], tokens[:, prefix:]
    expected = {
        "cls": first,
        "mean": patches.mean(axis=1),
        "cls+mean": np.concatenate([first, patches.mean(axis=1)], axis=1),
        "tokens": patches.reshape(3, -1),
    }
    for pooling, values in expected.items():
        name = f"{TINY}@{pooling}"
        found = load_encoder(name, str(path), "cpu").embed(tiles)
        assert found.shape == (3, encoder_record(name).dim)
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-5)


def test_another_pooling_is_another_encoder_of_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(build_network(encoder_record(TINY)).state_dict(), path)
    plain, other = (encoder_identity(name, str(path)) for name in (TINY, f"{TINY}@tokens"))
    assert plain.weights_sha256 == other.weights_sha256
    assert (plain.name, plain.transform, plain.dim) != (other.name, other.transform, other.dim)
    assert encoder_record("virchow2@cls").published == "virchow2"


@pytest.mark.parametrize(
    ("name", "dim"),
    [("virchow2@cls", 1280), ("virchow2@cls+mean", 2560), ("uni@mean", 1024), ("dinov2-s@tokens", 16 * 16 * 384)],
)
def test_widths(name: str, dim: int) -> None:
    assert encoder_record(name).dim == dim


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("uni@network", "`network` is no pooling"),
        ("uni@clss", "did you mean `cls`"),
        ("resnet50-trunc@cls", "has no tokens to pool"),
        ("unii@cls", "there is no encoder `unii`"),
    ],
)
def test_refusals(name: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        encoder_record(name)
