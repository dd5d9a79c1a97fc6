"""Augmentation on the fly: a puzzle is shown as a random image of itself, each time another one.

A thousand stored puzzles then stand for the million that the published builders write: a visit of
such a dataset's group, too, picks one of its images at random.
"""

from typing import NamedTuple

import numpy as np

from trm_mlx.data.arrays import IGNORE_LABEL
from trm_mlx.data.dataset import Batch, PuzzleDataset
from trm_mlx.errors import InputError
from trm_mlx.tasks.base import Task
from trm_mlx.tasks.holdout import fingerprints

_CHUNK = 65_536  # boards decoded at once


class Augmentation(NamedTuple):
    """A change of training batches, for `TrainStream`.

    foreign: fingerprints of the test puzzles that no image may show.
    reveal: at most so many cells of the answer are shown in an image, besides its givens.
    """

    task: Task
    foreign: frozenset[int]
    reveal: int = 0

    @classmethod
    def of(
        cls, task: Task, train: PuzzleDataset, test: PuzzleDataset | None, reveal: int = 0
    ) -> "Augmentation":
        """As for the builder's images: what is in both splits anyway is not held back."""
        foreign = _fingerprints(task, test) if test else set()
        return cls(task, frozenset(foreign - _fingerprints(task, train)), reveal)

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch with every row replaced by an image.

        Raises:
            InputError: a label is to be ignored, which has no image.
        """
        ignored = batch["labels"] == IGNORE_LABEL
        if (ignored & ~self.task.outside(batch["inputs"])).any():
            raise InputError(
                f"augment=true: some cells of the {self.task.name} data have no label, and so no "
                "image; set augment=false"
            )
        questions = self.task.decode(batch["inputs"])
        answers = self.task.decode(batch["labels"])
        shown, solved = questions.copy(), answers.copy()
        rows = np.arange(len(questions))
        while rows.size:
            symmetry = self.task.sample_symmetry(rng, len(rows))
            shown[rows] = symmetry.apply(questions[rows])
            solved[rows] = symmetry.apply(answers[rows])
            prints = fingerprints(self.task, shown[rows], solved[rows])
            rows = rows[[number in self.foreign for number in prints.tolist()]]
        solved = self.task.relabel(shown, solved)
        if self.reveal:
            shown = _revealed(shown, solved, self.reveal, rng)
        return {
            **batch,
            "inputs": self.task.encode(shown).astype(np.int32),
            "labels": np.where(ignored, IGNORE_LABEL, self.task.encode(solved).astype(np.int32)),
        }


def _revealed(
    questions: np.ndarray, answers: np.ndarray, most: int, rng: np.random.Generator
) -> np.ndarray:
    """Questions with from 0 to ``most`` further cells of their answers, all numbers alike."""
    unknown = questions != answers
    order = np.argsort(np.where(unknown, rng.random(questions.shape), 2.0), axis=1)
    place = np.argsort(order, axis=1)
    count = rng.integers(0, most + 1, size=(len(questions), 1))
    return np.where(unknown & (place < count), answers, questions)


def _fingerprints(task: Task, data: PuzzleDataset) -> set[int]:
    found: set[int] = set()
    for part in data.parts:
        for start in range(0, len(part.arrays.inputs), _CHUNK):
            some = slice(start, start + _CHUNK)
            boards = (task.decode(a[some]) for a in (part.arrays.inputs, part.arrays.labels))
            found.update(fingerprints(task, *boards).tolist())
    return found
