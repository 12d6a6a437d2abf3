"""Which unit is begun next, and which are begun alone."""

from __future__ import annotations

from collections import deque

from pathpipe.execution.queue import Queue


def test_a_worker_takes_as_many_as_it_may_in_the_order_given() -> None:
    queue = Queue(deque("abc"))
    held: set[str] = set()
    while (key := queue.next_for(held, 2)) is not None:
        held.add(key)
    assert held == {"a", "b"} and list(queue.waiting) == ["c"] and len(queue) == 1


def test_suspects_come_first_and_each_has_a_worker_to_itself() -> None:
    queue = Queue(deque("cd"))
    for key in "ab":
        queue.suspect(key)
    assert len(queue) == 4
    assert queue.next_for({"x"}, 2) is None, "a busy worker neither takes a suspect nor lets them wait"
    assert queue.next_for((), 2) == "a"
    assert queue.next_for({"a"}, 2) is None, "nothing goes beside a suspect"
    assert queue.next_for((), 2) == "b"
    assert queue.next_for({"x"}, 2) == "c", "no suspect waits any more"
    queue.came_back("a")
    assert queue.next_for({"a"}, 2) == "d"


def test_one_that_kills_its_worker_again_is_alone_again() -> None:
    queue = Queue(deque("b"))
    queue.suspect("a")
    assert queue.next_for((), 2) == "a"
    queue.suspect("a")
    assert queue.alone == set()
    assert queue.next_for((), 2) == "a" and queue.alone == {"a"}
