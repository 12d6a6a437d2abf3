"""Discrete-time survival against the numeric reference, a likelihood by hand, and survival between the edges."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pathpipe.errors import CohortError
from pathpipe.settings.target import parse_target
from pathpipe.tasks.survival import SurvivalOptions, SurvivalTask
from pathpipe.tasks.task import task_from_dict

SPEC = parse_target("months/dead:survival")[0]
TASK = SurvivalTask("months/dead:survival", ("months", "dead"), False, (2.0, 8.0), 4, 0.0, (1.0, 4.0, 9.0), 20.0)
LOGITS = torch.tensor([[0.2, -0.3, 0.5, -1.0]])


def _targets(*rows: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(rows)


def test_numeric_reference() -> None:
    event, censored = _targets((2, 1, 5)), _targets((1, 0, 3))
    assert TASK.loss(LOGITS, event, None).item() == pytest.approx(1.826571, abs=1e-6)
    assert TASK.loss(LOGITS, censored, None).item() == pytest.approx(1.352494, abs=1e-6)
    both = TASK.loss(LOGITS.expand(2, 4), torch.cat([event, censored]), None)
    assert both.item() == pytest.approx(1.589533, abs=1e-6)
    (table,) = TASK.tables(LOGITS, [("5", "1")])
    assert table.columns["risk"][0] == pytest.approx(-0.877764, abs=1e-6)


def test_likelihood_by_hand() -> None:
    hazard = [1 / (1 + math.exp(-x)) for x in LOGITS[0].tolist()]
    died = -math.log(hazard[3] * math.prod(1 - h for h in hazard[:3]))
    assert TASK.loss(LOGITS, _targets((3, 1, 12)), None).item() == pytest.approx(died, rel=1e-6)
    lived = -math.log(math.prod(1 - h for h in hazard))
    assert TASK.loss(LOGITS, _targets((3, 0, 12)), None).item() == pytest.approx(lived, rel=1e-6)
    less = replace(TASK, alpha=0.4)
    assert less.loss(LOGITS, _targets((3, 0, 12)), None).item() == pytest.approx(0.6 * lived, rel=1e-6)
    assert less.loss(LOGITS, _targets((3, 1, 12)), None).item() == pytest.approx(died, rel=1e-6)


def test_extreme_logits_stay_finite_and_the_unknown_adds_nothing() -> None:
    logits = torch.tensor([[200.0, -200.0, 200.0, 0.0], [1.0, 2.0, 3.0, 4.0]], requires_grad=True)
    loss = TASK.loss(logits, _targets((1, 1, 2), (math.nan, math.nan, math.nan)), None)
    assert loss.item() == pytest.approx(400)
    loss.backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and (logits.grad[1] == 0).all()


def test_bins_are_quantiles_of_the_events_and_closed_on_the_right() -> None:
    labels = [(str(time), "1") for time in (1, 2, 3, 4, 5, 6, 7, 8)] + [("100", "0"), ("", "1"), ("0", "0")]
    fitted = replace(TASK, edges=(), end=0.0).fit(labels)
    assert fitted.edges == (2.75, 4.5, 6.25) and fitted.end == 100
    assert fitted.fit(labels) == fitted
    found = fitted.encode([("2.75", "1"), ("2.76", "1"), ("0", "0"), ("99", "1"), ("3", "")])
    np.testing.assert_allclose(found[:4], [[0, 1, 2.75], [1, 1, 2.76], [0, 0, 0.0], [3, 1, 99.0]], rtol=1e-6)
    assert found[4].isnan().all()
    assert fitted.question() == TASK.question() and task_from_dict(fitted.to_dict()) == fitted


def test_too_few_different_times() -> None:
    with pytest.raises(
        CohortError, match=r"column `months`: 2 different event times of 4 .* don't make 4 bins .*bins="
    ):
        TASK.fit([("1", "1"), ("1", "1"), ("2", "1"), ("2", "1")])
    with pytest.raises(CohortError, match="no training patient had the event"):
        TASK.fit([("1", "0"), ("2", "0")])
    cohort = {"P1": ("1", "1"), "P2": ("2", "1"), "P3": ("2", "1"), "P4": ("3", "0")}
    with pytest.raises(CohortError, match="2 different event times of 3 patients don't make 4 bins"):
        SurvivalTask.build(SPEC, cohort, SurvivalOptions())


def test_survival_between_edges() -> None:
    at_edges = TASK.scores(LOGITS)[0].tolist()
    times = [0.0, 1.0, 4.0, 9.0, 20.0, 50.0, 2.5]
    found = TASK.survival_at(LOGITS, times)[0].tolist()
    assert found[:6] == pytest.approx([1.0, *at_edges, at_edges[3]])
    assert found[6] == pytest.approx(math.sqrt(at_edges[0] * at_edges[1]))  # constant hazard: half way, in logs
    assert (np.diff(TASK.survival_at(LOGITS, np.linspace(0, 30, 50).tolist())[0]) <= 1e-12).all()
    ends = replace(TASK, end=9.0)
    assert ends.survival_at(LOGITS, [9.0, 30.0])[0].tolist() == pytest.approx([at_edges[2]] * 2)


def test_build_reads_the_cohort() -> None:
    labels = {f"P{time}": (str(time), str(time % 2)) for time in range(10)}
    built = SurvivalTask.build(SPEC, labels, SurvivalOptions(bins=2, alpha=0.1))
    assert (built.bins, built.alpha, built.times, built.outputs) == (2, 0.1, (3.0, 5.0, 7.0), 2)
    censoring = parse_target("months/!dead:survival")[0]
    assert SurvivalTask.build(censoring, labels, SurvivalOptions()).encode([("3", "1")])[0, 1] == 0
    for wrong, message in (
        (("-1", "1"), "column `months`: a time can't be below 0: `-1` of patient P3"),
        (("soon", "1"), "column `months`: `soon` of patient P3 is no number"),
        (("1", "2"), "column `dead`: `2` of patient P3 says neither yes nor no"),
    ):
        with pytest.raises(CohortError, match=message):
            SurvivalTask.build(SPEC, {**labels, "P3": wrong}, SurvivalOptions())
    with pytest.raises(CohortError, match=r"column `dead`: no patient had the event .*`months/!dead`"):
        SurvivalTask.build(SPEC, {"P1": ("1", "0")}, SurvivalOptions())


def test_concordance_counts_pairs() -> None:
    # by hand: events at 1 and 3, censored at 3 and 5; comparable: 1<3(e), 1<3(c), 1<5, 3(e) before 3(c), 3<5
    targets = _targets((0, 1, 1), (1, 1, 3), (1, 0, 3), (2, 0, 5))
    logits = torch.tensor([2.0, 0.0, 0.0, 1.0])[:, None].expand(4, 4)
    assert TASK.metrics(logits, targets)["cindex"] == pytest.approx((1 + 1 + 1 + 0.5 + 0) / 5)
    assert math.isnan(TASK.metrics(logits, _targets((0, 0, 1), (1, 0, 3), (1, 0, 3), (2, 0, 5)))["cindex"])
