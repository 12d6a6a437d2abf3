"""A sweep looks at validation patients only, goes on where it was, and leaves settings that train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch.nn.functional import cross_entropy

from pathpipe.errors import SettingsError
from pathpipe.execution import side_by_side, sweep
from pathpipe.execution.candidate import Candidate, Round, Trying, rounds_of
from pathpipe.mil.bag import Bag
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.stages.patients import Prepared
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.tasks.ordinal import OrdinalTask
from pathpipe.testing.bags import witness_bags
from pathpipe.training import search, trainer
from pathpipe.training.fit import Conditions
from pathpipe.training.fold import FoldData
from pathpipe.training.splits import Splits

SWEEP = {
    "split": {"target": "label", "folds": 2},
    "train": {"epochs": 2, "model_settings": {"hidden": 4}},
    "sweep": {
        "trials": 4,
        "models": {"abmil": {"hidden": [2, 4], "dropout": {"low": 0.0, "high": 0.5}}, "mean": {}},
        "space": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "batch_size": {"low": 1, "high": 4, "whole": True}},
    },
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of 24 made-up patients in two folds; each patient's features say who it is."""
    made = witness_bags(24, instances=6, dim=4)
    bags = {bag.patient_id: bag for bag in made.bags}
    labels = {name: (str(label),) for name, label in zip(bags, made.labels, strict=True)}
    names = list(bags)
    rows = []
    for fold in range(2):
        tested = names[fold * 8 : fold * 8 + 8]
        others = [name for name in names if name not in tested]
        roles = {**dict.fromkeys(tested, "test"), **dict.fromkeys(others[:6], "val")}
        rows += [(fold, name, roles.get(name, "train")) for name in names]
    splits = Splits.of(rows)
    task = ClassificationTask("label", ("0", "1"))

    def prepare_fold(run: Run, settings: RunSettings, fold: int, given: Splits | None = None) -> Prepared:
        return Prepared(FoldData.of(given or splits, fold, bags, labels), task, settings.train, {})

    monkeypatch.setattr("pathpipe.stages.patients.prepare_fold", prepare_fold)
    monkeypatch.setattr("pathpipe.stages.split.read_splits", lambda run, settings: splits)
    monkeypatch.setattr("pathpipe.stages.train.inputs", lambda run, key, settings: {"features": "made up"})
    return Run(tmp_path)


def _settings(**changes: Any) -> RunSettings:
    values = {**SWEEP, "sweep": {**SWEEP["sweep"], **changes}}
    return merge(RunSettings, [("test", values)])[0]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[set[bytes]]:
    """The bags of every training, and of every prediction, as their first features."""
    found: list[set[bytes]] = []
    whole, predict = trainer.train_fold, trainer.predict_logits

    def train_fold(data: FoldData, *arguments: Any, **named: Any) -> Any:
        found.append({np.asarray(bag.features).tobytes() for bag in data.bags.values()})
        return whole(data, *arguments, **named)

    def predict_logits(model: Any, bags: Sequence[Bag], *arguments: Any) -> Any:
        found[-1] |= {np.asarray(bag.features).tobytes() for bag in bags}
        return predict(model, bags, *arguments)

    monkeypatch.setattr(trainer, "train_fold", train_fold)
    monkeypatch.setattr(trainer, "predict_logits", predict_logits)
    return found


def _tested(fold: int) -> set[bytes]:
    bags = witness_bags(24, instances=6, dim=4).bags[fold * 8 : fold * 8 + 8]
    return {np.asarray(bag.features).tobytes() for bag in bags}


def _silent(_: object) -> None:
    return None


def test_no_tested_patient_is_trained_on_or_predicted(run: Run, seen: list[set[bytes]]) -> None:
    swept = sweep.run_sweep(run, _settings(prune=False), _silent)
    assert swept.objective == "auroc" and len(swept.trials) == 4 and len(seen) == 8
    for number, bags in enumerate(seen):
        assert len(bags) == 16 and not bags & _tested(number % 2)


