"""A segmentation network as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.errors import MissingError, SettingsError
from pathpipe.tissue.methods.network import Floats, Forward, Network, NetworkOptions


class Onnx(Network):
    """A segmentation network of yours as an ONNX file. Runs on the CPU; needs the extra `onnx`."""

    class Options(NetworkOptions):
        """Options of `onnx`."""

    @classmethod
    def load(cls, path: Path) -> Forward:
        """See `Network.load`. Of several outputs the first is taken."""
        try:
            import onnxruntime
            from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf
        except ImportError:
            raise MissingError(
                "onnxruntime isn't installed", where="tissue method `onnx`", hint='pip install "pathpipe[onnx]"'
            ) from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong is raised
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf) as error:
            raise SettingsError(f"is no ONNX file: {str(error).splitlines()[0]}", where=str(path)) from None
        wanted = session.get_inputs()[0]
        several = not (wanted.shape and isinstance(wanted.shape[0], int))  # a fixed first axis is a batch of one

        def forward(batch: Floats) -> npt.NDArray[Any]:
            parts = [batch] if several else np.split(batch, len(batch))
            try:
                return np.concatenate([np.asarray(session.run(None, {wanted.name: part})[0]) for part in parts])
            except (Fail, InvalidArgument) as error:
                raise SettingsError(
                    f"the network refuses {'x'.join(map(str, batch.shape))}: {str(error).splitlines()[0]}",
                    where=str(path),
                    hint="correct the option tile_px of the tissue method",
                ) from None

        return forward
