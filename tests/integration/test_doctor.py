"""`pathpipe doctor` as people call it: JSON, plain lines, exit codes, crashes that cost one slide."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pathpipe.testing.slides import cut_short, plain_tiff, position_pixels, position_slide, position_zarr
from tests.integration.conftest import Call, environment


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    position_slide(folder / "a.svs", [(700, 500), (175, 125)], mpp=0.25)
    shutil.copy(folder / "a.svs", folder / "b copy.svs")
    position_zarr(folder / "c.zarr", [(200, 100)], (0.5, 0.5))
    cut_short(plain_tiff(folder / "cut.tif", position_pixels((640, 640)), (0.5, 0.5)), 0.6)
    (folder / "zero.svs").touch()
    return folder


def test_json_says_all_of_it(pathpipe: Call, cohort: Path) -> None:
    done = pathpipe("doctor", cohort, "--json", "--tiles", "2", check=1)
    said = json.loads(done.stdout)
    assert said["counts"] == {"sound": 3, "damaged": 0, "unreadable": 2}
    slides = {one["slide_id"]: one for one in said["slides"]}
    assert list(slides) == ["a", "b copy", "c", "cut", "zero"]
    assert slides["b copy"]["duplicate_of"] == "a" and slides["a"]["duplicate_of"] is None
    assert slides["c"]["reader"] == "omezarr" and slides["c"]["mpp"]["x"] == 0.5
    assert slides["zero"]["damage"][0]["reason"] == "is empty (0 bytes)"
    assert "damaged" in slides["cut"]["damage"][0]["reason"]
    again = pathpipe("doctor", cohort, "--json", "--tiles", "2", "--workers", "1", check=1)
    assert again.stdout == done.stdout


def test_lines_for_people_and_exit_0(pathpipe: Call, cohort: Path) -> None:
    lines = pathpipe("doctor", cohort, check=1).stdout.splitlines()
    assert lines[0].split("\t")[:3] == ["slide", "state", "reader"]
    assert "b copy\tduplicate\tsame content as a" in lines
    one = pathpipe("doctor", cohort / "a.svs").stdout
    for line in ("state\tsound", "um/px\t0.25", "stated by\taperio property", "level 1\t175 x 125, downsample 4"):
        assert line in one.splitlines(), one


def test_requests_that_make_no_sense(pathpipe: Call, cohort: Path) -> None:
    assert "did you mean `openslide`" in pathpipe("doctor", cohort, "--reader", "openslid", check=2).stderr
    assert "nothing to examine" in pathpipe("doctor", check=2).stderr
    assert "no such cohort" in pathpipe("doctor", cohort / "gone.csv", check=2).stderr


def test_readers_are_listed_and_a_crash_costs_one_slide(cohort: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    info = plugin / "their_readers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-readers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pathpipe.readers]\ncrash = their_readers:crash\n")
    (plugin / "their_readers.py").write_text(
        "import os, signal\nfrom pathpipe.slides.readers.openslide import OpenSlideSlide\n"
        'def crash(path):\n    """What a native library does on a corrupt file."""\n'
        "    os.kill(os.getpid(), signal.SIGSEGV) if path.stem == 'a' else None\n    return OpenSlideSlide(path)\n"
    )

    def call(*arguments: object, code: int) -> str:
        command = [sys.executable, "-m", "pathpipe", "doctor", *map(str, arguments)]
        env = {**environment(), "PYTHONPATH": str(plugin)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        return done.stdout

    listed = call("--readers", code=0)
    assert "crash\ttheir-readers\tWhat a native library does on a corrupt file." in listed.splitlines()
    assert "omezarr\tpathpipe\tOME-Zarr" in listed
    slides = json.loads(call(cohort, "--json", "--reader", "crash", code=1))["slides"]
    states = {one["slide_id"]: one["state"] for one in slides}
    assert states["a"] == "unreadable" and states["b copy"] == "sound"
    assert "its reader crashed (exit -11)" in slides[0]["damage"][0]["reason"]


def test_it_starts_without_heavy_libraries() -> None:
    code = (
        "import sys\nimport pathpipe.cli.doctor, pathpipe.cli.tables, pathpipe.slides.doctor, pathpipe.run\n"
        "import pathpipe.execution.processes\n"
        "print(sorted({'torch', 'timm', 'zarr', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
