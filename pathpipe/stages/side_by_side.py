"""Models side by side on one page: the settings that differ, their numbers, every difference, curves overlaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathpipe.encoders.catalogue import encoder_caution
from pathpipe.evaluation.comparison.comparison import Comparison
from pathpipe.provenance import FOLDER_FILE, Provenance, read_provenance
from pathpipe.publish import publish
from pathpipe.report.blocks import Card, Page, Section
from pathpipe.report.compared import (
    comparison_section,
    curves_section,
    renamed,
    settings_section,
    short_names,
    sources_section,
)
from pathpipe.report.page import render_page
from pathpipe.report.words import counted, number
from pathpipe.settings import HOW, PLACES, RunSettings
from pathpipe.stages.compare import EvaluatedRun, names_of
from pathpipe.stages.results import read_results

PAGE = "comparison.html"
_LEFT_OUT: dict[str, Any] = {**HOW, "notice": True, "sweep": True, **PLACES}
_LEFT_OUT["train"] = {"name"}


def write_page(folder: Path, models: Sequence[EvaluatedRun], found: Mapping[str, Comparison]) -> Path:
    """Write the page beside the comparison it shows.

    Args:
        folder: Of the comparison.

    Returns:
        The page.
    """
    made = read_provenance(folder)
    assert made is not None, f"{folder} holds no {FOLDER_FILE}"
    whole = names_of(models)
    called = short_names(whole)
    names = list(called.values())
    shown = {target: renamed(one, called) for target, one in found.items()}
    evaluations = {name: read_results(one.run, one.settings) for name, one in zip(names, models, strict=True)}
    curves: list[Section] = []
    for at, target in enumerate(found):
        of_target = {
            name: result.model
            for name, results in evaluations.items()
            for result in results
            if _question(result.target) == target
        }
        section = curves_section(of_target, f"-{at}" if at else "", target if len(found) > 1 else "")
        curves += [section] if section is not None else []
    page = Page(
        title=" or ".join(names),
        subtitle=f"{counted(len(models), 'model')} side by side, by patients that no compared model saw in training",
        notices=_notices(models),
        cards=_cards(shown),
        sections=(
            comparison_section("Differences", shown),
            *curves,
            settings_section({name: _flat(one.settings) for name, one in zip(names, models, strict=True)}),
            sources_section({name: made.inputs[name] for name in whole}, called),
        ),
        made_by=made.made_by,
    )
    with publish(folder / PAGE) as partial:
        render_page(page, partial, Provenance("side-by-side", 1, made.settings, made.inputs, made.made_by))
    return folder / PAGE


def _question(target: str) -> str:
    return target.removesuffix(":survival").removesuffix(":cox")


def _cards(found: Mapping[str, Comparison]) -> tuple[Card, ...]:
    """Each model's first metric."""
    first = next(iter(found.values()))
    metric = first.differences[0].metric
    cards = [
        Card(number(one.metrics[metric].value), f"{metric} of `{one.name}`")
        for one in first.models[:6]
        if metric in one.metrics
    ]
    return tuple(cards)


def _notices(models: Sequence[EvaluatedRun]) -> tuple[str, ...]:
    said = [one.settings.notice for one in models if one.settings.notice]
    for name in dict.fromkeys(one.settings.extract.encoder for one in models):
        caution = encoder_caution(name)
        said += [f"The encoder `{name}` is {caution}."] if caution else []
    return tuple(dict.fromkeys(said))


def _flat(settings: RunSettings) -> dict[str, str]:
    """Dotted key -> value."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else str(name), inner)
        else:
            flat[prefix] = str(value)

    walk("", settings.model_dump(mode="json", exclude=_LEFT_OUT))
    return flat
