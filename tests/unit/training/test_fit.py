"""Options of the trainer, each against what it must change, and what it must leave alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bag
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.settings import TrainSettings
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.training.distributed import Group
from pathpipe.training.fit import Batch, Conditions, Fit, Part, refuse_unfit
from pathpipe.training.sampling import Mixture
from pathpipe.training.trainer import TrainedFold, train_fold
from tests.unit.training.test_trainer import QUICK, RECORDED, TASK, Recorder, _data, _state, recorder

__all__ = ["recorder"]
EVEN = {"epochs": 3, "lr": 1e-2, "model_settings": {"hidden": 8, "dropout": 0.0}}


def _trained(changes: Mapping[str, Any], seed: int = 0) -> TrainedFold:
    return train_fold(_data(), TASK, TrainSettings.model_validate({**EVEN, **changes}), seed)


def _far(one: TrainedFold, other: TrainedFold) -> float:
    return max((value - _state(other)[name]).abs().max().item() for name, value in _state(one).items())


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_accumulated_passes_are_one_larger_batch(optimiser: str) -> None:
    whole = _trained({"batch_size": 6, "optimiser": optimiser})  # 8 bags: steps of 6 and 2
    parts = _trained({"batch_size": 2, "accumulate": 3, "optimiser": optimiser})
    # not the weights of AdamW: the bias before the softmax has no gradient but rounding, which it blows up
    torch.testing.assert_close(whole.logits["test"], parts.logits["test"], rtol=1e-4, atol=1e-5)
    assert optimiser == "adamw" or _far(whole, parts) < 1e-5
    np.testing.assert_allclose(whole.history["train_loss"], parts.history["train_loss"], rtol=1e-5)
    assert whole.history["lr"].tolist() == parts.history["lr"].tolist()
    assert _far(whole, _trained({"batch_size": 2, "optimiser": optimiser})) > 1e-3


def test_hooks_of_a_step_that_accumulates(recorder: type[Recorder]) -> None:
    settings = RECORDED.model_copy(update={"accumulate": 2, "epochs": 1})  # 8 bags: 3 + 3, then 2
    train_fold(_data(), TASK, settings, seed=0)
    steps = [(call[0], call[1]) for call in recorder.calls if call[0] in ("pre", "post")]
    assert steps == [("pre", 0), ("pre", 0), ("post", 0), ("pre", 1), ("post", 1)]
    assert recorder.calls[0] == ("setup", 2)


def test_clipping_bounds_a_step() -> None:
    free = _trained({"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": 10.0, "epochs": 1})
    tight = {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": 10.0, "epochs": 1, "clip": 1e-3}
    still = _trained({**tight, "lr": 1e-12})
    moved = sum((v - _state(still)[k]).square().sum().item() for k, v in _state(_trained(tight)).items()) ** 0.5
    assert 0 < moved <= 2 * 10.0 * 1e-3 + 1e-6  # two steps of a norm of at most lr x clip
    assert _far(free, still) > 1


def test_monitor_chooses_the_epoch() -> None:
    chosen = {"lr": 0.3, "epochs": 10, "patience": 10, "warmup_epochs": 0}
    by_loss, by_auroc = _trained(chosen), _trained({**chosen, "monitor": "auroc"})
    assert by_loss.history.equals(by_auroc.history)
    table = by_auroc.history
    loss, auroc = table["val_loss"].to_numpy(), table["val_auroc"].to_numpy()
    assert by_auroc.best_epoch == 1 + int(np.where(auroc == auroc.max(), loss, np.inf).argmin())
    assert by_loss.best_epoch == 1 + int(loss.argmin())


def test_monitor_that_is_unknown_or_undefined() -> None:
    with pytest.raises(SettingsError, match=r"no `aurok`.*auroc"):
        _trained({"monitor": "aurok"})
    data = _data()
    only = tuple(p for p in data.roles["val"] if data.labels[p] == data.labels[data.roles["val"][0]])
    with pytest.raises(SettingsError, match="auroc is not defined on the validation patients"):
        train_fold(
            replace(data, roles={**data.roles, "val": only}), TASK, QUICK.model_copy(update={"monitor": "auroc"}), 0
        )


def test_never_stops_before_min_epochs() -> None:
    chosen = {"lr": 0.5, "epochs": 40, "patience": 2}
    early = len(_trained(chosen).history)
    assert early < 20
    assert len(_trained({**chosen, "min_epochs": 25}).history) >= 25


def test_the_average_validates_and_predicts() -> None:
    plain, averaged = _trained({"epochs": 1}), _trained({"epochs": 1, "average": 0.999})
    assert plain.history["train_loss"].tolist() == averaged.history["train_loss"].tolist()
    assert plain.history["val_loss"].tolist() != averaged.history["val_loss"].tolist()
    # two steps a, b: decays min(0.999, 1/10) and min(0.999, 2/11)
    start, one, two = (
        _trained({"epochs": 1, "lr": 1e-12}),
        _trained({"epochs": 1, "batch_size": 8, "average": 0.999, "warmup_epochs": 0}),
        _trained({"epochs": 1, "batch_size": 8, "warmup_epochs": 0}),
    )
    for name, value in _state(one).items():
        expected = 0.1 * _state(start)[name] + 0.9 * _state(two)[name]
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)


def test_bfloat16_trains_near_float32() -> None:
    plain, half = _trained({}), _trained({"precision": "bf16"})
    assert 0 < _far(plain, half) < 0.05
    assert _state(half)["head.weight"].dtype == torch.float32
    assert half.logits["test"].dtype == torch.float32


def test_balanced_draws_need_no_weights() -> None:
    data = _data(32)
    kept = [p for p in data.roles["train"] if data.labels[p] == "0"]
    rare = [p for p in data.roles["train"] if data.labels[p] == "1"][:1]
    skewed = replace(data, roles={**data.roles, "train": tuple(kept + rare)})
    means = {}
    for balance in ("sampling", "none"):
        settings = QUICK.model_copy(update={"epochs": 20, "patience": 20, "batch_size": 1, "balance": balance})
        means[balance] = TASK.scores(train_fold(skewed, TASK, settings, 0).logits["test"])[:, 1].mean()
    assert means["sampling"] > means["none"] + 0.1


def test_loss_of_mixed_bags_is_mixed() -> None:
    task = ClassificationTask("label", ("a", "b"))
    bags = [Bag(np.zeros((2, 3), np.float32)) for _ in range(2)]
    settings = TrainSettings(mixup=1.0, balance="none", model_settings={"hidden": 4})
    fit = Fit.of(Part(bags, torch.tensor([0, 1])), task, settings, 0, torch.device("cpu"), Conditions())
    mixture = Mixture(torch.tensor([1, 0]), torch.tensor([0.7, 0.9]))
    batch = Batch(None, torch.tensor([0, 1]), mixture)  # type: ignore[arg-type]
    logits = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    log = logits.log_softmax(1)
    expected = -(0.7 * log[0, 0] + 0.3 * log[0, 1] + 0.9 * log[1, 1] + 0.1 * log[1, 0]) / 2
    torch.testing.assert_close(fit._criterion(batch, logits, None, None), expected)
    rows, share = torch.tensor([1, 1, 0]), torch.tensor([1.0, 0.5, 2.0])
    three = logits[rows] + torch.tensor([[0.0], [1.0], [0.0]])
    log = three.log_softmax(1)
    each = -torch.stack(
        [
            0.9 * log[0, 1] + 0.1 * log[0, 0],
            0.5 * (0.9 * log[1, 1] + 0.1 * log[1, 0]),
            2.0 * (0.7 * log[2, 0] + 0.3 * log[2, 1]),
        ]
    )
    torch.testing.assert_close(fit._criterion(batch, three, rows, share), each.sum() / share.sum())


def test_mixup_changes_training_and_still_learns() -> None:
    settings = TrainSettings(epochs=25, patience=25, mixup=0.4)
    trained = train_fold(_data(64), TASK, settings, seed=0)
    truth = np.array([int(trained.patients["test"][i][4:]) % 2 for i in range(16)])
    probability = TASK.scores(trained.logits["test"])[:, 1].numpy()
    assert probability[truth == 1].min() > probability[truth == 0].max()
    assert _far(_trained({}), _trained({"mixup": 0.4})) > 1e-3


def test_refuses_passes_that_cannot_be_shared_evenly() -> None:
    part = Part([Bag(np.zeros((1, 2), np.float32))], torch.zeros(1, dtype=torch.int64))
    how = Conditions(group=Group(1, 2))
    Fit.of(part, TASK, TrainSettings(accumulate=4), 0, torch.device("cpu"), how)
    with pytest.raises(SettingsError, match=r"3 passes .* by 2 processes .*--accumulate 2"):
        Fit.of(part, TASK, TrainSettings(accumulate=3), 0, torch.device("cpu"), how)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp16"}, "fp16 trains on a GPU only"),
        ({"model": "abmill"}, "no model `abmill`"),
    ],
)
def test_refuses(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _trained(changes)


def test_refuses_to_mix_targets_of_cox() -> None:
    from pathpipe.tasks.build import task_from_target

    labels = {str(number): (str(number), str(number % 2)) for number in range(1, 9)}
    task = task_from_target("t/e:cox", labels)
    part = Part([Bag(np.zeros((1, 2), np.float32))], torch.zeros(1, 2))
    settings = TrainSettings(mixup=0.2)
    with pytest.raises(SettingsError, match="Cox loss"):
        Fit.of(part, task, settings, 0, torch.device("cpu"), Conditions())
    both = task_from_target("t/e:cox,x:regression", {key: (*value, key) for key, value in labels.items()})
    with pytest.raises(SettingsError, match="Cox loss"):
        Fit.of(part, both, settings, 0, torch.device("cpu"), Conditions())


def test_refuses_what_does_not_suit_the_target_before_it_is_fitted() -> None:
    from pathpipe.tasks.build import task_from_target

    labels = {str(number): (str(number), str(number % 2), str(number % 2)) for number in range(1, 9)}
    task = task_from_target("t/e:survival,c", labels)
    mean, clam = (build_model(Recipe(name), 2, task.outputs) for name in ("mean", "clam-sb"))
    refuse_unfit(mean, task, TrainSettings(monitor="t/e:survival cindex", batch_size=1))
    with pytest.raises(SettingsError, match=r"measures no `auroc` .hint: .*c auroc"):
        refuse_unfit(mean, task, TrainSettings(monitor="auroc"))
    with pytest.raises(SettingsError, match="kind several has no classes to draw evenly from"):
        refuse_unfit(mean, task, TrainSettings(balance="sampling"))
    with pytest.raises(SettingsError, match="`clam-sb` learns from classes and takes no several target"):
        refuse_unfit(clam, task, TrainSettings(model="clam-sb"))
    with pytest.raises(SettingsError, match="a batch of one teaches nothing"):
        refuse_unfit(mean, task_from_target("c,t/e:cox", labels), TrainSettings(batch_size=1))


def test_a_validation_fold_that_cannot_tell_coxs_loss_is_refused() -> None:
    """Its loss would be 0 in every epoch, and the first one kept."""
    from pathpipe.tasks.build import task_from_target

    data = _data()
    seen = {patient: (str(number + 1), str(number % 2)) for number, patient in enumerate(data.labels)}
    task = task_from_target("t/e:cox", seen)
    settings = TrainSettings.model_validate({**EVEN, "batch_size": 8})
    assert train_fold(replace(data, labels=seen), task, settings, 0).history["val_loss"].min() > 0
    censored = {**seen, **{patient: (seen[patient][0], "0") for patient in data.roles["val"]}}
    with pytest.raises(SettingsError, match=r"no two validation patients can be compared .*--val-fraction"):
        train_fold(replace(data, labels=censored), task, settings, 0)
    last = max(data.roles["val"], key=lambda patient: int(seen[patient][0]))
    alone = {**censored, last: (seen[last][0], "1")}
    with pytest.raises(SettingsError, match="no two validation patients"):
        train_fold(replace(data, labels=alone), task, settings, 0)


def test_test_patients_play_no_part_whatever_the_options() -> None:
    data = _data()
    noise = Bag(np.full((5, 6), 50, np.float16), patient_id="x")
    bags = {p: noise if p in data.roles["test"] else bag for p, bag in data.bags.items()}
    labels = {p: "0" if p in data.roles["test"] else label for p, label in data.labels.items()}
    changes = {"mixup": 0.3, "average": 0.5, "monitor": "auroc", "balance": "sampling", "instance_dropout": 0.3}
    settings = QUICK.model_copy(update=changes)
    first = train_fold(data, TASK, settings, 0)
    second = train_fold(replace(data, bags=bags, labels=labels), TASK, settings, 0)
    assert first.history.equals(second.history) and first.best_epoch == second.best_epoch
    assert all(torch.equal(value, _state(second)[name]) for name, value in _state(first).items())


def test_test_patients_need_not_be_predicted() -> None:
    trained = train_fold(_data(), TASK, QUICK, 0, how=Conditions(predict=("val",)))
    assert set(trained.logits) == set(trained.patients) == {"val"}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own tracer looks at it
def test_compiled_models_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # traced, not turned into C++
    settings = TrainSettings.model_validate({**EVEN, "epochs": 1, "batch_size": 3})
    plain, compiled = (train_fold(_data(), TASK, settings, 0, how=Conditions(compile=one)) for one in (False, True))
    assert set(_state(plain)) == set(_state(compiled))
    torch.testing.assert_close(plain.logits["test"], compiled.logits["test"], rtol=1e-5, atol=1e-6)
