"""The solver: puzzles in, answers out, with as much computation for each as it needs.

Puzzles stream through a batch of fixed size (``batcher.py``); what is tried on each
(``scheduler.py``), and which answer is taken, is a `SearchConfig`.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from trm_mlx import device
from trm_mlx.argument_types import check_types
from trm_mlx.data.arrays import IGNORE_LABEL
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.data.sampler import iterate_test
from trm_mlx.errors import InputError, located
from trm_mlx.models.memory import evaluation_rows
from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.solve.batcher import Batcher, batch_step, compiled_step
from trm_mlx.solve.scheduler import Scheduler, Solution, StepEvent
from trm_mlx.solve.search import SELECTORS, Perturbation, SearchConfig
from trm_mlx.tasks.base import Task

# A head trained as published is right about half of the time where it says 0.5. At 0.99 the
# bundled Sudoku model stops at no wrong answer, for 4 % more steps (docs/solving.md).
HALT_THRESHOLD = 0.99
CHUNK = 256  # examples that `measure` reads at once


class Puzzle(NamedTuple):
    """Tokens int32 ``[S]`` and the identifier of the puzzle embedding."""

    inputs: np.ndarray
    identifier: int


class Solver:
    """Solves any number of puzzles with one model.

    Args:
        model: put into evaluation mode.
        max_steps: supervision steps a trajectory takes at most; the model's ``halt_max_steps`` by
            default, more are allowed.
        halt_threshold: the halting probability above which a trajectory ends; None: every one takes
            all ``max_steps``, as in the published evaluation.
        batch_size: rows worked on at once; 256 by default (32 on the CPU), or the number of
            puzzles if those are fewer.
        search: the trajectories to run; one plain one by default.
        task: has the rules and symmetries that ``search`` may need.
        intermediates: give every `Solution` the ``outputs`` of all its steps.
        states: keep the states in them, most of their memory.
        compiled: `mx.compile` the step; by default on Metal, where several puzzles repay tracing.

    Raises:
        InputError: a value out of range, or a search that needs a task or another model.
    """

    def __init__(
        self,
        model: RecursiveReasoner,
        max_steps: int | None = None,
        halt_threshold: float | None = HALT_THRESHOLD,
        batch_size: int | None = None,
        search: SearchConfig | None = None,
        task: Task | None = None,
        intermediates: bool = False,
        states: bool = True,
        compiled: bool | None = None,
    ):
        if not hasattr(model, "config"):
            raise InputError(
                f"a Solver takes a model, not {type(model).__name__}: model, config = "
                "trm_mlx.load(...)"
            )
        check_types(Solver, locals())
        self.model, self.task = model, task
        self.search = search = search or SearchConfig()
        self.max_steps = model.config.halt_max_steps if max_steps is None else max_steps
        if self.max_steps < 1:
            raise InputError(f"max_steps {max_steps}: must be at least 1")
        if halt_threshold is not None and not 0 <= halt_threshold <= 1:
            raise InputError(f"halt_threshold {halt_threshold}: must lie between 0 and 1")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size {batch_size}: must be at least 1")
        if task is None and (search.symmetries or search.select == "rule"):
            option = "symmetries" if search.symmetries else "select 'rule'"
            raise InputError(f"{option} needs a task: pass task=trm_mlx.tasks.get(...)")
        if search.select == "rule" and not task.has_rules:
            others = ", ".join(name for name in SELECTORS if name != "rule")
            raise InputError(f"select 'rule': {task.name} has no rules; choose one of {others}")
        self._batch_size, self._threshold = batch_size, halt_threshold
        self._intermediates, self._compiled = intermediates, compiled
        perturbation = Perturbation.of(search, model.recursion.states)
        self._step_options = (perturbation, intermediates, intermediates and states)

    def solve(
        self,
        inputs: Iterable[np.ndarray],
        puzzle_identifiers: Iterable[int] | None = None,
        on_step: Callable[[StepEvent], None] | None = None,
    ) -> Iterator[Solution]:
        """Yield one `Solution` a puzzle, in the order of the puzzles, as soon as it is known.

        Args:
            inputs: tokens ``[N, S]``, or any iterable of tokens ``[S]``, which is read as needed.
            puzzle_identifiers: one a puzzle; all blank by default.
            on_step: called after every step of every trajectory. What it raises ends the work.

        Raises:
            InputError: a puzzle that does not fit the model, by its number; ``on_step`` without
                intermediates.
        """
        if on_step is not None and not self._intermediates:
            raise InputError("on_step needs a Solver with intermediates=True")
        puzzles = self._puzzles(inputs, puzzle_identifiers)
        first = list(itertools.islice(puzzles, max(self._batch_size or 0, 2)))
        if not first:
            return
        several = len(first) > 1
        if several and self._batch_size is None:
            most = 32 if device.device_kind() == "cpu" else 256
            first += itertools.islice(puzzles, max(evaluation_rows(self.model, most) - 2, 0))
        rows = self._batch_size or len(first)
        compiled = several and device.compiles() if self._compiled is None else self._compiled
        make_step = compiled_step if compiled else batch_step
        puzzles = itertools.chain(first, puzzles)
        scheduler = Scheduler(puzzles, self.search, self.task, self.max_steps, 16 * rows, on_step)
        step = make_step(self.model, *self._step_options)
        batcher = Batcher(self.model, step, scheduler, rows, self._threshold, not compiled)
        for _ in batcher.run():
            yield from scheduler.solutions()

    def predict(
        self, inputs: Iterable[np.ndarray], puzzle_identifiers: Iterable[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The answers, int32 ``[N, S]``, and the steps each took, int32 ``[N]``."""
        solutions = list(self.solve(inputs, puzzle_identifiers))
        answers = np.array([s.answer for s in solutions], np.int32)
        steps = np.array([s.steps for s in solutions], np.int32)
        return answers.reshape(-1, self.model.config.seq_len), steps

    def _puzzles(
        self, inputs: Iterable[np.ndarray], identifiers: Iterable[int] | None
    ) -> Iterator[Puzzle]:
        known = self.model.config.num_puzzle_identifiers
        blank, missing = itertools.repeat(0), itertools.repeat(-1)
        identifiers = blank if identifiers is None else itertools.chain(identifiers, missing)
        for number, (tokens, identifier) in enumerate(zip(inputs, identifiers, strict=False)):
            with located(f"puzzle {number}"):
                (tokens,) = check_tokens(self.model, np.asarray(tokens)[None])
                if identifier and self.search.symmetries:
                    raise InputError(
                        f"the embedding of puzzle identifier {identifier} is not one of the "
                        "puzzle's images: leave out symmetries"
                    )
                if not 0 <= identifier < known:
                    raise InputError(
                        f"puzzle identifier {identifier}: pass one of 0 to {known - 1} per puzzle"
                    )
            yield Puzzle(tokens, int(identifier))


