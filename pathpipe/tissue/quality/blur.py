"""Areas out of focus, from a bounded number of windows of fine pixels spread over the tissue."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.errors import SlideError
from pathpipe.slides.slide import Level, Mpp, Slide, read_shrunk
from pathpipe.tissue.quality.density import WHITE, BoolArray

WINDOW_PX = 64
FINE_UM = 1.05  # nuclei have edges at this resolution, and a level near it is in most pyramids
COARSEST_UM = 2.1  # beyond this even a sharp slide shows no edge of a nucleus
MIN_CELL_UM = 256.0
MAX_WINDOWS = 128  # what bounds the time, whatever the slide
MIN_TISSUE = 0.5  # of a window
MIN_CONTRAST = 0.02  # standard deviation of optical density; less is mucin, fat or glass: nothing to judge
BLURRED_UM = 1.25  # standard deviation of a Gaussian that would blur a sharp slide as much, at 1 um/px or finer
_SMOOTH_PX = 1.0  # against noise and JPEG blocks
_OWN = 1.2 * _SMOOTH_PX**2  # squared width, px2, that the smoothing and the pixels give to a sharp picture


@dataclass(frozen=True)
class Focus:
    """What the windows say.

    Attributes:
        blurred: (H, W) bool, cells of the mask whose window is out of focus.
        judged: How many windows had enough contrast.
        unreadable: How many windows the reader couldn't decode.
    """

    blurred: BoolArray
    judged: int
    unreadable: int


@dataclass(frozen=True)
class _Source:
    """Where windows come from: a level, shrunk while it is decoded and then by a whole number."""

    level: Level
    shrink: int
    factor: int
    um: tuple[float, float]

    @property
    def mean_um(self) -> float:
        return float(np.sqrt(self.um[0] * self.um[1]))


def find_blur(slide: Slide, mpp: Mpp, tissue: BoolArray, scale0: tuple[float, float]) -> Focus | None:
    """Judge the focus of the tissue, a square cell at a time.

    Cells are as small as `MAX_WINDOWS` allows. In each, the window with most tissue is read at about 1 um/px.

    Args:
        tissue: (H, W) bool.
        scale0: Level-0 px per mask px, (x, y).

    Returns:
        None where the slide's finest level is too coarse to tell.
    """
    source = _source(slide, mpp)
    if source is None:
        return None
    mask_um = (scale0[0] * mpp.x, scale0[1] * mpp.y)
    side, spots = _spots(tissue, mask_um, source.mean_um * WINDOW_PX)
    windows, cells, unreadable = [], [], 0
    for row, column in spots:
        centre0 = ((column + 0.5) * scale0[0], (row + 0.5) * scale0[1])
        try:
            windows.append(_window(slide, source, centre0))
            cells.append((row // side, column // side))
        except SlideError:  # the stage that needs those pixels says so; here they are only not judged
            unreadable += 1
    grid = np.zeros((-(-tissue.shape[0] // side), -(-tissue.shape[1] // side)), np.int8)
    if windows:
        limit_um = BLURRED_UM * max(1.0, source.mean_um)
        width_um, contrast = focus_um(np.stack(windows), source.mean_um)
        verdict = np.where(contrast < MIN_CONTRAST, 0, np.where(width_um > limit_um, 1, -1))
        grid[tuple(np.transpose(cells))] = verdict
    blurred = np.repeat(np.repeat(_supported(grid), side, 0), side, 1)[: tissue.shape[0], : tissue.shape[1]]
    return Focus(np.ascontiguousarray(blurred), int((grid != 0).sum()), unreadable)


def focus_um(windows: npt.NDArray[np.uint8], um: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How blurred windows are, and how much there is to judge.

    In optical density a picture of edges that a Gaussian of width s has blurred has a gradient whose mean squared
    frequency is 1 / s2, which is the energy of its Laplacian over that of its gradient. The ratio doesn't change with
    the strength of the stain, for both energies grow by its square.

    Args:
        windows: (N, h, w) uint8, the green channel, which haematoxylin, eosin and DAB all darken.
        um: Side of a pixel.

    Returns:
        (N,) width of the blur beyond that of a sharp slide, as the standard deviation of a Gaussian in um; and (N,)
        contrast, the standard deviation of the optical density.

    Reference: Pertuz et al. (2013), Pattern Recognition 46(5), on focus measures by gradients and Laplacians.
    """
    density = np.stack([cv2.GaussianBlur(_DENSITY[window], (0, 0), _SMOOTH_PX) for window in windows])
    across = (density[:, 1:-1, 2:] - density[:, 1:-1, :-2]) / 2
    down = (density[:, 2:, 1:-1] - density[:, :-2, 1:-1]) / 2
    around = density[:, 1:-1, 2:] + density[:, 1:-1, :-2] + density[:, 2:, 1:-1] + density[:, :-2, 1:-1]
    laplacian = around - 4 * density[:, 1:-1, 1:-1]
    gradient_energy = (across**2 + down**2).mean(axis=(1, 2), dtype=np.float64)
    laplacian_energy = (laplacian**2).mean(axis=(1, 2), dtype=np.float64)
    squared_px = gradient_energy / np.maximum(laplacian_energy, 1e-12)
    return np.sqrt(np.maximum(squared_px - _OWN, 0)) * um, density.std(axis=(1, 2), dtype=np.float64)


