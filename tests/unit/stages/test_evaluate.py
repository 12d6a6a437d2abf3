"""The stage and the comparison: what is written reads back, follows its inputs, and says what people need."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pathpipe.cli.evaluate import _show
from pathpipe.cohort import Cohort
from pathpipe.errors import CohortError, SettingsError, StoreError
from pathpipe.evaluation.baseline import NAME
from pathpipe.execution.unit import bring_up_to_date
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages import evaluate
from pathpipe.stages.compare import (
    EvaluatedRun,
    compare_models,
    comparison_name,
    names_of,
    read_comparison,
    rows,
    write_comparison,
)
from pathpipe.stages.evaluate import read_evaluation
from pathpipe.stages.evaluating import Grounds, column_values
from pathpipe.stages.split import read_splits
from tests.unit.report.made_up import binary
from tests.unit.stages.made_up import bring, made_up_run, settings_of

TIMED = "os_months/os_event"
EvaluateChange = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made_up_run(tmp_path_factory.mktemp("one"))


@pytest.fixture
def coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slide has tissue whose colour says nothing."""

    def colours(path: Path) -> Any:
        rng = np.random.default_rng(int(path.stem[1:3]))
        means = rng.normal([200, 150, 180], 10)
        return type("Coloured", (), {"colour": {"mean": means, "std": rng.normal([20, 30, 25], 3)}})

    monkeypatch.setattr("pathpipe.stages.evaluating.read_tissue", colours)
    monkeypatch.setattr(Run, "tissue", lambda self, slide_id: Existing(f"{slide_id}.geojson"))


class Existing(type(Path())):  # type: ignore[misc]
    """A place where something lies."""

    def exists(self, **_: Any) -> bool:
        return True


def _asked(target: str, change: EvaluateChange | None = None, **train: Any) -> RunSettings:
    settings = settings_of(target, **train)
    return settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update=change or {})})


def test_who_taught_a_target_is_who_has_a_label_of_it(run: Run) -> None:
    settings = _asked("er/pr:multilabel", name="taught", epochs=1)
    for stage in ("split", "train"):
        assert all(one.ok for one in bring(run, stage, settings))
    grounds, splits = Grounds.of(run, settings)[0], read_splits(run, settings)
    for target in ("er", "pr"):
        labels = run.cohort.labels_by_patient(target)
        by_hand = {fold: sum(patient in labels for patient in splits.patients(fold, "train")) for fold in range(3)}
        assert grounds.trained_on(target) == by_hand
        assert all(count < len(splits.patients(fold, "train")) for fold, count in by_hand.items())


def test_notes_of_every_target_are_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    models = evaluate.EvaluatedModels(binary(), None, "no colours", {"pr": binary()}, target="er")
    monkeypatch.setattr(evaluate, "read_evaluation", lambda path: models)
    _show(Run(Path("nowhere")), settings_of("er/pr:multilabel"))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert said == [
        "note: only 9 test patients are `yes`",
        "note: pr: only 9 test patients are `yes`",
        "note: no colours",
    ]


GROUPS = _asked("subtype", {"subgroups": ["sex"]}, name="groups")


def _evaluated(run: Run, settings: RunSettings) -> EvaluatedRun:
    for stage in ("split", "train", "evaluate"):
        receipts = bring(run, stage, settings)
        assert all(one.state in ("done", "current") for one in receipts), [(one.reason, one.hint) for one in receipts]
    return EvaluatedRun(run, settings)


def test_subgroups_come_from_the_cohort_and_are_inputs(run: Run) -> None:
    one = _evaluated(run, GROUPS)
    found = read_evaluation(one.folder).model.subgroups
    assert [(group.column, group.value, group.patients) for group in found] == [("sex", "f", 18), ("sex", "m", 18)]
    before = evaluate.inputs(run, "cohort", one.settings)
    other = Run(run.folder)
    slides = [replace(slide, labels={**(slide.labels or {}), "sex": "f"}) for slide in run.cohort.slides]
    other.__dict__["cohort"] = Cohort(tuple(slides))
    after = evaluate.inputs(other, "cohort", one.settings)
    assert {name for name in before if before[name] != after[name]} == {"subgroups"}
    with pytest.raises(CohortError, match="no column `sexx`"):
        evaluate.preflight(run, _asked("subtype", {"subgroups": ["sexx"]}))


def test_patients_whose_slides_differ_are_a_group_of_their_own(run: Run) -> None:
    first, second = run.cohort.slides[:2]
    both = Cohort(
        (
            replace(first, patient_id="A", site="x"),
            replace(second, patient_id="A", site="y"),
            replace(first, slide_id="t", patient_id="B", site=None),
            replace(first, slide_id="u", patient_id="C", site="x"),
            replace(first, slide_id="v", patient_id="C", site=None),
        )
    )
    assert column_values(both, ["site"]) == {"site": {"A": "(several)", "B": "", "C": "x"}}


def test_survival_is_weighted_by_the_training_patients(run: Run) -> None:
    one = _evaluated(
        run, _asked(f"{TIMED}:survival", {"horizons": [6.0, 12.0]}, name="timed", task_settings={"bins": 3})
    )
    found = read_evaluation(one.folder).model
    assert {"C-index (Uno, within folds)", "AUC at 6", "AUC at 12", "integrated Brier score"} <= set(found.metrics)
    assert all(np.isfinite(number.value) for number in found.metrics.values())
    assert found.risk_groups is not None and found.risk_groups.groups[2].patients == 36


