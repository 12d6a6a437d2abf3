"""The overlay: what is drawn where, in which colour, on small, large and bounded slides."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels
from pathpipe.tissue.artefacts import COLOURS, artefact_colour
from pathpipe.tissue.legend import font, wrap
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.overlay import EXCLUDE, GRID, HOLE, INCLUDE, draw_overlay
from pathpipe.tissue.polygons import TISSUE
from pathpipe.tissue.rois import Rois

MPP = Mpp(0.5, 0.5, "test")
NONE = np.empty((0, 2), np.int64)
Rgb = npt.NDArray[np.int64]


class Plain(Closing):
    """One grey."""

    path, reader, vendor = Path("plain"), "plain", "plain"
    mpp, objective, properties = MPP, None, SimpleNamespace()

    def __init__(self, size0: tuple[int, int], bounds: Box | None = None) -> None:
        self.size0, self.bounds = size0, bounds
        self.levels = make_levels([size0, (size0[0] // 16 or 1, size0[1] // 16 or 1)])

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        return np.full((size_px[1], size_px[0], 3), 200, np.uint8)


def _mask(size0: tuple[int, int], scale: float = 16, **more: Any) -> TissueMask:
    """Tissue over the left half, with a hole in it."""
    mask = np.zeros((round(size0[1] / scale), round(size0[0] / scale)), bool)
    mask[:, : mask.shape[1] // 2] = True
    mask[10:20, 10:20] = False
    return TissueMask(mask, (scale, scale), MPP, **more)


def _draw(slide: Plain, mask: TissueMask, xy0: Any = NONE, **more: Any) -> tuple[Rgb, tuple[int, int]]:
    """(H, W, 3) pixels of the picture without its footer, and the size of the file's."""
    with Image.open(io.BytesIO(draw_overlay(slide, mask, xy0, (256.0, 256.0), 1000, **more))) as file:  # type: ignore[arg-type]
        width, height = map(int, file.info["comment"].split(b"x"))
        left = (file.width - width) // 2
        return np.asarray(file.convert("RGB")).astype(int)[:height, left : left + width], file.size


def _near(pixel: Rgb, colour: tuple[int, int, int], within: int = 45) -> bool:
    return bool(np.abs(pixel - np.asarray(colour)).max() <= within)


@pytest.mark.parametrize("size0", [(1600, 1280), (64_000, 51_200), (160, 128)])
def test_the_longest_side_is_what_was_asked_for(size0: tuple[int, int]) -> None:
    picture, full = _draw(Plain(size0), _mask(size0, size0[0] / 100))
    assert picture.shape[:2] == (800, 1000) and full[0] == 1000 and 800 < full[1] < 900
    assert _near(picture[400, 499], TISSUE) or _near(picture[400, 498], TISSUE), "its edge lies in the middle"
    assert any(_near(picture[150, x], HOLE) for x in range(95, 102)), "a quarter of a mask px around the hole"
    assert _near(picture[700, 250], (200, 200, 200), 6) and _near(picture[700, 750], (200, 200, 200), 6)


def test_a_slim_slide_gets_a_footer_that_can_be_read() -> None:
    picture, full = _draw(Plain((160, 1600)), _mask((160, 1600), 8), xy0=np.array([[0, 0]]))
    assert picture.shape[:2] == (1000, 100) and full[0] == 560


def test_only_the_scanned_part_is_shown() -> None:
    slide = Plain((64_000, 64_000), Box(32_000, 16_000, 16_000, 8_000))
    mask = np.zeros((400, 400), bool)
    mask[100:150, 200:250] = True  # the left half of the bounds
    picture, _ = _draw(slide, TissueMask(mask, (160.0, 160.0), MPP))
    assert picture.shape[:2] == (500, 1000)
    edge = np.flatnonzero([_near(pixel, TISSUE, 60) for pixel in picture[250]])
    assert abs(edge.max() - 500) < 5 and edge.min() < 5


