"""Train, evaluate, save, stop and resume for a long time; print memory and step time.

    python tools/soak.py --minutes 10
    python tools/soak.py --minutes 60 --json arch.hidden_size=128

One process goes through all of it, cycle after cycle, so whatever is not let go adds up. It prints,
for each cycle, resident memory and the median time of a step; at the end, for what follows the
warm-up, how much memory has grown in 2,000 steps, by a line through all samples, and how the step
time has drifted. Further words are options of training.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import trm_mlx  # noqa: F401  loads a BLAS before MLX
from trm_mlx.config_io import load_config
from trm_mlx.run.checkpoint import read_state
from trm_mlx.run.trainer import Trainer

WORDS = [
    "experiment=sudoku4x4", "data_paths=[generate:sudoku4x4]", "puzzles_per_epoch=12800",
    "test_puzzles=256", "epochs=1000000", "eval_interval=1", "keep_checkpoints=2",
    "keep_best=all/exact_accuracy",
]  # fmt: skip
EVERY = 50  # steps between samples of the memory
WARM_UP = 500  # steps that are not judged


class Cycle:
    """Watches one stretch of a run, and stops it after some steps or at a point in time."""

    def __init__(self, trainer: Trainer, steps: int, deadline: float):
        self.trainer, self.deadline = trainer, deadline
        self.last = trainer.progress.step
        self.end = self.last + steps
        self.times: list[float] = []
        self.memory: list[tuple[int, float]] = []
        self._before = None

    def should_stop(self) -> bool:
        now, step = time.perf_counter(), self.trainer.progress.step
        if step == self.last:  # in an evaluation
            self._before = None
            return False
        if self._before is not None:
            self.times.append(now - self._before)
        self.last = step
        if step % EVERY == 0:
            self.memory.append((step, resident_mebibytes()))
        self._before = time.perf_counter()
        return step >= self.end or now > self.deadline


def resident_mebibytes() -> float:
    """Of this process, as the system counts them."""
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())])) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cycle", type=int, default=700, help="steps between resumes")
    parser.add_argument("--json", action="store_true", help="the figures as one line of JSON too")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    deadline = time.perf_counter() + 60 * arguments.minutes
    times, memory, cycles = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        words = [*WORDS, *arguments.overrides, f"checkpoint_path={run}"]
        while time.perf_counter() < deadline:
            resume = read_state(run)[0] if cycles else None
            trainer = Trainer(load_config(words), resume=resume)
            cycle = Cycle(trainer, arguments.cycle, deadline)
            trainer.fit(cycle.should_stop)
            del trainer, cycle.trainer
            gc.collect()  # a resume is a process of its own; one run must not weigh on the next
            cycles += 1
            times += cycle.times
            memory += cycle.memory
            if cycle.times and cycle.memory:
                milliseconds = 1e3 * statistics.median(cycle.times)
                print(f"cycle {cycles}: to step {cycle.last}, {cycle.memory[-1][1]:.1f} MiB, "
                      f"{milliseconds:.2f} ms a step", flush=True)  # fmt: skip
    memory = [sample for sample in memory if sample[0] > WARM_UP]
    if len(memory) < 2:
        sys.exit(f"too short: fewer than {WARM_UP + 2 * EVERY} steps; give it more --minutes")
    figures = summary(times[WARM_UP:], memory)
    print(*(f"{name:34} {value:.3f}" for name, value in figures.items()), sep="\n")
    if arguments.json:
        print(json.dumps({"cycles": cycles, **figures}))
    return 0


def summary(times: list[float], memory: list[tuple[int, float]]) -> dict[str, float]:
    """What has changed over the times of the steps and the samples of the memory."""
    steps, sizes = np.array(memory).T
    slope, start = np.polyfit(steps - steps[0], sizes, 1)
    quarter = len(times) // 4
    first, last = (1e3 * statistics.median(part) for part in (times[:quarter], times[-quarter:]))
    return {
        "steps": float(steps[-1]),
        "MiB after the warm-up": float(sizes[0]),
        "MiB at the end": float(sizes[-1]),
        "growth in 2,000 steps, %": float(100 * 2000 * slope / start),
        "ms a step, first quarter": first,
        "ms a step, last quarter": last,
        "drift of the step time, %": 100 * (last / first - 1),
    }


if __name__ == "__main__":
    sys.exit(main())
