"""Predicted: the tables of new slides, failures as rows with their reasons, and the files they are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pathpipe.cohort import Cohort
from pathpipe.errors import MissingError, SettingsError
from pathpipe.publish import publish, publish_json, publish_text
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.familiar_slides import COLUMNS, familiar_slides
from pathpipe.stages.predict import Ensemble, load_patients, predict_patients

FORMS = ("csv", "json", "parquet")
PATIENTS, SLIDES = "predictions", "slides"
_FURTHER = (f"{PATIENTS}.json", f"{PATIENTS}.parquet", f"{SLIDES}.parquet")


@dataclass(frozen=True, eq=False)
class Predicted:
    """What was said of new slides.

    Attributes:
        patients: One row a patient: `predict_patients`, then percentile (of the slide that is farthest out), unfamiliar
            (how many slides are) and reason (why there is no prediction, or which slides are not in it).
        slides: One row a slide: `familiar_slides`, then reason (why it has no features).
    """

    patients: pd.DataFrame
    slides: pd.DataFrame

    @property
    def unfamiliar(self) -> list[str]:
        """One line for each slide that is unlike the training's."""
        far = self.slides[self.slides["unfamiliar"].eq(True)]
        return [f"{slide}: {said}" for slide, said in zip(far["slide_id"], far["remark"], strict=True)]


def predict_run(
    run: Run, settings: RunSettings, ensemble: Ensemble, device: str, limit: float, failed: Mapping[str, str]
) -> Predicted:
    """Predict all patients of a run whose features are there.

    Args:
        limit: As for `familiar_slides`.
        failed: slide_id -> why it has no features.

    Raises:
        CohortError: The models take covariates, and the cohort lacks their column.
        StoreError: The features are of another encoder, or damaged.
    """
    loaded = load_patients(run, settings, ensemble)
    if loaded is None:
        patients, slides = pd.DataFrame({"patient_id": []}), pd.DataFrame(columns=list(COLUMNS))
    else:
        patients = predict_patients(run.cohort, loaded, ensemble, device)
        slides = familiar_slides(loaded.bags, ensemble, limit)
    there = set(slides["slide_id"])
    reasons = {slide: reason for slide, reason in failed.items() if slide not in there}
    slides = _with_failed_slides(slides, reasons, run.cohort)
    return Predicted(_with_failed_patients(patients, slides), slides)


def _with_failed_slides(slides: pd.DataFrame, reasons: Mapping[str, str], cohort: Cohort) -> pd.DataFrame:
    slides = slides.assign(reason="")
    rows: list[dict[str, Any]] = [
        {"slide_id": slide, "patient_id": cohort.patients[slide], "tiles": 0, "remark": "", "reason": reason}
        for slide, reason in reasons.items()
    ]
    return _appended(slides, rows)


def _with_failed_patients(patients: pd.DataFrame, slides: pd.DataFrame) -> pd.DataFrame:
    """Patients with what their slides say: how unlike they are, and which failed."""
    by_patient = slides.groupby("patient_id", sort=False)
    farthest = by_patient["percentile"].max()
    far = by_patient["unfamiliar"].agg(lambda flags: int(flags.eq(True).sum()))
    reasons = {str(name): _said_together(own) for name, own in by_patient}
    names = list(patients["patient_id"])
    patients = patients.assign(
        percentile=[float(farthest[name]) for name in names],
        unfamiliar=[int(far[name]) for name in names],
        reason=[reasons[name] for name in names],
    )
    absent = [name for name in dict.fromkeys(slides["patient_id"]) if name not in set(names)]
    rows = [{"patient_id": name, "slides": 0, "tiles": 0, "reason": reasons[name]} for name in absent]
    return _appended(patients, rows)


def _said_together(slides: pd.DataFrame) -> str:
    """Reasons of a patient's slides: as they are where the patient has one slide, else after the slides' names."""
    lost = slides[slides["reason"] != ""]
    if len(slides) == 1:
        return str(slides["reason"].iloc[0])
    return "; ".join(f"{slide}: {reason}" for slide, reason in zip(lost["slide_id"], lost["reason"], strict=True))


def _appended(table: pd.DataFrame, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    if not rows:
        return table
    columns = {name: [*table.get(name, [])] for name in dict.fromkeys([*table.columns, *rows[0]])}
    for row in rows:
        for name, values in columns.items():
            values.append(row.get(name))
    return pd.DataFrame(columns)


def refuse_forms(forms: Sequence[str]) -> None:
    """Make sure that the tables can be written as asked, before hours of work.

    Raises:
        SettingsError: There is no such form.
        MissingError: Parquet needs pyarrow.
    """
    unknown = [form for form in forms if form not in FORMS]
    if unknown:
        raise SettingsError(f"there is no form `{unknown[0]}`", where="--form", hint=f"use {', '.join(FORMS)}")
    if "parquet" in forms:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise MissingError(
                "writing Parquet needs pyarrow", where="--form parquet", hint='pip install "pathpipe[parquet]"'
            ) from None


def write_predicted(folder: Path, predicted: Predicted, ensemble: Ensemble, forms: Sequence[str]) -> list[Path]:
    """Write the tables: as CSV always, which the viewer reads, and in the further forms; what lay there in others goes.

    Returns:
        The files, those of the patients first.
    """
    written = []
    tables = {PATIENTS: predicted.patients, SLIDES: predicted.slides}
    for name, table in tables.items():
        publish_text(folder / f"{name}.csv", table.to_csv(index=False))
        written.append(folder / f"{name}.csv")
    if "json" in forms:
        first = ensemble.checkpoints[0]
        content = {
            "task": first.load_task().question(),
            "model": first.model,
            "models": [{"fold": one.fold, "seed": one.seed} for one in ensemble.checkpoints],
            "encoder": dict(first.encoder),
            "patients": _records(predicted.patients),
            "slides": _records(predicted.slides),
        }
        publish_json(folder / f"{PATIENTS}.json", content)
        written.append(folder / f"{PATIENTS}.json")
    if "parquet" in forms:
        for name, table in tables.items():
            with publish(folder / f"{name}.parquet") as partial:
                table.to_parquet(partial, engine="pyarrow", index=False)
            written.append(folder / f"{name}.parquet")
    for name in _FURTHER:
        if folder / name not in written:
            (folder / name).unlink(missing_ok=True)  # of another model or other slides
    return written


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: what is not there is null."""
    whole = table.astype(object).where(table.notna(), None)
    return [json.loads(json.dumps(row, default=_plain)) for row in whole.to_dict("records")]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