def test_tiles_are_tinted_where_they_lie_however_they_overlap() -> None:
    slide, mask = Plain((2000, 2000)), _mask((2000, 2000))
    xy0 = np.array([[1200, 400], [1328, 400], [1328, 528]])
    picture, _ = _draw(slide, mask, xy0)
    tint = 0.9 * 200 + 0.1 * np.asarray(GRID)
    for x0, y0 in ((1230, 430), (1450, 500), (1450, 600), (1550, 750)):
        assert _near(picture[y0 // 2, x0 // 2], tuple(tint), 8), (x0, y0)
    for x0, y0 in ((1210, 770), (1900, 1900), (1180, 410)):
        assert _near(picture[y0 // 2, x0 // 2], (200, 200, 200), 8), (x0, y0)
    assert picture[250, 600].sum() < tint.sum() - 150 and picture[250, 600, 2] > picture[250, 600, 0] + 40, "outlined"


def test_tiny_tiles_are_tinted_without_lines_that_would_hide_the_slide() -> None:
    side = np.arange(0, 100_000, 256)
    xy0 = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    picture, _ = _draw(Plain((100_000, 100_000)), _mask((100_000, 100_000), 500), xy0)
    part = picture[600:900, 600:900]
    assert np.ptp(part, axis=(0, 1)).max() < 12 and _near(part.mean(axis=(0, 1)), (155, 165, 190), 6)


def test_artefacts_are_hatched_in_their_colours() -> None:
    mask = _mask((1600, 1600))
    where = np.zeros_like(mask.mask)
    where[60:90, 60:90] = True
    slide = Plain((1600, 1600))
    none, small = _draw(slide, mask)
    for kind in (*COLOURS, "something of a plug-in"):
        picture, full = _draw(slide, _mask((1600, 1600), artefacts={kind: where}, removed_um2={kind: 1e6}))
        changed = np.abs(picture - none).sum(axis=2) > 20
        rows, columns = np.nonzero(changed)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((600, 900, 600, 900), abs=10)
        inside = picture[620:880, 620:880]
        expected = 200 + (np.asarray(artefact_colour(kind)) - 200) * 0.4  # half at 0.6, half at 0.2
        assert _near(inside.mean(axis=(0, 1)), tuple(expected), 8), kind
        assert inside.std() > 5, "hatched"
        assert full >= small


def test_regions_are_outlined() -> None:
    square = np.array([[400.0, 400], [1200, 400], [1200, 1200], [400, 1200]])
    rois = Rois(include=[[square]], exclude=[[square + 300]])
    picture, _ = _draw(Plain((2000, 2000)), _mask((2000, 2000)), rois=rois)
    assert _near(picture[400, 200], INCLUDE) and _near(picture[600, 350], EXCLUDE)
    whole, _ = _draw(Plain((2000, 2000)), _mask((2000, 2000)), rois=Rois())
    assert not any(_near(whole[y, x], INCLUDE) for y, x in ((400, 200), (600, 350)))


def test_flags_are_lines_of_the_footer() -> None:
    slide = Plain((1600, 1280))
    heights = [_draw(slide, _mask((1600, 1280), flags=flags))[1][1] for flags in ((), ("a",), ("a", "b c " * 200))]
    assert heights[0] < heights[1] < heights[2] - 60, "a long one is wrapped"


def test_text_is_wrapped_and_cut_to_its_width() -> None:
    face = font(13)
    lines = wrap("one two three four five six seven eight nine ten", face, 120)
    assert len(lines) > 2 and all(face.getlength(line) <= 120 for line in lines)
    assert " ".join(lines) == "one two three four five six seven eight nine ten"
    two = wrap("one two three four five six seven eight nine ten", face, 120, most=2)
    assert len(two) == 2 and two[0] == lines[0] and two[1].endswith("…") and face.getlength(two[1]) <= 120
    assert wrap("a" * 400, face, 50, most=1)[0].endswith("…")
    assert wrap("", face, 50) == [""] and wrap("short", face, 50, most=1) == ["short"]


def test_ten_thousand_tiles_are_drawn_quickly() -> None:
    side = np.arange(100) * 400
    xy0 = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    slide, mask = Plain((40_000, 40_000)), _mask((40_000, 40_000), 32)
    started = time.process_time()
    draw_overlay(slide, mask, xy0, (400.0, 400.0), 1400)  # type: ignore[arg-type]
    assert time.process_time() - started < 2, "0.15 s on an idle core"


def test_equal_slides_give_equal_pictures() -> None:
    slide, mask = Plain((1600, 1280)), _mask((1600, 1280), flags=("a",))
    first, again = (draw_overlay(slide, mask, NONE, (256.0, 256.0), 500) for _ in range(2))  # type: ignore[arg-type]
    assert first == again
