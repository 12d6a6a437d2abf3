"""Ten workers and three encoders on one cohort at once: each slide once by each encoder, no hole, nothing left over."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from pathpipe.cohort import Cohort
from pathpipe.run import Run
from tests.integration.conftest import environment, write_slide

ENCODERS = ("timm:test_vit", "timm:test_vit2", "timm:test_vit3")
SLIDES = 4
WORKERS = 10

# Commands spend seconds on imports alone: these are forked from a process with one thread that has imported and loaded.
_TEN = """
import os, sys, traceback
from pathlib import Path
import torch, timm
from pathpipe import publish
from pathpipe.encoders.load import load_for
from pathpipe.execution.listener import Listener
from pathpipe.execution.pipeline import bring_up_to_stage
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
import pathpipe.stages.extract, pathpipe.stages.tile, pathpipe.stages.tissue

torch.set_num_threads(1)
workers, encoders = int(sys.argv[1]), sys.argv[2:5]
put = publish._put

def logged(partial, target, claim):
    put(partial, target, claim)
    if target.suffix != ".json":
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{target.relative_to(run.folder)}\\n".encode())

def asked(number):
    first = encoders[number % 3]
    return merge(RunSettings, [("test", {
        "tile": {"mpp": 0.5, "tile_px": 112}, "tissue": {"min_area_um2": 2000},
        "extract": {"encoder": first},
        "execution": {
            "with_encoders": [name for name in encoders if name != first],
            "workers": 1, "read_threads": 1, "tiles_per_batch": 4, "slides_in_flight": 1 + number % 2,
        },
    })])[0]

def work(number):
    publish._put = logged
    outcome = bring_up_to_stage(run, "extract", asked(number), Listener())
    assert not outcome.of("failed", "stale", "busy"), outcome

def forked(number):
    child = os.fork()
    if child == 0:
        try:
            work(number)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child

for number in range(3):
    load_for(asked(number))
for count, folder in ((workers, sys.argv[5]), (1, sys.argv[6])):
    run, log = Run.open(Path(folder)), folder + ".log"
    children = [forked(number) for number in range(count)]
    if any([os.waitpid(child, 0)[1] for child in children]):
        sys.exit(1)
"""


def _weights(folder: Path) -> None:
    for name in ENCODERS:
        torch.manual_seed(0)
        state = timm.create_model(name.removeprefix("timm:"), num_classes=0).state_dict()
        place = folder / name.replace(":", "-")
        place.mkdir(parents=True)
        save_file({key: value.contiguous() for key, value in state.items()}, place / "model.safetensors")


def _digests(run: Path) -> dict[str, str]:
    files = (path for part in ("tissue", "tiles", "features") for path in (run / part).rglob("*") if path.is_file())
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def test_ten_workers_on_three_encoders(tmp_path: Path) -> None:
    _weights(tmp_path / "weights")
    for number in range(SLIDES):
        write_slide(tmp_path / "slides" / f"S{number}.svs", seed=number)
    runs = [tmp_path / "ten", tmp_path / "one"]
    for run in runs:
        Run.create(run, Cohort.read(tmp_path / "slides"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _TEN, str(WORKERS), *ENCODERS, *map(str, runs)],
        env={**environment(), "PATHPIPE_WEIGHTS_DIR": str(tmp_path / "weights")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, str]] = []
    for run in runs:
        found.append(_digests(run))
        made = Counter(run.with_suffix(".log").read_text().split())
        rows = [name for name in made if name.endswith(".rows")]
        assert set(made) - set(rows) == set(found[-1])
        assert set(made.values()) == {1}, f"made twice: {made.most_common(3)}"
        assert len(rows) == SLIDES * len(ENCODERS)
        assert [path for path in run.rglob("*") if path.name.startswith(".")] == []
        assert [path for path in (run / "leases").rglob("*") if path.is_file()] == []
    ten, one = found
    features = [name for name in ten if name.startswith("features/")]
    assert len(features) == SLIDES * len(ENCODERS) and len(ten) == SLIDES * (3 + len(ENCODERS))
    assert ten == one
    receipts = [json.loads(path.read_text()) for path in (tmp_path / "ten" / "receipts" / "extract").glob("*.json")]
    assert len(receipts) == SLIDES and {one["state"] for one in receipts} <= {"done", "current"}
