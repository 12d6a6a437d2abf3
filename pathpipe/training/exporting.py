"""Exporting: a deployable module as an ONNX or TorchScript file, compared with the module before it gets its name."""

from __future__ import annotations

import io
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pathpipe.errors import MissingError, SettingsError
from pathpipe.training.deployable import Deployable

Format = Literal["onnx", "torchscript"]
Runs = Callable[..., tuple[Tensor, ...]]
TOLERANCE = 1e-4
OPSET = 20
_TRACED = (37, 91)  # tiles of the bags that a graph is recorded with
# What torch raises when arithmetic depends on a length that isn't known yet; its own errors are RuntimeErrors.
_UNTRACEABLE = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


def exported(module: Deployable, form: Format, moments: tuple[Tensor, Tensor]) -> tuple[bytes, float]:
    """The module as the content of a file, once the two agree at several numbers of tiles.

    Args:
        moments: (D,) mean and standard deviation of the features that both are compared on.

    Returns:
        The content, and how far it is from the module, as `largest_difference` counts it.

    Raises:
        SettingsError: The model can't be exported: it doesn't give the same numbers outside Python at every length.
        MissingError: The packages of ONNX aren't installed.
    """
    write, load = _FORMATS[form]
    examples = [module.example(tiles, moments) for tiles in _TRACED]
    try:
        with torch.no_grad(), _quietly():
            content = write(module, examples)
    except _UNTRACEABLE as error:
        raise _refusal(form, _first_line(error)) from error
    return content, _compared(module, load(content), form, moments)


def load_exported(path: Path) -> Runs:
    """What an exported file computes: a function of its inputs in order, on the host.

    Raises:
        SettingsError: Its name doesn't end as that of an exported file.
        MissingError: onnxruntime isn't installed.
    """
    form = next((form for form, suffix in _SUFFIXES.items() if path.name.endswith(suffix)), None)
    if form is None:
        endings = " or ".join(_SUFFIXES.values())
        raise SettingsError("is no exported model", where=str(path), hint=f"`pathpipe export` writes {endings}")
    return _FORMATS[form][1](path.read_bytes())


def file_name(form: Format) -> str:
    """Name of the file in the folder of an export."""
    return f"model{_SUFFIXES[form]}"


def largest_difference(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> float:
    """Largest absolute difference of any two values; relative to the largest of its output where that is above 1,
    and of attention, whose values shrink with the number of tiles, always.

    Infinite where shapes differ or a value isn't finite.
    """
    worst = 0.0
    for number, (first, second) in enumerate(zip(one, other, strict=True)):
        if first.shape != second.shape or not bool(torch.isfinite(second).all()):
            return float("inf")
        size = first.abs().max().item()
        scale = size if number == 2 else max(1.0, size)
        worst = max(worst, (first - second).abs().max().item() / (scale or 1.0))
    return worst


def _compared(module: Deployable, runs: Runs, form: Format, moments: tuple[Tensor, Tensor]) -> float:
    worst = 0.0
    for tiles in module.sizes():
        given = module.example(tiles, moments, seed=tiles)
        with torch.no_grad(), _quietly():
            expected = module(*given)
            try:
                found = runs(*given)
            except _failures() as error:
                raise _refusal(form, f"with {tiles} tiles: {_first_line(error)}") from error
        difference = largest_difference(expected, found)
        if not difference <= TOLERANCE:
            raise _refusal(form, f"with {tiles} tiles its file would differ by {difference:.1g}")
        worst = max(worst, difference)
    return worst


def _refusal(form: Format, reason: str) -> SettingsError:
    return SettingsError(
        "this model can't be exported: its arithmetic follows the number of tiles step by step in Python, which a "
        f"file can't hold ({reason})",
        where=f"--{form}",
        hint="use `pathpipe predict`, or train a model that can: docs/predict.md lists them",
    )


def _write_torchscript(module: Deployable, examples: list[tuple[Tensor, ...]]) -> bytes:
    traced, other = (torch.jit.trace(module, example, check_trace=False) for example in examples)
    # A length that was taken for a constant may do no harm with these weights and these bags, and some with others.
    if _steps(traced) != _steps(other):
        raise ValueError("its steps change with the number of tiles")
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    clean = io.BytesIO()
    with zipfile.ZipFile(buffer) as made, zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as kept:
        for member in made.infolist():
            if not member.filename.endswith(".debug_pkl"):  # paths of this machine's source files
                kept.writestr(zipfile.ZipInfo(member.filename), made.read(member))
    return clean.getvalue()


def _steps(traced: Any) -> str:
    """The recorded operations with their constants, without the shapes that were seen."""
    named = re.sub(r"___torch_mangle_\d+\.", "", str(traced.inlined_graph))  # numbers of classes in this process
    return re.sub(r"\b[A-Z][A-Za-z]+\([^()]*\)", "Tensor", named)


def _load_torchscript(content: bytes) -> Runs:
    with _quietly():
        return torch.jit.load(io.BytesIO(content), map_location="cpu").eval()


def _write_onnx(module: Deployable, examples: list[tuple[Tensor, ...]]) -> bytes:
    _refuse_missing()
    tiles = torch.export.Dim("tiles")
    further = tuple({0: tiles} if name != "covariates" else None for name in module.inputs[1:])
    shapes: list[Any] = [{0: tiles}, *([further] if further else [])]  # as `forward` takes them
    program = torch.export.export(module, examples[0], dynamic_shapes=tuple(shapes), strict=False)
    made = torch.onnx.export(
        program,
        (),
        dynamo=True,
        opset_version=OPSET,
        input_names=module.inputs,
        output_names=module.outputs,
        external_data=False,
        verbose=False,
    )
    assert made is not None
    proto = made.model_proto
    for graph in (proto.graph, *proto.functions):
        for node in graph.node:  # torch notes where in its sources, and on which paths, each came from
            del node.metadata_props[:]
            node.doc_string = ""
        del graph.metadata_props[:]
    return bytes(proto.SerializeToString(deterministic=True))


def _load_onnx(content: bytes) -> Runs:
    _refuse_missing()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is raised
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        found = session.run(None, {name: part.numpy() for name, part in zip(names, given, strict=True)})
        return tuple(torch.from_numpy(part) for part in found)

    return run


def _refuse_missing() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingError(
            f"ONNX needs a package that isn't installed: {error.name}",
            where="--onnx",
            hint='pip install "pathpipe[onnx]"',
        ) from None


def _failures() -> tuple[type[BaseException], ...]:
    """What running a wrong graph raises."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        return _UNTRACEABLE
    return (*_UNTRACEABLE, state.Fail, state.InvalidArgument, state.RuntimeException, state.NotImplemented)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's remarks about its exporters: what a file computes is compared, whatever they say of it."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


_SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".torchscript.pt"}
_FORMATS: dict[Format, tuple[Callable[[Deployable, list[tuple[Tensor, ...]]], bytes], Callable[[bytes], Runs]]] = {
    "onnx": (_write_onnx, _load_onnx),
    "torchscript": (_write_torchscript, _load_torchscript),
}
