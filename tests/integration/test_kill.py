"""Kill -9 at any moment, run again, get the same bytes; two commands at once make each slide once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import SMALL, environment

ARGUMENTS = (*SMALL, "--tiles-per-batch", "2", "--read-threads", "1")


def _start(cohort: Path, run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pathpipe", "extract", str(cohort), "-o", str(run), *ARGUMENTS]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _features(run: Path) -> dict[str, str]:
    """What others see: a file that is being published is hidden until it is whole."""
    files = sorted((run / "features" / "efficientnet-lite0").glob("[!.]*.h5"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _signs(run: Path) -> set[tuple[str, int]]:
    """What has been made so far, half-made slides included."""
    files = (path for part in ("tissue", "features") for path in (run / part).rglob("*"))
    return {(path.name, path.stat().st_size) for path in files if path.suffix in (".geojson", ".rows", ".h5")}


def _wait_for_a_sign(run: Path, process: subprocess.Popen[Any], before: set[tuple[str, int]]) -> None:
    """Until a slide is under way: importing torch is not what is tested."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):  # renamed between the listing and the look
            if _signs(run) != before:
                return
        time.sleep(0.01)


def test_killed_at_random_moments(cohort_csv: Path, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    assert _start(cohort_csv, undisturbed).wait(timeout=300) == 0
    expected = _features(undisturbed)
    assert len(expected) == 11

    run = tmp_path / "killed"
    moments = random.Random(7)
    inside_a_slide = 0
    for _ in range(6):
        before = _signs(run)
        process = _start(cohort_csv, run)
        _wait_for_a_sign(run, process, before)
        time.sleep(moments.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        inside_a_slide += bool(list(run.rglob("*.rows")))
        assert all(expected[name] == digest for name, digest in _features(run).items()), "a half-made file was visible"
    assert _start(cohort_csv, run).wait(timeout=300) == 0
    assert _features(run) == expected
    assert not list(run.rglob("*.rows")) and not list(run.rglob("*.partial*"))
    assert inside_a_slide, "no kill fell inside a slide: the test showed nothing"


def test_interrupt_is_polite(cohort_csv: Path, tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        run = tmp_path / number.name
        process = _start(cohort_csv, run)
        _wait_for_a_sign(run, process, set())
        process.send_signal(number)
        assert process.wait(timeout=60) in (130, 0)
        assert not [path for path in (run / "leases").rglob("*") if path.is_file()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_tells_every_process(cohort_csv: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Slurm signals the command and its workers alike, in no order: no unit is to blame, no lease is left."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pathpipe", "tile", str(cohort_csv), "-o", str(run), *SMALL, "--workers", "2"]
    process = subprocess.Popen(
        command, env={**environment(), "SLURM_JOB_ID": "1"}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    _wait_for_a_sign(run, process, set())
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "Traceback" not in said, said
    assert not [path for path in (run / "leases").rglob("*") if path.is_file()]
    states = [json.loads(path.read_text())["state"] for path in (run / "receipts").rglob("*.json")]
    assert set(states) <= {"done"}


def test_two_commands_at_once(cohort_csv: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    both = [_start(cohort_csv, run) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert len(_features(run)) == 11
    receipts = [json.loads(path.read_text()) for path in (run / "receipts" / "extract").glob("*.json")]
    assert [one["state"] for one in receipts] == ["done"] * 11
