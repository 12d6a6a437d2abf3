"""A cohort with trouble in it: every good slide is done, every bad one is named, and a second run does what is left."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.conftest import SMALL, Call, environment, write_slide


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.h5"))}


@pytest.fixture
def troubled(tmp_path: Path) -> Path:
    for name, options in {
        "good": {},
        "also good": {},
        "no_mpp": {"mpp": None},
        "empty": {"blank": True},
        "cut": {},
    }.items():
        write_slide(tmp_path / "slides" / f"{name}.svs", seed=3, **options)  # type: ignore[arg-type]
    cut = tmp_path / "slides" / "cut.svs"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    (tmp_path / "slides" / "zero.svs").touch()
    names = ["good", "also good", "no_mpp", "empty", "cut", "zero", "missing"]
    table = tmp_path / "cohort.csv"
    pd.DataFrame({"path": [f"slides/{name}.svs" for name in names]}).to_csv(table, index=False)
    return table


def test_each_slide_ends_with_its_own_reason(pathpipe: Call, troubled: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = pathpipe("extract", troubled, "-o", run, *SMALL, check=1)
    features = run / "features" / "efficientnet-lite0"
    assert sorted(path.stem for path in features.glob("*.h5")) == ["also good", "empty", "good"]
    for expected in (
        "no_mpp.svs: has no resolution",
        "zero.svs: is empty (0 bytes)",
        "missing.svs: there is no such file",
        "no tissue found",
    ):
        assert expected in first.stderr, first.stderr
    (reason,) = [line for line in first.stderr.splitlines() if line.startswith("failed: tissue cut")]
    assert "damaged" in reason or "opens it" in reason, reason

    before, times = _digests(features), {path: path.stat().st_mtime_ns for path in features.glob("*.h5")}
    receipts = {
        name: json.loads((run / "receipts" / "tissue" / f"{name}.json").read_text()) for name in ("good", "cut")
    }
    assert receipts["good"]["state"] == "done" and receipts["cut"]["state"] == "failed"

    # the cause of one failure is mended: only that slide is worked on
    write_slide(tmp_path / "slides" / "cut.svs", seed=4)
    second = pathpipe("extract", run, check=1)
    assert "extract cut done" in second.stderr
    assert "extract good" not in second.stderr
    assert {name: digest for name, digest in _digests(features).items() if name != "cut.h5"} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert json.loads((run / "receipts" / "tissue" / "no_mpp.json").read_text())["attempts"] == 2


def test_failures_can_be_tolerated_and_policies_help(pathpipe: Call, troubled: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pathpipe("tile", troubled, "-o", run, *SMALL, "--max-failures", "4")
    pathpipe("tile", run, "--mpp-policy", "default=0.5", "--stale", "remake", check=1)
    assert (run / "tiles" / "no_mpp.h5").exists()


def test_several_workers_give_the_same_files(pathpipe: Call, troubled: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        pathpipe("tile", troubled, "-o", tmp_path / f"run{workers}", *SMALL, "--workers", workers, check=1)
    one, three = (_digests(tmp_path / f"run{workers}" / "tiles") for workers in (1, 3))
    assert one == three and len(one) == 3


def test_stale_results_are_named_and_left_alone(pathpipe: Call, extracted: Path) -> None:
    before = _digests(extracted / "tiles")
    refused = pathpipe("tile", extracted, "--mpp", "0.6", check=2)
    assert "settings.tile.mpp: 0.5 -> 0.6" in refused.stderr
    assert "--stale remake" in refused.stderr
    assert _digests(extracted / "tiles") == before
    pathpipe("tile", extracted)  # the run's own settings still stand


def test_a_reader_that_crashes_costs_its_own_slides(troubled: Path, tmp_path: Path) -> None:
    """A plug-in reader that takes its process down with it, as a native library does on a corrupt file."""
    plugin = tmp_path / "plugin"
    info = plugin / "their_readers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-readers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pathpipe.readers]\ncrash = their_readers:crash\n")
    (plugin / "their_readers.py").write_text(
        "import os\nfrom pathpipe.slides.readers.openslide import OpenSlideSlide\n"
        "def crash(path):\n    os._exit(11) if path.stem == 'good' else None\n    return OpenSlideSlide(path)\n"
    )
    command = [sys.executable, "-m", "pathpipe", "tile", str(troubled), "-o", str(tmp_path / "run"), *SMALL]
    command += ["--reader", "crash", "--workers", "2"]
    done = subprocess.run(
        command, env={**environment(), "PYTHONPATH": str(plugin)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1, done.stderr
    assert "failed: tissue good: the process that worked on it died (exit 11)" in done.stderr
    assert sorted(path.stem for path in (tmp_path / "run" / "tiles").glob("*.h5")) == ["also good", "empty"]
    assert json.loads((tmp_path / "run" / "receipts" / "tissue" / "good.json").read_text())["state"] == "failed"
