"""Extraction of a large cohort on 1 to 64 GPUs, simulated from the timings of a real run: tail and overhead.

    python benchmarks/cluster_simulation.py RUN [--slides 10000] [--tiles 20000] [--gpu-rate 1000] [--unit-ms 12]
        [--start-s 20]

RUN is any run with features: its receipts give what a slide costs beside its tiles (opening, checks, writing), in
seconds as recorded, drawn with replacement. Tiles of a slide are log-normal around the mean; the size of its file,
which decides the order, goes with the tiles but for a spread. Orders: `table` as the cohort lists them; `large first`
as this machine and Ray begin them; `array`, dealt out to the elements of a Slurm array, one a GPU, each of which
first loads the encoder (`--start-s`); `array, helping`: an element that is through takes slides of others that nobody
has begun. `ideal` is all work divided by the GPUs; the tail is what a way needs beyond it. `--unit-ms` is what
handing over one slide costs (benchmarks/backends.py): the overhead.
"""

from __future__ import annotations

import argparse
import heapq
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pathpipe.execution.dispatch import share_out

GPUS = (1, 2, 4, 8, 16, 32, 64)
SPREAD_OF_TILES = 0.8  # of the logarithm: a tenth of the slides has a third of the tiles
SPREAD_OF_SIZE = 0.3  # of the logarithm: megabytes a tile


def recorded(run: Path) -> np.ndarray:
    """(n,) seconds that the slides of a run cost beside encoding their tiles."""
    found = []
    for file in sorted((run / "receipts" / "extract").glob("*.json")):
        said = json.loads(file.read_text())
        if said["state"] == "done" and said["seconds"] > 0:
            found.append(max(said["seconds"] - said["spent"].get("forward", 0.0), 0.0))
    if not found:
        raise SystemExit(f"{run} has no receipts of extracted slides")
    return np.array(found)


def makespan(seconds: np.ndarray, order: Sequence[int], gpus: int) -> float:
    """When the last of `gpus` workers is done, each taking the next slide as soon as it is free."""
    free = [0.0] * gpus
    for slide in order:
        heapq.heapreplace(free, free[0] + seconds[slide])
    return max(free)


def with_help(seconds: np.ndarray, large: Sequence[int], parts: Sequence[Sequence[int]], start_s: float) -> float:
    """When the last worker is done, each doing its own part first, and then the largest that nobody has begun."""
    free = [(start_s, worker) for worker in range(len(parts))]
    own = [iter(part) for part in parts]
    rest = iter(large)
    begun: set[int] = set()
    last = 0.0
    while free:
        now, worker = heapq.heappop(free)
        slide = next((one for one in own[worker] if one not in begun), None)
        if slide is None:
            slide = next((one for one in rest if one not in begun), None)
        if slide is None:
            last = max(last, now)
            continue
        begun.add(slide)
        heapq.heappush(free, (now + seconds[slide], worker))
    return last


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--slides", type=int, default=10_000)
    parser.add_argument("--tiles", type=float, default=20_000, help="mean tiles a slide")
    parser.add_argument("--gpu-rate", type=float, default=1000, help="tiles/s of one GPU")
    parser.add_argument("--unit-ms", type=float, default=12, help="cost of handing over one slide")
    parser.add_argument(
        "--start-s", type=float, default=20, help="seconds until an element of an array has its encoder"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    tiles = rng.lognormal(np.log(given.tiles) - SPREAD_OF_TILES**2 / 2, SPREAD_OF_TILES, given.slides)
    size = tiles * rng.lognormal(0, SPREAD_OF_SIZE, given.slides)
    beside = rng.choice(recorded(given.run), given.slides)
    work = tiles / given.gpu_rate + beside
    seconds = work + given.unit_ms / 1000
    began = time.perf_counter()
    large = sorted(range(given.slides), key=lambda slide: -size[slide])
    sorting = time.perf_counter() - began
    print(f"{given.slides:,} slides, {tiles.sum():,.0f} tiles, {work.sum() / 3600:,.1f} GPU hours; ", end="")
    print(f"a slide: median {np.median(work):.1f} s, largest {work.max():.0f} s; sorted in {sorting * 1000:.0f} ms")
    print("| GPUs | ideal, hours | tail: table | large first | array | array, helping | overhead |")
    print("|---|---|---|---|---|---|---|")
    for gpus in GPUS:
        ideal = seconds.sum() / gpus
        parts = share_out(large, gpus)
        times = [makespan(seconds, range(given.slides), gpus), makespan(seconds, large, gpus)]
        times.append(given.start_s + max(seconds[part].sum() for part in parts))
        times.append(with_help(seconds, large, parts, given.start_s))
        tails = " | ".join(f"{value / ideal - 1:.2%}" for value in times)
        print(f"| {gpus} | {work.sum() / gpus / 3600:.2f} | {tails} | {seconds.sum() / work.sum() - 1:.2%} |")


if __name__ == "__main__":
    main()
