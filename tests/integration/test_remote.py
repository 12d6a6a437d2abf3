"""A cohort in a bucket, on a web server and on a disk gives the bytes that files on the disk give, come what may."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from s3fs import S3FileSystem

import pathpipe.remote
import pathpipe.store.bucket
from pathpipe.cli.app import main
from pathpipe.cohort import Cohort
from pathpipe.errors import CohortError, PathpipeError, RemoteError
from pathpipe.execution.dispatch import large_first, shard_of
from pathpipe.execution.listener import Listener
from pathpipe.execution.pipeline import Outcome, bring_up_to_stage
from pathpipe.remote import Found
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.store.bucket import bucket_files, fetched, publish_features, upload
from pathpipe.store.convert import Conversion, convert_files
from pathpipe.store.features import read_features
from pathpipe.url import Url
from tests.integration.conftest import write_slide
from tests.servers import Store, Web, s3_store, web_server

IDS = ("S0", "S1", "S2")


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with s3_store() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for number, slide_id in enumerate(IDS):
        write_slide(folder / f"{slide_id}.svs", seed=number)
    return folder


@pytest.fixture
def web(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(pathpipe.remote, "PAUSE_S", 0.001)
    with web_server(folder) as server:
        yield server


@pytest.fixture
def cohort(store: Store, web: Web, folder: Path, tmp_path: Path) -> Cohort:
    """One slide in a bucket, one on a web server, one on the disk."""
    paths = [store.put("wsi/S0.svs", folder / "S0.svs"), f"{web.url}/S1.svs", str(folder / "S2.svs")]
    pd.DataFrame({"path": paths}).to_csv(tmp_path / "cohort.csv", index=False)
    return Cohort.read(tmp_path / "cohort.csv")


def _settings(**execution: object) -> RunSettings:
    how = {"workers": 1, "remote_block_kb": 64, **execution}
    tile, tissue = {"mpp": 0.5, "tile_px": 112}, {"min_area_um2": 2000}
    return RunSettings.model_validate({"tile": tile, "tissue": tissue, "execution": how})


def _extract(run: Run, **execution: object) -> Outcome:
    return bring_up_to_stage(run, "extract", _settings(**execution), Listener())


def _artefacts(run: Run) -> dict[str, str]:
    """Digest of everything made: outlines, tiles and their pictures, features; what says so of itself included."""
    files = [path for name in ("tissue", "tiles", "features") for path in (run.folder / name).rglob("*")]
    return {
        path.relative_to(run.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if path.is_file()
    }


@pytest.fixture(scope="module")
def local(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run over the files themselves. Tests must not change it."""
    run = Run.create(tmp_path_factory.mktemp("local") / "run", Cohort.read(folder))
    assert _extract(run).exit_code(0) == 0
    return run


