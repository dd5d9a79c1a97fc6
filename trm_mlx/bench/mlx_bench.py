"""Times this package on random puzzles: training step, forward pass, training loop."""

import contextlib
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable

import mlx.core as mx
import numpy as np

from trm_mlx import device
from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.data.arrays import SplitArrays
from trm_mlx.data.dataset import Batch
from trm_mlx.data.sampler import prefetch
from trm_mlx.data.writer import write_dataset
from trm_mlx.distributed import SINGLE, World
from trm_mlx.evaluate.evaluate import EvaluationStep
from trm_mlx.models.memory import bounded, evaluation_bytes
from trm_mlx.models.model import RecursiveReasoner, build_model
from trm_mlx.run.trainer import Trainer
from trm_mlx.solve.solver import HALT_THRESHOLD, Solver
from trm_mlx.train.losses import mean_metrics
from trm_mlx.train.step import TrainState


class MLXBench:
    """A model with a batch of random tokens, whose step and forward pass are timed."""

    def __init__(
        self,
        config: TrainConfig,
        seq_len: int,
        vocab_size: int,
        world: World = SINGLE,
        identifiers: int = 1,
    ):
        device.keep_memory()
        self.config = config
        shape = (config.global_batch_size // world.size, seq_len)
        self.batch = {
            "inputs": mx.random.randint(1, vocab_size, shape),
            "labels": mx.random.randint(1, vocab_size, shape),
            "puzzle_identifiers": mx.zeros(shape[:1], mx.int32),
        }
        sizes = {"seq_len": seq_len, "vocab_size": vocab_size}
        sizes["num_puzzle_identifiers"] = identifiers
        self.model = build_model(ModelConfig.of(config.arch, **sizes))
        self.state = TrainState(self.model, config, 10_000, world)
        self.evaluation = EvaluationStep(self.model, config.loss, device.compiles(config.compile))
        self.carry = self.model.initial_carry(self.batch)
        self._running: tuple = ()
        mx.eval(self.state.arrays, self.carry, self.batch)

    def step(self) -> None:
        self.model.train()
        self.carry, metrics = self.state.step(self.carry, self.batch, mx.random.key(0))
        mx.async_eval(self.state.arrays, self.carry, metrics)

    def forward(self) -> None:
        """One supervision step, dispatched while the one before it runs, as in an evaluation."""
        self.model.eval()
        before, carry = self._running, self.model.initial_carry(self.batch)
        self._running = self.evaluation(carry, self.batch)
        mx.async_eval(self._running)
        mx.eval(before)

    def bounded(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Inside, a measurement keeps to the plan of memory, as a run does."""
        if name == "step":
            return bounded(self.state.room)
        return self.evaluation.bounded(len(self.batch["inputs"]))

    def measure(self, name: str, runs: int, limited: bool = True) -> dict:
        """The mean of the seconds of ``runs`` calls, and the peak of memory in bytes.

        Args:
            limited: by the plan, as a run is; otherwise MLX launches ahead as far as it likes.
        """
        run: Callable[[], None] = getattr(self, name)
        self._running = ()
        mx.clear_cache()
        mx.reset_peak_memory()
        planned = self.state.plan.peak
        if name == "forward":
            held, rows = mx.get_active_memory(), len(self.batch["inputs"])
            planned = held + evaluation_bytes(self.model, rows)
        with self.bounded(name) if limited else contextlib.nullcontext():
            start = time.perf_counter()
            for _ in range(runs):
                run()
            mx.synchronize()
        return {
            "seconds": (time.perf_counter() - start) / runs,
            "peak": mx.get_peak_memory(),
            "planned": planned,
        }


class Unlimited:
    """The same bench, measured without the plan's limit: what the limit costs, and saves."""

    def __init__(self, bench: MLXBench):
        self._bench = bench

    def measure(self, name: str, runs: int) -> dict:
        return self._bench.measure(name, runs, limited=False)


def loop_seconds(
    config: TrainConfig, seq_len: int, vocab_size: int, steps: int
) -> tuple[float, float]:
    """Seconds to load a batch (dataset of 100,000 puzzles), and of a step of the training loop.

    The loop is that of the trainer: data from a thread, metrics fetched a step late.
    """
    puzzles = 100_000
    tokens = np.random.default_rng(0).integers(1, vocab_size, (puzzles, seq_len), np.uint8)
    offsets = np.arange(puzzles + 1)
    arrays = SplitArrays(tokens, tokens, np.zeros(puzzles, np.int32), offsets, offsets)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/random"
        splits = {"train": arrays, "test": arrays}
        write_dataset(path, splits, ["<blank>"], vocab_size=vocab_size, seq_len=seq_len)
        config = dataclasses.replace(config, data_paths=(path,), checkpoint_path=f"{folder}/run")
        trainer = Trainer(config)
        start = time.perf_counter()
        for _ in itertools.islice(trainer.stream, steps):
            pass
        loading = (time.perf_counter() - start) / steps
        warm = 2
        waiting = None
        for done, (batch, _) in enumerate(prefetch(itertools.islice(trainer.stream, steps + warm))):
            if done == warm:
                mx.synchronize()
                start = time.perf_counter()
            metrics = trainer.train_step(batch)
            if waiting is not None:
                mean_metrics(waiting, config.global_batch_size)
            waiting = metrics
        mx.synchronize()
        return loading, (time.perf_counter() - start) / steps


def solving_rates(
    model: RecursiveReasoner, puzzles: Batch, max_steps: int, batch_size: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Puzzles per second (median) and the fraction solved, ``halting`` and with ``all steps``."""
    labels = puzzles["labels"]
    results = {}
    for name, threshold in (("halting", HALT_THRESHOLD), ("all steps", None)):
        solver = Solver(model, max_steps, threshold, batch_size)
        seconds = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            solutions = list(solver.solve(puzzles["inputs"], puzzles["puzzle_identifiers"]))
            mx.synchronize()
            seconds.append(time.perf_counter() - start)
        answers = np.stack([solution.answer for solution in solutions])
        exact = ((answers == labels) | (labels < 0)).all(axis=1).mean()
        rate = len(answers) / float(np.median(seconds[1:]))
        results[name] = {"puzzles a second": rate, "solved": float(exact)}
    return results
