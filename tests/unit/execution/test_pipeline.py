"""The pipeline: where a chain goes on and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pathpipe.cohort import Cohort
from pathpipe.execution import pipeline
from pathpipe.execution.local import Listener
from pathpipe.execution.receipt import Receipt, State
from pathpipe.run import Run
from pathpipe.settings import RunSettings

CHAIN = ["tissue", "tile", "contact-sheet", "split", "evaluate"]


@pytest.mark.parametrize(
    ("fails", "state", "reached"),
    [
        ("tile", "failed", CHAIN[1:]),
        ("tile", "stale", ["tile"]),
        ("contact-sheet", "failed", CHAIN[1:]),
        ("split", "failed", ["tile", "contact-sheet", "split"]),
    ],
    ids=["slides stay out", "stale slides end it", "a view ends nothing", "a stage of the cohort ends it"],
)
def test_what_ends_a_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, state: State, reached: list[str]
) -> None:
    (tmp_path / "S1.svs").write_text("pixels")
    run = Run.create(tmp_path / "run", Cohort.read(tmp_path / "S1.svs"))
    worked: list[str] = []

    def work(run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Any) -> Any:
        worked.append(stages[-1])
        return {key: [Receipt(stages[-1], key, state if stages[-1] == fails else "done")] for key in keys}

    monkeypatch.setattr(pipeline, "run_units", work)
    monkeypatch.setattr(pipeline, "upstream", lambda stage: CHAIN)
    outcome = pipeline.bring_up_to_stage(run, "evaluate", RunSettings(), Listener())
    assert worked == reached
    assert [one.stage for one in outcome.of(state)] == [fails]
