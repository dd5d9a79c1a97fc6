"""Adapts a trained ARC model to tasks it has not seen, from their demonstration pairs.

A published model knows only puzzles whose embeddings were trained. Here a task gets new rows, which
start as the mean of the trained ones; a quarter of the time trains them alone, the rest everything,
and all versions of the task vote on its answer (after Trelis, arXiv 2511.02886).

    RUN/adapt.json     what is adapted to what, and for how long
    RUN/data           the tasks and their versions, as ``trm build arc`` writes them
    RUN/start          the model with new rows
    RUN/rows, RUN/all  the two runs of a `Trainer`
    RUN/answers.json   two attempts for every test input, as Kaggle takes them
"""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from trm_mlx.builders.arc import write_puzzles
from trm_mlx.builders.arc_files import Puzzle, find_subsets, read_subset
from trm_mlx.config import ArchConfig, ModelConfig, TrainConfig
from trm_mlx.config_io import train_config
from trm_mlx.data.format import read_json
from trm_mlx.device import device_kind
from trm_mlx.errors import InputError, refusal
from trm_mlx.evaluate.arc import NO_ANSWER, ArcEvaluator, attempts, ranked
from trm_mlx.evaluate.evaluate import evaluate
from trm_mlx.files import write_text
from trm_mlx.models.checkpoint_files import (
    assign_weights,
    find_checkpoint,
    read_config,
    read_model_weights,
    save_model,
    step_folders,
)
from trm_mlx.models.model import build_model
from trm_mlx.run.checkpoint import STATE_FILE, read_state
from trm_mlx.run.trainer import Trainer
from trm_mlx.tasks.arc import ARC, grid_of_key
from trm_mlx.tasks.arc_rows import SHARED, parts_of
from trm_mlx.train.step import averaged

ROWS, ALL = "rows", "all"  # the phases, and their folders
ROWS_SHARE = 0.25  # of the time or steps, in which the rows are trained alone
MINUTES, LR = 5.0, 1e-4
VERSIONS = 32  # of every task, the task itself among them
ENDLESS = 10**9  # epochs: time or steps end a phase
STATE, ANSWERS, DATA, START = "adapt.json", "answers.json", "data", "start"


class Answer(NamedTuple):
    """What is answered to one test input.

    attempts: two grids ``[rows, columns]`` of colours; votes: for each of them; count: all votes;
    right: whether one of the attempts is the solution, None where that is not known.
    """

    question: np.ndarray
    attempts: list[np.ndarray]
    votes: list[int]
    count: int
    right: bool | None


class Adapted(NamedTuple):
    """The answers to all test inputs by task, and the folder of the run.

    interrupted: ``should_stop`` ended it early; it can be continued.
    """

    answers: dict[str, list[Answer]]
    folder: Path
    interrupted: bool

    def submission(self) -> str:
        """Return the answers as JSON in the form of Kaggle's competitions."""
        return json.dumps(
            {
                task: [
                    {f"attempt_{n}": grid.tolist() for n, grid in enumerate(answer.attempts, 1)}
                    for answer in answers
                ]
                for task, answers in self.answers.items()
            }
        )


class Moment(NamedTuple):
    """How far an adaptation is: the phase in words, and the share done of all phases."""

    phase: str
    done: float


