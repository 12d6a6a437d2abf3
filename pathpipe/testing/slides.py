"""Slides whose pixels say where they are: what any reader returns can be checked to the pixel."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile

from pathpipe.slides.slide import Pixels
from pathpipe.slides.writer import SvsFormat, write_svs

STEP = 16
LOSSLESS = SvsFormat(quality=None, tile_px=64)


def position_pixels(size_px: tuple[int, int], downsample: tuple[float, float] = (1.0, 1.0), level: int = 0) -> Pixels:
    """(H, W, 3) uint8: R and G are level-0 x and y of the pixel's corner, by 16 (mod 256); B is 50 x level."""
    x0 = np.floor(np.arange(size_px[0]) * downsample[0]).astype(np.int64)
    y0 = np.floor(np.arange(size_px[1]) * downsample[1]).astype(np.int64)
    pixels = np.empty((size_px[1], size_px[0], 3), np.uint8)
    pixels[..., 0] = (x0 // STEP % 256)[None, :]
    pixels[..., 1] = (y0 // STEP % 256)[:, None]
    pixels[..., 2] = 50 * level
    return pixels


def position_slide(
    path: Path,
    sizes_px: Sequence[tuple[int, int]],
    mpp: float | None = 0.5,
    objective: float | None = 20,
) -> Path:
    """A lossless Aperio-style slide with levels of exactly these sizes, so that downsamples can be as odd as wanted."""
    width0, height0 = sizes_px[0]
    levels = [
        position_pixels(size, (width0 / size[0], height0 / size[1]), index) for index, size in enumerate(sizes_px)
    ]
    write_svs(path, levels, mpp, objective, LOSSLESS)
    return path


def plain_tiff(
    path: Path, pixels: np.ndarray, mpp: tuple[float, float] | None = None, subifds: Sequence[Pixels] = ()
) -> Path:
    """A tiled TIFF of no vendor; its resolution, if any, in the TIFF tags; lower levels in SubIFDs."""
    options: dict[str, object] = {"tile": (64, 64), "compression": "zlib"}
    if mpp is not None:
        options |= {"resolution": (1e4 / mpp[0], 1e4 / mpp[1]), "resolutionunit": "CENTIMETER"}
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        options["photometric"] = "rgb"
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, subifds=len(subifds), metadata=None, **options)  # type: ignore[arg-type]
        for level in subifds:
            writer.write(level, subfiletype=1, metadata=None, **options)  # type: ignore[arg-type]
    return path


def sparse_tiff(
    path: Path,
    side_px: int,
    tile: Pixels,
    box: tuple[int, int, int, int],
    factors: Sequence[int] = (1, 4, 16, 64),
    mpp: float = 0.25,
) -> Path:
    """A square JPEG pyramid that stores next to nothing: the first tile, and those a box lies in.

    Args:
        tile: (side, side, 3) uint8, the pattern of the box; around it is white.
        box: (left, top, right, lower), level-0 px.
    """
    own = tile.shape[0]

    def tiles(factor: int) -> Iterator[Pixels | None]:
        count = -(-(side_px // factor) // own)
        for place in range(count * count):
            left, top = place % count * own, place // count * own
            x1, y1 = (max(0, low // factor - at) for low, at in zip(box[:2], (left, top), strict=True))
            x2, y2 = (min(own, high // factor - at) for high, at in zip(box[2:], (left, top), strict=True))
            if x1 < x2 and y1 < y2:
                white = np.full_like(tile, 255)
                white[y1:y2, x1:x2] = tile[y1:y2, x1:x2]
                yield white
            else:
                yield None if place else np.full_like(tile, 255)

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for factor in factors:
            writer.write(
                tiles(factor),
                shape=(side_px // factor, side_px // factor, 3),
                dtype=np.uint8,
                tile=(own, own),
                photometric="rgb",
                compression="jpeg",
                metadata=None,
                subfiletype=int(factor > 1),
                resolution=(1e4 / mpp / factor,) * 2,
                resolutionunit="CENTIMETER",
            )
    return path


def position_zarr(
    path: Path,
    sizes_px: Sequence[tuple[int, int]],
    mpp: tuple[float, float] | None = (0.5, 0.5),
    form: int = 2,
    axes: str = "cyx",
    chunk_px: int = 64,
) -> Path:
    """An OME-Zarr image with levels of these sizes.

    Args:
        mpp: um/px (x, y) in the scale of the levels; no unit is written when None.
        form: Zarr format: 2 makes OME-NGFF 0.4, 3 makes 0.5.
        axes: Of the arrays, e.g. `tczyx`; t and z have one plane.
    """
    import zarr

    width0, height0 = sizes_px[0]
    unit = {} if mpp is None else {"unit": "micrometer"}
    datasets = []
    for index, (width, height) in enumerate(sizes_px):
        down = {"x": width0 / width, "y": height0 / height}
        pixels = position_pixels((width, height), (down["x"], down["y"]), index)
        stored = pixels.transpose(["yxc".index(axis) for axis in axes if axis in "yxc"])
        stored = stored.reshape([{"c": 3, "y": height, "x": width}.get(axis, 1) for axis in axes])
        array = zarr.create_array(
            str(path / str(index)),
            shape=stored.shape,
            chunks=tuple(chunk_px if axis in "yx" else 1 for axis in axes),
            dtype="uint8",
            zarr_format=form,  # type: ignore[arg-type]
            chunk_key_encoding={"name": "v2" if form == 2 else "default", "separator": "/"},
        )
        array[...] = stored
        own = dict(zip("xy", mpp or (1.0, 1.0), strict=True))
        scale = [down[axis] * own[axis] if axis in "xy" else 1.0 for axis in axes]
        datasets.append({"path": str(index), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    kinds = {"t": "time", "c": "channel"}
    named = [{"name": axis, "type": kinds.get(axis, "space"), **(unit if axis in "xyz" else {})} for axis in axes]
    image: dict[str, object] = {"axes": named, "datasets": datasets}
    if form == 2:
        (path / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
        (path / ".zattrs").write_text(json.dumps({"multiscales": [{"version": "0.4", **image}]}))
    else:
        attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (path / "zarr.json").write_text(json.dumps(group))
    return path


def cut_short(path: Path, keep: float) -> Path:
    """Cut a file as a broken copy would: its first bytes stay."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path
