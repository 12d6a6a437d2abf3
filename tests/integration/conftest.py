"""A small cohort of real pixels, and the command line as people call it."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathpipe.samples.cohort import _textures
from pathpipe.samples.painting import Recipe, paint
from pathpipe.slides.writer import shrink, write_svs
from tests.integration.warm import WarmProcess

Call = Callable[..., subprocess.CompletedProcess[str]]
MPP = 0.5


def environment() -> dict[str, str]:
    """One thread a process: tests run side by side, and results must not depend on it."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def pathpipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Run `pathpipe ARGS...` as a process of its own, forked from one that has imported torch already."""
    warm, folder = WarmProcess(environment()), tmp_path_factory.mktemp("said")
    numbers = itertools.count()

    def call(*arguments: object, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        out, err = (folder / f"{next(numbers)}.{name}" for name in ("out", "err"))
        told = list(map(str, arguments))
        code = warm.run(told, environment(), out, err)
        done = subprocess.CompletedProcess(["pathpipe", *told], code, out.read_text(), err.read_text())
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    yield call
    warm.close()


def write_slide(path: Path, seed: int, foreign: bool = False, blank: bool = False, mpp: float | None = MPP) -> None:
    """A slide of about 300 x 250 um of real tissue."""
    tissue, other = _textures()
    recipe = Recipe((330, 280), implants=2, foreign=foreign, blank=blank)
    image = paint(recipe, tissue, other, MPP, np.random.default_rng(seed)).image
    path.parent.mkdir(parents=True, exist_ok=True)
    write_svs(path, [image, shrink(image, 4)], mpp, objective=20 if mpp else None)


@pytest.fixture(scope="session")
def cohort_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten patients, two classes, one with two slides."""
    folder = tmp_path_factory.mktemp("cohort")
    rows = []
    for number in range(11):
        patient = min(number, 9)  # the last patient has two slides
        write_slide(folder / "slides" / f"S{number:02d}.svs", seed=number, foreign=patient % 2 == 1)
        label = "implant" if patient % 2 else "plain"
        rows.append({"path": f"slides/S{number:02d}.svs", "patient_id": f"P{patient}", "label": label})
    table = folder / "cohort.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    return table


SMALL = ("--mpp", "0.5", "--tile-px", "112", "--min-area-um2", "2000")


@pytest.fixture(scope="session")
def extracted(pathpipe: Call, cohort_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the features of that cohort. Tests must not change it."""
    run = tmp_path_factory.mktemp("extracted") / "run"
    pathpipe("extract", cohort_csv, "-o", run, *SMALL)
    return run


@pytest.fixture(scope="session")
def reported(pathpipe: Call, extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run brought to its report. Tests must not change it."""
    import shutil

    run = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(extracted, run)
    pathpipe("report", run, "--folds", "3", "--epochs", "8", "--bootstrap", "200", "--width-px", "400")
    return run
