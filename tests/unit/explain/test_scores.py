"""Scores: what the models themselves say, averaged, for what is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pathpipe.errors import SettingsError, StoreError
from pathpipe.explain.probing import Member
from pathpipe.explain.scores import columns_of, cut_slide, explain_bag, write_scores
from pathpipe.mil.bag import Bags
from pathpipe.mil.model import MILOutput
from pathpipe.settings import HeatmapSettings
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.tasks.regression import RegressionTask
from pathpipe.tasks.several import SeveralTask
from pathpipe.view.layers import score_names
from tests.unit.explain.made_up import TASK, bag, member

AUTO = HeatmapSettings()


def _plainly(members: list[Member]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """(logits, probabilities of tiles, attention) by one forward pass each."""
    found = []
    for one in members:
        with torch.no_grad():
            output: MILOutput = one.model(Bags.pack([one.bag]))
        assert output.instance_logits is not None
        alone = output.instance_logits.double().softmax(-1).numpy()
        attention = None if output.attention is None else output.attention.double().numpy()
        found.append((output.logits[0].double().numpy(), alone, attention))
    return found


def _softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max())
    return np.asarray(odds / odds.sum())


@pytest.mark.parametrize("model", ["abmil", "gated-abmil"])
def test_attention_is_the_mean_over_models(model: str) -> None:
    members = [member(model, seed) for seed in range(3)]
    found, plain = explain_bag(members, AUTO), _plainly(members)
    (scores,) = found.scores
    assert scores.kind == "attention"
    attention = [one[2].mean(axis=1) for one in plain if one[2] is not None]
    np.testing.assert_allclose(scores.score, np.mean(attention, axis=0), atol=1e-7)
    assert scores.score.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found.logits, [logits for logits, _, _ in plain], atol=1e-6)
    np.testing.assert_allclose(found.values, np.mean([_softmax(logits) for logits, _, _ in plain], axis=0), atol=1e-7)
    np.testing.assert_array_equal(scores.xy0, members[0].bag.xy0)


@pytest.mark.parametrize("model", ["mean", "max"])
def test_without_attention_it_is_the_tiles_own_probability_of_the_predicted_class(model: str) -> None:
    members = [member(model, seed) for seed in range(2)]
    found, plain = explain_bag(members, AUTO), _plainly(members)
    chosen = int(np.mean([_softmax(logits) for logits, _, _ in plain], axis=0).argmax())
    (scores,) = found.scores
    assert scores.aim.name == TASK.classes[chosen]
    assert scores.kind == f"probability of {TASK.classes[chosen]}, tile alone"
    np.testing.assert_allclose(scores.score, np.mean([one[1] for one in plain], axis=0)[:, chosen], atol=1e-7)


def test_every_class_the_predicted_one_first_and_any_by_name() -> None:
    members = [member("mean", 0)]
    found = explain_bag(members, HeatmapSettings(target_class="every"))
    ((logits, alone, _),) = _plainly(members)
    names = [one.aim.name for one in found.scores]
    assert names[0] == TASK.classes[int(logits.argmax())] and sorted(names) == sorted(TASK.classes)
    for one in found.scores:
        np.testing.assert_allclose(one.score, alone[:, TASK.classes.index(one.aim.name)], atol=1e-7)
    (by_name,) = explain_bag(members, HeatmapSettings(target_class="mid")).scores
    np.testing.assert_allclose(by_name.score, alone[:, 1], atol=1e-7)
    with pytest.raises(SettingsError, match="`middle` is none of the classes"):
        explain_bag(members, HeatmapSettings(target_class="middle"))


def test_attention_is_of_no_class_and_drawn_once() -> None:
    assert len(explain_bag([member()], HeatmapSettings(target_class="every")).scores) == 1


class _Own(torch.nn.Module):
    """Says which tiles matter beside an attention that says something else."""

    name = "own"

    def forward(self, bags: Bags) -> MILOutput:
        total = len(bags.features)
        attention = torch.full((total, 2), 1 / total)
        return MILOutput(bags.features[:1, :3], attention=attention, scores=torch.arange(total).float())


def test_a_model_s_own_scores_stand_for_its_attention() -> None:
    one = replace(member(), model=_Own())  # type: ignore[arg-type]
    assert explain_bag([one], AUTO).scores[0].score.tolist() == list(range(23))


def test_folds_of_a_regression_are_averaged_in_its_own_units() -> None:
    tasks = [RegressionTask("age:regression", "age", mean=mean, std=std) for mean, std in ((50.0, 10.0), (60.0, 5.0))]
    members = [member("mean", seed, task) for seed, task in enumerate(tasks)]
    found = explain_bag(members, AUTO)
    said = [one.model(Bags.pack([one.bag])) for one in members]
    alone = np.mean(
        [
            task.mean + task.std * output.instance_logits[:, 0].detach().double().numpy()
            for task, output in zip(tasks, said, strict=True)
        ],
        axis=0,
    )
    (scores,) = found.scores
    assert scores.kind == "age, tile alone"
    np.testing.assert_allclose(scores.score, alone, rtol=1e-6)
    whole = [task.mean + task.std * output.logits[0, 0].item() for task, output in zip(tasks, said, strict=True)]
    assert found.values == pytest.approx([np.mean(whole)])


def test_several_targets_give_one_score_each() -> None:
    parts = (TASK, RegressionTask("age:regression", "age", mean=50, std=10))
    task = SeveralTask("grade,age:regression", parts, (1.0, 1.0))
    found = explain_bag([member("mean", 1, task)], AUTO)
    assert [one.aim.target for one in found.scores] == ["grade", "age:regression"]
    assert columns_of(found.scores) == ["score", "score_age"]
    assert found.scores[1].aim.label == "age"


def test_scores_read_back_and_by_the_viewer(tmp_path: Path) -> None:
    found = explain_bag([member("mean")], HeatmapSettings(target_class="every"))
    write_scores(tmp_path / "scores.csv", found.scores)
    table = pd.read_csv(tmp_path / "scores.csv")
    assert score_names(tmp_path / "scores.csv") == columns_of(found.scores) == list(table.columns[2:])
    np.testing.assert_array_equal(table[["x0", "y0"]], found.scores[0].xy0)
    for name, one in zip(columns_of(found.scores), found.scores, strict=True):
        np.testing.assert_allclose(table[name], one.score, rtol=1e-12)


def test_a_slide_of_a_patient_with_several() -> None:
    given = bag(20, slides=2)
    (scores,) = explain_bag([member(given=given)], AUTO).scores
    second = cut_slide(scores, given, "S1")
    np.testing.assert_array_equal(second.score, scores.score[10:])
    assert given.xy0 is not None
    np.testing.assert_array_equal(second.xy0, given.xy0[10:])
    assert 0 < second.score.sum() < 1 and second.weights.sum() == pytest.approx(1)
    with pytest.raises(StoreError, match="holds no tile"):
        cut_slide(scores, given, "S2")


def test_weights_are_what_is_above_0() -> None:
    (scores,) = explain_bag([member()], AUTO).scores
    assert replace(scores, score=np.array([-2.0, 1.0, 3.0])).weights.tolist() == [0, 0.25, 0.75]
    assert replace(scores, score=np.array([-2.0, -1.0])).weights.tolist() == [0.5, 0.5]


def test_refuses_scores_that_a_model_has_not() -> None:
    with pytest.raises(StoreError, match="model `mean` has no attention"):
        explain_bag([member("mean")], HeatmapSettings(score="attention"))


def test_refuses_no_models_and_models_of_different_tasks() -> None:
    with pytest.raises(StoreError, match="no model"):
        explain_bag([], AUTO)
    other = ClassificationTask("grade", ("high", "low", "mid"))
    with pytest.raises(StoreError, match="different tasks"):
        explain_bag([member(), member(seed=1, task=other)], AUTO)
