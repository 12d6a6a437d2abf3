"""Another pooling of an encoder's tokens: `NAME@cls`, `NAME@mean`, `NAME@cls+mean` and `NAME@tokens`."""

from __future__ import annotations

from typing import get_args

import torch

from pathpipe.encoders.build import build_network
from pathpipe.encoders.encoder import EncoderRecord, Pooling
from pathpipe.errors import SettingsError
from pathpipe.registry import suggest

POOLINGS = tuple(name for name in get_args(Pooling) if name != "network")


def pooled_otherwise(record: EncoderRecord, pooling: str) -> EncoderRecord:
    """The record of `NAME@POOLING`: the same network and weights, other vectors, and so another encoder.

    `tokens` keeps every patch token: a feature is (tokens * width,) long, row by row of the token grid, and
    `features.reshape(N, tokens, width)` gives them back.

    Raises:
        SettingsError: There is no such pooling, or the network has no tokens.
    """
    name = f"{record.name}@{pooling}"
    if pooling not in POOLINGS:
        raise SettingsError(f"`{pooling}` is no pooling", where=f"encoder `{name}`", hint=suggest(pooling, [*POOLINGS]))
    with torch.device("meta"):  # shapes only: no memory, no time
        network = build_network(record)
    if not hasattr(network, "num_prefix_tokens"):
        raise SettingsError(
            f"{type(network).__name__} has no tokens to pool", where=f"encoder `{name}`", hint=f"use `{record.name}`"
        )
    width = int(network.num_features)  # type: ignore[arg-type]
    factors = {"cls": 1, "mean": 1, "cls+mean": 2, "tokens": _patches(network, record.input_px)}
    return record.model_copy(update={"name": name, "pooling": pooling, "dim": width * factors[pooling]})


def _patches(network: torch.nn.Module, input_px: int) -> int:
    """Patch tokens of one image."""
    with torch.no_grad(), torch.device("meta"):
        tokens = network.forward_features(torch.empty(1, 3, input_px, input_px))  # type: ignore[operator]
    return int(tokens.shape[1]) - int(network.num_prefix_tokens)  # type: ignore[arg-type]
