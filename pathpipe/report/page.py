"""The page: a template filled with what a run left, images and plots inside, nothing fetched."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pathpipe.evaluation.bootstrap import Interval
from pathpipe.evaluation.evaluate import Evaluation
from pathpipe.provenance import Provenance
from pathpipe.report import plots
from pathpipe.report.data import ReportData


def render_report(data: ReportData, path: Path, provenance: Provenance) -> None:
    """Write one HTML file that needs no network; equal data give equal bytes."""
    environment = Environment(
        loader=PackageLoader("pathpipe.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(number=number, interval=interval_text, uri=data_uri)
    html = environment.get_template("report.html.j2").render(
        data=data,
        plots=_plots(data),
        metrics=_metric_rows(data),
        folds=_fold_rows(data.model),
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


def _metric_rows(data: ReportData) -> list[dict[str, Any]]:
    baseline = data.baseline.metrics if data.baseline else {}
    return [
        {"name": name, "model": interval, "baseline": baseline.get(name), "note": interval.note or ""}
        for name, interval in data.model.metrics.items()
    ]


def _fold_rows(model: Evaluation) -> list[tuple[int, dict[str, float], float | None]]:
    return [(fold, values, model.thresholds.get(fold)) for fold, values in sorted(model.folds.items())]


def _plots(data: ReportData) -> dict[str, Markup]:
    """Name -> SVG. Made by this package from numbers and escaped names, hence safe to insert."""
    named = [(data.model_name, data.model), (data.baseline_name, data.baseline)]
    drawn = {}
    for key, draw in (
        ("roc", plots.roc_plot),
        ("precision-recall", plots.precision_recall_plot),
        ("reliability", plots.reliability_plot),
    ):
        curves = [(name, one.curves[key]) for name, one in named if one is not None and key in one.curves]
        if curves:
            drawn[key] = Markup(draw(curves))
    drawn["confusion"] = Markup(plots.confusion_plot(data.model.confusion, data.classes))
    if data.curves:
        drawn["learning"] = Markup(plots.learning_plot(data.curves))
    return drawn


def _json_for_script(provenance: Provenance) -> Markup:
    # `<` can't stand in a script element's text: it might open a tag
    text = json.dumps(provenance.to_dict(), ensure_ascii=False).replace("<", "\\u003c")
    return Markup(text)