def adapt(
    model: str | Path,
    tasks: str | Path | Sequence[Puzzle],
    folder: str | Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    versions: int = VERSIONS,
    batch_size: int | None = None,
    lr: float = LR,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Moment], object] = lambda moment: None,
) -> Adapted:
    """Adapt a model to ARC tasks and answer their test inputs.

    Args:
        model: a checkpoint or run folder, or a bundled model, with ``pos_encodings=rope2d``.
        tasks: a file or folder of tasks, or what `read_tasks` has read. Solutions of their tests
            are compared with the answers, never trained on.
        folder: of the run, new.
        minutes: that it takes in all, about; 5 by default.
        steps: of training, instead of ``minutes``; the same ones give the same answers.
        versions: of each task, images under symmetries and colour permutations, itself included.
        batch_size: rows of a step; by default up to 32 on the CPU, 256 on a GPU.
        lr: learning rate of the weights; small models want more.
        seed: of every draw.
        should_stop: called after every step and evaluated batch; where it returns True, the votes
            that there are, or those of the model as it is then, are the answer.
        on_progress: called as often.

    Raises:
        InputError: a task that cannot be read, a model that cannot be adapted, no time, or a folder
            that is taken.
    """
    folder = Path(folder)
    check_time(minutes, steps)
    if versions < 1:
        raise InputError(f"versions={versions}: must be at least 1")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size={batch_size}: must be at least 1")
    if not 0 < lr < math.inf:
        raise InputError(f"lr={lr:g}: must be greater than 0")
    source = find_checkpoint(model)
    config = check_adaptable(source)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: continue what is in it with --resume {folder}")
    puzzles = tasks
    if isinstance(tasks, str | Path):
        puzzles, problems = read_tasks(tasks)
        if problems:
            raise InputError(problems[0])
    drawing, placing = np.random.default_rng(seed).spawn(2)
    write_puzzles(folder / DATA, puzzles, versions - 1, drawing, placing)
    names = read_json(folder / DATA / "identifiers.json", "build it again", "build it again")
    _write_start(folder / START, source, config, names)
    if batch_size is None:
        pairs = sum(len(puzzle.train) for puzzle in puzzles)
        batch_size = min(32 if device_kind() == "cpu" else 256, pairs * versions)
    settings = {
        "model": str(model),
        "loss": _loss_of(source),
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "minutes": minutes,
        "steps": steps,
    }
    write_text(folder / STATE, json.dumps(settings))
    return resume(folder, should_stop=should_stop, on_progress=on_progress)


def resume(
    folder: str | Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Moment], object] = lambda moment: None,
) -> Adapted:
    """Continue an adaptation and answer anew.

    Args:
        folder: of `adapt`.
        minutes: to go on for; steps: of training in all. By default as at first: ``minutes`` again,
            or up to the same ``steps``.
        should_stop, on_progress: as of `adapt`.

    Raises:
        InputError: the folder holds no adaptation.
    """
    folder = Path(folder)
    check_time(minutes, steps)
    settings = read_json(folder / STATE, "name the folder of an earlier trm adapt", "start anew")
    if minutes is None and steps is None:
        minutes, steps = settings["minutes"], settings["steps"]
    if steps is None and minutes is None:
        minutes = MINUTES
    clock = _Clock(minutes, steps, should_stop, on_progress)
    trainer = None
    if not step_folders(folder / ALL):
        trainer = _train(folder, ROWS, settings, clock, ROWS_SHARE)
    if not clock.stopped:
        trainer = _train(folder, ALL, settings, clock, 1.0)
    answers = _vote(trainer, clock)
    adapted = Adapted(answers, folder, clock.stopped)
    write_text(folder / ANSWERS, adapted.submission())
    return adapted


def read_tasks(path: str | Path) -> tuple[list[Puzzle], list[str]]:
    """Read ARC tasks.

    Args:
        path: a JSON file of a task or of several, with the outputs of their tests beside it if it
            is called ``..._challenges.json``; or a folder of such files. See
            ``builders/arc_files.py``.

    Returns:
        The tasks, and what is wrong with those that are left out.

    Raises:
        InputError: no task can be used.
    """
    path, puzzles, problems = Path(path).expanduser(), [], []
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; name a task's JSON file")
    for subset in find_subsets(path):
        found = read_subset(path, subset, held_out=True, skip_invalid=True)
        puzzles += found.puzzles
        problems += found.skipped
    return puzzles, problems


def check_time(minutes: float | None, steps: int | None) -> None:
    """Check how long to adapt for.

    Raises:
        InputError: no time at all, or two kinds of it.
    """
    if minutes is not None and steps is not None:
        raise InputError(f"minutes={minutes:g} and steps={steps}: name one of them")
    if minutes is not None and not 0 < minutes < math.inf:
        raise InputError(f"minutes={minutes:g}: must be greater than 0")
    if steps is not None and steps < 1:
        raise InputError(f"steps={steps}: must be at least 1")


