"""Covariates beside the slides: a linear term of them is added to the logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from pathpipe.errors import SettingsError, StoreError
from pathpipe.mil.bag import Bags
from pathpipe.mil.covariates import Covariate
from pathpipe.mil.model import MILModule, MILOutput
from pathpipe.mil.wrapper import Wrapper
from pathpipe.settings import Settings


class CovariatesOptions(Settings):
    """Options of covariates; `--covariates age,sex` fills them in from the training patients."""

    columns: tuple[Covariate, ...] = Field((), description="Cohort columns and how they become numbers")


class Covariates(Wrapper):
    """logits + W covariates, for the model's own logits and for those of its branches.

    The slides explain what the covariates don't, on the scale of the logits: log-odds, log-risk, or standard deviations
    of a measured target. W begins at 0, so a number that no training patient has (a value that is never missing) adds
    nothing. It stays in the deployed model, which therefore needs the covariates of new patients. Logits of single
    instances are left as they are.
    """

    summary = "Adds a linear term of cohort columns to the logits (`--covariates age,sex`)"
    Options: ClassVar[type[Settings]] = CovariatesOptions
    options: CovariatesOptions

    def __init__(self, base: MILModule, options: CovariatesOptions) -> None:
        super().__init__(base, options)
        if not options.columns:
            raise SettingsError(
                "wrapper `covariates` has no columns", hint="don't give it by hand: `--covariates age,sex` adds it"
            )
        self.term = nn.Linear(sum(one.width for one in options.columns), self.dim_out, bias=False)
        nn.init.zeros_(self.term.weight)

    def forward(self, bags: Bags) -> MILOutput:
        """The model's output with the term added.

        Raises:
            StoreError: The bags have no covariates, or others.
        """
        output = super().forward(bags)
        given = None if bags.covariates is None else bags.covariates.shape[1]
        if bags.covariates is None or given != self.term.in_features:
            names = ", ".join(one.column for one in self.options.columns)
            raise StoreError(
                f"the model takes {self.term.in_features} covariates ({names}), the bags have {given or 0}"
            )
        term = self.term(bags.covariates)
        auxiliary = {
            name: replace(further, logits=further.logits + term[further.bag])
            for name, further in output.auxiliary.items()
        }
        return replace(output, logits=output.logits + term, auxiliary=auxiliary)

    def deployed(self) -> MILModule:
        """Itself: covariates are part of the prediction."""
        return self.kept()


def covariates_of(wrappers: Mapping[str, Mapping[str, Any]]) -> tuple[Covariate, ...]:
    """The covariates that a model built with these wrappers takes."""
    given = wrappers.get("covariates")
    return () if given is None else CovariatesOptions.model_validate(given).columns
