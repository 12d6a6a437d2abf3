"""bring_up_to_date: what is current, what is stale, what is remade, and that nothing escapes but an interrupt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pathpipe.cohort import Cohort
from pathpipe.errors import SlideError, StoreError
from pathpipe.execution.receipt import read_receipt
from pathpipe.execution.unit import bring_up_to_date
from pathpipe.lease import Lease
from pathpipe.provenance import FOLDER_FILE
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.stages.stage import Job, Made, Stage, sections


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "S1.svs").write_text("pixels")
    return Run.create(tmp_path / "run", Cohort.read(tmp_path / "S1.svs"))


def _stage(make: Callable[[Job], Made], source: str = "v1", version: int = 1) -> Stage:
    return Stage(
        name="toy",
        version=version,
        packages=(),
        what=sections("tile"),
        inputs=lambda run, key, settings: {"source": source},
        output=lambda run, key, settings: run.folder / "toy" / key,
        make=make,
        check=_check,
    )


def _check(path: Path) -> Made:
    if (path / "content").read_text() == "damaged":
        raise StoreError("damaged")
    return Made()


def _write(job: Job) -> Made:
    job.target.mkdir()
    (job.target / "content").write_text("whole")
    (job.target / FOLDER_FILE).write_text(json.dumps(job.provenance.to_dict()))
    return Made(counts={"n": 1})


def _never(job: Job) -> Made:
    raise AssertionError("made although it was current")


def _settings(**tile: float) -> RunSettings:
    return merge(RunSettings, [("test", {"tile": tile})])[0]


def test_made_once_then_current(run: Run) -> None:
    first = bring_up_to_date(_stage(_write), run, "S1", _settings())
    assert (first.state, first.counts) == ("done", {"n": 1})
    assert bring_up_to_date(_stage(_never), run, "S1", _settings()).state == "current"
    kept = read_receipt(run, "toy", "S1")
    assert kept is not None and kept.state == "done"
    assert not run.lease("toy", "S1").exists()


def test_other_settings_are_stale_and_named(run: Run) -> None:
    bring_up_to_date(_stage(_write), run, "S1", _settings(mpp=0.5))
    stale = bring_up_to_date(_stage(_never), run, "S1", _settings(mpp=0.25))
    assert stale.state == "stale"
    assert stale.reason == "was made from something else (settings.tile.mpp: 0.5 -> 0.25)"
    assert "--stale remake" in (stale.hint or "")
    assert bring_up_to_date(_stage(_never), run, "S1", _settings(mpp=0.5)).state == "current"
    kept = read_receipt(run, "toy", "S1")
    assert kept is not None and kept.state == "current", "the receipt of trouble doesn't outlive it"


@pytest.mark.parametrize(
    ("source", "version", "named"), [("v2", 1, "input.source"), ("v1", 2, "stage version: 1 -> 2")]
)
def test_other_inputs_or_version_are_stale(run: Run, source: str, version: int, named: str) -> None:
    bring_up_to_date(_stage(_write), run, "S1", _settings())
    stale = bring_up_to_date(_stage(_never, source, version), run, "S1", _settings())
    assert stale.state == "stale" and named in (stale.reason or "")


def test_stale_policies(run: Run) -> None:
    bring_up_to_date(_stage(_write), run, "S1", _settings(mpp=0.5))
    keep, remake = (
        merge(RunSettings, [("test", {"tile": {"mpp": 0.25}, "execution": {"stale": policy}})])[0]
        for policy in ("keep", "remake")
    )
    assert bring_up_to_date(_stage(_never), run, "S1", keep).state == "current"
    assert bring_up_to_date(_stage(_write), run, "S1", remake).state == "done"
    assert bring_up_to_date(_stage(_never), run, "S1", _settings(mpp=0.25)).state == "current"


def test_execution_settings_never_make_anything_stale(run: Run) -> None:
    bring_up_to_date(_stage(_write), run, "S1", _settings())
    other = merge(RunSettings, [("test", {"execution": {"workers": 3, "tiles_per_batch": 7}})])[0]
    assert bring_up_to_date(_stage(_never), run, "S1", other).state == "current"


def test_damaged_result_is_made_again(run: Run) -> None:
    bring_up_to_date(_stage(_write), run, "S1", _settings())
    (run.folder / "toy" / "S1" / "content").write_text("damaged")
    assert bring_up_to_date(_stage(_write), run, "S1", _settings()).state == "done"
    assert (run.folder / "toy" / "S1" / "content").read_text() == "whole"


def _fail_with(error: BaseException) -> Callable[[Job], Made]:
    def make(job: Job) -> Made:
        job.target.mkdir()
        raise error

    return make


@pytest.mark.parametrize(
    ("error", "reason", "hint"),
    [
        (SlideError("ends early", "S1.svs", "scan it again"), "S1.svs: ends early", "scan it again"),
        (OSError(28, "No space left on device"), "No space left on device", "free some space"),
        (MemoryError(), "not enough memory", "--workers"),
        (ZeroDivisionError("x"), "unforeseen ZeroDivisionError: x", "please report"),
    ],
)
def test_failures_become_receipts_and_leave_nothing(run: Run, error: Exception, reason: str, hint: str) -> None:
    receipt = bring_up_to_date(_stage(_fail_with(error)), run, "S1", _settings())
    assert receipt.state == "failed"
    assert receipt.reason == reason and hint in (receipt.hint or "")
    assert (receipt.trace is not None) == isinstance(error, ZeroDivisionError)
    assert list((run.folder / "toy").iterdir()) == []
    assert bring_up_to_date(_stage(_fail_with(error)), run, "S1", _settings()).attempts == 2
    assert bring_up_to_date(_stage(_write), run, "S1", _settings()).state == "done"


def test_interrupt_passes_through_and_gives_the_lease_back(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(_stage(_fail_with(KeyboardInterrupt())), run, "S1", _settings())
    assert not run.lease("toy", "S1").exists()
    assert list((run.folder / "toy").iterdir()) == []


def test_a_held_lease_is_busy(run: Run) -> None:
    with Lease.acquire(run.lease("toy", "S1")) or pytest.fail("lease"):
        assert bring_up_to_date(_stage(_never), run, "S1", _settings()).state == "busy"


def test_a_worker_that_lost_its_lease_does_not_publish(run: Run) -> None:
    def make(job: Job) -> Made:
        made = _write(job)
        run.lease("toy", "S1").write_text('{"token": "of somebody else"}')
        return made

    receipt = bring_up_to_date(_stage(make), run, "S1", _settings())
    assert receipt.state == "busy" and "lease was lost" in (receipt.reason or "")
    assert list((run.folder / "toy").iterdir()) == []


def test_a_stale_view_is_made_anew(run: Run) -> None:
    view = replace(_stage(_write), view=True)
    bring_up_to_date(view, run, "S1", _settings(mpp=0.5))
    assert bring_up_to_date(view, run, "S1", _settings(mpp=0.25)).state == "done"
    assert bring_up_to_date(replace(_stage(_never), view=True), run, "S1", _settings(mpp=0.25)).state == "current"
