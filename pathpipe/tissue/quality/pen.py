"""Pen marks: ink of four colours, from strokes that can be nothing else to the faint ends of those strokes."""

from __future__ import annotations

import cv2
import numpy as np

from pathpipe.tissue.quality.density import BoolArray, Density, grown, kept_pieces, opened, pieces

COLOURS = ("blue", "green", "red", "black")
MIN_WIDTH_UM = 24.0  # no nucleus, pigment grain or red cell is as wide; every pen stroke is
MIN_WIDTH_BLACK_UM = 120.0  # coverslip edges and pigment are as black, but thinner than a nib
MIN_AREA_UM2 = 20_000.0
PALE_AREA_UM2 = 2_000.0
REACH_UM = 1500.0  # from sure ink to the faint ink of the same stroke: half the width of a broad nib
HALO_UM = 40.0  # ink bleeds


def find_pen(density: Density, ignore: BoolArray) -> dict[str, BoolArray]:
    """Where ink is, by colour.

    Ink absorbs one or two primaries nearly whole and another hardly, or all alike; stains never do:
    haematoxylin, eosin and their mixtures absorb most green, DAB and melanin most blue with much green and some red.
    Sure ink is told by colour alone, and must be as wide and as large as a stroke. Where there is sure ink of a colour,
    paler ink of that colour near it counts too, as long as stain still can't explain it.

    Args:
        ignore: (H, W) bool, what was never scanned, and is as black as ink.

    Returns:
        Colour -> (H, W) bool, disjoint, halo included; only the colours that were found.
    """
    um = density.pixel_um
    found: dict[str, BoolArray] = {}
    taken = np.zeros(density.red.shape, bool)
    for colour in COLOURS:
        sure = _strokes(_sure(density, colour) & ~ignore, um, MIN_WIDTH_BLACK_UM if colour == "black" else MIN_WIDTH_UM)
        if not sure.any():
            continue
        sure |= _strokes(_pale(density, colour), um, um, PALE_AREA_UM2)
        faint = _faint(density, colour) & grown(sure, REACH_UM / um)
        ink = _touching(grown(faint | sure, max(1.0, HALO_UM / um)), sure) & ~taken
        taken |= ink
        found[colour] = ink
    return found


def _sure(density: Density, colour: str) -> BoolArray:
    """Ink that no stain looks like; densities in hundredths."""
    red, green, blue = density.red, density.green, density.blue
    if colour == "black":
        return np.asarray(
            (density.least > 100) | ((density.least > 54) & (density.most - density.least < density.least // 3 + 3))
        )
    if colour == "blue":
        return np.asarray((red > 31) & (4 * red > 5 * green) & (20 * blue < 9 * red) & (4 * blue < 3 * green))
    if colour == "green":
        return np.asarray((red > 20) & (5 * red > 8 * green) & (4 * blue >= 3 * green))
    return np.asarray((green > 65) & (5 * red < green) & (20 * blue > 11 * green))


def _faint(density: Density, colour: str) -> BoolArray:
    """Ink over stain, or thin enough to shine through; more than stain alone explains, but only where ink is near."""
    red, green, blue = density.red, density.green, density.blue
    if colour == "black":  # haematoxylin raises red over green and lowers blue; black raises both
        return np.asarray((density.least > 18) & (2 * red > green) & (3 * blue > 2 * green))
    if colour == "blue":
        return np.asarray((red > 10) & (5 * red > 4 * green) & (20 * blue < 11 * red))
    if colour == "green":
        return np.asarray((red > 10) & (10 * red > 9 * green))
    return np.asarray((green > 30) & (10 * red < 3 * green) & (8 * blue > 5 * green))


def _pale(density: Density, colour: str) -> BoolArray:
    """Thin ink on bare glass: as pure as sure ink, but pale."""
    red, green, blue = density.red, density.green, density.blue
    if colour == "red":
        return np.asarray((green > 8) & (9 * red < 2 * green) & (3 * blue > 2 * green))
    return np.zeros(red.shape, bool)


def _strokes(ink: BoolArray, pixel_um: float, width_um: float, area_um2: float = MIN_AREA_UM2) -> BoolArray:
    """The pieces of ink that are as wide and as large as a stroke."""
    return kept_pieces(
        opened(ink, width_um / pixel_um), lambda found: found[:, cv2.CC_STAT_AREA] * pixel_um**2 >= area_um2
    )


def _touching(mask: BoolArray, seeds: BoolArray) -> BoolArray:
    """The pieces of a mask that hold a seed."""
    labels, statistics = pieces(mask)
    keep = np.zeros(len(statistics), bool)
    keep[labels[seeds]] = True
    keep[0] = False
    return np.asarray(np.take(keep, labels))
