"""Reader `image`: flat PNG and JPEG pictures as slides of one level. The whole picture is held in memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, UnidentifiedImageError

from pathpipe.errors import SlideError
from pathpipe.slides.alpha import over_white
from pathpipe.slides.remote import SlideFile
from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels
from pathpipe.slides.tiff import COPY_AGAIN
from pathpipe.slides.window import read_window


class ImageSlide(Closing):
    """A picture as a slide. It states no um/px: the dpi of a picture is that of a printer or screen.

    Raises:
        SlideError: Not a picture, not RGB, damaged or too large to hold.
    """

    reader = "image"
    mpp: Mpp | None = None
    objective: float | None = None
    bounds: Box | None = None
    associated: tuple[str, ...] = ()

    def __init__(self, path: SlideFile) -> None:
        self.path = path
        self._pixels, self.vendor = _load(path)
        self.size0 = (self._pixels.shape[1], self._pixels.shape[0])
        self.levels = make_levels([self.size0])
        self.properties: Mapping[str, str] = {}

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """See `Slide.read`."""
        return read_window(self, xy0, level, size_px, lambda x, y, w, h: self._pixels[y : y + h, x : x + w])


def _load(path: SlideFile) -> tuple[Pixels, str]:
    try:
        with path.open("rb") as file, Image.open(file) as image:
            if image.mode in ("L", "LA", "1", "I", "I;16", "F", "CMYK"):
                raise SlideError(f"not an RGB slide: picture mode {image.mode}", where=path.name)
            kind = (image.format or "picture").lower()
            if not image.has_transparency_data:
                return np.asarray(image.convert("RGB")), kind
            return over_white(np.asarray(image.convert("RGBA"))), kind
    except UnidentifiedImageError:
        raise SlideError("not a picture that can be read", where=path.name) from None
    except Image.DecompressionBombError:
        raise SlideError(
            "a flat picture too large to hold in memory",
            where=path.name,
            hint="convert it to a tiled pyramidal TIFF (e.g. `vips tiffsave --tile --pyramid`)",
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise SlideError(f"damaged: {error}", where=path.name, hint=COPY_AGAIN) from None
