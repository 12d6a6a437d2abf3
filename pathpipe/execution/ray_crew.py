"""The crew: the actors of one group of units, hired as there is room, given units, listened to and dismissed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pathpipe
from pathpipe.errors import MissingError, SettingsError
from pathpipe.execution.processes import Work
from pathpipe.execution.queue import Queue
from pathpipe.execution.ray_cluster import nodes
from pathpipe.execution.ray_room import Need, room
from pathpipe.execution.ray_worker import Introduction, Worker
from pathpipe.progress import Progress

R = TypeVar("R")
_TRIES = 3
_POLL_S = 0.5  # between looks at what another command is making
_STAFF_S = 5.0  # between looks at the room there is
_STOP_S = 20.0  # what a worker gets to come to a place where it can stop
_PATIENCE_S = 300.0  # how long a cluster may have no room at all
_REASONS = {  # what Ray says -> what it means; the first that is found
    "temporarily unavailable": "contact with its node was lost",  # the process alone Ray reports as dead at once
    "node has died": "its node died",
    "running low on memory": "its node ran low on memory, and Ray ended it",
    "worker process has died": "its process died: a reader crashed, or memory ran out",
}
_TALK = 3  # calls beside the units: of progress, introduction and the end


@dataclass(frozen=True)
class Post(Generic[R]):
    """What every worker of a crew is hired for.

    Attributes:
        folder: Of the run, which every worker must see.
        environment: Ray's runtime environment.
        units_at_once: Units that a worker has in hand at the same time.
        stays: Whether workers are kept when there are more of them than units, because other units will follow.
    """

    work: Work[R]
    folder: Path
    need: Need
    environment: Mapping[str, Any]
    units_at_once: int = 1
    stays: bool = False


class Ledger(Protocol[R]):
    """Who keeps what comes of the units."""

    def progress(self, message: Progress) -> None:
        """A unit says how far it is."""

    def finished(self, key: str, result: R, tried: list[str]) -> R | None:
        """A unit is through, after tries that ended for these reasons: what is kept; None: it is to be done later."""

    def lost(self, key: str, who: Introduction) -> None:
        """The worker that had the unit in hand is dead."""

    def gave_up(self, key: str, tried: list[str]) -> R:
        """The result of a unit whose worker died each time."""


@dataclass(eq=False)
class _Member:
    """One actor.

    Attributes:
        calls: What it has been asked and has not answered: reference -> what hears the answer.
        units: Reference -> key, of those calls that are units.
        who: None until it runs.
    """

    actor: Any
    calls: dict[Any, Callable[[Any], None]] = field(default_factory=dict)
    units: dict[Any, str] = field(default_factory=dict)
    who: Introduction | None = None


class Crew(Generic[R]):
    """Workers on a cluster, and what they have in hand."""

    def __init__(self, ray: Any, post: Post[R], ledger: Ledger[R]) -> None:
        self._ray, self._post, self._ledger = ray, post, ledger
        self._members: list[_Member] = []
        self._queue = Queue(deque())
        self._later: list[str] = []
        self._tried: dict[str, list[str]] = {}
        self._results: dict[str, R] = {}
        self._room_seen = self._staffed = time.monotonic()
        self._stillborn = 0

    def do(self, keys: Sequence[str]) -> dict[str, R]:
        """Every unit once, begun in the order given.

        Returns:
            key -> result, in the order they were finished.
        """
        self._results = {}
        self._queue.waiting.extend(keys)
        self._staff()
        self._hand_over()
        while len(self._results) < len(keys):
            self._hear()
            if time.monotonic() - self._staffed > _STAFF_S:
                self._staff()
            if self._later and not len(self._queue) and not self._in_hand():
                time.sleep(_POLL_S)
                self._queue.waiting.extend(self._later)
                self._later.clear()
            self._hand_over()
        return self._results

    def _in_hand(self) -> int:
        return sum(len(member.units) for member in self._members)

    def _staff(self) -> None:
        """Hire as many as there is room for and work for; let those go that nothing is left for."""
        self._staffed = time.monotonic()
        need, left = self._post.need, len(self._queue) + len(self._later) + self._in_hand()
        there = room(nodes(self._ray), need)
        if there or self._members:
            self._room_seen = self._staffed
        elif self._staffed - self._room_seen > _PATIENCE_S:
            raise MissingError(
                f"the Ray cluster has lost every node that could hold a worker with {need}",
                hint="what was finished is kept; run the same command again when nodes are back",
            )
        for _ in range(min(there, need.at_once or left, left) - len(self._members)):
            self._hire()
        idle = [member for member in self._members if not member.units]
        for member in idle[: 0 if self._post.stays else max(0, len(self._members) - left)]:
            self._part_with(member)

    def _hire(self) -> None:
        post, need = self._post, self._post.need
        options = {
            "num_cpus": need.cpus,
            "num_gpus": need.gpus,
            "max_concurrency": post.units_at_once + _TALK,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
            "runtime_env": dict(post.environment),
            **({"memory": need.memory} if need.memory else {}),
        }
        actor = self._ray.remote(Worker).options(**options).remote(post.work, post.folder)
        member = _Member(actor)
        self._members.append(member)
        member.calls[actor.introduce.remote()] = partial(self._met, member)

    def _met(self, member: _Member, who: Introduction) -> None:
        if who.version != pathpipe.__version__:
            raise SettingsError(
                f"has pathpipe {who.version}, this command is {pathpipe.__version__}",
                where=who.host,
                hint="install the same version on all nodes of the cluster",
            )
        if not who.sees_run:
            raise SettingsError(
                f"doesn't see the run {self._post.folder}",
                where=who.host,
                hint="runs and slides must lie on a file system that all nodes mount at the same place",
            )
        member.who, self._stillborn = who, 0
        self._listen(member)

    def _listen(self, member: _Member) -> None:
        def heard(messages: Any) -> None:
            for message in messages:
                self._ledger.progress(message)
            self._listen(member)

        member.calls[member.actor.progress.remote()] = heard

    def _hand_over(self) -> None:
        for member in self._members:
            while member.who is not None:
                key = self._queue.next_for(set(member.units.values()), self._post.units_at_once)
                if key is None:
                    break
                reference = member.actor.work.remote(key)
                member.units[reference] = key
                member.calls[reference] = partial(self._finish, key)

    def _hear(self) -> None:
        """Wait for the next answer, and take all that are there."""
        waiting = {reference: member for member in self._members for reference in member.calls}
        if not waiting:
            time.sleep(_POLL_S)
            return
        ready, _ = self._ray.wait(list(waiting), timeout=_STAFF_S)
        if not ready:
            return
        ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for reference in ready:
            member = waiting[reference]
            if member in self._members and reference in member.calls:
                self._answer(member, reference)

    def _answer(self, member: _Member, reference: Any) -> None:
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError as error:  # nothing of a unit: its bulkhead holds
            raise error.cause from None
        except errors.RayError as error:
            self._lost(member, error)
            return
        heard = member.calls.pop(reference)
        member.units.pop(reference, None)
        heard(value)

    def _finish(self, key: str, result: R) -> None:
        self._queue.came_back(key)
        kept = self._ledger.finished(key, result, self._tried.get(key, []))
        if kept is None:
            self._later.append(key)
        else:
            self._results[key] = kept

    def _lost(self, member: _Member, error: Exception) -> None:
        """A worker died: what it had finished counts, what it had in hand is tried again, alone."""
        for reference in list(member.units):
            with suppress(self._ray.exceptions.RayError):
                result = self._ray.get(reference, timeout=0)
                self._finish(member.units.pop(reference), result)
        self._part_with(member)
        if member.who is None:
            self._stillborn += 1
            if self._stillborn >= _TRIES:
                raise MissingError(f"Ray can't start a worker: {reason_of(error)}", hint="`ray logs` may say more")
            self._staff()
            return
        for key in member.units.values():
            self._ledger.lost(key, member.who)
            tried = self._tried.setdefault(key, [])
            tried.append(f"{member.who.host}: {reason_of(error)}")
            if len(tried) < _TRIES:
                self._queue.suspect(key)
            else:
                self._queue.came_back(key)
                self._results[key] = self._ledger.gave_up(key, tried)
        self._staff()

    def _part_with(self, member: _Member) -> None:
        self._members.remove(member)
        self._ray.kill(member.actor)

    def dismiss(self) -> None:
        """End all workers; what they have in hand stops where it can be gone on with, and leases are given back."""
        working = [member for member in self._members if member.units]
        for member in working:
            member.actor.stop.remote()
        units = [reference for member in working for reference in member.units]
        try:
            if units:
                self._ray.wait(units, num_returns=len(units), timeout=_STOP_S)
        finally:  # a second Ctrl-C ends the waiting
            for member in list(self._members):
                self._part_with(member)
            for member in working:
                for key in member.units.values():
                    if member.who is not None:
                        self._ledger.lost(key, member.who)


def reason_of(error: Exception) -> str:
    """Why a worker is gone, in a few of the many words that Ray has for it."""
    text = str(error)
    for sign, reason in _REASONS.items():
        if sign in text:
            return reason
    return text.strip().splitlines()[-1][:200]
