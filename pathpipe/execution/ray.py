"""Ray: units go to actors on a cluster one by one; what a lost worker or node had in hand is tried again elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pathpipe.execution.listener import Listener
from pathpipe.execution.processes import Work
from pathpipe.execution.ray_cluster import join, nodes
from pathpipe.execution.ray_crew import Crew, Post, R
from pathpipe.execution.ray_room import Need, environment_of, need_of, room
from pathpipe.execution.ray_worker import Introduction
from pathpipe.execution.receipt import Receipt
from pathpipe.execution.worker import work
from pathpipe.lease import release_of
from pathpipe.progress import Progress
from pathpipe.run import Run
from pathpipe.settings import RunSettings

_LOADS_TORCH = ("extract", "embed", "train", "heatmap")


def run_units(
    run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Listener
) -> dict[str, list[Receipt]]:
    """Bring every unit through `stages` on the cluster; never raises for a unit that fails.

    A unit that another command is making is waited for. A unit whose worker or node dies is tried again, twice at
    most, and alone; its receipt says why.

    Returns:
        key -> receipts.

    Raises:
        SettingsError: The cluster can never hold such workers, or they don't see the run.
        MissingError: There is no Ray, or the cluster can't be joined, or it has lost its nodes.
    """
    ray = join()
    need = need_of(stages[-1], settings, nodes(ray))
    run = there(run)
    threads = int(need.cpus) if stages[-1] in _LOADS_TORCH else None
    at_once = settings.execution.slides_in_flight if "extract" in stages else 1
    told = told_by(settings, need)
    doing: Work[list[Receipt]] = partial(work, run, tuple(stages), told, threads=threads)
    crew = Crew(ray, post_of(doing, run, stages[-1], settings, need, at_once), _Receipts(run, stages, listener))
    try:
        return crew.do(keys)
    finally:
        crew.dismiss()


def there(run: Run) -> Run:
    """The run by its whole path: workers have another working folder."""
    return replace(run, folder=Path(run.folder).absolute())


def told_by(settings: RunSettings, need: Need) -> RunSettings:
    """What a worker is told. Its GPU is the first that it sees, since it sees its own only."""
    return settings.with_execution(device="cuda:0" if need.gpus else "cpu")


def post_of(doing: Work[R], run: Run, stage: str, settings: RunSettings, need: Need, units_at_once: int = 1) -> Post[R]:
    """What each worker is hired for."""
    return Post(doing, run.folder, need, environment_of(settings.cluster.of(stage)), units_at_once)


def check_room(stages: Sequence[str], settings: RunSettings) -> None:
    """Refuse before anything is made what the cluster can never do.

    Raises:
        SettingsError: No node can hold a worker of one of the stages.
        MissingError: There is no Ray, or the cluster can't be joined.
    """
    found = nodes(join())
    for stage in stages:
        need_of(stage, settings, found)


def encodes_apart(settings: RunSettings) -> bool:
    """Whether encoding has workers with a GPU, which tissue and tiles must not keep waiting."""
    return need_of("extract", settings, nodes(join())).gpus > 0


def crew_of(stage: str, settings: RunSettings, units: int) -> tuple[int, Need]:
    """How many workers the cluster holds for so many units of a stage, and what each needs, for `--dry-run`."""
    found = nodes(join())
    need = need_of(stage, settings, found)
    return min(room(found, need), need.at_once or units, units), need


class _Receipts:
    """What comes of units that go through stages: a `Ledger`."""

    def __init__(self, run: Run, stages: Sequence[str], listener: Listener) -> None:
        self._run, self._stages, self._listener = run, stages, listener
        self._at: dict[str, str] = {}  # unit -> stage at which its worker died

    def progress(self, message: Progress) -> None:
        self._listener.progress(message)

    def finished(self, key: str, result: list[Receipt], tried: list[str]) -> list[Receipt] | None:
        last = result[-1]
        if last.state == "busy":
            return None
        if tried:
            last = replace(last, attempts=last.attempts + len(tried), tried=tried)
            last.write(self._run)
            result = [*result[:-1], last]
        self._listener.finished(key, result)
        return result

    def lost(self, key: str, who: Introduction) -> None:
        """Take away the lease that it left on the unit, so that the next try needn't wait for it to expire."""
        held = [stage for stage in self._stages if release_of(self._run.lease(stage, key), who.host, who.pid)]
        self._at[key] = held[-1] if held else self._stages[0]

    def gave_up(self, key: str, tried: list[str]) -> list[Receipt]:
        reason = f"its worker died {len(tried)} times, last on {tried[-1]}"
        hint = "a reader crashed on it, or memory ran out: try another `--reader`, or more --worker-memory-gb"
        receipt = Receipt(self._at[key], key, "failed", reason, hint, attempts=len(tried), tried=tried)
        receipt.write(self._run)
        self._listener.finished(key, [receipt])
        return [receipt]
