"""The report and the whole chain as people call them: what is shown at the end, and what after a failure."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest

from tests.integration.conftest import Call
from tests.unit.report.test_report import Parsed, rows_of

NAME = "abmil-label-efficientnet-lite0"


@pytest.fixture
def run(reported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    run = tmp_path / "run"
    shutil.copytree(reported, run)
    return run


def _table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_the_page_shows_the_whole_run(reported: Path) -> None:
    text = (reported / "report.html").read_text(encoding="utf-8")
    page = Parsed(text)
    headings = {str(given["id"]) for tag, given in page.tags if tag == "section"}
    assert headings >= {"results", "heatmaps", "cohort", "tissue", "splits", "training", "work", "reproduce"}
    assert "missing" not in headings and "failures" not in headings
    assert len(rows_of(text, "slides")) == 12 and len(rows_of(text, "explained")) == 12
    work = {row[0]: row for row in rows_of(text, "work")[1:]}
    assert work["extract"][1:5] == ["11", "11", "0", "0"] and float(work["extract"][7]) > 0
    assert work["train"][-1] == f"train/{NAME}/" and "bottleneck: " in page.text
    origins = {row[0]: row for row in rows_of(text, "origins")[1:]}
    assert origins["extract"][1] == "11 artefacts, together" and len(origins["evaluate"][3]) == 32
    assert len(origins["encoder"][3]) == 64 and "tile_px: 112" in page.text
    assert len(text) < 12_000_000


def test_the_end_of_a_run_says_what_became_of_every_stage(pathpipe: Call, reported: Path) -> None:
    rows = {row["stage"]: row for row in _table(pathpipe("report", reported).stdout)}
    assert list(rows)[-3:] == ["heatmap", "explanations", "report"]
    assert (rows["extract"]["units"], rows["extract"]["current"], rows["extract"]["done"]) == ("11", "11", "0")
    assert rows["train"]["where"] == f"{reported}/train/{NAME}/"
    assert rows["report"]["where"] == f"{reported}/report.html" and rows["report"]["seconds"] == "0"


def test_a_report_of_what_is_there(pathpipe: Call, run: Path) -> None:
    shutil.rmtree(run / "evaluate")
    shutil.rmtree(run / "heatmaps" / NAME / "S03")
    before = sorted(path for path in run.rglob("*") if "receipts" not in path.parts)
    pathpipe("report", run, "--as-it-is")
    assert sorted(path for path in run.rglob("*") if "receipts" not in path.parts) == before, "nothing else was made"
    absent = {row[0]: row[2] for row in rows_of((run / "report.html").read_text(encoding="utf-8"), "absent")}
    assert absent["evaluation"] == "pathpipe evaluate RUN" and absent["heatmaps"] == "pathpipe heatmap RUN"


def test_a_failure_in_the_chain_is_shown_by_the_report(pathpipe: Call, run: Path) -> None:
    shutil.rmtree(run / "evaluate")
    (run / "evaluate").write_text("in the way")
    done = pathpipe("report", run, check=1)
    assert "failed: evaluate" in done.stderr
    text = (run / "report.html").read_text(encoding="utf-8")
    assert [row[:3] for row in rows_of(text, "trouble")[1:]] == [["cohort", "evaluate", "✘ failed"]]
    assert "evaluation" in [row[0] for row in rows_of(text, "absent")]


def test_two_models_side_by_side(pathpipe: Call, run: Path) -> None:
    pathpipe("train", run, "--model", "mean", "--epochs", "2")
    models = [run / "train" / name for name in (NAME, "mean-label-efficientnet-lite0")]
    done = pathpipe("report", "--compare", *models)
    page = run / "compare" / f"{NAME}-vs-mean-label-efficientnet-lite0" / "comparison.html"
    assert str(page) in done.stderr
    text = page.read_text(encoding="utf-8")
    assert rows_of(text, "models")[0] == ["metric", "abmil", "mean", "colour only (6 numbers)"]
    assert {row[0] for row in rows_of(text, "settings")} == {"setting", "train.model", "train.epochs"}
    for wrong, said in ((["--compare", models[0]], "two models"), (models, "--compare"), ([], "nothing to work on")):
        assert said in pathpipe("report", *wrong, check=2).stderr


def test_several_configs_make_a_run_each(pathpipe: Call, run: Path, cohort_csv: Path, tmp_path: Path) -> None:
    settings = (run / "settings.yaml").read_text(encoding="utf-8")
    good, bad = tmp_path / "run.yaml", tmp_path / "bad.yaml"
    good.write_text(f"cohort: {cohort_csv}\n{settings}", encoding="utf-8")
    bad.write_text("cohort: nowhere.csv\n", encoding="utf-8")
    done = pathpipe("run", bad, good, "-o", tmp_path, check=2)
    ends = [line.split("\t") for line in done.stdout.splitlines() if line.startswith(str(tmp_path))]
    assert [row[:2] for row in ends] == [[str(bad), "2"], [str(good), "0"]] and "nowhere.csv" in ends[0][2]
    assert "report\t1\t" in done.stdout, "the other went on"
