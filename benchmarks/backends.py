"""Overhead per unit: the same small units on this machine's own processes and on a Ray cluster.

    python benchmarks/backends.py --on ray [--units 400] [--workers 2]

A unit is the tissue of a slide of 64 x 64 px in the page cache, where next to nothing is to be done; then the same
again, when all of them are current (the command itself looks at these, on Ray too). Seconds per unit are taken
between the first and the last unit that is finished, so that they don't contain the start of workers, which is
shown apart. The ways take turns, three times; the least counts. RAY_ADDRESS joins a cluster; without it one is
started here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from pathpipe.cohort import Cohort
from pathpipe.execution import local
from pathpipe.execution.listener import Listener
from pathpipe.execution.receipt import Receipt
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.slides.writer import write_svs

ROUNDS = 3


class Stopwatch(Listener):
    """When units were finished."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.ended: list[float] = []

    def finished(self, key: str, receipts: list[Receipt]) -> None:
        """Take the time."""
        self.ended.append(time.perf_counter())

    @property
    def start_s(self) -> float:
        """Until the first unit was finished."""
        return self.ended[0] - self.begun

    @property
    def each_s(self) -> float:
        """Per unit, from the first to the last."""
        return (self.ended[-1] - self.ended[0]) / (len(self.ended) - 1)


def cohort(folder: Path, units: int) -> Path:
    """Slides of one grey each, which hold no tissue."""
    image = np.full((64, 64, 3), 240, np.uint8)
    write_svs(folder / "slide.svs", [image], 0.5, objective=20)
    names = [f"S{number:04d}.svs" for number in range(units)]
    for name in names:
        shutil.copy(folder / "slide.svs", folder / name)
    pd.DataFrame({"path": names}).to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"


def measure(run_units: Callable[..., object], run: Run, settings: RunSettings, keys: Sequence[str]) -> Stopwatch:
    """One pass over all units."""
    watch = Stopwatch()
    run_units(run, ["tissue"], settings, keys, watch)
    return watch


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=["ray"], default="ray")
    parser.add_argument("--units", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    from pathpipe.execution.ray import run_units as on_ray
    from pathpipe.execution.ray_cluster import join

    began = time.perf_counter()
    join()
    print(f"Ray joined or started after {time.perf_counter() - began:.1f} s")
    how = {"execution": {"workers": asked.workers}, "cluster": {"at_once": asked.workers}}
    settings = RunSettings.model_validate(how)
    ways: dict[str, Callable[..., object]] = {"local": local.run_units, asked.on: on_ray}
    found: dict[tuple[str, str], list[Stopwatch]] = {}
    with tempfile.TemporaryDirectory() as name:
        table = Cohort.read(cohort(Path(name), asked.units))
        for turn in range(ROUNDS):
            for way, run_units in ways.items():
                run = Run.create(Path(name) / f"{way}{turn}", table)
                keys = [slide.slide_id for slide in run.cohort.slides]
                for kind in ("made", "current"):
                    found.setdefault((way, kind), []).append(measure(run_units, run, settings, keys))
    print(f"{asked.units} units, {asked.workers} workers, least of {ROUNDS}")
    for kind in ("made", "current"):
        each = {way: min(watch.each_s for watch in found[way, kind]) for way in ways}
        start = {way: min(watch.start_s for watch in found[way, kind]) for way in ways}
        for way in ways:
            print(f"{kind:8} {way:6} {1e3 * each[way]:8.2f} ms a unit, first after {start[way]:.1f} s")
        more = each[asked.on] - each["local"]
        print(f"{kind:8} ratio  {each[asked.on] / each['local']:8.2f}, {1e3 * more:+.2f} ms a unit")


if __name__ == "__main__":
    main()
