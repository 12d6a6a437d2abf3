"""What each tool keeps of a slide: masks and tiles over the thumbnail, side by side; a close look where they differ."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pathpipe.publish import publish
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Mpp
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.thumbnail import read_thumbnail

WIDTH = 590
ZOOM = 6  # the close look shows a sixth of the side
FINE = 8  # level-0 px per px of the picture that is cut and shrunk
TINT, LINE = (0, 160, 60), (20, 60, 230)
SHOWN = ("pathpipe", "hs2p", "LazySlide")


def draw(slide_path: Path, kept: dict[str, Path], to: Path) -> None:
    """Draw `kept` (tool -> npz of corners, side and mask) as a JPEG."""
    with open_slide(slide_path) as slide:
        pixels = read_thumbnail(slide, FINE).pixels
    found = {name: np.load(path) for name, path in kept.items() if name in SHOWN}
    corner, side = _where_they_differ(list(found.values()), pixels.shape[0])
    columns = []
    for name, data in found.items():
        picture = _with_tiles(pixels, data)
        y, x = corner
        close = picture[y : y + side, x : x + side]
        columns.append(np.vstack([_titled(picture, f"{name}: {len(data['xy0'])} tiles"), _titled(close, "close look")]))
        print(f"{name}: {_judged(pixels, data)}")
    to.parent.mkdir(parents=True, exist_ok=True)
    ok, code = cv2.imencode(".jpg", np.hstack(columns)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])
    assert ok
    with publish(to) as partial:
        partial.write_bytes(code.tobytes())


def _with_tiles(pixels: np.ndarray, data: dict[str, np.ndarray]) -> np.ndarray:
    picture = pixels.copy()
    if data["mask"].size:
        size = (pixels.shape[1], pixels.shape[0])
        mask = cv2.resize(data["mask"].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        picture[mask] = (picture[mask] * 0.72 + np.array(TINT) * 0.28).astype(np.uint8)
    side = float(data["side0"]) / FINE
    for x, y in data["xy0"] / FINE:
        cv2.rectangle(picture, (round(x), round(y)), (round(x + side), round(y + side)), LINE, 8)
    return picture


def _where_they_differ(found: list[dict[str, np.ndarray]], height: int) -> tuple[tuple[int, int], int]:
    """Corner (y, x) and side of the window in which the tools agree least, px of the picture."""
    covers = np.zeros((len(found), height, height), np.float32)
    for cover, data in zip(covers, found, strict=True):
        side = float(data["side0"]) / FINE
        for x, y in data["xy0"] / FINE:
            cover[round(y) : round(y + side), round(x) : round(x + side)] = 1
    side = height // ZOOM
    unlike = cv2.boxFilter(covers.std(axis=0), -1, (side, side), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    y, x = np.unravel_index(int(unlike[:-side, :-side].argmax()), unlike[:-side, :-side].shape)
    return (int(y), int(x)), side


def _judged(pixels: np.ndarray, data: dict[str, np.ndarray]) -> str:
    """Tiles against a third opinion: pixels that are clearly darker or more coloured than the glass."""
    glass = np.median(pixels.reshape(-1, 3), axis=0)
    stained = np.abs(cv2.GaussianBlur(pixels, (0, 0), 2).astype(np.float32) - glass).max(axis=2) > 18
    mask = TissueMask(stained, (FINE, FINE), Mpp(1, 1, "benchmark"))
    share = mask.fraction(data["xy0"].astype(np.int64), (float(data["side0"]), float(data["side0"])))
    kept = np.zeros(stained.shape, bool)
    side = float(data["side0"]) / FINE
    for x, y in data["xy0"] / FINE:
        kept[round(y) : round(y + side), round(x) : round(x + side)] = True
    lost = (stained & ~kept).sum() / stained.sum()
    less = (share < 0.25).mean()
    return (
        f"{less:.0%} of tiles under a quarter stained, median {np.median(share):.0%}; {lost:.0%} of the stain left out"
    )


def _titled(picture: np.ndarray, text: str) -> np.ndarray:
    small = cv2.resize(
        picture, (WIDTH, round(WIDTH * picture.shape[0] / picture.shape[1])), interpolation=cv2.INTER_AREA
    )
    title = np.full((34, WIDTH, 3), 255, np.uint8)
    cv2.putText(title, text, (6, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (30, 30, 30), 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(np.vstack([title, small]), 0, 4, 3, 3, cv2.BORDER_CONSTANT, value=(255, 255, 255))
