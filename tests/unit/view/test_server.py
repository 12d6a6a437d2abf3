"""The server as a browser, and as somebody who shouldn't be there, meets it."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from pathpipe.cohort import Cohort
from pathpipe.errors import SettingsError
from pathpipe.run import Run
from pathpipe.testing.slides import position_pixels
from pathpipe.view.server import HOST, ViewServer
from tests.unit.view.conftest import MODEL, ODD, SIZE0, make_run, serving

OPENSEADRAGON = "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad"  # 6.1.1, as npm has it


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict:
        return dict(json.loads(self.body))


Ask = Callable[..., Answer]


def asking(server: ViewServer) -> Ask:
    def asked(path: str, method: str = "GET", raw: bool = False, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=20)
        target = path if raw else f"/{server.key}/{path}"
        connection.putrequest(method, target, skip_host="Host" in headers)
        for name, value in headers.items():
            if value:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        found = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return found

    return asked


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewServer]:
    """Of a run that no test changes."""
    with serving(make_run(tmp_path_factory.mktemp("shown"))) as one:
        yield one


@pytest.fixture(scope="module")
def ask(server: ViewServer) -> Ask:
    return asking(server)


@pytest.fixture
def ask_own(run: Run) -> Iterator[Ask]:
    """Of the test's own run."""
    with serving(run) as one:
        yield asking(one)


def _id(slide_id: str) -> str:
    return quote(slide_id, safe="")


def test_the_page_and_its_files(ask: Ask) -> None:
    page = ask("")
    assert page.status == 200 and page.headers["Content-Type"] == "text/html; charset=utf-8"
    for name, kind in (("viewer.js", "javascript"), ("viewer.css", "css"), ("openseadragon.min.js", "javascript")):
        assert f"static/{name}".encode() in page.body
        found = ask(f"static/{name}")
        assert found.status == 200 and kind in found.headers["Content-Type"] and len(found.body) > 1000
    assert b"Redistributions in binary form" in ask("static/openseadragon.LICENSE.txt").body


def test_the_page_asks_nobody_else() -> None:
    for file in files("pathpipe.view").joinpath("static").iterdir():
        if file.name.startswith(("index", "viewer")):
            assert "http://" not in file.read_text() and "https://" not in file.read_text(), file.name


def test_openseadragon_is_as_published() -> None:
    file = files("pathpipe.view").joinpath("static", "openseadragon.min.js")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == OPENSEADRAGON


def test_the_list_says_what_became_of_each_slide(ask: Ask) -> None:
    found = ask("run").json
    assert [slide["id"] for slide in found["slides"]] == [ODD, "S2", "cut", "gone"]
    first, second, cut, _ = found["slides"]
    assert (first["patient"], first["labels"]) == ("P1", {"label": "yes"})
    assert first["said"] == {MODEL: {"predicted": "no", "right": False}}
    assert second["said"] == {MODEL: {"predicted": "no", "right": True}}
    assert cut["trouble"] == "failed in tile: the file was cut short" and cut["said"] == {}


def test_a_damaged_table_of_predictions_is_told_and_the_slides_are_shown(ask_own: Ask, run: Run) -> None:
    (run.evaluation(MODEL) / "predictions.csv").write_text("nonsense\n")
    found = ask_own("run").json
    assert "is no table of predictions" in found["problem"] and len(found["slides"]) == 4
    assert ask_own(f"slide/{_id(ODD)}").json["predictions"] == {}


def test_all_about_one_slide(ask: Ask) -> None:
    found = ask(f"slide/{_id(ODD)}").json
    assert (found["size0"], found["top"], found["reader"]) == ([*SIZE0], 11, "direct")
    assert found["mpp"] == {"x": 0.5, "y": 0.5, "source": "aperio property"}
    heat = {MODEL: {"scores": ["score"], "kind": "attention"}}
    assert found["layers"] == {"tissue": True, "tiles": True, "truth": True, "heat": heat}
    assert found["predictions"][MODEL]["probability"] == {"no": 0.45, "yes": 0.55}
    bare = ask("slide/S2").json
    assert bare["layers"] == {"tissue": False, "tiles": False, "truth": False, "heat": {}}
    assert bare["mpp"]["x"] is None and "has no resolution" in bare["mpp"]["source"]


