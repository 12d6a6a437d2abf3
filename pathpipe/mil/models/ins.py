"""INS: an instance classifier trained by pseudo-labels from prototypes and by weakly supervised contrast."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import dropout, log_softmax, normalize, one_hot

from pathpipe.mil.bag import Bags
from pathpipe.mil.contrast import KeyQueue, Prototypes, info_nce, supervised_contrast
from pathpipe.mil.model import MILModule, MILOutput, ModelCard, TrainContext, init_linear
from pathpipe.mil.pooling import mean_over_instances
from pathpipe.settings import Settings

_PROTOTYPE_MOMENTUM = 0.9
_MEMORY = (0.95, 0.8)  # share of a pseudo-label that an epoch keeps, at the first and the last


class InsOptions(Settings):
    """Options of INS."""

    hidden: int = Field(512, ge=1, description="Width of the tile embedding")
    projection: int = Field(128, ge=1, description="Width of the embedding that is contrasted")
    pool: Literal["max", "mean"] = Field(
        "max", description="A bag's logits: those of its most positive tile, or the mean of all"
    )
    tiles: int = Field(64, ge=1, description="Tiles drawn from each bag in training for the instance losses")
    warm_up: float = Field(0.13, ge=0, le=1, description="Share of the epochs before pseudo-labels are used")
    queue: int = Field(8192, ge=1, description="Keys of earlier batches that tiles are contrasted with")
    momentum: float = Field(0.999, ge=0, lt=1, description="What the momentum encoder keeps of itself in a step")
    temperature: float = Field(0.07, gt=0, description="Temperature of the contrast")
    bag_weight: float = Field(0.5, ge=0, description="Factor of the bags' loss; 0 trains on tiles alone")
    contrast_weight: float = Field(0.5, ge=0, description="Factor of the contrastive loss")
    weak_dropout: float = Field(0.1, ge=0, lt=1, description="Features dropped from a tile's weak view")
    strong_dropout: float = Field(0.25, ge=0, lt=1, description="Features dropped from a tile's strong view")
    strong_noise: float = Field(0.1, ge=0, description="Noise of the strong view, in deviations of the features")
    dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of the tile embedding in training")


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a forward pass leaves for the end of the step."""

    queries: Tensor
    keys: Tensor
    labels: Tensor


