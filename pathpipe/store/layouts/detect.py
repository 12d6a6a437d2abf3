"""Which layout a file has, found by its content, and the file read; folders listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pathpipe.errors import StoreError
from pathpipe.run import Run
from pathpipe.store.layouts import anndata, atlaspatch, clam, native, plain, slide2vec, stamp, trident, wsidata
from pathpipe.store.layouts.coords import add_places
from pathpipe.store.layouts.record import DAMAGE, SlideFeatures
from pathpipe.store.zarr import is_zarr

# in the order of asking: the first that knows the file reads it
LAYOUTS: tuple[ModuleType, ...] = (native, anndata, wsidata, atlaspatch, trident, stamp, clam, slide2vec, plain)
_SUFFIXES = (".h5", ".hdf5", ".h5ad", *plain.SUFFIXES)
_NOT_FEATURES = ("patches", "tiles", "coordinates", "masks", "stitches", "slide_embeddings", "slide_latents")


def layout_of(path: Path) -> ModuleType:
    """The module that knows the file.

    Raises:
        StoreError: There is no such file, or no layout has it.
    """
    if not path.exists():
        raise StoreError("there is no such file", where=str(path))
    try:
        found = next((layout for layout in LAYOUTS if layout.matches(path)), None)
    except DAMAGE as error:
        raise StoreError(f"can't be opened: {error}", where=str(path)) from None
    if found is None:
        raise StoreError(
            "isn't a file of features of any layout that is known",
            where=str(path),
            hint="known are pathpipe, CLAM, TRIDENT, STAMP, slide2vec, AtlasPatch, wsidata, AnnData and plain arrays",
        )
    return found


def read_any(path: Path, coords: Path | None = None) -> list[SlideFeatures]:
    """Read a file of any layout: one record an encoder.

    Args:
        coords: A coordinate file, or a folder of them, for files that lack places or the size of a tile.

    Raises:
        StoreError: Of no known layout, or damaged.
        MissingError: Reading it needs a package that isn't installed.
    """
    layout = layout_of(path)
    try:
        records: list[SlideFeatures] = layout.read(path)
    except StoreError as error:
        raise error if error.where else StoreError(error.what, str(path), error.hint) from None
    except DAMAGE as error:
        raise StoreError(f"looks like {layout.NAME} but is damaged ({error})", where=str(path)) from None
    return records if coords is None else [add_places(record, coords) for record in records]


def feature_files(source: Path) -> list[Path]:
    """The files of features at a path: itself, or what lies below a folder; in order.

    Where CLAM keeps a slide twice, the h5 is taken: it has the places.

    Raises:
        StoreError: There are none.
    """
    if not source.exists():
        raise StoreError("there is no such file or folder", where=str(source))
    if source.is_file() or is_zarr(source):
        return [source]
    found = sorted(_below(source / "features" if Run.exists(source) else source))
    twins = {path.stem for path in found if path.parent.name == "h5_files"}
    files = [path for path in found if not (path.parent.name == "pt_files" and path.stem in twins)]
    if not files:
        raise StoreError("holds no files of features", where=str(source))
    return files


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not is_zarr(path):
            if path.name not in _NOT_FEATURES:
                yield from _below(path)
        elif is_zarr(path) or (path.suffix.lower() in _SUFFIXES and not path.name.endswith(".coordinates.npz")):
            yield path