def check_tokens(model: RecursiveReasoner, inputs: np.ndarray) -> np.ndarray:
    """``inputs [B, S]`` as int32.

    Raises:
        InputError: inputs that do not fit the model.
    """
    config = model.config
    if inputs.ndim != 2 or inputs.shape[1] != config.seq_len or inputs.dtype.kind not in "iuf":
        raise InputError(
            f"inputs of shape {inputs.shape} do not fit a model of {config.seq_len} positions: "
            f"pass tokens [batch, {config.seq_len}]"
        )
    if inputs.size and (inputs.min() < 0 or inputs.max() >= config.vocab_size):
        raise InputError(f"a token lies outside the model's vocabulary 0..{config.vocab_size - 1}")
    if inputs.dtype.kind == "f" and (inputs % 1 != 0).any():
        raise InputError(f"a token is {inputs[inputs % 1 != 0][0]}: pass whole numbers")
    return inputs.astype(np.int32)


def predict(
    model: RecursiveReasoner,
    inputs: np.ndarray,
    max_steps: int | None = None,
    halt_threshold: float | None = HALT_THRESHOLD,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve every puzzle ``inputs [N, S]`` by one trajectory; options as of `Solver`.

    Returns:
        The answers, tokens int32 ``[N, S]``, and the supervision steps each took, int32 ``[N]``.

    Raises:
        InputError: a puzzle that does not fit the model, by its number, or an option out of range.
    """
    return Solver(model, max_steps=max_steps, halt_threshold=halt_threshold).predict(inputs)


def measure(
    solver: Solver, dataset: PuzzleDataset, tick: Callable[[int], object] = lambda rows: None
) -> dict[str, dict[str, float]]:
    """Means over the examples of each set of a dataset.

    Returns:
        ``{set: {metric: mean}}``: count; accuracy (of the labelled tokens) and exact_accuracy;
        steps of the chosen trajectory; trajectories and evaluations, the supervision steps of all
        of them; rule_checked, 1 where a rule check took part in choosing the answer.
    """
    waiting: deque[tuple[str, np.ndarray]] = deque()

    def inputs() -> Iterator[np.ndarray]:
        for set_name, batch, rows in iterate_test(dataset, CHUNK):
            for tokens, labels in zip(batch["inputs"][:rows], batch["labels"], strict=False):
                waiting.append((set_name, labels))
                yield tokens

    identifiers = np.repeat(dataset.puzzle_identifiers, np.diff(dataset.puzzle_indices))
    sums: dict[str, dict[str, float]] = {}
    for solution in solver.solve(inputs(), identifiers):
        set_name, labels = waiting.popleft()
        labelled = labels != IGNORE_LABEL
        right = (solution.answer == labels)[labelled]
        values = {
            "count": 1,
            "accuracy": right.mean() if right.size else 1.0,
            "exact_accuracy": right.all(),
            "steps": solution.steps,
            "trajectories": solution.trajectories,
            "evaluations": solution.evaluations,
            "rule_checked": solution.passes is not None,
        }
        totals = sums.setdefault(set_name, dict.fromkeys(values, 0.0))
        for name, value in values.items():
            totals[name] += float(value)
        tick(1)
    return {
        set_name: {
            name: total if name == "count" else total / totals["count"]
            for name, total in totals.items()
        }
        for set_name, totals in sums.items()
    }
