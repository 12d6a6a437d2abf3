"""`pathpipe models` and `tissue-methods`: what there is, and all that is known of one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

FormOption = Annotated[str, typer.Option("--form", help="table, csv or json", metavar="table|csv|json")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("models")(models)
    app.command("tissue-methods")(tissue_methods)


def models(
    name: Annotated[str | None, typer.Argument(help="One model, with its options")] = None,
    form: FormOption = "table",
) -> None:
    """List the MIL models, or show one: idea, paper, options."""
    from pathpipe.cli.tables import print_table
    from pathpipe.mil.registry import MODELS, model_class

    if name is not None:
        model = model_class(name)
        rows: list[list[Any]] = [[f.name, getattr(model.card, f.name)] for f in _fields(model.card)]
        rows += _option_rows(model.Options, "-s")
        print_table(["field", "value"], rows, form)
        return
    rows = []
    for known in MODELS.names():
        card = model_class(known).card
        rows.append([known, card.summary, "yes" if card.attention else "no", card.paper, MODELS.source(known)])
    print_table(["model", "idea", "attention", "paper", "from"], rows, form)


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


def _option_rows(options: Any, flag: str) -> list[list[str]]:
    """A row an option: how it is typed with its default, and what it means."""
    return [
        [f"{flag} {option}={'...' if field.is_required() else _default(field)}", field.description or ""]
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
