"""`pathpipe view` as people use it: the command, its address, and the page in a real browser."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathpipe.run import Run
from pathpipe.testing.slides import cut_short
from pathpipe.tiles.table import read_tiles
from pathpipe.view.routes import Routes
from tests.integration.chromium import Chromium, find_chromium
from tests.integration.conftest import Call, environment
from tests.unit.view.conftest import MODEL, serving, write_scores

NAME = "abmil-label-efficientnet-lite0"


@pytest.fixture(scope="module")
def shown(extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Real tissue and tiles; scores and predictions written by hand."""
    run = Run(Path(shutil.copytree(extracted, tmp_path_factory.mktemp("view") / "run")))
    for row in run.cohort.slides:
        xy0 = read_tiles(run.tiles(row.slide_id)).grid.xy0
        write_scores(run, row.slide_id, xy0, np.random.default_rng(len(xy0)).random(len(xy0)))
    folder = run.evaluation(MODEL)
    folder.mkdir(parents=True)
    lines = [f"P{number},0,0,test,plain,0.7,0.3,1,0" for number in range(10)]
    head = "patient_id,fold,seed,role,target,p_plain,p_implant,logit_plain,logit_implant"
    (folder / "predictions.csv").write_text("\n".join([head, *lines, ""]))
    return run


