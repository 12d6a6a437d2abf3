"""A segmentation network as a TorchScript file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.errors import SettingsError
from pathpipe.tissue.methods.network import Floats, Forward, Network, NetworkOptions


class TorchScript(Network):
    """A segmentation network of yours, exported by `torch.jit.save`. Runs on the CPU."""

    class Options(NetworkOptions):
        """Options of `torchscript`."""

    @classmethod
    def load(cls, path: Path) -> Forward:
        """See `Network.load`. Of several outputs the one called `out`, or else the first, is taken."""
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript as a whole; exported networks are in it
            warnings.simplefilter("ignore", FutureWarning)
            try:
                network = torch.jit.load(path, map_location="cpu").eval()
            except (RuntimeError, ValueError) as error:
                first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise SettingsError(
                    f"is no TorchScript file: {first}", where=str(path), hint="save it with torch.jit.save"
                ) from None

        def forward(batch: Floats) -> npt.NDArray[Any]:
            try:
                with torch.inference_mode():
                    given = _first(network(torch.from_numpy(batch)))
            except RuntimeError as error:
                last = str(error).strip().splitlines()[-1]
                raise SettingsError(
                    f"the network refuses {'x'.join(map(str, batch.shape))}: {last}",
                    where=str(path),
                    hint="correct the option tile_px of the tissue method",
                ) from None
            if not isinstance(given, torch.Tensor):
                raise SettingsError(f"its output is a {type(given).__name__} and no tensor", where=str(path))
            return np.asarray(given.float().numpy())

        return forward


def _first(given: Any) -> Any:
    if isinstance(given, dict):
        return given.get("out", next(iter(given.values()), None))
    if isinstance(given, list | tuple) and given:
        return given[0]
    return given
