"""Exported files: every registered model gives the same numbers outside Python, or is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pathpipe.errors import MissingError, SettingsError
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.covariates import Covariate
from pathpipe.mil.registry import MODELS, Recipe, build_model, recipe_of
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.tasks.regression import RegressionTask
from pathpipe.testing.bags import random_bag
from pathpipe.training import exporting
from pathpipe.training.checkpoint import Checkpoint
from pathpipe.training.deployable import Deployable
from pathpipe.training.exporting import exported, file_name, largest_difference, load_exported

ROOT = Path(__file__).resolve().parents[3]
DIM = 6
MOMENTS = (torch.zeros(DIM), torch.ones(DIM))
TASK = ClassificationTask("grade", ("low", "mid", "high"))
GOES = {"mean", "max", "abmil", "gated-abmil", "clam-sb", "clam-mb", "dsmil", "acmil", "ilra", "vit", "ins"}
REFUSED = {"dtfd", "transmil", "rrt", "wikg", "s4mil", "mambamil", "gnn-vitcap", "2dmamba"}
# graphs of a sibling that is tested; vit is, with corners
TWINS = {(name, "onnx") for name in ("mean", "gated-abmil", "clam-sb", "vit")}
SMALL: dict[str, dict[str, Any]] = {
    "ilra": {"heads": 2},
    "rrt": {"heads": 2},
    "transmil": {"heads": 2, "landmarks": 4},
    "mambamil": {"layers": 1, "state": 2},
    "2dmamba": {"state": 2},
    "vit": {"heads": 2},
}
COVARIATES = [Covariate(column="age", kind="number", mean=60, std=9).model_dump(mode="json")]


def checkpoint(
    name: str, options: dict[str, Any] | None = None, wrappers: dict[str, Any] | None = None, seed: int = 0
) -> Checkpoint:
    """A model as it is initialised, its biases and covariates' weights random too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        recipe = Recipe(name, {"hidden": 16, **SMALL.get(name, {}), **(options or {})}, wrappers or {})
        model = build_model(recipe, DIM, 3)
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    whole = recipe_of(model)
    return Checkpoint(
        model=name,
        options=whole.options,
        wrappers=whole.wrappers,
        dim_in=DIM,
        task=TASK.to_dict(),
        encoder={"name": "uni", "dim": DIM},
        preprocessing={},
        feature_mean=torch.zeros(DIM),
        feature_std=torch.ones(DIM),
        distances={},
        fold=seed,
        seed=0,
        best_epoch=1,
        state=model.state_dict(),
    )


@cache
def abmil_file(form: Any) -> bytes:
    return exported(Deployable([checkpoint("abmil")]), form, MOMENTS)[0]


def loaded(content: bytes, form: Any, folder: Path) -> Any:
    path = folder / file_name(form)
    path.write_bytes(content)
    return load_exported(path)


