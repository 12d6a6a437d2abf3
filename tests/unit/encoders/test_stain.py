"""Stain normalisation against plain numpy and scikit-image, tile by tile, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import lab2rgb, rgb2lab

from pathpipe.encoders.colour import WHITE, measure, normalise
from pathpipe.encoders.encoder import EncoderIdentity
from pathpipe.encoders.stain import StainedEncoder, StainTarget, measure_target, stain_target, stained, target_of
from pathpipe.errors import MissingError, PathpipeError, SettingsError
from pathpipe.samples import BUNDLED_SLIDE
from pathpipe.settings import ExtractSettings, RunSettings, merge
from pathpipe.slides.open import open_slide

IDENTITY = EncoderIdentity("e", "", "w", "resize 224", 3)
STAINS = np.array([[0.62, 0.27], [0.68, 0.84], [0.39, 0.47]])  # of a haematoxylin and an eosin


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """(6, 256, 256, 3) of real H&E."""
    places = [(1000, 500), (1500, 500), (500, 1000), (1000, 1000), (1500, 1000), (1500, 1500)]
    with open_slide(BUNDLED_SLIDE) as slide:
        return np.stack([slide.read(xy0, 0, (256, 256)) for xy0 in places])


def _default(method: Any) -> StainTarget:
    target = stain_target(ExtractSettings(stain=method))
    assert target is not None
    return target


def _density(pixels: np.ndarray) -> np.ndarray:
    return -np.log((pixels.reshape(-1, 3).astype(np.float64) + 1) / 240)


def _plain_macenko(tile: np.ndarray, target: StainTarget, step: int) -> np.ndarray:
    """As the authors' description has it, with numpy's own percentile, eigenvectors and least squares."""
    sample = _density(tile[::step, ::step])
    tissue = sample[(sample >= 0.15).all(axis=1)]
    vectors = np.linalg.eigh(np.cov(tissue.T))[1][:, 1:]
    vectors *= np.sign(vectors[:, 1].sum())
    second, main = (tissue @ vectors).T
    angles = np.percentile(np.arctan2(second, main), [1, 99])
    ends = [vectors @ [np.sin(angle), np.cos(angle)] for angle in angles]
    stains = np.stack(ends if ends[0][0] > ends[1][0] else ends[::-1], axis=1)
    strength = np.percentile(np.linalg.lstsq(stains, sample.T, rcond=None)[0], 99, axis=1)
    amounts = np.linalg.lstsq(stains, _density(tile).T, rcond=None)[0]
    wanted, wanted_strength = np.reshape(target.numbers[:6], (3, 2)), np.array(target.numbers[6:])
    pixels = 240 * np.exp(-wanted @ (amounts * (wanted_strength / strength)[:, None])) - 1
    return np.rint(np.clip(pixels, 0, 255)).T.reshape(tile.shape)


def _plain_reinhard(tile: np.ndarray, target: StainTarget, step: int) -> np.ndarray:
    sample = tile[::step, ::step].reshape(-1, 3)
    tissue = rgb2lab(sample[(_density(sample) >= 0.15).all(axis=1)])
    lab = (rgb2lab(tile) - tissue.mean(axis=0)) / tissue.std(axis=0) * target.numbers[3:] + target.numbers[:3]
    share = np.clip(_density(tile).mean(axis=1) / 0.15, 0, 1).reshape(*tile.shape[:2], 1)
    with np.errstate(all="ignore"):
        moved = 255 * np.clip(lab2rgb(lab), 0, 1)
    return np.rint(tile + share * (moved - tile))


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
@pytest.mark.parametrize(("side", "step"), [(256, 2), (100, 1)])
@pytest.mark.parametrize(("method", "plain"), [("macenko", _plain_macenko), ("reinhard", _plain_reinhard)])
def test_every_tile_equals_plain_arithmetic(tissue: np.ndarray, method: str, plain: Any, side: int, step: int) -> None:
    tiles = np.ascontiguousarray(tissue[:, :side, :side])
    target = _default(method)
    found, changed = normalise(method, torch.from_numpy(tiles), target.tensors())
    assert changed.all() and found.dtype == torch.uint8
    for tile, one in zip(tiles, found.numpy(), strict=True):
        difference = np.abs(one.astype(int) - plain(tile, target, step))
        assert difference.max() <= 1 and difference.mean() < 0.01
        assert np.abs(one.astype(int) - tile).mean() > 1, "and it is another picture"


def _painted(seed: int, stains: np.ndarray, strength: tuple[float, float], side: int = 128) -> np.ndarray:
    """Tissue of two known stains: much of one or much of the other, anywhere."""
    rng = np.random.default_rng(seed)
    share = rng.beta(0.3, 0.3, (side * side, 1))
    amounts = np.hstack([share, 1 - share]) * rng.uniform(0.6, 1, (side * side, 1)) * strength
    pixels = 240 * np.exp(-amounts @ (stains / np.linalg.norm(stains, axis=0)).T) - 1
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8).reshape(side, side, 3)


def test_known_stains_are_found_and_moved_onto_the_target() -> None:
    tiles = np.stack([_painted(seed, STAINS, (1.2 + seed, 1.5)) for seed in (0, 1)])
    measured = measure("macenko", torch.from_numpy(tiles))
    expected = STAINS / np.linalg.norm(STAINS, axis=0)
    for found in measured.first.numpy():
        assert np.degrees(np.arccos((found * expected).sum(axis=0))).max() < 2
    assert measured.second[0].tolist() == pytest.approx([1.2, 1.5], rel=0.05)
    assert measured.second[1].tolist() == pytest.approx([2.2, 1.5], rel=0.05)
    target = _default("macenko")
    again = measure("macenko", normalise("macenko", torch.from_numpy(tiles), target.tensors())[0])
    for stains, strength in zip(again.first.numpy(), again.second.numpy(), strict=True):
        assert np.degrees(np.arccos(np.clip((stains * target.tensors()[0].numpy()).sum(axis=0), -1, 1))).max() < 2
        assert strength.tolist() == pytest.approx(target.numbers[6:], rel=0.05)


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_a_picture_is_its_own_target(method: str) -> None:
    picture = _painted(0, STAINS, (1.2, 1.2))
    target = measure_target(method, picture)
    found, _ = normalise(method, torch.from_numpy(picture)[None], target.tensors())
    assert np.abs(found[0].numpy().astype(int) - picture).max() <= 1


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_a_tile_never_depends_on_its_batch(tissue: np.ndarray, method: str) -> None:
    tiles, target = torch.from_numpy(np.tile(tissue, (4, 1, 1, 1))), _default(method).tensors()
    whole = normalise(method, tiles, target)[0]
    for first, last in ((0, 1), (1, 4), (2, 23)):
        assert torch.equal(normalise(method, tiles[first:last], target)[0], whole[first:last])
    assert torch.equal(whole[:6], whole[6:12])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_a_gpu_gives_the_same_picture(tissue: np.ndarray, method: str) -> None:
    tiles, target = torch.from_numpy(np.concatenate([tissue, _left_alone(tissue)])), _default(method).tensors()
    here, changed = normalise(method, tiles, target)
    there, changed_there = normalise(method, tiles.cuda(), target)
    assert torch.equal(changed, changed_there.cpu())
    assert (here.int() - there.cpu().int()).abs().max() <= 1


def _left_alone(tissue: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    glass = rng.integers(236, 244, (256, 256, 3))
    speck = glass.copy()
    speck[:30, :30] = tissue[0, :30, :30]
    black, blue = np.zeros((256, 256, 3)), np.broadcast_to([70, 60, 150], (256, 256, 3))
    white = np.full((256, 256, 3), 255)
    return np.stack([glass, speck, black, blue, white]).astype(np.uint8)


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_glass_and_single_colours_pass_unchanged(tissue: np.ndarray, method: str) -> None:
    plain = _left_alone(tissue)
    tiles = torch.from_numpy(np.concatenate([plain, tissue[:1]]))
    found, changed = normalise(method, tiles, _default(method).tensors())
    assert changed.tolist() == [False] * len(plain) + [True]
    assert torch.equal(found[:-1], tiles[:-1]) and not torch.equal(found[-1], tiles[-1])


def test_the_bundled_target_is_the_bundled_slide() -> None:
    with open_slide(BUNDLED_SLIDE) as slide:
        pixels = slide.read((0, 0), 0, slide.size0)
    assert measure_target("reinhard", pixels).numbers == pytest.approx(_default("reinhard").numbers, abs=0.01)
    assert WHITE == 240 and _default("macenko").numbers[6:] == (1.9705, 1.0308)


class _Mean:
    """An encoder that says the mean colour of a tile."""

    record, identity, device = SimpleNamespace(name="e"), IDENTITY, "cpu"

    def embed(self, pixels: np.ndarray, clock: Any = None) -> np.ndarray:
        return np.asarray(pixels.mean(axis=(1, 2)), np.float32)

    def probe_batch(self, tile_px: int) -> int:
        return tile_px // 8


def test_the_encoder_sees_normalised_tiles_and_says_so(tissue: np.ndarray) -> None:
    target = _default("macenko")
    encoder = StainedEncoder(_Mean(), target)  # type: ignore[arg-type]
    tiles = np.concatenate([tissue, _left_alone(tissue)])
    seen = normalise("macenko", torch.from_numpy(tiles), target.tensors())[0].numpy()
    assert np.array_equal(encoder.embed(tiles), seen.mean(axis=(1, 2)).astype(np.float32))
    encoder.embed(tiles[:7])
    assert (encoder.unchanged, encoder.probe_batch(256)) == (5 + 1, 32)
    assert encoder.identity == stained(IDENTITY, target) != IDENTITY
    assert encoder.identity.fingerprint != stained(IDENTITY, _default("reinhard")).fingerprint
    assert target_of(encoder.identity.transform) == target.text and target_of(IDENTITY.transform) is None
    assert StainTarget.from_text(target.text) == target


def test_a_target_is_known_by_its_content(tmp_path: Path, tissue: np.ndarray) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(tissue[2]).save(tmp_path / name)
    Image.fromarray(tissue[3]).save(tmp_path / "c.png")
    targets = [
        stain_target(ExtractSettings(stain="macenko", stain_target=str(tmp_path / name)))
        for name in ("a.png", "b.png", "c.png")
    ]
    assert targets[0] == targets[1] != targets[2] and targets[0] is not None
    kept = ExtractSettings(stain="macenko", stain_target=targets[0].text)
    assert stain_target(kept) == targets[0], "a model keeps the numbers, not the picture"
    settings, _ = merge(RunSettings, [("x", {"extract": {"stain": "macenko", "stain_target": "a.png"}})])
    assert Path(settings.extract.stain_target or "").is_absolute()


def test_targets_that_cant_be_used(tmp_path: Path, tissue: np.ndarray) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.full((300, 300, 3), 250, np.uint8)).save(tmp_path / "glass.png")
    reinhard = _default("reinhard").text
    cases: list[tuple[str, type[PathpipeError], str]] = [
        (str(tmp_path / "none.png"), MissingError, "there is no such picture"),
        (str(tmp_path / "text.png"), SettingsError, "can't be read as a picture"),
        (str(tmp_path / "glass.png"), SettingsError, "too little tissue, or only one colour"),
        (reinhard, SettingsError, "the target was measured for reinhard"),
        ("macenko:1,2", SettingsError, "`macenko:1,2` is not a stain target"),
        ("macenko:a", SettingsError, "is not a stain target"),
    ]
    for target, kind, words in cases:
        with pytest.raises(kind, match=words):
            stain_target(ExtractSettings(stain="macenko", stain_target=target))
    with pytest.raises(SettingsError, match="stain_target needs a method"):
        merge(RunSettings, [("x", {"extract": {"stain_target": "a.png"}})])
    assert stain_target(ExtractSettings()) is None
