"""Building: a record becomes a network with weights at random, and its tokens one vector a tile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch

from pathpipe.encoders.encoder import EncoderRecord, Pooling
from pathpipe.errors import MissingError, SettingsError

NORM_EPS = "norm_eps"  # epsilon of every LayerNorm, where it isn't timm's


def build_network(record: EncoderRecord) -> torch.nn.Module:
    """The bare network of a record, weights at random; the caller's random state is left alone.

    Raises:
        SettingsError: Its arguments don't suit the architecture.
        MissingError: The module of `build` can't be imported.
    """
    import timm  # takes seconds: training and evaluation, which need no network, do without
    from timm.layers import SwiGLUPacked

    # YAML can't hold classes: these words stand for them in `arguments`.
    classes: dict[str, Any] = {"SwiGLUPacked": SwiGLUPacked, "SiLU": torch.nn.SiLU}
    arguments = {
        name: classes.get(value, value) if isinstance(value, str) else value for name, value in record.arguments.items()
    }
    if NORM_EPS in arguments:
        arguments["norm_layer"] = partial(torch.nn.LayerNorm, eps=float(arguments.pop(NORM_EPS)))
    with torch.random.fork_rng(devices=[]):
        try:
            if record.build is not None:
                return _builder(record)(**arguments)
            network: torch.nn.Module = timm.create_model(
                record.architecture, pretrained=False, **{"num_classes": 0, **arguments}
            )
        except (TypeError, RuntimeError) as error:
            raise SettingsError(f"can't be built: {error}", where=f"encoder `{record.name}`") from None
    return network


def _builder(record: EncoderRecord) -> Callable[..., torch.nn.Module]:
    module, _, name = str(record.build).partition(":")
    try:
        builder: Callable[..., torch.nn.Module] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise MissingError(f"the network can't be imported: {error}", where=f"encoder `{record.name}`") from None
    return builder


class Pooled(torch.nn.Module):
    """A network and how its output becomes one vector.

    Raises:
        SettingsError: The network has no tokens to pool.
    """

    def __init__(self, network: torch.nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.network = network
        self.pooling = pooling
        if pooling != "network" and not hasattr(network, "num_prefix_tokens"):
            raise SettingsError(f"{type(network).__name__} has no tokens: pooling must be `network`, not `{pooling}`")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, D)."""
        if self.pooling == "network":
            return self.network(images)
        network: Any = self.network
        tokens = network.forward_features(images)  # (N, prefix + patches, C), normalised
        first, patches = tokens[:, 0], tokens[:, network.num_prefix_tokens :]
        if self.pooling == "cls":
            return first
        if self.pooling == "tokens":
            return patches.flatten(1)
        mean = patches.mean(dim=1)
        return mean if self.pooling == "mean" else torch.cat([first, mean], dim=-1)
