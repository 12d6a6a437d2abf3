"""`pathpipe plan`: what it says of a cohort is what `tile` and `extract` then make, and every conflict is named."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pathpipe.cli.app import main
from pathpipe.execution import planning
from pathpipe.execution.planning import SLIDE_KEYS, TOTAL_KEYS
from pathpipe.run import Run
from pathpipe.samples.cohort import _textures
from pathpipe.samples.painting import Recipe, paint
from pathpipe.slides.writer import shrink, write_svs
from pathpipe.stages.forecast import Rates, choose, disk_bytes, probe
from pathpipe.stages.plan import CONFLICTS, SlidePlan, find_conflicts
from pathpipe.tiles.table import read_tiles

GRID = ("--mpp", "0.5", "--tile-px", "64", "--min-area-um2", "2000")


def _slide(path: Path, mpp: float, levels: tuple[int, ...] = (1, 4), seed: int = 0) -> None:
    """About 160 x 130 um of real tissue at `mpp`, whatever the texture's own resolution."""
    tissue, other = _textures()
    image = paint(Recipe((200, 160), 1, True), tissue, other, 0.5, np.random.default_rng(seed)).image
    image = np.asarray(cv2.resize(image, None, fx=0.5 / mpp, fy=0.5 / mpp, interpolation=cv2.INTER_CUBIC), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_svs(path, [shrink(image, factor) for factor in levels], mpp, 40)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides of four resolutions and pyramids, none of which is in the way."""
    folder = tmp_path_factory.mktemp("mixed") / "slides"
    for name, mpp, levels in (
        ("half", 0.5, (1, 4)),
        ("quarter", 0.25, (1, 4)),
        ("odd", 0.2528, (1, 2, 4)),
        ("between", 0.3417, (1,)),
    ):
        _slide(folder / f"{name}.svs", mpp, levels, seed=3)
    return folder


def _plan(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    assert _main("plan", *arguments, "--json") == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _main(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("--overlap-px", "17"),
        ("--min-tissue", "0.9", "--tissue-mpp", "4"),
        ("--reader", "openslide"),
    ],
    ids=" ".join,
)
def test_tiles_are_exactly_those_that_tile_makes(
    mixed: Path, settings: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = _plan(capsys, mixed, *GRID, *settings, "--no-probe")
    assert _main("tile", mixed, "-o", tmp_path / "run", *GRID, *settings) == 0
    run = Run.open(tmp_path / "run")
    assert sorted(row["slide_id"] for row in planned["slides"]) == ["between", "half", "odd", "quarter"]
    for row in planned["slides"]:
        grid = read_tiles(run.tiles(row["slide_id"])).grid
        assert row["tiles"] == len(grid.xy0) > 0
        assert (row["level"], row["shrink"], tuple(row["read_px"])) == (
            grid.plan.level,
            grid.plan.shrink,
            grid.plan.read_px,
        )
        assert row["mpp_effective"] == list(grid.plan.mpp_effective)
        assert row["mpp_error_percent"] == pytest.approx(100 * grid.plan.error)
        assert row["resize"] == [64 / side for side in grid.plan.read_px]
    assert planned["totals"]["tiles"] == sum(row["tiles"] for row in planned["slides"])


def test_folders_of_outlines_and_regions_count(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a slide is drawn by hand: plan counts in it what tile lays into it."""
    square = [[0, 0], [180, 0], [180, 400], [0, 400], [0, 0]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [square]}}
    for folder in ("masks", "exclude"):
        (tmp_path / folder).mkdir()
    (tmp_path / "masks" / "half.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    corner = [[0, 0], [90, 0], [90, 90], [0, 90], [0, 0]]
    feature = {**feature, "geometry": {"type": "Polygon", "coordinates": [corner]}}
    (tmp_path / "exclude" / "half.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    options = ("--mask-dir", tmp_path / "masks", "--exclude", tmp_path / "exclude")
    (row,) = _plan(capsys, mixed / "half.svs", *GRID, *options, "--no-probe")["slides"]
    (bare,) = _plan(capsys, mixed / "half.svs", *GRID, "--no-probe")["slides"]
    assert _main("tile", mixed / "half.svs", "-o", tmp_path / "run", *GRID, *options) == 0
    assert row["tiles"] == len(read_tiles(Run.open(tmp_path / "run").tiles("half")).grid.xy0) != bare["tiles"]


def test_coordinates_of_another_slide_are_named_as_what_was_given(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main("tile", mixed / "half.svs", "-o", tmp_path / "run", *GRID) == 0
    tables = tmp_path / "run" / "tiles"
    (tables / "half.h5").rename(tables / "quarter.h5")
    (conflict,) = _plan(capsys, mixed / "quarter.svs", "--coords-dir", tables, "--no-probe", code=2)["conflicts"]
    assert conflict["kind"] == "given" and "quarter.h5 was made for another slide" in conflict["reason"]


def test_the_keys_are_those_of_the_documentation(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = _plan(capsys, mixed, *GRID, "--no-probe")
    assert list(planned) == ["format", "version", "slides", "conflicts", "rates", "totals"]
    assert (planned["format"], planned["version"]) == ("pathpipe-plan", 1)
    assert all(list(row) == list(SLIDE_KEYS) for row in planned["slides"])
    assert list(planned["totals"]) == list(TOTAL_KEYS)
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    section = page.partition("## Plan: JSON")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE))
    for table in (SLIDE_KEYS, TOTAL_KEYS, CONFLICTS):
        for name, meaning in table.items():
            assert told.get(name) == meaning, name


def test_disk_and_time_of_a_run_that_was_made(
    extracted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The forecast of features and tile tables is within 5% of the files, and the probe gives hours to all slides."""
    before = {path: path.stat().st_mtime_ns for path in extracted.rglob("*") if path.is_file()}
    table = tmp_path / "plan.csv"
    planned = _plan(capsys, extracted, "--csv", table, "--tiles-per-batch", "8")
    assert {path: path.stat().st_mtime_ns for path in extracted.rglob("*") if path.is_file()} == before
    files = [path for part in ("features", "tiles") for path in (extracted / part).rglob("*.h5")]
    pictures = 600_000 * len(planned["slides"])
    assert planned["totals"]["disk_gb"] * 1e9 - pictures == pytest.approx(
        sum(path.stat().st_size for path in files), rel=0.05
    )
    assert planned["rates"]["tiles_read"] > 0 and planned["rates"]["encode_tiles_per_s"] > 0
    for row in planned["slides"]:
        assert row["tiles"] == len(read_tiles(Run.open(extracted).tiles(row["slide_id"])).grid.xy0)
        assert row["extract_s"] == max(row["read_s"], row["encode_s"]) > 0
    hours = sum(row["extract_s"] for row in planned["slides"]) / 3600
    assert planned["totals"]["extract_hours"] == pytest.approx(hours)
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["slide_id"], int(row["tiles"])) for row in rows] == [
        (row["slide_id"], row["tiles"]) for row in planned["slides"]
    ]


def test_a_given_rate_is_shared_by_gpus(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = _plan(capsys, mixed, *GRID, "--no-probe", "--gpu-rate", "200", "--gpus", "4")
    tiles = planned["totals"]["tiles"]
    assert planned["totals"]["encode_hours"] == pytest.approx(tiles / 200 / 4 / 3600)
    assert planned["totals"]["extract_hours"] is None  # nobody has read anything
    assert _main("plan", mixed, "--gpus", "4") == 2
    assert "--gpu-rate" in capsys.readouterr().err


@pytest.fixture
def troubled(tmp_path: Path, mixed: Path) -> Path:
    folder = tmp_path / "troubled"
    shutil.copytree(mixed, folder)
    shutil.copy(folder / "half.svs", folder / "twin.svs")
    _slide(folder / "coarse.svs", 1.0, seed=1)
    _slide(folder / "blurred.svs", 0.53, seed=2)
    cut = (folder / "half.svs").read_bytes()
    (folder / "cut.svs").write_bytes(cut[: len(cut) // 3])
    (folder / "empty.svs").touch()
    tissue, other = _textures()
    image = paint(Recipe((200, 160), 1, True, blank=True), tissue, other, 0.5, np.random.default_rng(0)).image
    write_svs(folder / "blank.svs", [image], 0.5)
    write_svs(folder / "silent.svs", [image], None)
    write_svs(folder / "nonsense.svs", [image], 264.0)
    return folder


def test_every_conflict_is_named_and_the_rest_is_planned(
    troubled: Path, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = _plan(capsys, troubled, *GRID, "--no-probe", code=2)
    found = {one["slide_id"]: (one["kind"], one["reason"]) for one in planned["conflicts"]}
    assert {name: kind for name, (kind, _) in found.items()} == {
        "blurred": "enlarged",
        "coarse": "too coarse",
        "cut": "unreadable",
        "empty": "unreadable",
        "nonsense": "resolution",
        "silent": "resolution",
        "twin": "duplicate",
    }
    assert "enlarged 1.06 times" in found["blurred"][1]
    assert found["twin"][1] == "has the same content as half"
    assert "264" in found["nonsense"][1] and "0 bytes" in found["empty"][1]
    rows = {row["slide_id"]: row for row in planned["slides"]}
    alone = {row["slide_id"]: row for row in _plan(capsys, mixed, *GRID, "--no-probe")["slides"]}
    assert all(rows[name]["tiles"] == alone[name]["tiles"] for name in alone)
    assert rows["blank"]["tiles"] == 0 and "no tissue" in rows["blank"]["empty_reason"]  # nothing wrong with it
    assert rows["coarse"]["tiles"] is None and rows["coarse"]["mpp"] == [1.0, 1.0]
    assert planned["totals"]["slides_in_conflict"] == 7

    assert _main("plan", troubled, *GRID, "--no-probe") == 2
    told = capsys.readouterr()
    assert "conflict: twin: duplicate: has the same content as half" in told.err and "7 in conflict" in told.err
    assert len(told.out.splitlines()) == 1 + len(rows)


def test_processes_side_by_side_find_the_same(troubled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = _plan(capsys, troubled, *GRID, "--no-probe", "--workers", "1", code=2)
    two = _plan(capsys, troubled, *GRID, "--no-probe", "--workers", "2", code=2)
    for planned in (one, two):
        del planned["totals"]["tile_hours"]
        for row in planned["slides"]:
            del row["plan_s"]
    assert one == two


def test_what_nobody_foresaw_costs_one_slide(
    mixed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathpipe.stages.plan import plan_slide

    def broken(row: Any, settings: Any) -> SlidePlan:
        if row.slide_id == "odd":
            raise ZeroDivisionError("by nothing")
        return plan_slide(row, settings)

    monkeypatch.setattr("pathpipe.execution.planning.plan_slide", broken)
    planned = _plan(capsys, mixed, *GRID, "--no-probe", code=2)
    (conflict,) = planned["conflicts"]
    assert conflict["slide_id"] == "odd" and "ZeroDivisionError: by nothing" in conflict["reason"]
    assert [row["slide_id"] for row in planned["slides"] if row["tiles"]] == ["between", "half", "quarter"]


def test_settings_that_would_fail_every_slide_stop_at_once(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (("--method", "otsy"), ("--reader", "opensslide"), ("--encoder", "uno")):
        assert _main("plan", mixed, option, value, "--json") == 2
        told = capsys.readouterr()
        assert "did you mean" in told.err and not told.out


def test_tiles_too_small_to_be_right_are_a_conflict(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = _plan(capsys, mixed / "between.svs", *GRID, "--tile-px", "8", "--no-probe", code=2)
    (conflict,) = planned["conflicts"]
    # 8 px at 0.5 are 11.7 px at 0.3417: 12 are read, which is 0.5126 um/px
    assert conflict["kind"] == "mpp error" and "0.5126 um/px, 2.5% off the 0.5" in conflict["reason"]


def test_the_probe_takes_one_slide_of_each_way_of_reading_and_always_the_same(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pathpipe.cohort import Cohort
    from pathpipe.execution.listener import Listener
    from pathpipe.settings import RunSettings, merge

    settings, _ = merge(RunSettings, [("test", {"tile": {"tile_px": 64}, "tissue": {"min_area_um2": 2000}})])
    planned = planning.plan_cohort(Cohort.read(mixed), settings, Listener(), probed=False)
    plans = planned.slides
    assert [plan.slide_id for plan in choose(plans)] == [plan.slide_id for plan in choose(plans)]
    assert len(choose(plans)) == 4 and len(choose(plans, 2)) == 2
    rates = probe(plans, settings, encode=False)
    assert rates.tiles == sum(min(16, plan.tiles or 0) for plan in plans)
    assert set(rates.read_s_per_mpx) == {"direct"} and rates.read_s_per_mpx["direct"] > 0
    given = Rates(read_s_per_mpx={"direct": 10.0}, encode_tiles_per_s=2.0)
    half = next(plan for plan in plans if plan.slide_id == "half")
    assert half.tiles and half.read and half.read.read_px == (64, 64)
    assert given.read_s(half) == pytest.approx(half.tiles * 64 * 64 / 1e6 * 10)
    assert given.extract_s(half) == half.tiles / 2  # encoding is slower
    assert disk_bytes(half, settings.extract) == half.tiles * (1280 * 2 + 36) + 617_000
    assert find_conflicts(plans) == []
