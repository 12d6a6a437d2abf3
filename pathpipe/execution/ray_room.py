"""Room on a Ray cluster: what a worker of a stage needs, and how many of them the nodes hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pathpipe.errors import SettingsError
from pathpipe.settings import ClusterSettings, RunSettings

Nodes = Sequence[Mapping[str, float]]  # of each living node: resource -> amount, as Ray calls them
_CPUS = 4.0  # of a worker, where there are so many
_ON_CPU = ("tissue", "tile")  # stages that gain nothing from a GPU, nor from a second core
_ON_GPU = ("extract", "train")
_SLACK = 1e-6


@dataclass(frozen=True)
class Need:
    """What each worker asks of the cluster.

    Attributes:
        gpus: GPUs; below 1 that share of one.
        memory: Bytes; 0: it doesn't say.
        at_once: Most workers at the same time; 0: as there is room.
    """

    gpus: float
    cpus: float
    memory: int = 0
    at_once: int = 0

    def __str__(self) -> str:
        parts = [f"{self.gpus:g} GPU"] if self.gpus else []
        parts += [f"{self.cpus:g} CPU"]
        parts += [f"{self.memory / 1e9:g} GB of memory"] if self.memory else []
        return ", ".join(parts)


def need_of(stage: str, settings: RunSettings, nodes: Nodes) -> Need:
    """What a worker of `stage` needs: as asked; else what suits the stage and what the nodes have.

    A GPU is asked for without being told only to encode and to train, and where there is one. Tissue and tiles take one
    only when `cluster.stages` says so for themselves.

    Raises:
        SettingsError: A device is named, which is Ray's to choose, or no node could ever hold such a worker.
    """
    _refuse_devices(settings)
    cluster = settings.cluster.of(stage)
    gpus = _gpus(stage, settings, nodes)
    cpus = float(cluster.worker_cpus or _usual_cpus(stage, gpus, nodes))
    need = Need(gpus, cpus, int((cluster.worker_memory_gb or 0) * 1e9), cluster.at_once)
    if room(nodes, need) == 0:
        raise SettingsError(
            f"no node of the Ray cluster can hold a worker with {need}; it has {describe_nodes(nodes)}",
            where="cluster",
            hint="ask for less by --worker-gpus, --worker-cpus or --worker-memory-gb, or start other nodes",
        )
    return need


def _refuse_devices(settings: RunSettings) -> None:
    execution = settings.execution
    if execution.gpus is not None:
        raise SettingsError(
            "names GPUs of one machine, and Ray chooses the GPU of each worker",
            where="--gpus",
            hint="with `--on ray` say what each worker needs: --worker-gpus, and how many: --at-once",
        )
    if execution.device not in ("auto", "cpu"):
        raise SettingsError(
            f"`{execution.device}` is a device of one machine, and Ray chooses the GPU of each worker",
            where="--device",
            hint="with `--on ray` use --worker-gpus, or `--device cpu`",
        )


def _gpus(stage: str, settings: RunSettings, nodes: Nodes) -> float:
    cluster = settings.cluster
    asked = cluster.stages.get(stage, {}).get("worker_gpus") if stage in _ON_CPU else cluster.of(stage).worker_gpus
    if asked is not None:
        if settings.execution.device == "cpu" and asked:
            raise SettingsError(f"a worker with {asked:g} GPU is to use the CPU", where="--device", hint="drop one")
        if asked > 1 and not float(asked).is_integer():
            raise SettingsError(f"{asked:g} GPUs: more than one are whole", where="--worker-gpus")
        return float(asked)
    there = any(node.get("GPU", 0) >= 1 for node in nodes)
    return 1.0 if stage in _ON_GPU and there and settings.execution.device == "auto" else 0.0


def _usual_cpus(stage: str, gpus: float, nodes: Nodes) -> int:
    """Cores that nobody asked for: few enough that some node has them, and that no GPU is left without a worker."""
    if stage in _ON_CPU:
        return 1
    if not gpus:
        return int(max(1.0, min(_CPUS, max((node.get("CPU", 0) for node in nodes), default=0))))
    shares = [node.get("CPU", 0) * gpus / node["GPU"] for node in nodes if node.get("GPU", 0) >= gpus]
    return int(max(1.0, min([_CPUS, *shares])))


def room(nodes: Nodes, need: Need) -> int:
    """Workers that the nodes hold when nobody else is on them."""
    return sum(_on_node(node, need) for node in nodes)


def _on_node(node: Mapping[str, float], need: Need) -> int:
    bounds = [node.get("CPU", 0) / need.cpus]
    if need.memory:
        bounds.append(node.get("memory", 0) / need.memory)
    if need.gpus >= 1:
        bounds.append(node.get("GPU", 0) / need.gpus)
    elif need.gpus:  # one GPU each, never halves of two
        bounds.append(int(node.get("GPU", 0)) * int(1 / need.gpus + _SLACK))
    return int(min(bounds) + _SLACK)


def describe_nodes(nodes: Nodes) -> str:
    """`2 nodes: 8 GPU, 64 CPU; 4 CPU`, or that there is none."""
    if not nodes:
        return "no node"
    each = [Need(node.get("GPU", 0), node.get("CPU", 0), int(node.get("memory", 0) // 1e9 * 1e9)) for node in nodes]
    return f"{len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}: {'; '.join(map(str, each))}"


def environment_of(cluster: ClusterSettings) -> dict[str, dict[str, str]]:
    """Ray's name for the environment variables of a worker."""
    return {"env_vars": dict(cluster.environment)} if cluster.environment else {}
