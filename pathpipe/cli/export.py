"""`pathpipe export`: a trained model as one file for ONNX Runtime or TorchScript, with a sidecar and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathpipe.training.exporting import Format


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("export")(export)


def export(
    model: Annotated[Path, typer.Argument(help="One fold of RUN/train/NAME, a model.pt, or RUN/train/NAME itself")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the files")] = Path("exported"),
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx (needs the extra `onnx`)")] = False,
    torchscript: Annotated[bool, typer.Option("--torchscript", help="Write model.torchscript.pt")] = False,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="All models of RUN/train/NAME in one file, which averages them")
    ] = False,
) -> None:
    """Export a trained model: from the features of a bag's tiles to logits, answers and attention.

    The file takes any number of tiles and needs no pathpipe. It is compared with the model at 1 to 5000 tiles before
    it is written, and a model whose file would differ by more than 1e-4 is refused. Beside it lie model.json, which
    says what goes in and comes out, and model_card.md, for people.
    """
    from pathpipe.errors import SettingsError
    from pathpipe.stages.export import export_model

    wanted: dict[Format, bool] = {"onnx": onnx, "torchscript": torchscript}
    forms = [form for form, asked in wanted.items() if asked]
    if not forms:
        raise SettingsError("nothing says which file to write", hint="give --onnx, --torchscript, or both")
    for path in export_model(model, forms, out, ensemble):
        print(path)
