"""Deployable: trained models as one module from tensors to answers, which leaves Python as a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pathpipe.errors import StoreError
from pathpipe.mil.covariates import Covariate
from pathpipe.mil.one_bag import OneBag
from pathpipe.mil.wrappers.covariates import covariates_of
from pathpipe.tasks.answers import answers
from pathpipe.training.checkpoint import Checkpoint


class Deployable(nn.Module):
    """The models of one training on one bag: what each says, and the mean of what that means.

    Args:
        checkpoints: Of one task, one recipe and one encoder; of several folds or seeds all, or one alone.

    Raises:
        SettingsError: Their task is of a kind that another package brought.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        super().__init__()
        first = checkpoints[0]
        models = [checkpoint.build() for checkpoint in checkpoints]
        self.models = nn.ModuleList(models)
        self.tasks = [checkpoint.load_task() for checkpoint in checkpoints]
        self.columns = tuple(answers(self.tasks[0], torch.zeros(1, self.tasks[0].outputs)))
        self.dim = first.dim_in
        self.columns_beside = [covariates_of(checkpoint.wrappers) for checkpoint in checkpoints]
        self.covariates = sum(one.width for one in self.columns_beside[0])
        self.corners = self._asks_for_corners()
        self.attends = models[0].card.attention
        self.eval().requires_grad_(False)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments of `forward`, in order."""
        return ("features", *(("xy0",) if self.corners else ()), *(("covariates",) if self.covariates else ()))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` returns, in order."""
        return ("logits", "answers", *(("attention",) if self.attends else ()))

    def forward(self, features: Tensor, *further: Tensor) -> tuple[Tensor, ...]:
        """Logits, answers and attention of one bag.

        Args:
            features: (N, D) float32.
            further: (N, 2) int64 corners where the models need them, then (1, Q) float32 covariates: a number and 1
                where it is unknown, a 1 for a category. Numbers are as the cohort has them; each model has its own
                mean and deviation of them.

        Returns:
            Logits (F, C), a row a model; answers (1, S), mean over models, the columns of `pathpipe predict`; attention
            (N, K), mean over models, where there is any.
        """
        given = dict(zip(self.inputs, (features, *further), strict=True))
        outputs = [
            model(OneBag.of(features, given.get("xy0"), _standardised(given.get("covariates"), columns)))
            for model, columns in zip(self.models, self.columns_beside, strict=True)
        ]
        said = [
            torch.stack(list(answers(task, output.logits).values()), 1).float()
            for task, output in zip(self.tasks, outputs, strict=True)
        ]
        results = [torch.cat([output.logits for output in outputs]), torch.stack(said).mean(0)]
        if self.attends:
            results.append(torch.stack([output.attention for output in outputs]).mean(0))
        return tuple(results)

    def example(self, tiles: int, moments: tuple[Tensor, Tensor], seed: int = 0) -> tuple[Tensor, ...]:
        """Arguments of `forward` like those it was trained on: features of these moments, corners on a full grid."""
        generator = torch.Generator().manual_seed(seed)
        mean, std = moments
        parts = [mean + std * torch.randn(tiles, self.dim, generator=generator)]
        if self.corners:
            side = int(tiles**0.5) + 1
            cells = torch.arange(tiles)
            parts.append(torch.stack([cells % side, cells // side], 1) * 256)
        if self.covariates:
            drawn = torch.randint(0, 2, (1, self.covariates), generator=generator).float()
            place = 0
            for one in self.columns_beside[0]:
                if one.kind == "number":
                    drawn[0, place] = one.mean + one.std * torch.randn((), generator=generator)
                place += one.width
            parts.append(drawn)
        return tuple(parts)

    def _asks_for_corners(self) -> bool:
        """Found by trying: options decide it for some models."""
        bag = OneBag.of(torch.zeros(2, self.dim), None, torch.zeros(1, self.covariates) if self.covariates else None)
        try:
            with torch.no_grad():
                self.models[0].eval()(bag)
        except StoreError:
            return True
        return False

    def sizes(self) -> Iterator[int]:
        """Numbers of tiles that an exported file is checked at: few, odd, many."""
        yield from (1, 2, 7, 257, 5000)


def _standardised(raw: Tensor | None, columns: Sequence[Covariate]) -> Tensor | None:
    """(1, Q) covariates as `Covariate.encode` gives them to one model, from numbers as the cohort has them."""
    if raw is None:
        return None
    parts, place = [], 0
    for one in columns:
        own = raw[:, place : place + one.width]
        if one.kind == "number":
            unknown = own[:, 1:]
            own = torch.cat([torch.where(unknown > 0, 0.0, (own[:, :1] - one.mean) / one.std), unknown], 1)
        parts.append(own)
        place += one.width
    return torch.cat(parts, 1)
