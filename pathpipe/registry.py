"""Registry: names to things, built in or from a user's package through an entry point, loaded when asked for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pathpipe.errors import MissingError, SettingsError


class Registry:
    """Built-in names and those that installed packages add under the entry-point group `pathpipe.<kind>s`.

    Args:
        kind: Singular noun shown to people, e.g. `model`.
        builtin: name -> "module:attribute". Nothing is imported until a name is looked up.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.builtin = dict(builtin)

    @cached_property
    def _plugins(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=f"pathpipe.{self.kind}s"):
            if point.name in self.builtin or point.name in found:
                other = "pathpipe" if point.name in self.builtin else _origin(found[point.name])
                raise SettingsError(
                    f"{self.kind} `{point.name}` is offered twice: by {other} and by {_origin(point)}",
                    hint="uninstall one of the two packages, or rename its entry point",
                )
            found[point.name] = point
        return found

    def names(self) -> list[str]:
        """All names, built-ins first; imports nothing."""
        return [*self.builtin, *sorted(self._plugins)]

    def source(self, name: str) -> str:
        """Whose it is: `pathpipe` or the name of the package that adds it."""
        return "pathpipe" if name in self.builtin else _origin(self._plugins[name])

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or name in self._plugins

    def __getitem__(self, name: str) -> Any:
        """The thing itself.

        Raises:
            SettingsError: The name is unknown.
            MissingError: A plug-in is installed but can't be imported.
        """
        if name in self.builtin:
            module, _, attribute = self.builtin[name].partition(":")
            return getattr(import_module(module), attribute)
        if name in self._plugins:
            point = self._plugins[name]
            try:
                return point.load()
            except (ImportError, AttributeError) as error:
                raise MissingError(
                    f"{self.kind} `{name}` of package {_origin(point)} can't be loaded: {error}",
                    hint=f"repair or uninstall {_origin(point)}",
                ) from error
        raise SettingsError(f"there is no {self.kind} `{name}`", hint=suggest(name, self.names()))


def suggest(name: str, known: list[str]) -> str:
    """'did you mean ...?' for a mistyped name, or the list of all names."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known: {', '.join(known)}"


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
