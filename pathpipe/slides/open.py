"""Opening a slide: the reader is chosen by content, and a refusal says why in one sentence."""

from __future__ import annotations

import math
from pathlib import Path

from pathpipe.dicom import is_dicom
from pathpipe.errors import MissingError, SlideError
from pathpipe.registry import Registry
from pathpipe.slides.native.index import NotDirect
from pathpipe.slides.presence import COVER_SUFFIX, refuse_what_is_no_slide
from pathpipe.slides.remote import Blocks, RemoteFile, SlideFile
from pathpipe.slides.slide import Slide
from pathpipe.slides.tiff import TiffFacts, is_tiff, read_tiff_facts
from pathpipe.url import Url, place

READERS = Registry(
    "reader",
    {
        "direct": "pathpipe.slides.readers.direct:DirectSlide",
        "openslide": "pathpipe.slides.readers.openslide:OpenSlideSlide",
        "tiffslide": "pathpipe.slides.readers.tiffslide:TiffSlideSlide",
        "image": "pathpipe.slides.readers.image:ImageSlide",
        "omezarr": "pathpipe.slides.readers.omezarr:OmeZarrSlide",
        "wsidicom": "pathpipe.slides.readers.wsidicom:WsiDicomSlide",
    },
)
READERS_ARE_FOR = {
    "direct": "JPEG, JPEG 2000, LZW, deflate, zstd and plain TIFF: SVS, OME-TIFF with SubIFDs, generic pyramids",
    "openslide": "every format OpenSlide knows: NDPI, MRXS, SCN, BIF, VMS, Philips and Ventana TIFF, DICOM, ...",
    "tiffslide": "TIFFs that neither of those reads, e.g. one strip of over 64 MB",
    "image": "flat PNG and JPEG pictures, held in memory",
    "omezarr": "OME-Zarr (NGFF 0.4 and 0.5) folders",
    "wsidicom": "DICOM that OpenSlide refuses; needs the extra `dicom`",
}
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff")
_PLAIN_TIFF = "generic-tiff"
_OF_PARTS = ("direct", "tiffslide", "image")  # readers that take parts of a file, wherever it is
TO_DISK = "pass `--stage-dir FOLDER` on a local disk: each slide is copied there while it is read"


class NeedsDiskError(SlideError):
    """A slide behind a URL whose reader needs a file."""

    def __init__(self, what: str, where: str | None = None, hint: str | None = TO_DISK) -> None:
        super().__init__(what, where, hint)


def refuse_unknown_reader(name: str) -> None:
    """Stop before the first slide.

    Raises:
        SettingsError: There is no such reader.
        MissingError: It is another package's, and can't be loaded.
    """
    if name != "auto":
        _ = READERS[name]


def open_slide(path: Path | Url | str, reader: str = "auto", blocks: Blocks = Blocks()) -> Slide:
    """Open a slide.

    Args:
        path: The slide: a file (for MRXS the .mrxs, for DICOM any of the series) or an OME-Zarr folder; or the URL of
            a file, which is read in place.
        reader: A reader's name, or `auto`: `direct` for the TIFFs it knows; else OpenSlide; tiffslide for TIFFs
            OpenSlide refuses or sees fewer levels of; wsidicom for DICOM it refuses; flat pictures by their first
            bytes; readers of other packages last. By URL the same slide has the same reader, or is refused.
        blocks: How a slide is read by its URL.

    Raises:
        NeedsDiskError: It is behind a URL, and its reader reads files only.
        RemoteError: It is behind a URL and can't be reached or read.
        SlideError: It can't be opened; says what it is instead, or why each reader refused.
        SettingsError: There is no such reader.
    """
    path = place(path)
    if isinstance(path, Url):
        return _open_remote(path, reader, blocks)
    refuse_what_is_no_slide(path)
    folder = path.is_dir()
    if reader == "auto" and folder:
        reader = "omezarr"
    if reader != "auto":
        if folder and reader in READERS.builtin and reader != "omezarr":
            raise SlideError(f"is a folder, which reader `{reader}` doesn't read", where=path.name)
        slide: Slide = READERS[reader](path)
        return slide
    if _starts_with(path, _PICTURES) and path.suffix.lower() != COVER_SUFFIX:
        slide = READERS["image"](path)
        return slide
    if is_tiff(path):
        return _open_tiff(path)
    dicom = ["wsidicom"] if is_dicom(path) else []
    return _first_that_opens(path, ["openslide", *dicom, *_plugins()])


def _open_remote(url: Url, reader: str, blocks: Blocks) -> Slide:
    file = RemoteFile(url, blocks)
    refuse_unknown_reader(reader)
    if reader not in ("auto", *_OF_PARTS):
        raise NeedsDiskError(f"reader `{reader}` reads files on a disk only", url.shown)
    try:
        slide: Slide = READERS[_reader_of(file) if reader == "auto" else reader](file)
    except NotDirect as other:
        # another reader than on a disk would give other pixels under the same fingerprint
        raise NeedsDiskError(
            f"is opened by OpenSlide, which reads files on a disk only ({other.what})",
            url.shown,
            f"{TO_DISK}; or read it where it is with `--reader tiffslide`, whose pixels may differ a little",
        ) from None
    except SlideError:
        file.refuse_broken()
        raise
    file.refuse_broken()
    return slide


def _reader_of(file: RemoteFile) -> str:
    if file.suffix.lower() != COVER_SUFFIX:
        if _starts_with(file, _PICTURES):
            return "image"
        if is_tiff(file):
            return "direct"
    raise NeedsDiskError("its reader reads files on a disk only", str(file))


def _open_tiff(path: Path) -> Slide:
    try:
        slide: Slide = READERS["direct"](path)
        return slide
    except NotDirect:
        return _open_other_tiff(path)


def _open_other_tiff(path: Path) -> Slide:
    try:
        slide: Slide = READERS["openslide"](path)
    except SlideError as refusal:
        read_tiff_facts(path)  # a better sentence when it is not RGB or not whole
        if "52479" in refusal.what or "compression" in refusal.what.lower():
            raise SlideError(refusal.what, where=path.name, hint="convert it to a JPEG or LZW TIFF") from None
        return _first_that_opens(path, ["tiffslide", *_plugins()])
    if slide.vendor != _PLAIN_TIFF:
        return slide
    try:
        if _openslide_sees_all(slide, read_tiff_facts(path)):
            return slide
    except SlideError:
        slide.close()
        raise
    slide.close()
    slide = READERS["tiffslide"](path)
    return slide


def _openslide_sees_all(slide: Slide, facts: TiffFacts) -> bool:
    """OpenSlide reads neither the SubIFDs of a TIFF nor its OME-XML."""
    if len(facts.level_sizes) > len(slide.levels):
        return False
    if facts.ome_mpp is None:
        return True
    return slide.mpp is not None and math.isclose(slide.mpp.x, facts.ome_mpp[0], rel_tol=0.01)


def _first_that_opens(path: Path, names: list[str]) -> Slide:
    refusals = []
    hint = "check that it is a whole-slide image and that it was copied whole"
    for name in names:
        try:
            slide: Slide = READERS[name](path)
            return slide
        except SlideError as error:
            refusals.append(f"{name}: {error.what}")
        except MissingError as error:
            refusals.append(f"{name}: {error.what}")
            hint = error.hint or hint
    raise SlideError("no reader opens it (" + "; ".join(refusals) + ")", where=path.name, hint=hint)


def _plugins() -> list[str]:
    return [name for name in READERS.names() if name not in READERS.builtin]


def _starts_with(path: SlideFile, magics: tuple[bytes, ...]) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(magics)
