"""Mutated data sets on the worker's way from stored bytes to results: none may end as *failed*.

*Failed* is for our own faults. Each becomes an analysis or *not analysed* with a reason, what reaches a network lies
between 0 and 1, and what we make of it is sound whatever it was made of. The networks are left out but for the
preparation of their input.

The short form runs with all tests. ``PLEURA_FUZZ_COUNT=20000`` runs so many, ``PLEURA_FUZZ_SEED=7`` others (a number
that is added to a data set's own; a failure names the sum, and ``tests.fuzz.mutations.data_set`` makes it again).
"""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter

import pytest
from pydicom import Dataset

from db.states import JobState
from models.radiograph.attributes import is_as_promised
from tests.fuzz.bench import Bench, stored_as
from tests.fuzz.mutations import broken_image, data_set
from workers.results.source_image import IDENTITY

COUNT = int(os.environ.get("PLEURA_FUZZ_COUNT", "200"))
SEED = int(os.environ.get("PLEURA_FUZZ_SEED", "0"))
CHUNK = 100
LONGEST_SECONDS = 10.0


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("store"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(SEED, SEED + COUNT, CHUNK))
def test_no_data_set_ends_as_failed(first: int, bench: Bench) -> None:
    ends: Counter[str] = Counter()
    for seed in range(first, min(first + CHUNK, SEED + COUNT)):
        started = time.thread_time()
        jobs = bench.analyse(stored_as(*data_set(seed)))
        seconds = time.thread_time() - started
        assert jobs.job.state is JobState.DONE, f"data set {seed}: {jobs.events}"
        assert jobs.outcome is not None
        assert seconds < LONGEST_SECONDS, f"data set {seed} took {seconds:.0f} s"
        not_analysed = jobs.outcome.not_analysed
        ends[not_analysed.code if not_analysed is not None else "analysed"] += 1
        if not_analysed is not None:
            assert not_analysed.sentence.endswith("."), f"data set {seed}: {not_analysed}"
        if seed % 10 == 0:
            assert not_analysed is None, f"data set {seed} is as it should be: {not_analysed}"
        for made in bench.objects(jobs.outcome):
            _check(made, seed)
    assert ends["analysed"] > 0
    assert len(ends) > 3


def _check(made: Dataset, seed: int) -> None:
    """Everything but what identifies patient and study is what the standard promises, whatever the source was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for element in made:
            promised = element.keyword in IDENTITY or is_as_promised(element)
            assert promised, f"data set {seed}: {element.keyword} as {element.VR}, {element.VM} values"


@pytest.mark.filterwarnings("ignore")
def test_no_broken_code_stream_ends_as_failed(bench: Bench) -> None:
    """A few from the corpus of every encoder; ``make campaigns`` and ``make fuzz`` take more."""
    ends: Counter[str] = Counter()
    for seed in range(SEED, SEED + COUNT // 4):
        syntax, body = broken_image(seed)
        jobs = bench.analyse(stored_as(syntax, body))
        assert jobs.job.state is JobState.DONE, f"image {seed}: {jobs.events}"
        assert jobs.outcome is not None
        ends[syntax] += jobs.outcome.not_analysed is not None
    assert min(ends.values()) > 0, "of each encoder some are broken for good"
