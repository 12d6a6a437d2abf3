"""Whom models explain: patients they never saw, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathpipe.cli.chain_commands import _refuse_seen
from pathpipe.errors import CohortError, StoreError
from pathpipe.settings import RunSettings, merge
from pathpipe.stages.chain import always_seen, units
from pathpipe.stages.explaining import models_of
from pathpipe.training.splits import Splits
from tests.unit.stages.made_up import bring, made_up_run, settings_of


def test_folds_that_never_saw_a_patient() -> None:
    splits = Splits.of(
        [
            *((0, "A", "test"), (0, "B", "train"), (0, "C", "val"), (0, "D", "train")),
            *((1, "A", "test"), (1, "B", "val"), (1, "C", "train")),
            *((2, "A", "train"), (2, "B", "val"), (2, "C", "test")),
        ]
    )
    assert {name: splits.never_seen_by(name) for name in "ABCDE"} == {
        "A": (0, 1),
        "B": (),
        "C": (2,),
        "D": (1, 2),
        "E": (0, 1, 2),
    }
    assert splits.always_seen == {"B"}


def test_with_a_fixed_test_set_only_its_patients_are_explained(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, slides=2)
    (tmp_path / "test.txt").write_text("\n".join(f"P{at:02d}" for at in range(12)))
    fixed = {"target": "subtype", "folds": 2, "test_list": str(tmp_path / "test.txt")}
    settings = merge(RunSettings, [("test", {**settings_of("subtype").model_dump(), "split": fixed})])[0]
    every = [slide.slide_id for slide in run.cohort.slides]
    assert units(run, "heatmap", settings) == every, "without a split nobody is known to be seen"
    bring(run, "split", settings)
    tested = [slide.slide_id for slide in run.cohort.slides if int(slide.patient_id[1:]) < 12]
    assert units(run, "heatmap", settings) == tested and units(run, "embed", settings) == every
    assert always_seen(run, settings) == set(every) - set(tested)
    _refuse_seen(run, settings, tested[:2])
    with pytest.raises(CohortError, match=f"{every[-1]}: every model was trained or validated on the patient"):
        _refuse_seen(run, settings, [tested[0], every[-1]])
    assert [path.name for path in models_of(run, tested[0], settings)] == ["fold-0-seed-0", "fold-1-seed-0"]
    with pytest.raises(StoreError, match="every model was trained or validated on the slide's patient"):
        models_of(run, every[-1], settings)
    assert units(run, "heatmap", settings_of("subtype")) == every
    bring(run, "split", settings_of("subtype"))
    assert units(run, "heatmap", settings_of("subtype")) == every, "cross-validation tests everyone"