def _source(slide: Slide, mpp: Mpp) -> _Source | None:
    """The coarsest pixels that are fine enough."""
    options = []
    for level in slide.levels:
        for shrink in level.shrinks:
            um = (level.downsample[0] * mpp.x * shrink, level.downsample[1] * mpp.y * shrink)
            options.append(_Source(level, shrink, 1, um))
    fine = [one for one in options if one.mean_um <= FINE_UM]
    if not fine:
        best = min(options, key=lambda one: one.mean_um)
        return best if best.mean_um <= COARSEST_UM else None
    best = max(fine, key=lambda one: (one.mean_um, one.level.index))
    factor = max(1, int(FINE_UM / best.mean_um))
    return _Source(best.level, best.shrink, factor, (best.um[0] * factor, best.um[1] * factor))


def _spots(tissue: BoolArray, mask_um: tuple[float, float], window_um: float) -> tuple[int, npt.NDArray[np.int64]]:
    """Side of a cell in mask px, and the (N, 2) row and column in each where a window holds most tissue."""
    # a quarter of a window is as near as its place need be known
    coarse = max(1, int(window_um / min(mask_um) / 4))
    small = (-(-tissue.shape[1] // coarse), -(-tissue.shape[0] // coarse))
    whole = cv2.copyMakeBorder(
        np.ascontiguousarray(tissue).view(np.uint8) * np.uint8(255),
        *(0, small[1] * coarse - tissue.shape[0], 0, small[0] * coarse - tissue.shape[1]),
        cv2.BORDER_CONSTANT,
        value=0,
    )
    covered = cv2.resize(whole, small, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    kernel = tuple(max(1, round(window_um / um / coarse)) for um in mask_um)
    share = np.asarray(cv2.boxFilter(covered, -1, kernel, borderType=cv2.BORDER_CONSTANT), np.float32)
    pixel_um = float(np.sqrt(mask_um[0] * mask_um[1])) * coarse
    side = max(1, round(max(MIN_CELL_UM, np.sqrt(float(covered.sum()) / MAX_WINDOWS) * pixel_um) / pixel_um))
    while True:
        best, spots = _best_of_cells(share, side)
        spots = spots[best >= MIN_TISSUE]
        if len(spots) <= MAX_WINDOWS:
            return side * coarse, spots * coarse + coarse // 2
        side += max(1, side // 8)


def _best_of_cells(share: npt.NDArray[np.float32], side: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    rows, columns = -(-share.shape[0] // side), -(-share.shape[1] // side)
    padded = np.pad(share, ((0, rows * side - share.shape[0]), (0, columns * side - share.shape[1])))
    cells = padded.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side * side)
    place = cells.argmax(axis=1)
    row, column = np.divmod(np.arange(rows * columns), columns)
    spots = np.stack([row * side + place // side, column * side + place % side], axis=1)
    return cells.max(axis=1), spots.astype(np.int64)


def _window(slide: Slide, source: _Source, centre0: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """The green channel around a place, (WINDOW_PX, WINDOW_PX)."""
    side = WINDOW_PX * source.factor
    reach0 = [side * source.shrink * down / 2 for down in source.level.downsample]
    xy0 = (max(0, round(centre0[0] - reach0[0])), max(0, round(centre0[1] - reach0[1])))
    pixels = read_shrunk(slide, xy0, source.level.index, (side, side), source.shrink)
    green = np.ascontiguousarray(pixels[..., 1])
    if source.factor == 1:
        return green
    return np.asarray(cv2.resize(green, (WINDOW_PX, WINDOW_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _supported(grid: npt.NDArray[np.int8]) -> BoolArray:
    """Blurred cells (1) among whose judged neighbours at least one is blurred too, or that have none judged (0)."""
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.float32)
    count = [
        cv2.filter2D((grid == sign).astype(np.float32), -1, ring, borderType=cv2.BORDER_CONSTANT) for sign in (1, -1)
    ]
    return np.asarray((grid == 1) & ((count[0] > 0) | (count[1] == 0)))


_DENSITY = (-np.log10(np.clip(np.arange(256), 1, WHITE) / WHITE)).astype(np.float32)
