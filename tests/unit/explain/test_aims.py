"""Aims: what a person reads, and the same without a ceiling, against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pathpipe.errors import SettingsError, StoreError
from pathpipe.explain.aims import aims_of, choose, named
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.tasks.cox import CoxTask
from pathpipe.tasks.multilabel import MultilabelTask
from pathpipe.tasks.ordinal import OrdinalTask
from pathpipe.tasks.regression import RegressionTask
from pathpipe.tasks.several import SeveralTask
from pathpipe.tasks.survival import SurvivalTask
from pathpipe.tasks.task import Task

CLASSES = ClassificationTask("grade", ("low", "mid", "high"))
GRADES = OrdinalTask("stage:ordinal", "stage", ("1", "2", "3"))
LABELS = MultilabelTask("er/pr:multilabel", ("er", "pr"))
AGE = RegressionTask("age:regression", "age", mean=50.0, std=10.0)
SURVIVAL = SurvivalTask("t/e:survival", ("t", "e"), False, (1.0,), bins=3, edges=(1.0, 2.0), end=4.0)
COX = CoxTask("t/e:cox", ("t", "e"), False, (1.0,), "efron", (0.5,))
LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.0, 0.5, -3.0]])


def _log_odds(p: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(p) - np.log1p(-p))


@pytest.mark.parametrize("task", [CLASSES, GRADES, LABELS])
def test_margins_are_log_odds_of_the_values(task: Task) -> None:
    logits = LOGITS[:, : task.outputs]
    found = aims_of(task)
    assert len(found) == task.scores(logits).shape[1] and {aim.kind for aim in found} == {"class"}
    for column, aim in enumerate(found):
        p = task.scores(logits)[:, column].numpy()
        np.testing.assert_array_equal(aim.value(logits), p)
        np.testing.assert_allclose(aim.margin(logits), _log_odds(p), rtol=1e-9)


@pytest.mark.parametrize("task", [CLASSES, GRADES, LABELS])
def test_margins_go_on_where_probabilities_end(task: Task) -> None:
    logits = torch.full((1, task.outputs), 0.0)
    logits[0, 0] = 200.0
    assert all(torch.isfinite(aim.margin(logits)).all() for aim in aims_of(task))
    strongest = max(abs(float(aim.margin(logits))) for aim in aims_of(task))
    assert strongest > 190


def test_numbers_and_risks() -> None:
    (age,) = aims_of(AGE)
    assert (age.name, age.kind) == ("age", "number")
    np.testing.assert_allclose(age.value(torch.tensor([[0.5], [-1.0]])), [55, 40])
    (risk,) = aims_of(SURVIVAL)
    survived = (1 / (1 + np.exp(LOGITS.numpy().astype(np.float64)))).cumprod(axis=1)
    np.testing.assert_allclose(risk.value(LOGITS), -survived.sum(axis=1), rtol=1e-6)
    (log_risk,) = aims_of(COX)
    np.testing.assert_allclose(log_risk.margin(torch.tensor([[0.7]])), [0.7], rtol=1e-6)
    assert (risk.label, risk.kind, log_risk.kind) == ("risk", "risk", "risk")


def test_several_targets_take_their_own_logits() -> None:
    task = SeveralTask("all", (CLASSES, AGE, GRADES, SURVIVAL), (1.0,) * 4)
    found = aims_of(task)
    labels = ["grade: low", "grade: mid", "grade: high", "age", "stage: 1", "stage: 2", "stage: 3", "t/e: risk"]
    assert [aim.label for aim in found] == labels
    logits = torch.linspace(-2, 2, 2 * task.outputs).reshape(2, -1)
    blocks = logits.split([3, 1, 2, 3], dim=1)
    expected = [CLASSES.scores(blocks[0]), AGE.scores(blocks[1]), GRADES.scores(blocks[2])]
    for column, aim in enumerate(found[:-1]):
        np.testing.assert_allclose(aim.value(logits), torch.cat(expected, dim=1)[:, column])
    np.testing.assert_allclose(found[-1].value(logits), -SURVIVAL.scores(blocks[3]).sum(1))
    # one of each target, the most probable where it has classes
    chosen = choose(found, "predicted", [0.2, 0.5, 0.3, 61.0, 0.1, 0.2, 0.7, -1.0])
    assert [aim.label for aim in chosen] == ["grade: mid", "age", "stage: 3", "t/e: risk"]
    assert named(found, "age").kind == "number" and named(found, "stage: 2").name == "2"


def test_every_begins_with_the_predicted() -> None:
    chosen = choose(aims_of(CLASSES), "every", [0.1, 0.2, 0.7])
    assert [aim.name for aim in chosen] == ["high", "low", "mid"]


def test_refuses_names_that_are_none_or_more_than_one() -> None:
    with pytest.raises(SettingsError, match="`hihg` is none of the classes") as caught:
        named(aims_of(CLASSES), "hihg")
    assert "high" in str(caught.value.hint)
    twice = SeveralTask("g,h", (CLASSES, ClassificationTask("other", ("low", "top"))), (1.0, 1.0))
    with pytest.raises(SettingsError, match="several targets have a `low`"):
        named(aims_of(twice), "low")


def test_refuses_tasks_it_does_not_know() -> None:
    class Strange:
        kind, target, outputs = "strange", "x", 1

    with pytest.raises(StoreError, match="strange"):
        aims_of(Strange())  # type: ignore[arg-type]
