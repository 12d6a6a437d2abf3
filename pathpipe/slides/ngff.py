"""What an OME-Zarr folder says of itself: its image, axes, levels and um/px, from small JSON files alone.

Reference: OME-NGFF 0.4 (zarr 2) and 0.5 (zarr 3), `multiscales` and `bioformats2raw.layout`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pathpipe.errors import SlideError

METADATA_NAMES = (".zattrs", ".zgroup", ".zarray", "zarr.json")
_UM = {
    **{name: 1.0 for name in ("micrometer", "micrometre", "micron", "um", "\u00b5m", "\u03bcm")},
    **{name: 1e-4 for name in ("angstrom",)},
    **{name: 1e-3 for name in ("nanometer", "nanometre", "nm")},
    **{name: 1e3 for name in ("millimeter", "millimetre", "mm")},
    **{name: 1e4 for name in ("centimeter", "centimetre", "cm")},
    **{name: 1e6 for name in ("meter", "metre", "m")},
}
_RED_GREEN_BLUE = ("FF0000", "00FF00", "0000FF")
_BROKEN = (AttributeError, IndexError, KeyError, OSError, TypeError, UnicodeDecodeError, ValueError)


@dataclass(frozen=True)
class NgffFacts:
    """The image of an OME-Zarr folder.

    Attributes:
        group: Folder of the image: the slide's own, or the first series inside it.
        version: Of OME-NGFF.
        axes: Axis names in the order of the arrays, e.g. ("t", "c", "z", "y", "x").
        levels: Folder of each level, the finest first.
        scales: Size of a px of each level, (x, y), all in the unit of level 0.
        mpp: um/px (x, y) of level 0, or None where no unit of length is given.
        associated: Names of the other images: label, macro.
    """

    group: Path
    version: str
    axes: tuple[str, ...]
    levels: tuple[Path, ...]
    scales: tuple[tuple[float, float], ...]
    mpp: tuple[float, float] | None
    associated: tuple[str, ...]


def read_ngff_facts(folder: Path) -> NgffFacts:
    """The facts of the first image.

    Raises:
        SlideError: It isn't OME-Zarr, its metadata is damaged, or its channels aren't red, green and blue.
    """
    try:
        root = _attributes(folder)
        group, associated = (folder, ()) if "multiscales" in root else _first_series(folder, root)
        attributes = root if group == folder else _attributes(group)
        image = attributes["multiscales"][0]
        axes = tuple(axis["name"].lower() for axis in image["axes"])
        scales = tuple(_scale(image, dataset, axes) for dataset in image["datasets"])
        levels = tuple(group / dataset["path"] for dataset in image["datasets"])
        return NgffFacts(
            group=group,
            version=str(image.get("version") or attributes.get("version") or "unknown"),
            axes=axes,
            levels=levels,
            scales=scales,
            mpp=_mpp(image["axes"], scales[0]),
            associated=associated,
        )
    except _BROKEN as error:
        said = error.strerror if isinstance(error, OSError) else " ".join(f"{type(error).__name__} {error}".split())
        raise SlideError(
            f"not an OME-Zarr image of version 0.4 or 0.5, or its metadata is damaged ({said})",
            where=folder.name,
            hint="copy the folder again from its source, hidden files (.zattrs) too",
        ) from None


def refuse_coloured_channels(facts: NgffFacts, where: str) -> None:
    """Three channels with colours of their own are fluorescence, not red, green and blue.

    Raises:
        SlideError: The `omero` block says so.
    """
    channels = _attributes(facts.group).get("omero", {}).get("channels", [])
    colours = [str(channel.get("color", "")).upper() for channel in channels if isinstance(channel, Mapping)]
    if len(set(colours)) > 1 and tuple(colours[:3]) != _RED_GREEN_BLUE:
        raise SlideError(
            f"not an RGB slide: its channels are shown in the colours {', '.join(colours)}",
            where=where,
            hint="pathpipe works on 8-bit RGB brightfield slides; leave it out, or convert it to RGB first",
        )


def _attributes(group: Path) -> dict[str, Any]:
    """Attributes of a zarr group, version 2 or 3, those of OME at the top."""
    third = group / "zarr.json"
    if third.is_file():
        found = json.loads(third.read_text("utf-8"))["attributes"]
        attributes = found.get("ome", found)
    else:
        attributes = json.loads((group / ".zattrs").read_text("utf-8"))
    if not isinstance(attributes, dict):
        raise ValueError("attributes are no mapping")
    return attributes


def _first_series(folder: Path, root: Mapping[str, Any]) -> tuple[Path, tuple[str, ...]]:
    """The folder of the first image of a `bioformats2raw.layout`, and the names of the others."""
    if "bioformats2raw.layout" not in root:
        raise SlideError(
            "is a zarr folder, but holds no OME-Zarr image",
            where=folder.name,
            hint="results of other tools are kept as .zarr too; give the slide itself",
        )
    series = root.get("series") or _stated_series(folder)
    if not series:
        series = sorted((path.name for path in folder.iterdir() if path.name.isdigit()), key=int)
    names = _image_names(folder)
    others = [names[index] if index < len(names) else str(path) for index, path in enumerate(series)]
    return folder / str(series[0]), tuple(others[1:])


def _stated_series(folder: Path) -> list[str]:
    try:
        return list(_attributes(folder / "OME").get("series", []))
    except _BROKEN:
        return []


def _image_names(folder: Path) -> list[str]:
    try:
        root = ElementTree.parse(folder / "OME" / "METADATA.ome.xml").getroot()
    except (ElementTree.ParseError, OSError):
        return []
    return [image.get("Name") or f"series {index}" for index, image in enumerate(root.findall("{*}Image"))]


def _scale(image: Mapping[str, Any], dataset: Mapping[str, Any], axes: tuple[str, ...]) -> tuple[float, float]:
    """Size of a px, (x, y): the scale of the level times that of the whole image."""
    x = y = 1.0
    for holder in (dataset, image):
        for transform in holder.get("coordinateTransformations", []):
            if transform["type"] == "scale":
                x *= float(transform["scale"][axes.index("x")])
                y *= float(transform["scale"][axes.index("y")])
    if not (math.isfinite(x) and math.isfinite(y) and x > 0 and y > 0):
        raise ValueError(f"a scale of {x:g}, {y:g}")
    return x, y


def _mpp(axes: list[Mapping[str, Any]], scale: tuple[float, float]) -> tuple[float, float] | None:
    unit = {axis["name"].lower(): _UM.get(str(axis.get("unit", "")).lower()) for axis in axes}
    x, y = unit["x"], unit["y"]
    return None if x is None or y is None else (scale[0] * x, scale[1] * y)
