"""Stage `split`: folds by patient, made for the first target or taken from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pathpipe.cohort import Cohort
from pathpipe.errors import CohortError, LeakError, StoreError
from pathpipe.fingerprint import fingerprint, sampled_digest
from pathpipe.provenance import FOLDER_FILE
from pathpipe.publish import publish_json
from pathpipe.run import Run, safe_name
from pathpipe.settings import RunSettings, SplitSettings
from pathpipe.settings.target import TargetSpec, parse_target
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.tasks.labels import is_known
from pathpipe.training.bonds import Bonds, Values
from pathpipe.training.folds import Planned, adopt_folds, plan_folds
from pathpipe.training.foreign_splits import find_patients, foreign_digest, read_foreign
from pathpipe.training.split_summary import Summary, summarise
from pathpipe.training.splits import Splits, listed
from pathpipe.training.strata import strata_of

FILE, SUMMARY = "splits.csv", "split.json"


@dataclass(frozen=True)
class Labelled:
    """The patients of a cohort and what is to be predicted of them.

    Attributes:
        values: Of the first target, by which folds are made: patient_id -> text of each of its columns, "" where
            unknown; patients with a value of some target only.
        kept_out: Patients with no value of any target.
    """

    spec: TargetSpec
    values: Mapping[str, tuple[str, ...]]
    kept_out: tuple[str, ...]


def split_name(settings: RunSettings) -> str:
    """Folder name of a split: target, and number of folds or what makes them."""
    split = settings.split
    how = {"ignored": str(split.folds), "preserved": f"{split.folds}-by-site", "leave-one-out": "leave-one-site-out"}
    made = "given" if split.folds_from else how[split.by_site] + ("-fixed-test" if split.fixed_test else "")
    return f"{safe_name(split.target)}-{made}"


def labelled_patients(cohort: Cohort, target: str) -> Labelled:
    """The cohort's values of the targets.

    Raises:
        CohortError: A column is missing, or a patient's slides disagree.
    """
    specs = parse_target(target)
    columns = {name: cohort.labels_by_patient(name) for spec in specs for name in spec.columns}
    patients = sorted(set(cohort.patients.values()))
    texts = {
        spec: {patient: tuple(columns[name].get(patient, "") for name in spec.columns) for patient in patients}
        for spec in specs
    }
    inside = {patient for spec in specs for patient in patients if is_known(spec, texts[spec][patient])}
    return Labelled(
        specs[0],
        {patient: texts[specs[0]][patient] for patient in patients if patient in inside},
        tuple(patient for patient in patients if patient not in inside),
    )


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The patients, their labels and whatever ties them, whatever the order of the table."""
    split, cohort = settings.split, run.cohort
    labelled = labelled_patients(cohort, split.target)
    known = {"labels": fingerprint({patient: list(texts) for patient, texts in labelled.values.items()})}
    columns = {"group": split.group, "site": None if split.by_site == "ignored" else "site", "test": split.test_column}
    for name, column in columns.items():
        if column is not None:
            known[name] = fingerprint({one: list(texts) for one, texts in column_by_patient(cohort, column).items()})
    if split.test_list is not None:
        known["test list"] = sampled_digest(Path(split.test_list))
    if split.folds_from is not None:
        known |= {"folds": foreign_digest(Path(split.folds_from)), "slides": fingerprint(dict(cohort.patients))}
    return known


def column_by_patient(cohort: Cohort, column: str) -> dict[str, tuple[str, ...]]:
    """patient_id -> the different values of a column over the patient's slides, in alphabetical order."""
    found: dict[str, set[str]] = {}
    for slide_id, text in cohort.values(column).items():
        found.setdefault(cohort.patients[slide_id], set()).add(text)
    return {patient: tuple(sorted(found[patient])) for patient in sorted(found)}


def make(job: Job) -> Made:
    """Assign patients to folds."""
    settings, cohort = job.settings.split, job.run.cohort
    labelled = labelled_patients(cohort, settings.target)
    strata = strata_of(labelled.spec, labelled.values, settings.folds)
    if settings.folds_from is not None:
        foreign = read_foreign(Path(settings.folds_from), cohort.patients)
        planned = adopt_folds(foreign.rows, strata, settings, foreign.notes)
    else:
        planned = plan_folds(strata, settings, _bonds(cohort, settings))
    job.target.mkdir()
    planned.splits.write(job.target / FILE)
    publish_json(job.target / SUMMARY, _to_dict(planned, labelled.kept_out))
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    return check(job.target)


