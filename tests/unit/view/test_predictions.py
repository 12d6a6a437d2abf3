"""What models said: read from every kind of table, with thresholds as evaluate applies them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathpipe.errors import StoreError
from pathpipe.run import Run
from pathpipe.view.predictions import read_said
from tests.unit.view.conftest import MODEL


def _table(folder: Path, text: str, name: str = "predictions.csv") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_only_test_rows_count_and_each_fold_has_its_threshold(run: Run) -> None:
    said = read_said(run)
    assert list(said) == [MODEL] and set(said[MODEL]) == {"P1", "P2"}
    first = said[MODEL]["P1"]
    # 0.55 is below fold 1's threshold of 0.6: called `no` though `yes` is the most probable
    assert (first["predicted"], first["label"], first["right"]) == ("no", "yes", False)
    assert first["folds"] == [
        {"fold": 1, "predicted": "no", "threshold": 0.6, "probability": {"no": 0.45, "yes": 0.55}}
    ]
    assert said[MODEL]["P2"]["right"] is True and said[MODEL]["P2"]["folds"][0]["threshold"] == 0.5


def test_seeds_are_averaged_and_folds_may_disagree(tmp_path: Path) -> None:
    rows = ["0,0,test,a,0.9,0.1", "0,1,test,a,0.2,0.8", "1,0,test,a,0.3,0.7"]
    text = "\n".join(["patient_id,fold,seed,role,target,p_a,p_b", *(f"P,{row}" for row in rows)])
    _table(tmp_path / "train" / "m" / "fold-0", text)
    said = read_said(Run(tmp_path))["m"]["P"]
    assert [call["predicted"] for call in said["folds"]] == ["a", "b"]
    assert said["folds"][0]["probability"] == pytest.approx({"a": 0.55, "b": 0.45})
    assert said["probability"] == pytest.approx({"a": 1.4 / 3, "b": 1.6 / 3})
    assert said["predicted"] is None and said["right"] is None


def test_trained_folds_count_until_they_are_evaluated(run: Run) -> None:
    row = "patient_id,fold,seed,role,target,p_x,p_y,p_z\n{},{},0,test,z,0.2,0.3,0.5\n"
    for fold in (0, 1):
        _table(run.train("other") / f"fold-{fold}-seed-0", row.format(f"P{fold}", fold))
        _table(run.train(MODEL) / f"fold-{fold}-seed-0", row.format(f"Q{fold}", fold))
    said = read_said(run)
    assert set(said["other"]) == {"P0", "P1"} and said["other"]["P1"]["predicted"] == "z"
    assert "Q0" not in said[MODEL]


def test_regression_and_survival_have_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "evaluate" / "m"
    _table(folder, "patient_id,fold,seed,role,target,prediction\nP,0,0,test,61,58.5\n", "predictions-age.csv")
    survival = "patient_id,fold,seed,role,time,event,risk,survival_12,survival_24\nP,0,0,test,30,0,-0.25,0.9,0.75\n"
    _table(folder, survival, "predictions-os.csv")
    said = read_said(Run(tmp_path))
    assert (said["m · age"]["P"]["kind"], said["m · age"]["P"]["prediction"]) == ("regression", 58.5)
    assert said["m · age"]["P"]["label"] == "61" and said["m · age"]["P"]["right"] is None
    os = said["m · os"]["P"]
    assert (os["kind"], os["risk"], os["time"], os["event"]) == ("survival", -0.25, 30, False)
    assert os["survival"] == {"12": 0.9, "24": 0.75}


def test_what_predict_wrote_is_shown_with_its_reasons(tmp_path: Path) -> None:
    text = "patient_id,slides,tiles,predicted,p_a,sd_a,p_b,sd_b,reason\nP,1,9,b,0.4,0,0.6,0,\nQ,0,0,,,,,,failed: torn\n"
    _table(tmp_path, text)
    said = read_said(Run(tmp_path))["pathpipe predict"]
    assert said["P"]["probability"] == {"a": 0.4, "b": 0.6} and said["P"]["predicted"] == "b"
    assert said["P"]["right"] is None and said["P"]["folds"][0]["fold"] is None
    assert (said["Q"]["kind"], said["Q"]["reason"]) == ("none", "failed: torn")


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "patient_id,fold,p_a,p_b\nP,zero,1,0\n", "patient_id,p_a\nP,x\n"])
def test_a_damaged_table_is_an_error(tmp_path: Path, text: str) -> None:
    _table(tmp_path / "evaluate" / "m", text)
    with pytest.raises(StoreError, match="predictions"):
        read_said(Run(tmp_path))


def test_a_run_without_models_has_said_nothing(tmp_path: Path) -> None:
    assert read_said(Run(tmp_path)) == {}
