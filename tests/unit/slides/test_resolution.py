"""Resolution: who may say it, in which order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pathpipe.errors import SlideError
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.testing.slides import plain_tiff, position_pixels, position_slide


def _resolve(path: Path, override: float | None = None, policy: str = "error") -> tuple[float, float, str]:
    with open_slide(path) as slide:
        mpp = resolve_mpp(slide, override, policy)
    return mpp.x, mpp.y, mpp.source


def test_chain(tmp_path: Path) -> None:
    stated = position_slide(tmp_path / "a.svs", [(64, 64)], mpp=0.2524)
    assert _resolve(stated) == (0.2524, 0.2524, "aperio property")
    assert _resolve(stated, override=0.4) == (0.4, 0.4, "cohort")
    assert _resolve(stated, policy="default=1")[2] == "aperio property", "a default must not replace a statement"


def test_policies_speak_only_when_nobody_else_does(tmp_path: Path) -> None:
    silent = position_slide(tmp_path / "a.svs", [(64, 64)], mpp=None, objective=40)
    with pytest.raises(SlideError, match=r"has no resolution.*objective power is 40") as caught:
        _resolve(silent)
    assert "--mpp-policy objective" in (caught.value.hint or "")
    assert _resolve(silent, policy="objective") == (0.25, 0.25, "objective 40x")
    assert _resolve(silent, policy="default=0.3") == (0.3, 0.3, "default of --mpp-policy")
    nothing = position_slide(tmp_path / "b.svs", [(64, 64)], mpp=None, objective=None)
    with pytest.raises(SlideError, match="no objective power"):
        _resolve(nothing, policy="objective")


def test_tiff_tags_keep_x_and_y_apart(tmp_path: Path) -> None:
    path = plain_tiff(tmp_path / "a.tif", position_pixels((64, 64)), (0.25, 0.27))
    x, y, source = _resolve(path)
    assert (x, y, source) == (pytest.approx(0.25), pytest.approx(0.27), "TIFF resolution tags")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 264.6, 0.01])
def test_what_cannot_be_true_is_refused(tmp_path: Path, value: float) -> None:
    path = position_slide(tmp_path / "a.svs", [(64, 64)])
    with pytest.raises(SlideError, match="can't be true"):
        _resolve(path, override=value)


def test_printer_resolution_is_not_believed(tmp_path: Path) -> None:
    dpi_72 = 25_400 / 72
    path = plain_tiff(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8), (dpi_72, dpi_72))
    with pytest.raises(SlideError, match=r"352\.778 um/px"):
        _resolve(path)
    odd = plain_tiff(tmp_path / "b.tif", np.zeros((64, 64, 3), np.uint8), (0.25, 1.0))
    with pytest.raises(SlideError, match=r"pixels of 0.25 x 1 um"):
        _resolve(odd)
