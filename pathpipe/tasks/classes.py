"""Classes: names in an order, targets as their places in it, weights that balance them, losses over known rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pathpipe.errors import CohortError
from pathpipe.registry import suggest
from pathpipe.tasks.labels import Label, as_numbers
from pathpipe.tasks.task import Table

UNKNOWN = -1


def checked_classes(classes: tuple[str, ...], column: str) -> None:
    """Refuse too few classes.

    Raises:
        CohortError: There are fewer than two, or one stands twice.
    """
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise CohortError(
            f"two or more different classes are needed, found: {', '.join(classes) or 'none'}",
            where=f"column `{column}`",
        )


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Different labels, as numbers in order if all are finite numbers, else in alphabetical order."""
    names = set(labels)
    numbers = as_numbers(names) or {}
    return tuple(sorted(names, key=lambda name: (numbers.get(name, 0.0), name)))


def encode_classes(labels: Sequence[Label], classes: tuple[str, ...], column: str) -> Tensor:
    """(P,) int64 places in `classes`, -1 where unknown.

    Raises:
        CohortError: A label that is none of the classes.
    """
    index = {"": UNKNOWN} | {name: number for number, name in enumerate(classes)}
    for (text,) in labels:
        if text not in index:
            raise CohortError(
                f"`{text}` is none of the classes", where=f"column `{column}`", hint=suggest(text, list(classes))
            )
    return torch.tensor([index[text] for (text,) in labels], dtype=torch.int64)


def class_weights(targets: Tensor, classes: int) -> Tensor:
    """(C,) float32 P / (C * P_c): their mean over the known targets is 1. A class that is absent weighs 0."""
    known = targets[targets >= 0].long()
    counts = torch.bincount(known, minlength=classes)
    balanced = len(known) / (classes * counts.clamp(min=1).double())
    return torch.where(counts > 0, balanced, 0.0).float()


def mean_of_known(losses: Tensor, known: Tensor, share: Tensor | None) -> Tensor:
    """Mean of losses of any shape over what is known, rows counting `share` times; 0 where nothing is.

    What isn't known adds nothing, not even the NaN that its loss may be, to value or gradient, provided that its loss
    was computed from a stand-in for the target.

    Args:
        losses: (R, ...).
        known: The same shape, bool.
        share: (R,).
    """
    counted = known.to(losses.dtype)
    if share is not None:
        counted = counted * share.to(losses.dtype).reshape(-1, *[1] * (losses.ndim - 1))
    total = counted.sum()
    return (torch.where(known, losses, 0.0) * counted).sum() / torch.where(total > 0, total, 1.0)


def class_table(
    target: str, kind: str, classes: tuple[str, ...], values: tuple[Tensor, Tensor], labels: Sequence[Label] | None
) -> Table:
    """A table of classes.

    Args:
        values: (P, C) probabilities and (P, C) logits.
        labels: Text of the true class, "" where unknown.
    """
    truth: dict[str, Any] = {} if labels is None else {"target": [text for (text,) in labels]}
    known = [True] * len(values[0]) if labels is None else [bool(text) for (text,) in labels]
    numbers = {
        f"{name}_{of}": part[:, at].numpy()
        for name, part in zip(("p", "logit"), values, strict=True)
        for at, of in enumerate(classes)
    }
    return Table(target, kind, truth | numbers, known)
