"""Explanations on a page: which heatmaps are shown, under which words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pathpipe.evaluation.curves import Curve
from pathpipe.report.blocks import Section
from pathpipe.report.explained import Explained, _mean_curves, chosen, explained_section
from tests.unit.report.test_report import page_of, rendered, rows_of


def _text(tmp_path: Path, section: Section | None) -> str:
    assert section is not None
    return rendered(tmp_path, page_of(sections=(section,)))


def _explained(slide: str, aim: str, value: float, right: bool | None, kind: str = "class") -> Explained:
    ramp = {name: Curve([0.0, 1.0], [0.0, 1.0]) for name in ("deletion", "insertion", "random")}
    gains = {"deletion": 0.25, "insertion": 0.5}
    return Explained(
        slide, "a", aim, aim, kind, "attention", value, 7, right, (0.5, 0.1), None, gains, ramp, "h.png", "t.jpg"
    )


def test_the_surest_and_the_surest_mistakes_are_shown(tmp_path: Path) -> None:
    given = [_explained(f"S{at}", "a", 0.5 + at / 20, True) for at in range(6)]
    given += [_explained(f"W{at}", "a", 0.5 + at / 20, False) for at in range(4)]
    given += [_explained("B", "b", 0.9, None)]
    found = chosen(given)
    assert {aim: [one.slide_id for one in members] for aim, members in found.items()} == {
        "a": ["S5", "S4", "S3", "W3", "W2"],
        "b": ["B"],
    }
    numbers = [_explained(f"N{at}", "age", float(at), None, "number") for at in range(9)]
    assert [one.slide_id for one in chosen(numbers)["age"]] == ["N8", "N7", "N6", "N1", "N0"]
    pictures = {one.key: (b"picture", b"tiles") for members in found.values() for one in members}
    text = _text(tmp_path, explained_section(given, pictures, None, "heatmaps/m/"))
    assert text.count("data:image/jpeg") == 12 and "W3, labelled a: a 0.650 · ✘ mistaken" in text
    assert rows_of(text, "explained")[1] == ["S0", "a", "a", "a", "0.500", "7", "0.500", "0.100", "–", "0.250", "0.500"]
    assert explained_section([], {}, None, "") is None


def test_a_class_is_called_predicted_only_where_it_is(tmp_path: Path) -> None:
    """As with `--target-class every`: a heatmap of each class, whatever is predicted."""
    given = [_explained("A", "a", 0.9, True), _explained("B", "b", 0.8, True)]
    given += [
        replace(_explained("B", "a", 0.2, None), predicted="b"),
        replace(given[0], aim="c", value=0.05, right=None),
    ]
    found = chosen(given)
    assert [[one.slide_id for one in members] for members in found.values()] == [["A"], ["B"], ["A"]]
    pictures = {one.key: (b"picture", None) for members in found.values() for one in members}
    text = _text(tmp_path, explained_section(given, pictures, None, "heatmaps/m/"))
    assert [head for head in ("a", "b", "c") if f"Predicted <code>{head}</code>" in text] == ["a", "b"]
    assert "<code>c</code>, predicted of no slide" in text and "Shown: of each class the slides" in text
    few = {key: picture for key, picture in pictures.items() if key[1] != "c"}
    assert "Shown: of 2 of 3 classes the slides" in _text(tmp_path, explained_section(given, few, None, "heatmaps/m/"))


def test_a_slide_has_one_vote_in_the_mean_curves() -> None:
    flat = {name: Curve([0.0, 1.0], [0.4, 0.4]) for name in ("deletion", "insertion", "random")}
    high = {name: Curve([0.0, 1.0], [0.8, 0.8]) for name in ("deletion", "insertion", "random")}
    slides = [replace(_explained(name, "a", 0.9, True), curves=flat) for name in ("A", "B")]
    further = replace(slides[0], aim="b", predicted="a", curves=high)  # of the class that isn't predicted
    for name, curve in _mean_curves([slides[0], further, slides[1]]):
        assert curve.y == pytest.approx([0.4] * 20), name
