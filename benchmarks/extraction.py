"""How much of the encoder's speed is left end to end: tiles/s from slides to files over those of the forward pass."""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from pathpipe.cohort import Cohort
from pathpipe.encoders.load import load_for
from pathpipe.execution.local import Listener, run_units
from pathpipe.run import Run
from pathpipe.samples.cohort import _textures
from pathpipe.samples.painting import Recipe, paint
from pathpipe.settings import RunSettings, merge
from pathpipe.slides.writer import shrink, write_svs

STAGES = ("tissue", "tile", "extract")


def main() -> None:
    """Encode a cohort end to end, and as many batches from memory, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--weights", help="checkpoint of the encoder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--slides", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    values = {
        "tile": {"tile_px": 224, "mpp": 0.5},
        "extract": {"encoder": given.encoder, "weights": given.weights, "precision": given.precision},
        "execution": {"device": given.device},
    }
    settings, _ = merge(RunSettings, [("benchmark", values)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_slides(folder / "slides", given.slides)
        encoder = load_for(settings)
        batch = encoder.probe_batch(224)
        pixels = np.random.default_rng(0).integers(0, 255, (batch, 224, 224, 3)).astype(np.uint8)
        ratios = []
        for number in range(given.rounds + 1):
            run = Run.create(folder / f"run{number}", Cohort.read(folder / "slides"))
            keys = [slide.slide_id for slide in run.cohort.slides]
            started = time.perf_counter()
            results = run_units(run, STAGES, settings, keys, Listener())
            elapsed = time.perf_counter() - started
            tiles = sum(int(receipts[-1].counts["tiles"]) for receipts in results.values())
            batches = max(2, tiles // batch)
            started = time.perf_counter()
            for _ in range(batches):
                encoder.embed(pixels)
            forward = batches * batch / (time.perf_counter() - started)
            if number:  # the first round warms up
                ratios.append(tiles / elapsed / forward)
                print(f"end to end {tiles / elapsed:8.1f} tiles/s   forward only {forward:8.1f} tiles/s")
    print(f"{given.encoder} on {encoder.device}, {given.slides} slides, {tiles} tiles, batches of {batch}")
    print(f"share of the forward-only rate, median of {given.rounds}: {statistics.median(ratios):.3f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def _write_slides(folder: Path, count: int) -> None:
    folder.mkdir()
    tissue, other = _textures()
    for number in range(count):
        recipe = Recipe((2400, 2000), 2, True)
        image = paint(recipe, tissue, other, 0.5, np.random.default_rng(number)).image
        write_svs(folder / f"S{number}.svs", [image, shrink(image, 4)], 0.5, 20)


if __name__ == "__main__":
    main()