def agrees(module: Deployable, runs: Any, models: list[Checkpoint], tiles: int = 301) -> None:
    """The file against the models as training and prediction run them, at a length that nothing else was tried at."""
    bag = random_bag(tiles, DIM, seed=9)
    covariates = np.array([0.7, 0.0], np.float32) if module.covariates else None
    batch = Bags.pack([replace(bag, covariates=covariates)])
    assert batch.xy0 is not None
    raw = torch.tensor([[60 + 9 * 0.7, 0.0]])
    given = {"features": batch.features, "xy0": batch.xy0, "covariates": raw}
    found = dict(zip(module.outputs, runs(*(given[name] for name in module.inputs)), strict=True))
    with torch.no_grad():
        outputs = [model.build()(batch) for model in models]
    torch.testing.assert_close(found["logits"], torch.cat([one.logits for one in outputs]), rtol=1e-4, atol=1e-4)
    mean = torch.stack([one.logits.softmax(-1) for one in outputs]).mean(0)
    torch.testing.assert_close(found["answers"], mean, rtol=1e-4, atol=1e-4)
    assert ("attention" in found) == (outputs[0].attention is not None)
    if outputs[0].attention is not None:
        attention = torch.stack([one.attention for one in outputs if one.attention is not None]).mean(0)
        torch.testing.assert_close(found["attention"], attention, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, form) for name in MODELS.names() for form in ("torchscript", "onnx") if (name, form) not in TWINS],
)
def test_every_model_gives_the_same_numbers_or_is_refused(name: str, form: Any, tmp_path: Path) -> None:
    model = checkpoint(name)
    module = Deployable([model])
    try:
        content, difference = exported(module, form, MOMENTS)
    except SettingsError as error:
        assert name not in GOES
        assert error.what.startswith("this model can't be exported: its arithmetic follows the number of tiles")
        assert "\n" not in error.what
        return
    assert name not in REFUSED, "it can be exported now: move it, here and in docs/predict.md"
    assert difference <= 1e-4
    agrees(module, loaded(content, form, tmp_path), [model])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ilra", {"latents": 4}),
        ("acmil", {"attention": "multi-head", "heads": 2}),
        ("acmil", {"branches": 1}),
        ("dsmil", {"value_layer": True, "average": True}),
        ("dsmil", {"hidden": None}),
        ("ins", {"pool": "mean"}),
        ("vit", {"layers": 1}),
    ],
)
def test_options_that_change_the_arithmetic(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    models = [checkpoint(name, options)]
    module = Deployable(models)
    content, _ = exported(module, "torchscript", MOMENTS)
    agrees(module, loaded(content, "torchscript", tmp_path), models)


def test_the_page_lists_what_can_be_exported() -> None:
    text = (ROOT / "docs" / "predict.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("Can be exported:"))
    assert {name.strip("`.,") for name in line.removeprefix("Can be exported:").split()} >= GOES


@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_models_that_need_corners_and_covariates_ask_for_them(form: Any, tmp_path: Path) -> None:
    wrappers = {"covariates": {"columns": COVARIATES}}
    models = [checkpoint("vit", {"position": "sincos"}, wrappers, seed) for seed in range(2)]
    module = Deployable(models)
    assert module.inputs == ("features", "xy0", "covariates")
    content, _ = exported(module, form, MOMENTS)
    agrees(module, loaded(content, form, tmp_path), models)


def test_a_model_that_pools_slides_takes_one_slide(tmp_path: Path) -> None:
    models = [checkpoint("gated-abmil", wrappers={"pool-slides": {}})]
    module = Deployable(models)
    content, _ = exported(module, "torchscript", MOMENTS)
    agrees(module, loaded(content, "torchscript", tmp_path), models)


def test_an_ensemble_averages_what_folds_say_not_their_logits() -> None:
    first, second = (checkpoint("abmil", seed=seed) for seed in range(2))
    tasks = [RegressionTask("age:regression", "age", "huber", 1.0, mean, std) for mean, std in ((60, 9), (55, 12))]
    models = []
    for one, task in zip((first, second), tasks, strict=True):
        state = {**one.state, **{f"head.{part}": one.state[f"head.{part}"][:1] for part in ("weight", "bias")}}
        models.append(replace(one, task=task.to_dict(), state=state))
    module = Deployable(models)
    logits, said, _ = module(torch.zeros(3, DIM))
    assert module.columns == ("prediction",)
    expected = (60 + 9 * float(logits[0, 0]) + 55 + 12 * float(logits[1, 0])) / 2
    assert float(said) == pytest.approx(expected, rel=1e-6)


def test_onnx_files_are_the_same_bytes_again() -> None:
    assert exported(Deployable([checkpoint("abmil")]), "onnx", MOMENTS)[0] == abmil_file("onnx")


@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_files_name_no_machine(form: Any) -> None:
    for text in (str(ROOT), "site-packages", "deployable.py"):
        assert text.encode() not in abmil_file(form), text


def test_a_length_taken_for_a_constant_is_refused_even_where_it_does_no_harm() -> None:
    model = checkpoint("s4mil")
    forgetful = {**model.state, "states.kernel.log_dt": torch.full_like(model.state["states.kernel.log_dt"], 1.0)}
    with pytest.raises(SettingsError, match="its steps change with the number of tiles"):
        exported(Deployable([replace(model, state=forgetful)]), "torchscript", MOMENTS)


def test_a_wrong_file_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Deployable([checkpoint("abmil")])
    with torch.no_grad():
        other = Deployable([checkpoint("abmil", seed=1)])
    write, load = exporting._FORMATS["torchscript"]
    monkeypatch.setitem(exporting._FORMATS, "torchscript", (lambda _, examples: write(other, examples), load))
    with pytest.raises(SettingsError, match=r"with 1 tiles its file would differ by"):
        exported(module, "torchscript", MOMENTS)


def test_largest_difference() -> None:
    logits, said = torch.tensor([[4.0, -2.0]]), torch.tensor([[0.5]])
    attention = torch.tensor([[1e-5], [2e-5]])
    same = (logits, said, attention)
    assert largest_difference(same, same) == 0
    assert largest_difference(same, (logits + 0.02, said, attention)) == pytest.approx(0.005, rel=1e-4)
    assert largest_difference(same, (logits, said + 0.01, attention)) == pytest.approx(0.01, rel=1e-4)
    assert largest_difference(same, (logits, said, attention + 1e-6)) == pytest.approx(0.05, rel=1e-3)
    assert largest_difference(same, (logits, said, attention[:1])) == float("inf")
    assert largest_difference(same, (logits, said * float("nan"), attention)) == float("inf")


def test_onnx_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingError, match=r"pathpipe\[onnx\]"):
        exported(Deployable([checkpoint("mean")]), "onnx", MOMENTS)


def test_only_exported_files_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is no exported model"):
        load_exported(tmp_path / "model.pt")


def test_one_bag_is_a_batch_of_one() -> None:
    from pathpipe.mil.one_bag import OneBag

    bag = random_bag(5, DIM)
    one = OneBag.of(torch.from_numpy(np.asarray(bag.features)))
    assert len(one) == 1 and one.lengths == (5,) and one.single() == [one]
    assert len(Bags.pack([Bag(bag.features)])) == len(one)
    assert type(one.with_features(one.features * 2)) is OneBag
