"""The models and wrappers by name, of pathpipe or a user's package (groups `pathpipe.models`, `pathpipe.wrappers`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pathpipe.errors import SettingsError
from pathpipe.mil.model import MILModule
from pathpipe.mil.wrapper import Wrapper
from pathpipe.registry import Registry
from pathpipe.settings import merge

M = TypeVar("M", bound=MILModule)

MODELS = Registry(
    "model",
    {
        "mean": "pathpipe.mil.models.mean_max:Mean",
        "max": "pathpipe.mil.models.mean_max:Max",
        "abmil": "pathpipe.mil.models.abmil:Abmil",
        "gated-abmil": "pathpipe.mil.models.abmil:GatedAbmil",
        "clam-sb": "pathpipe.mil.models.clam:Clam",
        "clam-mb": "pathpipe.mil.models.clam:ClamMb",
        "dsmil": "pathpipe.mil.models.dsmil:Dsmil",
        "dtfd": "pathpipe.mil.models.dtfd:Dtfd",
        "acmil": "pathpipe.mil.models.acmil:Acmil",
        "ilra": "pathpipe.mil.models.ilra:Ilra",
        "transmil": "pathpipe.mil.models.transmil:Transmil",
        "rrt": "pathpipe.mil.models.rrt:Rrt",
        "wikg": "pathpipe.mil.models.wikg:Wikg",
        "s4mil": "pathpipe.mil.models.s4:S4Mil",
        "vit": "pathpipe.mil.models.vit:Vit",
        "mambamil": "pathpipe.mil.models.mambamil:MambaMIL",
        "ins": "pathpipe.mil.models.ins:Ins",
        "gnn-vitcap": "pathpipe.mil.models.gnn_vitcap:GnnVitCap",
        "2dmamba": "pathpipe.mil.models.mamba2d:Mamba2D",
    },
)
WRAPPERS = Registry(
    "wrapper",
    {
        "aem": "pathpipe.mil.wrappers.aem:Aem",
        "mhim": "pathpipe.mil.wrappers.mhim:Mhim",
        "pack": "pathpipe.mil.wrappers.pack:Pack",
        "pool-slides": "pathpipe.mil.wrappers.pool_slides:PoolSlides",
        "covariates": "pathpipe.mil.wrappers.covariates:Covariates",
    },
)


@dataclass(frozen=True)
class Recipe:
    """How a model is built: all that a checkpoint must know beside the weights.

    Attributes:
        model: Registered name.
        options: Of the model.
        wrappers: Name -> options, from the innermost outwards.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def model_class(name: str) -> type[MILModule]:
    """The class behind a name.

    Raises:
        SettingsError: There is no such model, or it is not a `MILModule`.
    """
    return _class_of(MODELS, name, MILModule)


def wrapper_class(name: str) -> type[Wrapper]:
    """The class behind a wrapper's name.

    Raises:
        SettingsError: There is no such wrapper, or it is not a `Wrapper`.
    """
    return _class_of(WRAPPERS, name, Wrapper)


def build_model(recipe: Recipe, dim_in: int, dim_out: int) -> MILModule:
    """A freshly initialised model; its weights come from torch's global generator.

    Raises:
        SettingsError: Unknown model or wrapper, unknown option (with the nearest name) or a value out of bounds.
    """
    kind = model_class(recipe.model)
    settings, _ = merge(kind.Options, [(f"option of model `{recipe.model}`", recipe.options)])
    model = kind(dim_in, dim_out, settings)
    model.name = recipe.model
    for name, options in recipe.wrappers.items():
        outer = wrapper_class(name)
        settings, _ = merge(outer.Options, [(f"option of wrapper `{name}`", _spelt_out(outer, name, options))])
        model = outer(model, settings)
        model.name = name
    return model


def recipe_of(model: MILModule) -> Recipe:
    """The recipe a model was built by, all options written out."""
    wrappers: list[tuple[str, dict[str, Any]]] = []
    while isinstance(model, Wrapper):
        wrappers.append((model.name, model.options.model_dump(mode="json")))
        model = model.base
    return Recipe(model.name, model.options.model_dump(mode="json"), dict(reversed(wrappers)))


def _spelt_out(wrapper: type[Wrapper], name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the bare value of `--with NAME=VALUE` under its own name."""
    if "value" not in options:
        return dict(options)
    if wrapper.main_option is None:
        hint = f"name the option: --with {name}.OPTION=VALUE"
        raise SettingsError(f"wrapper `{name}` takes no single value", hint=hint)
    rest = {key: value for key, value in options.items() if key != "value"}
    return {wrapper.main_option: options["value"], **rest}


def _class_of(registry: Registry, name: str, base: type[M]) -> type[M]:
    found = registry[name]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise SettingsError(
            f"{registry.kind} `{name}` of {registry.source(name)} is not a {base.__name__}",
            hint=f"derive it from {base.__module__}.{base.__name__}",
        )
    return found
