"""Settings: frozen records that refuse unknown keys, layered as default < YAML < option, each value's origin kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pathpipe.errors import SettingsError
from pathpipe.registry import suggest

S = TypeVar("S", bound="Settings")
Layer = tuple[str, Mapping[str, Any]]  # (where the values come from, nested values)


class Settings(BaseModel):
    """Base of every settings record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
        _overlay(values, layer, origin, "", origins)
    try:
        return model.model_validate(values), origins
    except ValidationError as error:
        raise _explain(model, error, origins) from None


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


def to_yaml(settings: Settings, origins: Mapping[str, str] | None = None, leave_out: Sequence[str] = ()) -> str:
    """YAML of a whole record; with `origins`, each line says where its value comes from."""
    values = settings.model_dump(mode="json", exclude=set(leave_out))
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


def _overlay(into: dict[str, Any], layer: Mapping[str, Any], origin: str, prefix: str, origins: dict[str, str]) -> None:
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and isinstance(into.get(key, {}), dict):
            _overlay(into.setdefault(key, {}), value, origin, f"{dotted}.", origins)
        else:
            into[key] = value
            origins[dotted] = origin


def _explain(model: type[BaseModel], error: ValidationError, origins: Mapping[str, str]) -> SettingsError:
    first = error.errors()[0]
    dotted = ".".join(str(part) for part in first["loc"])
    origin = origins.get(dotted)
    where = f"{dotted} ({origin})" if origin else dotted
    if first["type"] == "extra_forbidden":
        return SettingsError("there is no such setting", where=where, hint=_nearest(model, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    return SettingsError(f"{message}; got {first['input']!r}", where=where)


def _nearest(model: type[BaseModel], location: Sequence[str | int]) -> str:
    at: Any = model
    for part in location[:-1]:
        field = at.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        at = field.annotation
    return suggest(str(location[-1]), list(at.model_fields))
