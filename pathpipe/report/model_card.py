"""The model card: what a model is, was made from, is worth and must not be used for, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Licence:
    """What is known of one encoder's licence, from the catalogue."""

    encoder: str
    licence: str | None
    page: str | None
    paper: str
    caution: str | None
    gated: bool


@dataclass(frozen=True)
class Cohort:
    """What a model was made from.

    Attributes:
        counts: What -> how many.
        labels: Rows of target, value and patients.
        sites: Rows of site, slides and patients.
        folds: How patients were divided, in one sentence.
    """

    counts: Mapping[str, int]
    labels: Rows
    sites: Rows
    folds: str


@dataclass(frozen=True)
class Performance:
    """What a model is worth on patients it never saw.

    Attributes:
        metrics: Rows of target, metric, value, low and high, as numbers.
        confidence: Of the intervals.
        notes: What a reader of the numbers must know.
        folds: In which test patients are counted; 1 where all models tested the same ones, and their mean was measured.
    """

    metrics: Rows
    confidence: float
    notes: tuple[str, ...] = ()
    folds: int = 0


@dataclass(frozen=True)
class CardFacts:
    """All that a card says.

    Attributes:
        name: Of the training.
        summary: One sentence.
        model: Rows of what and value.
        settings: Rows of setting and value, those that differ from the defaults.
        inputs: Rows of name, shape, type and meaning, of an exported file.
        outputs: Likewise.
        files: Rows of file, SHA-256 and largest difference from the model.
        made_from: Rows of what and hash.
        cohort: None where the model lies outside its run.
        performance: None where nobody evaluated it.
        example: Python that runs an exported file.
    """

    name: str
    summary: str
    model: Rows
    settings: Rows
    inputs: Rows
    outputs: Rows
    files: Rows
    made_from: Rows
    licences: Sequence[Licence]
    cohort: Cohort | None
    performance: Performance | None
    example: str
    ensemble: int = 1
    further: tuple[str, ...] = field(default_factory=tuple)


def model_card(facts: CardFacts) -> str:
    """The card."""
    parts = [
        f"# Model card: {_text(facts.name)}",
        facts.summary,
        _table(("", ""), facts.model),
        "## Intended use and limits",
        _bullets(limits(facts)),
        "## Data",
        *_data(facts.cohort),
        "## Performance",
        *_performance(facts),
        "## Settings",
        "What differs from the defaults; all of it, and how slides are turned into features, is in `model.json`.",
        _table(("setting", "value"), facts.settings),
        "## Encoder and its licence",
        *(_licence(one) for one in facts.licences),
        "## How to use it",
        "On slides, with all of the preprocessing: `pathpipe predict MODEL SLIDES -o OUT`. On stored features:",
        f"```python\n{facts.example.rstrip()}\n```",
        _table(("input", "shape", "type", "meaning"), facts.inputs),
        _table(("output", "shape", "type", "meaning"), facts.outputs),
        *([_bullets(facts.further)] if facts.further else []),
        "## Files and hashes",
        _table(("file", "SHA-256", "largest difference from the model"), facts.files),
        _table(("made from", "hash"), facts.made_from),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def limits(facts: CardFacts) -> list[str]:
    """What the card warns of, from what is known."""
    said = [
        "For research. It is no medical device; nobody may be diagnosed or treated by what it says.",
        "It holds for slides like those it was trained on: the same kind of specimen, stain and scanner, tiles of the "
        "same size and um/px, features of the same encoder. `pathpipe predict` says how far a slide lies from the "
        "slides of the training, and warns; that no warning comes proves nothing.",
    ]
    cohort = facts.cohort
    if cohort is not None and len(cohort.sites) == 1 and str(cohort.sites[0][0]) != "not stated":
        said.append(f"All slides come from one site ({_text(cohort.sites[0][0])}): how it does elsewhere is unknown.")
    elif cohort is None or len(cohort.sites) <= 1:
        said.append("Where its slides come from is not stated: how it does at another site is unknown.")
    if cohort is not None and cohort.counts.get("patients", 0) < 200:
        said.append(f"It has seen {cohort.counts['patients']} patients: too few to know how it does in rare cases.")
    if facts.performance is None:
        said.append("It has not been evaluated: nothing is known of how well it does.")
    else:
        said.append("It was evaluated within its own cohort, by cross-validation or a held-out part, and on no other.")
    if facts.ensemble > 1:
        said.append(f"It averages {facts.ensemble} models.{_measured(facts.performance)}")
    said += [f"Encoder {one.encoder}: {_text(one.caution)}." for one in facts.licences if one.caution]
    return said


def _measured(performance: Performance | None) -> str:
    """Whether the numbers are of the average of all models."""
    if performance is None:
        return ""
    if performance.folds == 1:
        return " So do the numbers below, of patients that none of them saw."
    return (
        " The numbers below are of each fold's models on patients that those never saw; the average over the folds was "
        "not measured."
    )


def _data(cohort: Cohort | None) -> list[str]:
    if cohort is None:
        return ["The model lies outside its run, so what it was trained on is not known here."]
    parts = [
        _table(("", "number"), list(cohort.counts.items())),
        cohort.folds,
        _table(("target", "value", "patients"), cohort.labels),
    ]
    return [*parts, _table(("site", "slides", "patients"), cohort.sites)]


def _performance(facts: CardFacts) -> list[str]:
    found = facts.performance
    if found is None:
        return ["It has not been evaluated: `pathpipe evaluate RUN` does that."]
    rows = [
        (target, metric, _number(value), "" if low is None else f"{_number(low)} to {_number(high)}")
        for target, metric, value, low, high in found.metrics
    ]
    interval = f"{100 * found.confidence:g}% interval"
    parts = ["On test patients of every fold, by models that never saw them.", _table((*_METRICS, interval), rows)]
    return [*parts, *([_bullets(found.notes)] if found.notes else [])]


_METRICS = ("target", "metric", "value")


def _licence(one: Licence) -> str:
    stated = f"licence **{_text(one.licence)}**" if one.licence else "**its licence is not stated in the catalogue**"
    gated = ", which has to be accepted on its page before the weights may be used" if one.gated else ""
    page = f" Weights: {_text(one.page)}." if one.page else ""
    paper = f" {_text(one.paper)}." if one.paper else ""
    return f"`{one.encoder}`: {stated}{gated}.{page}{paper} Features, and models made of them, may fall under it."


def _table(head: Sequence[str], rows: Rows) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _text(value: Any) -> str:
    """One line of Markdown's own characters."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
