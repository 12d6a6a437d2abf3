"""Parts of a cohort: together they are all of it, none twice, and no part is larger than another by more than one."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.cohort import Cohort, SlideRow
from pathpipe.execution.dispatch import shard_of
from pathpipe.execution.slurm import array_of
from pathpipe.run import Run

NAMES = st.lists(st.text("abc01", min_size=1, max_size=6), min_size=1, max_size=30, unique=True)


@settings(max_examples=60, deadline=None)
@given(names=NAMES, count=st.integers(1, 40), stage=st.sampled_from(["tile", "extract", "embed", "train"]))
def test_parts_partition_the_units(names: list[str], count: int, stage: str) -> None:
    slides = tuple(SlideRow(name, Path(f"/nowhere/{name}.svs"), name) for name in names)
    run = Run.with_cohort(Path("/nowhere/run"), Cohort(slides))
    parts = [shard_of(run, stage, names, f"{number}/{count}") for number in range(count)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(part == [name for name in names if name in part] for part in parts), "in the order of the cohort"


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 50), min_size=1))
def test_an_array_names_its_elements(numbers: set[int]) -> None:
    found: list[int] = []
    for span in array_of(sorted(numbers)).split(","):
        low, _, high = span.partition("-")
        found += range(int(low), int(high or low) + 1)
    assert found == sorted(numbers)
