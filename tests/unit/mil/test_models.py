"""What sets each model apart, beyond the contract of all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.models.abmil import Abmil, GatedAbmil
from pathpipe.mil.models.mean_max import Max, Mean
from pathpipe.mil.registry import MODELS, Recipe, build_model
from pathpipe.testing.bags import random_bag

BASELINES = ["mean", "max", "abmil", "gated-abmil"]
ATTENTION = ["abmil", "gated-abmil"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    # 1024-512-128 with two classes: 591,619 and 657,283; the poolings 1024*512 + 512 + 512*2 + 2
    [("mean", 525_826), ("max", 525_826), ("abmil", 591_619), ("gated-abmil", 657_283)],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in build_model(Recipe(name), 1024, 2).parameters()) == parameters


@pytest.mark.parametrize("name", BASELINES)
def test_initial_weights_are_xavier_normal_with_zero_biases(name: str) -> None:
    torch.manual_seed(0)
    for module in build_model(Recipe(name), 1024, 2).modules():
        if isinstance(module, nn.Linear):
            assert not module.bias.any()
            if module.weight.numel() > 1000:
                xavier = (2 / (module.in_features + module.out_features)) ** 0.5
                assert module.weight.std().item() == pytest.approx(xavier, rel=0.1)


@pytest.mark.parametrize("name", ATTENTION)
def test_logits_are_the_attention_weighted_mean_of_instance_logits(name: str) -> None:
    batch = Bags.pack([random_bag(11, 6), random_bag(4, 6)])
    output = _build(name)(batch)
    pairs = zip(batch.split(output.attention), batch.split(output.instance_logits), strict=True)
    expected = torch.stack([(weight * logit).sum(0) for weight, logit in pairs])
    torch.testing.assert_close(output.logits, expected)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_the_softmax_of_its_raw_scores(name: str) -> None:
    batch = Bags.pack([random_bag(11, 6), random_bag(4, 6)])
    output = _build(name)(batch)
    for weights, raw in zip(batch.split(output.attention), batch.split(output.attention_raw), strict=True):
        torch.testing.assert_close(weights, raw.exp() / raw.exp().sum())


@pytest.mark.parametrize("name", ATTENTION)
def test_a_shift_of_all_scores_changes_nothing(name: str) -> None:
    model, batch = _build(name), Bags.pack([random_bag(9, 6)])
    before = model(batch).logits
    with torch.no_grad():
        model.get_parameter("attend.score.bias").add_(3.0)
    torch.testing.assert_close(model(batch).logits, before)


@pytest.mark.parametrize("name", ["mean", *ATTENTION])
def test_duplicating_every_tile_changes_nothing(name: str) -> None:
    model, bag = _build(name), random_bag(9, 6)
    twice = bag.take(torch.arange(9).repeat(2).numpy())
    torch.testing.assert_close(model(Bags.pack([twice])).logits, model(Bags.pack([bag])).logits)


@pytest.mark.parametrize("name", ATTENTION)
def test_uniform_attention_is_the_mean_model(name: str) -> None:
    model, mean, batch = _build(name), _build("mean"), Bags.pack([random_bag(9, 6), random_bag(2, 6)])
    with torch.no_grad():
        model.get_parameter("attend.score.weight").zero_()
        for mine, other in (("embed.0", "embed.0"), ("head", "head")):
            mean.get_submodule(mine).load_state_dict(model.get_submodule(other).state_dict())
    torch.testing.assert_close(mean(batch).logits, model(batch).logits)


def test_max_learns_from_at_most_one_tile_a_class() -> None:
    bag = random_bag(50, 6)
    batch = Bags.pack([Bag(torch.from_numpy(bag.features))])
    features = batch.features.requires_grad_()
    _build("max", outputs=3)(batch).logits.sum().backward()
    assert features.grad is not None
    assert 1 <= int((features.grad != 0).any(1).sum()) <= 3


def test_max_takes_each_class_by_itself() -> None:
    model, batch = _build("max", outputs=3), Bags.pack([random_bag(50, 6)])
    output = model(batch)
    assert output.logits[0].tolist() == output.instance_logits.max(0).values.tolist()
    assert len(set(output.instance_logits.argmax(0).tolist())) > 1


@pytest.mark.parametrize("name", BASELINES)
def test_options_move_the_model(name: str) -> None:
    model = build_model(Recipe(name, {"hidden": 5, "dropout": 0.5}), 6, 2)
    assert next(m.out_features for m in model.modules() if isinstance(m, nn.Linear)) == 5
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5]
    if name in ATTENTION:
        assert build_model(Recipe(name, {"attention_dim": 7}), 6, 2).get_parameter("attend.score.weight").shape == (
            1,
            7,
        )


def test_names_lead_to_their_classes() -> None:
    kinds = {name: type(build_model(Recipe(name), 4, 2)) for name in BASELINES}
    assert kinds == {"mean": Mean, "max": Max, "abmil": Abmil, "gated-abmil": GatedAbmil}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gatd-abmil", {}, "no model `gatd-abmil`.*did you mean `gated-abmil`"),
        ("abmil", {"hiden": 3}, "hiden .option of model `abmil`.*no such setting.*did you mean `hidden`"),
        ("abmil", {"dropout": 1.0}, "dropout .option of model `abmil`.*less than 1"),
        ("mean", {"attention_dim": 3}, "attention_dim"),
    ],
)
def test_refuses_unknown_models_and_options(name: str, options: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_model(Recipe(name, options), 4, 2)


def test_refuses_a_plugin_that_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS.builtin, "odd", "torch.nn:Linear")
    with pytest.raises(SettingsError, match="`odd` of pathpipe is not a MILModule"):
        build_model(Recipe("odd"), 4, 2)


def _build(name: str, outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(Recipe(name, {"hidden": 16}), 6, outputs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.copy_(_wave(parameter))
    return model


def _wave(like: Tensor) -> Tensor:
    return torch.sin(torch.arange(1.0, like.numel() + 1)) * 0.2


@pytest.mark.parametrize("name", MODELS.names())
def test_a_level_start_predicts_alike_for_every_bag(name: str) -> None:
    """Only the logits asked for are levelled, and they can still be learnt."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"hidden": 64} if "hidden" in MODELS[name].Options.model_fields else {}
        model = build_model(Recipe(name, options), 8, 3)
        batch = Bags.pack([random_bag(9, 8, seed=1), random_bag(40, 8, seed=2)])
        model.level([1])
        logits = model.eval()(batch).logits
        assert logits[0, 1] == logits[1, 1] == 0.0
        assert logits[0, 0] != logits[1, 0] and logits[0, 2] != logits[1, 2]
        logits[:, 1].sum().backward()
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
