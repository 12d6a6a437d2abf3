"""Near-duplicates: blocks and the full matrix say the same; the threshold follows the cohort."""

from __future__ import annotations

import numpy as np
import pytest

from pathpipe.training import duplicates
from pathpipe.training.duplicates import near_duplicates


def _cohort(seed: int = 0, slides: int = 90) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    means = (4 + rng.normal(size=(slides, 24))).astype(np.float32)
    for copy in range(12):  # of another patient, hardly changed
        means[slides - 1 - copy] = means[copy] + rng.normal(size=24) * 0.01
    return means, np.arange(slides) // 2


def test_blocks_find_what_the_whole_matrix_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    means, patients = _cohort()
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    cosine = unit @ unit.T
    cosine[patients[:, None] == patients[None]] = -1
    whole = near_duplicates(means, patients, 0.999)
    expected = {(a, b) for a, b in zip(*np.nonzero(cosine >= whole.threshold), strict=True) if a < b}
    assert {(11 - n, 78 + n) for n in range(12)} == expected == set(map(tuple, whole.pairs.tolist()))
    assert whole.typical == pytest.approx(np.median(np.sort(cosine, axis=1)[:, -2]))
    assert np.all(np.diff(whole.cosine) <= 0)
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    blocks = near_duplicates(means, patients, 0.999)
    assert blocks.threshold == pytest.approx(whole.threshold, abs=1e-6)
    assert set(map(tuple, blocks.pairs.tolist())) == expected


@pytest.mark.parametrize("scanned_again", [10, 45, 100])
def test_duplicates_stand_out_however_many_slides_have_one(scanned_again: int) -> None:
    rng = np.random.default_rng(0)
    means = (1 + 0.3 * rng.normal(size=(100, 64))).astype(np.float32)
    again = means[:scanned_again] + 0.01 * rng.normal(size=(scanned_again, 64)).astype(np.float32)
    found = near_duplicates(np.concatenate([means, again]), np.arange(100 + scanned_again), 0.999)
    assert sorted(found.pairs.tolist()) == [[number, 100 + number] for number in range(scanned_again)]


def test_slides_of_one_patient_may_be_alike() -> None:
    means, _ = _cohort()
    patients = np.arange(90)
    patients[78:] = np.arange(11, -1, -1)
    assert near_duplicates(means, patients, 0.999).count == 0


def test_at_most_a_thousand_pairs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    means, patients = _cohort()
    monkeypatch.setattr(duplicates, "MOST", 5)
    found = near_duplicates(means, patients, 0.999)
    assert (len(found.pairs), found.count) == (5, 12)
    monkeypatch.setattr(duplicates, "MOST", 1000)
    assert found.pairs.tolist() == near_duplicates(means, patients, 0.999).pairs[:5].tolist()


def test_one_patient_and_slides_without_a_direction() -> None:
    alone = near_duplicates(np.ones((3, 4), np.float32), np.zeros(3, np.int64), 0.999)
    assert alone.count == 0 and np.isnan(alone.typical)
    zero = near_duplicates(np.zeros((3, 4), np.float32), np.arange(3), 0.999)
    assert zero.count == 0 and zero.typical == 0
