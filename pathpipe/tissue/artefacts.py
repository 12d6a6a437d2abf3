"""Artefacts as people see them: their name as a QuPath class, and their colour there and in overlays."""

from __future__ import annotations

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "pen": (230, 60, 200),
    "blur": (70, 140, 255),
    "shadow": (110, 80, 160),
    "edge": (0, 170, 200),
    "fold": (170, 110, 40),
}
_OTHER: Colour = (235, 120, 0)


def artefact_name(kind: str) -> str:
    """`pen` -> `Pen`: the class of its polygons."""
    return kind[:1].upper() + kind[1:]


def artefact_colour(kind: str) -> Colour:
    """Its colour; one for all kinds that have none of their own."""
    return COLOURS.get(kind, _OTHER)
