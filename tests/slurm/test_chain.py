"""The chain through Slurm gives what the same command gives here, to the byte."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.slurm.conftest import Slurm

Digests = Callable[[Path, str], dict[str, str]]
SETTINGS = {
    "tile": {"mpp": 0.5, "tile_px": 224},
    "tissue": {"min_area_um2": 2000},
    "split": {"folds": 2},
    "train": {"epochs": 3},
    "evaluate": {"bootstrap": 100},
    "heatmap": {"width_px": 200},
}


def test_run_through_slurm_is_the_run_here(slurm: Slurm, small_cohort: Path, tmp_path: Path, digests: Digests) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump({"cohort": str(small_cohort), **SETTINGS}))
    here, there = tmp_path / "here", tmp_path / "there, by Slurm"
    started = time.monotonic()
    slurm.pathpipe("run", config, "-o", there, "--on", "slurm", "--at-once", "2", "--worker-cpus", "1")
    submitted = time.monotonic() - started
    steps = slurm.wait_till_over(there)
    chain = time.monotonic() - started
    assert {name: step["elements"][0]["state"] for name, step in steps.items()} == {
        "tile": "done",
        "extract": "done",
        "audit": "done",
        "train": "done",
        "report": "done",
    }, steps
    assert [len(steps[name]["elements"]) for name in ("tile", "extract", "train")] == [2, 2, 2]
    assert (steps["tile"]["done"], steps["extract"]["done"], steps["train"]["done"]) == (8, 8, 2)

    started = time.monotonic()
    slurm.pathpipe("run", config, "-o", here)
    print(f"submitted in {submitted:.1f} s, chain {chain:.1f} s, here {time.monotonic() - started:.1f} s")
    for pattern in ("tiles/*.h5", "features/*/*.h5", "splits/*/splits.csv", "train/*/*/predictions.csv"):
        assert digests(there, pattern) == digests(here, pattern) != {}, pattern
    assert digests(there, "evaluate/*/evaluation.json") == digests(here, "evaluate/*/evaluation.json")
    assert (there / "report.html").exists() and (there / "contact_sheet.jpg").exists()

    again = slurm.pathpipe("train", there, "--on", "slurm")
    assert "nothing is left to do" in again.stderr
