"""The pipeline: where a chain goes on and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pathpipe.cohort import Cohort
from pathpipe.errors import ExitCode, SettingsError
from pathpipe.execution import pipeline
from pathpipe.execution.listener import Listener
from pathpipe.execution.receipt import Receipt, State
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages import chain

CHAIN = ["tissue", "tile", "contact-sheet", "split", "evaluate", "report"]


def test_a_view_that_refuses_on_grounds_of_leakage_ends_the_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cohort.csv").write_text("path,label\nS1.svs,a\n")
    run = Run.create(tmp_path / "run", Cohort.read(tmp_path / "cohort.csv"))
    assert chain.upstream("train")[-3:] == ["split", "audit", "train"]
    for refused, reached in ((True, ["audit"]), (False, ["audit", "evaluate"])):
        worked: list[str] = []

        def work(
            run: Run,
            stages: Sequence[str],
            settings: RunSettings,
            keys: Sequence[str],
            listener: Any,
            worked: list[str] = worked,
            refused: bool = refused,
        ) -> Any:
            worked.append(stages[-1])
            bad = Receipt(stages[-1], "cohort", "failed", refused=refused)
            return {key: [bad if stages[-1] == "audit" else Receipt(stages[-1], key, "done")] for key in keys}

        monkeypatch.setattr(pipeline, "run_units", work)
        monkeypatch.setattr(pipeline, "upstream", lambda stage: ["audit", "evaluate"])
        outcome = pipeline.bring_up_to_stage(run, "evaluate", RunSettings(), Listener())
        assert worked == reached
        assert outcome.exit_code(9) is (ExitCode.REFUSED if refused else ExitCode.SOME_FAILED)


@pytest.mark.parametrize(
    ("fails", "state", "reached"),
    [
        ("tile", "failed", CHAIN[1:]),
        ("tile", "stale", ["tile"]),
        ("contact-sheet", "failed", CHAIN[1:]),
        ("split", "failed", ["tile", "contact-sheet", "split", "report"]),
        ("split", "stale", ["tile", "contact-sheet", "split"]),
    ],
    ids=["slides stay out", "stale slides end it", "a view ends nothing", "then the report says so", "but not of old"],
)
def test_what_ends_a_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, state: State, reached: list[str]
) -> None:
    (tmp_path / "S1.svs").write_text("pixels")
    (tmp_path / "cohort.csv").write_text("path,label\nS1.svs,a\n")
    run = Run.create(tmp_path / "run", Cohort.read(tmp_path / "cohort.csv"))
    worked: list[str] = []

    def work(run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Any) -> Any:
        worked.append(stages[-1])
        return {key: [Receipt(stages[-1], key, state if stages[-1] == fails else "done")] for key in keys}

    monkeypatch.setattr(pipeline, "run_units", work)
    monkeypatch.setattr(pipeline, "upstream", lambda stage: CHAIN)
    outcome = pipeline.bring_up_to_stage(run, "evaluate", RunSettings(), Listener())
    assert worked == reached
    assert [one.stage for one in outcome.of(state)] == [fails]


def test_a_stage_alone_leaves_the_others_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cohort.csv").write_text("path,label\nS1.svs,a\n")
    run = Run.create(tmp_path / "run", Cohort.read(tmp_path / "cohort.csv"))
    worked: list[str] = []

    def work(run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Any) -> Any:
        worked.append(stages[-1])
        return {key: [Receipt(stages[-1], key, "done")] for key in keys}

    monkeypatch.setattr(pipeline, "run_units", work)
    pipeline.bring_up_to_stage(run, "report", RunSettings(), Listener(), alone=True)
    assert worked == ["report"]


@pytest.mark.parametrize(
    ("stage", "shard", "expected"),
    [
        ("extract", "1/4", ["tissue", "tile", "extract"]),  # of its own slides
        ("embed", "1/4", ["embed"]),
        ("train", "1/4", ["split", "audit", "train"]),  # who comes first audits; no one trains on a leak
        ("audit", "0/1", ["split", "audit"]),
        ("report", "0/1", ["contact-sheet", "evaluate", "heatmap", "explanations", "report"]),
    ],
)
def test_a_part_leaves_other_parts_work_alone(stage: str, shard: str, expected: list[str]) -> None:
    settings = RunSettings.model_validate({"execution": {"shard": shard}})
    assert pipeline.chain_of(stage, settings) == expected
    assert pipeline.chain_of(stage, RunSettings()) == chain.upstream(stage)


def test_one_unit_is_not_shared_out(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("path,label\nS1.svs,a\n")
    run = Run.create(tmp_path / "run", Cohort.read(tmp_path / "cohort.csv"))
    settings = RunSettings.model_validate({"execution": {"shard": "1/2"}})
    with pytest.raises(SettingsError, match="`audit` has one unit"):
        pipeline.bring_up_to_stage(run, "audit", settings, Listener())
