"""Local work: with several GPUs each process is told its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pathpipe.execution.local import settings_of_workers
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge

RUN = Run(Path("a run that is not looked at"))


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settings, _ = merge(RunSettings, [("test", {"execution": {"gpus": "all", "workers": 5}})])
    found = settings_of_workers(RUN, settings, ["tissue", "tile", "extract"], 10)
    assert [one.execution.device for one in found] == ["cuda:0", "cuda:1"]
    assert all(one.extract == settings.extract for one in found)
    assert [one.execution.device for one in settings_of_workers(RUN, settings, ["tissue", "tile"], 10)] == ["auto"] * 5
