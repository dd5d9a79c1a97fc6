"""A training run as an object: build a `Trainer`, then `fit`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from trm_mlx import device
from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.data.dataset import PuzzleDataset, known_names, saved_names, unnamed
from trm_mlx.data.format import METADATA_FILE
from trm_mlx.data.sampler import prefetch, total_steps
from trm_mlx.distributed import SINGLE, World
from trm_mlx.errors import InputError
from trm_mlx.evaluate import build_evaluators
from trm_mlx.evaluate.evaluate import (
    EvaluationStep,
    check_savable,
    evaluate,
    write_files,
    write_outputs,
)
from trm_mlx.models.act import Carry
from trm_mlx.models.memory import bounded
from trm_mlx.models.model import RecursiveReasoner, build_model
from trm_mlx.models.operations import flop
from trm_mlx.models.variants import recursion_at
from trm_mlx.run.checkpoint import Progress, prune, read_state, save_checkpoint
from trm_mlx.run.folder import RunFolder, check_newest, fill_names
from trm_mlx.run.report import Report, check_numbers, check_wandb
from trm_mlx.run.resume import check_resumable, restore, restore_evaluators, start_from
from trm_mlx.run.signals import Patience, StopTraining
from trm_mlx.run.synced_stop import synced_stop
from trm_mlx.tasks import task_of
from trm_mlx.tasks.arc_rows import parts_of
from trm_mlx.train.batches import open_data, train_stream
from trm_mlx.train.losses import mean_metrics
from trm_mlx.train.step import TrainState, averaged

Results = dict[str, dict[str, float]]  # {set or evaluator: {metric: mean}}


class Trainer:
    """One run: build it, then `fit`, or feed batches to `train_step` yourself.

    Args:
        config: the run.
        resume: a run folder or one of its ``step_*`` folders, to continue bit for bit.
        world: the processes of the run. Each of them needs the data and, to resume, the checkpoint
            at the same path; the main one writes.

    Raises:
        InputError: data, configuration and checkpoint that do not go together, before anything is
            written.
    """

    def __init__(
        self, config: TrainConfig, resume: str | Path | None = None, world: World = SINGLE
    ):
        check_savable(config.eval_save_outputs)
        check_wandb(config)
        self.world = world
        self.data, self.test_data = open_data(config)
        self.config = config = fill_names(config, world)
        self.run = Path(config.checkpoint_path)
        self._warnings: list[str] = []  # shown once, where the run begins
        self._warn_unknown_task()
        self.progress, self.resumed = Progress(), None
        if resume is not None:
            self.resumed, self.progress, saved = read_state(resume)
            check_resumable(self.resumed, self.progress, saved, config, self.data)
            if isinstance(self.data, PuzzleDataset):
                self._warn_unnamed(saved_names(self.resumed), self.resumed, self.data)
        self.names = known_names(self.data) if isinstance(self.data, PuzzleDataset) else None
        if self.names is None and self.resumed is not None:
            self.names = saved_names(self.resumed)
        check_newest(self.run, self.resumed)
        steps = total_steps(self.data.metadata, config.epochs, config.global_batch_size)
        self.total_steps = steps
        self.evaluators = []
        if self.test_data is not None:
            if self.names is not None and config.data_paths_test:
                self._warn_unnamed(self.names, config.data_paths[0], self.test_data)
            self.evaluators = build_evaluators(config.evaluators, self.test_data)
        else:
            self._warnings.append(
                f"{', '.join(config.data_paths)}: no test split, so nothing is evaluated; "
                "data_paths_test=[DIR] names puzzles to judge by"
            )
        self.state = TrainState(self._new_model(), config, steps, world)
        compiled = device.compiles(config.compile)
        self.evaluation = EvaluationStep(self.model, config.loss, compiled)
        self.carries: dict[int, Carry] = {}  # by the cells of their boards
        self._flop = cache(partial(flop, self.model))
        if self.resumed is not None:
            self._restore()
        elif config.load_checkpoint is not None:
            remark = start_from(config.load_checkpoint, self.state, self.names)
            self._warnings += [remark] if remark else []
        self.stream = train_stream(self.data, self.test_data, config, self.progress.position, world)
        self._first_position = dict(self.stream.position)
        if world.size > 1:
            self._sync()
        self._folder = RunFolder(self.run)
        self._saved = self._moment

    def _warn_unknown_task(self) -> None:
        """Warn where the data state a task that is none of the package, or of other sizes."""
        sizes = self.data.metadata
        if sizes.task is None or ":" in sizes.task:  # a module is imported where it is needed
            return
        try:
            task_of(sizes, rules=False)
        except InputError as error:
            self._warnings.append(
                f"warning: {METADATA_FILE} of {self.config.data_paths[0]}: {error}; the model is "
                "trained, but trm solve and evaluators=[rules] will refuse it"
            )

    def _warn_unnamed(self, names: list[str] | None, source: object, data: PuzzleDataset) -> None:
        warning = unnamed(names, source, data) if self.config.arch.puzzle_dims else None
        self._warnings += [f"warning: {warning}"] if warning else []

    def _new_model(self) -> RecursiveReasoner:
        """The model for the data, with weights of the seed; counts the puzzles that it learns."""
        arch, sizes, parts = self.config.arch, self.data.metadata, None
        self._puzzles = 0
        if isinstance(self.data, PuzzleDataset):
            self._puzzles = np.count_nonzero(np.unique(self.data.puzzle_identifiers))
        if arch.puzzle_rows == "structured":
            if self.names is None or not arch.puzzle_dims:
                raise InputError(
                    "arch.puzzle_rows=structured is for data of 'trm build arc', and for models "
                    "with puzzle embeddings: leave it out"
                )
            parts = parts_of(self.names)
            self._puzzles = len(np.unique(parts[1:, 0]))
        config = ModelConfig.of(
            arch,
            vocab_size=sizes.vocab_size,
            seq_len=sizes.seq_len,
            num_puzzle_identifiers=sizes.num_puzzle_identifiers,
            num_puzzle_rows=None if parts is None else int(parts.max()) + 1,
            task=sizes.task,
        )
        model = build_model(config, self.config.seed)
        if parts is not None:
            model.puzzle_emb.compose(mx.array(parts))
        return model

    @property
    def model(self) -> RecursiveReasoner:
        return self.state.model

    def parameters(self) -> dict[str, mx.array]:
        """Return every trained array by name, the puzzle embeddings included."""
        trained = dict(tree_flatten(self.model.trainable_parameters()))
        if "puzzle_emb" in self.model:
            trained["puzzle_emb.weights"] = self.model.puzzle_emb.weights
        return trained

    @property
    def finished(self) -> bool:
        """Whether every epoch is trained and evaluated."""
        return self.progress.interval == self.config.epochs // self.config.epochs_per_interval

    def open(self) -> None:
        """Claim the run folder for this process; `fit` calls this if you have not.

        Raises:
            InputError: see `RunFolder.open`.
        """
        if self.world.is_main:
            self._folder.open(self.config, self.resumed)

    def fit(self, should_stop: Callable[[], bool] = lambda: False, show: bool = True) -> Results:
        """Train to the end and return the last evaluation, ``{set: {metric: mean}}``, if any.

        The metrics of task evaluators stand among the sets, by the evaluator's name.

        Args:
            should_stop: called after every step and evaluated batch, and inside them; once it has
                returned True, the run saves a checkpoint of this moment, without a step or
                evaluation that would take longer than seconds, and is not `finished`.
            show: the progress and results on standard error, too.

        Raises:
            InputError: the run folder cannot be taken or written, or a metric is NaN or infinite.
        """
        self.open()
        device.keep_memory()
        config, progress, results = self.config, self.progress, {}
        stop = Patience(should_stop)
        remedy = f"continue with resume={self.run}, once it holds a step_* folder"
        try:
            with (
                self.world.reraise_lost_peer(remedy),
                self._open_report(show) as report,
                self._asking_inside(stop.leave_long_step),
                synced_stop(stop.is_wanted, self.world) as should_stop,
            ):
                try:
                    while not self.finished:
                        if should_stop():
                            raise StopTraining
                        with bounded(self.state.room):
                            self._train_interval(report, should_stop)
                        mx.clear_cache()
                        number = progress.interval + 1
                        last = number * config.epochs_per_interval == config.epochs
                        evaluated = last or number > config.min_eval_interval
                        if evaluated and self.test_data is not None:
                            results = self._evaluate(report, should_stop)
                            mx.clear_cache()
                        progress.interval = number
                        if last or (evaluated and config.checkpoint_every_eval):
                            self._checkpoint(report)
                    report.finish()
                except StopTraining:
                    if self._moment != self._saved:
                        self._checkpoint(report)
        finally:
            self._folder.close()
        return results

    @contextmanager
    def _asking_inside(self, leave: Callable[[], object]) -> Iterator[None]:
        """Call ``leave`` inside steps and evaluations too; what it raises ends them early."""
        before = self.state.interrupt, self.model.before_update
        if self.world.size == 1:  # several would have to agree on the pass
            self.state.interrupt = self.model.before_update = leave
        try:
            yield
        finally:
            self.state.interrupt, self.model.before_update = before

    def _train_interval(self, report: Report, should_stop: Callable[[], bool]) -> None:
        """Dispatch step t, fetch batch t+1 in a thread, report step t-1; to the interval's end."""
        progress = self.progress
        if progress.position == self._interval_end:  # stopped in or before its evaluation
            return
        progress.results = {}
        # The thread of an interrupted interval has gone further.
        self.stream.position = dict(progress.position or self._first_position)
        waiting, stopped = None, False
        for batch, position in prefetch(self.stream):
            if progress.step >= self.total_steps:
                break
            try:
                metrics = self.train_step(batch)
            except StopTraining:  # in the middle of the step, which is made again when resumed
                stopped = True
                break
            progress.position = position
            if waiting is not None:
                self._report_step(report, *waiting)
            waiting = progress.step, metrics
            stopped = should_stop()
            if stopped:
                break
            if self.config.save_interval and progress.step % self.config.save_interval == 0:
                self._report_step(report, *waiting)
                waiting = None
                self._checkpoint(report)
        if waiting is not None:
            self._report_step(report, *waiting)
        if stopped:
            raise StopTraining
        progress.position = self._interval_end

    def train_step(self, batch: dict[str, np.ndarray | mx.array]) -> dict[str, mx.array]:
        """Dispatch one supervision step and update, without waiting for it.

        Args:
            batch: ``inputs [B, S]``, ``labels [B, S]`` and ``puzzle_identifiers [B]``, int32: this
                process's rows of the global batch.

        Returns:
            Sums of metrics over the global batch, as lazy arrays; see ``losses.act_metrics``. And
            ``pflop``, the operations of the step, computed.
        """
        batch = {name: mx.array(array) for name, array in batch.items()}
        cells = batch["inputs"].shape[1]
        carry = self.carries.get(cells) or self.model.initial_carry(batch)
        place = np.random.SeedSequence((self.config.seed, self.progress.step))
        key = mx.array(place.generate_state(2))
        recursion = None
        if self.config.depth_curriculum:
            recursion = recursion_at(self.config.arch, self.progress.step, self.total_steps)
        self.carries[cells], metrics = self.state.step(carry, batch, key, recursion)
        self.progress.step += 1
        rows = len(carry.steps) * self.world.size
        operations = rows * self._flop(recursion or self.model.recursion, cells)
        # Everything the next step reads, or its graph would grow from step to step.
        mx.async_eval(self.state.arrays, self.carries[cells], metrics)
        return metrics | {"pflop": mx.array(operations / 1e15)}

    def _report_step(self, report: Report, step: int, sums: dict[str, mx.array]) -> None:
        metrics = mean_metrics(sums, self.config.global_batch_size)
        if self._puzzles:
            self.progress.visits += round(metrics["count"])
            metrics["visits"] = self.progress.visits / self._puzzles
        check_numbers(step, metrics, self.run)
        report.train(step, metrics)

    def evaluate(
        self, tick: Callable[[int], object] = lambda rows: None
    ) -> tuple[Results, dict[str, np.ndarray]]:
        """Evaluate the averaged weights on the test split; ask ``evaluators`` for their results.

        Args:
            tick: called with the number of examples done after each batch.

        Returns:
            ``{set: {metric: mean}}``, and the arrays of ``eval_save_outputs`` by name.
        """
        with averaged(self.state):
            return evaluate(
                self.evaluation,
                self.test_data,
                save=self.config.eval_save_outputs,
                evaluators=self.evaluators,
                tick=tick,
                world=self.world,
                max_steps=self.config.eval_max_steps,
            )

    def _evaluate(self, report: Report, should_stop: Callable[[], bool]) -> Results:
        """Evaluate, report the results and write what evaluators write."""
        step = self.progress.step

        def tick(rows: int) -> None:
            bar.update(rows)
            if should_stop():
                raise StopTraining

        with report.evaluating(len(self.test_data)) as bar:
            results, outputs = self.evaluate(tick)
        report.evaluation(step, results)
        if self.world.is_main:
            if outputs:
                write_outputs(self.run / f"outputs_{step:07d}.npz", outputs)
            for evaluator in self.evaluators:
                metrics, files = evaluator.result()
                report.evaluator(step, evaluator.name, metrics)
                write_files(self.run / f"evaluation_{step:07d}", files)
                results[evaluator.name] = metrics
        self.progress.results = {
            f"{part}/{name}": value
            for part, metrics in results.items()
            for name, value in metrics.items()
        }
        return results

    def _checkpoint(self, report: Report) -> None:
        """Save, and delete the checkpoints the run need not keep once that is on the disk."""
        step = self.progress.step
        if self.world.is_main and self._folder.reopen_if_gone(self.config, self.resumed):
            report.print(
                f"step {step}: {self.run} was deleted or moved during the run; "
                "its configuration and log are written again"
            )
        report.sync()
        folder = self.save()
        if folder is not None:
            report.print(f"step {step}: saved {folder}")
            if self.config.keep_checkpoints is not None:
                for warning in prune(self.run, self.config.keep_checkpoints, self.config.keep_best):
                    report.print(f"step {step}: {warning}")

    def save(self) -> Path | None:
        """Write a checkpoint of this moment and return its folder, in the main process.

        It holds the carry of the global batch, so that any number of processes can continue it.

        Raises:
            InputError: it cannot be written, or the state holds NaN or infinity.
        """
        carries = {cells: self.world.gather(self.carries[cells]) for cells in sorted(self.carries)}
        mx.eval(carries)
        self._saved = self._moment
        if not self.world.is_main:
            return None
        kept = {evaluator.name: evaluator.state() for evaluator in self.evaluators}
        kept = {name: arrays for name, arrays in kept.items() if arrays}
        self.resumed = save_checkpoint(
            self.run, self.state, carries, self.progress, kept, self.names
        )
        return self.resumed

    @property
    def _moment(self) -> tuple[int, int]:
        """What tells two checkpoints of a run apart."""
        return self.progress.step, self.progress.interval

    @property
    def _interval_end(self) -> dict[str, int]:
        """The data position at which the current interval ends."""
        return {
            "epoch": (self.progress.interval + 1) * self.config.epochs_per_interval,
            "offset": 0,
        }

    def _restore(self) -> None:
        for cells, carry in restore(self.resumed, self.state).items():
            self.carries[cells] = tree_map(self.world.shard, carry)
        if not self.carries:
            self._warnings.append(f"{self.resumed} has no carry: every row begins a new puzzle")
        if self.world.is_main:
            self._warnings += restore_evaluators(self.resumed, self.progress, self.evaluators)

    def _sync(self) -> None:
        """Make all processes start from one state: weights drawn on two machines may differ.

        Raises:
            InputError: they resume from different checkpoints.
        """
        position = self.progress.position or {"epoch": 0, "offset": 0}
        place = [self.progress.step, self.progress.interval, *position.values()]
        remedy = f"give every machine the same {self.run}, in a shared folder or as a copy"
        self.world.check_same("step, interval and data position", place, remedy)
        self.state.copy_from_main()

    def _open_report(self, show: bool) -> Report:
        evaluated = self.progress.position != self._interval_end
        step, silent = self.progress.step, not self.world.is_main
        report = Report(self.run, self.config, step, self.total_steps, evaluated, silent, show)
        while self._warnings:
            report.print(self._warnings.pop(0))
        return report
