"""Where the time went: shares by hand, and the part that limits, counted by lanes."""

from __future__ import annotations

from pathpipe.settings import Execution
from pathpipe.stages.bottleneck import describe_time


def _spent(**spent: float) -> tuple[dict[str, float], int]:
    return spent, 10


def test_shares_add_up_over_slides() -> None:
    line = describe_time([_spent(forward=6, decode=1), _spent(forward=1, write=2)], Execution())
    assert line is not None
    assert "read 0%, decode 10%, transfer 0%, forward 70%, write 20%; bottleneck: forward" in line


def test_decoding_counts_by_its_threads() -> None:
    work = [_spent(forward=3, decode=8)]
    assert "bottleneck: decode" in str(describe_time(work, Execution(read_threads=1, slides_in_flight=2)))
    assert "bottleneck: forward" in str(describe_time(work, Execution(read_threads=2, slides_in_flight=2)))
    assert "--read-threads" in str(describe_time(work, Execution(read_threads=1, slides_in_flight=1)))


def test_nothing_encoded_says_nothing() -> None:
    assert describe_time([({}, 4)], Execution()) is None
    assert describe_time([], Execution()) is None
