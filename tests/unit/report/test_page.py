"""Parts of the page that depend on what a run left: trouble, folds, more than two classes, marks in a text."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

from pathpipe.evaluation.evaluate import evaluate_predictions
from pathpipe.evaluation.predictions import Predictions
from pathpipe.report.page import code_marks
from pathpipe.settings import EvaluateSettings
from tests.unit.evaluation.test_evaluate import _part
from tests.unit.report.test_report import _data, _Page, _render


def _cells(text: str) -> list[list[str]]:
    """Every table row as its cells' words."""
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [[_Page(cell).text.strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]


def test_slides_in_trouble_are_listed_with_what_to_do(tmp_path: Path) -> None:
    text = _render(tmp_path, _data())
    assert "Slides without a result" in text
    failed = next(row for row in _cells(text) if len(row) == 4 and "failed" in row[1])
    assert failed[1:] == ["✘ failed", "tissue", "ends early & badlyscan again"]
    fine = tuple(slide for slide in _data().slides if slide.state == "done")
    assert "Slides without a result" not in _render(tmp_path, replace(_data(), slides=fine))


def test_folds_have_a_row_each_with_patients_by_role_and_class(tmp_path: Path) -> None:
    split = ((0, "train", (5, 6)), (0, "val", (1, 2)), (0, "test", (3, 4)), (1, "train", (7, 8)), (1, "test", (9, 10)))
    rows = _cells(_render(tmp_path, replace(_data(), split=split)))
    assert ["0", "5", "6", "1", "2", "3", "4"] in rows
    assert ["1", "7", "8", "–", "–", "9", "10"] in rows


def test_numbers_by_fold(tmp_path: Path) -> None:
    data = _data()
    rows = _cells(_render(tmp_path, data))
    for fold, values in data.model.folds.items():
        expected = [str(fold), *(f"{value:.3f}" for value in values.values()), f"{data.model.thresholds[fold]:.3f}"]
        assert expected in rows


def test_mean_over_folds_leaves_out_what_is_undefined(tmp_path: Path) -> None:
    data = _data()
    folds = {0: {**data.model.folds[0], "AUROC": 0.5}, 1: {**data.model.folds[1], "AUROC": 0.75}}
    nowhere = {fold: {**row, "AUPRC": math.nan} for fold, row in folds.items()}
    nowhere[2] = {**data.model.folds[2], "AUROC": math.nan, "AUPRC": math.nan}
    text = _render(tmp_path, replace(data, model=replace(data.model, folds=nowhere)))
    row = re.search(r'<tr class="sum">(.*?)</tr>', text, re.DOTALL)
    assert row and re.findall(r"<td[^>]*>([^<]*)", row[1])[:2] == ["0.625", "–"]


def test_more_than_two_classes_have_a_curve_each(tmp_path: Path) -> None:
    parts = [_part(fold, role, [0, 1, 2] * 3, 3) for fold in range(2) for role in ("val", "test")]
    found = evaluate_predictions(Predictions.concatenate(parts), EvaluateSettings(bootstrap=100))
    data = replace(_data(), classes=("a", "b", "c"), model=found, baseline=None, split=())
    text = _render(tmp_path, data)
    page = _Page(text)
    assert sum(tag == "svg" for tag, _ in page.tags) == 5
    legend = re.search(r'aria-label="ROC curve">(.*?)</figure>', text, re.DOTALL)
    assert legend and [word for word in _Page(legend[1]).text.split() if word in "abc"] == ["a", "b", "c"]
    assert "positive class" not in text and ">threshold<" not in text


def test_ids_are_unique_and_links_lead_somewhere(tmp_path: Path) -> None:
    page = _Page(_render(tmp_path, _data()))
    own = [attributes["id"] for tag, attributes in page.tags if "id" in attributes and tag not in ("path", "clippath")]
    assert len(own) == len(set(own))
    links = [str(attributes["href"]) for tag, attributes in page.tags if tag == "a"]
    assert len(links) == 6 and {link.removeprefix("#") for link in links} <= set(map(str, own))


def test_headings_and_links_without_content_are_left_out(tmp_path: Path) -> None:
    plain = tuple(replace(slide, overlay=None) for slide in _data().slides)
    for data, gone, kept in (
        (replace(_data(), slides=plain), "tissue", "training"),
        (replace(_data(), split=(), curves=()), "training", "tissue"),
    ):
        page = _Page(_render(tmp_path, data))
        ids = {attributes.get("id") for _, attributes in page.tags}
        links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
        assert gone not in ids and f"#{gone}" not in links
        assert kept in ids and f"#{kept}" in links
    text = _render(tmp_path, replace(_data(), split=()))
    assert "learning curves" in text and "Patients of each class" not in text
    text = _render(tmp_path, replace(_data(), curves=()))
    assert "learning curves" not in text and "Patients of each class" in text


def test_pictures_that_enlarge_say_so(tmp_path: Path) -> None:
    tags = _Page(_render(tmp_path, _data())).tags
    enlarge = [attributes for tag, attributes in tags if attributes.get("class") == "zoom"]
    assert len(enlarge) == 3
    for attributes in enlarge:
        assert (attributes["role"], attributes["tabindex"], attributes["aria-haspopup"]) == ("button", "0", "dialog")
    assert next(attributes for tag, attributes in tags if tag == "dialog")["aria-label"] == "Enlarged picture"


def test_header_cells_say_what_they_head(tmp_path: Path) -> None:
    for tag, attributes in _Page(_render(tmp_path, _data())).tags:
        if tag == "th":
            assert attributes.get("scope") in ("row", "col", "colgroup")


def test_code_marks() -> None:
    assert code_marks("pass `--mpp <x>` & go") == "pass <code>--mpp &lt;x&gt;</code> &amp; go"
    assert code_marks("`a` and `b`") == "<code>a</code> and <code>b</code>"
    assert code_marks("a lone ` <i>") == "a lone ` &lt;i&gt;"
    assert code_marks("") == ""
