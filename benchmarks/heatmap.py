"""How long a heatmap of a large slide takes: scores, picture and GeoJSON of 100,000 tiles, from features in memory."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pathpipe.explain.faithfulness import deletion_insertion
from pathpipe.explain.heatmap import Canvas, draw_heatmap
from pathpipe.explain.probing import Member
from pathpipe.explain.pyramid import Naming, write_pyramid
from pathpipe.explain.qupath import Frame, write_quantiles, write_tiles
from pathpipe.explain.scores import explain_bag, write_scores
from pathpipe.explain.truth import Truth
from pathpipe.mil.bag import Bag
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.provenance import Provenance
from pathpipe.settings import HeatmapSettings
from pathpipe.slides.slide import Mpp
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.tissue.thumbnail import Thumbnail

SIDE0 = (512.0, 512.0)


def main() -> None:
    """One line a part, and the sum of what `pathpipe heatmap` does by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--model", default="abmil")
    parser.add_argument("--score", default="auto")
    given = parser.parse_args()
    member, shape = _member(given)
    settings = HeatmapSettings.model_validate({"score": given.score})
    made = Provenance("heatmap", 1, {}, {})
    frame = Frame(SIDE0, SIDE0)
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = work()
        spent[name] = time.perf_counter() - begun
        print(f"{name:28} {spent[name]:6.2f} s", flush=True)
        return result

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = timed("scores", lambda: explain_bag([member], settings))
        scores = found.scores[0]
        timed("scores.csv", lambda: write_scores(folder / "scores.csv", found.scores))
        canvas = _canvas(shape, 700)
        timed("picture", lambda: draw_heatmap(canvas, scores, "benchmark", settings))
        timed("GeoJSON, tiles", lambda: write_tiles(folder / "t.geojson", scores, frame, "inferno", made))
        timed("GeoJSON, tenths", lambda: write_quantiles(folder / "q.geojson", scores, frame, "inferno", made))
        large, naming = _canvas(shape, 4096), Naming("benchmark", (0, 0), made.fingerprint)
        timed("OME-TIFF, 4096 px", lambda: write_pyramid(folder / "h.ome.tif", large, scores, naming, settings))
        timed("checks", lambda: deletion_insertion([member], [scores.aim], scores.score, settings.check_orders))
        sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(folder.iterdir())}
    print(", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()))
    print(f"scores + picture + GeoJSON   {spent['scores'] + spent['picture'] + spent['GeoJSON, tiles']:6.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.2f} GB; threads {torch.get_num_threads()}")


def _member(given: argparse.Namespace) -> tuple[Member, tuple[int, int]]:
    """A model with random weights, and a bag of smooth features on a square grid."""
    side = int(np.ceil(np.sqrt(given.tiles)))
    rows, columns = np.divmod(np.arange(given.tiles), side)
    rng = np.random.default_rng(0)
    waves = np.sin(rows / 20)[:, None] + np.cos(columns / 15)[:, None]
    noise = rng.standard_normal((given.tiles, given.dim), np.float32)
    features = (waves * rng.standard_normal(given.dim) + noise).astype(np.float16)
    torch.manual_seed(0)
    task = ClassificationTask("label", ("no", "yes"))
    model = build_model(Recipe(given.model), given.dim, task.outputs).eval()
    xy0 = np.column_stack([columns, rows]).astype(np.int64) * int(SIDE0[0])
    bag = Bag(features, xy0, "P", "P", np.zeros(given.tiles, np.int32), ("S",))
    return Member("fold-0-seed-0", model, task, bag, torch.zeros(given.dim)), (side, side)


def _canvas(shape: tuple[int, int], longest_px: int) -> Canvas:
    scale = max(shape) * SIDE0[0] / longest_px
    pixels = np.full((longest_px, longest_px, 3), 230, np.uint8)
    return Canvas(Thumbnail(pixels, (scale, scale)), Mpp(0.25, 0.25, "benchmark"), SIDE0, Truth())


if __name__ == "__main__":
    main()
