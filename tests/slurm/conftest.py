"""A real Slurm of one node for these tests; where there can't be one, they are skipped with the reason."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MPP, environment

HERE = Path(__file__).parent
WAIT_S = 120.0


def _reason_to_skip() -> str | None:
    if os.environ.get("PATHPIPE_TEST_SLURM") != "1":
        return "needs a Slurm of its own: `make test-slurm`"
    if os.geteuid() != 0:
        return "only root can start slurmd"
    if not Path("/etc/debian_version").exists():
        return "Slurm is installed from Debian's packages"
    return None


class Slurm:
    """Commands of the Slurm that runs for these tests, and of pathpipe as one that uses it."""

    def __init__(self, conf: str) -> None:
        self.environment = {**environment(), "SLURM_CONF": conf}

    def call(self, *words: object) -> str:
        """What a command prints."""
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, env=self.environment)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def pathpipe(self, *words: object, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run `pathpipe WORDS...`."""
        command = [sys.executable, "-m", "pathpipe", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=300)
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def states(self) -> dict[str, str]:
        """`JOB_ELEMENT` -> state, of all that is in the queue."""
        lines = self.call("squeue", "--noheader", "--array", "--format=%F_%K|%T").splitlines()
        return dict(line.strip().split("|") for line in lines)

    def hurry(self, element: str) -> None:
        """Slurm lets a requeued job wait two minutes, which nobody here has."""
        self.call("scontrol", "update", f"JobId={element}", "StartTime=now")

    def wait_till_over(self, run: Path) -> dict[str, Any]:
        """What `pathpipe jobs` says when nothing of the last submission is in the queue any more."""
        wait_for(lambda: not self.states(), "an empty queue")

        def settled() -> dict[str, Any]:
            steps = self.jobs(run)  # for ten seconds what isn't in the queue may be on its way there
            waits = any(one["state"] == "pending" for step in steps.values() for one in step["elements"])
            return {} if waits else steps

        return wait_for(settled, "the last word on every element")

    def jobs(self, run: Path) -> dict[str, Any]:
        """What `pathpipe jobs --json` says: step -> state."""
        said: dict[str, Any] = json.loads(self.pathpipe("jobs", run, "--json", check=None).stdout)
        return {step["name"]: step for step in said["steps"]}


def wait_for(truth: Callable[[], Any], what: str, every_s: float = 0.2) -> Any:
    """Whatever `truth` gives when it is true at last."""
    deadline = time.monotonic() + WAIT_S
    while not (found := truth()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(every_s)
    return found


def freeze_inside_a_slide(run: Path, step: str, number: int) -> tuple[int, Path]:
    """Stop the process of an element (SIGSTOP) when some rows of a slide are there, and not all.

    Whatever signal Slurm sends it next is preceded by SIGCONT, which wakes it.

    Returns:
        Process id, and the file of rows.
    """
    record = run / "jobs" / "0001" / "elements" / f"{step}-{number}.json"
    attempt = wait_for(
        lambda: record.exists() and json.loads(record.read_text())["attempts"][-1], "an element to begin"
    )
    empty = 1000  # bytes; the header of a file of rows is less, and a row is more
    files = wait_for(
        lambda: [path for path in run.rglob("*.rows") if path.stat().st_size > empty], "rows of a slide", every_s=0.005
    )
    os.kill(attempt["pid"], signal.SIGSTOP)
    assert files[0].exists(), "the slide was done already: the test shows nothing"
    return attempt["pid"], files[0]


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Slurm, started for these tests and stopped after them."""
    reason = _reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="pathpipe-slurm-"))
    folder.chmod(0o755)
    try:
        done = subprocess.run([HERE / "start.sh", folder], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        yield Slurm(done.stdout.strip())
    finally:
        subprocess.run([HERE / "stop.sh", folder], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def digests() -> Callable[[Path, str], dict[str, str]]:
    """Path -> digest of the files of a run that match."""
    import hashlib

    def digest(run: Path, pattern: str) -> dict[str, str]:
        files = sorted(run.glob(pattern))
        return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return digest


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients of two classes, one slide each, in a folder with a space in its name."""
    return make_cohort(tmp_path_factory.mktemp("a cohort"), 8)


def make_cohort(folder: Path, count: int) -> Path:
    """A table of so many small slides."""
    import pandas as pd

    from tests.integration.conftest import write_slide

    rows = []
    for number in range(count):
        write_slide(folder / "slides" / f"S{number}.svs", seed=number, foreign=number % 2 == 1, mpp=MPP)
        label = "implant" if number % 2 else "plain"
        rows.append({"path": f"slides/S{number}.svs", "patient_id": f"P{number}", "label": label})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"
