"""The training of an adaptation: new rows alone, then everything, by minutes or by steps."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from trm_mlx.adaptation.prepare import DATA, START
from trm_mlx.config import ArchConfig, TrainConfig
from trm_mlx.models.checkpoint_files import read_config, step_folders
from trm_mlx.run.checkpoint import read_state
from trm_mlx.run.trainer import Trainer

ROWS, ALL = "rows", "all"  # the phases, and their folders
ENDLESS = 10**9  # epochs: time or steps end a phase


class Moment(NamedTuple):
    """How far an adaptation is: the phase in words, and the share done of all phases."""

    phase: str
    done: float


class Clock:
    """How far the training is, by minutes or by steps, and whether it is to stop."""

    def __init__(
        self,
        minutes: float | None,
        steps: int | None,
        should_stop: Callable[[], bool],
        on_progress: Callable[[Moment], object],
    ):
        self._seconds = None if minutes is None else 60 * minutes
        self._steps, self._should_stop, self._on_progress = steps, should_stop, on_progress
        self._begun = time.monotonic()
        self._reserve = 0.0  # seconds that the votes will take
        self._start = 0  # steps before this phase
        self._second: tuple[float, int] | None = None  # time and number of its second step
        self.stopped = False

    def begin_phase(self, taken: int) -> None:
        """Measure the time of a step anew, from the second one on."""
        self._start, self._second = taken, None

    def step(self, phase: str, taken: int, votes: float) -> float:
        """The share of the training that is done after ``taken`` steps.

        Args:
            votes: training steps that cost as much as the votes.
        """
        now = time.monotonic()
        if self._second is None:
            self._second = (now, taken) if taken > self._start else None
        elif taken > self._second[1]:
            self._reserve = votes * (now - self._second[0]) / (taken - self._second[1])
        if self._steps is not None:
            done = taken / self._steps
        else:
            done = (now - self._begun) / max(self._seconds - self._reserve, 1e-9)
        self.report(phase, min(done, 1.0))
        return done

    def report(self, phase: str, done: float) -> None:
        """Report progress and ask whether to stop."""
        self._on_progress(Moment(phase, done))
        self.stopped = self.stopped or self._should_stop()


def train(folder: Path, phase: str, settings: dict, clock: Clock, until: float) -> Trainer:
    """Train until a share of the whole is done or somebody stops it; the state is on the disk."""
    config = _train_config(folder, phase, settings)
    resumed = folder / phase if step_folders(folder / phase) else None
    trainer = Trainer(config, resumed)
    before = 0
    if phase == ALL and step_folders(folder / ROWS):
        before = read_state(folder / ROWS).progress.step
    steps = trainer.model.config.halt_max_steps
    votes = len(trainer.test_data) * steps / config.global_batch_size / 2  # without gradients
    words = "learning its embeddings" if phase == ROWS else "learning with the whole model"
    clock.begin_phase(before + trainer.progress.step)

    def should_stop() -> bool:
        done = clock.step(words, before + trainer.progress.step, votes)
        return clock.stopped or done >= until

    trainer.fit(should_stop, show=False)
    return trainer


def _train_config(folder: Path, phase: str, settings: dict) -> TrainConfig:
    config = read_config(folder / START)
    arch = {item.name: getattr(config, item.name) for item in dataclasses.fields(ArchConfig)}
    start = folder / START
    if phase == ALL and step_folders(folder / ROWS):
        start = folder / ROWS
    return TrainConfig(
        arch=ArchConfig(**arch),
        data_paths=(str(folder / DATA),),
        epochs=ENDLESS,
        eval_interval=None,
        global_batch_size=settings["batch_size"],
        loss=settings["loss"],
        lr=settings["lr"],
        lr_warmup_steps=10,
        puzzle_emb_lr_warmup_steps=0,
        ema=phase == ALL,
        ema_rate=0.98,
        freeze_weights=phase == ROWS,
        seed=settings["seed"],
        load_checkpoint=str(start),
        checkpoint_path=str(folder / phase),
        keep_checkpoints=1,
    )
