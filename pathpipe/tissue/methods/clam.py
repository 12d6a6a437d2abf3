"""CLAM's rules of segmentation, with its parameters meaning at level 0 what they mean there."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from pathpipe.errors import SlideError
from pathpipe.settings import Settings
from pathpipe.tissue.method import Found, TissueMethod, View
from pathpipe.tissue.methods.nested import filter_areas

REFERENCE_PX = 512  # areas are counted in squares of this side at level 0
WIDEST_MEDIAN_PX = 255  # OpenCV counts the pixels of a window in 16 bits
_NAMES = ("sthresh", "mthresh", "close", "use_otsu", "a_t", "a_h", "max_n_holes")
PRESETS: dict[str, dict[str, Any]] = {
    "default": dict(zip(_NAMES, (8, 7, 4, False, 100.0, 16.0, 8), strict=True)),
    "tcga": dict(zip(_NAMES, (8, 7, 4, False, 16.0, 4.0, 8), strict=True)),
    "biopsy": dict(zip(_NAMES, (15, 11, 2, False, 1.0, 1.0, 2), strict=True)),
    "resection": dict(zip(_NAMES, (15, 11, 4, False, 100.0, 16.0, 8), strict=True)),
}


class Clam(TissueMethod):
    """Saturation over a fixed or Otsu's threshold, closed, and filtered by the areas of tissue and holes.

    The mask has its own resolution, where CLAM takes the slide's level nearest to (and not above) 64x: areas are
    converted through level 0, widths of the median and of the closing by the ratio of the two resolutions. An even
    kernel moves CLAM's mask by a pixel; here it stays in place. Areas are numbers of pixels, CLAM's are of polygons
    through their centres.

    Reference: Lu et al. (2021), Nature Biomedical Engineering 5, 555-570; the presets are the numbers of
    github.com/mahmoodlab/CLAM: `create_patches_fp.py` (default), `presets/tcga.csv`, `bwh_biopsy.csv` and
    `bwh_resection.csv`.
    """

    class Options(Settings):
        """Options of `clam`. A single option overrides the preset's value."""

        preset: Literal["default", "tcga", "biopsy", "resection"] = Field(
            "default", description="CLAM's set of numbers for the options below that aren't given"
        )
        sthresh: int = Field(8, ge=0, le=255, description="Saturation above which there is tissue, 0-255")
        mthresh: int = Field(7, ge=1, le=99, description="Median filter of the saturation, odd px at seg_downsample")
        close: int = Field(
            4, ge=0, le=100, description="Closing by a square of that side, px at seg_downsample; 0: none"
        )
        use_otsu: bool = Field(False, description="Otsu's threshold in place of sthresh")
        a_t: float = Field(100.0, ge=0, description="Tissue up to this area is dropped, squares of 512 px at level 0")
        a_h: float = Field(16.0, ge=0, description="Holes up to this area are filled, squares of 512 px at level 0")
        max_n_holes: int = Field(8, ge=0, description="Holes kept in one piece of tissue; the largest")
        seg_downsample: float = Field(
            64.0, gt=0, description="Level-0 px per px of the level that CLAM would segment: its widths are px of that"
        )

        @model_validator(mode="before")
        @classmethod
        def _from_preset(cls, values: Any) -> Any:
            preset = PRESETS.get(values.get("preset", "default"), {}) if isinstance(values, dict) else {}
            return {**preset, **values} if preset else values

        @model_validator(mode="after")
        def _median_is_odd(self) -> Any:
            if self.mthresh % 2 == 0:
                raise ValueError("mthresh must be odd")
            return self

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, view: View) -> Found:
        """See `TissueMethod`."""
        chosen = self.options
        grow = chosen.seg_downsample / float(np.sqrt(view.scale0[0] * view.scale0[1]))
        saturation = np.ascontiguousarray(cv2.cvtColor(view.pixels, cv2.COLOR_RGB2HSV)[..., 1])
        smooth = cv2.medianBlur(saturation, _median_px(chosen.mthresh * grow))
        kind = cv2.THRESH_OTSU if chosen.use_otsu else 0
        threshold, binary = cv2.threshold(smooth, chosen.sthresh, 255, cv2.THRESH_BINARY + kind)
        if chosen.close:
            binary = closed(np.asarray(binary, np.uint8), max(1, round(chosen.close * grow)))
        square = REFERENCE_PX**2 / (view.scale0[0] * view.scale0[1])
        found = np.asarray(binary, bool)
        mask = filter_areas(found, chosen.a_t * square, chosen.a_h * square, chosen.max_n_holes)
        return Found(mask, float(threshold), finished=True, dropped=found & ~mask)


def _median_px(width: float) -> int:
    side = nearest_odd(width)
    if side > WIDEST_MEDIAN_PX:
        raise SlideError(
            f"method `clam` would need a median filter {side} px wide, and the widest is {WIDEST_MEDIAN_PX}: its "
            "mthresh counts px of seg_downsample, which is far coarser than the mask",
            hint="give the downsample that CLAM would segment this slide at, `--method-settings seg_downsample=1` for "
            "a slide without a pyramid",
        )
    return side


def nearest_odd(width: float) -> int:
    """The odd whole number nearest to a width, at least 1."""
    return max(1, 2 * round((width - 1) / 2) + 1)


def closed(binary: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Morphological closing by a square, in place for even sides too."""
    square = np.ones((side, side), np.uint8)
    middle, mirrored = side // 2, side - 1 - side // 2
    grown = cv2.dilate(binary, square, anchor=(middle, middle))
    return np.asarray(cv2.erode(grown, square, anchor=(mirrored, mirrored)), np.uint8)
