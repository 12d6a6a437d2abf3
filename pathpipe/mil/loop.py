"""Bag by bag: one output of a batch from those of its bags, for models whose arithmetic depends on a bag's length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pathpipe.mil.bag import Bags
from pathpipe.mil.model import Auxiliary, MILOutput

_PER_INSTANCE = ("attention", "attention_raw", "instance_logits", "scores")


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
