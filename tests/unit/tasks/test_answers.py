"""Answers as tensors: the columns and values of the tables that `pathpipe predict` averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from pathpipe.errors import SettingsError
from pathpipe.tasks.answers import answers
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.tasks.cox import CoxTask
from pathpipe.tasks.multilabel import MultilabelTask
from pathpipe.tasks.ordinal import OrdinalTask
from pathpipe.tasks.regression import RegressionTask
from pathpipe.tasks.several import SeveralTask
from pathpipe.tasks.survival import SurvivalTask

CLASSES = ClassificationTask("subtype", ("a", "b", "c"))
GRADES = OrdinalTask("grade:ordinal", "grade", ("G1", "G2", "G3"))
NUMBER = RegressionTask("age:regression", "age", "huber", 1.0, 61.5, 12.25)
LABELS = MultilabelTask("er/pr:multilabel", ("er", "pr"))
ONE_LABEL = MultilabelTask("er:multilabel", ("er",))
BINS = SurvivalTask("t/e:survival", ("t", "e"), False, (3.0, 8.5, 40.0), 4, 0.0, (2.0, 5.0, 9.0), 30.0)
COX = CoxTask("t/e:cox", ("t", "e"), False, (3.0, 8.5), "efron", (0.2, 0.9))
UNFINISHED = CoxTask("t/e:cox", ("t", "e"), False, (3.0, 8.5), "efron")
SEVERAL = SeveralTask("all", (CLASSES, LABELS, ONE_LABEL, NUMBER, BINS), (1.0, 1.0, 1.0, 1.0, 1.0))
TASKS = [CLASSES, GRADES, NUMBER, LABELS, ONE_LABEL, BINS, COX, UNFINISHED, SEVERAL]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.kind}-{task.outputs}")
def test_answers_are_what_the_tables_say(task: Any) -> None:
    logits = torch.randn(7, task.outputs, generator=torch.Generator().manual_seed(1)) * 2
    tables = task.tables(logits)
    expected: dict[str, Sequence[Any]] = {}
    for table in tables:
        before = f"{table.target} " if len(tables) > 1 else ""
        kept = {name: values for name, values in table.columns.items() if not name.startswith("logit_")}
        expected |= {f"{before}{name}": values for name, values in kept.items()}
    found = answers(task, logits)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-12, atol=1e-15, err_msg=name)


def test_a_kind_of_task_from_elsewhere_is_refused() -> None:
    @dataclass
    class Foreign:
        kind: str = "counting"

    with pytest.raises(SettingsError, match="of kind `counting` can't be exported"):
        answers(Foreign(), torch.zeros(1, 2))  # type: ignore[arg-type]
