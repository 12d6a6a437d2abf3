"""What is finished is found by several processes as by one, and what is damaged or missing is left to be made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pathpipe.execution import dispatch, local, looking
from pathpipe.execution.listener import Listener
from pathpipe.execution.receipt import Receipt
from pathpipe.run import Run


class Heard(Listener):
    """Remembers which units were finished."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def finished(self, key: str, receipts: list[Receipt]) -> None:
        """A unit is through."""
        self.keys.append(key)


@pytest.mark.parametrize("per_process", [4, 1000])
def test_finished_units_are_found(
    extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_process: int
) -> None:
    shutil.copytree(extracted, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    settings, keys = run.settings(), [slide.slide_id for slide in run.cohort.slides]
    run.tiles(keys[0]).write_bytes(run.tiles(keys[0]).read_bytes()[:2000])
    run.tissue(keys[1]).unlink()
    monkeypatch.setattr(looking, "_PER_PROCESS", per_process)
    monkeypatch.setattr(looking, "cores", lambda: 2)
    heard = Heard()
    found = looking.finished_already(run, ["tissue", "tile"], settings, keys, heard)
    assert list(found) == heard.keys == keys[2:]
    assert all([one.state for one in receipts] == ["current", "current"] for receipts in found.values())

    other = settings.model_copy(update={"tile": settings.tile.model_copy(update={"tile_px": 64})})
    found = looking.finished_already(run, ["tissue", "tile"], other, keys, Listener())
    assert [one.state for one in found[keys[2]]] == ["current", "stale"]


def test_a_large_cohort_is_looked_at_first(extracted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(extracted)
    settings, keys = run.settings(), [slide.slide_id for slide in run.cohort.slides]

    def refuse(*_: object) -> dict[str, list[Receipt]]:
        raise AssertionError("a worker was asked")

    monkeypatch.setattr(dispatch, "_MANY", len(keys))
    monkeypatch.setattr(local, "run_units", refuse)
    found = dispatch.run_units(run, ["tissue", "tile"], settings, keys, Listener())
    assert list(found) == keys and {one.state for receipts in found.values() for one in receipts} == {"current"}
    monkeypatch.setattr(dispatch, "_MANY", len(keys) + 1)
    with pytest.raises(AssertionError, match="a worker was asked"):
        dispatch.run_units(run, ["tissue", "tile"], settings, keys, Listener())