def test_the_same_bytes_by_url_staged_and_from_the_disk(
    cohort: Cohort, web: Web, folder: Path, local: Run, tmp_path: Path
) -> None:
    wanted = _artefacts(local)
    assert len(wanted) == 12
    in_place = Run.create(tmp_path / "in place", cohort)
    assert _extract(in_place).exit_code(0) == 0
    assert _artefacts(in_place) == wanted
    size = (folder / "S1.svs").stat().st_size
    per_opening = -(-size // 65_536)
    assert sum(one[2] != "" for one in web.fetched) <= 3 * per_opening + 1, "tissue, tile, extract, and the fingerprint"

    web.requests.clear()
    again = _extract(in_place)
    assert {one.state for one in again.receipts["extract"].values()} == {"current"}
    assert len(web.fetched) == 1, "what is current is looked at by its fingerprint alone"

    staged = Run.create(tmp_path / "staged", cohort)
    assert _extract(staged, stage_dir=str(tmp_path / "fast"), stage_gb=size * 1.5 / 1e9).exit_code(0) == 0
    assert _artefacts(staged) == wanted and not list((tmp_path / "fast").glob("pathpipe-*"))


def test_archived_slides_and_the_cohort_that_is_kept(cohort: Cohort, store: Store, local: Run, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", cohort)
    assert [str(row.path) for row in run.cohort.slides] == [str(row.path) for row in cohort.slides]
    assert isinstance(run.cohort["S0"].path, Url)
    settings = _settings()
    bring_up_to_stage(run, "tissue", settings, Listener(), only=["S0"])
    store.client.delete_object(Bucket="slides", Key="wsi/S0.svs")
    done = bring_up_to_stage(run, "tissue", settings, Listener(), only=["S0"]).receipts["tissue"]
    assert done["S0"].state == "current"


def test_a_server_that_dies_costs_its_slide_and_the_next_run_completes(
    cohort: Cohort, web: Web, local: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path / "run", cohort)
    settings = _settings()
    bring_up_to_stage(run, "tile", settings, Listener())
    web.requests.clear()
    web.dies_after = 2
    outcome = bring_up_to_stage(run, "extract", settings, Listener())
    states = {key: one.state for key, one in outcome.receipts["extract"].items()}
    assert states == {"S0": "done", "S1": "failed", "S2": "done"}
    assert "S1.svs: can't be reached" in str(outcome.receipts["extract"]["S1"].reason)
    web.dies_after = None
    assert _extract(run).exit_code(0) == 0
    assert _artefacts(run) == _artefacts(local)


def test_trouble_in_a_bucket(store: Store, folder: Path, tmp_path: Path) -> None:
    data = (folder / "S0.svs").read_bytes()
    urls = {
        "cut": store.put("bad/cut.svs", data[: len(data) // 2]),
        "none": "s3://slides/bad/none.svs",
        "bucket": "s3://no-such-bucket/a.svs",
        "gone": "gs://bucket/a.svs",
    }
    pd.DataFrame({"slide_id": list(urls), "path": list(urls.values())}).to_csv(tmp_path / "cohort.csv", index=False)
    run = Run.create(tmp_path / "run", Cohort.read(tmp_path / "cohort.csv"))

    failed = bring_up_to_stage(run, "tissue", _settings(), Listener()).receipts["tissue"]
    for slide_id, (words, hint) in {
        "cut": ("damaged", "copy the file again"),
        "none": ("there is no such object", "correct the URL"),
        "bucket": ("there is no such bucket", "correct the URL"),
        "gone": ("gs:// needs a package that isn't installed", 'pip install "pathpipe[remote]"'),
    }.items():
        assert failed[slide_id].state == "failed" and failed[slide_id].trace is None
        assert words in str(failed[slide_id].reason) and hint in str(failed[slide_id].hint), failed[slide_id]


def test_a_bucket_that_is_closed(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "nowhere")
    web.status = 403
    for missing in ("AWS_NOTHING", "AWS_ACCESS_KEY_ID"):
        S3FileSystem.clear_instance_cache()
        monkeypatch.delenv(missing, raising=False)
        with pytest.raises(RemoteError, match="may not be read") as caught:
            Cohort.read(Url("s3://closed/slides/"))
        assert "AWS_PROFILE" in str(caught.value.hint)
    assert web.requests, "with credentials it was asked"
    S3FileSystem.clear_instance_cache()


def test_sources_behind_urls(store: Store, web: Web, folder: Path) -> None:
    for key in ("tree/b/S1.svs", "tree/a/S1.svs", "tree/a/S2.svs", "tree/a/notes.txt", "tree/z.zarr/0/c.png"):
        store.put(key, folder / "S1.svs")
    listed = {row.slide_id: str(row.path) for row in Cohort.read(Url("s3://slides/tree/")).slides}
    assert listed == {
        "a--S1.svs": "s3://slides/tree/a/S1.svs",
        "S2": "s3://slides/tree/a/S2.svs",
        "b--S1.svs": "s3://slides/tree/b/S1.svs",
    }
    store.put(
        "tables/cohort.csv", b"path,patient_id,label\n../tree/a/S2.svs,P1,x\nS3.svs,P2,y\nhttps://h/S4.svs,P3,y\n"
    )
    table = Cohort.read(Url("s3://slides/tables/cohort.csv"))
    assert [str(row.path) for row in table.slides] == [
        "s3://slides/tree/a/S2.svs",
        "s3://slides/tables/S3.svs",
        "https://h/S4.svs",
    ]
    assert Cohort.read(Url("s3://slides/tree/a/S2.svs")).slides[0].slide_id == "S2"
    for source, words in {
        "s3://slides/nothing/": "there is no such object",
        f"{web.url}/": "a web server lists nothing",
        "s3://slides/tables/": "holds no slide",
    }.items():
        with pytest.raises(PathpipeError, match=words):
            Cohort.read(Url(source))
    store.put("dicom/a.dcm", b"")
    with pytest.raises(CohortError, match="several of which are one slide"):
        Cohort.read(Url("s3://slides/dicom"))


def test_large_first_by_one_listing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [store.put(f"sized/S{number}.svs", bytes(size)) for number, size in enumerate((5, 50, 20, 40))]
    pd.DataFrame({"path": [*urls, "s3://slides/sized/none.svs"]}).to_csv(tmp_path / "cohort.csv", index=False)
    run = Run.create(tmp_path / "run", Cohort.read(tmp_path / "cohort.csv"))
    keys = [row.slide_id for row in run.cohort.slides]
    asked: list[Url] = []
    real = pathpipe.remote.listed

    def listed(url: Url, deep: bool = True) -> list[Found]:
        asked.append(url)
        return real(url, deep)

    monkeypatch.setattr(pathpipe.remote, "listed", listed)
    assert large_first(run, ["extract"], keys) == ["S1", "S3", "S2", "S0", "none"] and len(asked) == 1
    parts = [shard_of(run, "extract", keys, f"{number}/2") for number in range(2)]
    assert (
        sorted([*parts[0], *parts[1]]) == sorted(keys) and {"S1", "S3"} - set(parts[0]) and {"S1", "S3"} - set(parts[1])
    )

    def down(url: Url, deep: bool = True) -> list[object]:
        raise RemoteError("can't be reached", url.shown)

    monkeypatch.setattr(pathpipe.remote, "listed", down)
    with pytest.raises(RemoteError):  # a worker that shared out in another order would leave slides undone
        shard_of(run, "extract", keys, "0/2")


def test_features_in_a_bucket_are_whole_or_not_there(
    store: Store, local: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = local.features("efficientnet-lite0", "S0")
    (done,) = convert_files([path], Conversion("zarr", tmp_path / "here"))
    (put,) = convert_files([path], Conversion("zarr", Url("s3://slides/feats")))
    url = Url("s3://slides/feats/efficientnet-lite0/S0.zarr")
    assert put.error is None and put.urls == (url,)
    here = done.files[0]
    with fetched(url) as copy:
        names = [sorted(one.relative_to(at).as_posix() for one in at.rglob("*")) for at in (here, copy)]
        assert names[0] == names[1] and all(
            (here / name).read_bytes() == (copy / name).read_bytes() for name in names[0] if (here / name).is_file()
        )
    (back,) = convert_files(bucket_files(Url("s3://slides/feats")), Conversion("native", tmp_path / "back"))
    assert back.files[0].read_bytes() == path.read_bytes()

    assert not publish_features(path, url), "what is there was made from the same"
    other = local.features("efficientnet-lite0", "S1")
    assert publish_features(other, url)
    with fetched(url) as copy:
        assert read_features(copy).provenance == read_features(other).provenance
    (refused,) = convert_files([path], Conversion("zarr", Url("s3://slides/feats")))
    assert "other features are in it" in str(refused.error)

    real, written = pathpipe.store.bucket._put, list[str]()

    def fails(source: Path, target: Url) -> None:
        if "features" in target.text.removeprefix(url.text):
            raise RemoteError("can't be reached", target.shown)
        written.append(target.text)
        real(source, target)

    monkeypatch.setattr(pathpipe.store.bucket, "_put", fails)
    with pytest.raises(RemoteError):
        publish_features(path, url)
    monkeypatch.undo()
    assert f"{url}/zarr.json" not in written
    with pytest.raises(PathpipeError, match=r"has no zarr\.json: it isn't whole"), fetched(url):
        pass
    assert publish_features(path, url)
    with fetched(url) as copy:
        assert (read_features(copy).features == read_features(path).features).all()


def test_a_bucket_that_gives_back_something_else(store: Store, local: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = local.features("efficientnet-lite0", "S0")
    monkeypatch.setattr(pathpipe.store.bucket, "fetch", lambda url, offset, length, size: b"\0" * length)
    with pytest.raises(RemoteError, match="gives back something else"):
        upload(path, Url("s3://slides/twisted/S0.h5"))
    with pytest.raises(PathpipeError, match="web server"):
        upload(path, Url("http://127.0.0.1:1/S0.h5"))


def test_extract_publishes_to_a_bucket_and_goes_on(
    store: Store, local: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(local.folder, tmp_path / "run")
    run, to = Run(tmp_path / "run"), "s3://slides/published"
    assert _extract(run, publish_to=to).exit_code(0) == 0
    root = "published/efficientnet-lite0"
    assert sorted({key.split("/")[2] for key in store.keys("published/")}) == ["S0.zarr", "S1.zarr", "S2.zarr"]
    store.client.delete_object(Bucket="slides", Key=f"{root}/S1.zarr/zarr.json")
    before = store.ages("published/")
    time.sleep(1.0)  # S3 tells time in seconds
    assert _extract(run, publish_to=to).exit_code(0) == 0
    changed = {key.split("/")[2] for key, age in store.ages("published/").items() if before.get(key) != age}
    assert changed == {"S1.zarr"}

    _command("store", "inspect", f"{to}/", "--form", "json")
    shown = json.loads(capsys.readouterr().out)
    rows = [len(read_features(local.features("efficientnet-lite0", slide_id)).features) for slide_id in IDS]
    assert [row["features"] for row in shown] == [f"{count}x1280 float16" for count in rows]
    _command("store", "verify", f"{to}/efficientnet-lite0/S1.zarr", "--slides", str(folder), "--form", "json")
    assert [row["verdict"] for row in json.loads(capsys.readouterr().out)] == ["same"]

    closed = _settings(publish_to="s3://no-such-bucket/x")
    with pytest.raises(RemoteError, match="no such bucket"):  # before the first slide is opened
        bring_up_to_stage(run, "extract", closed, Listener())
    for wrong in ("here/x", "https://host/x"):
        with pytest.raises(ValueError, match="is no bucket"):
            _settings(publish_to=wrong)


def test_the_command_line_takes_urls(
    store: Store, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = store.put("cli/S0.svs", folder / "S0.svs")
    _command("doctor", url, "--json")
    (found,) = json.loads(capsys.readouterr().out)["slides"]
    assert (found["state"], found["reader"], found["path"]) == ("sound", "direct", url)
    _command("tile", url, "-o", str(tmp_path / "run"), "--workers", "1", "--tile-px", "112", "-q")
    assert (tmp_path / "run" / "tiles" / "S0.h5").exists()
    _command("tile", url, "-o", "s3://slides/run", code=2)
    assert "a run lies on a file system" in capsys.readouterr().err


def _command(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert (ended.value.code or 0) == code
