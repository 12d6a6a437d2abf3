"""The columns of a table of predictions, by kind of target, and what makes such a table unsound."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathpipe.errors import StoreError

Kind = Literal["classification", "ordinal", "regression", "survival"]
Floats = npt.NDArray[np.float64]
KEYS = ("patient_id", "fold", "seed", "role")
ROLES = ("val", "test")
SURVIVAL = "survival_"


def kind_of(table: pd.DataFrame) -> Kind:
    """The kind that the columns tell; classes and grades have the same."""
    if "prediction" in table.columns:
        return "regression"
    return "survival" if "risk" in table.columns else "classification"


def classes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Names of the classes, in order; none of a number or a time."""
    return tuple(name.removeprefix("p_") for name in map(str, table.columns) if name.startswith("p_"))


def truth_of(kind: Kind) -> tuple[str, ...]:
    """Columns of what is true."""
    return ("time", "event") if kind == "survival" else ("target",)


def numbers_of(kind: Kind, table: pd.DataFrame) -> tuple[str, ...]:
    """Columns that hold numbers, beside the keys."""
    if kind == "regression":
        return ("target", "prediction")
    if kind == "survival":
        return ("time", "event", "risk", *(name for name in map(str, table.columns) if name.startswith(SURVIVAL)))
    return tuple(f"{part}_{name}" for part in ("p", "logit") for name in classes_of(table))


def parsed(table: pd.DataFrame, kind: Kind, path: Path) -> pd.DataFrame:
    """A table of texts with its numbers read, and nothing wrong with it.

    Raises:
        StoreError: Columns are missing, a number isn't one, or rows contradict each other.
    """
    numbers, classes = numbers_of(kind, table), classes_of(table)
    missing = [name for name in (*KEYS, *truth_of(kind), *numbers) if name not in table.columns]
    if missing or (kind in ("classification", "ordinal") and len(classes) < 2):
        raise StoreError(
            f"is no table of predictions: it lacks {', '.join(missing) or 'p_<class> columns'}", where=str(path)
        )
    for name in ("fold", "seed", *numbers):
        whole = name in ("fold", "seed") or (kind == "survival" and name == "event")
        table[name] = _numbers(table[name], int if whole else float, name, path)
    wrong = _wrong_number(table, kind) or _wrong_row(table, kind)
    if wrong:
        raise StoreError(wrong, where=str(path))
    return table


def _numbers(texts: pd.Series[str], number: type[int] | type[float], name: str, path: Path) -> Floats:
    """Numbers, each to the bits it was written from; pandas' own parser may miss the last one."""
    values = []
    for row, text in enumerate(texts, start=2):
        try:
            values.append(number(text))
        except ValueError:
            whole = "whole number" if number is int else "number"
            raise StoreError(f"row {row}: {name} `{text}` is no {whole}", where=str(path)) from None
    return np.array(values, np.int64 if number is int else np.float64)


def _wrong_number(table: pd.DataFrame, kind: Kind) -> str | None:
    """A number that can't be, or None."""
    numbers = table[list(numbers_of(kind, table))].to_numpy(np.float64)
    finite = np.isfinite(numbers).all(axis=1)
    if not finite.all():
        what = "probability or logit" if kind in ("classification", "ordinal") else "number"
        return f"row {int(np.argmin(finite)) + 2}: a {what} isn't finite"
    shares = table[[f"p_{name}" for name in classes_of(table)]].to_numpy(np.float64)
    chances = table[[name for name in map(str, table.columns) if name.startswith(SURVIVAL)]].to_numpy(np.float64)
    fair = (shares >= 0).all(axis=1) & (np.isclose(shares.sum(axis=1), 1, atol=1e-6) | (shares.shape[1] == 0))
    if not fair.all():
        return f"row {int(np.argmin(fair)) + 2}: the probabilities aren't shares of 1"
    fair = ((chances >= 0) & (chances <= 1)).all(axis=1)
    if kind == "survival" and not fair.all():
        return f"row {int(np.argmin(fair)) + 2}: a survival is no probability"
    return None


def _wrong_row(table: pd.DataFrame, kind: Kind) -> str | None:
    """A row that can't be, or that contradicts another, or None."""
    known: dict[str, tuple[Any, ...]] = {"role": ROLES}
    if kind == "survival":
        known["event"] = (0, 1)
    elif kind != "regression":
        known["target"] = classes_of(table)
    for name, allowed in known.items():
        strange = table.loc[~table[name].isin(allowed), name]
        if len(strange):
            choices = ", ".join(map(str, allowed))
            return f"row {int(strange.index[0]) + 2}: {name} `{strange.iloc[0]}` is none of {choices}"
    twice = table.duplicated(["patient_id", "fold", "seed", "role"])
    if twice.any():
        return f"row {int(np.argmax(twice)) + 2}: patient {table['patient_id'][int(np.argmax(twice))]} stands twice"
    truth = truth_of(kind)
    different = table.drop_duplicates(["patient_id", *truth])["patient_id"]
    if different.duplicated().any():
        return f"patient {different[different.duplicated()].iloc[0]} has more than one {' and '.join(truth)}"
    return None
