"""How fast the bundled networks run here, beside bare ONNX Runtime with the same file and the same number of threads.

    python -P -m benchmarks.inference [--rounds 10]

Both run the same image in turn, so that a busy machine disturbs both alike. Ours checks what goes in and comes out, and
its threads spin for a moment only while they wait, for it would cost other processes their time. The other's spin for a
while after their last run, and would take a core from what is measured next; so each begins after a rest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import onnxruntime

from benchmarks.figures import Figure, Measurement, spread
from config.settings import load as load_settings
from models.model_spec import ModelSpec
from models.runtime.executor import blank
from models.runtime.onnx_executor import OnnxExecutor
from workers.pipeline_digest import active_pipeline


def bare(spec: ModelSpec) -> Callable[[], object]:
    """A run of ONNX Runtime as its documentation shows it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(spec.file), options, providers=["CPUExecutionProvider"])
    name, image = session.get_inputs()[0].name, blank(spec)
    return lambda: session.run(None, {name: image})


def ours(spec: ModelSpec) -> Callable[[], object]:
    """The same network as a worker runs it."""
    executor, image = OnnxExecutor(spec), blank(spec)
    return lambda: executor.run(image)


_REST_SECONDS = 0.05


def seconds(run: Callable[[], object], times: int = 5) -> float:
    """The median of some runs, after a rest."""
    time.sleep(_REST_SECONDS)
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def measured(spec: ModelSpec, rounds: int) -> Figure:
    """One network."""
    mine, theirs = ours(spec), bare(spec)
    mine(), theirs()
    pairs = []
    for number in range(rounds):
        first, second = (mine, theirs) if number % 2 else (theirs, mine)
        times = {first: seconds(first), second: seconds(second)}
        pairs.append((times[mine] * 1000, times[theirs] * 1000))
    medians = [statistics.median(each) for each in zip(*pairs, strict=True)]
    ratio = spread([other / own for own, other in pairs])
    return Figure(f"one image through {spec.name}", "ms", medians[0], "bare ONNX Runtime", medians[1], ratio)


def measure(rounds: int) -> Measurement:
    """Every network of the pipeline that is active by default."""
    before = os.getloadavg()[0]
    figures = tuple(measured(spec, rounds) for spec in active_pipeline(load_settings(None)))
    command = f"python -P -m benchmarks.inference --rounds {rounds}"
    return Measurement("inference", command, figures, rounds, (before, os.getloadavg()[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    measurement = measure(parser.parse_args().rounds)
    for figure in measurement.figures:
        print(figure.row())


if __name__ == "__main__":
    main()
