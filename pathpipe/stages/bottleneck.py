"""The bottleneck: what encoding spent its time on, and which part everything else waited for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pathpipe.settings import Execution

_ACTIVITIES = ("read", "decode", "transfer", "forward", "write")
_ADVICE = {
    "read": "the storage is slow: put the slides on a local disk, or raise --read-threads",
    "decode": "raise --read-threads; slides with whole native tiles in JPEG decode fastest",
    "transfer": "use a larger --tiles-per-batch",
    "forward": "the encoder itself, as it should be: a faster device or --precision bf16 on a GPU helps",
    "write": "the run folder's storage is slow: put it on a local disk",
}


def describe_time(work: Iterable[tuple[Mapping[str, float], float]], execution: Execution) -> str | None:
    """One line on where the time went; None where nothing was encoded.

    What limits the rate is the part that takes longest on its own lanes: the device is one lane, reading and decoding
    have as many as there are threads, writing has one a slide in flight.

    Args:
        work: (activity -> seconds, tiles) of each slide.
    """
    spent = dict.fromkeys(_ACTIVITIES, 0.0)
    tiles, lanes = 0.0, execution.slides_in_flight
    for seconds, made in work:
        for name in _ACTIVITIES:
            spent[name] += seconds.get(name, 0.0)
        tiles += made if seconds else 0
    total = sum(spent.values())
    if not total or not tiles:
        return None
    reading = execution.read_threads * lanes
    busy = {
        "read": spent["read"] / reading,
        "decode": spent["decode"] / reading,
        "transfer": spent["transfer"] / lanes,
        "forward": spent["forward"],
        "write": spent["write"] / lanes,
    }
    slowest = max(busy, key=lambda name: busy[name])
    shares = ", ".join(f"{name} {spent[name] / total:.0%}" for name in _ACTIVITIES)
    return f"time: {shares}; bottleneck: {slowest} ({_ADVICE[slowest]})"
