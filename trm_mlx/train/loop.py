"""The training run as an object: data, model, checkpoints and reports around the step."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.data.prefetch import prefetch
from trm_mlx.data.sampler import total_steps
from trm_mlx.data.schema import DatasetMetadata
from trm_mlx.errors import InputError, located
from trm_mlx.models.model import build_model
from trm_mlx.train.checkpoint import (
    Progress,
    check_resumable,
    read_evaluators,
    read_state,
    restore,
    save_checkpoint,
    start_from,
)
from trm_mlx.train.curriculum import recursion_at
from trm_mlx.train.evaluate import check_savable, evaluate, write_files, write_outputs
from trm_mlx.train.evaluators import build_evaluators
from trm_mlx.train.group import ALONE, Group
from trm_mlx.train.report import Report, check_wandb, mean_metrics
from trm_mlx.train.retention import prune
from trm_mlx.train.run_folder import RunFolder, check_newest
from trm_mlx.train.source import open_test, open_train, train_stream
from trm_mlx.train.step import EvaluationStep, Training, compiles
from trm_mlx.train.stopping import Stopped
from trm_mlx.train.watch import check_numbers

_ASK_EVERY = 16  # steps between two questions to a group whether to stop


class Trainer:
    """One run: build it, then `fit`, or feed batches to `train_step` yourself.

    Args:
        config: the run.
        resume: a run folder or one of its ``step_*`` folders, to continue bit for bit.
        group: the processes of the run. Each of them needs the data and, to resume, the checkpoint
            at the same path; one writes.

    Raises:
        InputError: data, configuration and checkpoint that do not go together, before anything is
            written.
    """

    def __init__(self, config: TrainConfig, resume: str | Path | None = None, group: Group = ALONE):
        self.group = group
        check_savable(config.eval_save_outputs)
        check_wandb(config)
        self.data = open_train(config)
        self.test_data = open_test(config)
        self.config = config = _named(config, group)
        self.run = Path(config.checkpoint_path)
        self.progress = Progress()
        self.resumed = None
        if resume is not None:
            self.resumed, self.progress, saved = read_state(resume)
            check_resumable(self.resumed, self.progress, saved, config)
        check_newest(self.run, self.resumed)
        _check_same_puzzles(self.data.metadata, self.test_data.metadata)
        sizes = self.data.metadata
        self.total_steps = total_steps(sizes, config.epochs, config.global_batch_size)
        model_config = ModelConfig.of(
            config.arch,
            vocab_size=sizes.vocab_size,
            seq_len=sizes.seq_len,
            num_puzzle_identifiers=sizes.num_puzzle_identifiers,
        )
        self.evaluators = build_evaluators(config.evaluators, self.test_data)
        model = build_model(model_config, config.seed)
        self.training = Training(model, config, self.total_steps, group)
        self.evaluation = EvaluationStep(self.model, config.loss, compiles(config))
        self.carry = None
        self._folder = RunFolder(self.run)
        self._saved = self._moment
        self._remarks: list[str] = []  # on what the checkpoint lacks
        if self.resumed is not None:
            carry = restore(self.resumed, self.training)
            self.carry = None if carry is None else tree_map(group.own, carry)
            if carry is None:
                self._remarks.append(f"{self.resumed} has no carry: every row begins a new puzzle")
            if group.leads:
                self._restore_evaluators(read_evaluators(self.resumed, self.progress))
        elif config.load_checkpoint is not None:
            start_from(config.load_checkpoint, self.training)
        self.stream = train_stream(self.data, self.test_data, config, self.progress.position, group)
        self._agree()

    @property
    def model(self):
        return self.training.model

    def parameters(self) -> dict[str, mx.array]:
        """Every trained array by name, the puzzle embeddings included."""
        trained = dict(tree_flatten(self.model.trainable_parameters()))
        if "puzzle_emb" in self.model:
            trained["puzzle_emb.weights"] = self.model.puzzle_emb.weights
        return trained

    def train_step(self, batch: dict[str, np.ndarray | mx.array]) -> dict[str, mx.array]:
        """One supervision step and update, dispatched but not waited for.

        Args:
            batch: ``inputs [B, S]``, ``labels [B, S]`` and ``puzzle_identifiers [B]``, int32: this
                process's rows of the global batch.

        Returns:
            Sums of metrics over the global batch, as lazy arrays; see ``losses.act_metrics``.
        """
        batch = {name: mx.array(array) for name, array in batch.items()}
        if self.carry is None:
            self.carry = self.model.initial_carry(batch)
        place = np.random.SeedSequence((self.config.seed, self.progress.step))
        key = mx.array(place.generate_state(2))
        recursion = None
        if self.config.depth_curriculum:
            recursion = recursion_at(self.config.arch, self.progress.step, self.total_steps)
        self.carry, metrics = self.training.step(self.carry, batch, key, recursion)
        self.progress.step += 1
        # Everything the next step reads, or its graph would grow from step to step.
        mx.async_eval(self.training.state, self.carry, metrics)
        return metrics

    @property
    def finished(self) -> bool:
        """Whether every epoch is trained and evaluated."""
        return self.progress.interval == self.config.epochs // self.config.epochs_per_interval

    def open(self) -> None:
        """Take the run folder for this process; `fit` does it, unless it is done.

        Raises:
            InputError: see `RunFolder.open`.
        """
        if self.group.leads:
            self._folder.open(self.config, self.resumed)

    def fit(self, obey: Callable[[], None] = lambda: None) -> dict[str, dict[str, float]]:
        """Train to the end and return the last evaluation, ``{set: {metric: mean}}``.

        The metrics of task evaluators stand among the sets, by the evaluator's name.

        Args:
            obey: called after every step and evaluated batch; where it raises `Stopped`, the run
                saves a checkpoint of this moment and is not `finished`.

        Raises:
            InputError: the run folder cannot be taken or written, or a metric is NaN or infinite.
        """
        results: dict[str, dict[str, float]] = {}
        obey = self._together(obey)
        self.open()
        try:
            with (
                self.group.together(
                    f"continue with resume={self.run}, once it holds a step_* folder"
                ),
                self._report_from_here() as report,
            ):
                while self._remarks:
                    report.say(self._remarks.pop(0))
                try:
                    while not self.finished:
                        obey()
                        self._train_interval(report, obey)
                        results = self._finish_interval(report, obey) or results
                except Stopped:
                    if self._moment != self._saved:
                        self._checkpoint(report)
        finally:
            self._folder.close()
        return results

    def save(self) -> Path | None:
        """Write a checkpoint of this moment and return its folder, in the process that leads.

        It holds the carry of the global batch, so that any number of processes can go on from it.

        Raises:
            InputError: it cannot be written, or the state holds NaN or infinity.
        """
        carry = self.group.gather(self.carry)
        mx.eval(carry)
        if not self.group.leads:
            return None
        states = {evaluator.name: evaluator.state() for evaluator in self.evaluators}
        states = {name: state for name, state in states.items() if state}
        return save_checkpoint(self.run, self.training, carry, self.progress, states)

    def _restore_evaluators(self, states: dict[str, dict[str, np.ndarray]]) -> None:
        for evaluator in self.evaluators:
            if evaluator.name in states:
                with located(self.resumed):
                    evaluator.restore(states[evaluator.name])
            elif evaluator.state():
                self._remarks.append(f"{self.resumed} has no votes: {evaluator.name} counts anew")

    @property
    def _moment(self) -> tuple[int, int]:
        """What tells two checkpoints of a run apart."""
        return self.progress.step, self.progress.interval

    @property
    def _interval_end(self) -> dict[str, int]:
        """The data position at which the interval begun is trained."""
        return {
            "epoch": (self.progress.interval + 1) * self.config.epochs_per_interval,
            "offset": 0,
        }

    def _report_from_here(self) -> Report:
        evaluated = self.progress.position != self._interval_end
        place, silent = self.progress.step, not self.group.leads
        return Report(self.run, self.config, place, self.total_steps, evaluated, silent)

    def _together(self, obey: Callable[[], None]) -> Callable[[], None]:
        """Stopping as a group: every few steps all ask whether one wishes to, and then all do."""
        if self.group.size == 1:
            return obey
        wished, asked = False, -1

        def agreed() -> None:
            nonlocal wished, asked
            try:
                obey()
            except Stopped:
                wished = True
            step = self.progress.step
            if step % _ASK_EVERY == 0 and step != asked:
                asked = step
                if self.group.sum(mx.array([float(wished)])).item():
                    raise Stopped

        return agreed

    def _train_interval(self, report: Report, obey: Callable[[], None]) -> None:
        """Dispatch step t, then report step t-1 while it runs; data comes from a thread."""
        if self.progress.position == self._interval_end:  # stopped in or before its evaluation
            return
        self.progress.results = {}
        if self.progress.position is not None:  # the thread of a stretch before has gone further
            self.stream.position = dict(self.progress.position)
        waiting = None
        for batch, position in prefetch(self.stream):
            if self.progress.step >= self.total_steps:
                break
            metrics = self.train_step(batch)
            self.progress.position = position
            if waiting is not None:
                self._report(report, *waiting)
            waiting = self.progress.step, metrics
            try:
                obey()
            except Stopped:
                self._report(report, *waiting)
                raise
        if waiting is not None:
            self._report(report, *waiting)
        self.progress.position = self._interval_end

    def _finish_interval(self, report: Report, obey: Callable[[], None]) -> dict | None:
        """Evaluate and save, where an interval that has been trained asks for it."""
        config, number = self.config, self.progress.interval + 1
        last = number * config.epochs_per_interval == config.epochs
        results = None
        if last or number > config.min_eval_interval:
            results = self._evaluate(report, obey)
            self.progress.results = _flat(results)
        self.progress.interval = number
        if last or (results and config.checkpoint_every_eval):
            self._checkpoint(report)
        return results

    def _checkpoint(self, report: Report) -> None:
        """Save, and delete what the run need not keep once that is on the disk."""
        report.sync()
        folder = self.save()
        self._saved = self._moment
        if folder is None:
            return
        self.resumed = folder
        report.say(f"step {self.progress.step}: saved {folder}")
        if self.config.keep_checkpoints is not None:
            prune(self.run, self.config.keep_checkpoints, self.config.keep_best)

    def _report(self, report: Report, step: int, sums: dict[str, mx.array]) -> None:
        metrics = mean_metrics(sums, self.config.global_batch_size)
        check_numbers(step, metrics, self.run)
        report.train(step, metrics)

    def _evaluate(self, report: Report, obey: Callable[[], None]) -> dict[str, dict[str, float]]:
        config = self.config
        examples = int(self.test_data.puzzle_indices[-1])

        def tick(rows: int) -> None:
            bar.update(rows)
            obey()

        with averaged(self.training), report.evaluating(examples) as bar:
            results, outputs = evaluate(
                self.evaluation,
                self.test_data,
                save=config.eval_save_outputs,
                evaluators=self.evaluators,
                tick=tick,
                group=self.group,
            )
        step = self.progress.step
        report.evaluation(step, results)
        if not self.group.leads:
            return results
        if outputs:
            write_outputs(self.run / f"outputs_{step:07d}.npz", outputs)
        for evaluator in self.evaluators:
            metrics, files = evaluator.result()
            report.judgement(step, evaluator.name, metrics)
            write_files(self.run / f"evaluation_{step:07d}", files)
            results[evaluator.name] = metrics
        return results

    def _agree(self) -> None:
        """Make all processes start from one state; InputError if they resume from different ones.

        Weights drawn on machines of different kinds may differ in their last digits.
        """
        if self.group.size == 1:
            return
        position = self.progress.position or {"epoch": 0, "offset": 0}
        place = [self.progress.step, self.progress.interval, *position.values()]
        remedy = f"give every machine the same {self.run}, in a shared folder or as a copy"
        self.group.check_same("step, interval and data position", place, remedy)
        self.training.follow()


@contextmanager
def averaged(training: Training):
    """The model with its averaged weights, if the run keeps an average, and back afterwards.

    A context manager: ``with averaged(trainer.training): ...`` around what uses the model.
    """
    model, weights = training.model, tree_map(mx.array, training.model.trainable_parameters())
    model.update(training.average)
    try:
        yield
    finally:
        model.update(weights)


def _flat(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """Metrics as the log names them, ``set/metric``."""
    return {
        f"{part}/{name}": value for part, found in results.items() for name, value in found.items()
    }


def _named(config: TrainConfig, group: Group) -> TrainConfig:
    """The configuration with the names it leaves open filled in, the same in all processes."""
    project = config.project_name or Path(config.data_paths[0]).name.rpartition(":")[2]
    run = config.run_name
    if run is None:
        now = group.leaders(mx.array(int(time.time()))).item()
        run = f"{config.arch.name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
    folder = config.checkpoint_path or str(Path("checkpoints", project, run))
    return replace(config, project_name=project, run_name=run, checkpoint_path=folder)


def _check_same_puzzles(train: DatasetMetadata, test: DatasetMetadata) -> None:
    for name in ("seq_len", "vocab_size"):
        ours, theirs = getattr(train, name), getattr(test, name)
        if ours != theirs:
            raise InputError(
                f"{name} is {ours} in the training data but {theirs} in the test data: "
                "correct data_paths_test"
            )
    # Identifiers the table has no row for would silently read another puzzle's.
    ours, theirs = (data.num_puzzle_identifiers for data in (train, test))
    if theirs > ours:
        raise InputError(
            f"the test data has {theirs} puzzle identifiers, the training data {ours}: "
            "build both from the same puzzles"
        )