def preflight(run: Run, settings: RunSettings) -> None:
    """Columns, lists and files are there and can be read, before a slide is worked on for hours."""
    split, cohort = settings.split, run.cohort
    labelled = labelled_patients(cohort, split.target)
    strata_of(labelled.spec, labelled.values, split.folds)
    if split.folds_from is not None:
        read_foreign(Path(split.folds_from), cohort.patients)
    else:
        _bonds(cohort, split)


def _bonds(cohort: Cohort, settings: SplitSettings) -> Bonds:
    return Bonds(
        group=column_by_patient(cohort, settings.group) if settings.group else {},
        site=column_by_patient(cohort, "site"),
        test=_fixed_test(cohort, settings),
    )


def _fixed_test(cohort: Cohort, settings: SplitSettings) -> frozenset[str] | None:
    if settings.test_list is not None:
        try:
            lines = Path(settings.test_list).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CohortError(f"can't be read as a list: {error}", where=settings.test_list) from None
        names = [line.strip() for line in lines if line.strip()]
        found = find_patients(names, cohort.patients)
        unknown = [name for name, patient in found.items() if patient is None]
        if unknown or not names:
            what = f"names {len(unknown)} that are not in the cohort: {listed(unknown)}" if unknown else "is empty"
            raise CohortError(what, where=settings.test_list)
        return frozenset(patient for patient in found.values() if patient is not None)
    if settings.test_column is None:
        return None
    values = column_by_patient(cohort, settings.test_column)
    test = frozenset(patient for patient, texts in values.items() if settings.test_value in texts)
    torn = sorted(patient for patient in test if len(values[patient]) > 1)
    if torn:
        raise LeakError(
            f"{len(torn)} patients have slides in the fixed test set and outside it: {listed(torn)}",
            where=f"column `{settings.test_column}`",
            hint="mark all slides of a patient alike",
        )
    if not test:
        there = sorted({text for texts in values.values() for text in texts})
        raise CohortError(
            f"no slide has the value `{settings.test_value}`",
            where=f"column `{settings.test_column}`",
            hint=f"it has {listed(there)}; say which means test with `--test-value`",
        )
    return test


def _to_dict(planned: Planned, kept_out: tuple[str, ...]) -> dict[str, object]:
    even = planned.evenness
    return {
        "patients": int(planned.splits.table["patient_id"].nunique()),
        "folds": len(planned.splits.folds),
        "kept_out": list(kept_out),
        "largest_deviation": None if even is None else even.deviation,
        "proved_best": None if even is None else even.optimal,
        "notes": list(planned.notes),
    }


def check(path: Path) -> Made:
    """Read table and summary back."""
    splits = Splits.read(path / FILE)
    notes, kept_out = split_notes(path)
    counts = {"patients": int(splits.table["patient_id"].nunique()), "folds": len(splits.folds)}
    return Made("done", "; ".join(notes) or None, counts | ({"kept out": len(kept_out)} if kept_out else {}))


def split_notes(path: Path) -> tuple[list[str], list[str]]:
    """What is worth knowing of a split, and the patients kept out of it for want of a label.

    Raises:
        StoreError: The split's summary is damaged.
    """
    try:
        value = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        return [str(note) for note in value["notes"]], [str(name) for name in value["kept_out"]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"can't be read as a split: {error!r}", where=str(path)) from None


def read_splits(run: Run, settings: RunSettings) -> Splits:
    """The folds these settings ask for."""
    return Splits.read(run.split(split_name(settings)) / FILE)


def split_summary(run: Run, settings: RunSettings) -> Summary:
    """The table that people see of a run's split."""
    cohort = run.cohort
    labelled = labelled_patients(cohort, settings.split.target)
    slides: dict[str, int] = {}
    for patient in cohort.patients.values():
        slides[patient] = slides.get(patient, 0) + 1
    sites: Values = column_by_patient(cohort, "site")
    return summarise(read_splits(run, settings), labelled.spec, labelled.values, slides, sites)


STAGE = Stage(
    name="split",
    version=2,
    packages=("numpy", "scipy"),
    what=sections("split"),
    inputs=inputs,
    output=lambda run, key, settings: run.split(split_name(settings)),
    make=make,
    check=check,
    preflight=preflight,
)