@pytest.mark.usefixtures("coloured")
@pytest.mark.parametrize("target", ["subtype", "grade:ordinal", "score:regression", f"{TIMED}:cox"])
def test_colours_are_the_baseline_of_every_kind(run: Run, target: str) -> None:
    name = f"colours-{target[:3]}"
    one = _evaluated(run, _asked(target, name=name))
    found = read_evaluation(one.folder)
    assert found.baseline is not None and found.baseline_note is None and found.baseline.kind == found.model.kind
    assert set(found.baseline.metrics) == set(found.model.metrics)
    table = pd.read_csv(one.folder / "baseline.csv")
    assert list(table.columns) == list(pd.read_csv(one.folder / "predictions.csv").columns)
    assert found.against_baseline is not None
    first = found.against_baseline.differences[0]
    assert (first.first, first.second) == (name, NAME) and first.better == name


@pytest.mark.usefixtures("coloured")
def test_the_baseline_takes_part_in_a_comparison_where_it_may(run: Run) -> None:
    models = [_evaluated(run, _asked("subtype", name="colours-sub")), _evaluated(run, _asked("subtype", name="two"))]
    (comparison,) = compare_models(models, True).values()
    assert [model.name for model in comparison.models] == ["colours-sub", "two", NAME]
    assert len({(one.first, one.second) for one in comparison.differences}) == 3
    (without,) = compare_models(models, False).values()
    assert [model.name for model in without.models] == ["colours-sub", "two"]
    assert without.differences[0].difference.value == 0, "two trainings alike"


def test_cox_and_discrete_time_answer_one_question(run: Run, tmp_path: Path) -> None:
    models = [
        _evaluated(run, _asked(f"{TIMED}:survival", name="discrete", task_settings={"bins": 3})),
        _evaluated(run, _asked(f"{TIMED}:cox", name="hazards")),
    ]
    found = compare_models(models, True)
    assert list(found) == [TIMED] and found[TIMED].notes == ()
    write_comparison(tmp_path / "c", models, found)
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        "comparison.json",
        "differences.csv",
        "provenance.json",
    }
    back = read_comparison(tmp_path / "c")
    assert {target: one.to_dict() for target, one in back.items()} == {t: one.to_dict() for t, one in found.items()}
    with open(tmp_path / "c" / "differences.csv", newline="") as file:
        table = list(csv.reader(file))
    assert len(table) == 1 + len(rows(found)) and table[1][2:4] == ["discrete", "hazards"]
    assert float(table[1][4]) == found[TIMED].differences[0].difference.value
    assert str(run.folder) not in (tmp_path / "c" / "comparison.json").read_text()
    before = (tmp_path / "c" / "comparison.json").read_bytes(), (tmp_path / "c" / "provenance.json").read_bytes()
    write_comparison(tmp_path / "c", models, compare_models(models, True))
    after = (tmp_path / "c" / "comparison.json").read_bytes(), (tmp_path / "c" / "provenance.json").read_bytes()
    assert before == after


def test_names_and_refusals(run: Run, tmp_path: Path) -> None:
    one = _evaluated(run, _asked("subtype", name="one"))
    again = Run(tmp_path / "other" / "run")
    assert names_of([one, EvaluatedRun(again, one.settings)]) == [f"{run.folder.parent.name}/run/one", "other/run/one"]
    assert names_of([one, EvaluatedRun(run, _asked("subtype", name="two"))]) == ["one", "two"]
    assert comparison_name(["a/b", "c"]) == "a-b-vs-c"
    with pytest.raises(SettingsError, match="the model one is given twice"):
        names_of([one, one])
    other = _evaluated(run, _asked("score:regression", name="elsewhere"))
    with pytest.raises(StoreError, match=r"different targets \(one: subtype; elsewhere: score:regression\)"):
        compare_models([one, other], True)


def test_only_targets_of_all_models_are_compared(run: Run) -> None:
    one = _evaluated(run, _asked("subtype", name="one"))
    two = _evaluated(run, _asked("subtype,score:regression", name="both"))
    assert list(compare_models([one, two], True)) == ["subtype"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("model"),
        lambda content: content.update(model=None),
        lambda content: content["model"]["metrics"].update(AUROC=3),
        lambda content: content.update(others=None),
        lambda content: content["model"].update(subgroups="x"),
    ],
)
def test_damage_is_noticed(run: Run, tmp_path: Path, damage: Any) -> None:
    one = _evaluated(run, _asked("subtype", name="one"))
    content = json.loads((one.folder / "evaluation.json").read_text())
    damage(content)
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="can't be read as an evaluation"):
        evaluate.check(tmp_path)
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(StoreError, match="can't be read as a comparison"):
        read_comparison(tmp_path)


def test_equal_work_gives_equal_bytes(run: Run) -> None:
    settings = GROUPS
    folder = _evaluated(run, settings).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert bring_up_to_date(evaluate.STAGE, run, "cohort", settings).state == "done"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
