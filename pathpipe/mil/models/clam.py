"""CLAM: gated attention, with a classifier of its most and least attended instances."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pathpipe.mil.attention import GatedAttention
from pathpipe.mil.bag import Bags, Labels
from pathpipe.mil.dropout import Dropout
from pathpipe.mil.losses import smooth_top1_svm
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule, init_linear
from pathpipe.mil.pooling import extreme_instances, softmax_over_instances, sum_over_instances
from pathpipe.settings import Settings

_PAPER = (
    "Lu et al., Data-efficient and weakly supervised computational pathology on whole-slide images, "
    "Nature Biomedical Engineering 2021, arXiv:2004.09666"
)


class ClamOptions(Settings):
    """Options of CLAM-SB and CLAM-MB."""

    hidden: int = Field(512, ge=1, description="Width of the tile embedding")
    attention_dim: int = Field(256, ge=1, description="Width of the attention network (384 in the paper's big model)")
    dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of embedding and attention in training")
    instances: int = Field(8, ge=1, description="Most, and least, attended tiles that train the instance classifiers")
    bag_weight: float = Field(0.7, gt=0, lt=1, description="Share of the bag's loss; the rest is the instance loss's")
    instance_loss: Literal["svm", "ce"] = Field("svm", description="Smooth top-1 SVM, or cross-entropy")
    subtyping: bool = Field(
        False, description="Classes exclude each other: tiles attended for a class the bag isn't of are negatives of it"
    )


class Clam(StagedModule):
    """CLAM with one attention map (CLAM-SB).

    In training a classifier for each class must tell the most attended instances of a bag of the class from its least
    attended. The two sets never overlap: a bag of less than 16 instances gives fewer, where the official code lets them
    overlap, and below 8 stops.
    """

    card = ModelCard(
        summary="Gated attention; its extremes train an instance classifier",
        paper=_PAPER,
        attention=True,
        permutation_invariant=True,
        needs_classes=True,
    )
    Options: ClassVar[type[Settings]] = ClamOptions
    options: ClamOptions

    def __init__(self, dim_in: int, dim_out: int, options: ClamOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        self.embed = nn.Sequential(nn.Linear(dim_in, options.hidden), nn.ReLU(), Dropout(options.dropout))
        self.attend = GatedAttention(options.hidden, options.attention_dim, self.maps(dim_out), options.dropout)
        self.head = nn.Linear(options.hidden, dim_out)
        self.inspect = nn.ModuleList(nn.Linear(options.hidden, 2) for _ in range(dim_out))
        init_linear(self)

    def maps(self, dim_out: int) -> int:
        """Number of attention maps K."""
        return 1

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (B, C) of pooled instances (B, K, L)."""
        return self.head(pooled.squeeze(1))

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits, attention and instance logits of embedded instances; in training the instance loss."""
        raw = self.attend(hidden.features)
        attention = softmax_over_instances(raw, hidden)
        pooled = sum_over_instances(attention, hidden.features, hidden)  # (B, K, L)
        losses = {}
        if self.training and hidden.labels is not None:
            losses["instance"] = self._instance_loss(raw.detach(), hidden, hidden.labels)
        return MILOutput(
            logits=self.classify(pooled),
            embedding=pooled.mean(1),
            attention=attention,
            attention_raw=raw,
            instance_logits=self.head(hidden.features),
            losses=losses,
            loss_weights={"instance": 1.0 - self.options.bag_weight},
            weight=self.options.bag_weight if self.training else 1.0,
        )

    def _instance_loss(self, scores: Tensor, hidden: Bags, labels: Labels) -> Tensor:
        """Mean over the bags whose class is known; 0 when none is."""
        if labels.classes is None:
            raise ValueError("CLAM's instance loss needs one class a bag; its card says so")
        bags = zip(hidden.split(scores), hidden.split(hidden.features), labels.classes.tolist(), strict=True)
        losses = [self._bag_loss(raw, features, own) for raw, features, own in bags if own >= 0]
        return torch.stack(losses).mean() if losses else scores.new_zeros(())

    def _bag_loss(self, scores: Tensor, features: Tensor, own: int) -> Tensor:
        """Instance loss of one bag of class `own`, summed over classes; with subtyping their mean."""
        options, total = self.options, scores.new_zeros(())
        for number, classifier in enumerate(self.inspect):
            column = scores[:, min(number, scores.shape[1] - 1)]  # one map serves all classes
            if number == own:
                top, bottom = extreme_instances(column, options.instances)
                rows, targets = torch.cat([top, bottom]), torch.cat([torch.ones_like(top), torch.zeros_like(bottom)])
            elif options.subtyping:
                rows = column.topk(min(options.instances, len(column))).indices
                targets = torch.zeros_like(rows)
            else:
                continue
            logits = classifier(features[rows])
            if options.instance_loss == "svm":
                total = total + smooth_top1_svm(logits, targets).mean()
            else:
                total = total + cross_entropy(logits, targets)
        return total / len(self.inspect) if options.subtyping else total


class ClamMb(Clam):
    """CLAM with an attention map and a linear classifier for each class (CLAM-MB)."""

    card = ModelCard(
        summary="CLAM with one attention map a class",
        paper=_PAPER,
        attention=True,
        permutation_invariant=True,
        needs_classes=True,
    )

    def maps(self, dim_out: int) -> int:
        """Number of attention maps K: one a class."""
        return dim_out

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (B, C), that of a class from its own map's embedding."""
        return (pooled * self.head.weight).sum(-1) + self.head.bias
