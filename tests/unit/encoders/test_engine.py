"""The engine: a batch that doesn't fit is halved and nothing is lost; turns; the probe; precision."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pathpipe.clock import Clock
from pathpipe.encoders import load
from pathpipe.encoders.build import build_network
from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.encoder import EncoderIdentity, EncoderRecord
from pathpipe.encoders.engine import CPU_BATCH, TorchEncoder, Tuning, check_precision
from pathpipe.encoders.load import load_for, pick_devices
from pathpipe.errors import MissingError, SettingsError
from pathpipe.settings import RunSettings, merge

RECORD = encoder_record("efficientnet-lite0", None)


class Small(torch.nn.Module):
    """A network whose memory holds `fits` tiles; its features are means of colours."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        self.fits = fits
        self.sizes: list[int] = []
        self.inside = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.inside += 1
        assert self.inside == 1, "two at once"
        out = images.mean((2, 3))
        self.inside -= 1
        return out


def _encoder(fits: int, tuning: Tuning | None = None) -> tuple[TorchEncoder, Small]:
    network = Small(fits)
    record = RECORD.model_copy(update={"dim": 3, "pooling": "network"})
    identity = EncoderIdentity("small", "", "", record.transform, 3)
    return TorchEncoder(record, identity, network, "cpu", tuning or Tuning()), network


TILES = np.random.default_rng(0).integers(0, 255, (20, 224, 224, 3)).astype(np.uint8)


def test_a_batch_that_does_not_fit_is_halved_and_stays_so() -> None:
    whole, _ = _encoder(64)
    encoder, network = _encoder(6)
    expected = whole.embed(TILES)
    assert np.allclose(encoder.embed(TILES), expected, atol=1e-6)
    assert network.sizes == [20, 10, 5, 5, 5, 5] and encoder.largest_batch == 5
    network.sizes.clear()
    encoder.embed(TILES[:12])
    assert network.sizes == [5, 5, 2]


def test_one_tile_that_does_not_fit_says_what_to_do() -> None:
    encoder, _ = _encoder(0)
    with pytest.raises(MissingError, match="not even one tile fits"):
        encoder.embed(TILES[:3])


def test_threads_take_turns() -> None:
    encoder, _ = _encoder(64)
    results: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: encoder.embed(TILES[n : n + 4])})) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(results[n], encoder.embed(TILES[n : n + 4])) for n in range(8))


def test_slides_in_flight_share_one_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, path = "timm:test_vit", tmp_path / "weights.pth"
    torch.save(build_network(encoder_record(name, str(path))).state_dict(), path)
    settings = merge(RunSettings, [("test", {"extract": {"encoder": name, "weights": str(path)}})])[0]
    built: list[str] = []
    ready = threading.Barrier(4)

    def build(record: EncoderRecord) -> torch.nn.Module:
        built.append(record.name)
        return build_network(record)

    monkeypatch.setattr(load, "build_network", build)

    def slide() -> None:
        ready.wait()
        found.append(load_for(settings))

    found: list[object] = []
    threads = [threading.Thread(target=slide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [name] and len(set(map(id, found))) == 1 and len(found) == 4


def test_clock_is_told() -> None:
    encoder, _ = _encoder(64)
    clock = Clock()
    encoder.embed(TILES, clock)
    assert clock.seconds["forward"] > 0 and set(clock.seconds) == {"transfer", "forward"}


def test_channels_last_changes_rounding_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    convolutions = torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 3)
    network = torch.nn.Sequential(*convolutions, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    record = RECORD.model_copy(update={"dim": 3, "pooling": "network"})
    identity = EncoderIdentity("small", "", "", record.transform, 3)
    plain, other = (
        TorchEncoder(record, identity, network, "cpu", Tuning(channels_last=flag)).embed(TILES[:4])
        for flag in (False, True)
    )
    assert np.allclose(plain, other, atol=1e-4)


@pytest.mark.parametrize(("gpus", "devices"), [("all", ["cuda:0", "cuda:1", "cuda:2"]), ("2,0", ["cuda:2", "cuda:0"])])
def test_gpus_by_number_or_all(monkeypatch: pytest.MonkeyPatch, gpus: str, devices: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert pick_devices(gpus) == devices


@pytest.mark.parametrize(("gpus", "count"), [("0,3", 3), ("all", 0)])
def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch, gpus: str, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(MissingError):
        pick_devices(gpus)


def test_cpu_batch_is_fixed() -> None:
    assert _encoder(64)[0].probe_batch(224) == CPU_BATCH


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_precision_a_cpu_has_not(precision: str) -> None:
    with pytest.raises(SettingsError, match="needs a GPU"):
        check_precision(precision, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_as_on_the_cpu() -> None:
    network = Small(512)
    record = RECORD.model_copy(update={"dim": 3, "pooling": "network"})
    identity = EncoderIdentity("small", "", "", record.transform, 3)
    encoder = TorchEncoder(record, identity, network, "cuda:0", Tuning())
    assert np.allclose(encoder.embed(TILES), _encoder(64)[0].embed(TILES), atol=1e-4)
    assert encoder.probe_batch(224) in (32, 64, 128, 256, 512)
