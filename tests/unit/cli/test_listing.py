"""`pathpipe models`: models and wrappers in one table, and all that is known of one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pathpipe.cli.app import main
from pathpipe.mil.registry import MODELS, WRAPPERS, model_class


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    return int(str(stop.value.code or 0)), out, err


def _rows(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    code, out, _ = _run([*arguments, "--form", "json"], capsys)
    assert code == 0
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


def test_the_table_has_every_model_and_wrapper(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in _rows(["models"], capsys)}
    assert list(rows) == [*MODELS.names(), *WRAPPERS.names()]
    assert all(row["idea"] and row["from"] == "pathpipe" for row in rows.values())
    assert {name for name, row in rows.items() if row["attention"] == "yes"} == {
        name for name in MODELS.names() if model_class(name).card.attention
    }
    assert rows["clam-sb"] == {
        "name": "clam-sb",
        "kind": "model",
        "idea": "Gated attention; its extremes train an instance classifier",
        "parameters": 790_791,
        "attention": "yes",
        "paper": model_class("clam-sb").card.paper,
        "from": "pathpipe",
    }
    assert (rows["max"]["parameters"], rows["max"]["attention"]) == (525_826, "no")
    assert (rows["aem"]["kind"], rows["aem"]["parameters"]) == ("wrapper", "+0")
    assert "arXiv:2406.15303" in rows["aem"]["paper"]
    assert all(isinstance(row["parameters"], int) for row in rows.values() if row["kind"] == "model")


def test_a_model_shows_its_options_with_defaults_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {row["field"]: row["value"] for row in _rows(["models", "dtfd"], capsys)}
    assert (shown["kind"], shown["parameters"], shown["permutation_invariant"]) == ("model", 789_254, False)
    assert shown["-s groups=4"] == "Pseudo-bags a bag is split into (5 in the paper)"
    assert "-s distil=afs" in shown and "-s hidden=512" in shown


def test_a_wrapper_shows_how_it_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {row["field"]: row["value"] for row in _rows(["models", "aem"], capsys)}
    assert (shown["kind"], shown["parameters"]) == ("wrapper", "+0")
    assert shown["--with aem=VALUE"] == "the same as aem.weight=VALUE"
    assert shown["--with aem.schedule=constant"].startswith("The weight over training")
    assert shown["--with aem.weight=0.1"].startswith("Weight of the negative entropy")


def test_a_mistyped_name_is_met_with_the_nearest_of_both(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, meant in (("dtdf", "dtfd"), ("aemm", "aem")):
        code, _, err = _run(["models", typed], capsys)
        assert code == 2 and f"no model or wrapper `{typed}`" in err and f"did you mean `{meant}`" in err
