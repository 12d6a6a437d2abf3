"""Settings become command-line options: one declaration gives the option, its help, its default and its check."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from keyword import iskeyword
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
import yaml
from pydantic.fields import FieldInfo

from pathpipe.errors import SettingsError
from pathpipe.settings import Layer, RunSettings

_SHORT = {"train.model_settings": "-s"}
# Where two sections have a field of one name, the bare option belongs to this one; the other's carries its section.
_OWNERS = {"mpp": "tile", "seed": "split", "precision": "extract"}
# Options called otherwise than their field.
_NAMES = {
    "train.wrappers": "with",
    "split.folds_from": "from",
    "audit.allow": "allow-leaks",
    "audit.columns": "audit-columns",
    "cluster.stages": "for-stage",
}


def with_settings(*sections: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field of `sections`, in that order.

    An option has the same name in every command: its field's, preceded by its section's only where another section
    owns the bare name (`--mpp` is the tiles', `--tissue-mpp` the mask's). The command receives the values that were
    typed as one nested mapping, `given`.

    Args:
        sections: `section`, or `section:field,field` where a command has no use for the others.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        fields = {
            _parameter(_flag(section, name)): (section, name)
            for section, names in map(_part, sections)
            for name in names
        }

        def wrapper(**values: Any) -> None:
            given: dict[str, dict[str, Any]] = {}
            for parameter, (section, name) in fields.items():
                value = values.pop(parameter)
                if value is not None:
                    given.setdefault(section, {})[name] = _parse(section, name, value)
            command(given=given, **values)

        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]
        options = [_option(parameter, *place) for parameter, place in fields.items()]
        wrapper.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *options)}
        wrapper.__doc__ = command.__doc__
        wrapper.__name__ = command.__name__
        return wrapper

    return decorate


def origins(given: Mapping[str, Mapping[str, Any]]) -> list[Layer]:
    """Typed values as one layer (no option is stronger than another), each named after the option it came from."""
    return [(_option_of, given)] if given else []


def typed_again(given: Mapping[str, Mapping[str, Any]], leave_out: Collection[str] = ()) -> list[str]:
    """The options that lead to `given`, for another command line.

    Args:
        leave_out: `section` or `section.field`.
    """
    words: list[str] = []
    for section, values in given.items():
        for name, value in values.items():
            flag = _flag(section, name)
            if section in leave_out or f"{section}.{name}" in leave_out:
                continue
            if isinstance(value, bool):
                words.append(flag if value else f"--no-{flag.removeprefix('--')}")
            else:
                words += [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return words


def _option_of(dotted: str) -> str:
    section, name, *_ = dotted.split(".")
    return _flag(section, name)


def _part(section: str) -> tuple[str, list[str]]:
    name, _, some = section.partition(":")
    return name, some.split(",") if some else list(_section(name).model_fields)


def _flag(section: str, name: str) -> str:
    if f"{section}.{name}" in _NAMES:
        return "--" + _NAMES[f"{section}.{name}"]
    bare = _OWNERS.get(name, section) == section
    return "--" + (name if bare else f"{section}_{name}").replace("_", "-")


def _parameter(flag: str) -> str:
    """Python's name of an option: `with` is one it keeps for itself."""
    name = flag.removeprefix("--").replace("-", "_")
    return f"{name}_" if iskeyword(name) else name


def _section(section: str) -> Any:
    return RunSettings.model_fields[section].annotation


def _option(parameter: str, section: str, name: str) -> inspect.Parameter:
    field: FieldInfo = _section(section).model_fields[name]
    kind = _plain_type(field.annotation)
    flag = _flag(section, name)
    flags = [f"{flag}/--no-{flag.removeprefix('--')}"] if kind is bool else [flag]
    short = _SHORT.get(f"{section}.{name}")
    metavar = _metavar(field.annotation)
    default = field.get_default(call_default_factory=True)
    option = typer.Option(
        None,
        *flags,
        *([short] if short else []),
        help=(field.description or "") + _shown(default),
        show_default=False,
        metavar=metavar,
        rich_help_panel=f"{section.capitalize()} settings",
    )
    annotation: Any = Union[kind, None]  # noqa: UP007 - built at run time from a variable
    return inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


def _plain_type(annotation: Any) -> Any:
    """The type typer is told; pydantic checks the rest, bounds and choices."""
    if get_origin(annotation) is dict:
        return list[str]
    inner = [arg for arg in get_args(annotation) if arg is not type(None)]
    if get_origin(annotation) is Literal or get_origin(annotation) is list:
        return str
    if inner:
        return _plain_type(inner[0])
    return annotation if annotation in (bool, int, float, str) else str


def _metavar(annotation: Any) -> str | None:
    if get_origin(annotation) is Literal:
        return "|".join(str(choice) for choice in get_args(annotation))
    if _nested(annotation):
        return "NAME[.OPTION][=VALUE]"
    if get_origin(annotation) is dict:
        return "KEY=VALUE"
    if get_origin(annotation) is list:
        return "N,N,..."
    return None


def _shown(default: Any) -> str:
    if default is None or default == {}:
        return ""
    if isinstance(default, list):
        text = ",".join(str(item) for item in default)
    elif isinstance(default, bool):
        text = "yes" if default else "no"
    else:
        text = f"{default:g}" if isinstance(default, float) else str(default)
    return f" (default: {text})"


def _parse(section: str, name: str, value: Any) -> Any:
    annotation = _section(section).model_fields[name].annotation
    if get_origin(annotation) is list:
        return [item.strip() for item in str(value).split(",")]
    if _nested(annotation):
        return _named(value)
    if get_origin(annotation) is dict:
        pairs = [str(item).partition("=") for item in value]
        broken = [key for key, equals, _ in pairs if not equals]
        if broken:
            raise SettingsError(f"`{broken[0]}` is not KEY=VALUE", where=f"--{name.replace('_', '-')}")
        return {key: yaml.safe_load(text) for key, _, text in pairs}
    return str(value) if isinstance(value, Path) else value


def _nested(annotation: Any) -> bool:
    """Whether a field holds options by name."""
    return get_origin(annotation) is dict and get_origin(get_args(annotation)[1]) is dict


def _named(items: list[str]) -> dict[str, dict[str, Any]]:
    """`NAME`, `NAME=VALUE` and `NAME.OPTION=VALUE`, in the order of the names."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        place, equals, text = item.partition("=")
        name, _, option = place.partition(".")
        options = found.setdefault(name, {})
        if equals:
            options[option or "value"] = yaml.safe_load(text)
    return found
