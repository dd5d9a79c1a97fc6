"""The puzzles of a run and their batches: from dataset folders, or from a task's generator.

``generate:TASK`` in the place of a folder makes new puzzles for every batch and, for testing, a
fixed set of held-out ones (``tasks/holdout.py`` says which); ``generate:maze30x30/kind=mixed``
passes an option to the task. Here tasks and data meet.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.config import TrainConfig
from trm_mlx.data.arrays import IGNORE_LABEL, SplitArrays, check_tokens, mark_ignored
from trm_mlx.data.dataset import Batch, PuzzleDataset, check_labelled, check_numbering, known_names
from trm_mlx.data.format import DatasetMetadata
from trm_mlx.data.reader import Split, open_split, parent_and_split, split_asked
from trm_mlx.data.sampler import GeneratedStream, Position, TrainStream, rows_of_rank
from trm_mlx.distributed import SINGLE, World
from trm_mlx.errors import InputError
from trm_mlx.tasks import check_known, get, get_generator, task_of
from trm_mlx.tasks.base import Puzzles, Task
from trm_mlx.tasks.holdout import draw, draw_distinct
from trm_mlx.train.augment import Augmentation
from trm_mlx.train.canvases import CanvasStream, groups_by_side, position_of

GENERATE = "generate:"


class GeneratedPuzzles(NamedTuple):
    """The training puzzles of a task, made for every batch, with the metadata of such a dataset."""

    task: Task
    metadata: DatasetMetadata
    options: dict[str, int | str]

    def batch(self, rows: int, rng: np.random.Generator) -> Batch:
        """New puzzles as a batch of int32 arrays."""
        inputs, labels = _tokens(self.task, draw(self.task, rows, rng, **self.options))
        return {
            "inputs": inputs.astype(np.int32),
            "labels": mark_ignored(labels, self.metadata.ignore_label_id).astype(np.int32),
            "puzzle_identifiers": np.zeros(rows, np.int32),
        }


def check_generated(config: TrainConfig) -> None:
    """Check that the tasks which a file's configuration generates puzzles of may be imported.

    Raises:
        InputError: see `check_known`.
    """
    for path in (*config.data_paths, *config.data_paths_test):
        if path.startswith(GENERATE):
            check_known(path.removeprefix(GENERATE).partition("/")[0])


def open_data(config: TrainConfig) -> tuple[PuzzleDataset | GeneratedPuzzles, PuzzleDataset | None]:
    """Open the puzzles of a run, for training and for evaluation; None: no dataset has a test.

    Raises:
        InputError: see `open_train` and `open_test`; or they are not of one kind.
    """
    train, test = open_train(config), open_test(config)
    if isinstance(train, PuzzleDataset):
        check_labelled(train)
    if test is not None:
        check_labelled(test)
        _check_same_puzzles(train.metadata, test.metadata)
        if isinstance(train, PuzzleDataset) and config.data_paths_test:
            folder = train.parts[0].folder.parent
            check_numbering(known_names(train), folder, test, "build both from the same puzzles")
    return train, test


def open_train(config: TrainConfig) -> PuzzleDataset | GeneratedPuzzles:
    """Open the training puzzles of a run.

    Raises:
        InputError: they cannot be read, or not be mixed.
    """
    generated = [path for path in config.data_paths if path.startswith(GENERATE)]
    if not generated:
        return PuzzleDataset(config.data_paths, "train")
    if len(config.data_paths) > 1:
        raise InputError(
            f"data_paths mixes {generated[0]} with others: a generator stands alone, or is built "
            "into a folder first"
        )
    if config.augment:
        raise InputError(
            f"augment=true with {generated[0]}: images could show held-out puzzles, and new "
            "puzzles need none; set augment=false"
        )
    text = generated[0].removeprefix(GENERATE)
    task, options = get_generator(text)
    return GeneratedPuzzles(task, _metadata(text, config.puzzles_per_epoch), options)


def open_test(config: TrainConfig) -> PuzzleDataset | None:
    """Open the puzzles that a run is evaluated on; None: its data have no test split.

    Raises:
        InputError: as `open_split_of`.
    """
    paths = test_paths(config)
    folders = [Path(path) for path in paths if not path.startswith(GENERATE)]
    if folders and not config.data_paths_test and not any((f / "test").is_dir() for f in folders):
        return None
    return open_split_of(paths, None, config.test_puzzles)


def test_paths(config: TrainConfig) -> tuple[str, ...]:
    """The datasets or tasks that a run is evaluated on, if they have a test split."""
    if config.data_paths_test:
        return config.data_paths_test
    return tuple(
        path if path.startswith(GENERATE) else str(parent_and_split(Path(path))[0])
        for path in config.data_paths
    )


def open_split_of(paths: Sequence[str], split: str | None, test_puzzles: int) -> PuzzleDataset:
    """Open a split of several dataset folders or tasks, ``generate:TASK``, as one dataset.

    Args:
        split: its name; None: the one whose folder is named in place of the dataset's, or "test".
        test_puzzles: the most distinct puzzles to generate, the same ones in every run.

    Raises:
        InputError: one cannot be read, or is generated but not asked for its test split.
    """
    sources: list[Split] = []
    for path in paths:
        if not path.startswith(GENERATE):
            sources.append(open_split(Path(path), split_asked(path, split)))
        elif split in (None, "test"):
            sources.append(_generate_test(path, test_puzzles))
        else:
            raise InputError(f"{path} has no split '{split}' to evaluate on; it has: test")
    return PuzzleDataset(sources, split or "test")


def train_stream(
    data: PuzzleDataset | GeneratedPuzzles,
    test_data: PuzzleDataset | None,
    config: TrainConfig,
    position: Position | None,
    world: World = SINGLE,
) -> TrainStream | CanvasStream | GeneratedStream:
    """Return the batches of a run from a position on: of each, the rows of this process.

    Raises:
        InputError: the batch does not divide among the processes, or does not fit the data.
    """
    size, interval, seed = config.global_batch_size, config.epochs_per_interval, config.seed
    if isinstance(data, GeneratedPuzzles):
        rows_of_rank(size, shard=world)

        def own_rows(rows: int, rng: np.random.Generator) -> Batch:
            return {name: world.shard(array) for name, array in data.batch(rows, rng).items()}

        return GeneratedStream(own_rows, config.puzzles_per_epoch, size, interval, seed, position)
    augmentation = None
    if config.augment:
        task = task_of(data.metadata)
        augmentation = Augmentation.of(task, data, test_data, config.reveal_cells)

    def stream(position: Position | None, chosen: np.ndarray | None = None) -> TrainStream:
        return TrainStream(data, size, interval, seed, world, position, augmentation, chosen)

    if not config.arch.smaller_canvases:
        return stream(position)
    groups = groups_by_side(data, config.arch.canvases, least=-(-size // interval))
    return CanvasStream(
        {side: stream(position_of(position, side), chosen) for side, chosen in groups.items()}
    )


def _metadata(text: str, puzzles: int) -> DatasetMetadata:
    name = text.partition("/")[0]
    task = get(name)
    return DatasetMetadata.of_puzzles(task.vocab_size, task.seq_len, puzzles, task=name)


def _generate_test(path: str, count: int) -> Split:
    """Generate up to ``count`` held-out puzzles, the same in every run."""
    text = path.removeprefix(GENERATE)
    task, options = get_generator(text)
    puzzles = draw_distinct(task, count, np.random.default_rng(0), testing=True, **options)
    inputs, labels = _tokens(task, puzzles)
    found = len(inputs)
    metadata = _metadata(text, found)
    subsets = task.subsets(puzzles.questions)
    sets = {name: SplitArrays.of(inputs[rows], labels[rows]) for name, rows in subsets.items()}
    return Split(Path(path), replace(metadata, sets=[*sets]), sets)


def _tokens(task: Task, puzzles: Puzzles) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and labels, checked: a user's own task may break its promises."""
    tokens = task.encode(puzzles.questions), task.encode(puzzles.answers)
    for array in tokens:
        if array.shape != (len(puzzles.ratings), task.seq_len):
            raise InputError(
                f"the task {task.name} generates boards of shape {array.shape[1:]}: "
                f"its seq_len is {task.seq_len}"
            )
        counted = np.where(array == IGNORE_LABEL, 0, array)
        check_tokens(counted, task.vocab_size, f"{GENERATE}{task.name}")
    return tokens


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
