"""Slides by URL: the same pixels and fingerprint as the file, each block fetched once, one clear reason for trouble."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile
from PIL import Image

import pathpipe.remote
from pathpipe.errors import RemoteError, RemoteMissingError, SlideError
from pathpipe.remote import fetch
from pathpipe.samples import BUNDLED_SLIDE
from pathpipe.slides.identity import is_there, slide_fingerprint
from pathpipe.slides.native.index import TiffIndex, read_index
from pathpipe.slides.open import NeedsDiskError, open_slide
from pathpipe.slides.readers.direct import DirectSlide
from pathpipe.slides.remote import Blocks, RemoteFile
from pathpipe.slides.staging import _CLAIM, staged
from pathpipe.testing.slides import plain_tiff
from pathpipe.url import Url
from tests.servers import Web, web_server

SMALL = Blocks(64 << 10, 8 << 20)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(pathpipe.remote, "PAUSE_S", 0.001)
    (tmp_path / "web").mkdir()
    with web_server(tmp_path / "web") as server:
        yield server


@pytest.fixture
def slide(web: Web) -> Url:
    (web.folder / "S 1.svs").write_bytes(BUNDLED_SLIDE.read_bytes())
    return Url(f"{web.url}/S%201.svs")


def _grid(path: Path | Url, reader: str, blocks: Blocks = SMALL) -> np.ndarray:
    with open_slide(path, reader, blocks) as slide:
        width, height = slide.size0
        places = [(x, y) for y in range(0, height, 224) for x in range(0, width, 224)]
        return np.stack([slide.read(place, 0, (224, 224)) for place in places])


@pytest.mark.parametrize("reader", ["direct", "tiffslide"])
def test_the_same_pixels_and_each_block_once(web: Web, slide: Url, reader: str) -> None:
    local = _grid(BUNDLED_SLIDE, reader)
    web.requests.clear()
    remote = _grid(slide, reader)
    assert np.array_equal(remote, local)
    ranges = [asked for _, _, asked in web.fetched]
    size = BUNDLED_SLIDE.stat().st_size
    assert len(ranges) == len(set(ranges)) <= -(-size // SMALL.block_bytes), "no block twice"
    assert all(
        int(one.rpartition("-")[2]) % SMALL.block_bytes in (SMALL.block_bytes - 1, size % 65536 - 1) for one in ranges
    )


def test_auto_is_the_reader_it_would_be_on_a_disk(web: Web, slide: Url) -> None:
    with open_slide(slide) as remote, open_slide(BUNDLED_SLIDE) as local:
        assert remote.reader == local.reader == "direct" and remote.path.name == "S 1.svs"
        assert (remote.levels, remote.mpp, remote.properties) == (local.levels, local.mpp, local.properties)
    Image.fromarray(np.arange(120, dtype=np.uint8).reshape(4, 10, 3)).save(web.folder / "flat.png")
    with open_slide(f"{web.url}/flat.png") as flat:
        assert flat.reader == "image" and flat.read((1, 0), 0, (1, 1)).tolist() == [[[3, 4, 5]]]


def test_a_thumbnail_fetches_little(web: Web, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2048, 2048, 3), np.uint8)
    path = plain_tiff(web.folder / "a.tif", noise, (0.5, 0.5), [np.ascontiguousarray(noise[::4, ::4])])
    web.requests.clear()
    with open_slide(f"{web.url}/a.tif", "auto", SMALL) as slide:
        assert np.array_equal(slide.read((0, 0), 1, (512, 512)), noise[::4, ::4])
    fetched = len(web.fetched) * SMALL.block_bytes
    level = 512 * 512 * 3 * 1.1
    assert path.stat().st_size > 13e6 and fetched < level + 6 * SMALL.block_bytes, fetched


def test_threads_that_want_one_block_fetch_it_once(web: Web, slide: Url) -> None:
    web.requests.clear()
    file = RemoteFile(slide, SMALL)
    wanted, found = BUNDLED_SLIDE.read_bytes(), {}
    start = threading.Barrier(8)

    def read(number: int) -> None:
        start.wait()
        found[number] = file.pread(150_000, 1000 + number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == wanted[1000 + number : 151_000 + number] for number in range(8))
    assert file.requests == len(web.fetched) == 3 and file.fetched_bytes == 3 * SMALL.block_bytes


def test_blocks_that_no_longer_fit_are_fetched_again(web: Web, slide: Url) -> None:
    file = RemoteFile(slide, Blocks(64 << 10, 128 << 10))
    for number in (0, 1, 0, 2, 0, 1):
        file.pread(10, number * (64 << 10))
    assert file.requests == 4, "2 takes the room of 1, which was wanted longest ago; 1 is fetched again"


def test_the_end_of_the_object(slide: Url) -> None:
    file, whole = RemoteFile(slide, SMALL), BUNDLED_SLIDE.read_bytes()
    assert file.pread(100, file.size - 30) == whole[-30:] and file.pread(5, file.size) == b""
    stream = file.open()
    assert stream.seek(-10, os.SEEK_END) == len(whole) - 10 and stream.read() == whole[-10:] and stream.read(4) == b""


def test_after_a_fork(slide: Url) -> None:
    with open_slide(slide, "auto", SMALL) as one:
        here = one.read((512, 512), 0, (300, 300))
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            os.write(write_end, b"same" if np.array_equal(one.read((512, 512), 0, (300, 300)), here) else b"else")
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write_end)
        assert os.read(read_end, 10) == b"same"
        os.close(read_end)


@pytest.mark.parametrize("size", [1, 1 << 20, (1 << 20) + 1, 3_000_017])
def test_the_fingerprint_is_that_of_the_file(web: Web, size: int) -> None:
    path = web.folder / "x.svs"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    web.requests.clear()
    assert slide_fingerprint(Url(f"{web.url}/x.svs")) == slide_fingerprint(path) == _by_hand(path.read_bytes())
    assert len(web.fetched) == (1 if size <= 1 << 20 else 16) and len(web.requests) == len(web.fetched) + 1


def _by_hand(content: bytes) -> str:
    """The size, then all of a small file, or 16 blocks of 64 KiB from its start to its end."""
    parts = [content]
    if len(content) > 16 * 65_536:
        starts = [(len(content) - 65_536) * number // 15 for number in range(16)]
        parts = [content[start : start + 65_536] for start in starts]
    digest = hashlib.blake2b(b"".join([str(len(content)).encode(), *parts]), digest_size=16).hexdigest()
    return hashlib.blake2b(f'["{digest}"]'.encode(), digest_size=16).hexdigest()


def test_an_object_that_ends_early(web: Web, slide: Url, tmp_path: Path) -> None:
    web.kept_back = 7
    with pytest.raises(RemoteError, match="ends early: gives 65529 of 65536 bytes at 0, though it should have"):
        open_slide(slide, "auto", SMALL)
    with pytest.raises(RemoteError, match="ends early"), staged(slide, tmp_path / "fast", 10**9):
        pass


def test_an_object_that_is_replaced_while_it_is_copied(
    web: Web, slide: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(url: Url, offset: int, length: int, size: int) -> bytes:
        data = fetch(url, offset, length, size)
        (web.folder / "S 1.svs").write_bytes(bytes(size))
        return data

    monkeypatch.setattr("pathpipe.slides.remote_files.fetch", replaced)
    with pytest.raises(RemoteError, match="was replaced while"), staged(slide, tmp_path / "fast", 10**9):
        pass


def test_trouble_has_one_reason(web: Web, slide: Url, monkeypatch: pytest.MonkeyPatch) -> None:
    (web.folder / "zero.svs").touch()
    whole = BUNDLED_SLIDE.read_bytes()
    (web.folder / "cut.svs").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError) as here:
        open_slide(web.folder / "cut.svs")
    (web.folder / "noise.svs").write_bytes(b"noise" * 1000)
    for name, words in {
        "none.svs": "there is no such object",
        "zero.svs": r"is empty \(0 bytes\)",
        "cut.svs": re.escape(here.value.reason),
        "noise.svs": "its reader reads files on a disk only",
    }.items():
        with pytest.raises(SlideError, match=words):
            open_slide(f"{web.url}/{name}", "auto", SMALL)
    with pytest.raises(RemoteMissingError):
        slide_fingerprint(Url(f"{web.url}/none.svs"))
    assert not is_there(Url(f"{web.url}/none.svs")) and is_there(slide)
    web.ranges = False
    with pytest.raises(RemoteError, match="gives no parts of a file"):
        _grid(slide, "auto")
    assert sum(len(one[2]) > 0 for one in web.fetched) < 40, "it isn't asked for ever"


def test_a_secret_in_the_url_is_not_told(web: Web) -> None:
    url = Url(f"{web.url}/none.svs?X-Amz-Signature=hush")
    with pytest.raises(RemoteMissingError) as caught:
        open_slide(url)
    assert "hush" not in str(caught.value) and (url.name, url.stem, url.suffix) == ("none.svs", "none", ".svs")


def test_a_short_outage_is_sat_out_and_a_long_one_is_no_damage(web: Web, slide: Url) -> None:
    web.refused = 2
    assert np.array_equal(_grid(slide, "auto")[5], _grid(BUNDLED_SLIDE, "auto")[5])
    web.requests.clear()
    with open_slide(slide, "auto", SMALL) as one:
        web.dies_after = 0
        with pytest.raises(RemoteError, match="can't be reached"):
            one.read((1500, 2000), 0, (600, 600))


@pytest.mark.parametrize("after", range(4))
def test_a_server_that_dies_while_the_file_is_parsed(web: Web, slide: Url, after: int) -> None:
    """Libraries that look for a file's structure step by step take what fails for what isn't there."""
    web.dies_after = after
    tiny = Blocks(512, 1 << 20)
    for reader in ("direct", "tiffslide"):
        web.requests.clear()
        with pytest.raises(RemoteError, match="can't be reached"):
            open_slide(slide, reader, tiny)


def test_a_library_that_passes_over_what_fails(web: Web, slide: Url, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(file: RemoteFile) -> TiffIndex:
        index = read_index(file)
        web.dies_after = 0
        with suppress(RemoteError):
            file.pread(10, file.size // 2)
        return index

    monkeypatch.setattr("pathpipe.slides.readers.direct.read_index", careless)
    with pytest.raises(RemoteError, match="can't be reached"):
        open_slide(slide, "auto", Blocks(512))


def test_a_silent_server_does_not_hold_the_night(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(pathpipe.remote, "SILENT_S", 0.2)
    monkeypatch.setattr(pathpipe.remote, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(RemoteError, match="doesn't answer in time"):
        open_slide(f"http://127.0.0.1:{mute.getsockname()[1]}/a.svs")


def test_readers_that_need_a_file_say_the_way_out(web: Web, slide: Url) -> None:
    with pytest.raises(NeedsDiskError, match="--stage-dir"):
        open_slide(slide, "openslide")
    pixels = np.full((64, 64, 3), 200, np.uint8)
    tifffile.imwrite(web.folder / "a.tif", pixels, photometric="rgb", compression="jpegxl", tile=(64, 64))
    with pytest.raises(NeedsDiskError, match=r"is opened by OpenSlide.*--reader tiffslide"):
        open_slide(f"{web.url}/a.tif")
    with open_slide(f"{web.url}/a.tif", "tiffslide") as one:
        assert abs(int(one.read((3, 3), 0, (1, 1))[0, 0, 0]) - 200) < 3
    (web.folder / "a.mrxs").write_bytes(b"\xff\xd8\xff cover")
    with pytest.raises(NeedsDiskError, match="on a disk only"):
        open_slide(f"{web.url}/a.mrxs")


def test_staged_whole_within_the_quota_and_gone(
    web: Web, slide: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = BUNDLED_SLIDE.stat().st_size
    monkeypatch.setattr("pathpipe.slides.remote_files._PART_BYTES", 300_000)
    with staged(slide, tmp_path / "fast", size) as copy:
        assert isinstance(copy, Path) and copy.name == "S 1.svs" and copy.read_bytes() == BUNDLED_SLIDE.read_bytes()
        with DirectSlide(copy) as one:
            assert one.size0 == (2220, 2967)
    assert not list((tmp_path / "fast").glob(f"{_CLAIM}*"))
    with staged(slide, tmp_path / "fast", size - 1) as place:
        assert place == slide, "larger than the quota: where it is"
    web.requests.clear()
    web.dies_after = 3
    with pytest.raises(RemoteError), staged(slide, tmp_path / "fast", size):
        pass
    assert not list((tmp_path / "fast").glob(f"{_CLAIM}*"))


@pytest.fixture
def memory() -> Iterator[Callable[[Path], Url]]:
    """Puts files into an object store that is no server at all: any of fsspec's will do."""
    fs = fsspec.filesystem("memory")

    def put(path: Path) -> Url:
        fs.pipe_file(f"/wsi/{path.parent.name}/{path.name}", path.read_bytes())
        return Url(f"memory://wsi/{path.parent.name}/{path.name}")

    yield put
    fs.rm("/wsi", recursive=True)


