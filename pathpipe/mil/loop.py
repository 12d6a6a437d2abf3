"""Models that answer one bag at a time: those whose arithmetic depends on a bag's own length or grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pathpipe.mil.bag import Bags
from pathpipe.mil.model import Auxiliary, MILModule, MILOutput

_PER_INSTANCE = ("attention", "attention_raw", "instance_logits", "scores")


class LoopModule(MILModule):
    """Base of models that define `one` bag; a batch is a loop over it, whatever its layout."""

    def one(self, bag: Bags) -> MILOutput:
        """Logits (1, C) of one bag, packed: `bag.features` is (N, D)."""
        raise NotImplementedError

    def forward(self, bags: Bags) -> MILOutput:
        """Logits of a batch, bag by bag."""
        return join_outputs([self.one(bag) for bag in bags.single()], bags)


def join_outputs(outputs: Sequence[MILOutput], bags: Bags) -> MILOutput:
    """One output of a batch from those of its bags, in the batch's layout; losses are averaged over bags."""
    first = outputs[0]
    values: dict[str, Tensor | None] = {}
    for name in _PER_INSTANCE:
        parts = [getattr(output, name) for output in outputs]
        values[name] = None if parts[0] is None else bags.join(parts)
    embeddings = [output.embedding for output in outputs if output.embedding is not None]
    return replace(
        first,
        attention=values["attention"],
        attention_raw=values["attention_raw"],
        instance_logits=values["instance_logits"],
        scores=values["scores"],
        logits=torch.cat([output.logits for output in outputs]),
        embedding=torch.cat(embeddings) if embeddings else None,
        losses={name: torch.stack([output.losses[name] for output in outputs]).mean() for name in first.losses},
        auxiliary={name: _joined([output.auxiliary[name] for output in outputs]) for name in first.auxiliary},
    )


def _joined(parts: Sequence[Auxiliary]) -> Auxiliary:
    """Rows of all bags, each pointing at its own."""
    shares = [part.share for part in parts if part.share is not None]
    return replace(
        parts[0],
        logits=torch.cat([part.logits for part in parts]),
        bag=torch.cat([part.bag + number for number, part in enumerate(parts)]),
        share=torch.cat(shares) if shares else None,
    )
