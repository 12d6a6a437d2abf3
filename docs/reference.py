"""Writes the pages that commands, settings and catalogues say themselves; a test fails when they are old."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer.main

from pathpipe.cli.app import app
from pathpipe.cli.encoders import NOT_STATED
from pathpipe.cli.listing import size_of
from pathpipe.encoders.catalogue import encoder_names, encoder_record
from pathpipe.mil.registry import MODELS, WRAPPERS, model_class, wrapper_class
from pathpipe.settings import RunSettings

DOCS = Path(__file__).parent


def cli_page() -> str:
    """Every command with its arguments and options."""
    root: Any = typer.main.get_command(app)
    parts = [
        "# Command line\n",
        "Made from the commands themselves by `make docs`. `pathpipe COMMAND --help` shows the same.\n",
        "Settings are layered: default < the run's own settings.yaml < `--config FILE` < option; `--print-config` "
        "shows the result and where each value comes from. Progress and messages go to stderr, data to stdout.\n",
        "| exit code | meaning |\n|---|---|\n| 0 | all done |\n"
        "| 1 | finished, but more failed than `--max-failures` |\n"
        "| 2 | the request is wrong: usage, settings, cohort, or stale results were left alone |\n"
        "| 3 | something outside is missing: weights, a device, a package |\n"
        "| 4 | refused on scientific grounds (leakage) |\n"
        "| 75 | told to stop by Slurm (preempted, or at its time limit); what is committed stays |\n"
        "| 130 | interrupted; the same command goes on |\n",
    ]
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            for inner, leaf in command.commands.items():
                parts.append(_command(f"{name} {inner}", leaf))
        else:
            parts.append(_command(name, command))
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    lines = [f"## pathpipe {name}\n", (command.help or "").strip() + "\n"]
    rows = []
    for parameter in command.params:
        text = (getattr(parameter, "help", None) or "").replace("|", "\\|").strip()
        if parameter.param_type_name == "argument":
            rows.append((f"`{(parameter.metavar or parameter.name).upper()}`", text))
            continue
        rows.append((", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts)), text))
    if rows:
        lines += ["| option | meaning |", "|---|---|", *(f"| {flags} | {text} |" for flags, text in rows)]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Every section and field of a YAML file."""
    parts = [
        "# Settings\n",
        "Made from the settings themselves by `make docs`. Every field is a key of a YAML file (`configs/` has some to "
        "start from) and an option of the command of that section. All but `execution` decide results and are part of "
        "every fingerprint.\n",
    ]
    for section, field in RunSettings.model_fields.items():
        model: Any = field.annotation
        if not hasattr(model, "model_fields"):
            parts.append(f"## {section}\n\n{field.description}\n")
            continue
        parts.append(f"## {section}\n\n{model.__doc__}\n\n| key | default | meaning |\n|---|---|---|")
        for name, inner in model.model_fields.items():
            default = inner.get_default(call_default_factory=True)
            shown = "" if default is None else f"`{default}`"
            parts.append(f"| `{name}` | {shown} | {(inner.description or '').replace('|', chr(92) + '|')} |")
        parts.append("")
    return "\n".join(parts)


def encoders_page() -> str:
    """docs/encoders.md with its table made anew from the catalogue."""
    text = (DOCS / "encoders.md").read_text(encoding="utf-8")
    start = text.index(_MARK) + len(_MARK)
    end = text.index(_END)
    rows = [
        "| encoder | dim | size | input px | um/px | pooling | domain | licence | weights | paper and notes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in encoder_names():
        record = encoder_record(name)
        weights = record.weights
        place = weights.hub or weights.url or weights.manual or (weights.package or "").replace("_", "-")
        pinned = "" if weights.revision is None else f" @ {weights.revision[:7]}"
        access = f"{place}{pinned} (gated)" if record.gated else f"{place}{pinned}"
        mpp = NOT_STATED if record.mpp is None else f"{record.mpp:g}"
        size = NOT_STATED if record.parameters is None else f"{record.parameters / 1e6:.0f}M"
        note = f". *{record.note[0].upper()}{record.note[1:]}.*" if record.note else ""
        rows.append(
            f"| `{name}` | {record.dim} | {size} | {record.input_px} | {mpp} | {record.pooling} | {record.domain} "
            f"| {record.licence or NOT_STATED} | {access} | {record.paper}{note} |"
        )
    return text[:start] + "\n\n" + "\n".join(rows) + "\n\n" + text[end:]


def methods_page() -> str:
    """docs/methods.md with its tables of models and wrappers made anew."""
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    start = text.index(_MARK) + len(_MARK)
    end = text.index(_END)
    rows = ["| model | idea | parameters | attention | order of tiles | paper |", "|---|---|---|---|---|---|"]
    for name in MODELS.builtin:
        card = model_class(name).card
        order = "coordinates" if card.needs_coordinates else "no matter" if card.permutation_invariant else "matters"
        attention = "yes" if card.attention else "no"
        rows.append(f"| `{name}` | {card.summary} | {size_of(name):,} | {attention} | {order} | {card.paper} |")
    rows += ["", "| wrapper | what it changes | adds in training | paper |", "|---|---|---|---|"]
    for name in WRAPPERS.builtin:
        wrapper = wrapper_class(name)
        rows.append(f"| `{name}` | {wrapper.summary} | {size_of(name) or ''} | {wrapper.paper} |")
    return text[:start] + "\n\n" + "\n".join(rows) + "\n\n" + text[end:]


_MARK = "<!-- catalogue: made by docs/reference.py -->"
_END = "<!-- end of the catalogue -->"
PAGES = {"cli.md": cli_page, "settings.md": settings_page, "encoders.md": encoders_page, "methods.md": methods_page}

if __name__ == "__main__":
    for file, page in PAGES.items():
        (DOCS / file).write_text(page(), encoding="utf-8")
        print(f"wrote docs/{file}", file=sys.stderr)
