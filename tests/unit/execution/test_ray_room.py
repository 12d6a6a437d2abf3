"""What a worker asks of a Ray cluster, and how many of them fit."""

from __future__ import annotations

from typing import Any

import pytest

from pathpipe.errors import SettingsError
from pathpipe.execution.ray_room import Need, describe_nodes, need_of, room
from pathpipe.settings import RunSettings

SERVER = {"GPU": 8.0, "CPU": 64.0, "memory": 512e9, "node:10.0.0.1": 1.0}
SMALL = {"CPU": 4.0, "memory": 16e9}


def settings(execution: dict[str, Any] | None = None, **cluster: Any) -> RunSettings:
    return RunSettings.model_validate({"execution": execution or {}, "cluster": cluster})


@pytest.mark.parametrize(
    ("need", "count"),
    [
        (Need(0, 1), 68),
        (Need(0, 3), 21 + 1),  # what is left over on one node doesn't add to another's
        (Need(1, 4), 8),
        (Need(1, 16), 4),  # cores end first
        (Need(0.5, 1), 16),
        (Need(0.3, 1), 24),  # 3 on a GPU: 0.1 of each stays free
        (Need(0.6, 1), 8),  # never halves of two GPUs
        (Need(2, 1), 4),
        (Need(16, 1), 0),
        (Need(0, 1, memory=int(100e9)), 5),
        (Need(0, 1, memory=int(10e9)), 51 + 1),
    ],
)
def test_room(need: Need, count: int) -> None:
    assert room([SERVER, SMALL], need) == count


def test_gpus_are_asked_for_where_they_help_and_where_there_are_some() -> None:
    both, without = [SERVER, SMALL], [SMALL]
    assert need_of("extract", settings(), both) == Need(1, 4)
    assert need_of("train", settings(), both) == Need(1, 4)
    assert need_of("tile", settings(), both) == Need(0, 1)
    assert need_of("heatmap", settings(), both) == Need(0, 4)
    assert need_of("extract", settings(), without) == Need(0, 4)
    assert need_of("extract", settings({"device": "cpu"}), both) == Need(0, 4)
    assert need_of("extract", settings(worker_gpus=0.5, at_once=3, worker_memory_gb=8), both) == Need(
        0.5, 4, 8 * 10**9, 3
    )


def test_tiles_take_a_gpu_only_when_told_for_themselves() -> None:
    assert need_of("tile", settings(worker_gpus=1), [SERVER]).gpus == 0
    assert need_of("tile", settings(stages={"tile": {"worker_gpus": 1}}), [SERVER]).gpus == 1


def test_cores_that_nobody_asked_for_leave_no_gpu_without_a_worker() -> None:
    poor = {"GPU": 8.0, "CPU": 16.0}
    assert need_of("extract", settings(), [poor]) == Need(1, 2)
    assert room([poor], need_of("extract", settings(), [poor])) == 8
    assert need_of("extract", settings(worker_gpus=0.5), [poor]) == Need(0.5, 1)
    assert need_of("extract", settings(), [{"CPU": 1.0}, {"CPU": 2.0}]) == Need(0, 2)


@pytest.mark.parametrize(
    ("asked", "nodes", "reason"),
    [
        (
            settings(worker_gpus=1),
            [SMALL, SMALL],
            "no node .* can hold a worker with 1 GPU, 4 CPU; it has 2 nodes: 4 CPU",
        ),
        (settings(worker_gpus=9), [SERVER], "with 9 GPU"),
        (settings(worker_cpus=8), [SMALL], "8 CPU; it has 1 node: 4 CPU, 16 GB of memory"),
        (settings(worker_memory_gb=20), [SMALL], "20 GB of memory"),
        (settings(worker_gpus=1.5), [SERVER], "more than one are whole"),
        (settings({"gpus": "0,1"}), [SERVER], "Ray chooses the GPU"),
        (settings({"device": "cuda:1"}), [SERVER], "Ray chooses the GPU"),
        (settings({"device": "cpu"}, worker_gpus=1), [SERVER], "is to use the CPU"),
        (settings(), [], "it has no node"),
    ],
)
def test_what_can_never_be_is_refused(asked: RunSettings, nodes: list[dict[str, float]], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        need_of("extract", asked, nodes)


def test_nodes_are_described_by_what_they_have() -> None:
    assert describe_nodes([SERVER, {"CPU": 4.0}]) == "2 nodes: 8 GPU, 64 CPU, 512 GB of memory; 4 CPU"
