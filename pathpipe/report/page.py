"""The page: a template filled with what a run left, images and plots inside, nothing fetched."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pathpipe.evaluation.bootstrap import Interval
from pathpipe.evaluation.curves import Curve
from pathpipe.evaluation.evaluate import Evaluation
from pathpipe.provenance import Provenance
from pathpipe.report import plots
from pathpipe.report.data import ReportData


def render_report(data: ReportData, path: Path, provenance: Provenance) -> None:
    """Write one HTML file that needs no network; equal data give equal bytes."""
    environment = Environment(
        loader=PackageLoader("pathpipe.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(number=number, interval=interval_text, uri=data_uri, code=code_marks)
    html = environment.get_template("report.html.j2").render(
        data=data,
        plots=_plots(data),
        metrics=_metric_rows(data),
        folds=_fold_rows(data.model),
        fold_means=_fold_means(data.model),
        splits=_split_rows(data),
        split_names=data.classes or ("patients",),
        troubled=[slide for slide in data.slides if slide.state != "done"],
        sign={"done": "✔", "empty": "∅", "failed": "✘", "stale": "≠"},
        counts={state: sum(s.state == state for s in data.slides) for state in ("done", "empty", "failed", "stale")},
        tiles=sum(slide.tiles or 0 for slide in data.slides),
        provenance=_json_for_script(provenance),
    )
    path.write_text(html, encoding="utf-8")


def number(value: float | None, digits: int = 3) -> str:
    """A number for people; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}"


def interval_text(value: Interval | None) -> str:
    """`0.812 to 0.934`."""
    if value is None or not math.isfinite(value.low):
        return "–"
    return f"{value.low:.3f} to {value.high:.3f}"


def data_uri(content: bytes, kind: str) -> str:
    """An image inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def code_marks(text: str) -> Markup:
    """Text with `names` in backticks set as code; all of it escaped."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is only a backtick
        return escape(text)
    marked = [Markup("<code>{}</code>").format(part) if odd % 2 else escape(part) for odd, part in enumerate(parts)]
    return Markup("").join(marked)


def _metric_rows(data: ReportData) -> list[dict[str, Any]]:
    baseline = data.baseline.metrics if data.baseline else {}
    return [
        {"name": name, "model": interval, "baseline": baseline.get(name), "note": interval.note or ""}
        for name, interval in data.model.metrics.items()
    ]


def _fold_rows(model: Evaluation) -> list[tuple[int, dict[str, float], float | None]]:
    return [(fold, values, model.thresholds.get(fold)) for fold, values in sorted(model.folds.items())]


def _fold_means(model: Evaluation) -> dict[str, float | None]:
    """Metric -> mean over the folds where it is defined."""
    means: dict[str, float | None] = {}
    for name in model.metrics:
        values = [row[name] for row in model.folds.values() if math.isfinite(row[name])]
        means[name] = math.fsum(values) / len(values) if values else None
    return means


def _split_rows(data: ReportData) -> dict[int, dict[str, tuple[int, ...]]]:
    """Fold -> role -> patients by class."""
    rows: dict[int, dict[str, tuple[int, ...]]] = {}
    for fold, role, counts in data.split:
        rows.setdefault(fold, {})[role] = counts
    return rows


def _plots(data: ReportData) -> dict[str, Markup]:
    """Name -> SVG. Made by this package from numbers and escaped names, hence safe to insert."""
    drawn = {}
    for key, draw in (
        ("roc", plots.roc_plot),
        ("precision-recall", plots.precision_recall_plot),
        ("reliability", plots.reliability_plot),
    ):
        curves = _curves(data, key)
        if curves:
            drawn[key] = Markup(draw(curves))
    if data.model.confusion:
        drawn["confusion"] = Markup(plots.confusion_plot(data.model.confusion, data.classes))
    if data.curves:
        drawn["learning"] = Markup(plots.learning_plot(data.curves))
    return drawn


def _curves(data: ReportData, key: str) -> list[tuple[str, Curve]]:
    """Of two classes: the model's and the baseline's. Of more: the model's, each class against the rest."""
    if len(data.classes) > 2:
        found = data.model.curves
        return [(name, found[f"{key} of {name}"]) for name in data.classes if f"{key} of {name}" in found]
    named = [(data.model_name, data.model), (data.baseline_name, data.baseline)]
    return [(name, one.curves[key]) for name, one in named if one is not None and key in one.curves]


def _json_for_script(provenance: Provenance) -> Markup:
    # `<` can't stand in a script element's text: it might open a tag
    text = json.dumps(provenance.to_dict(), ensure_ascii=False).replace("<", "\\u003c")
    return Markup(text)
