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

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from trm_mlx.adaptation.answers import Adapted, Answer, vote
from trm_mlx.adaptation.phases import ALL, ROWS, Clock, Moment, train
from trm_mlx.adaptation.prepare import check_adaptable, read_tasks, write_inputs
from trm_mlx.builders.arc_files import Puzzle
from trm_mlx.data.format import read_json
from trm_mlx.device import device_kind
from trm_mlx.errors import InputError
from trm_mlx.files import write_text
from trm_mlx.models.checkpoint_files import find_checkpoint, step_folders
from trm_mlx.run.checkpoint import config_of_run

__all__ = ["Adapted", "Answer", "Moment", "adapt", "read_tasks", "resume"]

ROWS_SHARE = 0.25  # of the time or steps, in which the rows are trained alone
MINUTES, LR = 5.0, 1e-4
VERSIONS = 32  # of every task, the task itself among them
STATE, ANSWERS = "adapt.json", "answers.json"


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
    write_inputs(folder, source, config, puzzles, versions, seed)
    if batch_size is None:
        pairs = sum(len(puzzle.train) for puzzle in puzzles)
        batch_size = min(32 if device_kind() == "cpu" else 256, pairs * versions)
    trained = config_of_run(source)
    settings = {
        "model": str(model),
        "loss": trained.loss if trained else "softmax_cross_entropy",  # that of arc1_fast
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
    clock = Clock(minutes, steps, should_stop, on_progress)
    trainer = None
    if not step_folders(folder / ALL):
        trainer = train(folder, ROWS, settings, clock, ROWS_SHARE)
    if not clock.stopped:
        trainer = train(folder, ALL, settings, clock, 1.0)
    answers = vote(trainer, clock)
    adapted = Adapted(answers, folder, clock.stopped)
    write_text(folder / ANSWERS, adapted.submission())
    return adapted


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
