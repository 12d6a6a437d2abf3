"""What reading by shrinking while decoding does to features: cosine between those and the features of exact pixels.

A slide whose pyramid has no level at the um/px asked for is read by the JPEG decoder's reduced-scale transform
(`slide.decode: scaled`) or decoded whole and then shrunk by area means (`exact`). Both are encoded by the same network.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from mosaic import write_mosaic

from pathpipe.encoders.load import load_encoder
from pathpipe.settings import RunSettings, merge
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.tiles.grid import TileGrid, make_grid
from pathpipe.tiles.plan import plan_read
from pathpipe.tiles.stream import stream_tiles
from pathpipe.tissue.segment import segment

SEED = 0


def tiles(path: Path, decode: str, count: int, tile_px: int, mpp_wanted: float) -> tuple[np.ndarray, TileGrid]:
    """`count` tiles of a slide, always the same places, read in one of the two ways."""
    settings, _ = merge(RunSettings, [("benchmark", {"slide": {"decode": decode}, "tile": {"tile_px": tile_px}})])
    settings, _ = merge(
        RunSettings,
        [("benchmark", {"slide": {"decode": decode}, "tile": {"tile_px": tile_px, "mpp": mpp_wanted}})],
    )
    with open_slide(path) as slide:
        mpp = resolve_mpp(slide, None, "error")
        plan = plan_read(slide, mpp, settings.tile, settings.slide.decode)
        grid = make_grid(slide, plan, segment(slide, mpp, settings.tissue), settings.tile)
        chosen = np.sort(np.random.default_rng(SEED).permutation(len(grid.xy0))[:count])
        stream = stream_tiles(slide, plan, grid.xy0[chosen], 64)
        return np.concatenate([batch.pixels for batch in stream]), grid
