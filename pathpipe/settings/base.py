"""Settings: frozen records that refuse unknown keys, layered as default < YAML < option, each value's origin kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pathpipe.errors import SettingsError
from pathpipe.registry import suggest

S = TypeVar("S", bound="Settings")
Origin = str | Callable[[str], str]  # where values come from: one name, or a name for each dotted key
Layer = tuple[Origin, Mapping[str, Any]]  # (where the values come from, nested values)


class Settings(BaseModel):
    """Base of every settings record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def superseded(cls, below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, str]:
        """Keys of weaker layers that a stronger layer takes away by saying the same thing with another key.

        Args:
            below: Values of the weaker layers.
            above: Values of the stronger one.

        Returns:
            Key that goes -> key it gives way to.
        """
        return {}


def merge(model: type[S], layers: Sequence[Layer]) -> tuple[S, dict[str, str]]:
    """Validate layered values; later layers win key by key.

    Args:
        model: The settings record to build.
        layers: (origin, values) pairs, weakest first.

    Returns:
        The record, and dotted key -> origin for every key some layer gave.

    Raises:
        SettingsError: An unknown key or a value out of bounds, with its key and origin.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        _give_way(model, values, layer, origin, origins)
        _overlay(values, layer, origin, "", origins)
    try:
        return model.model_validate(values), origins
    except ValidationError as error:
        only = layers[0][0] if len(layers) == 1 else None
        raise _explain(model, error, origins, only if isinstance(only, str) else None) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping.

    Raises:
        SettingsError: The file is missing, not YAML, or not a mapping.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError("there is no such settings file", where=str(path)) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"can't be read as YAML: {error}", where=str(path)) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError("must hold sections such as `tile:` and `train:`", where=str(path))
    return value


def to_yaml(settings: Settings, origins: Mapping[str, str] | None = None, leave_out: Iterable[str] = ()) -> str:
    """YAML of a whole record; with `origins`, each line says where its value comes from.

    Args:
        leave_out: Sections (`execution`) and single keys (`extract.weights`).
    """
    values = settings.model_dump(mode="json")
    for name in leave_out:
        section, _, key = name.partition(".")
        (values[section] if key else values).pop(key or section)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if origins is None:
        return text
    lines = []
    section = ""
    for line in text.splitlines():
        key = line.strip().partition(":")[0]
        if not line.startswith(" "):
            section = key
        dotted = key if section == key else f"{section}.{key}"
        is_value = not line.rstrip().endswith(":") and not line.strip().startswith("-")
        lines.append(f"{line:<40} # {origins.get(dotted, 'default')}" if is_value else line)
    return "\n".join(lines) + "\n"


def absolute(folder: str | None) -> str | None:
    """A run remembers where a folder lies, whichever folder it is gone on with from."""
    return str(Path(folder).expanduser().absolute()) if folder else None


def _give_way(
    model: type[BaseModel],
    values: dict[str, Any],
    layer: Mapping[str, Any],
    origin: Origin,
    origins: dict[str, str],
) -> None:
    for section, above in layer.items():
        field = model.model_fields.get(section)
        kind = field.annotation if field else None
        below = values.get(section, {})
        if not (isinstance(kind, type) and issubclass(kind, Settings)):
            continue
        if isinstance(above, Mapping) and isinstance(below, dict):
            for key, by in kind.superseded(below, above).items():
                below.pop(key, None)
                origins[f"{section}.{key}"] = _name(origin, f"{section}.{by}")


def _name(origin: Origin, dotted: str) -> str:
    return origin if isinstance(origin, str) else origin(dotted)


def _overlay(
    into: dict[str, Any], layer: Mapping[str, Any], origin: Origin, prefix: str, origins: dict[str, str]
) -> None:
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and isinstance(into.get(key, {}), dict):
            _overlay(into.setdefault(key, {}), value, origin, f"{dotted}.", origins)
        else:
            into[key] = value
            origins[dotted] = _name(origin, dotted)


def _explain(
    model: type[BaseModel], error: ValidationError, origins: Mapping[str, str], only: str | None
) -> SettingsError:
    """The first of the errors; `only` is the origin of all values, where there is but one."""
    first = error.errors()[0]
    dotted = ".".join(str(part) for part in first["loc"])
    origin = origins.get(dotted, only)
    where = f"{dotted} ({origin})" if origin and dotted else origin or dotted
    if first["type"] == "extra_forbidden":
        return SettingsError("there is no such setting", where=where, hint=_nearest(model, first["loc"]))
    message = "is required" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], Mapping):  # the rule concerns several keys and names them itself
        return SettingsError(message, where=where)
    return SettingsError(f"{message}; got {first['input']!r}", where=where)


def _nearest(model: type[BaseModel], location: Sequence[str | int]) -> str:
    at: Any = model
    for part in location[:-1]:
        field = at.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        at = field.annotation
    return suggest(str(location[-1]), list(at.model_fields))
