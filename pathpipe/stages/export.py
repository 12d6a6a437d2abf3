"""Export: a trained model as files that need no pathpipe, with a sidecar for programs and a card for people."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pathpipe
from pathpipe.errors import SettingsError
from pathpipe.mil.covariates import Covariate
from pathpipe.mil.wrappers.covariates import covariates_of
from pathpipe.publish import publish, publish_json, publish_text
from pathpipe.report.model_card import CardFacts, model_card
from pathpipe.stages.card_facts import (
    Origin,
    cohort_facts,
    licence_facts,
    origin_of,
    performance_facts,
    settings_facts,
)
from pathpipe.stages.predict import load_ensemble, model_files
from pathpipe.tasks.task import Task
from pathpipe.training.checkpoint import Checkpoint
from pathpipe.training.deployable import Deployable
from pathpipe.training.exporting import OPSET, Format, exported, file_name

SIDECAR, CARD = "model.json", "model_card.md"
FORMAT, VERSION = "pathpipe-export", 1


@dataclass(frozen=True)
class _Written:
    name: str
    form: Format
    sha256: str
    difference: float


def export_model(path: Path, forms: Sequence[Format], folder: Path, ensemble: bool = False) -> list[Path]:
    """Write the model's files, `model.json` and `model_card.md`; nothing unless every file could be made.

    Another form that an earlier export left there goes: `model.json` would no longer be about it.

    Args:
        path: As for `load_ensemble`.
        ensemble: Put all models of the path into one file, which averages them.

    Returns:
        The files.

    Raises:
        SettingsError: Several models and no `ensemble`, or the model can't be exported.
        StoreError: There is no model.
        MissingError: The packages of ONNX aren't installed.
    """
    files, checkpoints = model_files(path), load_ensemble(path).checkpoints
    if len(files) > 1 and not ensemble:
        raise SettingsError(
            f"holds {len(files)} models", where=str(path), hint="give one fold's folder, or --ensemble for their mean"
        )
    module, moments = Deployable(checkpoints), (checkpoints[0].feature_mean, checkpoints[0].feature_std)
    made = {form: exported(module, form, moments) for form in forms}
    written = []
    for form, (content, difference) in made.items():
        with publish(folder / file_name(form)) as partial:
            partial.write_bytes(content)
        written.append(_Written(file_name(form), form, hashlib.sha256(content).hexdigest(), difference))
    if (folder / SIDECAR).exists():
        for form in set(get_args(Format)) - set(forms):
            (folder / file_name(form)).unlink(missing_ok=True)
    sidecar = _sidecar(module, checkpoints, files, written)
    publish_json(folder / SIDECAR, sidecar)
    publish_text(folder / CARD, model_card(_facts(sidecar, checkpoints, origin_of(files[0]))))
    return [folder / one.name for one in written] + [folder / SIDECAR, folder / CARD]


def _sidecar(
    module: Deployable, checkpoints: Sequence[Checkpoint], files: Sequence[Path], written: Sequence[_Written]
) -> dict[str, Any]:
    first = checkpoints[0]
    attention = "weight of each tile, mean over the models; each of the K columns sums to 1"
    inputs: dict[str, tuple[list[Any], str, str]] = {
        "features": (["tiles", module.dim], "float32", "features of the tiles of one bag"),
        "xy0": (["tiles", 2], "int64", "upper left corners of the tiles, level-0 px"),
        "covariates": ([1, module.covariates], "float32", "covariates as `covariates` says"),
    }
    outputs: dict[str, tuple[list[Any], str, str]] = {
        "logits": ([len(checkpoints), first.load_task().outputs], "float32", "a row a model, in the order of `models`"),
        "answers": ([1, len(module.columns)], "float32", "`columns`, mean over the models"),
        "attention": (["tiles", "K"], "float32", attention),
    }
    pooled = "pool-slides" in first.wrappers
    models = [
        {"fold": one.fold, "seed": one.seed, "best_epoch": one.best_epoch, "sha256": _sha256(file), "task": one.task}
        for one, file in zip(checkpoints, files, strict=True)
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "files": {
            one.name: {"format": one.form, "sha256": one.sha256, "largest_difference": float(f"{one.difference:.1e}")}
            | ({"opset": OPSET} if one.form == "onnx" else {})
            for one in written
        },
        "inputs": {name: _described(*inputs[name]) for name in module.inputs},
        "outputs": {name: _described(*outputs[name]) for name in module.outputs},
        "columns": list(module.columns),
        "bag": _BAG[pooled],
        "task": first.load_task().question(),
        "model": {"name": first.model, "options": dict(first.options), "wrappers": dict(first.wrappers)},
        "models": models,
        "covariates": [_covariate(one) for one in covariates_of(first.wrappers)],
        "encoder": dict(first.encoder),
        "tile": {name: first.preprocessing.get("tile", {}).get(name) for name in ("tile_px", "mpp", "tile_um")},
        "preprocessing": dict(first.preprocessing),
        "pathpipe_version": pathpipe.__version__,
    }


_BAG = {
    False: "the tiles of all slides of one patient, slide after slide in order of slide id",
    True: "the tiles of one slide; a patient's logits are the mean over the slides",
}


def _covariate(one: Covariate) -> dict[str, Any]:
    """The numbers of the input `covariates` that a column of the cohort becomes."""
    if one.kind == "number":
        return {"column": one.column, "numbers": ["the number, anything where unknown", "1 where unknown, else 0"]}
    return {"column": one.column, "numbers": [f"1 for `{name}`, else 0" for name in one.categories]}


def _described(shape: list[Any], kind: str, meaning: str) -> dict[str, Any]:
    return {"shape": shape, "dtype": kind, "meaning": meaning}


def _facts(sidecar: dict[str, Any], checkpoints: Sequence[Checkpoint], origin: Origin) -> CardFacts:
    first, task = checkpoints[0], checkpoints[0].load_task()
    count = len(checkpoints)
    encoder, tile = first.encoder, sidecar["tile"]
    size = f"{tile['tile_px']} px at {tile['mpp']} um/px" if tile["mpp"] else "as stated in model.json"
    parameters = sum(value.numel() for value in first.state.values())
    rows = [
        ("model", f"`{first.model}`" + "".join(f" with `{name}`" for name in first.wrappers)),
        ("target", f"`{task.target}` ({task.kind})"),
        ("says", ", ".join(f"`{name}`" for name in sidecar["columns"])),
        ("models", _models(checkpoints)),
        ("numbers in a model", f"{parameters:,}"),
        ("encoder", f"`{encoder.get('name')}`, {encoder.get('dim')} features a tile"),
        ("tiles", size),
        ("pathpipe", first.pathpipe_version),
    ]
    made = [(f"`model.pt` of fold {one['fold']}, seed {one['seed']}", one["sha256"]) for one in sidecar["models"]]
    weights = [(f"weights of {one.get('name')}", one.get("weights_sha256") or "not known") for one in _parts(encoder)]
    trained = [("training (fingerprint)", origin.made.fingerprint)] if origin.made else []
    whole = "A model" if count == 1 else f"The mean of {count} models"
    return CardFacts(
        name=origin.name,
        summary=f"{whole} that predicts {_asked(task)} of a patient from features of the tiles of slides.",
        model=rows,
        settings=settings_facts(first, origin),
        inputs=_rows(sidecar["inputs"]),
        outputs=_rows(sidecar["outputs"]),
        files=[(f"`{name}`", one["sha256"], one["largest_difference"]) for name, one in sidecar["files"].items()],
        made_from=[*made, *weights, *trained],
        licences=licence_facts(first),
        cohort=cohort_facts(origin),
        performance=performance_facts(origin),
        example=_example(sidecar),
        ensemble=count,
        further=(f"A bag is {sidecar['bag']}.", f"Columns of `answers`: {', '.join(sidecar['columns'])}."),
    )


def _asked(task: Task) -> str:
    return ", ".join(f"`{name}`" for name in task.columns)


def _models(checkpoints: Sequence[Checkpoint]) -> str:
    return ", ".join(f"fold {one.fold} seed {one.seed} (epoch {one.best_epoch})" for one in checkpoints)


def _parts(encoder: Any) -> list[Any]:
    return list(encoder.get("parts") or [encoder])


def _rows(described: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (f"`{name}`", f"({', '.join(map(str, one['shape']))})", one["dtype"], one["meaning"])
        for name, one in described.items()
    ]


def _example(sidecar: dict[str, Any]) -> str:
    """Python that runs the first file on stored features."""
    given = [*sidecar["inputs"]]
    reads = ['features = file["features"][:].astype("float32")']
    reads += ['xy0 = file["coords"][:]'] if "xy0" in given else []
    lines = [
        "",
        'with h5py.File("RUN/features/ENCODER/SLIDE.h5") as file:',
        *(f"    {x}" for x in reads),
    ]
    if "covariates" in given:
        shape = tuple(sidecar["inputs"]["covariates"]["shape"])
        lines += [f"covariates = ...  # {shape} float32, see `covariates` in model.json"]
    name = next(iter(sidecar["files"]))
    if sidecar["files"][name]["format"] == "onnx":
        fed = ", ".join(f'"{one}": {one}' for one in given)
        run = ["import onnxruntime", "", f'session = onnxruntime.InferenceSession("{name}")']
        run += [f"{', '.join(sidecar['outputs'])} = session.run(None, {{{fed}}})"]
    else:
        fed = ", ".join(f"torch.from_numpy({one})" for one in given)
        run = ["import torch", "", f'model = torch.jit.load("{name}")']
        run += [f"{', '.join(sidecar['outputs'])} = model({fed})"]
    return "\n".join(["import h5py", run[0], *lines, "", *run[2:]])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