def test_mrxs_brings_its_folder(memory: Callable[[Path], Url], tmp_path: Path) -> None:
    cover, data, index = tmp_path / "wsi" / "a.mrxs", tmp_path / "a" / "Data0.dat", tmp_path / "a" / "Index.dat"
    for path in (cover, data, index):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(path.name.encode())
    shutil.copytree(tmp_path / "a", tmp_path / "wsi" / "a")
    fs = fsspec.filesystem("memory")
    for path in (data, index):
        fs.pipe_file(f"/wsi/wsi/a/{path.name}", path.read_bytes())
    url = memory(cover)
    assert slide_fingerprint(url) == slide_fingerprint(cover)
    with staged(url, tmp_path / "fast", 1000) as copy:
        assert isinstance(copy, Path) and (copy.with_suffix("") / "Data0.dat").read_bytes() == b"Data0.dat"


def test_dicom_brings_its_series(memory: Callable[[Path], Url], shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "slides" / "openslide_python_fixtures"
    names = ["boxes_0.dcm", "boxes_1.dcm"]
    for name in names:
        shutil.copyfile(source / name, tmp_path / name)
        memory(tmp_path / name)
    shutil.copyfile(shared_data / "slides" / "dicom_camelyon_jpeg.dcm", tmp_path / "other.dcm")
    url = memory(tmp_path / "other.dcm").parent / names[1]
    assert slide_fingerprint(url) == slide_fingerprint(tmp_path / names[0])
    with staged(url, tmp_path / "fast", 10**9) as copy:
        assert isinstance(copy, Path) and sorted(path.name for path in copy.parent.iterdir()) == names
        with open_slide(copy) as one, open_slide(tmp_path / names[0]) as other:
            assert one.reader == "openslide" and np.array_equal(
                one.read((0, 0), 0, (100, 80)), other.read((0, 0), 0, (100, 80))
            )
