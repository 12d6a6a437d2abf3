"""The attributes on `coords`: what CLAM and TRIDENT look for, in one place, for tile tables and feature files alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pathpipe.tiles.plan import ReadPlan

# name -> (who reads it, meaning); docs/formats.md shows the same table and a test compares
COORDS_ATTRIBUTES: dict[str, tuple[str, str]] = {
    "patch_size": ("CLAM, TRIDENT", "side of a tile; see the note on its two meanings"),
    "patch_level": ("CLAM", "pyramid level that is read"),
    "downsample": ("CLAM", "downsample of that level, (x, y) float64"),
    "level_dim": ("CLAM", "size of the level that is read, px, (w, h), as CLAM has it"),
    "downsampled_level_dim": ("CLAM", "size of the level that is read, px, (w, h)"),
    "patch_size_level0": ("TRIDENT", "side of a tile in level-0 px, int"),
    "level0_magnification": ("TRIDENT", "10 / um/px of level 0, int"),
    "target_magnification": ("TRIDENT", "10 / wanted um/px, int"),
    "overlap": ("TRIDENT", "overlap of neighbours, px at the wanted um/px"),
    "level0_width": ("TRIDENT", "width of level 0, px"),
    "level0_height": ("TRIDENT", "height of level 0, px"),
    "name": ("CLAM, TRIDENT", "slide id"),
    "savetodir": ("TRIDENT", "`.`: no path of the machine is kept"),
    "save_path": ("CLAM", "`.`"),
}


@dataclass(frozen=True)
class SlideFacts:
    """What the attributes say of a slide: its id and the sizes, (w, h) px, of level 0 and of the level read."""

    slide_id: str
    size0: tuple[int, int]
    level_size: tuple[int, int]


def coords_attributes(plan: ReadPlan, slide: SlideFacts) -> dict[str, object]:
    """Values of every attribute of `coords`.

    `patch_size` has two meanings: CLAM takes it in px of `patch_level`, TRIDENT in px of the target. They agree when no
    resize is needed; where they don't, TRIDENT's is written, and CLAM's field of view is then off by the resize factor
    (`pathpipe store inspect` says so).
    """
    return {
        "patch_size": plan.tile_px,
        "patch_level": plan.level,
        "downsample": np.asarray(plan.downsample, np.float64),
        "level_dim": np.asarray(slide.level_size, np.int64),
        "downsampled_level_dim": np.asarray(slide.level_size, np.int64),
        "patch_size_level0": round(plan.side0[0]),
        "level0_magnification": max(1, round(10 / plan.mpp0[0])),
        "target_magnification": max(1, round(10 / plan.mpp_wanted)),
        "overlap": plan.overlap_px,
        "level0_width": slide.size0[0],
        "level0_height": slide.size0[1],
        "name": slide.slide_id,
        "savetodir": ".",
        "save_path": ".",
    }
