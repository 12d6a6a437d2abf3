"""MHIM-MIL: a slow teacher says which instances are easy, and the student has to do without them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bags
from pathpipe.mil.hiding import Hiding, kept_rows
from pathpipe.mil.model import MILModule, MILOutput, StagedModule, TrainContext
from pathpipe.mil.recycle import Recycle
from pathpipe.mil.schedule import cosine
from pathpipe.mil.wrapper import Wrapper
from pathpipe.settings import Settings

# What `version` stands for, option by option.
_VERSIONS: dict[str, dict[str, object]] = {
    "v1": {"scores": "attention", "random": 0.5, "pool": 0.5, "high": 0.01, "consistency": 0.1, "recycle": 0},
    "v2": {"scores": "class-aware", "random": 0.0, "pool": 1.0, "high": 0.03, "consistency": 0.5, "recycle": 10},
}


class MhimOptions(Settings):
    """Options of MHIM; what isn't given is as the version has it."""

    version: Literal["v1", "v2"] = Field("v2", description="v1: by attention; v2: by class, with a recycle network")
    scores: Literal["attention", "class-aware"] | None = Field(
        None, description="What the teacher scores instances by: attention, or their probability of any class"
    )
    high: float | None = Field(None, ge=0, lt=1, description="Share of a bag hidden among its highest scored")
    pool: float | None = Field(
        None, gt=0, le=1, description="Share hidden of the highest scored it is drawn from; 1: exactly the highest"
    )
    low: float = Field(0.0, ge=0, lt=1, description="Share hidden of the lowest scored")
    random: float | None = Field(None, ge=0, lt=1, description="Share hidden at random")
    high_schedule: Literal["constant", "cosine"] = Field("constant", description="`high` over training; cosine: to 0")
    recycle: int | None = Field(None, ge=0, description="Tokens that stand for recycled instances; 0: none")
    keep_ratio: float = Field(0.9, gt=0, le=1, description="Share of the instances left that isn't recycled")
    recycle_momentum: float = Field(0.9999, ge=0, le=1, description="Momentum of the recycle network's queries")
    consistency: float | None = Field(None, ge=0, description="Weight of the likeness to the teacher's bag feature")
    temperature: float = Field(0.1, gt=0, description="Of the teacher's bag feature; lower is sharper")
    momentum: float = Field(0.9997, ge=0, le=1, description="Of the teacher")
    momentum_schedule: Literal["constant", "cosine"] = Field("constant", description="`momentum`; cosine: to 1")
    baseline_epochs: int = Field(
        5,
        ge=0,
        description="Epochs of plain training first, from which the teacher starts: an untrained one picks at random",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_version(cls, values: dict[str, object]) -> dict[str, object]:
        given = {name: value for name, value in values.items() if value is not None}
        return {**_VERSIONS.get(str(given.get("version", "v2")), {}), **given}

    @model_validator(mode="after")
    def _pool_holds(self) -> Self:
        if self.high is not None and self.pool is not None and self.high > self.pool:
            raise ValueError(f"high ({self.high}) is a share of pool ({self.pool}) of the bag, so it can't be more")
        return self


class Mhim(Wrapper):
    """Masked hard instance mining around a model in two stages: ABMIL, gated ABMIL, DSMIL, TransMIL.

    The teacher, a moving average of the student, runs as in the published code in training mode, its dropout on. There
    it starts from a baseline trained before; here the student trains plainly for `baseline_epochs`, and the teacher
    starts as its copy. Of a bag that is left whole nothing changes; prediction is the plain model's.

    The class-aware score of an instance is the largest of softmax over classes of W (A_n h_n); the bias, which the
    published code adds alike to all classes, has no effect and is left out; a single logit counts against 0. Where
    attention is one map a class (DSMIL) it is the largest instance logit, and where there is no attention to speak of
    (TransMIL) A_n is the class token's.

    Of what is left after hiding, `keep_ratio` stays and the rest is recycled into tokens. The paper's abstract speaks
    of masking at large scale while its code keeps .8 or .9: try .1 and .2 too.
    """

    summary = "Hides the easy instances, which a slow teacher finds, from the model in training"
    paper = (
        "Tang et al., Multiple Instance Learning Framework with Masked Hard Instance Mining, ICCV 2023, "
        "arXiv:2307.15254; v2: arXiv:2509.11526"
    )
    main_option = "version"
    Options: ClassVar[type[Settings]] = MhimOptions
    options: MhimOptions

    def __init__(self, base: MILModule, options: MhimOptions) -> None:
        super().__init__(base, options)
        if not isinstance(base, StagedModule):
            raise SettingsError(
                f"wrapper `mhim` can't work on `{base.name}`",
                hint="it needs a model in two stages, as abmil, gated-abmil, dsmil and transmil are; put it innermost",
            )
        tokens, width = int(options.recycle or 0), base.head.in_features
        if tokens and base.card.needs_coordinates:
            raise SettingsError(
                f"wrapper `mhim` can't recycle instances of `{base.name}`: its tokens lie nowhere on the slide",
                hint="use mhim.recycle=0",
            )
        self.student = base
        self.teacher: StagedModule = deepcopy(base).requires_grad_(False)
        self.recycle = Recycle(width, tokens, options.recycle_momentum) if tokens else None
        self.epoch = 0
        self.high = float(options.high or 0.0)
        self._tokens: list[Tensor] = []  # of the forward passes since the last step

    def setup(self, context: TrainContext) -> None:
        """The teacher starts as the student."""
        super().setup(context)
        self.teacher.load_state_dict(self.student.state_dict())

    def on_epoch(self, context: TrainContext) -> None:
        """After the plain epochs the teacher starts again as the student."""
        super().on_epoch(context)
        self.epoch = context.epoch
        if context.epoch == self.options.baseline_epochs:
            self.teacher.load_state_dict(self.student.state_dict())

    def pre_step(self, bags: Bags, context: TrainContext) -> None:
        """How much is hidden in this step."""
        super().pre_step(bags, context)
        if self.options.high_schedule == "cosine":
            self.high = cosine(float(self.options.high or 0.0), 0.0, context.step, context.total_steps)

    def post_step(self, bags: Bags, context: TrainContext) -> None:
        """The teacher follows the student, the recycle network's queries what it made."""
        super().post_step(bags, context)
        if self.options.momentum_schedule == "cosine":
            follow(self.teacher, self.student, cosine(self.options.momentum, 1.0, context.step, context.total_steps))
        else:
            follow(self.teacher, self.student, self.options.momentum)
        if self.recycle is not None and self._tokens:
            self.recycle.follow(torch.stack(self._tokens).mean(0))
        self._tokens.clear()

    def forward(self, bags: Bags) -> MILOutput:
        """Logits; in training those of the instances left, and the consistency with the teacher."""
        if not self.training:
            return self.student(bags)
        if self.epoch < self.options.baseline_epochs:
            plain: MILOutput = self.student(bags)
            self._shares(plain)  # or training would only fail after these epochs
            return plain
        bags = bags.to_packed()
        with torch.no_grad():
            taught = self.teacher.encode(bags)
            teaching = self.teacher.aggregate(taught)
            scores = self._score(teaching, taught)
        hiding = Hiding(self.high, float(self.options.pool or 1.0), self.options.low, float(self.options.random or 0.0))
        hidden = self.student.encode(bags)
        left = hidden.take([kept_rows(part, hiding) for part in bags.split(scores)])
        seen = self._recycled(left)
        output = self.student.aggregate(seen)
        losses = dict(output.losses)
        if output.embedding is not None and teaching.embedding is not None:
            losses["consistency"] = self._consistency(output.embedding, teaching.embedding, hidden.features.shape[-1])
        weights = {**output.loss_weights, "consistency": float(self.options.consistency or 0.0)}
        return replace(output, losses=losses, loss_weights=weights, seen=seen)

    def _score(self, output: MILOutput, hidden: Bags) -> Tensor:
        """(T, H) of packed instances: higher is easier."""
        shares = self._shares(output)
        if self.options.scores == "attention":
            return shares
        a_class = output.attention is not None and shares.shape[1] == self.dim_out > 1
        if a_class and output.instance_logits is not None:
            return output.instance_logits.amax(1, keepdim=True)
        return class_aware(shares.mean(1), hidden.features, self.teacher.head.weight)

    def _shares(self, output: MILOutput) -> Tensor:
        """Attention, or what a model has in its place."""
        shares = output.attention if output.attention is not None else output.attention_raw
        if shares is None:
            raise SettingsError("wrapper `mhim` needs a model that scores instances", where=f"model `{self.base.name}`")
        return shares

    def _recycled(self, left: Bags) -> Bags:
        """The instances left, or what of them is kept and the tokens of the rest."""
        if self.recycle is None:
            return left
        parts = []
        for part in left.split(left.features):
            keep = int(len(part) * self.options.keep_ratio)
            order = torch.randperm(len(part), device=part.device)
            if keep == len(part):  # nothing to recycle
                parts.append(part)
                continue
            made = self.recycle(part[order[keep:]])
            self._tokens.append(made.detach())
            parts.append(torch.cat([part[order[:keep].sort().values], made]))
        lengths = torch.tensor([0, *(len(part) for part in parts)])
        return replace(left, features=torch.cat(parts), offsets=lengths.cumsum(0), xy0=None, slide=None)

    def _consistency(self, student: Tensor, teacher: Tensor, width: int) -> Tensor:
        """Cross-entropy of the student's bag features to the teacher's, each map of a bag by itself; mean over bags."""
        maps = (-1, student.shape[-1] // width, width)
        wanted = (teacher.reshape(maps) / self.options.temperature).softmax(-1)
        return -(wanted * student.reshape(maps).log_softmax(-1)).sum(-1).mean()


def class_aware(attention: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """(T, 1) float64 largest probability over classes of each instance's share of the logits.

    A single logit stands against 0. A share is about 1 / T of the logits: in float32 the probabilities of a long bag's
    instances are equal in part, in bfloat16 all.

    Args:
        attention: (T,).
        hidden: (T, L).
        weight: (C, L) of the classifier.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        wide = torch.promote_types(hidden.dtype, torch.float32)
        shares = ((attention[:, None].to(wide) * hidden.to(wide)) @ weight.to(wide).T).double()
    if shares.shape[1] == 1:
        return shares.abs().sigmoid()
    return shares.softmax(-1).amax(-1, keepdim=True)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, over parameters; buffers stay."""
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.mul_(momentum).add_(fast, alpha=1 - momentum)
