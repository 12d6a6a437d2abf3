"""Verify tells apart what is the same, what is in another order, and what another transform or tile size made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from pathpipe.cohort import Cohort
from pathpipe.slides.writer import write_svs
from pathpipe.stages import verify
from pathpipe.stages.verify import Verdict, VerifyRequest, choose_rows, compare, verify_files
from pathpipe.testing.slides import LOSSLESS
from tests.unit.store.peers import TRIDENT_TILES, stamp

SIZE, SIDE0, TILE = 768, 128, 64
XY0 = np.stack(np.meshgrid(np.arange(0, SIZE, SIDE0), np.arange(0, SIZE, SIDE0)), axis=-1).reshape(-1, 2)


class Corners:
    """An encoder anybody can compute: the mean colour of each of 16 x 16 squares of a tile, less a grey."""

    identity = SimpleNamespace(dim=768, to_dict=lambda: {"name": "corners", "dim": 768})

    def embed(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(N, 768) float32."""
        side = pixels.shape[1] // 16
        squares = pixels.reshape(len(pixels), 16, side, 16, side, 3).mean(axis=(2, 4))
        return (squares.reshape(len(pixels), -1) - 128).astype(np.float32)


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is `Corners`."""
    monkeypatch.setattr(verify, "load_encoder", lambda name, weights, device: Corners())


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, npt.NDArray[np.uint8]]:
    """A folder with one slide of 0.25 um/px, smooth noise; and its pixels."""
    folder = tmp_path_factory.mktemp("slides")
    coarse = np.random.default_rng(0).integers(0, 255, (SIZE // 32, SIZE // 32, 3))
    pixels = np.repeat(np.repeat(coarse, 32, axis=0), 32, axis=1).astype(np.uint8)
    write_svs(folder / "S1.svs", [pixels], 0.25, 40, LOSSLESS)
    return folder, pixels


def _features(pixels: npt.NDArray[np.uint8], side0: int = SIDE0) -> npt.NDArray[np.float32]:
    """What another tool stores of tiles of `side0` level-0 px, shrunk by area means."""
    padded = np.pad(pixels, ((0, side0), (0, side0), (0, 0)), constant_values=255)
    step = side0 // TILE
    tiles = np.stack([padded[y : y + side0, x : x + side0] for x, y in XY0.tolist()])
    small = tiles.reshape(len(tiles), TILE, step, TILE, step, 3).mean(axis=(2, 4)).astype(np.uint8)
    return Corners().embed(small)


def _trident(path: Path, values: npt.NDArray[np.float32], side0: int = SIDE0) -> Path:
    about = {**TRIDENT_TILES, "patch_size": TILE, "patch_size_level0": side0, "level0_width": SIZE}
    with h5py.File(path, "w") as file:
        file["features"] = values
        file["features"].attrs["encoder"] = "corners"
        file["coords"] = XY0
        file["coords"].attrs.update({**about, "level0_height": SIZE})
    return path


def _verify(path: Path, slides: Path, **how: Any) -> Verdict:
    (found,) = verify_files([path], Cohort.read(slides), VerifyRequest(**how))
    return found


def test_the_same_tiles_are_the_same(tmp_path: Path, slides: tuple[Path, npt.NDArray[np.uint8]]) -> None:
    folder, pixels = slides
    found = _verify(_trident(tmp_path / "S1.h5", _features(pixels)), folder)
    assert (found.state, found.rows, found.encoder, found.layout) == ("same", 36, "corners", "TRIDENT features")
    assert found.mean > 0.9999 and found.least > 0.999 and abs(found.others) < 0.2 and found.drift < 1e-3


def test_stamp_in_um_needs_the_slide_s_resolution(tmp_path: Path, slides: tuple[Path, npt.NDArray[np.uint8]]) -> None:
    folder, pixels = slides
    path = stamp(tmp_path / "S1.h5", XY0 * 0.25, unit="um", tile_size_um=SIDE0 * 0.25, tile_size_px=TILE)
    with h5py.File(path, "r+") as file:
        del file["feats"]
        file["feats"] = _features(pixels).astype(np.float16)
    found = _verify(path, folder)
    assert found.state == "failed" and "`--encoder`" in found.note
    assert _verify(path, folder, encoder="corners").state == "same"


def test_rows_in_another_order(tmp_path: Path, slides: tuple[Path, npt.NDArray[np.uint8]]) -> None:
    folder, pixels = slides
    found = _verify(_trident(tmp_path / "S1.h5", np.roll(_features(pixels), 1, axis=0)), folder)
    assert found.state == "different" and found.drift > 0.8
    assert found.note.startswith("only 0% of the tiles are nearest to their own row")


def test_another_transform_or_tile_size(tmp_path: Path, slides: tuple[Path, npt.NDArray[np.uint8]]) -> None:
    folder, pixels = slides
    brighter = _trident(tmp_path / "S1.h5", _features(pixels) + 200)  # another normalisation
    found = _verify(brighter, folder)
    assert found.state == "different" and "another transform, tile size or encoder version" in found.note
    wrong = _trident(tmp_path / "S1.h5", _features(pixels, 2 * SIDE0))  # made of larger tiles than it says
    assert _verify(wrong, folder).state == "different"
    assert _verify(_trident(tmp_path / "S1.h5", _features(pixels, 2 * SIDE0), 2 * SIDE0), folder).state == "same"


def test_little_noise_is_close(tmp_path: Path, slides: tuple[Path, npt.NDArray[np.uint8]]) -> None:
    folder, pixels = slides
    values = _features(pixels)
    noisy = values + np.random.default_rng(1).normal(0, 0.25 * values.std(), values.shape).astype(np.float32)
    found = _verify(_trident(tmp_path / "S1.h5", noisy), folder)
    assert found.state == "close" and 0.01 < found.drift < 0.1
    assert _verify(_trident(tmp_path / "S1.h5", noisy), folder, max_drift=0.01).state == "different"


def test_failures_are_rows(tmp_path: Path, slides: tuple[Path, npt.NDArray[np.uint8]]) -> None:
    folder, pixels = slides
    lost = _trident(tmp_path / "S1.h5", _features(pixels))
    with h5py.File(lost, "r+") as file:
        file["coords"][3] = [99999, 0]
    cases = [lost, tmp_path / "gone.h5", _trident(tmp_path / "S9.h5", _features(pixels)[:, :5])]
    with h5py.File(cases[2], "r+") as file:
        file["coords"].attrs["name"] = "S1"
    found = list(verify_files(cases, Cohort.read(folder), VerifyRequest()))
    assert [one.state for one in found] == ["failed"] * 3
    assert "another slide" in found[0].note and "no such file" in found[1].note and "width 5" in found[2].note


def test_one_of_several_encoders(tmp_path: Path, slides: tuple[Path, npt.NDArray[np.uint8]]) -> None:
    folder, pixels = slides
    values = _features(pixels)
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["coords"] = np.concatenate([XY0, np.tile([TILE, TILE, 0], (len(XY0), 1))], axis=1)
        file["features/corners"], file["features/other"] = values, values[:, :5]
        file.attrs.update({"patch_size": TILE, "patch_size_level0": SIDE0})
    cohort, path = Cohort.read(folder), tmp_path / "S1.h5"
    assert [one.state for one in verify_files([path], cohort, VerifyRequest())] == ["same", "failed"]
    assert [one.state for one in verify_files([path], cohort, VerifyRequest(encoder="corners"))] == ["same"]


def test_an_empty_bag_is_nothing_to_verify(tmp_path: Path, slides: tuple[Path, npt.NDArray[np.uint8]]) -> None:
    path = _trident(tmp_path / "S1.h5", _features(slides[1])[:0])
    with h5py.File(path, "r+") as file:
        about = dict(file["coords"].attrs)
        del file["coords"]
        file["coords"] = np.empty((0, 2), np.int64)
        file["coords"].attrs.update(about)
    assert _verify(path, slides[0]).state == "empty"


def test_rows_are_chosen_by_seed_and_slide() -> None:
    first = choose_rows(1000, 64, 0, "S1")
    assert np.array_equal(first, choose_rows(1000, 64, 0, "S1")) and len(set(first.tolist())) == 64
    assert not np.array_equal(first, choose_rows(1000, 64, 1, "S1"))
    assert not np.array_equal(first, choose_rows(1000, 64, 0, "S2"))
    assert choose_rows(5, 64, 0, "S1").tolist() == [0, 1, 2, 3, 4]


def test_cosines_by_hand() -> None:
    stored = np.array([[2.0, 0], [0, 3]])
    own, others, right = compare(stored, np.array([[1.0, 1], [0, 1]]))
    assert own.tolist() == pytest.approx([0.5**0.5, 1]) and others == pytest.approx(0.5**0.5 / 2) and right == 1
    own, others, right = compare(stored, stored[::-1])
    assert own.tolist() == [0, 0] and (others, right) == (1, 0)
    assert compare(stored[:1], stored[:1])[1:] == (0, 1)
