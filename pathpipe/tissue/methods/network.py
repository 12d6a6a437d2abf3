"""A user's segmentation network over a whole thumbnail: resampled, in overlapping tiles, blended; CPU only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from pathpipe.errors import MissingError, SettingsError
from pathpipe.fingerprint import file_sha256
from pathpipe.settings import Settings
from pathpipe.slides.slide import Pixels
from pathpipe.tissue.method import Found, TissueMethod, View

BATCH = 4
WHITE = 255
COARSER = 1.35  # a thumbnail is a level shrunk by a whole number: at most 4/3 of what was asked for
Floats = npt.NDArray[np.float32]
Forward = Callable[[Floats], npt.NDArray[Any]]


class NetworkOptions(Settings):
    """What a network wants and what it gives."""

    file: Path = Field(description="The exported network")
    sha256: str | None = Field(None, description="Refuse any other file than the one with this digest")
    mpp: float = Field(gt=0, le=64, description="Resolution the network was trained at, um/px")
    tile_px: int = Field(512, ge=32, le=4096, description="Side of a tile, px")
    overlap_px: int = Field(64, ge=0, description="Overlap of neighbouring tiles, blended, px")
    scale: Literal["0-1", "0-255"] = Field("0-1", description="Range of the colours before mean and std")
    mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), description="Subtracted, R G B")
    std: tuple[float, float, float] = Field((0.229, 0.224, 0.225), description="Divided by, R G B")
    output: Literal["softmax", "sigmoid", "argmax", "probability"] = Field(
        "softmax",
        description="How its output is read: scores of exclusive classes, scores of single classes, scores or indices "
        "of which only the largest counts, or probabilities",
    )
    tissue_classes: tuple[int, ...] = Field((1,), min_length=1, description="Classes that are tissue, from 0")
    threshold: float = Field(0.5, gt=0, lt=1, description="Probability above which there is tissue")

    @model_validator(mode="after")
    def _tiles_advance(self) -> Self:
        if self.overlap_px > self.tile_px // 2:
            raise ValueError("overlap_px must be at most half of tile_px")
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        if min(self.tissue_classes) < 0:
            raise ValueError("tissue_classes count from 0")
        return self


class Network(TissueMethod):
    """What the file formats share; a format adds `load`."""

    Options = NetworkOptions

    def __init__(self, options: NetworkOptions) -> None:
        self.options = options

    @classmethod
    def load(cls, path: Path) -> Forward:
        """The network as a function: (N, 3, H, W) float32 to its output.

        Raises:
            MissingError: What runs it isn't installed.
            SettingsError: The file isn't of this format.
        """
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Digest of the file's content."""
        path = self.options.file
        try:
            status = path.stat()
        except OSError:
            raise MissingError(
                "there is no such network", where=str(path), hint="correct the option `file` of the tissue method"
            ) from None
        if not path.is_file():
            raise MissingError("is no file", where=str(path), hint="the option `file` names the exported network")
        digest = _digest(path, status.st_size, status.st_mtime_ns)
        if self.options.sha256 is not None and digest != self.options.sha256.lower():
            raise SettingsError(f"its SHA-256 is {digest}, not the one in the option `sha256`", where=str(path))
        return digest

    def preflight(self, mask_um: float) -> None:
        """See `TissueMethod`: the file, what runs it, the resolution, and the shape of its output."""
        if mask_um > self.options.mpp * 1.01:
            self._refuse_coarse(mask_um)
        side = self.options.tile_px
        self._probability(np.full((1, side, side, 3), WHITE, np.uint8))

    def find(self, view: View) -> Found:
        """See `TissueMethod`."""
        chosen = self.options
        if view.pixel_um > chosen.mpp * COARSER:
            self._refuse_coarse(view.pixel_um)
        height, width = view.pixels.shape[:2]
        factor = view.pixel_um / chosen.mpp
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        pixels = view.pixels if size == (width, height) else cv2.resize(view.pixels, size, interpolation=kind)
        likely = blend(np.asarray(pixels, np.uint8), chosen.tile_px, chosen.overlap_px, self._probability)
        if size != (width, height):
            likely = np.asarray(cv2.resize(likely, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        return Found(np.asarray(likely > chosen.threshold * 255), chosen.threshold)

    def _refuse_coarse(self, mask_um: float) -> None:
        wanted = self.options.mpp
        raise SettingsError(
            f"the tissue network wants {wanted:g} um/px and the mask has {mask_um:.4g}",
            where=str(self.options.file),
            hint=f"set tissue.mpp to {wanted:g} (--tissue-mpp {wanted:g})",
        )

    def _probability(self, tiles: Pixels) -> Floats:
        """Of tissue: (N, H, W, 3) uint8 to (N, H, W) float32, 0 to 1."""
        chosen = self.options
        scaled = tiles.astype(np.float32) / (255 if chosen.scale == "0-1" else 1)
        normal = (scaled - np.asarray(chosen.mean, np.float32)) / np.asarray(chosen.std, np.float32)
        forward = _loaded(type(self), chosen.file, self.fingerprint())
        given = forward(np.ascontiguousarray(normal.transpose(0, 3, 1, 2)))
        return self._read(given, tiles.shape[:3])

    def _read(self, given: npt.NDArray[Any], shape: tuple[int, ...]) -> Floats:
        """The output in the options' terms."""
        chosen = self.options
        classes = list(chosen.tissue_classes)
        if chosen.output == "argmax" and given.shape == shape:
            return np.isin(given.astype(np.int64), classes).astype(np.float32)
        n, height, width = shape
        if given.ndim != 4 or (given.shape[0], *given.shape[2:]) != shape or given.shape[1] <= max(classes):
            raise SettingsError(
                f"its output is {'x'.join(map(str, given.shape))} for {n}x3x{height}x{width}, "
                f"and must be {n}xCx{height}x{width} with C above {max(classes)}",
                where=str(chosen.file),
                hint="correct the options tile_px and tissue_classes, or export the network with an output per pixel",
            )
        scores = given.astype(np.float32)
        if chosen.output == "argmax":
            return np.isin(scores.argmax(axis=1), classes).astype(np.float32)
        if chosen.output == "softmax":
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            return np.asarray(shares[:, classes].sum(axis=1) / shares.sum(axis=1), np.float32)
        if chosen.output == "sigmoid":
            scores = np.asarray(1 / (1 + np.exp(-np.clip(scores, -60, 60))), np.float32)
        return np.asarray(scores[:, classes].max(axis=1), np.float32)


def blend(pixels: Pixels, tile_px: int, overlap_px: int, probability: Callable[[Pixels], Floats]) -> Pixels:
    """Probabilities of a whole picture from overlapping tiles.

    Tiles weigh less towards their edges, where a network sees less; rows of tiles are finished one by one, so nothing
    but the result is as large as the picture. Outside the picture it is white.

    Args:
        pixels: (H, W, 3) uint8.
        probability: (N, tile, tile, 3) uint8 to (N, tile, tile) float32, 0 to 1.

    Returns:
        (H, W) uint8, 255 for 1.
    """
    height, width = pixels.shape[:2]
    weight = _weight(tile_px, overlap_px)
    tops, lefts = _starts(height, tile_px, overlap_px), _starts(width, tile_px, overlap_px)
    wide = lefts[-1] + tile_px
    result = np.empty((height, width), np.uint8)
    sums = np.zeros((2, tile_px, wide), np.float32)  # probability x weight, weight
    for index, top in enumerate(tops):
        for columns, tiles in _row_of_tiles(pixels, top, lefts, tile_px):
            for left, likely in zip(columns, probability(tiles), strict=True):
                sums[0, :, left : left + tile_px] += likely * weight
                sums[1, :, left : left + tile_px] += weight
        after = tops[index + 1] if index + 1 < len(tops) else top + tile_px
        done = min(after, height) - top
        mean = sums[0, :done, :width] / sums[1, :done, :width]
        result[top : top + done] = np.clip(np.rint(mean * 255), 0, 255)
        sums[:, : tile_px - (after - top)] = sums[:, after - top :].copy()
        sums[:, tile_px - (after - top) :] = 0
    return result


def _row_of_tiles(pixels: Pixels, top: int, lefts: list[int], side: int) -> Iterator[tuple[list[int], Pixels]]:
    for start in range(0, len(lefts), BATCH):
        columns = lefts[start : start + BATCH]
        tiles = np.full((len(columns), side, side, 3), WHITE, np.uint8)
        for tile, left in zip(tiles, columns, strict=True):
            inside = pixels[top : top + side, left : left + side]
            tile[: inside.shape[0], : inside.shape[1]] = inside
        yield columns, tiles


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover a length; the last may reach past it."""
    step = side - overlap
    return list(range(0, max(1, length - overlap), step))


def _weight(side: int, overlap: int) -> Floats:
    """(side, side) float32: 1 inside, falling linearly over the overlap, never 0."""
    from_edge = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1.0
    ramp = np.minimum(from_edge / (overlap + 1), 1).astype(np.float32)
    return np.asarray(ramp[:, None] * ramp[None], np.float32)


@lru_cache(maxsize=8)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """SHA-256, once a file and change of it."""
    return file_sha256(path)


@lru_cache(maxsize=2)
def _loaded(kind: type[Network], path: Path, digest: str) -> Forward:
    """A network, read once a process."""
    return kind.load(path)
