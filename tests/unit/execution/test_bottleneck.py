"""Where the time went: shares by hand, and the part that limits, counted by lanes."""

from __future__ import annotations

from pathpipe.execution.bottleneck import describe_time
from pathpipe.execution.receipt import Receipt
from pathpipe.settings import Execution


def _receipt(**spent: float) -> Receipt:
    return Receipt("extract", "S", "done", counts={"tiles": 10}, spent=spent)


def test_shares_add_up_over_slides() -> None:
    line = describe_time([_receipt(forward=6, decode=1), _receipt(forward=1, write=2)], Execution())
    assert line is not None
    assert "read 0%, decode 10%, transfer 0%, forward 70%, write 20%; bottleneck: forward" in line


def test_decoding_counts_by_its_threads() -> None:
    receipts = [_receipt(forward=3, decode=8)]
    assert "bottleneck: decode" in str(describe_time(receipts, Execution(read_threads=1, slides_in_flight=2)))
    assert "bottleneck: forward" in str(describe_time(receipts, Execution(read_threads=2, slides_in_flight=2)))
    assert "--read-threads" in str(describe_time(receipts, Execution(read_threads=1, slides_in_flight=1)))


def test_nothing_encoded_says_nothing() -> None:
    assert describe_time([Receipt("extract", "S", "current", counts={"tiles": 4})], Execution()) is None
    assert describe_time([], Execution()) is None
