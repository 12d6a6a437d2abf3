"""Stage `split`: folds by patient for one target."""

from __future__ import annotations

from pathlib import Path

from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import FOLDER_FILE
from pathpipe.publish import publish_json
from pathpipe.run import Run, safe_name
from pathpipe.settings import RunSettings
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.training.splits import Splits, make_splits

FILE = "splits.csv"


def split_name(settings: RunSettings) -> str:
    """Folder name of a split: target and number of folds."""
    return f"{safe_name(settings.split.target)}-{settings.split.folds}"


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The patients and their labels, whatever the order of the table."""
    labels = run.cohort.labels_by_patient(settings.split.target)
    return {"labels": fingerprint(dict(sorted(labels.items())))}


def make(job: Job) -> Made:
    """Assign patients to folds."""
    labels = job.run.cohort.labels_by_patient(job.settings.split.target)
    splits = make_splits(labels, job.settings.split)
    job.target.mkdir()
    splits.write(job.target / FILE)
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    return _made(splits)


def check(path: Path) -> Made:
    """Read the table back."""
    return _made(Splits.read(path / FILE))


def read_splits(run: Run, settings: RunSettings) -> Splits:
    """The folds these settings ask for."""
    return Splits.read(run.split(split_name(settings)) / FILE)


def _made(splits: Splits) -> Made:
    return Made(counts={"patients": splits.table["patient_id"].nunique(), "folds": splits.table["fold"].nunique()})


STAGE = Stage(
    name="split",
    version=1,
    packages=("numpy", "scikit-learn"),
    what=sections("split"),
    inputs=inputs,
    output=lambda run, key, settings: run.split(split_name(settings)),
    make=make,
    check=check,
)
