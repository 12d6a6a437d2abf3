"""What models said of patients, from every table of predictions in a run, beside what was labelled."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pathpipe.errors import StoreError
from pathpipe.run import Run

TABLE = "predictions"
PREDICTED = "pathpipe predict"
_PROBABILITY, _SURVIVAL = "p_", "survival_"
Said = dict[str, dict[str, Any]]  # patient_id -> what one model said


def read_said(run: Run) -> dict[str, Said]:
    """Model -> patient -> what it said, JSON-able; of trained models what they said of patients they never saw.

    Evaluated models are read from the evaluation, others from their trained folds, and of a folder that
    `pathpipe predict` wrote the table it wrote. A model of several targets is listed once a target.

    Raises:
        StoreError: A table is damaged.
    """
    said: dict[str, Said] = {}
    evaluated = _folders(run.folder / "evaluate")
    for folder in evaluated:
        thresholds = _thresholds(folder / "evaluation.json")
        for name, path in _tables(folder):
            said[name] = _by_patient([path], thresholds)
    for folder in _folders(run.folder / "train"):
        if folder.name in {one.name for one in evaluated}:
            continue
        found: dict[str, list[Path]] = {}
        for fold in _folders(folder):
            for name, path in _tables(fold, folder.name):
                found.setdefault(name, []).append(path)
        said.update({name: _by_patient(paths, {}) for name, paths in found.items()})
    whole = run.folder / f"{TABLE}.csv"
    if whole.exists():
        said[PREDICTED] = _by_patient([whole], {})
    return {name: patients for name, patients in said.items() if patients}


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _tables(folder: Path, model: str | None = None) -> Iterator[tuple[str, Path]]:
    """(name, table) of each target."""
    for path in sorted(folder.glob(f"{TABLE}*.csv")):
        target = path.stem.removeprefix(TABLE).removeprefix("-")
        name = model or folder.name
        yield (f"{name} · {target}" if target else name), path


def _thresholds(path: Path) -> dict[int, float]:
    """Fold -> probability above which the second of two classes is predicted; empty where there are none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("model", {}).get("thresholds") or {}
        return {int(fold): float(value) for fold, value in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _by_patient(paths: list[Path], thresholds: dict[int, float]) -> Said:
    rows: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        for row in _rows(path):
            rows.setdefault(row.pop("patient_id"), []).append(row)
    return {patient: _summed_up(found, thresholds) for patient, found in rows.items()}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of patients a model never saw: those of role `test`, and all where there are no roles."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if "patient_id" not in (reader.fieldnames or []):
                raise StoreError("is no table of predictions: it lacks patient_id", where=str(path))
            for row in reader:
                if row.get("role", "test") == "test":
                    yield _row(row)
    except (OSError, csv.Error, ValueError, TypeError) as error:
        raise StoreError(f"can't be read as predictions: {error}", where=str(path)) from None


def _row(row: dict[str, str]) -> dict[str, Any]:
    """One row with numbers as such; columns nobody knows are left out."""
    values = _numbers(row, _PROBABILITY)
    given: dict[str, Any] = {"patient_id": row["patient_id"], "probability": values}
    for name in ("fold", "seed"):
        given[name] = int(row[name]) if row.get(name) else None
    for name in ("prediction", "risk", "time"):
        if row.get(name):
            given[name] = float(row[name])
    given["survival"] = _numbers(row, _SURVIVAL)
    given["target"] = row.get("target") or None
    given["event"] = {"1": True, "0": False, "1.0": True, "0.0": False}.get(row.get("event") or "")
    given["reason"] = row.get("reason") or None
    return given


def _numbers(row: dict[str, str], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): float(text) for name, text in row.items() if name.startswith(prefix) and text}


def _summed_up(rows: list[dict[str, Any]], thresholds: dict[int, float]) -> dict[str, Any]:
    """Mean over folds and seeds, and whether each fold is right."""
    first = rows[0]
    said: dict[str, Any] = {"label": first["target"], "rows": rows, "right": None, "predicted": None}
    if first["probability"]:
        said |= {"kind": "classification", "probability": _mean(rows, "probability"), **_called(rows, thresholds)}
    elif "risk" in first:
        said |= {"kind": "survival", "risk": _mean_of(rows, "risk"), "survival": _mean(rows, "survival")}
        said |= {"time": first.get("time"), "event": first["event"], "label": None}
    elif "prediction" in first:
        said |= {"kind": "regression", "prediction": _mean_of(rows, "prediction")}
        said["predicted"] = f"{said['prediction']:.4g}"
    else:
        said |= {"kind": "none", "reason": first["reason"]}
    return said


def _called(rows: list[dict[str, Any]], thresholds: dict[int, float]) -> dict[str, Any]:
    """The class each fold calls: above its threshold where it has one, else the most probable."""
    calls = []
    for fold in sorted({row["fold"] for row in rows}, key=lambda fold: -1 if fold is None else fold):
        mean = _mean([row for row in rows if row["fold"] == fold], "probability")
        cut = thresholds.get(fold) if fold is not None and len(mean) == 2 else None
        if cut is not None and math.isfinite(cut):
            names = list(mean)
            called = names[mean[names[1]] > cut]
        else:
            cut, called = None, max(mean, key=lambda name: mean[name])
        calls.append({"fold": fold, "predicted": called, "threshold": cut, "probability": mean})
    label = rows[0]["target"]
    names = [call["predicted"] for call in calls]
    right = {name == label for name in names} if label is not None else set()
    agreed = names[0] if len(set(names)) == 1 else None
    return {"folds": calls, "predicted": agreed, "right": right.pop() if len(right) == 1 else None}


def _mean(rows: list[dict[str, Any]], key: str) -> dict[str, float]:
    return {name: math.fsum(row[key][name] for row in rows) / len(rows) for name in rows[0][key]}


def _mean_of(rows: list[dict[str, Any]], key: str) -> float:
    return math.fsum(row[key] for row in rows) / len(rows)
