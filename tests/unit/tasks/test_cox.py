"""Cox's loss against the numeric reference, plain sums over risk sets, and the invariances it must have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pathpipe.settings.target import parse_target
from pathpipe.tasks.build import task_from_target
from pathpipe.tasks.cox import CoxOptions, CoxTask
from pathpipe.tasks.task import task_from_dict

TASK = CoxTask("t/e:cox", ("t", "e"), False, (2.0, 4.0))
BRESLOW = CoxTask("t/e:cox", ("t", "e"), False, (2.0, 4.0), "breslow")
RISK = torch.tensor([[0.5], [-0.2], [1.0], [0.0]])
TIME, EVENT = torch.tensor([2.0, 5.0, 1.0, 3.0]), torch.tensor([1.0, 0.0, 1.0, 1.0])


def _loss(task: CoxTask, risk: Tensor, time: Tensor, event: Tensor, share: Tensor | None = None) -> float:
    return float(task.loss(risk, torch.stack([time, event], 1), None, share))


def _by_sums(risk: np.ndarray, time: np.ndarray, event: np.ndarray, weight: np.ndarray, efron: bool) -> float:
    """Negative log partial likelihood over events, term by term."""
    total = 0.0
    for at in np.unique(time[event == 1]):
        tied = (time == at) & (event == 1)
        deaths, mass = int(tied.sum()), weight[tied].sum()
        everyone = (weight * np.exp(risk))[time >= at].sum()
        own = (weight * np.exp(risk))[tied].sum()
        total += (weight * risk)[tied].sum()
        for step in range(deaths):
            total -= mass / deaths * math.log(everyone - (step / deaths * own if efron else 0))
    return -total / weight[event == 1].sum()


@pytest.mark.parametrize("task", [TASK, BRESLOW])
def test_numeric_reference(task: CoxTask) -> None:
    assert _loss(task, RISK, TIME, EVENT) == pytest.approx(0.7212681852, abs=1e-6)
    fives = torch.tensor([5.0, 1.0, 5.0, 5.0])
    assert _loss(task, RISK, TIME, EVENT, fives) == pytest.approx(2.0747811526, abs=1e-6)
    assert _loss(task, RISK, TIME, EVENT, torch.full((4,), 5.0)) == pytest.approx(2.3307060977, abs=1e-6)


def test_two_patients_by_hand() -> None:
    risk = torch.tensor([[1.0], [0.0]])
    assert _loss(TASK, risk, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])) == pytest.approx(
        -math.log(math.e / (math.e + 1)), rel=1e-6
    )
    # censored at the time of the event: still at risk there
    assert _loss(TASK, risk, torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])) == pytest.approx(
        -math.log(math.e / (math.e + 1)), rel=1e-6
    )
    # censored before it: nobody to compare with
    assert _loss(TASK, risk, torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.0])) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 14), st.booleans())
def test_ties_and_shares_equal_plain_sums(seed: int, patients: int, efron: bool) -> None:
    rng = np.random.default_rng(seed)
    risk, time = rng.normal(size=patients), rng.integers(0, 5, patients).astype(float)
    event, weight = rng.integers(0, 2, patients).astype(float), rng.uniform(0.2, 3, patients)
    event[0] = 1
    task = TASK if efron else BRESLOW
    given_ = [torch.from_numpy(values) for values in (risk[:, None], time, event, weight)]
    assert _loss(task, *given_) == pytest.approx(_by_sums(risk, time, event, weight, efron), rel=1e-9)


def test_invariances() -> None:
    rng = np.random.default_rng(0)
    risk = torch.from_numpy(rng.normal(size=(30, 1)))
    time = torch.from_numpy(rng.integers(1, 9, 30).astype(float))
    event = torch.from_numpy(rng.integers(0, 2, 30).astype(float))
    here = _loss(TASK, risk, time, event)
    assert _loss(TASK, risk + 300, time, event) == pytest.approx(here, rel=1e-9)
    assert _loss(TASK, risk, time.exp() / 7, event) == here
    order = torch.from_numpy(rng.permutation(30))
    assert _loss(TASK, risk[order], time[order], event[order]) == pytest.approx(here, rel=1e-12)
    risks, times, events = (torch.cat([values, values]) for values in (risk, time, event))
    halves = torch.full((60,), 0.5, dtype=torch.float64)
    assert _loss(BRESLOW, risks, times, events, halves) == pytest.approx(_loss(BRESLOW, risk, time, event), rel=1e-12)


def test_nothing_to_compare_is_zero_with_a_gradient_of_zero() -> None:
    risk = torch.tensor([[3.0], [1.0]], requires_grad=True)
    loss = TASK.loss(risk, torch.tensor([[1.0, 0.0], [2.0, 0.0]]), None)
    loss.backward()
    assert loss.item() == 0 and risk.grad is not None and (risk.grad == 0).all()


def test_unknown_rows_and_rows_without_a_share_add_nothing() -> None:
    nan = math.nan
    risk = torch.cat([RISK, torch.tensor([[80.0], [90.0]])]).requires_grad_()
    targets = torch.tensor([*zip(TIME.tolist(), EVENT.tolist(), strict=True), (nan, nan), (9.0, 1.0)])
    loss = TASK.loss(risk, targets, None, torch.tensor([1.0, 1, 1, 1, 1, 0]))
    assert loss.item() == pytest.approx(_loss(TASK, RISK, TIME, EVENT))
    loss.backward()
    assert risk.grad is not None and (risk.grad[4:] == 0).all() and risk.grad.isfinite().all()


def test_large_risks_stay_finite() -> None:
    risk = torch.tensor([[400.0], [-400.0], [0.0]], requires_grad=True)
    loss = TASK.loss(risk, torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 1.0]]), None)
    loss.backward()
    assert loss.isfinite() and risk.grad is not None and risk.grad.isfinite().all()


def test_breslow_baseline() -> None:
    fitted = TASK.finish(RISK, torch.stack([TIME, EVENT], 1))
    hazards = np.exp(RISK[:, 0].double().numpy())
    first = 1 / hazards.sum()
    second = first + 1 / hazards[[0, 1, 3]].sum()
    third = second + 1 / hazards[[1, 3]].sum()
    assert fitted.hazard == pytest.approx((second, third))
    (table,) = fitted.tables(RISK[:1], [("2", "1")])
    assert list(table.columns) == ["time", "event", "risk", "survival_2", "survival_4"]
    assert table.columns["survival_4"][0] == pytest.approx(math.exp(-third * math.exp(0.5)))
    assert list(TASK.tables(RISK)[0].columns) == ["risk"]
    assert fitted.question() == TASK.question() and task_from_dict(fitted.to_dict()) == fitted
    moved = TASK.finish(RISK + 50, torch.stack([TIME, EVENT], 1))
    assert moved.tables(RISK[:1] + 50)[0].columns["survival_2"][0] == pytest.approx(table.columns["survival_2"][0])


def test_build_takes_the_ties() -> None:
    spec = parse_target("t/e:cox")[0]
    built = CoxTask.build(spec, {"P1": ("1", "1"), "P2": ("3.14159", "1")}, CoxOptions(ties="breslow"))
    assert built.ties == "breslow" and built.times == (1.535, 2.071, 2.606)


def test_only_the_log_risk_is_relative() -> None:
    labels = {"a": ("1", "1", "3.5"), "b": ("2", "0", "4.5"), "c": ("3", "1", "1.0")}
    assert task_from_target("t/e:cox", {name: label[:2] for name, label in labels.items()}).relative == (0,)
    both = task_from_target("x:regression,t/e:cox", {name: (label[2], *label[:2]) for name, label in labels.items()})
    assert (both.outputs, both.relative) == (2, (1,))
