"""PackMIL: each slide is seen in part, and what several leave over is a hyperslide to learn from as well."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bags
from pathpipe.mil.downsample import Downsampler
from pathpipe.mil.hyperslide import asymmetric, class_mixture, focal, isup_mixture, packs
from pathpipe.mil.model import Auxiliary, MILModule, MILOutput, init_linear
from pathpipe.mil.wrapper import Wrapper
from pathpipe.settings import Settings


class PackOptions(Settings):
    """Options of PackMIL."""

    keep: float = Field(
        0.5, gt=0, lt=1, description="Share of a slide that the main branch sees; the rest is left over"
    )
    largest: int = Field(2400, ge=1, description="Tiles a pack of left-overs holds, and a slide may give each branch")
    smallest: int = Field(0, ge=0, description="Slides of fewer tiles give both branches all they have")
    downsample: int = Field(1, ge=1, description="Tiles merged into one by the attention-driven downsampler; 1: none")
    merge: Literal["random", "random-per-token", "max"] = Field("random", description="How the downsampler merges")
    residual: float = Field(0.2, ge=0, description="Weight of the hyperslides' loss")
    residual_loss: Literal["mixed", "focal", "isup"] = Field(
        "mixed",
        description="mixed: the task's own, targets weighted by tiles; focal: classes apart, the most frequent 1; "
        "isup: mean Gleason patterns of ISUP grades 0 to 5",
    )
    count_tiles: bool = Field(True, description="Weigh the classes of a hyperslide by tiles, not by slides (focal)")


class Pack(Wrapper):
    """Packing with a residual branch of hyperslides, around any model.

    Bags are packed end to end in every batch of pathpipe, each attended to by itself; what this adds is the sampling,
    the hyperslides and the downsampler. Batches of many slides make sense: `--batch-size 32`.

    The published code gives hyperslides of classes `focal` targets, and PANDA's grades `isup`. Its survival target, the
    bin of the earliest event, says of every slide in the pack what is true of one: `mixed` serves there.

    The downsampler is part of the model and stays for prediction, where it merges nothing. The published code also
    doubles `largest` for a batch whose longest slide leaves over more, and can give hyperslides a head of their own:
    neither is here.
    """

    summary = "Samples each slide and learns from packs of what several leave over; merges tiles by attention"
    paper = "PackMIL: Revisiting Data Challenges of Computational Pathology, arXiv:2509.20923"
    main_option = "keep"
    Options: ClassVar[type[Settings]] = PackOptions
    options: PackOptions

    def __init__(self, base: MILModule, options: PackOptions) -> None:
        super().__init__(base, options)
        if options.residual_loss == "isup" and base.dim_out != 6:
            raise SettingsError(
                f"hyperslides of ISUP grades need 6 classes, there are {base.dim_out}", where="pack.residual_loss"
            )
        if options.residual_loss != "mixed":
            self.card = replace(self.card, needs_classes=True)
        self.downsampler: Downsampler | None = None
        if options.downsample > 1:
            if base.card.needs_coordinates:
                raise SettingsError(
                    f"wrapper `pack` can't merge tiles for `{base.name}`: merged, they lie nowhere on the slide",
                    hint="use pack.downsample=1",
                )
            self.downsampler = Downsampler(base.dim_in, options.downsample, options.smallest, options.merge)
            init_linear(self.downsampler)

    def deployed(self) -> MILModule:
        """The model inside, or with its downsampler before it."""
        inner = self.base.deployed()
        if self.downsampler is None:
            return inner
        shown = Pack(inner, self.options)
        shown.name, shown.downsampler = self.name, self.downsampler
        return shown.train(self.training)

    def forward(self, bags: Bags) -> MILOutput:
        """Logits; in training of each slide's sample, with the loss of the hyperslides."""
        if not self.training:
            return self.base(self._shrunk(bags))
        split = [_divided(length, self.options, bags.features.device) for length in bags.lengths]
        main = self._shrunk(bags.take([part.main for part in split]))
        rest = self._shrunk(bags.take([part.residual for part in split]))
        output: MILOutput = self.base(main)
        hyper = _hyperslides(rest, self.options.largest)
        logits = self.base(hyper.bags).logits
        output = replace(output, seen=output.seen or main)
        if self.options.residual_loss == "mixed":
            residual = Auxiliary(logits[hyper.pack], hyper.bag, hyper.share, weight=self.options.residual)
            return replace(output, auxiliary={**output.auxiliary, "hyperslides": residual})
        loss = self._class_loss(logits, hyper, bags)
        return replace(
            output,
            losses={**output.losses, "hyperslides": loss},
            loss_weights={**output.loss_weights, "hyperslides": self.options.residual},
        )

    def _shrunk(self, bags: Bags) -> Bags:
        """The bags through the downsampler, packed."""
        if self.downsampler is None:
            return bags
        parts = [self.downsampler(part) for part in bags.split(bags.features)]
        if not self.training:
            return bags.with_features(bags.join(parts))
        lengths = torch.tensor([0, *(len(part) for part in parts)])
        return replace(bags, features=torch.cat(parts), offsets=lengths.cumsum(0), mask=None, xy0=None, slide=None)

    def _class_loss(self, logits: Tensor, hyper: _Hyperslides, bags: Bags) -> Tensor:
        """Loss of hyperslides whose slides have one class each; slides without one say nothing."""
        classes = bags.labels.classes if bags.labels else None
        if classes is None:
            raise SettingsError(f"`{self.options.residual_loss}` hyperslides need one class a slide", where="pack")
        losses = []
        for pack, row in enumerate(logits):
            members = (hyper.pack == pack) & (classes[hyper.bag] >= 0)
            if not members.any():
                continue
            of_slides, counts = classes[hyper.bag[members]], hyper.share[members]
            if self.options.residual_loss == "isup":
                losses.append(asymmetric(row, isup_mixture(of_slides, counts)))
            else:
                counts = counts if self.options.count_tiles else torch.ones_like(counts)
                losses.append(focal(row, class_mixture(of_slides, counts, len(row))))
        return torch.stack(losses).mean() if losses else logits.sum() * 0


