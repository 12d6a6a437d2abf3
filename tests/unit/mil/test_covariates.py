"""Covariates: how a column becomes numbers, and a linear term of them on the logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pathpipe.errors import CohortError, SettingsError, StoreError
from pathpipe.mil.bag import Bags, Labels
from pathpipe.mil.covariates import Covariate, encode_covariates
from pathpipe.mil.registry import Recipe, build_model, recipe_of
from pathpipe.mil.wrappers.covariates import Covariates
from pathpipe.testing.bags import random_bag

AGE = {"a": "40", "b": "60", "c": "", "d": "100", "e": "50"}
SEX = {"a": "f", "b": "m", "c": "", "d": "f"}
COLUMNS = (Covariate.fit("age", AGE, ["a", "b", "c"]), Covariate.fit("sex", SEX, ["a"]))
VALUES = {"age": AGE, "sex": SEX}
BAGS = [
    replace(random_bag(4, 3, seed=at), covariates=encode_covariates(COLUMNS, VALUES, p)) for at, p in enumerate("abcd")
]


def test_numbers_are_standardised_by_the_training_patients() -> None:
    age, sex = COLUMNS
    assert (age.mean, age.std) == (50, pytest.approx(np.std([40, 60], ddof=1)))
    assert age.encode("50", "x") == [0, 0] and age.encode("", "x") == [0, 1]
    assert age.encode("100", "d")[0] == pytest.approx(50 / age.std)
    with pytest.raises(CohortError, match="column `age`: `old` of patient x is no number"):
        age.encode("old", "x")
    assert sex.categories == ("f", "m") and sex.encode("m", "x") == [0, 1]
    assert sex.encode("", "x") == sex.encode("other", "x") == [0, 0]
    np.testing.assert_allclose(encode_covariates(COLUMNS, VALUES, "c"), [0, 1, 0, 0])
    np.testing.assert_allclose(encode_covariates(COLUMNS, VALUES, "e"), [0, 0, 0, 0])


def test_a_column_without_spread_or_without_training_values_stays_finite() -> None:
    same = Covariate.fit("age", {"a": "5", "b": "5", "c": "7"}, ["a", "b"])
    assert (same.mean, same.std) == (5, 1)
    unseen = Covariate.fit("age", {"c": "7"}, ["a", "b"])
    assert (unseen.mean, unseen.std) == (0, 1)


def _model(model: str = "abmil", **options: object) -> Covariates:
    torch.manual_seed(0)
    columns = [one.model_dump(mode="json") for one in COLUMNS]
    built = build_model(Recipe(model, {"hidden": 8, **options}, {"covariates": {"columns": columns}}), 3, 2)
    assert isinstance(built, Covariates)
    return built


def test_the_term_is_added_to_the_logits() -> None:
    model, batch = _model().eval(), Bags.pack(BAGS)
    base = model.base(batch).logits
    assert torch.equal(model(batch).logits, base), "nothing is added before anything is learnt"
    weight = torch.randn(2, 4)
    model.term.weight.data = weight
    assert batch.covariates is not None
    torch.testing.assert_close(model(batch).logits, base + batch.covariates @ weight.T)
    torch.testing.assert_close(model(batch.to_padded()).logits, model(batch).logits)


def test_branches_get_their_patients_term() -> None:
    model = _model("acmil").train()
    batch = replace(Bags.pack(BAGS), labels=Labels("classification", torch.tensor([0, 1, 0, 1])))
    assert batch.covariates is not None
    with torch.random.fork_rng():
        torch.manual_seed(1)
        plain = model.base(batch).auxiliary
    model.term.weight.data = torch.ones(2, 4)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        found = model(batch).auxiliary
    assert plain
    for name, further in plain.items():
        term = batch.covariates.sum(1)[further.bag][:, None]
        torch.testing.assert_close(found[name].logits, further.logits + term)


def test_it_learns_when_only_covariates_tell() -> None:
    model, batch = _model(dropout=0.0).train(), Bags.pack(BAGS)
    model(batch).logits[:, 0].sum().backward()
    assert model.term.weight.grad is not None and (model.term.weight.grad[0] != 0).all()


def test_it_stays_when_deployed_and_says_what_it_needs() -> None:
    model = _model()
    deployed = model.deployed()
    assert isinstance(deployed, Covariates) and deployed.term.weight is model.term.weight
    again = build_model(recipe_of(model), 3, 2)
    assert isinstance(again, Covariates) and again.options == model.options and again.options.columns == COLUMNS
    with pytest.raises(StoreError, match=r"takes 4 covariates \(age, sex\), the bags have 0"):
        model(Bags.pack([random_bag(4, 3)]))
    with pytest.raises(SettingsError, match="has no columns"):
        build_model(Recipe("abmil", {}, {"covariates": {}}), 3, 2)
