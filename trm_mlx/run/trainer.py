"""The training run as an object: data, model and their state at one moment; `loop` takes it on."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.data.prefetch import prefetch
from trm_mlx.data.sampler import total_steps
from trm_mlx.distributed import SINGLE, World
from trm_mlx.errors import located
from trm_mlx.evaluate import build_evaluators
from trm_mlx.evaluate.evaluate import check_savable, evaluate, write_files, write_outputs
from trm_mlx.models.model import build_model
from trm_mlx.run.checkpoint import (
    Progress,
    check_resumable,
    prune,
    read_evaluators,
    read_state,
    restore,
    save_checkpoint,
    start_from,
)
from trm_mlx.run.folder import RunFolder, check_newest, named
from trm_mlx.run.health import check_numbers
from trm_mlx.run.log import Report, check_wandb, mean_metrics
from trm_mlx.run.signals import StopTraining, synced_stop
from trm_mlx.train.batches import open_data, train_stream
from trm_mlx.train.curriculum import recursion_at
from trm_mlx.train.step import EvaluationStep, Training, averaged, compiles


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

    def __init__(
        self, config: TrainConfig, resume: str | Path | None = None, group: World = SINGLE
    ):
        self.group = group
        check_savable(config.eval_save_outputs)
        check_wandb(config)
        self.data, self.test_data = open_data(config)
        self.config = config = named(config, group)
        self.run = Path(config.checkpoint_path)
        self.progress = Progress()
        self.resumed = None
        if resume is not None:
            self.resumed, self.progress, saved = read_state(resume)
            check_resumable(self.resumed, self.progress, saved, config)
        check_newest(self.run, self.resumed)
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
            self.carry = None if carry is None else tree_map(group.shard, carry)
            if carry is None:
                self._remarks.append(f"{self.resumed} has no carry: every row begins a new puzzle")
            if group.is_main:
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

    @property
    def interval_end(self) -> dict[str, int]:
        """The data position at which the interval begun is trained."""
        return {
            "epoch": (self.progress.interval + 1) * self.config.epochs_per_interval,
            "offset": 0,
        }

    @property
    def unsaved(self) -> bool:
        """Whether the run has moved on since it was last saved, resumed or begun."""
        return self._moment != self._saved

    def open(self) -> None:
        """Take the run folder for this process; `fit` does it, unless it is done.

        Raises:
            InputError: see `RunFolder.open`.
        """
        if self.group.is_main:
            self._folder.open(self.config, self.resumed)

    def fit(self, obey: Callable[[], None] = lambda: None) -> dict[str, dict[str, float]]:
        """Train to the end and return the last evaluation, ``{set: {metric: mean}}``.

        The metrics of task evaluators stand among the sets, by the evaluator's name.

        Args:
            obey: called after every step and evaluated batch; where it raises `StopTraining`, the
                run saves a checkpoint of this moment and is not `finished`.

        Raises:
            InputError: the run folder cannot be taken or written, or a metric is NaN or infinite.
        """
        self.open()
        try:
            with (
                self.group.reraise_lost_peer(
                    f"continue with resume={self.run}, once it holds a step_* folder"
                ),
                self._report_from_here() as report,
            ):
                while self._remarks:
                    report.say(self._remarks.pop(0))
                return Loop(self, report, obey).run()
        finally:
            self._folder.close()

    def save(self) -> Path | None:
        """Write a checkpoint of this moment and return its folder, in the process that leads.

        It holds the carry of the global batch, so that any number of processes can go on from it.

        Raises:
            InputError: it cannot be written, or the state holds NaN or infinity.
        """
        carry = self.group.gather(self.carry)
        mx.eval(carry)
        if self.group.is_main:
            states = {evaluator.name: evaluator.state() for evaluator in self.evaluators}
            states = {name: state for name, state in states.items() if state}
            self.resumed = save_checkpoint(self.run, self.training, carry, self.progress, states)
        self._saved = self._moment
        return self.resumed if self.group.is_main else None

    def _report_from_here(self) -> Report:
        evaluated = self.progress.position != self.interval_end
        place, silent = self.progress.step, not self.group.is_main
        return Report(self.run, self.config, place, self.total_steps, evaluated, silent)

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


class Loop:
    """Takes a run from where its trainer stands to the end; see `Trainer.fit`."""

    def __init__(self, trainer: "Trainer", report: Report, obey: Callable[[], None]):
        self.trainer, self.report = trainer, report
        self.obey = synced_stop(obey, trainer.group, trainer.progress)

    def run(self) -> dict[str, dict[str, float]]:
        """Train, and return the last evaluation; where `StopTraining` is raised, save and end."""
        results: dict[str, dict[str, float]] = {}
        try:
            while not self.trainer.finished:
                self.obey()
                self._train_interval()
                results = self._finish_interval() or results
        except StopTraining:
            if self.trainer.unsaved:
                self._checkpoint()
        return results

    def _train_interval(self) -> None:
        """Dispatch step t, then report step t-1 while it runs; data comes from a thread."""
        trainer, progress = self.trainer, self.trainer.progress
        if progress.position == trainer.interval_end:  # stopped in or before its evaluation
            return
        progress.results = {}
        if progress.position is not None:  # the thread of a stretch before has gone further
            trainer.stream.position = dict(progress.position)
        waiting = None
        for batch, position in prefetch(trainer.stream):
            if progress.step >= trainer.total_steps:
                break
            metrics = trainer.train_step(batch)
            progress.position = position
            if waiting is not None:
                self._tell(*waiting)
            waiting = progress.step, metrics
            try:
                self.obey()
            except StopTraining:
                self._tell(*waiting)
                raise
        if waiting is not None:
            self._tell(*waiting)
        progress.position = trainer.interval_end

    def _tell(self, step: int, sums: dict[str, mx.array]) -> None:
        metrics = mean_metrics(sums, self.trainer.config.global_batch_size)
        check_numbers(step, metrics, self.trainer.run)
        self.report.train(step, metrics)

    def _finish_interval(self) -> dict | None:
        """Evaluate and save, where an interval that has been trained asks for it."""
        config, progress = self.trainer.config, self.trainer.progress
        number = progress.interval + 1
        last = number * config.epochs_per_interval == config.epochs
        results = None
        if last or number > config.min_eval_interval:
            results = self._evaluate()
            progress.results = _flat(results)
        progress.interval = number
        if last or (results and config.checkpoint_every_eval):
            self._checkpoint()
        return results

    def _evaluate(self) -> dict[str, dict[str, float]]:
        trainer, report, step = self.trainer, self.report, self.trainer.progress.step
        examples = int(trainer.test_data.puzzle_indices[-1])

        def tick(rows: int) -> None:
            bar.update(rows)
            self.obey()

        with averaged(trainer.training), report.evaluating(examples) as bar:
            results, outputs = evaluate(
                trainer.evaluation,
                trainer.test_data,
                save=trainer.config.eval_save_outputs,
                evaluators=trainer.evaluators,
                tick=tick,
                group=trainer.group,
            )
        report.evaluation(step, results)
        if not trainer.group.is_main:
            return results
        if outputs:
            write_outputs(trainer.run / f"outputs_{step:07d}.npz", outputs)
        for evaluator in trainer.evaluators:
            metrics, files = evaluator.result()
            report.judgement(step, evaluator.name, metrics)
            write_files(trainer.run / f"evaluation_{step:07d}", files)
            results[evaluator.name] = metrics
        return results

    def _checkpoint(self) -> None:
        """Save, and delete what the run need not keep once that is on the disk."""
        config = self.trainer.config
        self.report.sync()
        folder = self.trainer.save()
        if folder is None:
            return
        self.report.say(f"step {self.trainer.progress.step}: saved {folder}")
        if config.keep_checkpoints is not None:
            prune(self.trainer.run, config.keep_checkpoints, config.keep_best)


def _flat(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """Metrics as the log names them, ``set/metric``."""
    return {
        f"{part}/{name}": value for part, found in results.items() for name, value in found.items()
    }
