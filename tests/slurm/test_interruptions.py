"""Preempted, killed, out of time: what was committed stays, what is left is done once, and the bytes are the same."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.slurm.conftest import Slurm, freeze_inside_a_slide, make_cohort, wait_for

Digests = Callable[[Path, str], dict[str, str]]
# small batches: there are many moments inside a slide
SLOW = ("--mpp", "0.5", "--tile-px", "112", "--overlap-px", "28", "--min-area-um2", "2000", "--tiles-per-batch", "1")
ON_SLURM = ("--on", "slurm", "--worker-cpus", "1", "--slides-in-flight", "1")
FEATURES = "features/*/*.h5"


@pytest.fixture(scope="session")
def two_slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of some thirty tiles each."""
    return make_cohort(tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="session")
def expected(
    slurm: Slurm, two_slides: Path, tmp_path_factory: pytest.TempPathFactory, digests: Digests
) -> dict[str, str]:
    """Digests of their features, made here and undisturbed."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    slurm.pathpipe("extract", two_slides, "-o", run, *SLOW)
    return digests(run, FEATURES)


def _attempts(run: Path, element: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "jobs" / "0001" / "elements" / f"{element}.json").read_text())[
        "attempts"
    ]
    return found


def _receipts(run: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((run / "receipts" / "extract").glob("*.json"))]


def _rows_in(path: Path) -> int:
    """Rows of a half-made file (docs/formats.md): a frame of 20 bytes stands before each block."""
    data = path.read_bytes()
    length = int.from_bytes(data[8:12], "little")
    header = json.loads(data[12 : 12 + length])
    return (len(data) - 12 - length) // (header["dim"] * np.dtype(header["dtype"]).itemsize)


def _leases(run: Path) -> list[Path]:
    return [path for path in (run / "leases").rglob("*") if path.is_file()]


def test_preempted_inside_a_slide(
    slurm: Slurm, two_slides: Path, tmp_path: Path, digests: Digests, expected: dict[str, str]
) -> None:
    run = tmp_path / "run"
    slurm.pathpipe("tile", two_slides, "-o", run, *SLOW[:8])
    slurm.pathpipe("extract", run, *SLOW, *ON_SLURM, "--at-once", "1")
    _, rows = freeze_inside_a_slide(run, "extract", 0)
    (element,) = slurm.states()
    slurm.call("sbatch", "-p", "urgent", "--cpus-per-task=2", "-o", "/dev/null", "--wrap", "true")
    wait_for(lambda: slurm.states().get(element) == "PENDING", "the preempted element to be requeued")
    committed = _rows_in(rows)
    assert committed >= 1 and not _leases(run)
    assert slurm.jobs(run)["extract"]["elements"][0]["state"] == "requeued"
    slurm.hurry(element)
    steps = slurm.wait_till_over(run)
    assert steps["extract"]["elements"][0]["state"] == "done"
    first, second = _attempts(run, "extract-0")
    assert (first["told"], first["code"], second["told"], second["code"]) == ("SIGTERM", 75, None, 0)
    assert digests(run, FEATURES) == expected
    kept = [one["counts"].get("tiles of earlier attempts", 0) for one in _receipts(run)]
    assert sorted(kept) == [0, committed]


def test_time_limit(slurm: Slurm, two_slides: Path, tmp_path: Path, digests: Digests, expected: dict[str, str]) -> None:
    run = tmp_path / "run"
    slurm.pathpipe("tile", two_slides, "-o", run, *SLOW[:8])
    slurm.pathpipe("extract", run, *SLOW, *ON_SLURM, "--at-once", "1", "--worker-hours", "1")
    freeze_inside_a_slide(run, "extract", 0)
    (element,) = slurm.states()
    slurm.call("scontrol", "update", f"JobId={element}", "TimeLimit=1")  # it is told 60 s before that: now
    wait_for(lambda: slurm.states().get(element) == "PENDING", "the element to be requeued at its time limit")
    slurm.call("scontrol", "update", f"JobId={element}", "TimeLimit=10")
    slurm.hurry(element)
    steps = slurm.wait_till_over(run)
    assert steps["extract"]["elements"][0]["state"] == "done"
    first, second = _attempts(run, "extract-0")
    assert (first["told"], first["code"], second["code"]) == ("SIGUSR1", 75, 0)
    assert "requeued" in (run / "jobs" / "0001" / "logs" / "extract-0.log").read_text()
    assert digests(run, FEATURES) == expected
    assert any("tiles of earlier attempts" in one["counts"] for one in _receipts(run))


def test_killed_and_cancelled_are_resubmitted(
    slurm: Slurm, two_slides: Path, tmp_path: Path, digests: Digests, expected: dict[str, str]
) -> None:
    run = tmp_path / "run"
    slurm.pathpipe("embed", two_slides, "-o", run, *SLOW, *ON_SLURM, "--at-once", "2")
    second = run / "jobs" / "0001" / "elements" / "extract-1.json"
    wait_for(second.exists, "the second element to begin")
    os.kill(_attempts(run, "extract-1")[0]["pid"], signal.SIGSTOP)
    killed, _ = freeze_inside_a_slide(run, "extract", 0)
    os.kill(killed, signal.SIGKILL)
    slurm.call("scancel", f"{_attempts(run, 'extract-1')[0]['job']}_1")
    steps = slurm.wait_till_over(run)
    assert [one["state"] for one in steps["extract"]["elements"]] == ["lost", "lost"]
    assert [one["state"] for one in steps["embed"]["elements"]] == ["lost", "lost"], (
        "it must not begin with half a cohort"
    )
    shown = slurm.pathpipe("jobs", run, check=1)
    assert "lost: extract 0" in shown.stderr and "logs/extract-0.log" in shown.stderr

    said = slurm.pathpipe("jobs", run, "--resubmit", check=None)
    assert "submitted again: extract 2, embed 2" in said.stderr
    steps = slurm.wait_till_over(run)
    assert all(one["state"] == "done" for step in steps.values() for one in step["elements"]), steps
    assert digests(run, FEATURES) == expected
    assert len(list(run.glob("embeddings/*/*/*.h5"))) == 2
    assert slurm.pathpipe("jobs", run).returncode == 0