def test_tiles_are_jpegs_of_their_place(ask: Ask) -> None:
    found = ask(f"tile/{_id(ODD)}/11/1_1")
    assert found.status == 200 and found.headers["Content-Type"] == "image/jpeg"
    tile = np.asarray(Image.open(io.BytesIO(found.body)), np.float64)
    expected = position_pixels(SIZE0)[511:, 511:1025].astype(np.float64)
    assert tile.shape == expected.shape and np.abs(tile - expected).mean() < 2
    thumb = Image.open(io.BytesIO(ask(f"thumb/{_id(ODD)}").body))
    assert max(thumb.size) in range(150, 180)


@pytest.mark.parametrize(
    "place", ["11/3_0", "11/0_2", "12/0_0", "11/0_-1", "-1/0_0", "11/0", "11/0_0_0", "11/0_00", "x/0_0"]
)
def test_tiles_that_are_not_there_are_404(ask: Ask, place: str) -> None:
    assert ask(f"tile/{_id(ODD)}/{place}").status == 404


def test_layers(ask: Ask) -> None:
    assert ask(f"layer/{_id(ODD)}/tiles").json["count"] == 3
    assert len(ask(f"layer/{_id(ODD)}/tissue").json["groups"]) == 1
    assert ask(f"layer/{_id(ODD)}/truth").json["groups"][0]["name"] == "Truth"
    assert ask(f"layer/{_id(ODD)}/heat/{MODEL}/score").json["size"] == [2, 2]
    for absent in (
        "layer/S2/tiles", "layer/S2/tissue", "layer/S2/truth", f"layer/S2/heat/{MODEL}/score",
        f"layer/{_id(ODD)}/heat/{MODEL}/none", f"layer/{_id(ODD)}/heat/none/score", f"layer/{_id(ODD)}/none", "layer",
    ):  # fmt: skip
        assert ask(absent).status == 404, absent


@pytest.mark.parametrize(("slide", "why"), [("cut", "cut.svs"), ("gone", "there is no such file")])
def test_a_slide_that_cannot_be_read_is_an_answer_and_the_server_goes_on(ask: Ask, slide: str, why: str) -> None:
    for path in (f"slide/{slide}", f"tile/{slide}/0/0_0", f"thumb/{slide}"):
        found = ask(path)
        assert found.status == 422 and why in found.json["what"], path
    assert ask(f"slide/{_id(ODD)}").status == 200


def test_a_damaged_layer_is_an_answer(ask_own: Ask, run: Run) -> None:
    run.tiles(ODD).write_bytes(b"not HDF5")
    found = ask_own(f"layer/{_id(ODD)}/tiles")
    assert found.status == 422 and "tile table" in found.json["what"] and found.json["hint"]


# ---- who may not -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "../../cohort.csv", "static/../routes.py", "static/..%2froutes.py", "static/%2e%2e/routes.py",
        "static/%2fetc%2fpasswd", "slide/..%2f..%2fcohort", "tile/..%2fS2/0/0_0", "layer/S2/heat/..%2f..%2f/score",
        "layer/S2/..%2f..%2fcohort.csv", "/etc/passwd", "static/", "static", "slide/", "slide/%00", "slide/%ff",
        "thumb", "layer/S2/heat/../score", "cohort.csv", "settings.yaml", "run/", "run/x", "//", "static/__init__.py",
    ],
)  # fmt: skip
def test_nothing_but_ids_and_names_is_understood(ask: Ask, path: str) -> None:
    found = ask(path)
    assert found.status == 404 and b"root:" not in found.body and b"slide_id" not in found.body


