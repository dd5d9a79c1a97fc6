"""The loop of a run: intervals of training steps, each with its evaluation and its checkpoint."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import mlx.core as mx

from trm_mlx.data.prefetch import prefetch
from trm_mlx.train.evaluate import evaluate, write_files, write_outputs
from trm_mlx.train.report import Report, mean_metrics
from trm_mlx.train.retention import prune
from trm_mlx.train.step import averaged
from trm_mlx.train.stopping import Stopped, agreed
from trm_mlx.train.watch import check_numbers

if TYPE_CHECKING:
    from trm_mlx.train.trainer import Trainer


class Loop:
    """Takes a run from where its trainer stands to the end; see `Trainer.fit`."""

    def __init__(self, trainer: "Trainer", report: Report, obey: Callable[[], None]):
        self.trainer, self.report = trainer, report
        self.obey = agreed(obey, trainer.group, trainer.progress)

    def run(self) -> dict[str, dict[str, float]]:
        """Train, and return the last evaluation; where `Stopped` is raised, save and end."""
        results: dict[str, dict[str, float]] = {}
        try:
            while not self.trainer.finished:
                self.obey()
                self._train_interval()
                results = self._finish_interval() or results
        except Stopped:
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
            except Stopped:
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
        if not trainer.group.leads:
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
