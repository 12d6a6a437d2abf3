"""The plot of the checks: a panel for each, the same bytes every time."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from pathpipe.explain.curve_plot import draw_checks
from pathpipe.explain.faithfulness import Curves, deletion_insertion
from tests.unit.explain.made_up import aim, member

SHARES = {"pen": {"score": 0.4, "area": 0.1}, "any": {"score": 0.4, "area": 0.1}}
PEN, CURVE = (230, 60, 200), (181, 55, 27)


def _curves() -> Curves:
    found = deletion_insertion([member()], [aim()], np.arange(23.0), 3)
    assert found is not None
    return found


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def _has(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(pixels - colour).max(axis=-1) < 12).sum())


def test_artefacts_have_a_panel_of_their_own_colour() -> None:
    with_them = _pixels(draw_checks(_curves(), SHARES, "S1 $x$", "high"))
    without = _pixels(draw_checks(_curves(), {}, "S1 $x$", "high"))
    assert with_them.shape[1] == 1080 and without.shape[1] == 720
    assert _has(with_them, PEN) > 500 and _has(without, PEN) == 0
    for half in (without[:, :360], without[:, 360:]):
        assert _has(half, CURVE) > 100


def test_equal_input_gives_equal_bytes() -> None:
    first = draw_checks(_curves(), SHARES, "S1", "high")
    assert first == draw_checks(_curves(), SHARES, "S1", "high")
    assert b"Software" not in first
