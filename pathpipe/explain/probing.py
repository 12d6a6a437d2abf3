"""Probing: what a model says when some of a bag's tiles are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pathpipe.errors import StoreError
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.model import MILModule, MILOutput, StagedModule
from pathpipe.tasks.task import Task
from pathpipe.training.checkpoint import Checkpoint

Rows = npt.NDArray[np.int64]
_FLOATS = 1 << 25  # features in one batch, so that memory doesn't grow with the number of subsets


@dataclass(frozen=True, eq=False)
class Member:
    """One model of an ensemble, and the patient's bag as that model takes it.

    Attributes:
        name: For messages: its fold and seed.
        feature_mean: (D,) of its training features.
    """

    name: str
    model: MILModule
    task: Task
    bag: Bag
    feature_mean: Tensor

    @classmethod
    def of(cls, checkpoint: Checkpoint, bag: Bag, name: str = "") -> Member:
        """The member of a checkpoint; the bag has the features, and covariates, that it was trained on."""
        return cls(name, checkpoint.build(), checkpoint.load_task(), bag, checkpoint.feature_mean)

    def forward(self) -> MILOutput:
        """What it says of the whole bag, as in prediction: one bag, packed."""
        with torch.no_grad():
            output: MILOutput = self.model(Bags.pack([self.bag]))
        return output


class Probe:
    """A model that is asked of many subsets of one bag.

    The tiles of a staged model are embedded once: its first stage looks at each by itself.

    Args:
        rows: The tiles to begin with; all of them where None.
    """

    def __init__(self, member: Member, rows: Rows | None = None) -> None:
        bag = member.bag if rows is None else member.bag.take(rows)
        whole = Bags.pack([bag])
        model = member.model
        self._answer: Callable[[Bags], MILOutput] = model
        self._bags = whole
        # a model that overrides `forward` does more than its two stages
        if isinstance(model, StagedModule) and type(model).forward is StagedModule.forward:
            with torch.no_grad():
                self._bags = model.encode(whole)
            self._answer = model.aggregate
        self.tiles = len(bag)

    def logits(self, kept: Iterable[Rows]) -> Tensor:
        """(R, outputs) logits of R subsets, taken one by one as there is room for them.

        Args:
            kept: Rows of each subset, in the bag's order; at least one row each.

        Raises:
            StoreError: A subset is empty.
        """
        with torch.no_grad():
            return torch.cat([self._answer(_subsets(self._bags, part)).logits for part in self._batches(kept)])

    def _batches(self, kept: Iterable[Rows]) -> Iterator[list[Rows]]:
        room = max(1, _FLOATS // self._bags.features.shape[1])
        batch: list[Rows] = []
        taken = 0
        for rows in kept:
            if not len(rows):
                raise StoreError("a bag without tiles has no prediction")
            if batch and taken + len(rows) > room:
                yield batch
                batch, taken = [], 0
            batch.append(rows)
            taken += len(rows)
        if batch:
            yield batch


def _subsets(whole: Bags, kept: Sequence[Rows]) -> Bags:
    """A packed batch of subsets of one packed bag."""
    rows = torch.from_numpy(np.concatenate(kept))
    covariates = whole.covariates
    return replace(
        whole,
        features=whole.features[rows],
        offsets=torch.tensor([0, *map(len, kept)]).cumsum(0),
        xy0=None if whole.xy0 is None else whole.xy0[rows],
        slide=None if whole.slide is None else whole.slide[rows],
        covariates=None if covariates is None else covariates.expand(len(kept), -1),
    )
