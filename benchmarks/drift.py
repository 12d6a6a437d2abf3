"""What reading by shrinking while decoding does to features: cosine between those and the features of exact pixels.

A slide whose pyramid has no level at the um/px asked for is read by the JPEG decoder's reduced-scale transform
(`tile.decode: scaled`) or decoded whole and then shrunk by area means (`exact`). Both are encoded by the same network.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from mosaic import write_mosaic

from pathpipe.encoders.encoder import Encoder
from pathpipe.encoders.load import load_encoder
from pathpipe.settings import RunSettings, merge
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.tiles.grid import make_grid
from pathpipe.tiles.plan import plan_read
from pathpipe.tiles.stream import stream_tiles
from pathpipe.tissue.segment import segment

SEED = 0


def tiles(path: Path, decode: str, count: int, tile_px: int, mpp_wanted: float) -> tuple[np.ndarray, int]:
    """`count` tiles of a slide, always the same places, read in one of the two ways.

    Returns:
        (N, tile_px, tile_px, 3) uint8, and by how much the level was shrunk while it was decoded.
    """
    values = {"decode": decode, "tile_px": tile_px, "mpp": mpp_wanted}
    settings, _ = merge(RunSettings, [("benchmark", {"tile": values})])
    with open_slide(path) as slide:
        mpp = resolve_mpp(slide, None, "error")
        plan = plan_read(slide, mpp, settings.tile)
        grid = make_grid(slide, plan, segment(slide, mpp, settings.tissue), settings.tile)
        chosen = np.sort(np.random.default_rng(SEED).permutation(len(grid.xy0))[:count])
        stream = stream_tiles(slide, plan, grid.xy0[chosen], 64)
        return np.concatenate([batch.pixels for batch in stream]), plan.shrink


def features(pixels: np.ndarray, encoder: Encoder) -> np.ndarray:
    """(N, D) float32 of length one."""
    rows = np.concatenate([encoder.embed(pixels[start : start + 32]) for start in range(0, len(pixels), 32)])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def row(name: str, exact: np.ndarray, scaled: np.ndarray) -> str:
    """Cosines of pairs; beside them those of neighbours in the list, for a sense of scale."""
    cosine = (exact * scaled).sum(axis=1)
    others = (exact * np.roll(exact, 1, axis=0)).sum(axis=1)
    nearest = (scaled @ exact.T).argmax(axis=1) == np.arange(len(exact))
    return (
        f"| {name} | {cosine.mean():.5f} | {np.percentile(cosine, 5):.5f} | {cosine.min():.5f} "
        f"| {others.mean():.3f} | {nearest.mean():.1%} |"
    )


def main() -> None:
    """One row an encoder and resolution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, help="a 40x slide without a 2x level; one is made where none is given")
    parser.add_argument("--tiles", type=int, default=256)
    parser.add_argument(
        "--encoder", action="append", help="encoder name (may be repeated; default: efficientnet-lite0)"
    )
    parser.add_argument("--weights", action="append", help="its weights, in the same order; `-` for the published ones")
    parser.add_argument("--mpp", type=float, action="append", help="um/px of the tiles (default: 0.5)")
    arguments = parser.parse_args()
    names = arguments.encoder or ["efficientnet-lite0"]
    weights = [None if one == "-" else one for one in arguments.weights or []]
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.slide or Path(folder) / "mosaic.svs"
        if arguments.slide is None:
            write_mosaic(path, 20_000)
        print("| encoder, um/px, shrink | mean cosine | 5th percentile | lowest | of two tiles | nearest is its own |")
        print("|---|---|---|---|---|---|")
        for wanted in arguments.mpp or [0.5]:
            for number, name in enumerate(names):
                encoder = load_encoder(name, weights[number] if number < len(weights) else None, "cpu")
                exact, _ = tiles(path, "exact", arguments.tiles, encoder.record.input_px, wanted)
                scaled, shrink = tiles(path, "scaled", arguments.tiles, encoder.record.input_px, wanted)
                difference = exact.astype(np.float32) - scaled
                psnr = 20 * np.log10(255 / np.sqrt((difference * difference).mean()))
                label = f"{name}, {wanted:g}, 1/{shrink} ({psnr:.1f} dB)"
                print(row(label, features(exact, encoder), features(scaled, encoder)), flush=True)


if __name__ == "__main__":
    main()
