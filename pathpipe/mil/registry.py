"""The models by name, built in or from a user's package (entry-point group `pathpipe.models`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pathpipe.errors import SettingsError
from pathpipe.mil.model import MILModule
from pathpipe.registry import Registry
from pathpipe.settings import merge

MODELS = Registry(
    "model",
    {
        "mean": "pathpipe.mil.models.mean_max:Mean",
        "max": "pathpipe.mil.models.mean_max:Max",
        "abmil": "pathpipe.mil.models.abmil:Abmil",
        "gated-abmil": "pathpipe.mil.models.abmil:GatedAbmil",
    },
)


def model_class(name: str) -> type[MILModule]:
    """The class behind a name.

    Raises:
        SettingsError: There is no such model, or it is not a `MILModule`.
    """
    model = MODELS[name]
    if not (isinstance(model, type) and issubclass(model, MILModule)):
        raise SettingsError(
            f"model `{name}` of {MODELS.source(name)} is not a MILModule",
            hint="derive it from pathpipe.mil.model.MILModule",
        )
    return model


def build_model(name: str, dim_in: int, dim_out: int, options: Mapping[str, Any]) -> MILModule:
    """A freshly initialised model; its weights come from torch's global generator.

    Raises:
        SettingsError: Unknown model, unknown option (with the nearest name) or a value out of bounds.
    """
    model = model_class(name)
    settings, _ = merge(model.Options, [(f"option of model `{name}`", options)])
    return model(dim_in, dim_out, settings)
