"""Dataclasses of numbers as JSON and back: what is undefined is null there and NaN here."""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class Record:
    """A dataclass that is kept as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; numbers that are undefined become null."""
        return to_json(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            KeyError: A key is missing.
            TypeError: A value isn't what it should be.
            ValueError: The same.
        """
        return from_json(cls, value)


def to_json(record: Any) -> dict[str, Any]:
    """JSON-able form of a dataclass of numbers, texts, lists, dicts and further dataclasses."""
    return _plain(asdict(record))


def from_json(cls: type[T], value: Any) -> T:
    """Inverse of `to_json`, as the types of the fields say. Fields that have a default may be missing.

    Raises:
        KeyError: A field is missing.
        TypeError: A value isn't of its field's type.
        ValueError: The same.
    """
    return _read(cls, value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(kind: Any, value: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _read(next(one for one in inner if one is not NoneType), value)
    if origin in (dict, list, tuple) or is_dataclass(kind):
        _refuse_other(value, dict if origin is dict or is_dataclass(kind) else list)
    if origin is dict:
        return {inner[0](key): _read(inner[1], item) for key, item in value.items()}
    if origin in (list, tuple):
        return origin(_read(inner[0], item) for item in value)
    if is_dataclass(kind):
        return _record(kind, value)
    if kind is float:
        return math.nan if value is None else float(value)
    _refuse_other(value, kind)
    return value


def _refuse_other(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"`{value}` is no {kind.__name__}")


def _record(cls: Any, value: Any) -> Any:
    hints = _hints(cls)
    return cls(
        **{
            one.name: _read(hints[one.name], value[one.name])
            for one in fields(cls)
            if one.name in value or not _has_default(one)
        }
    )


def _has_default(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)