def test_inner_folds_score_on_patients_they_did_not_stop_by(run: Run, seen: list[set[bytes]]) -> None:
    from pathpipe.stages import split

    outer = split.read_splits(run, _settings())
    inner = [
        (fold, name, number % 3)
        for fold in outer.folds
        for number, name in enumerate([*outer.patients(fold, "train"), *outer.patients(fold, "val")])
    ]
    nested = outer.with_inner(inner)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathpipe.stages.split.read_splits", lambda run, settings: nested)
        swept = sweep.run_sweep(run, _settings(trials=1, only_fold=1), _silent)
    assert len(swept.trials) == 1 and len(seen) == 3
    assert all(not bags & _tested(1) for bags in seen)
    assert len(set().union(*seen)) == 16


def test_the_best_candidate_is_written_as_settings_that_train(run: Run) -> None:
    heard: list[sweep.Tried] = []
    swept = sweep.run_sweep(run, _settings(), heard.append)
    assert [one.number for one in heard] == [0, 1, 2, 3]
    complete = [one for one in swept.trials if one.state == "complete"]
    assert swept.best is not None and swept.best.value == max(one.value or 0 for one in complete)
    written = yaml.safe_load(swept.best_yaml.read_text())
    settings, _ = merge(RunSettings, [("best", written)])
    assert settings.train.lr == swept.best.changes["lr"]
    assert settings.train.model == swept.best.changes["model"]
    if settings.train.model == "abmil":
        assert settings.train.model_settings["hidden"] == swept.best.changes["abmil.hidden"]
    lines = (swept.best_yaml.parent / "trials.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith("number,state,auroc,")


def test_goes_on_to_the_same_candidates(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sweep.run_sweep(run, _settings(), _silent)
    other = Run(tmp_path / "other")
    record = search.record

    def dying(study: Any, *arguments: Any) -> Any:
        if len(study.trials) == 2:
            raise KeyboardInterrupt
        return record(study, *arguments)

    monkeypatch.setattr(search, "record", dying)
    with pytest.raises(KeyboardInterrupt):
        sweep.run_sweep(other, _settings(), _silent)
    monkeypatch.setattr(search, "record", record)
    heard: list[sweep.Tried] = []
    again = sweep.run_sweep(other, _settings(), heard.append)
    assert len(heard) == 2
    values = [(one.changes, one.value) for one in whole.trials]
    assert values == [(one.changes, one.value) for one in again.trials]
    more = sweep.run_sweep(other, _settings(trials=5), _silent)
    assert more.trials[:4] == again.trials and len(more.trials) == 5


def test_candidates_side_by_side_learn_from_earlier_batches_only(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is finished first, and wherever a batch was cut off."""
    settings = _settings(trials=8, side_by_side=3)
    monkeypatch.setattr(side_by_side, "_in_processes", side_by_side._here)
    whole = sweep.run_sweep(run, settings, _silent)
    assert [one.number for one in whole.trials] == list(range(8))

    def last_first(trying: Any, batch: Any, finished: Any) -> None:
        side_by_side._here(trying, batch[::-1], finished)

    monkeypatch.setattr(side_by_side, "_in_processes", last_first)
    backwards = sweep.run_sweep(Run(tmp_path / "backwards"), settings, _silent)
    assert backwards.trials == whole.trials

    cut = Run(tmp_path / "cut")
    for trials in (2, 4, 8):  # an end of fewer trials cuts a batch as a kill does
        again = sweep.run_sweep(cut, _settings(trials=trials, side_by_side=3), _silent)
    assert again.trials == whole.trials
    one_by_one = sweep.run_sweep(Run(tmp_path / "other"), _settings(trials=8), _silent)
    assert one_by_one.best_yaml.parent.name != whole.best_yaml.parent.name


def test_other_features_or_labels_are_another_study(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(trials=1)
    first = sweep.run_sweep(run, settings, _silent).best_yaml.parent
    heard: list[sweep.Tried] = []
    assert sweep.run_sweep(run, settings, heard.append).best_yaml.parent == first and not heard
    monkeypatch.setattr("pathpipe.stages.train.inputs", lambda run, key, settings: {"features": "of another encoder"})
    other = sweep.run_sweep(run, settings, heard.append).best_yaml.parent
    assert other != first and len(heard) == 1


def test_a_loss_is_compared_without_the_weights_that_a_candidate_trains_with(run: Run) -> None:
    """Weighed, the same model would have another loss under another `balance`."""
    settings = _settings()
    whole = rounds_of(run, settings)[0].prepared
    train = whole.data.roles["train"]
    rare = [patient for patient in train if whole.data.labels[patient] == ("1",)][1:]
    roles = {**whole.data.roles, "train": tuple(patient for patient in train if patient not in rare)}
    prepared = replace(whole, data=replace(whole.data, roles=roles))
    trying = Trying(run, settings, "loss", rounds=[Round(prepared, "val")])
    found = trying(Candidate(0, settings.train.model_dump(mode="json")).key).reached
    data, task = prepared.data, prepared.task
    trained = trainer.train_fold(data, task, settings.train, 0, how=Conditions(predict=("val",)))
    targets = task.encode([data.labels[patient] for patient in data.roles["val"]])
    assert found == [pytest.approx(cross_entropy(trained.logits["val"], targets).item())]
    assert abs(found[0] - trained.history["val_loss"].min()) > 1e-2


def test_a_candidate_that_cannot_be_trained_fails_alone(run: Run) -> None:
    settings = _settings(trials=3, models={}, space={"lr": [1e30]})
    swept = sweep.run_sweep(run, settings, _silent)
    assert swept.best is None and not swept.best_yaml.exists()
    assert {one.state for one in swept.trials} == {"fail"} and "loss is" in swept.trials[0].reason


def test_a_model_that_takes_no_such_target_fails_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathpipe.stages import patients

    whole = patients.prepare_fold

    def prepare_fold(*arguments: Any) -> Prepared:
        return replace(whole(*arguments), task=OrdinalTask("label:ordinal", "label", ("0", "1")))

    monkeypatch.setattr("pathpipe.stages.patients.prepare_fold", prepare_fold)
    settings = _settings(trials=4, models={"clam-sb": {}, "mean": {}}, space={}, objective="loss")
    swept = sweep.run_sweep(run, settings, _silent)
    assert {(one.changes["model"], one.state) for one in swept.trials} == {("clam-sb", "fail"), ("mean", "complete")}
    reasons = {one.reason for one in swept.trials if one.state == "fail"}
    assert all("`clam-sb` learns from classes and takes no ordinal target" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {}, "space": {}}, "nothing is varied"),
        ({"models": {"abmli": {}}}, "there is no model `abmli`"),
        ({"objective": "aurok"}, r"no `aurok`.*auroc"),
        ({"only_fold": 7}, "there is no fold 7"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str, run: Run) -> None:
    with pytest.raises(SettingsError, match=message):
        sweep.run_sweep(run, _settings(**changes), _silent)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"learning": [1]}, "`learning` can't be varied"),
        ({"seeds": [1]}, "`seeds` can't be varied"),
        ({"model_settings": [1]}, "`model_settings` can't be varied"),
        ({"lr": 3}, "`lr` needs a list"),
        ({"lr": {"low": 2, "high": 1}}, "low must be smaller"),
        ({"lr": {"low": 0, "high": 1, "log": True}}, "log needs"),
        ({"batch_size": {"low": 1, "high": 2.5, "whole": True}}, "whole bounds"),
    ],
)
def test_spaces_that_make_no_sense(space: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _settings(space=space)