class Ins(MILModule):
    """INS on features. Class 0 is the negative one: its bags hold no tile of another class.

    The paper has two classes. Here a tile of a bag of class y > 0 is a candidate for 0 and y, which for two classes is
    the same. Other differences, all because features are what comes in: the two views of a tile, which the paper gets
    by augmenting pixels, are the features with some dropped (weak) and with more dropped and noise added (strong); the
    encoder is one layer. A tile has no memory between epochs: its soft label is the one that the paper's moving average
    would have if its pseudo-label had always been today's. Bags are trained through the instance classifier, in the
    same step; the published code trains a softmax of 512 mean features, or a head of its own.

    Reference: Qu et al., Rethinking Multiple Instance Learning for Whole Slide Image Classification: A Good Instance
    Classifier is All You Need, arXiv:2307.02249.
    """

    card = ModelCard(
        summary="Instance classifier with prototypes and contrastive learning; class 0 is negative",
        paper="Qu et al., Rethinking Multiple Instance Learning for Whole Slide Image Classification: A Good Instance "
        "Classifier is All You Need, arXiv:2307.02249",
        attention=False,
        permutation_invariant=True,
        needs_classes=True,
    )
    Options: ClassVar[type[Settings]] = InsOptions
    uniform_share: Tensor
    warm: Tensor

    def __init__(self, dim_in: int, dim_out: int, options: InsOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        self.settings = options
        width = options.hidden
        self.embed = nn.Sequential(nn.Linear(dim_in, width), nn.ReLU(), nn.Dropout(options.dropout))
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, options.projection))
        self.head = nn.Linear(width, dim_out)
        init_linear(self)
        self.key_encoder = deepcopy(nn.Sequential(self.embed, self.project)).requires_grad_(False)
        self.queue = KeyQueue(options.queue, options.projection)
        self.prototypes = Prototypes(dim_out, options.projection, _PROTOTYPE_MOMENTUM)
        self.register_buffer("uniform_share", torch.ones(()))
        self.register_buffer("warm", torch.zeros((), dtype=torch.bool))
        self._seen: list[_Seen] = []

    def on_epoch(self, context: TrainContext) -> None:
        """Where warm-up ends, and how much of a tile's first, even label is left."""
        begin = round(self.settings.warm_up * context.epochs)
        self.warm.fill_(context.epoch >= begin)
        share = 1.0
        for epoch in range(begin, context.epoch + 1):
            share *= memory(epoch, context.epochs)
        self.uniform_share.fill_(share)

    def forward(self, bags: Bags) -> MILOutput:
        """Logits of a batch, in either layout; in training with the losses of drawn tiles."""
        hidden = self.embed(bags.features)
        instance_logits = self.head(hidden)
        if self.settings.pool == "mean":
            logits, embedding = mean_over_instances(instance_logits, bags), mean_over_instances(hidden, bags)
        else:
            pairs = zip(bags.split(instance_logits), bags.split(hidden), strict=True)
            best = [(rows[at], tiles[at]) for rows, tiles in pairs for at in [positivity(rows).argmax()]]
            logits, embedding = torch.stack([row for row, _ in best]), torch.stack([tile for _, tile in best])
        return MILOutput(
            logits=logits,
            embedding=embedding,
            instance_logits=instance_logits,
            scores=positivity(instance_logits),
            losses=self._instance_losses(bags),
            loss_weights={"contrast": self.settings.contrast_weight},
            weight=self.settings.bag_weight,
        )

    def post_step(self, bags: Bags, context: TrainContext) -> None:
        """Move the momentum encoder, the prototypes and the queue."""
        keep = self.settings.momentum
        live = [*self.embed.parameters(), *self.project.parameters()]
        with torch.no_grad():
            for slow, fast in zip(self.key_encoder.parameters(), live, strict=True):
                slow.mul_(keep).add_(fast, alpha=1 - keep)
        for seen in self._seen:
            self.prototypes.update(seen.queries, seen.labels)
            self.queue.push(seen.keys, seen.labels)
        self._seen.clear()

    def _instance_losses(self, bags: Bags) -> dict[str, Tensor]:
        """Of tiles drawn from bags of known class, in training."""
        if not self.training or bags.labels is None or bags.labels.classes is None:
            return {}
        classes = bags.labels.classes
        drawn = [(bags.split(bags.features)[n], int(classes[n])) for n in range(len(bags)) if classes[n] >= 0]
        if not drawn:
            return {"instance": bags.features.new_zeros(()), "contrast": bags.features.new_zeros(())}
        rows = [tiles[self._draw(len(tiles)).to(tiles.device)] for tiles, _ in drawn]
        of_bag = torch.tensor([number for part, (_, number) in zip(rows, drawn, strict=True) for _ in part])
        # Drawn tiles of all bags in one random order: the prototypes weigh the last ones most.
        order = torch.randperm(len(of_bag))
        tiles, candidates = torch.cat(rows)[order], candidate_sets(of_bag[order], self.dim_out)
        return self._losses(tiles, candidates.to(tiles.device))

    def _losses(self, tiles: Tensor, candidates: Tensor) -> dict[str, Tensor]:
        """Classification against soft labels, and contrast, of (n, D) tiles with (n, C) candidate sets."""
        options = self.settings
        hidden = self.embed(dropout(tiles, options.weak_dropout))
        logits, queries = self.head(hidden), normalize(self.project(hidden).float(), dim=1)
        with torch.no_grad():
            noise = options.strong_noise * tiles.std(0, correction=0) * torch.randn_like(tiles)
            keys = normalize(self.key_encoder(dropout(tiles + noise, options.strong_dropout)).float(), dim=1)
            labels = (logits.softmax(1) * candidates).argmax(1)
            by_prototype = (self.prototypes.scores(queries) * candidates).argmax(1)
            targets = soft_labels(candidates, by_prototype, float(self.uniform_share))
        self._seen.append(_Seen(queries.detach(), keys, labels))
        if self.warm:
            others = torch.cat([keys, self.queue.keys])
            alike = torch.cat([labels, labels, self.queue.labels])
            contrast = supervised_contrast(queries, others, alike, options.temperature)
        else:
            contrast = info_nce(queries, keys, self.queue.keys, options.temperature)
        return {"instance": -(targets * log_softmax(logits, 1)).sum(1).mean(), "contrast": contrast}

    def _draw(self, count: int) -> Tensor:
        return torch.randperm(count)[: self.settings.tiles]


def positivity(logits: Tensor) -> Tensor:
    """Log-odds of a tile's likeliest positive class against the negative: (..., C) -> (...)."""
    if logits.shape[-1] == 1:
        return logits[..., 0]
    return logits[..., 1:].amax(-1) - logits[..., 0]


def candidate_sets(classes: Tensor, count: int) -> Tensor:
    """(n, C) 1 where a tile may have that class: the negative one 0 and its bag's, from (n,) classes of bags."""
    candidates = one_hot(classes, count)
    candidates[:, 0] = 1
    return candidates


def soft_labels(candidates: Tensor, labels: Tensor, uniform_share: float) -> Tensor:
    """(n, C) an even label over the candidates, mixed with the pseudo-label (n,); sums to 1."""
    even = candidates / candidates.sum(1, keepdim=True)
    return uniform_share * even + (1 - uniform_share) * one_hot(labels, candidates.shape[1])


def memory(epoch: int, epochs: int) -> float:
    """Share of a soft label that an epoch's pseudo-label leaves: from 0.95 towards 0.8."""
    first, last = _MEMORY
    return first + (last - first) * epoch / epochs
