"""The stage `report`: a page for every kind of target, for runs that lack a part, and for models side by side."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pathpipe.execution.unit import bring_up_to_date
from pathpipe.provenance import read_provenance
from pathpipe.publish import publish_json
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import COHORT, STAGES
from pathpipe.stages.compare import EvaluatedRun, compare_models, write_comparison
from pathpipe.stages.results import read_results
from pathpipe.stages.side_by_side import PAGE, write_page
from tests.unit.report.test_report import Parsed, rows_of
from tests.unit.stages.made_up import bring, made_up_run, settings_of

TARGETS = {
    "subtype": ["AUROC", "ROC curve", "Reliability", "Decision curve"],
    "grade:ordinal": ["quadratic kappa", "Confusion matrix"],
    "score:regression": ["MAE", "Truth against prediction", "median score"],
    "os_months/os_event:survival": ["C-index", "Kaplan-Meier", "Log-rank", "events"],
    "er/pr:multilabel": ["AUROC", "Results: er", "Results: pr"],
    "subtype,os_months/os_event:survival": ["Results: subtype", "C-index"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made_up_run(tmp_path_factory.mktemp("one"))


def _settings(target: str, **train: Any) -> RunSettings:
    return settings_of(target, **{"epochs": 3, **train})


def _reported(run: Run, settings: RunSettings) -> str:
    receipt = bring_up_to_date(STAGES["report"], run, COHORT, settings)
    assert receipt.state in ("done", "current"), (receipt.reason, receipt.trace)
    return run.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("target", TARGETS)
def test_every_kind_of_target_has_its_page(run: Run, target: str) -> None:
    settings = _settings(target)
    for stage in ("split", "audit", "train", "evaluate"):
        assert all(one.ok for one in bring(run, stage, settings)), stage
    text = _reported(run, settings)
    said = Parsed(text)
    shown = said.text + " ".join(str(given.get("aria-label")) for _, given in said.tags)
    for words in TARGETS[target]:
        assert words in shown, words
    results = read_results(run, settings)
    for at, result in enumerate(results):
        name, one = next(iter(result.model.metrics.items()))
        first = rows_of(text, f"metrics-{at}" if at else "metrics")[1]
        assert first[:2] == [name, f"{one.value:.3f}"]
    assert len(rows_of(text, "learning")) == 4, "three folds"
    assert len(rows_of(text, "folds")) == 1 + 3 * 3 and "patient-overlap" in shown
    made = read_provenance(run.report)
    assert made is not None and bring_up_to_date(STAGES["report"], run, COHORT, settings).state == "current"


def test_what_is_missing_is_named_with_its_command(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, patients=12)
    settings = _settings("subtype")
    assert all(one.ok for one in bring(run, "split", settings))
    publish_json(
        run.receipt("train", "fold-1-seed-0"),
        {"state": "failed", "reason": "out of <memory>", "hint": "buy some"},
    )
    run.features("uni", "P03-0").unlink()
    publish_json(
        run.receipt("extract", "P03-0"), {"state": "failed", "reason": f"{run.folder}/x is damaged", "hint": None}
    )
    run.features("uni", "P04-0").unlink()
    text = _reported(run, settings)
    absent = {row[0]: row[1:] for row in rows_of(text, "absent")[1:]}
    assert absent["evaluation"] == ["it was not made", "pathpipe evaluate RUN"]
    assert absent["audit of the split"][1] == "pathpipe audit RUN"
    assert absent["features of uni"] == ["1 of 12 slides have none, and no failure says why", "pathpipe extract RUN"]
    assert absent["model mean-subtype-uni"][1] == "pathpipe train RUN"
    trouble = [[row[0], row[1], row[3]] for row in rows_of(text, "trouble")[1:]]
    assert trouble == [["P03-0", "extract", "x is damaged"], ["fold-1-seed-0", "train", "out of <memory>buy some"]]
    assert "Results" not in Parsed(text).text and "1 patient is left without any slide: P03." in text


def test_a_cohort_without_the_target_is_shown_too(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, patients=6)
    text = _reported(run, _settings("nothing"))
    said = Parsed(text).text
    assert "6 slides" in said and "the cohort has no column nothing" in said
    assert len(rows_of(text, "slides")) == 7


def test_results_of_other_settings_are_not_shown_as_those_asked_for(run: Run) -> None:
    settings = _settings("subtype")
    for stage in ("split", "train", "evaluate"):
        bring(run, stage, settings)
    other = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"bootstrap": 333})})
    text = _reported(run, other)
    (row,) = [row for row in rows_of(text, "absent")[1:] if row[0] == "evaluation"]
    assert "settings.evaluate.bootstrap: 100 -> 333" in row[1] and row[2].endswith("--stale remake")
    keep = other.model_copy(update={"execution": other.execution.model_copy(update={"stale": "keep"})})
    run.report.unlink()
    assert "evaluation" not in [row[0] for row in rows_of(_reported(run, keep), "absent")]


def test_models_side_by_side(run: Run, tmp_path: Path) -> None:
    one, two = _settings("subtype", name="one"), _settings("subtype", name="two", epochs=1, lr=1e-3)
    for settings in (one, two):
        for stage in ("split", "train", "evaluate"):
            assert all(receipt.ok for receipt in bring(run, stage, settings))
    models = [EvaluatedRun(run, one), EvaluatedRun(run, two)]
    found = compare_models(models, baseline=False)
    folder = tmp_path / "comparison"
    write_comparison(folder, models, found)
    path = write_page(folder, models, found)
    assert path == folder / PAGE
    text = path.read_text(encoding="utf-8")
    difference = next(iter(found.values())).differences[0]
    assert rows_of(text, "pairs")[1][:3] == ["AUROC", "one less two", f"{difference.difference.value:+.3f}"]
    assert rows_of(text, "settings")[1:] == [["train.epochs", "3", "1"], ["train.lr", "0.02", "0.001"]]
    assert '"one"' not in rows_of(text, "models")[0] and rows_of(text, "models")[0] == ["metric", "one", "two"]
    again = path.read_bytes()
    assert write_page(folder, models, found).read_bytes() == again, "the same bytes"

    # a comparison that lies in the run is part of its report
    shutil.copytree(folder, run.comparison("one-vs-two"))
    try:
        assert "Models compared: one and two" in Parsed(_reported(run, one)).text
    finally:
        shutil.rmtree(run.comparison("one-vs-two").parent)
