"""Leaks: slides and patients that stand on both sides of a split under different names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from pathpipe.training.audit import Finding
from pathpipe.training.duplicates import MOST, near_duplicates
from pathpipe.training.splits import ROLES, Splits

_TCGA = re.compile(r"tcga-\w{2}-\w{4}")
_ABSENT = -1


@dataclass(frozen=True, eq=False)
class AuditedSlides:
    """Slides as an audit sees them; all of one length, sorted by slide.

    Attributes:
        slide_ids: Names.
        patients: patient_id of each.
        digests: What the content of each is known by: fingerprints of the slide file and of its features.
        means: (S, D) float32 mean features.
    """

    slide_ids: tuple[str, ...]
    patients: tuple[str, ...]
    digests: tuple[tuple[str, ...], ...]
    means: npt.NDArray[np.float32]

    def by_patient(self) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
        """Patients in alphabetical order, and (P, D) the mean over each one's slides."""
        names, at = np.unique(np.array(self.patients, str), return_inverse=True)
        sums = np.zeros((len(names), self.means.shape[1]))
        np.add.at(sums, at, self.means)
        return tuple(str(name) for name in names), sums / np.bincount(at)[:, None]


class Roles:
    """Roles of patients in all folds, to ask in how many two patients are apart."""

    def __init__(self, splits: Splits) -> None:
        self._at = {patient: number for number, patient in enumerate(sorted(set(splits.table["patient_id"])))}
        folds = {fold: number for number, fold in enumerate(splits.folds)}
        self._roles = np.full((len(self._at), len(folds)), _ABSENT, np.int8)
        rows = [self._at[patient] for patient in splits.table["patient_id"]]
        columns = [folds[int(fold)] for fold in splits.table["fold"]]
        self._roles[rows, columns] = [ROLES.index(role) for role in splits.table["role"]]

    def apart(self, first: str, second: str) -> int:
        """Folds in which two patients have different roles."""
        if first not in self._at or second not in self._at:
            return 0
        one, two = self._roles[self._at[first]], self._roles[self._at[second]]
        return int(((one != two) & (one != _ABSENT) & (two != _ABSENT)).sum())

    def shared(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """Values of a column that some fold both trains and tests on.

        Args:
            values: patient_id -> value, "" where unknown.
        """
        found: set[str] = set()
        for roles in self._roles.T:
            members: dict[int, set[str]] = {}
            for patient, at in self._at.items():
                members.setdefault(int(roles[at]), set()).add(values.get(patient, ""))
            found |= members.get(ROLES.index("train"), set()) & members.get(ROLES.index("test"), set())
        return tuple(sorted(found - {""}))


def find_leaks(slides: AuditedSlides, splits: Splits, least_cosine: float) -> list[Finding]:
    """Whatever makes test patients known from training.

    Args:
        least_cosine: Smallest cosine of mean features that can make a near-duplicate.
    """
    roles = Roles(splits)
    same, taken = _same_files(slides, roles)
    return [
        _overlap(splits),
        *_same_patients(splits, roles),
        *same,
        *_near_duplicates(slides, roles, least_cosine, taken),
    ]


def _overlap(splits: Splits) -> Finding:
    """A `Splits` with a patient in two roles can't be made, so this can only be good news."""
    count = len(splits.folds)
    inner = " or inner fold" if "inner" in splits.table else ""
    where = f"any of {count} folds{inner}" if count > 1 else f"the fold{inner}"
    return Finding("patient-overlap", "note", f"no patient has two roles in {where}", "")


def _same_patients(splits: Splits, roles: Roles) -> list[Finding]:
    patients = sorted(set(splits.table["patient_id"]))

    def pairs(key: Callable[[str], str | None]) -> list[tuple[str, str]]:
        alike = _alike((patient, key(patient)) for patient in patients)
        return [pair for group in alike for pair in combinations(group, 2) if roles.apart(*pair)]

    found = []
    if cases := pairs(_case):
        what = f"{len(cases)} pairs of patients in different roles are one TCGA case"
        meaning = (
            "Samples of one person are taken for different patients, and the model is tested on people it was trained "
            "on. Put the first 12 characters of the barcode into `patient_id`."
        )
        found.append(Finding("same-patient", "leak", what, meaning, _pairs(cases), {"pairs": float(len(cases))}))
    if names := pairs(_plain):
        what = f"{len(names)} pairs of patients in different roles have one name but for case, separators or zeros"
        meaning = "If they are one person, the model is tested on people it was trained on. Give each person one id."
        found.append(Finding("same-patient", "warning", what, meaning, _pairs(names), {"pairs": float(len(names))}))
    return found


def _case(patient: str) -> str | None:
    match = _TCGA.match(patient.lower())
    return match[0] if match else None


def _plain(patient: str) -> str | None:
    if _case(patient):
        return None
    return re.sub(
        r"\d+", lambda digits: digits[0].lstrip("0") or "0", re.sub(r"[\s_.-]+", "-", patient.strip().lower())
    )


def _alike(named: Iterable[tuple[str, str | None]]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, key in named:
        if key is not None:
            groups.setdefault(key, []).append(name)
    return [members for members in groups.values() if len(members) > 1]


def _same_files(slides: AuditedSlides, roles: Roles) -> tuple[list[Finding], set[tuple[str, str]]]:
    """Findings, and the pairs of slides that need not be named again as near-duplicates."""
    patient = dict(zip(slides.slide_ids, slides.patients, strict=True))
    keyed = [(slide, key) for slide, keys in zip(slides.slide_ids, slides.digests, strict=True) for key in keys]
    pairs = sorted({pair for group in _alike(keyed) for pair in combinations(sorted(group), 2)})
    taken = {pair for pair in pairs if patient[pair[0]] != patient[pair[1]]}
    within = [pair for pair in pairs if pair not in taken]
    across = [pair for pair in pairs if pair in taken]
    found = _split_by_role("same-file", across, patient, roles, "hold the same slide under two names", {})
    if within:
        meaning = "Its tiles count twice in the bag of that patient. Leave one of the two out."
        what = f"{len(within)} pairs of slides of one patient are the same slide"
        found.append(Finding("same-file", "warning", what, meaning, _pairs(within), {"pairs": float(len(within))}))
    if not pairs:
        found.append(Finding("same-file", "note", f"no two of {len(patient)} slides have the same content", ""))
    return found, taken


def _near_duplicates(slides: AuditedSlides, roles: Roles, least: float, taken: set[tuple[str, str]]) -> list[Finding]:
    patient = dict(zip(slides.slide_ids, slides.patients, strict=True))
    _, codes = np.unique(np.array(slides.patients, str), return_inverse=True)
    close = near_duplicates(slides.means, codes.astype(np.int64), least)
    named = [(slides.slide_ids[first], slides.slide_ids[second]) for first, second in close.pairs.tolist()]
    pairs = [pair for pair in named if tuple(sorted(pair)) not in taken]
    if np.isnan(close.typical):
        return [Finding("near-duplicate", "note", "there is one patient only, so nobody can be a duplicate", "")]
    numbers = {"threshold": close.threshold, "typical": close.typical}
    if not pairs:
        usual = f"the second nearest slide of another patient is usually at {close.typical:.4f}"
        what = f"no two slides of different patients are near-duplicates (cosine of mean features; {usual})"
        return [Finding("near-duplicate", "note", what, "", (), numbers)]
    numbers["closest"] = float(close.cosine.max())
    cosines = f"cosine of mean features above {close.threshold:.5f}, usually {close.typical:.4f}"
    found = _split_by_role("near-duplicate", pairs, patient, roles, f"look like the same tissue ({cosines})", numbers)
    if close.count > MOST:
        what = f"of {close.count} pairs of near-duplicates only the {MOST} closest were looked at further"
        found.append(Finding("near-duplicate", "warning", what, "Look at how the cohort came together."))
    return found


def _split_by_role(
    kind: str,
    pairs: Sequence[tuple[str, str]],
    patient: Mapping[str, str],
    roles: Roles,
    what: str,
    numbers: Mapping[str, float],
) -> list[Finding]:
    """Pairs that some fold parts are a leak, others a warning."""
    leaks = [pair for pair in pairs if roles.apart(patient[pair[0]], patient[pair[1]])]
    others = [pair for pair in pairs if pair not in set(leaks)]
    found = []
    if leaks:
        meaning = (
            "The model is tested on slides it was trained or chosen on. Give both one `patient_id`, or leave one out."
        )
        about = f"{len(leaks)} pairs of slides in different roles {what}"
        found.append(Finding(kind, "leak", about, meaning, _pairs(leaks), {**numbers, "pairs": float(len(leaks))}))
    if others:
        meaning = "No fold parts them, but they count as two patients. Give both one `patient_id`, or leave one out."
        about = f"{len(others)} pairs of slides of different patients {what}"
        found.append(Finding(kind, "warning", about, meaning, _pairs(others), {**numbers, "pairs": float(len(others))}))
    return found


def _pairs(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(f"{one} = {two}" for one, two in pairs[:MOST])