@pytest.fixture(scope="module")
def url(shown: Run) -> Iterator[str]:
    """The address the command prints; it ends by Ctrl-C without a complaint."""
    command = [sys.executable, "-m", "pathpipe", "view", str(shown.folder), "--port", "0", "--no-browser"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        yield process.stdout.readline().strip()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0 and process.stderr.read() == ""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    binary = find_chromium()
    if binary is None:
        pytest.skip("no Chromium is installed")
    with Chromium(binary, tmp_path) as one:
        yield one


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return bytes(answer.read())


def test_everything_a_page_needs_is_served(url: str) -> None:
    assert url.startswith("http://127.0.0.1:") and b"pathpipe view" in _get(url)
    run = json.loads(_get(url + "run"))
    assert len(run["slides"]) == 11 and run["models"] == [MODEL]
    assert sum(slide["said"][MODEL]["right"] for slide in run["slides"]) == 11
    facts = json.loads(_get(url + "slide/S03"))
    assert list(facts["layers"]["heat"]) == [MODEL] and facts["mpp"]["x"] == 0.5
    assert json.loads(_get(f"{url}layer/S03/tiles"))["count"] > 0
    assert json.loads(_get(f"{url}layer/S03/tissue"))["groups"][0]["polygons"]
    tile = Image.open(io.BytesIO(_get(f"{url}tile/S03/{facts['top']}/0_0")))
    assert tile.size == (min(513, facts["size0"][0]), min(513, facts["size0"][1]))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        _get(f"{url}tile/S03/{facts['top']}/9_9")


def test_what_the_stages_wrote_is_shown(reported: Path) -> None:
    with closing(Routes(Run(reported))) as routes:
        said = json.loads(routes.answer(["run"]).body)["slides"]
        facts = json.loads(routes.answer(["slide", "S03"]).body)
        score = facts["layers"]["heat"][NAME]["scores"][0]
        heat = json.loads(routes.answer(["layer", "S03", "heat", NAME, score]).body)
        tiles = json.loads(routes.answer(["layer", "S03", "tiles"]).body)
    assert all(slide["said"][NAME]["right"] in (True, False) for slide in said)
    assert facts["predictions"][NAME]["folds"][0]["threshold"] is not None
    assert heat["size"][0] * heat["size"][1] >= tiles["count"] and heat["low"] <= heat["high"]


def test_a_folder_that_is_no_run_is_refused(pathpipe: Call, tmp_path: Path) -> None:
    assert "is not a run folder" in pathpipe("view", tmp_path, check=2).stderr


SHOWN = "document.getElementById('title').textContent"
PAINTED = """(() => {
  const c = document.getElementById('paint'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; })()"""
COVERED = """(() => {
  const c = document.getElementById('paint'), box = c.getBoundingClientRect(), rows = [];
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  for (let y = 0; y < c.height; y += 8) {
    let row = ''; for (let x = 0; x < c.width; x += 8) row += d[4 * (y * c.width + x) + 3] ? 1 : 0;
    rows.push(row);
  }
  return [box.left, box.top, rows]; })()"""


def _seen(slide_id: str) -> str:
    """Its name, its facts and its pixels' scale are on the screen."""
    facts = f"document.querySelector('#facts dd')?.textContent === '{slide_id}.svs'"
    return f"{SHOWN} === '{slide_id}' && {facts} && !document.getElementById('scale').hidden"


def _checked(layer: str) -> str:
    return f"document.querySelector('[data-layer={layer}] input').checked"


def test_the_page_in_a_browser(url: str, browser: Chromium) -> None:
    browser.go(f"{url}?slide=S03&layers=")
    browser.wait(_seen("S03"))
    assert browser.value("document.querySelectorAll('#slides li').length") == 11
    assert browser.value(PAINTED) == 0
    browser.press("1")
    browser.wait(f"{_checked('heat')} && {PAINTED} > 1000")
    assert "layers=heat" in browser.value("location.search")
    with_heat = browser.value(PAINTED)
    browser.press("2")
    browser.wait(f"{_checked('tissue')} && {PAINTED} > {with_heat}")
    browser.press("1")
    browser.press("2")
    browser.wait(f"{PAINTED} === 0")
    browser.press("3")
    browser.wait(f"{_checked('tiles')} && {PAINTED} > 100")
    browser.press("n")
    browser.wait(_seen("S04"))
    browser.press("p")
    browser.wait(_seen("S03"))
    before = browser.value("document.getElementById('scale-text').textContent")
    for _ in range(4):
        browser.press("+")
    browser.wait(f"document.getElementById('scale-text').textContent !== '{before}'")
    browser.press("?")
    browser.wait("document.getElementById('help').open")
    browser.press("Escape")
    browser.wait("!document.getElementById('help').open")
    browser.value("(f => { f.value = 'S07'; f.dispatchEvent(new Event('input')); })(document.getElementById('filter'))")
    assert browser.value("document.getElementById('shown').value") == "1 of 11 slides"
    browser.press("n")
    browser.wait(_seen("S07"))
    assert browser.complaints == []


def test_tiles_are_painted_where_the_tissue_is(url: str, browser: Chromium) -> None:
    """What lies under the heatmap is stained, what lies beside it is glass: layers and slide share one frame."""
    browser.go(f"{url}?slide=S03&layers=")
    browser.wait(_seen("S03"))
    browser.wait("performance.getEntriesByType('resource').some(one => one.name.includes('/tile/'))")
    browser.value("new Promise(done => setTimeout(done, 1500))")  # until tiles have faded in
    bare = np.asarray(Image.open(io.BytesIO(browser.picture())).convert("RGB"), np.float64)
    browser.press("1")
    browser.wait(f"{PAINTED} > 1000")
    left, top, rows = browser.value(COVERED)
    covered = np.array([[cell == "1" for cell in row] for row in rows])
    pixels = bare[int(top) :: 8, int(left) :: 8][: covered.shape[0], : covered.shape[1]]
    glass = pixels.min(axis=2) > 225
    assert glass[covered].mean() < 0.4 and glass[~covered].mean() > 0.6
    assert browser.complaints == []


def test_a_damaged_slide_is_a_message_in_the_page(shown: Run, tmp_path: Path, browser: Chromium) -> None:
    run = Run(Path(shutil.copytree(shown.folder, tmp_path / "run")))
    broken = tmp_path / "S03.svs"
    shutil.copyfile(str(shown.cohort["S03"].path), broken)
    cut_short(broken, 0.5)
    run.cohort_csv.write_text(run.cohort_csv.read_text().replace(str(shown.cohort["S03"].path), str(broken)))
    with serving(run) as server:
        browser.go(f"{server.url}?slide=S03")
        browser.wait("!document.getElementById('message').hidden")
        assert "S03.svs" in browser.value("document.getElementById('message').textContent")
        browser.press("n")
        browser.wait(_seen("S04") + " && document.getElementById('message').hidden")
