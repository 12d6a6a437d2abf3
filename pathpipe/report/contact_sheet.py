"""The contact sheet: every slide of a cohort with its overlay, small, those to look at first at the top."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

from pathpipe.report.entry import SlideEntry
from pathpipe.tissue.legend import WARNING, Rgb, font, wrap

PER_PAGE = 200
COLUMNS = 8
CELL_PX = (256, 292)  # (w, h)
PICTURE_PX = (240, 200)
_GAP, _LINE, _TEXT = 8, 17, 13
_GREY: Rgb = (225, 225, 225)
_BLACK: Rgb = (0, 0, 0)
_FRAMES: dict[str, Rgb] = {"failed": WARNING, "stale": (120, 120, 120), "empty": (235, 150, 0)}
_FLAGGED: Rgb = (235, 150, 0)
Load = Callable[[str], Image.Image | None]


def pages(entries: Sequence[SlideEntry]) -> list[list[SlideEntry]]:
    """Entries by page, the most suspicious first; ties in the cohort's order."""
    ordered = sorted(entries, key=lambda entry: entry.suspicion)
    return [ordered[start : start + PER_PAGE] for start in range(0, len(ordered), PER_PAGE)]


def sheet_title(entries: Sequence[SlideEntry]) -> str:
    """How many slides there are, and how many of them want a look."""
    counts = {state: sum(entry.state == state for entry in entries) for state in _FRAMES}
    counts["flagged"] = sum(entry.state == "done" and bool(entry.flags) for entry in entries)
    slides = f"{len(entries):,} {'slide' if len(entries) == 1 else 'slides'}"
    parts = [slides, *(f"{count:,} {what}" for what, count in counts.items() if count)]
    return " · ".join([*parts, "those to look at first come first"])


def draw_page(entries: Sequence[SlideEntry], title: str, load: Load) -> Image.Image:
    """Draw one page; one overlay is held at a time.

    Args:
        load: Slide id -> overlay without its footer, or None where there is none.
    """
    columns = max(1, min(COLUMNS, max(3, math.ceil(math.sqrt(len(entries))))))
    rows = -(-len(entries) // columns)
    top = 2 * _LINE
    sheet = Image.new("RGB", (columns * CELL_PX[0] + _GAP, top + rows * CELL_PX[1] + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, top / 2), title, fill="black", font=font(_TEXT + 2), anchor="lm")
    for index, entry in enumerate(entries):
        x = _GAP + index % columns * CELL_PX[0]
        y = top + index // columns * CELL_PX[1]
        shown = None if entry.state == "failed" else load(entry.slide_id)
        _draw_cell(sheet, draw, (x, y), entry, shown)
    return sheet


def _draw_cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], entry: SlideEntry, shown: Image.Image | None
) -> None:
    (x, y), (width, height) = at, PICTURE_PX
    small = font(_TEXT)
    if shown is None:
        draw.rectangle([x, y, x + width - 1, y + height - 1], fill=_GREY)
        for row, line in enumerate(wrap(_why(entry), small, width - 2 * _GAP, most=height // _LINE - 1)):
            draw.text((x + _GAP, y + _GAP + row * _LINE), line, fill="black", font=small)
    else:
        shown.thumbnail(PICTURE_PX)
        sheet.paste(shown, (x + (width - shown.width) // 2, y + (height - shown.height) // 2))
    frame = _FRAMES.get(entry.state, _FLAGGED if entry.flags else _GREY)
    draw.rectangle([x - 2, y - 2, x + width + 1, y + height + 1], outline=frame, width=1 if frame == _GREY else 3)
    (name,) = wrap(entry.slide_id, font(_TEXT, bold=True), width, most=1)
    lines = [(name, font(_TEXT, bold=True), _BLACK), (_numbers(entry), small, _BLACK)]
    if shown is not None:
        lines += [(line, small, WARNING) for line in wrap(_remark(entry), small, width, most=2)]
    for row, (text, face, colour) in enumerate(lines):
        draw.text((x, y + height + 6 + row * _LINE), text, fill=colour, font=face)


def _why(entry: SlideEntry) -> str:
    if entry.state == "failed":
        return f"failed in {entry.stage}: {entry.reason}"
    return entry.reason or "nothing made of it yet"


def _numbers(entry: SlideEntry) -> str:
    area = "" if entry.tissue_mm2 is None else f"{entry.tissue_mm2:,.2f} mm²"
    tiles = "" if entry.tiles is None else f"{entry.tiles:,} {'tile' if entry.tiles == 1 else 'tiles'}"
    return " · ".join(part for part in (area, tiles) if part)


def _remark(entry: SlideEntry) -> str:
    """The first thing to say of it, and how much more there is."""
    said = [entry.reason] if entry.state != "done" and entry.reason else []
    said += [flag for flag in entry.flags if flag not in said]
    more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
    return said[0] + more if said else ""
