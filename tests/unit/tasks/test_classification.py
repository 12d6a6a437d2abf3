"""The classification task against hand-computed values and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pathpipe.errors import CohortError, StoreError
from pathpipe.settings.target import parse_target
from pathpipe.tasks.classification import ClassificationOptions, ClassificationTask
from pathpipe.tasks.task import task_from_dict

BINARY = ClassificationTask("label", ("no", "yes"))
TRIPLE = ClassificationTask("grade", ("a", "b", "c"))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["yes", "no", "yes"], ("no", "yes")),
        (["10", "2", "1", "2"], ("1", "2", "10")),
        (["10", "2", "x"], ("10", "2", "x")),
        (["nan", "2", "10"], ("10", "2", "nan")),
        (["1.0", "1", "0"], ("0", "1", "1.0")),
    ],
)
def test_order_of_classes(labels: list[str], classes: tuple[str, ...]) -> None:
    assert ClassificationTask.from_column("label", labels).classes == classes
    assert ClassificationTask.from_column("label", reversed(labels)).classes == classes


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "a"]])
def test_refuses_one_class(labels: list[str]) -> None:
    with pytest.raises(CohortError, match=r"column `label`: two or more.*found: (a|none)$"):
        ClassificationTask.from_column("label", labels)


def test_encode() -> None:
    assert TRIPLE.outputs == 3
    assert TRIPLE.encode([("c",), ("a",), ("",), ("a",)]).tolist() == [2, 0, -1, 0]
    with pytest.raises(CohortError, match=r"`ys` is none of the classes .hint: did you mean `yes`"):
        BINARY.encode([("yes",), ("ys",)])


def test_weights_balance_and_have_mean_one() -> None:
    targets = torch.tensor([0, 0, 0, 1, 2, 2])
    weights = TRIPLE.weights(targets)
    assert weights.tolist() == pytest.approx([2 / 3, 2, 1])
    assert weights[targets].mean().item() == pytest.approx(1)
    assert BINARY.weights(torch.tensor([1, 1])).tolist() == [0, 0.5]


def test_loss() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
    targets = torch.tensor([1, 1])
    # probabilities of the truth: 3/4 and 1/5
    expected = (math.log(4 / 3) + math.log(5)) / 2
    assert BINARY.loss(logits, targets, None).item() == pytest.approx(expected)
    assert BINARY.loss(logits, targets, torch.tensor([1.0, 3.0])).item() == pytest.approx(3 * expected)


def test_scores_are_probabilities_in_double() -> None:
    scores = TRIPLE.scores(torch.tensor([[0.0, math.log(2), math.log(5)]]))
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores, [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-6)


def test_auroc_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.integers(-2, 3, (60, 3)).astype(np.float32))  # with ties
    targets = torch.from_numpy(rng.integers(0, 3, 60))
    scores = TRIPLE.scores(logits).numpy()
    expected = roc_auc_score(targets, scores, multi_class="ovr", average="macro")
    assert TRIPLE.metrics(logits, targets)["auroc"] == pytest.approx(expected)
    two = targets % 2
    expected = roc_auc_score(two, torch.softmax(logits[:, :2].double(), -1)[:, 1])
    assert BINARY.metrics(logits[:, :2], two)["auroc"] == pytest.approx(expected)


def test_unknown_classes_add_nothing() -> None:
    logits = torch.tensor([[0.0, 1.0], [5.0, -5.0], [2.0, 0.5]], requires_grad=True)
    targets, weights = torch.tensor([1, -1, 0]), torch.tensor([0.5, 2.0])
    loss = BINARY.loss(logits, targets, weights)
    assert loss.item() == BINARY.loss(logits[[0, 2]], targets[[0, 2]], weights).item()
    loss.backward()
    assert logits.grad is not None and logits.grad[1].tolist() == [0, 0]
    assert BINARY.weights(targets).tolist() == [1, 1]
    none = BINARY.loss(logits, torch.full((3,), -1), None)
    assert none.item() == 0 and none.requires_grad


def test_share_is_how_often_a_row_is_taken() -> None:
    logits, targets = torch.randn(3, 2), torch.tensor([0, 1, 1])
    twice = BINARY.loss(logits[[0, 0, 1]], targets[[0, 0, 1]], None)
    assert BINARY.loss(logits, targets, None, torch.tensor([2.0, 1.0, 0.0])).item() == pytest.approx(twice.item())


def test_table() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [1.0, 1.0]])
    (table,) = BINARY.tables(logits, [("yes",), ("",)])
    assert (table.target, table.kind, table.known) == ("label", "classification", [True, False])
    assert list(table.columns) == ["target", "p_no", "p_yes", "logit_no", "logit_yes"]
    assert table.columns["p_yes"][0] == pytest.approx(0.75) and table.columns["logit_no"][1] == 1
    assert "target" not in BINARY.tables(logits)[0].columns


def test_many_numbers_are_no_classes() -> None:
    spec = parse_target("age")[0]
    ages = {f"P{age}": (str(age),) for age in range(30, 60)}
    with pytest.raises(CohortError, match=r"30 different numbers of 30 patients are no classes .*`age:regression`"):
        ClassificationTask.build(spec, ages, ClassificationOptions())
    grades = {f"P{number}": (str(number % 8),) for number in range(20)}
    assert ClassificationTask.build(spec, grades, ClassificationOptions()).classes == tuple("01234567")


def test_auroc_without_one_class_is_nan() -> None:
    assert math.isnan(BINARY.metrics(torch.zeros(2, 2), torch.tensor([1, 1]))["auroc"])


def test_round_trip() -> None:
    assert task_from_dict(TRIPLE.to_dict()) == TRIPLE
    with pytest.raises(StoreError, match="unknown kind `ranking`"):
        task_from_dict({"kind": "ranking"})
    with pytest.raises(StoreError, match="does not describe a classification"):
        task_from_dict({"kind": "classification", "target": "x"})
