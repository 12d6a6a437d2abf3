"""Tissue found by a user's network: exported for real, blended without seams, refused in one clear sentence."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pathpipe.errors import MissingError, SettingsError
from pathpipe.tissue.method import View, tissue_method
from pathpipe.tissue.methods.network import blend

MEAN, STD = (0.5, 0.4, 0.6), (0.2, 0.3, 0.25)
PLAIN = {"mpp": 8.0, "tile_px": 64, "overlap_px": 16, "mean": list(MEAN), "std": list(STD)}


class Darkness(torch.nn.Module):
    """Scores of glass, tissue and ink from the brightness that the colours had before mean and std."""

    def __init__(self, kind: str, span: float = 1.0) -> None:
        super().__init__()
        self.kind, self.span = kind, span
        self.mean = torch.nn.Parameter(torch.tensor(MEAN)[:, None, None])
        self.std = torch.nn.Parameter(torch.tensor(STD)[:, None, None])

    def forward(self, x: torch.Tensor) -> Any:
        bright = ((x * self.std + self.mean) / self.span).mean(1, keepdim=True)
        smooth = torch.nn.functional.avg_pool2d(bright, 5, 1, 2, count_include_pad=False)
        tissue = (0.7 - smooth) * 40
        scores = torch.cat([-tissue, tissue, torch.full_like(tissue, -30.0)], 1)
        if self.kind == "indices":
            return scores.argmax(1)
        if self.kind == "dictionary":
            return {"aux": scores[:, :1], "out": scores}
        if self.kind == "half":
            return scores[:, :, ::2, ::2]
        return scores


def exported(path: Path, kind: str = "plain", span: float = 1.0) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript as a whole is deprecated
        example = torch.zeros(1, 3, 64, 64)
        traced = torch.jit.trace(Darkness(kind, span).eval(), example, strict=False)
        torch.jit.save(traced, path)
    return path


def picture(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    truth = np.zeros((height, width), np.uint8)
    cv2.ellipse(truth, (width // 2, height // 2), (width // 3, height // 3), 20, 0, 360, 1, -1)
    pixels = np.full((height, width, 3), 240, np.uint8)
    pixels[truth > 0] = (150, 90, 140)
    return pixels, truth > 0


def view(pixels: np.ndarray, um: float) -> View:
    return View(pixels, um, (um / 0.5, um / 0.5), np.zeros(pixels.shape[:2], bool))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("plain", {}),
        ("plain", {"output": "sigmoid"}),
        ("plain", {"output": "argmax", "tissue_classes": [1, 2]}),
        ("indices", {"output": "argmax"}),
        ("dictionary", {}),
        ("plain", {"tissue_classes": [0], "threshold": 0.5}),
    ],
)
def test_every_form_of_output_gives_the_same_tissue(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    pixels, truth = picture(150, 210)
    network = tissue_method("torchscript", {**PLAIN, "file": str(exported(tmp_path / "net.pt", kind)), **options})
    found = network.find(view(pixels, 8.0))
    expected = ~truth if options.get("tissue_classes") == [0] else truth
    assert (found.mask == expected).mean() > 0.995
    assert not found.finished


def test_colours_are_scaled_as_the_network_wants(tmp_path: Path) -> None:
    pixels, truth = picture(100, 100)
    mean, std = [255 * value for value in MEAN], [255 * value for value in STD]
    options = {**PLAIN, "scale": "0-255", "mean": mean, "std": std, "file": str(exported(tmp_path / "net.pt"))}
    assert (tissue_method("torchscript", options).find(view(pixels, 8.0)).mask == truth).mean() > 0.99
    wrong = tissue_method("torchscript", {**options, "scale": "0-1"})
    assert wrong.find(view(pixels, 8.0)).mask.all(), "colours of 0 to 1 less a mean of 128 are black"


@pytest.mark.parametrize("um", [2.0, 4.0, 8.0, 10.0])
def test_thumbnails_are_resampled_to_the_networks_resolution(tmp_path: Path, um: float) -> None:
    pixels, truth = picture(round(1600 / um), round(2000 / um))
    seen: list[np.ndarray] = []
    network = tissue_method("torchscript", {**PLAIN, "file": str(exported(tmp_path / "net.pt"))})
    plain = network._probability  # type: ignore[attr-defined]

    def recorded(tiles: np.ndarray) -> np.ndarray:
        seen.append(tiles)
        return np.asarray(plain(tiles))

    network._probability = recorded  # type: ignore[attr-defined]
    found = network.find(view(pixels, um)).mask
    inside = max(tile.shape[1] for tile in seen)
    assert inside == 64 and sum(len(tiles) for tiles in seen) == 4 * 5, "200 x 250 px at 8 um/px, steps of 48"
    assert found.shape == truth.shape
    assert (found == truth).mean() > 0.98


def test_a_finer_network_than_the_mask_says_what_to_set(tmp_path: Path) -> None:
    network = tissue_method("torchscript", {**PLAIN, "mpp": 2.0, "file": str(exported(tmp_path / "net.pt"))})
    with pytest.raises(SettingsError, match=r"wants 2 um/px and the mask has 8 \(hint: set tissue\.mpp to 2"):
        network.find(view(picture(50, 50)[0], 8.0))
    with pytest.raises(SettingsError, match=r"set tissue\.mpp to 2"):
        network.preflight(8.0)
    network.preflight(2.0)


def plain_blend(pixels: np.ndarray, side: int, overlap: int, probability: Any) -> np.ndarray:
    """All tiles over one large canvas."""
    height, width = pixels.shape[:2]
    step = side - overlap
    canvas = np.full((height + 2 * side, width + 2 * side, 3), 255, np.uint8)
    canvas[:height, :width] = pixels
    total, weights = np.zeros(canvas.shape[:2]), np.zeros(canvas.shape[:2])
    ramp = np.array([min(1, (min(i, side - 1 - i) + 1) / (overlap + 1)) for i in range(side)])
    for top in range(0, max(1, height - overlap), step):
        for left in range(0, max(1, width - overlap), step):
            here = np.s_[top : top + side, left : left + side]
            total[here] += probability(canvas[here][None])[0] * np.outer(ramp, ramp)
            weights[here] += np.outer(ramp, ramp)
    return (total / np.maximum(weights, 1e-9))[:height, :width]


@pytest.mark.parametrize("shape", [(20, 33), (64, 64), (65, 130), (200, 151), (112, 400)])
@pytest.mark.parametrize("overlap", [0, 16, 32])
def test_rows_of_tiles_blend_as_a_whole_canvas_does(shape: tuple[int, int], overlap: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)

    def probability(tiles: np.ndarray) -> np.ndarray:  # depends on the place in the tile: seams would show
        ramp = np.linspace(0, 1, 64)
        return (tiles.mean(3) / 255 * 0.5 + 0.25 * ramp + 0.25 * ramp[:, None]).astype(np.float32)

    expected = plain_blend(pixels, 64, overlap, probability)
    assert np.abs(blend(pixels, 64, overlap, probability) / 255 - expected).max() < 0.5 / 255 + 1e-5


def test_a_constant_picture_has_no_seams(tmp_path: Path) -> None:
    flat = np.full((180, 210, 3), 200, np.uint8)
    given = blend(flat, 64, 16, lambda tiles: np.full(tiles.shape[:3], 0.4, np.float32))
    assert (given == 102).all()


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first = exported(tmp_path / "a.pt")
    moved = tmp_path / "elsewhere" / "b.pt"
    moved.parent.mkdir()
    moved.write_bytes(first.read_bytes())
    other = exported(tmp_path / "c.pt", "indices")
    prints = [
        tissue_method("torchscript", {**PLAIN, "file": str(path)}).fingerprint() for path in (first, moved, other)
    ]
    assert prints[0] == prints[1] != prints[2]
    assert prints[0] == hashlib.sha256(first.read_bytes()).hexdigest()
    pinned = {**PLAIN, "file": str(other), "sha256": prints[0]}
    with pytest.raises(SettingsError, match="not the one in the option `sha256`"):
        tissue_method("torchscript", pinned).preflight(8.0)
    tissue_method("torchscript", {**pinned, "file": str(moved), "sha256": prints[0].upper()}).preflight(8.0)


def test_what_is_wrong_with_a_network_is_said_before_any_slide(tmp_path: Path) -> None:
    def refused(kind: type[Exception], match: str, **options: Any) -> None:
        with pytest.raises(kind, match=match):
            tissue_method("torchscript", {**PLAIN, **options}).preflight(8.0)

    (tmp_path / "text.pt").write_text("no network")
    good, half = exported(tmp_path / "net.pt"), exported(tmp_path / "half.pt", "half")
    refused(MissingError, "there is no such network", file=str(tmp_path / "absent.pt"))
    refused(MissingError, "is no file", file=str(tmp_path))
    refused(SettingsError, "is no TorchScript file", file=str(tmp_path / "text.pt"))
    refused(SettingsError, "its output is 1x3x32x32 for 1x3x64x64, and must be 1xCx64x64", file=str(half))
    refused(SettingsError, "with C above 7", file=str(good), tissue_classes=[1, 7])
    refused(SettingsError, "is required")
    refused(SettingsError, "overlap_px must be at most half", file=str(good), overlap_px=40)
    refused(SettingsError, "std must be above 0", file=str(good), std=[1, 0, 1])
    refused(SettingsError, "tissue_classes", file=str(good), tissue_classes=[])


class TestOnnx:
    """The same network as an ONNX file."""

    def test_absent_onnxruntime_is_named(self, tmp_path: Path) -> None:
        if importlib.util.find_spec("onnxruntime"):
            pytest.skip("onnxruntime is installed")
        (tmp_path / "net.onnx").write_bytes(b"anything")
        with pytest.raises(MissingError, match=r'pip install "pathpipe\[onnx\]"'):
            tissue_method("onnx", {**PLAIN, "file": str(tmp_path / "net.onnx")}).preflight(8.0)

    @pytest.mark.parametrize("batch", ["n", 1])
    def test_tissue_is_found(self, tmp_path: Path, batch: str | int) -> None:
        pytest.importorskip("onnxruntime")
        file = write_onnx(tmp_path / "net.onnx", batch)
        pixels, truth = picture(150, 210)
        network = tissue_method("onnx", {**PLAIN, "file": str(file), "tissue_classes": [1]})
        network.preflight(8.0)
        assert (network.find(view(pixels, 8.0)).mask == truth).mean() > 0.995

    def test_other_files_and_sizes_are_refused(self, tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        (tmp_path / "text.onnx").write_text("no network")
        with pytest.raises(SettingsError, match="is no ONNX file"):
            tissue_method("onnx", {**PLAIN, "file": str(tmp_path / "text.onnx")}).preflight(8.0)
        file = write_onnx(tmp_path / "net.onnx", "n")
        with pytest.raises(SettingsError, match="refuses 1x3x96x96"):
            tissue_method("onnx", {**PLAIN, "tile_px": 96, "file": str(file)}).preflight(8.0)


def write_onnx(path: Path, batch: str | int) -> Path:
    """Two classes, 64 x 64 px: a 1x1 convolution that weighs dark against bright."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[0, :, 0, 0] = np.array(STD) * 20
    weight[1, :, 0, 0] = -np.array(STD) * 20
    middle = 0.7 * 3 * 20
    bias = np.array([sum(MEAN) * 20 - middle, middle - sum(MEAN) * 20], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", floats, [batch, 3, 64, 64])],
        [helper.make_tensor_value_info("y", floats, [batch, 2, 64, 64])],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path
