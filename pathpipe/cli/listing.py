"""`pathpipe models` and `tissue-methods`: what there is, and all that is known of one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pathpipe.errors import SettingsError
from pathpipe.registry import suggest

FormOption = Annotated[str, typer.Option("--form", help="table, csv or json", metavar="table|csv|json")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("models")(models)
    app.command("tissue-methods")(tissue_methods)


def models(
    name: Annotated[str | None, typer.Argument(help="One model or wrapper, with its options")] = None,
    form: FormOption = "table",
) -> None:
    """List the MIL models and the wrappers of their training, or show one: idea, paper, parameters, options.

    Parameters are counted at 1024 features a tile and two classes; a wrapper's are what it adds to abmil in training.
    """
    from pathpipe.cli.tables import print_table
    from pathpipe.mil.registry import MODELS, WRAPPERS, model_class, wrapper_class

    if name is not None:
        print_table(["field", "value"], _shown(name), form)
        return
    rows: list[list[Any]] = []
    for known in MODELS.names():
        card = model_class(known).card
        attention = "yes" if card.attention else "no"
        rows.append([known, "model", card.summary, size_of(known), attention, card.paper, MODELS.source(known)])
    for known in WRAPPERS.names():
        wrapper = wrapper_class(known)
        source = WRAPPERS.source(known)
        rows.append([known, "wrapper", wrapper.summary, size_of(known), "as the model", wrapper.paper, source])
    print_table(["name", "kind", "idea", "parameters", "attention", "paper", "from"], rows, form)


def _shown(name: str) -> list[list[Any]]:
    """All that is known of a model or wrapper, and a row an option."""
    from pathpipe.mil.registry import MODELS, WRAPPERS, model_class, wrapper_class

    if name in WRAPPERS:
        wrapper = wrapper_class(name)
        rows: list[list[Any]] = [["kind", "wrapper"], ["summary", wrapper.summary], ["paper", wrapper.paper]]
        rows.append(["parameters", size_of(name)])
        if wrapper.main_option is not None:
            rows.append([f"--with {name}=VALUE", f"the same as {name}.{wrapper.main_option}=VALUE"])
        return rows + _option_rows(wrapper.Options, f"--with {name}.", "")
    if name not in MODELS:
        hint = suggest(name, [*MODELS.names(), *WRAPPERS.names()])
        raise SettingsError(f"there is no model or wrapper `{name}`", hint=hint)
    model = model_class(name)
    rows = [["kind", "model"], *([f.name, getattr(model.card, f.name)] for f in _fields(model.card))]
    return [*rows, ["parameters", size_of(name)], *_option_rows(model.Options, "-s")]


def size_of(name: str) -> int | str | None:
    """Parameters at 1024 features and two classes; None where a model can't be built without options."""
    from pathpipe.mil.registry import WRAPPERS, Recipe, build_model

    def count(recipe: Recipe) -> int:
        return sum(parameter.numel() for parameter in build_model(recipe, 1024, 2).parameters())

    try:
        if name in WRAPPERS:
            return f"+{count(Recipe('abmil', {}, {name: {}})) - count(Recipe('abmil'))}"
        return count(Recipe(name))
    except SettingsError:
        return None


def tissue_methods(
    name: Annotated[str | None, typer.Argument(help="One way of finding tissue, with its options")] = None,
    form: FormOption = "table",
) -> None:
    """List the ways of finding tissue, or show one: what it does, its options."""
    from pathpipe.cli.tables import print_table
    from pathpipe.tissue.method import METHODS

    if name is not None:
        method = METHODS[name]
        rows = [["name", name], ["summary", _first_line(method)]]
        print_table(["field", "value"], rows + _option_rows(method.Options, "--method-settings"), form)
        return
    known = [[one, _first_line(METHODS[one]), METHODS.source(one)] for one in METHODS.names()]
    print_table(["method", "idea", "from"], known, form)


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


def _option_rows(options: Any, flag: str, space: str = " ") -> list[list[str]]:
    """A row an option: how it is typed with its default, and what it means."""
    return [
        [f"{flag}{space}{option}={'...' if field.is_required() else _default(field)}", field.description or ""]
        for option, field in options.model_fields.items()
    ]


def _default(field: Any) -> str:
    return as_text(field.get_default(call_default_factory=True))


def _fields(card: Any) -> Any:
    from dataclasses import fields

    return fields(card)


def as_text(value: Any) -> str:
    """A value on one line of a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)