def test_a_model_is_a_name_even_where_a_path_would_lead_to_scores(ask_own: Ask, run: Run, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / ODD
    outside.mkdir(parents=True)
    (outside / "scores.csv").write_text("x0,y0,score\n1,1,1\n")
    for name in ("../../outside", str(tmp_path / "outside"), "."):
        assert ask_own(f"layer/{_id(ODD)}/heat/{quote(name, safe='')}/score").status == 404


def test_without_the_key_there_is_nothing(ask: Ask, server: ViewServer) -> None:
    for path in (
        "/",
        "/run",
        "/static/viewer.js",
        f"/{server.key[:-1]}/run",
        f"/{server.key}x/run",
        "/%ff/",
    ):
        found = ask(path, raw=True)
        assert found.status in (403, 404) and b"S2" not in found.body, path
    assert ask(f"/{server.key}/run", raw=True).status == 200
    assert len(server.key) >= 22  # 128 bits


def test_keys_differ(run: Run) -> None:
    with ViewServer(run, 0) as one, ViewServer(run, 0) as other:
        assert one.key != other.key and one.server_address[1] != other.server_address[1]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "10.0.0.1",
        "[::1]",
        "",
        "127.0.0.1:x",
    ],
)
def test_other_hosts_are_refused(ask: Ask, host: str) -> None:
    assert ask("run", Host=host).status in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:9000", "LOCALHOST:1"])
def test_this_machine_is_not_whatever_port_a_tunnel_has(ask: Ask, host: str) -> None:
    assert ask("run", Host=host).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_only_reading_is_understood(ask: Ask, method: str) -> None:
    found = ask("run", method)
    assert found.status == 405 and found.headers["Allow"] == "GET, HEAD"


def test_no_other_site_may_read_or_embed(ask: Ask) -> None:
    for path in ("", "run", f"tile/{_id(ODD)}/0/0_0", "nothing"):
        headers = ask(path, Origin="http://evil.example").headers
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"


def test_it_binds_to_this_machine_alone(server: ViewServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


# ---- how it answers ----------------------------------------------------------------------------------------------


def test_head_is_get_without_a_body(ask: Ask) -> None:
    got, head = ask(f"tile/{_id(ODD)}/11/0_0"), ask(f"tile/{_id(ODD)}/11/0_0", "HEAD")
    assert head.status == 200 and head.body == b""
    assert head.headers["Content-Length"] == str(len(got.body)) and head.headers["ETag"] == got.headers["ETag"]


def test_what_the_browser_has_is_not_sent_again(ask: Ask) -> None:
    first = ask("run")
    again = ask("run", If_None_Match=first.headers["ETag"])
    assert again.status == 304 and again.body == b"" and first.headers["Cache-Control"] == "no-cache"
    tile = ask(f"tile/{_id(ODD)}/11/0_0")
    assert "max-age" in tile.headers["Cache-Control"] and "private" in tile.headers["Cache-Control"]
    assert ask("slide/gone").headers["Cache-Control"] == "no-store"


def test_one_connection_serves_many_requests(server: ViewServer) -> None:
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=20)
    for path, status in (("run", 200), ("nothing", 404), ("slide/gone", 422), ("run", 200)):
        connection.request("GET", f"/{server.key}/{path}")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def test_nothing_in_the_run_changes(ask_own: Ask, run: Run) -> None:
    def seen() -> dict[str, tuple[int, str]]:
        found = sorted(path for path in run.folder.parent.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in found}

    before = seen()
    for path in ("", "run", f"slide/{_id(ODD)}", f"thumb/{_id(ODD)}", f"tile/{_id(ODD)}/9/0_0", "slide/cut"):
        ask_own(path)
    for layer in ("tissue", "tiles", "truth", f"heat/{MODEL}/score"):
        assert ask_own(f"layer/{_id(ODD)}/{layer}").status == 200
    assert seen() == before


def test_a_port_in_use_is_an_error_with_a_hint(server: ViewServer, run: Run) -> None:
    with pytest.raises(SettingsError, match="port") as caught:
        ViewServer(run, server.server_address[1])
    assert "--port 0" in (caught.value.hint or "")


def test_settings_of_another_version_are_no_reason_to_show_nothing(run: Run) -> None:
    run.settings_yaml.write_text("train: {no_such_setting: 1}\nslide: {reader: openslide}\n")
    with ViewServer(run, 0) as server:
        assert server.routes.settings.slide.reader == "openslide"


def test_an_empty_cohort_is_refused(run: Run) -> None:
    run.__dict__["cohort"] = Cohort(())
    with pytest.raises(SettingsError, match="no slide"):
        ViewServer(run, 0)