@dataclass(frozen=True, eq=False)
class _Division:
    """Rows of one slide for the two branches."""

    main: Tensor
    residual: Tensor


def _divided(length: int, options: PackOptions, device: torch.device) -> _Division:
    """Rows at random, ascending: the two parts are all of the slide unless it is capped, or too small to divide."""
    largest = options.largest * options.downsample
    order = torch.randperm(length, device=device)
    first = int(length * options.keep)
    if length < options.smallest * options.downsample or first in (0, length):
        rows = order[:largest].sort().values
        return _Division(rows, rows)
    return _Division(order[:first][:largest].sort().values, order[first:][:largest].sort().values)


@dataclass(frozen=True, eq=False)
class _Hyperslides:
    """Packs as bags, and for every slide its pack, its place in the batch and how many tiles it has there."""

    bags: Bags
    pack: Tensor
    bag: Tensor
    share: Tensor


def _hyperslides(rest: Bags, room: int) -> _Hyperslides:
    """What is left over of all slides, packed; a pack is one bag."""
    found = packs(rest.lengths, room)
    device = rest.features.device
    lengths = torch.tensor(rest.lengths)
    offsets = torch.tensor([0, *(int(lengths[members].sum()) for members in found)]).cumsum(0)
    covariates = None
    if rest.covariates is not None:
        weights = lengths.to(device)[:, None]
        covariates = torch.stack(
            [(rest.covariates[members] * weights[members]).sum(0) / weights[members].sum() for members in found]
        )
    bags = replace(rest, offsets=offsets, covariates=covariates, labels=None, slide=None)
    pack = [number for number, members in enumerate(found) for _ in members]
    return _Hyperslides(
        bags,
        torch.tensor(pack, device=device),
        torch.arange(len(rest), device=device),
        lengths.to(device, torch.float32),
    )
