"""Several labels at once: those that are unknown add nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from pathpipe.errors import CohortError
from pathpipe.settings.target import parse_target
from pathpipe.tasks.multilabel import MultilabelOptions, MultilabelTask
from pathpipe.tasks.task import task_from_dict

TASK = MultilabelTask("er/pr:multilabel", ("er", "pr"))


def test_encode() -> None:
    found = TASK.encode([("1", "no"), ("", "Positive"), ("0.0", "")])
    np.testing.assert_array_equal(found, [[1, 0], [math.nan, 1], [0, math.nan]])
    with pytest.raises(CohortError, match="column `pr`: `perhaps` says neither yes nor no"):
        TASK.encode([("1", "perhaps")])


def test_build_names_patient_and_column() -> None:
    spec = parse_target("er/pr:multilabel")[0]
    with pytest.raises(CohortError, match="column `pr`: `2` of patient P7 says neither"):
        MultilabelTask.build(spec, {"P1": ("1", "0"), "P7": ("0", "2")}, MultilabelOptions())
    with pytest.raises(CohortError, match="column `pr`: says the same of every patient"):
        MultilabelTask.build(spec, {"P1": ("1", "0"), "P7": ("0", "")}, MultilabelOptions())


def test_loss_is_the_mean_over_what_is_known() -> None:
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 9.0]], requires_grad=True)
    targets = torch.tensor([[1, 0], [math.nan, 1], [0, math.nan]])
    known = ~targets.isnan()
    expected = log_loss(targets[known], logits.detach()[known].sigmoid().double(), labels=[0, 1])
    loss = TASK.loss(logits, targets, None)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert logits.grad is not None and ((logits.grad == 0) == ~known).all()
    changed = logits.detach().clone()
    changed[~known] = 1e4
    assert TASK.loss(changed, targets, None).item() == loss.item()


def test_positive_weights() -> None:
    targets = torch.tensor([[1, 0], [0, math.nan], [0, 0], [0, 0]])
    weights = TASK.weights(targets)
    assert weights.tolist() == [3, 1]
    logits = torch.zeros(4, 2)
    assert TASK.loss(logits, targets, weights).item() == pytest.approx((3 + 6) * math.log(2) / 7)


def test_auroc_is_the_mean_over_labels() -> None:
    logits = torch.randn(40, 2)
    targets = torch.randint(0, 2, (40, 2)).float()
    targets[:7, 0] = math.nan
    each = [
        roc_auc_score(targets[7:, 0], logits[7:, 0]),
        roc_auc_score(targets[:, 1], logits[:, 1]),
    ]
    assert TASK.metrics(logits, targets)["auroc"] == pytest.approx(np.mean(each))
    targets[:, 0] = math.nan
    assert TASK.metrics(logits, targets)["auroc"] == pytest.approx(each[1])
    assert math.isnan(TASK.metrics(logits, targets * math.nan)["auroc"])


def test_tables_are_binary_classifications() -> None:
    er, pr = TASK.tables(torch.tensor([[math.log(3), -80.0], [0.0, 1.0]]), [("yes", "no"), ("", "1")])
    assert (er.target, er.kind, er.known) == ("er", "classification", [True, False])
    assert list(er.columns) == ["target", "p_0", "p_1", "logit_0", "logit_1"]
    assert list(er.columns["target"]) == ["1", ""] and list(pr.columns["target"]) == ["0", "1"]
    assert er.columns["p_1"][0] == pytest.approx(0.75) and er.columns["logit_1"][0] == pytest.approx(math.log(0.75))
    assert pr.columns["logit_1"][0] == pytest.approx(-80)
    assert task_from_dict(TASK.to_dict()) == TASK
