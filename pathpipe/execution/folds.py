"""Folds side by side: how many trainings run at once, on which device each, with how many threads."""

from __future__ import annotations

import os

from pathpipe.errors import StoreError
from pathpipe.execution.processes import cores
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import encoders_of

_FOLDS_PER_PROCESS = 2  # below this, starting another process (and torch in it) costs more than it saves
_SHARE_OF_MEMORY = 0.5


def devices_of_folds(run: Run, settings: RunSettings, units: int) -> list[str]:
    """The device of each process that trains: as many on each GPU as asked for, or processes that share the cores.

    On a CPU each process keeps the features of the cohort in memory, unless they are packed: no more processes are
    started by themselves than fit half the memory.
    """
    from pathpipe.encoders.load import pick_device, pick_devices
    from pathpipe.training.distributed import local_device, processes_of_torchrun

    execution = settings.execution
    if units < 1 or processes_of_torchrun() > 1:  # of torchrun's processes each takes part in every fold
        return [local_device(execution.device)]
    if execution.gpus is not None:
        devices = pick_devices(execution.gpus) * execution.folds_per_gpu
    else:
        device = str(pick_device(execution.device))
        if device.startswith("cuda"):
            devices = [device] * (execution.workers or execution.folds_per_gpu)
        else:
            devices = [device] * (execution.workers or _processes(run, settings, units))
    return devices[:units]


def threads_of_fold(processes: int) -> int:
    """Threads of each of so many processes."""
    return max(1, cores() // processes)


def _processes(run: Run, settings: RunSettings, units: int) -> int:
    return max(1, min(cores(), units // _FOLDS_PER_PROCESS, _fitting(run, settings)))


def _fitting(run: Run, settings: RunSettings) -> int:
    """Processes whose copies of the features fit the memory."""
    from pathpipe.store.pack import fresh_pack

    encoders = encoders_of(settings)
    paths = {(name, one.slide_id): run.features(name, one.slide_id) for name in encoders for one in run.cohort.slides}
    files = {key: path for key, path in paths.items() if path.is_file()}
    own = {slide_id: path for (_, slide_id), path in files.items()}
    try:
        # features of several encoders are laid side by side in memory, packed or not
        mapped = bool(files) and len(encoders) == 1 and fresh_pack(own) is not None
    except StoreError:  # a damaged pack: the first fold that needs it says so
        return 1
    stored = sum(path.stat().st_size for path in files.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return cores() if mapped else int(_SHARE_OF_MEMORY * memory // max(stored, 1))
