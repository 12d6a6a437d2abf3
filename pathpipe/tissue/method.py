"""Ways of finding tissue by name, built in or from a user's package (entry-point group `pathpipe.tissue-methods`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pathpipe.registry import Registry
from pathpipe.settings import Settings, merge
from pathpipe.slides.slide import Pixels

BoolArray = npt.NDArray[np.bool_]

METHODS = Registry(
    "tissue-method",
    {
        "otsu": "pathpipe.tissue.methods.otsu:Otsu",
        "hsv": "pathpipe.tissue.methods.hsv:Hsv",
        "clam": "pathpipe.tissue.methods.clam:Clam",
        "texture": "pathpipe.tissue.methods.texture:Texture",
        "ihc": "pathpipe.tissue.methods.ihc:Ihc",
        "cytology": "pathpipe.tissue.methods.cytology:Cytology",
        "torchscript": "pathpipe.tissue.methods.torchscript:TorchScript",
        "onnx": "pathpipe.tissue.methods.onnx:Onnx",
    },
)


@dataclass(frozen=True)
class View:
    """What a method sees of a slide.

    Attributes:
        pixels: (H, W, 3) uint8, the whole slide.
        pixel_um: Side of a pixel, um.
        scale0: Level-0 px per pixel, (x, y).
        ink: (H, W) bool, pixels that say nothing of the stain.
    """

    pixels: Pixels
    pixel_um: float
    scale0: tuple[float, float]
    ink: BoolArray


@dataclass(frozen=True)
class Found:
    """What a method makes of it.

    Attributes:
        mask: (H, W) bool.
        threshold: The number that parted tissue from glass, in the method's own unit; None where there is none.
        finished: The method has filled holes and dropped small pieces by its own rules: the common ones are left out.
        note: Something a person should look at.
        dropped: (H, W) bool, the small pieces that a finished method has dropped.
    """

    mask: BoolArray
    threshold: float | None = None
    finished: bool = False
    note: str | None = None
    dropped: BoolArray | None = None


class TissueMethod(Protocol):
    """A way of finding tissue. Derive from it: only `Options`, `__init__` and `find` have no default.

    Attributes:
        Options: Its settings; an inner class derived from `Settings`. An option of type `Path` is a file that is known
            by its content: its place is no part of a result's settings, `fingerprint` speaks for it.
        bytes_a_pixel: Memory it needs for each pixel of the view; masks of huge slides are made coarser for it.
    """

    Options: type[Settings]
    bytes_a_pixel: int = 30

    def __init__(self, options: Any) -> None: ...

    def fingerprint(self) -> str:
        """What else decides its result, e.g. the digest of a model file; empty where nothing does.

        Raises:
            MissingError: The file isn't there.
        """
        return ""

    def preflight(self, mask_um: float) -> None:
        """Raise now what would fail every slide.

        Args:
            mask_um: The resolution asked for, um/px.
        """
        return

    def find(self, view: View) -> Found:
        """Find the tissue. Pure: equal views give equal masks."""
        ...


def tissue_method(name: str, options: Mapping[str, Any]) -> TissueMethod:
    """The method of that name with its options.

    Raises:
        SettingsError: Unknown method, unknown option (with the nearest name) or a value out of bounds.
    """
    method = METHODS[name]
    settings, _ = merge(method.Options, [(f"option of tissue method `{name}`", options)])
    return method(settings)


def without_files(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say what is done: without files, which the method's fingerprint knows by content.

    Raises:
        SettingsError: Unknown method.
    """
    files = _files(name)
    return {key: value for key, value in options.items() if key not in files}


def missing_files(name: str, options: Mapping[str, Any]) -> list[str]:
    """The options that name a file, are required, and aren't given.

    Raises:
        SettingsError: Unknown method.
    """
    return [key for key, required in _files(name).items() if required and key not in options]


def pinned(name: str, options: Mapping[str, Any], digest: str | None) -> dict[str, Any]:
    """Options that refuse any other file than the one with that digest, where the method has such an option.

    Raises:
        SettingsError: Unknown method.
    """
    can = digest is not None and "sha256" in METHODS[name].Options.model_fields
    return {**options, "sha256": digest} if can else dict(options)


def _files(name: str) -> dict[str, bool]:
    """Options that name a file, and whether they are required."""
    fields = METHODS[name].Options.model_fields
    return {key: field.is_required() for key, field in fields.items() if field.annotation is Path}
