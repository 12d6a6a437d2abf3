"""Decoding stored tiles: JPEG by libjpeg-turbo, whole or shrunk in the frequency domain; the rest by imagecodecs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
import tifffile

from pathpipe.slides.slide import Pixels

_JPEG, _JPEG2000_YCBCR = 7, 33003
_JPEG2000 = (_JPEG2000_YCBCR, 33005, 34712)
_LOSSLESS = (1, 5, 8, 32946, 50000)  # none, LZW, deflate (two numbers), zstd
SUPPORTED = (_JPEG, *_JPEG2000, *_LOSSLESS)
_RGB, _YCBCR = 2, 6

_SOI = b"\xff\xd8"
_APP0 = b"\xff\xe0"
# libjpeg's remark on rests between markers, which some scanners leave; every other remark is about lost pixels
_HARMLESS = "extraneous bytes before marker"


class DecodeError(ValueError):
    """A stored tile that can't be decoded."""


@dataclass(frozen=True)
class Decoder:
    """How the tiles of one level become pixels.

    Attributes:
        decode: (bytes of a stored tile, its number in the level, shrink, an array it may use) -> (H, W, 3 or 4) uint8,
            in that array or in one of its own. Raises DecodeError.
        shrinks: The values of `shrink` it takes.
    """

    decode: Callable[[bytes, int, int, Pixels | None], Pixels]
    shrinks: tuple[int, ...] = (1,)


def decoder_for(page: tifffile.TiffPage) -> Decoder | None:
    """The decoder of a page of 8-bit RGB, or None where its colours are stored in a way not known here."""
    photometric = int(page.photometric)
    if page.compression == _JPEG:
        known = photometric in (_RGB, _YCBCR) and page.samplesperpixel == 3
        width = page.tilewidth if page.is_tiled else page.imagewidth
        return Decoder(_jpeg(page.jpegtables, photometric, width), (1, 2, 4, 8)) if known else None
    if page.compression in _JPEG2000:
        coded = page.compression == _JPEG2000_YCBCR or photometric == _YCBCR
        return Decoder(_by_tifffile(page, coded))
    return Decoder(_by_tifffile(page, False)) if photometric == _RGB else None


def _jpeg(tables: bytes | None, photometric: int, width_px: int) -> Callable[[bytes, int, int, Pixels | None], Pixels]:
    """Abbreviated JPEG streams: the tables they share lie in a tag of the file.

    What the tag PhotometricInterpretation says of the colours holds, whatever the stream's own markers suggest
    (TIFF Technical Note 2); an Adobe marker tells the decoder.
    """
    head = _SOI + _adobe_marker(photometric == _YCBCR) + (tables[2:-2] if tables else b"")

    def decode(data: bytes, number: int, shrink: int, into: Pixels | None) -> Pixels:
        start = 2
        if data[2:4] == _APP0:  # a JFIF marker would overrule Adobe's
            start = 4 + int.from_bytes(data[4:6], "big")
        stream = head + data[start:]
        into = into if shrink == 1 else None  # the decoder wants room for the whole tile
        least = width_px // shrink  # asks for the smallest of the decoder's scales that is at least as wide
        try:
            return _turbo(stream, least, into)
        except ValueError as error:
            if _HARMLESS not in str(error):
                raise DecodeError(str(error)) from None
        try:
            return _turbo(stream, least, into, strict=False)
        except ValueError as error:
            raise DecodeError(str(error)) from None

    return decode


def _turbo(stream: bytes, least_px: int, into: Pixels | None, strict: bool = True) -> Pixels:
    return simplejpeg.decode_jpeg(stream, "RGB", min_width=least_px, buffer=into, strict=strict)


def _adobe_marker(ycbcr: bool) -> bytes:
    """APP14 of 14 bytes: name, version 100, two flag words, and whether the colours were transformed."""
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([ycbcr])


def _by_tifffile(page: tifffile.TiffPage, ycbcr: bool) -> Callable[[bytes, int, int, Pixels | None], Pixels]:
    decode_segment = page.decode

    def decode(data: bytes, number: int, shrink: int, into: Pixels | None) -> Pixels:
        try:
            segment = decode_segment(data, number)[0]
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            raise DecodeError(str(error)) from None
        pixels = np.asarray(segment, np.uint8)
        pixels = pixels.reshape(pixels.shape[-3:])
        if ycbcr:
            pixels = np.asarray(cv2.cvtColor(pixels[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB), np.uint8)
        return pixels

    return decode
