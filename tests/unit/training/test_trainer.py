"""The training loop: deterministic, honest about its validation, and blind to which model it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.model import MILModule, MILOutput, ModelCard, TrainContext
from pathpipe.mil.registry import MODELS
from pathpipe.progress import Progress
from pathpipe.settings import TrainSettings
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.testing.bags import witness_bags
from pathpipe.training.fold import FoldData
from pathpipe.training.optimise import learning_rate
from pathpipe.training.trainer import TrainedFold, predict_logits, train_fold

TASK = ClassificationTask("label", ("0", "1"))
QUICK = TrainSettings(epochs=3, model_settings={"hidden": 8}, lr=1e-3)


def _data(patients: int = 16, seed: int = 0) -> FoldData:
    made = witness_bags(patients, instances=20, dim=6, seed=seed)
    bags = {bag.patient_id: replace(bag, features=np.asarray(bag.features, np.float16)) for bag in made.bags}
    names = list(bags)
    cut = patients // 4
    roles = {"train": tuple(names[2 * cut :]), "val": tuple(names[:cut]), "test": tuple(names[cut : 2 * cut])}
    labels = {name: str(label) for name, label in zip(names, made.labels, strict=True)}
    return FoldData(3, bags, labels, roles, {})


def _state(trained: TrainedFold) -> dict[str, Tensor]:
    return dict(trained.model.state_dict())


class Recorder(MILModule):
    """A linear model that writes down what the trainer does to it."""

    card = ModelCard("", "", attention=False, permutation_invariant=True)
    calls: ClassVar[list[Any]] = []
    extra: ClassVar[float] = 0.0

    def __init__(self, dim_in: int, dim_out: int, options: Any) -> None:
        super().__init__(dim_in, dim_out, options)
        self.head = nn.Linear(dim_in, dim_out)
        self.penalised = nn.Parameter(torch.tensor(1.0))
        Recorder.calls = []

    def forward(self, bags: Bags) -> MILOutput:
        Recorder.calls.append(("forward", self.training, len(bags), bags.lengths))
        means = torch.stack([part.mean(0) for part in bags.split(bags.features)])
        losses = {"norm": self.penalised**2} if self.training else {}
        return MILOutput(self.head(means), losses=losses, loss_weights={"norm": Recorder.extra})

    def setup(self, context: TrainContext) -> None:
        Recorder.calls.append(("setup", context.total_steps))

    def on_epoch(self, context: TrainContext) -> None:
        Recorder.calls.append(("epoch", context.epoch))

    def pre_step(self, bags: Bags, context: TrainContext) -> None:
        Recorder.calls.append(("pre", context.step))

    def post_step(self, bags: Bags, context: TrainContext) -> None:
        Recorder.calls.append(("post", context.step))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setitem(MODELS.builtin, "recorder", f"{__name__}:Recorder")
    return Recorder


RECORDED = TrainSettings(model="recorder", epochs=2, batch_size=3, patience=5)


def test_same_seed_same_bits() -> None:
    settings = QUICK.model_copy(update={"max_instances": 7})
    before = torch.get_rng_state()
    first, second, other = (train_fold(_data(), TASK, settings, seed) for seed in (4, 4, 5))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, _state(second)[key]) for key, value in _state(first).items())
    assert first.history.equals(second.history)
    assert torch.equal(first.logits["test"], second.logits["test"])
    assert not all(torch.equal(value, _state(other)[key]) for key, value in _state(first).items())


def test_numpy_and_torch_state_outside_do_not_matter() -> None:
    first = train_fold(_data(), TASK, QUICK, 0)
    torch.manual_seed(99)
    np.random.seed(99)
    torch.rand(3)
    assert torch.equal(train_fold(_data(), TASK, QUICK, 0).logits["test"], first.logits["test"])


def test_learns_to_find_the_witness() -> None:
    settings = TrainSettings(epochs=25, patience=25)
    trained = train_fold(_data(64), TASK, settings, seed=0)
    truth = np.array([int(trained.patients["test"][i][4:]) % 2 for i in range(16)])
    probability = TASK.scores(trained.logits["test"])[:, 1].numpy()
    assert probability[truth == 1].min() > probability[truth == 0].max()
    assert trained.history["val_auroc"].iloc[trained.best_epoch - 1] == 1


def test_result_belongs_to_the_best_epoch() -> None:
    settings = QUICK.model_copy(update={"epochs": 12, "lr": 0.3, "patience": 12, "warmup_epochs": 0})
    data = _data()
    trained = train_fold(data, TASK, settings, seed=1)
    losses = trained.history["val_loss"]
    assert trained.best_epoch == int(losses.to_numpy().argmin()) + 1 < len(losses)
    assert trained.patients == {"val": data.roles["val"], "test": data.roles["test"]}
    targets = TASK.encode([data.labels[p] for p in data.roles["val"]])
    weights = TASK.weights(TASK.encode([data.labels[p] for p in data.roles["train"]]))
    assert TASK.loss(trained.logits["val"], targets, weights).item() == losses.min()
    again = predict_logits(trained.model, [data.bags[p] for p in data.roles["test"]])
    assert torch.equal(again, trained.logits["test"])


def test_stops_early() -> None:
    settings = QUICK.model_copy(update={"epochs": 60, "lr": 0.1, "patience": 3})
    trained = train_fold(_data(), TASK, settings, seed=0)
    assert len(trained.history) == trained.best_epoch + 3 < 60
    assert trained.history["epoch"].tolist() == list(range(1, len(trained.history) + 1))


def test_test_patients_play_no_part_in_training() -> None:
    data = _data()
    flipped = {
        p: ("1" if label == "0" else "0") if p in data.roles["test"] else label for p, label in data.labels.items()
    }
    noise = Bag(np.full((5, 6), 50, np.float16), patient_id="x")
    bags = {p: noise if p in data.roles["test"] else bag for p, bag in data.bags.items()}
    first, second = (
        train_fold(data, TASK, QUICK, 0),
        train_fold(replace(data, labels=flipped, bags=bags), TASK, QUICK, 0),
    )
    assert first.history.equals(second.history)
    assert all(torch.equal(value, _state(second)[key]) for key, value in _state(first).items())
    assert torch.equal(first.feature_mean, second.feature_mean)


def test_hooks_are_called_in_order_and_batches_cover_the_bags(recorder: type[Recorder]) -> None:
    train_fold(_data(), TASK, RECORDED, seed=0)  # 8 bags in threes, 4 + 4 predicted one by one
    names = [call[0] for call in recorder.calls]
    step = ["pre", "forward", "post"]
    assert names == ["setup", *(["epoch", *step * 3, *["forward"] * 4] * 2), *["forward"] * 8]
    assert recorder.calls[0] == ("setup", 6)
    assert [call[1] for call in recorder.calls if call[0] == "pre"] == [0, 1, 2, 3, 4, 5]
    assert [call[1] for call in recorder.calls if call[0] == "post"] == [0, 1, 2, 3, 4, 5]
    assert [call[1] for call in recorder.calls if call[0] == "epoch"] == [0, 1]
    trained = [call for call in recorder.calls if call[0] == "forward" and call[1]]
    assert [call[2] for call in trained] == [3, 3, 2, 3, 3, 2]
    assert all(call[2] == 1 for call in recorder.calls if call[0] == "forward" and not call[1])


def test_bags_are_subsampled_in_training_only(recorder: type[Recorder]) -> None:
    train_fold(_data(), TASK, RECORDED.model_copy(update={"max_instances": 7}), seed=0)
    for call in recorder.calls:
        if call[0] == "forward":
            assert set(call[3]) == ({7} if call[1] else {20})


def test_the_learning_rate_of_the_schedule_is_used(recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "extra", 1.0)
    settings = RECORDED.model_copy(update={"lr": 0.1, "epochs": 1, "batch_size": 8, "warmup_epochs": 4})
    trained = train_fold(_data(), TASK, settings.model_copy(update={"weight_decay": 0.0}), seed=0)
    # Adam's first step is the learning rate whatever the gradient: a quarter of the peak here.
    assert trained.model.get_parameter("penalised").item() == pytest.approx(1 - 0.1 / 4, abs=1e-6)
    decayed = train_fold(_data(), TASK, settings.model_copy(update={"weight_decay": 0.5}), seed=0)
    expected = 1 - 0.1 / 4 - 0.5 * 0.1 / 4
    assert decayed.model.get_parameter("penalised").item() == pytest.approx(expected, abs=1e-6)


def test_a_models_own_losses_are_added(recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = train_fold(_data(), TASK, RECORDED, seed=0)
    assert plain.model.get_parameter("penalised").item() == pytest.approx(1.0, abs=1e-5)
    monkeypatch.setattr(recorder, "extra", 2.0)
    settings = RECORDED.model_copy(update={"lr": 0.1, "epochs": 1, "weight_decay": 0.0, "warmup_epochs": 0})
    heavy = train_fold(_data(), TASK, settings, seed=0)
    assert heavy.model.get_parameter("penalised").item() < 0.9
    assert heavy.history["train_loss"][0] > plain.history["train_loss"][0] + 1


def test_history_follows_the_schedule() -> None:
    settings = QUICK.model_copy(update={"epochs": 4, "lr": 0.01, "batch_size": 4, "patience": 9})
    history = train_fold(_data(), TASK, settings, seed=0).history
    assert list(history.columns) == ["epoch", "train_loss", "val_loss", "val_auroc", "lr"]
    expected = [learning_rate(settings, step, 2, 8) for step in (1, 3, 5, 7)]
    assert history["lr"].tolist() == pytest.approx(expected)


def test_class_weights_move_the_rare_class() -> None:
    data = _data(32)
    kept = [p for p in data.roles["train"] if data.labels[p] == "0"] + [
        p for p in data.roles["train"] if data.labels[p] == "1"
    ][:1]
    skewed = replace(data, roles={**data.roles, "train": tuple(kept)})
    settings = QUICK.model_copy(update={"epochs": 20, "patience": 20, "batch_size": 1})
    means = {
        on: TASK.scores(train_fold(skewed, TASK, settings.model_copy(update={"balance": on}), 0).logits["test"])[
            :, 1
        ].mean()
        for on in ("weights", "none")
    }
    assert means["weights"] > means["none"] + 0.1


def test_validation_without_one_class_still_has_a_loss() -> None:
    data = _data()
    only = tuple(p for p in data.roles["val"] if data.labels[p] == "0")
    history = train_fold(replace(data, roles={**data.roles, "val": only}), TASK, QUICK, 0).history
    assert np.isfinite(history["val_loss"]).all()
    assert history["val_auroc"].isna().all()


def test_moments_of_the_training_features() -> None:
    data = _data()
    trained = train_fold(data, TASK, QUICK, seed=0)
    stacked = np.concatenate([np.asarray(data.bags[p].features, np.float64) for p in data.roles["train"]])
    np.testing.assert_allclose(trained.feature_mean, stacked.mean(0), atol=1e-5)
    np.testing.assert_allclose(trained.feature_std, stacked.std(0), atol=1e-5)


def test_three_classes() -> None:
    data = _data(24)
    labels = {p: str(number % 3) for number, p in enumerate(data.bags)}
    task = ClassificationTask.from_column("grade", labels.values())
    trained = train_fold(replace(data, labels=labels), task, QUICK, seed=0)
    assert trained.logits["test"].shape == (6, 3)
    assert trained.model.dim_out == 3


def test_reports_progress() -> None:
    heard: list[Progress] = []
    trained = train_fold(_data(), TASK, QUICK, seed=2, notify=heard.append)
    assert [(one.stage, one.key, one.done, one.total) for one in heard] == [
        ("train", "fold-3-seed-2", epoch, 3) for epoch in (1, 2, 3)
    ]
    assert heard[0].note == f"validation loss {trained.history['val_loss'][0]:.3f}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "abmill"}, "no model `abmill`"),
        ({"model_settings": {"width": 3}}, "width"),
        ({"lr": 1e30, "warmup_epochs": 0}, r"loss is (nan|inf) in epoch \d .hint: lower train.lr"),
    ],
)
def test_refuses(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        train_fold(_data(), TASK, QUICK.model_copy(update=dict(changes)), seed=0)
