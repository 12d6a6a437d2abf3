"""How much of the encoder's own speed is left end to end: tiles/s of the stage over tiles/s of the forward pass."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from pathpipe.cohort import Cohort
from pathpipe.encoders.load import load_encoder
from pathpipe.execution.worker import work
from pathpipe.run import Run
from pathpipe.samples.cohort import _textures
from pathpipe.samples.painting import Recipe, paint
from pathpipe.settings import RunSettings, merge
from pathpipe.slides.writer import shrink, write_svs

ROUNDS = 3


def main() -> None:
    """Encode one slide end to end and its number of tiles from memory, in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tissue, other = _textures()
        image = paint(Recipe((2400, 2000), 2, True), tissue, other, 0.5, np.random.default_rng(0)).image
        write_svs(folder / "S.svs", [image, shrink(image, 4)], 0.5, 20)
        settings, _ = merge(RunSettings, [("benchmark", {"tile": {"tile_px": 224, "mpp": 0.5}})])
        encoder = load_encoder("efficientnet-lite0", None, "cpu")
        ratios, rates = [], []
        for number in range(ROUNDS + 1):
            run = Run.create(folder / f"run{number}", Cohort.read(folder / "S.svs"))
            work(run, ["tissue", "tile"], settings, "S")
            started = time.perf_counter()
            (receipt,) = work(run, ["extract"], settings, "S")
            end_to_end = receipt.counts["tiles"] / (time.perf_counter() - started)
            batches = int(receipt.counts["tiles"]) // 64
            pixels = np.random.default_rng(0).integers(0, 255, (64, 224, 224, 3)).astype(np.uint8)
            started = time.perf_counter()
            for _ in range(batches):
                encoder.embed(pixels)
            forward = batches * 64 / (time.perf_counter() - started)
            if number:  # the first round warms up
                ratios.append(end_to_end / forward)
                rates.append((end_to_end, forward))
        median = statistics.median(ratios)
        print(f"tiles of one slide: {int(receipt.counts['tiles'])}")
        for end_to_end, forward in rates:
            print(f"end to end {end_to_end:7.1f} tiles/s   forward only {forward:7.1f} tiles/s")
        print(f"share of the forward-only rate, median of {ROUNDS}: {median:.2f}")


if __name__ == "__main__":
    main()
