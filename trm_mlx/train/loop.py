"""The training run as an object: data, model, checkpoints and reports around the step."""

import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import yaml
from mlx.utils import tree_flatten, tree_map

from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.data.prefetch import prefetch
from trm_mlx.data.sampler import total_steps
from trm_mlx.data.schema import DatasetMetadata
from trm_mlx.errors import InputError
from trm_mlx.models.model import build_model
from trm_mlx.options import plain
from trm_mlx.train.checkpoint import (
    Progress,
    check_resumable,
    read_state,
    restore,
    save_checkpoint,
    start_from,
)
from trm_mlx.train.evaluate import check_savable, evaluate, write_files, write_outputs
from trm_mlx.train.evaluators import build_evaluators
from trm_mlx.train.group import ALONE, Group
from trm_mlx.train.report import Report, check_wandb, mean_metrics
from trm_mlx.train.source import open_test, open_train, train_stream
from trm_mlx.train.step import EvaluationStep, Training, compiles

RUN_CONFIG_FILE = "all_config.yaml"


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
        if resume is not None:
            checkpoint, self.progress, saved = read_state(resume)
            check_resumable(checkpoint, self.progress, saved, config)
        elif any(self.run.glob("step_*")):
            raise InputError(
                f"{self.run} already holds a run: continue it with resume={self.run}, "
                "or choose another run_name"
            )
        _check_same_puzzles(self.data.metadata, self.test_data.metadata)
        self.stream = train_stream(self.data, self.test_data, config, self.progress.position, group)
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
        if resume is not None:
            self.carry = tree_map(group.own, restore(checkpoint, self.training))
        elif config.load_checkpoint is not None:
            start_from(config.load_checkpoint, self.training)
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
        self.carry, metrics = self.training.step(self.carry, batch, key)
        self.progress.step += 1
        # Everything the next step reads, or its graph would grow from step to step.
        mx.async_eval(self.training.state, self.carry, metrics)
        return metrics

    def fit(self) -> dict[str, dict[str, float]]:
        """Train to the end and return the last evaluation, ``{set: {metric: mean}}``.

        The metrics of task evaluators stand among the sets, by the evaluator's name.
        """
        config, intervals = self.config, self.config.epochs // self.config.epochs_per_interval
        if self.group.leads:
            self._open_run()
        results: dict[str, dict[str, float]] = {}
        place, silent = self.progress.step, not self.group.leads
        with (
            self.group.together(f"continue with resume={self.run}, once it holds a step_* folder"),
            Report(self.run, config, place, self.total_steps, silent) as report,
        ):
            while self.progress.interval < intervals:
                self._train_interval(report)
                self.progress.interval += 1
                last = self.progress.interval == intervals
                if last or self.progress.interval > config.min_eval_interval:
                    results = self._evaluate(report)
                    if last or config.checkpoint_every_eval:
                        folder = self.save()
                        report.say(f"step {self.progress.step}: saved {folder}")
        return results

    def save(self) -> Path | None:
        """Write a checkpoint of this moment and return its folder, in the process that leads.

        It holds the carry of the global batch, so that any number of processes can go on from it.
        """
        carry = self.group.gather(self.carry)
        mx.eval(carry)
        if not self.group.leads:
            return None
        return save_checkpoint(self.run, self.training, carry, self.progress)

    def _train_interval(self, report: Report) -> None:
        """Dispatch step t, then report step t-1 while it runs; data comes from a thread."""
        waiting = None
        for batch, position in prefetch(self.stream):
            if self.progress.step >= self.total_steps:
                break
            metrics = self.train_step(batch)
            self.progress.position = position
            if waiting is not None:
                self._report(report, *waiting)
            waiting = self.progress.step, metrics
        if waiting is not None:
            self._report(report, *waiting)
        self.progress.position = dict(self.stream.position)

    def _report(self, report: Report, step: int, metrics: dict[str, mx.array]) -> None:
        report.train(step, mean_metrics(metrics, self.config.global_batch_size))

    def _evaluate(self, report: Report) -> dict[str, dict[str, float]]:
        config = self.config
        examples = int(self.test_data.puzzle_indices[-1])
        with averaged(self.training), report.evaluating(examples) as bar:
            results, outputs = evaluate(
                self.evaluation,
                self.test_data,
                save=config.eval_save_outputs,
                evaluators=self.evaluators,
                tick=bar.update,
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

    def _open_run(self) -> None:
        """Create the run folder and write its configuration."""
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(plain(self.config), sort_keys=False)
            (self.run / RUN_CONFIG_FILE).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {self.run}: {error.strerror}") from error


@contextmanager
def averaged(training: Training):
    """The model with its averaged weights, if the run keeps an average, and back afterwards."""
    model, weights = training.model, tree_map(mx.array, training.model.trainable_parameters())
    model.update(training.average)
    try:
        yield
    finally:
        model.update(weights)


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