def check_adaptable(folder: Path) -> ModelConfig:
    """Return the configuration of a model that can be adapted to ARC tasks.

    Raises:
        InputError: naming what it lacks.
    """
    config = read_config(folder)
    if (config.vocab_size, config.seq_len) != (ARC.vocab_size, ARC.seq_len):
        raise InputError(
            f"{folder} reads {config.seq_len} cells of {config.vocab_size} tokens, ARC's canvases "
            f"have {ARC.seq_len} of {ARC.vocab_size}: name a model trained on ARC"
        )
    if config.pos_encodings != "rope2d" or config.mlp_t:
        raise InputError(
            f"{folder} has arch.pos_encodings={config.pos_encodings}: adapting needs rope2d, as of "
            "experiment=arc1_fast"
        )
    if not config.puzzle_dims:
        raise InputError(f"{folder} has no puzzle embeddings, which adapting trains: name another")
    return config


class _Clock:
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


def _train(folder: Path, phase: str, settings: dict, clock: _Clock, until: float) -> Trainer:
    """Train until a share of the whole is done or somebody stops it; the state is on the disk."""
    config = _train_config(folder, phase, settings)
    resumed = folder / phase if step_folders(folder / phase) else None
    trainer = Trainer(config, resumed)
    before = 0
    if phase == ALL and step_folders(folder / ROWS):
        before = read_state(folder / ROWS)[1].step
    examples = int(trainer.test_data.puzzle_indices[-1])
    steps = trainer.model.config.halt_max_steps
    votes = examples * steps / config.global_batch_size / 2  # without gradients
    words = "rows alone" if phase == ROWS else "everything"
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


def _vote(trainer: Trainer, clock: _Clock) -> dict[str, list[Answer]]:
    """Let all versions of the tasks vote on their answers; a stop ends the vote early."""
    (evaluator,) = trainer.evaluators
    examples, seen = int(trainer.test_data.puzzle_indices[-1]), 0
    asked_before = clock.stopped

    def tick(rows: int) -> None:
        nonlocal seen
        seen += rows
        clock.report("voting", seen / examples)
        if clock.stopped and not asked_before:
            raise _StopVotingError

    with averaged(trainer.state), contextlib.suppress(_StopVotingError):
        evaluate(trainer.evaluation, trainer.test_data, evaluators=trainer.evaluators, tick=tick)
    return answers_of(evaluator)


class _StopVotingError(Exception):
    """Ends a vote with the votes that there are."""


def answers_of(evaluator: ArcEvaluator) -> dict[str, list[Answer]]:
    """Return the answers that have the most votes, to every test of every task."""
    found = {}
    for task, tests in evaluator.tests.items():
        found[task] = []
        for question, solution in tests:
            votes = evaluator.votes.get((task, question), {})
            chosen = attempts(ranked(votes))
            right = None if solution == NO_ANSWER else solution in chosen
            found[task].append(
                Answer(
                    grid_of_key(question),
                    [grid_of_key(key) for key in chosen],
                    [votes.get(key, (0, 0.0))[0] for key in chosen],
                    sum(count for count, _ in votes.values()),
                    right,
                )
            )
    return found


def _write_start(folder: Path, source: Path, config: ModelConfig, names: list[str]) -> None:
    """Write the model with new rows for the named versions, each the mean of the trained ones."""
    weights = read_model_weights(source)
    table, shared, parts = weights["puzzle_emb.weights"], 1, None
    config = dataclasses.replace(config, num_puzzle_identifiers=len(names))
    rows = len(names)
    if config.num_puzzle_rows:
        shared, parts = SHARED, parts_of(names)
        rows = int(parts.max()) + 1
        config = dataclasses.replace(config, num_puzzle_rows=rows)
    mean = mx.mean(table[shared:] if len(table) > shared else table, axis=0, keepdims=True)
    new = mx.repeat(mean, rows - shared, axis=0)
    weights["puzzle_emb.weights"] = mx.concatenate([table[:shared], new])
    model = build_model(config)
    assign_weights(model, weights, str(source))
    if parts is not None:
        model.puzzle_emb.compose(mx.array(parts))
    try:
        folder.mkdir(parents=True)
        save_model(folder, model)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {refusal(error)}") from error


def _loss_of(source: Path) -> str:
    """The loss that a model was trained with; that of arc1_fast where it does not say."""
    if not (source / STATE_FILE).exists():
        return "softmax_cross_entropy"
    return train_config(read_state(source)[2]).loss
