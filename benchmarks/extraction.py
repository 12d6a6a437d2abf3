"""How much of the encoder's speed is left end to end: tiles/s from slides to files over those of the forward pass."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pathpipe.cohort import Cohort
from pathpipe.encoders.build import build_network
from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.load import load_for
from pathpipe.execution.local import Listener, run_units
from pathpipe.run import Run
from pathpipe.samples.cohort import _textures
from pathpipe.samples.painting import Recipe, paint
from pathpipe.settings import RunSettings, merge
from pathpipe.slides.writer import shrink, write_svs

STAGES = ("tissue", "tile", "extract")


def main() -> None:
    """Encode a cohort end to end, and as many batches from memory, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--weights", help="checkpoint of the encoder")
    parser.add_argument("--random", action="store_true", help="weights at random: speed without access to them")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--slides", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if given.random:
            given.weights = str(_random_weights(given.encoder, Path(name)))
        _measure(given, Path(name))


def _measure(given: argparse.Namespace, folder: Path) -> None:
    values = {
        "tile": {"tile_px": 224, "mpp": 0.5},
        "extract": {"encoder": given.encoder, "weights": given.weights, "precision": given.precision},
        "execution": {"device": given.device},
    }
    settings, _ = merge(RunSettings, [("benchmark", values)])
    _write_slides(folder / "slides", given.slides)
    encoder = load_for(settings)
    batch = encoder.probe_batch(224)
    pixels = np.random.default_rng(0).integers(0, 255, (batch, 224, 224, 3)).astype(np.uint8)
    ratios, rates = [], []
    for number in range(given.rounds + 1):
        run = Run.create(folder / f"run{number}", Cohort.read(folder / "slides"))
        keys = [slide.slide_id for slide in run.cohort.slides]
        started = time.perf_counter()
        results = run_units(run, STAGES, settings, keys, Listener())
        elapsed = time.perf_counter() - started
        tiles = sum(int(receipts[-1].counts["tiles"]) for receipts in results.values())
        batches = max(2, tiles // batch)
        started = time.perf_counter()
        for _ in range(batches):
            encoder.embed(pixels)
        forward = batches * batch / (time.perf_counter() - started)
        if number:  # the first round warms up
            ratios.append(tiles / elapsed / forward)
            rates.append(forward)
            print(f"end to end {tiles / elapsed:8.1f} tiles/s   forward only {forward:8.1f} tiles/s")
    gflop, peak = _gflop(settings), _peak_gflops(encoder.device, given.precision)
    print(f"{given.encoder} on {encoder.device}, {given.slides} slides, {tiles} tiles, batches of {batch}")
    print(f"share of the forward-only rate, median of {given.rounds}: {statistics.median(ratios):.3f}")
    share = gflop * statistics.median(rates) / peak
    print(
        f"{gflop:.1f} GFLOP a tile; the forward pass reaches {share:.0%} of the {peak:,.0f} GFLOP/s of a matrix product"
    )
    print(f"peak memory {_peak_gib():.2f} GiB")


def _peak_gib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def _random_weights(name: str, folder: Path) -> Path:
    from safetensors.torch import save_file

    record = encoder_record(name)
    if record.layout != "timm":
        raise SystemExit(f"{name} has no timm layout: name its shape instead, e.g. timm:vit_large_patch16_224")
    state = {key: value.contiguous() for key, value in build_network(record).state_dict().items()}
    save_file(state, folder / "random.safetensors")
    return folder / "random.safetensors"


def _gflop(settings: RunSettings) -> float:
    """Of one tile, counted on the network itself; a multiply-add is two."""
    record = encoder_record(settings.extract.encoder, settings.extract.weights)
    network = build_network(record).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, record.input_px, record.input_px))
    return counter.get_total_flops() / 1e9


def _peak_gflops(device: str, precision: str) -> float:
    """The fastest of several products of square matrices in the precision of the forward pass."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    side = 1024 if device == "cpu" else 8192
    one = torch.randn(side, side, device=device, dtype=kind)
    rates = []
    for _ in range(6):
        started = time.perf_counter()
        (one @ one)[0, 0].item()
        rates.append(2 * side**3 / (time.perf_counter() - started) / 1e9)
    return max(rates)


def _write_slides(folder: Path, count: int) -> None:
    folder.mkdir()
    tissue, other = _textures()
    for number in range(count):
        recipe = Recipe((2400, 2000), 2, True)
        image = paint(recipe, tissue, other, 0.5, np.random.default_rng(number)).image
        write_svs(folder / f"S{number}.svs", [image, shrink(image, 4)], 0.5, 20)


if __name__ == "__main__":
    main()
