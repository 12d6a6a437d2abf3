"""From a target as typed to a task: several at once, options where they belong, and what is missing."""

from __future__ import annotations

import math

import pytest
import torch

from pathpipe.errors import SettingsError
from pathpipe.settings.target import parse_target
from pathpipe.tasks.build import task_from_target
from pathpipe.tasks.labels import known_labels
from pathpipe.tasks.several import SeveralTask
from pathpipe.tasks.task import task_from_dict

TARGET = "subtype,age:regression,er/pr:multilabel,t/e:cox"
LABELS = {
    "P1": ("a", "50", "1", "0", "3", "1"),
    "P2": ("b", "", "0", "1", "", ""),
    "P3": ("", "70", "", "1", "5", "1"),
    "P4": ("a", "60", "0", "", "4", "0"),
}


def _several() -> SeveralTask:
    task = task_from_target(TARGET, LABELS, {"weights": {"age": 3}, "ties": "breslow", "age": {"loss": "mse"}})
    assert isinstance(task, SeveralTask)
    fitted = task.fit(list(LABELS.values()))
    return fitted


def test_blocks_stand_side_by_side() -> None:
    task = _several()
    assert (task.outputs, task.width, task.weighed, task.kind) == (
        2 + 1 + 2 + 1,
        1 + 1 + 2 + 2,
        2 + 0 + 2 + 0,
        "several",
    )
    assert task.columns == ("subtype", "age", "er", "pr", "t", "e") and task.factors == (1, 3, 1, 1)
    nan = math.nan
    expected = [[0, -1, 1, 0, 3, 1], [1, nan, 0, 1, nan, nan], [nan, 1, nan, 1, 5, 1], [0, 0, 0, nan, 4, 0]]
    torch.testing.assert_close(task.encode(list(LABELS.values())), torch.tensor(expected), equal_nan=True)


def test_loss_is_the_weighted_mean_of_the_parts_on_whom_they_know() -> None:
    task = _several()
    logits, labels = torch.randn(4, 6), list(LABELS.values())
    targets = task.encode(labels)
    weights = task.weights(targets)
    assert weights.tolist() == [0.75, 1.5, 2, 0.5]
    total = 0.0
    blocks = ((0, 2, 0, 1, weights[:2]), (2, 3, 1, 2, None), (3, 5, 2, 4, weights[2:]), (5, 6, 4, 6, None))
    for part, factor, (first, last, start, end, own) in zip(task.parts, task.factors, blocks, strict=True):
        known = [row for row in range(4) if any(labels[row][start:end])]
        truth = part.encode([labels[row][start:end] for row in known])
        total += factor * part.loss(logits[known, first:last], truth, own).item()
    assert task.loss(logits, targets, weights).item() == pytest.approx(total / 6, rel=1e-5)
    assert task.loss(logits, targets, None).item() != task.loss(logits, targets, weights).item()


def test_an_unknown_target_adds_nothing() -> None:
    task = _several()
    logits = torch.randn(4, 6, requires_grad=True)
    task.loss(logits, task.encode(list(LABELS.values())), None).backward()
    assert logits.grad is not None
    silent = [(2, 0), (2, 1), (1, 2), (2, 3), (3, 4), (1, 5)]
    assert all(logits.grad[place] == 0 for place in silent)
    assert int((logits.grad == 0).sum()) == len(silent)
    nobody = torch.full((4, 6), math.nan)
    assert task.loss(logits, nobody, None).item() == 0


def test_metrics_and_tables_carry_the_targets_names() -> None:
    task, logits = _several(), torch.randn(4, 6)
    labels = list(LABELS.values())
    found = task.metrics(logits, task.encode(labels))
    assert list(found) == ["subtype auroc", "age:regression r2", "er/pr:multilabel auroc", "t/e:cox cindex"]
    tables = task.tables(logits, labels)
    assert [table.target for table in tables] == ["subtype", "age:regression", "er", "pr", "t/e:cox"]
    assert [list(table.known) for table in tables][1:3] == [[True, False, True, True], [True, True, False, True]]
    finished = task.finish(logits, task.encode(labels))
    assert task.finishes and task_from_dict(finished.to_dict()) == finished
    assert (
        finished.question()
        == task.question()
        == task_from_target(
            TARGET, LABELS, {"weights": {"age": 3}, "ties": "breslow", "age": {"loss": "mse"}}
        ).question()
    )


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("age:regression", {"bins": 3}, "a regression target has no option `bins`"),
        ("subtype", {"order": ["a"]}, r"has no option `order` .hint: it takes none"),
        (TARGET, {"tie": "efron"}, "none of the targets has an option `tie` .hint: did you mean `ties`"),
        (TARGET, {"weights": {"agee": 1}}, "`agee` is no target .hint: did you mean `age`"),
        (TARGET, {"weights": {"age": 0}}, "numbers above 0"),
        (TARGET, {"age": 3}, "`age` needs a mapping"),
        ("t/e:survival", {"bins": 1}, "bins"),
    ],
)
def test_options_are_checked(target: str, options: dict[str, object], message: str) -> None:
    labels: dict[str, tuple[str, ...]] = dict(LABELS)
    if target != TARGET:
        at = {"age:regression": slice(1, 2), "subtype": slice(0, 1), "t/e:survival": slice(4, 6)}[target]
        labels = {patient: label[at] for patient, label in labels.items()}
    with pytest.raises(SettingsError, match=message):
        task_from_target(target, labels, options)


def test_half_known_targets_are_unknown() -> None:
    columns = {
        "subtype": {"P1": "a", "P3": "b"},
        "t": {"P1": "3", "P2": "4", "P4": "2"},
        "e": {"P1": "1", "P4": ""},
    }
    found = known_labels(parse_target("subtype,t/e:survival"), columns)
    assert found == {"P1": ("a", "3", "1"), "P3": ("b", "", "")}
