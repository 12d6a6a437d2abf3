"""Training speed of gated ABMIL: pathpipe's trainer against a bag-at-a-time loop and torchmil, in one run.

    .venv-peers/bin/python benchmarks/mil_training.py [--device cuda] [--bags short long] [--peak]

All train the same network (D -> 512, ReLU, dropout, gated attention of 128, 2 classes) on the same float16 noise,
with a step of AdamW every `--batch-size` bags, and take turns: times are ratios to the loop, medians of rounds.
`--peak` trains one bag of 200,000 x 1024 in a process of its own and prints its largest resident memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pathpipe.mil.bag import Bag
from pathpipe.settings import TrainSettings
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.training.fit import Conditions, Fit, Part
from pathpipe.training.memory import keep_freed_memory
from pathpipe.training.trainer import _train_epoch

KINDS = {"short": (20, 300, 192), "medium": (500, 2_000, 24), "long": (2_000, 10_000, 8)}  # instances, bags
DIM, HIDDEN, ATTENTION, DROPOUT = 1024, 512, 128, 0.25
Epoch = Callable[[], None]
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


class PlainGatedAbmil(nn.Module):
    """The network as people write it, for one bag (N, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT))
        self.content, self.gate = nn.Linear(HIDDEN, ATTENTION), nn.Linear(HIDDEN, ATTENTION)
        self.score, self.head = nn.Linear(ATTENTION, 1), nn.Linear(HIDDEN, 2)

    def forward(self, features: Tensor) -> Tensor:
        """(1, 2)."""
        hidden = self.embed(features)
        attention = self.score(self.content(hidden).tanh() * self.gate(hidden).sigmoid()).softmax(0)
        return self.head(attention.T @ hidden)


def loop_of(bags: Sequence[Bag], classes: Tensor, batch: int, device: str) -> Epoch:
    """A bag at a time, gradients added up over a batch."""
    model = PlainGatedAbmil().to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    targets = classes.to(device)

    def epoch() -> None:
        model.train()
        for members in torch.randperm(len(bags)).split(batch):
            optimiser.zero_grad()
            for index in members.tolist():
                logits = model(torch.from_numpy(bags[index].features).to(device).float())
                (nn.functional.cross_entropy(logits, targets[index : index + 1]) / len(members)).backward()
            optimiser.step()
        _wait(device)

    return epoch


def torchmil_of(bags: Sequence[Bag], classes: Tensor, batch: int, device: str, padded: bool) -> Epoch | None:
    """torchmil's ABMIL: a bag at a time, or padded to the longest bag of the batch."""
    try:
        from torchmil.models import ABMIL
    except ModuleNotFoundError:
        return None
    embed = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT))
    model = ABMIL((DIM,), att_dim=ATTENTION, gated=True, feat_ext=embed).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    targets = classes.to(device)

    def epoch() -> None:
        model.train()
        for members in torch.randperm(len(bags)).split(batch):
            optimiser.zero_grad()
            groups = [members] if padded else members.split(1)
            for group in groups:
                features = [torch.from_numpy(bags[index].features).to(device).float() for index in group.tolist()]
                stacked = nn.utils.rnn.pad_sequence(features, batch_first=True)
                mask = torch.arange(stacked.shape[1]) < torch.tensor([len(one) for one in features])[:, None]
                _, losses = model.compute_loss(targets[group], stacked, mask.to(device))
                (sum(losses.values()) * len(group) / len(members)).backward()
            optimiser.step()
        _wait(device)

    return epoch


def pathpipe_of(bags: Sequence[Bag], classes: Tensor, batch: int, device: str, compile: bool = False) -> Epoch:
    """The trainer's own epoch, prefetching included."""
    settings = TrainSettings(model="gated-abmil", batch_size=batch, epochs=1000, balance="none")
    task = ClassificationTask("label", ("0", "1"))
    fit = Fit.of(Part(bags, classes), task, settings, 0, torch.device(device), Conditions(compile=compile))
    now = fit.resume()

    def epoch() -> None:
        _train_epoch(fit, now)
        now.epoch, now.step, now.loss = now.epoch + 1, 0, torch.zeros_like(now.loss)
        _wait(device)

    return epoch


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def compare(kind: str, batch: int, device: str, rounds: int, compiled: bool, clock: Clock) -> None:
    """One row of the table."""
    low, high, count = KINDS[kind]
    rng = np.random.default_rng(0)
    lengths = rng.integers(low, high, count)
    bags = [Bag(rng.standard_normal((int(length), DIM), np.float32).astype(np.float16)) for length in lengths]
    classes = torch.arange(count) % 2
    epochs = {
        "loop": loop_of(bags, classes, batch, device),
        "pathpipe": pathpipe_of(bags, classes, batch, device),
        "pathpipe compiled": pathpipe_of(bags, classes, batch, device, True) if compiled else None,
        "torchmil": torchmil_of(bags, classes, batch, device, padded=False),
        "torchmil padded": torchmil_of(bags, classes, batch, device, padded=True),
    }
    spent: dict[str, list[float]] = {}
    for _ in range(rounds + 1):
        for name, epoch in epochs.items():
            if epoch is not None:
                start = clock()
                epoch()
                spent.setdefault(name, []).append(clock() - start)
    median = {name: float(np.median(times[1:])) for name, times in spent.items()}
    ratios = "  ".join(f"{name} {median['loop'] / value:.2f}" for name, value in median.items())
    rate = sum(len(bag) for bag in bags) / median["pathpipe"]
    print(f"{kind:<7} {low}-{high} instances, batch {batch:>2}: {ratios}  ({rate:,.0f} instances/s)", flush=True)


def peak(instances: int, device: str) -> None:
    """Two epochs on bags of one size, and what the process held at most."""
    rng = np.random.default_rng(0)
    features = np.empty((instances, DIM), np.float16)
    for start in range(0, instances, 10_000):
        features[start : start + 10_000] = rng.standard_normal((len(features[start : start + 10_000]), DIM), np.float32)
    keep_freed_memory()
    epoch = pathpipe_of([Bag(features), Bag(features)], torch.tensor([0, 1]), 1, device)
    for _ in range(2):
        start = time.perf_counter()
        epoch()
    seconds = (time.perf_counter() - start) / 2
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"a bag of {instances:,} x {DIM}: {seconds:.1f} s a step, peak {held:.2f} GiB resident", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bags", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--batch-size", type=int, nargs="*", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: seconds of this process's threads")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peak", type=int, nargs="?", const=200_000, default=0, metavar="INSTANCES")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peak and not chosen.alone:
        subprocess.run([sys.executable, __file__, "--alone", *sys.argv[1:]], check=True)
        return
    if chosen.peak:
        peak(chosen.peak, chosen.device)
        return
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {chosen.device}; speed as ratios to the loop")
    for kind in chosen.bags:
        for batch in chosen.batch_size:
            compare(kind, batch, chosen.device, chosen.rounds, chosen.compile, CLOCKS[chosen.clock])


if __name__ == "__main__":
    main()
