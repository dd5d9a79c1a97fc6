"""The dataset layout, its writer, the training and evaluation batches, and the prefetch thread."""

import itertools
import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_mlx.data import writer
from trm_mlx.data.arrays import IGNORE_LABEL, SplitArrays
from trm_mlx.data.dataset import PuzzleDataset, check_labelled, puzzle_names
from trm_mlx.data.format import DatasetMetadata
from trm_mlx.data.reader import split_asked
from trm_mlx.data.sampler import TrainStream, iterate_test, prefetch, total_steps
from trm_mlx.data.writer import SplitStream, write_dataset
from trm_mlx.errors import InputError

S, VOCAB = 3, 200


def make_arrays(groups, token_type=np.uint8, identified=True):
    """Arrays for `groups`, a list (groups) of lists (puzzles) of example counts.

    Example n has the inputs (1 + n % 100, 1, 1) and the labels (101 + n % 90, 101, 0), so that a
    batch tells which examples it holds; puzzle p has the identifier p + 1, or 0.
    """
    counts = list(itertools.chain.from_iterable(groups))
    numbers = np.arange(sum(counts))
    inputs = np.ones((len(numbers), S), token_type)
    inputs[:, 0] += (numbers % 100).astype(token_type)
    labels = np.full((len(numbers), S), 101, token_type)
    labels[:, 0] += (numbers % 90).astype(token_type)
    labels[:, 2] = 0
    return SplitArrays(
        inputs=inputs,
        labels=labels,
        puzzle_identifiers=np.arange(1, len(counts) + 1) * identified,
        puzzle_indices=np.cumsum([0, *counts]),
        group_indices=np.cumsum([0, *map(len, groups)]),
    )


def build(directory, groups, split="train", names=None, **options):
    """Writes a dataset with one split and returns its directory."""
    arrays = make_arrays(groups)
    names = names or ["<blank>", *(f"p{p}" for p in range(len(arrays.puzzle_identifiers)))]
    write_dataset(directory, {split: arrays}, names, vocab_size=VOCAB, seq_len=S, **options)
    return directory


def numbers_of(batch):
    """Numbers of the examples in a batch made from `make_arrays`."""
    return batch["inputs"][:, 0] - 1


def take(stream, count):
    """The next `count` pairs of a stream, over as many intervals as it takes."""
    pairs = []
    while len(pairs) < count:
        pairs.extend(stream)
    return pairs[:count]


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first | second)


def edit_metadata(directory, split="train", **changes):
    path = directory / split / "dataset.json"
    content = json.loads(path.read_text()) | changes
    kept = {name: value for name, value in content.items() if value is not ...}
    path.write_text(json.dumps(kept))


def save(directory, field, array, split="train"):
    np.save(directory / split / f"all__{field}.npy", np.asarray(array))


ARC = [[3, 3], [2], [4, 1, 2], [1]]  # groups, puzzles, examples
FLAT = [[1, 1]] * 7


# Layout and metadata.


def test_round_trip(tmp_path):
    groups = [[1, 2], [3]]
    extra = {"test_puzzles.json": "{}"}
    directory = build(tmp_path / "a" / "b", groups, extra_files=extra)
    assert sorted(path.name for path in (directory).rglob("*")) == [
        "all__group_indices.npy",
        "all__inputs.npy",
        "all__labels.npy",
        "all__puzzle_identifiers.npy",
        "all__puzzle_indices.npy",
        "dataset.json",
        "identifiers.json",
        "test_puzzles.json",
        "train",
    ]
    assert json.loads((directory / "identifiers.json").read_text())[0] == "<blank>"
    written = make_arrays(groups)
    for field, array in vars(written).items():
        stored = np.load(directory / "train" / f"all__{field}.npy")
        assert np.array_equal(stored, array)
        assert stored.dtype == (np.uint8 if field in ("inputs", "labels") else np.int32)

    dataset = PuzzleDataset([directory], "train")
    assert dataset.metadata == DatasetMetadata(0, 0, 0, VOCAB, S, 4, 2, 2.0, 3, ["all"])
    assert dataset.puzzle_indices.tolist() == [0, 1, 3, 6]
    assert dataset.group_indices.tolist() == [0, 2, 3]
    assert dataset.puzzle_identifiers.tolist() == [1, 2, 3]


def test_metadata_has_the_published_key_order(tmp_path):
    text = (build(tmp_path / "d", FLAT) / "train" / "dataset.json").read_text()
    assert text == (
        '{"pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": 200, '
        '"seq_len": 3, "num_puzzle_identifiers": 15, "total_groups": 7, '
        '"mean_puzzle_examples": 1.0, "total_puzzles": 14, "sets": ["all"]}'
    )


def test_the_task_is_named_where_it_is_known(tmp_path):
    named = build(tmp_path / "a", FLAT, task="maze9x9")
    assert json.loads((named / "train" / "dataset.json").read_text())["task"] == "maze9x9"
    assert PuzzleDataset([named], "train").metadata.task == "maze9x9"
    unnamed = build(tmp_path / "b", FLAT)
    assert PuzzleDataset([unnamed], "train").metadata.task is None
    assert PuzzleDataset([named, named], "train").metadata.task == "maze9x9"
    assert PuzzleDataset([named, unnamed], "train").metadata.task is None
    edit_metadata(named, task=3)
    with pytest.raises(InputError, match="'task' has the wrong type: 3"):
        PuzzleDataset([named], "train")


def test_keys_of_other_tools_are_ignored(tmp_path):
    directory = build(tmp_path / "d", FLAT)
    edit_metadata(directory, made_by="somebody", mean_puzzle_examples=1)
    assert PuzzleDataset([directory], "train").metadata.total_groups == 7


@pytest.mark.parametrize("token_type", [np.uint8, np.int32, np.int64])
def test_integer_types_in_the_wild(tmp_path, token_type):
    directory = build(tmp_path / "d", FLAT)
    arrays = make_arrays(FLAT, token_type)
    save(directory, "inputs", arrays.inputs)
    save(directory, "labels", arrays.labels)
    ((_, batch, _),) = iterate_test(PuzzleDataset([directory], "train"), 14)
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}
    assert numbers_of(batch).tolist() == list(range(14))
    assert batch["labels"][1].tolist() == [102, 101, IGNORE_LABEL]


def test_large_tokens_and_no_ignored_label(tmp_path):
    arrays = make_arrays([[1], [1]], np.int64)
    arrays.inputs[0, 1], arrays.labels[0, 1] = 999, IGNORE_LABEL
    write_dataset(
        tmp_path / "d",
        {"train": arrays},
        ["", "a", "b"],
        vocab_size=1000,
        seq_len=S,
        ignore_label_id=None,
    )
    assert np.load(tmp_path / "d/train/all__inputs.npy").dtype == np.uint16
    ((_, batch, _),) = iterate_test(PuzzleDataset([tmp_path / "d"], "train"), 2)
    assert batch["inputs"][0].tolist() == [1, 999, 1]
    assert batch["labels"][0].tolist() == [101, IGNORE_LABEL, 0]


# Writing.


def contents(directory):
    return {
        path.relative_to(directory): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_two_builds_are_byte_identical(tmp_path):
    first, second = build(tmp_path / "a", ARC), build(tmp_path / "b", ARC)
    assert contents(first) == contents(second)


def stream_of(arrays, rows):
    """The arrays as a stream of chunks of so many rows."""
    chunks = [
        (arrays.inputs[start : start + rows], arrays.labels[start : start + rows])
        for start in range(0, len(arrays.inputs), rows)
    ]
    return SplitStream(
        iter(chunks), arrays.puzzle_identifiers, arrays.puzzle_indices, arrays.group_indices
    )


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_a_stream_is_written_as_its_arrays_are(tmp_path, rows):
    whole = build(tmp_path / "whole", ARC)
    write_dataset(
        tmp_path / "stream",
        {"train": stream_of(make_arrays(ARC), rows)},
        json.loads((whole / "identifiers.json").read_text()),
        vocab_size=VOCAB,
        seq_len=S,
    )
    assert contents(tmp_path / "stream") == contents(whole)


def test_arrays_on_disk_are_written_in_chunks(tmp_path, monkeypatch):
    whole = build(tmp_path / "whole", ARC)
    monkeypatch.setattr(writer, "CHUNK_EXAMPLES", 4)
    arrays = SplitArrays.read(
        whole / "train", "all", DatasetMetadata.read(whole / "train/dataset.json")
    )
    names = json.loads((whole / "identifiers.json").read_text())
    write_dataset(tmp_path / "copy", {"train": arrays}, names, vocab_size=VOCAB, seq_len=S)
    assert contents(tmp_path / "copy") == contents(whole)


def test_a_stream_is_checked(tmp_path):
    def write(stream):
        write_dataset(
            tmp_path / "d", {"train": stream}, ["", "a", "b"], vocab_size=VOCAB, seq_len=S
        )

    arrays = make_arrays([[1, 2]])
    with pytest.raises(ValueError, match="the chunks hold 2 examples, puzzle_indices counts 3"):
        write(replace(stream_of(arrays, 1), chunks=[(arrays.inputs[:2], arrays.labels[:2])]))
    with pytest.raises(InputError, match=r"train/all__group_indices.npy: ends at 3, not 2"):
        write(replace(stream_of(arrays, 1), group_indices=np.array([0, 3])))
    large = replace(make_arrays([[1, 2]], np.int64), inputs=np.full((3, S), VOCAB))
    with pytest.raises(InputError, match=r"train/all__inputs.npy: token 200 is outside"):
        write(stream_of(large, 1))
    with pytest.raises(TypeError, match="Cannot cast"):  # rather than a wrong file
        write(
            replace(
                stream_of(arrays, 1),
                chunks=[(arrays.inputs, arrays.labels), (large.inputs * 0, large.labels)],
            )
        )
    assert not list(tmp_path.iterdir())


def test_an_existing_dataset_needs_overwrite(tmp_path):
    directory = build(tmp_path / "d", FLAT)
    before = contents(directory)
    with pytest.raises(InputError, match=r"d is not empty; set overwrite"):
        build(directory, ARC)
    assert contents(directory) == before
    build(directory, ARC, overwrite=True)
    assert contents(directory) == contents(build(tmp_path / "fresh", ARC))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "fresh"]


def test_an_empty_directory_is_used(tmp_path):
    (tmp_path / "d").mkdir()
    build(tmp_path / "d", FLAT)
    assert (tmp_path / "d" / "train").is_dir()


def test_overwrite_spares_what_is_not_a_dataset(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds something other than a dataset"):
        build(tmp_path, FLAT, overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        build(tmp_path / "thesis.tex", FLAT, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_failed_build_leaves_no_trace(tmp_path, monkeypatch, failure, replaces):
    directory = tmp_path / "d"
    if replaces:
        build(directory, FLAT)
    before = contents(tmp_path)
    real_save, calls = np.save, itertools.count(1)

    def failing_save(*args, **kwargs):
        if next(calls) == 3:
            raise failure
        real_save(*args, **kwargs)

    monkeypatch.setattr(np, "save", failing_save)
    expected = InputError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        build(directory, ARC, overwrite=True)
    if expected is InputError:
        assert caught.match(f"cannot write {directory}: .*No space left on device; free some")
    assert contents(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == replaces


def test_a_failed_rename_puts_the_old_dataset_back(tmp_path, monkeypatch):
    directory = build(tmp_path / "d", FLAT)
    before, real_rename = contents(tmp_path), type(directory).rename

    def rename(self, target):
        if self.name == "new":
            raise OSError("interrupted")
        return real_rename(self, target)

    monkeypatch.setattr(type(directory), "rename", rename)
    with pytest.raises(InputError, match="interrupted"):
        build(directory, ARC, overwrite=True)
    assert contents(tmp_path) == before


class Killed(BaseException):
    """What a process that is killed does next: nothing."""


@pytest.fixture
def kill(monkeypatch):
    """Ends all renaming and deleting before the rename of this number, until told to go on."""
    numbers, after = itertools.count(1), [0]
    rename, rmtree = Path.rename, shutil.rmtree

    def counted(path, target):
        if after[0] and next(numbers) >= after[0]:
            raise Killed
        return rename(path, target)

    def never(folder, **options):
        if not after[0]:
            rmtree(folder, **options)

    monkeypatch.setattr(Path, "rename", counted)
    monkeypatch.setattr(shutil, "rmtree", never)
    return lambda number: after.__setitem__(0, number)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("start", ["read", "build", "overwrite"])
def test_a_kill_while_a_dataset_is_replaced(tmp_path, kill, number, start):
    """Before the old one goes aside, before the new one has its place, before the old one goes."""
    directory = build(tmp_path / "d", FLAT)
    old, new = contents(directory), contents(build(tmp_path / "other", ARC))
    kill(number)
    with pytest.raises(Killed):
        build(directory, ARC, overwrite=True)
    kill(0)
    assert directory.exists() == (number != 2)
    if start == "read":
        assert len(PuzzleDataset([str(directory)], "train").parts) == 1
        assert contents(directory) == (new if number == 3 else old)
    elif start == "build":
        with pytest.raises(InputError, match=r"d is not empty; set overwrite"):
            build(directory, ARC)
        assert contents(directory) == (new if number == 3 else old)
    else:
        build(directory, ARC, overwrite=True)
        assert contents(directory) == new
    assert (tmp_path / ".d.replaced").exists() == (number == 3 and start == "read")


def test_a_dataset_that_cannot_be_restored_is_named(tmp_path, monkeypatch):
    build(tmp_path / "d", FLAT).rename(tmp_path / ".d.replaced")

    def refused(path, target):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(InputError, match=r"cannot restore .*/d from .*\.d\.replaced: Permission"):
        PuzzleDataset([str(tmp_path / "d")], "train")


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*file/d"):
        build(tmp_path / "file" / "d", FLAT)


# Damaged data: what the writer refuses and what the loader reports are the same lines.

BROKEN_ARRAYS = [
    ("inputs", np.ones((3, S)), "holds float64, not integers"),
    ("inputs", np.ones(3, int), r"shape \(3,\) is not 2-D"),
    ("inputs", np.ones((3, 5), int), r"shape \(3, 5\) is not \(3, 3\)"),
    ("inputs", np.ones((0, S), int), "holds no examples"),
    ("labels", np.ones((2, S), int), r"shape \(2, 3\) is not \(3, 3\)"),
    ("puzzle_identifiers", [1, 3], "identifiers 1 to 3 do not fit 0 to 2"),
    ("puzzle_identifiers", [-1, 1], "identifiers -1 to 1 do not fit 0 to 2"),
    ("puzzle_indices", [0, 3], "has 2 offsets, not 3"),
    ("puzzle_indices", [1, 2, 3], "starts at 1, not 0"),
    ("puzzle_indices", np.array([0, 4, 3], np.uint32), "offsets decrease"),
    ("puzzle_indices", [0, 1, 2], "ends at 2, not 3"),
    ("group_indices", [0], "has 1 offsets, not 2"),
    ("group_indices", [0, 3], "ends at 3, not 2"),
]


@pytest.mark.parametrize(("field", "array", "problem"), BROKEN_ARRAYS)
def test_broken_arrays(tmp_path, field, array, problem):
    match = f"d/train/all__{field}.npy: {problem}; rebuild the dataset"
    broken = replace(make_arrays([[1, 2]]), **{field: np.asarray(array)})
    with pytest.raises(InputError, match=match):
        write_dataset(
            tmp_path / "d", {"train": broken}, ["", "a", "b"], vocab_size=VOCAB, seq_len=S
        )
    assert not list(tmp_path.iterdir())
    save(build(tmp_path / "d", [[1, 2]]), field, array)
    with pytest.raises(InputError, match=match):
        PuzzleDataset([tmp_path / "d"], "train")


@pytest.mark.parametrize("field", ["inputs", "labels"])
@pytest.mark.parametrize("token", [-1, VOCAB])
def test_tokens_outside_the_vocabulary(tmp_path, field, token):
    match = rf"d/train/all__{field}.npy: token {token} is outside the vocabulary \(0 to 199\)"
    arrays = make_arrays([[1, 2]], np.int64)
    getattr(arrays, field)[1, 1] = token
    with pytest.raises(InputError, match=match):
        write_dataset(
            tmp_path / "d", {"train": arrays}, ["", "a", "b"], vocab_size=VOCAB, seq_len=S
        )
    save(build(tmp_path / "d", [[1, 2]]), field, getattr(arrays, field))
    with pytest.raises(InputError, match=match):
        list(iterate_test(PuzzleDataset([tmp_path / "d"], "train"), 3))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda path: path.unlink(), "npy: No such file"),
        (lambda path: path.write_bytes(b""), "npy is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "npy is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:30]), "npy is damaged"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b"}", b" ")),
            "npy is damaged",
        ),
        (lambda path: np.save(path, np.array([{}], object)), "npy is damaged"),
    ],
)
@pytest.mark.parametrize("field", ["inputs", "group_indices"])
def test_damaged_files(tmp_path, field, damage, match):
    directory = build(tmp_path / "d", FLAT)
    damage(directory / "train" / f"all__{field}.npy")
    with pytest.raises(InputError, match=f"all__{field}.{match}"):
        PuzzleDataset([directory], "train")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"pad_id": ...}, "key 'pad_id' is missing"),
        ({"ignore_label_id": ...}, "key 'ignore_label_id' is missing"),
        ({"seq_len": "81"}, "'seq_len' has the wrong type: '81'"),
        ({"pad_id": True}, "'pad_id' has the wrong type: True"),
        ({"pad_id": None}, "'pad_id' has the wrong type: None"),
        ({"mean_puzzle_examples": "1"}, "'mean_puzzle_examples' has the wrong type"),
        ({"vocab_size": 0}, "'vocab_size' is 0; it must be at least 1"),
        ({"sets": []}, r"'sets' is \[\]; it must list names"),
        ({"sets": [1]}, r"'sets' is \[1\]; it must list names"),
        ({"sets": ["easy"]}, "easy__inputs.npy: No such file"),
    ],
)
def test_wrong_metadata(tmp_path, changes, match):
    directory = build(tmp_path / "d", FLAT)
    edit_metadata(directory, **changes)
    with pytest.raises(InputError, match=match):
        PuzzleDataset([directory], "train")


@pytest.mark.parametrize(
    ("text", "match"), [("{", "is not JSON"), ("[1]", "must hold a JSON object")]
)
def test_metadata_that_is_no_object(tmp_path, text, match):
    directory = build(tmp_path / "d", FLAT)
    (directory / "train" / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=f"dataset.json:? {match}"):
        PuzzleDataset([directory], "train")


def test_missing_directories(tmp_path):
    directory = build(tmp_path / "d", FLAT)
    with pytest.raises(InputError, match="no dataset given"):
        PuzzleDataset([], "train")
    with pytest.raises(InputError, match="nowhere is not a directory"):
        PuzzleDataset([tmp_path / "nowhere"], "train")
    with pytest.raises(InputError, match="d has no split 'test'; it has: train"):
        PuzzleDataset([str(directory)], "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no split 'test'; it has: none"):
        PuzzleDataset([tmp_path / "empty"], "test")
    (directory / "train" / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset.json: No such file"):
        PuzzleDataset([directory], "train")


def test_the_folder_of_a_split_stands_for_its_dataset(tmp_path, monkeypatch):
    directory = build(tmp_path / "d", FLAT)
    expected = PuzzleDataset([directory], "train")
    assert PuzzleDataset([directory / "train"], "train").metadata == expected.metadata
    monkeypatch.chdir(directory / "train")
    assert puzzle_names(PuzzleDataset(["."], "train")) == puzzle_names(expected)
    with pytest.raises(InputError, match=r"d/train is the split 'train' .* for its split 'test'"):
        PuzzleDataset([directory / "train"], "test")
    assert split_asked(str(directory / "train"), None) == "train"
    assert split_asked(str(directory), None) == "test"


def test_metadata_without_the_number_of_puzzles(tmp_path):
    directory = build(tmp_path / "d", ARC)
    path = directory / "train" / "dataset.json"
    content = json.loads(path.read_text())
    puzzles = content.pop("total_puzzles")
    path.write_text(json.dumps(content))  # as HRM's builders write it
    assert PuzzleDataset([directory], "train").metadata.total_puzzles == puzzles


@pytest.mark.parametrize(
    ("name", "value"), [("total_groups", 1), ("total_puzzles", 99), ("mean_puzzle_examples", 7.5)]
)
def test_counts_of_the_metadata_are_those_of_the_arrays(tmp_path, name, value):
    directory = build(tmp_path / "d", ARC)
    path = directory / "train" / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(InputError, match=f"dataset.json: '{name}' is {value}, but the arrays hold"):
        PuzzleDataset([directory], "train")


def test_labels_that_are_all_ignored(tmp_path):
    directory = build(tmp_path / "d", FLAT)
    check_labelled(PuzzleDataset([directory], "train"))
    path = directory / "train" / "all__labels.npy"
    np.save(path, np.zeros_like(np.load(path)))
    with pytest.raises(InputError, match=r"all__labels.npy: every label is ignored"):
        check_labelled(PuzzleDataset([directory], "train"))


# Several datasets, several sets.


def test_two_datasets_are_mixed_with_disjoint_identifiers(tmp_path):
    first = build(tmp_path / "a", [[1], [2, 2]])
    second = build(tmp_path / "b", [[1, 1]])
    save(second, "puzzle_identifiers", [0, 2])  # the blank one is shared
    dataset = PuzzleDataset([first, second], "train")
    assert dataset.puzzle_identifiers.tolist() == [1, 2, 3, 0, 5]
    assert dataset.puzzle_indices.tolist() == [0, 1, 3, 5, 6, 7]
    assert dataset.group_indices.tolist() == [0, 1, 3, 5]
    metadata = dataset.metadata
    assert (metadata.num_puzzle_identifiers, metadata.total_groups) == (6, 3)
    assert (metadata.total_puzzles, metadata.sets) == (5, ["all", "all1"])
    assert metadata.total_groups * metadata.mean_puzzle_examples == pytest.approx(2 * 5 / 3 + 1 * 1)

    seen = [
        (name, numbers_of(batch)[:rows].tolist(), batch["puzzle_identifiers"][:rows].tolist())
        for name, batch, rows in iterate_test(dataset, 4)
    ]
    assert seen == [
        ("all", [0, 1, 2, 3], [1, 2, 2, 3]),
        ("all", [4], [3]),
        ("all1", [0, 1], [0, 5]),
    ]
    assert len(dataset) == 7
    assert dataset.owners(np.array([6, 0, 2])).tolist() == [4, 0, 1]
    assert numbers_of(dataset.whole()).tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert dataset.whole()["puzzle_identifiers"].tolist() == [1, 2, 2, 3, 3, 0, 5]
    # One epoch visits the groups of both datasets.
    stream = TrainStream(dataset, 1, 1, seed=0)
    visited = {int(batch["puzzle_identifiers"][0]) for batch, _ in stream}
    assert 1 in visited
    assert visited & {2, 3}
    assert visited & {0, 5}


def test_several_sets_in_one_dataset(tmp_path):
    directory = build(tmp_path / "d", FLAT)
    for field, array in vars(make_arrays([[2]])).items():
        np.save(directory / "train" / f"hard__{field}.npy", array)
    counts = {"total_groups": 8, "total_puzzles": 15, "mean_puzzle_examples": 16 / 15}
    edit_metadata(directory, sets=["all", "hard"], **counts)
    dataset = PuzzleDataset([directory], "train")
    seen = [(name, rows) for name, _, rows in iterate_test(dataset, 10)]
    assert seen == [("all", 10), ("all", 4), ("hard", 2)]
    assert len(dataset.group_indices) - 1 == 8
    assert dataset.puzzle_identifiers[-1] == 1  # a set shares the identifiers of its dataset
    both = PuzzleDataset([directory, directory], "train")
    assert both.metadata.sets == ["all", "hard", "all1", "hard1"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("vocab_size", 201), ("pad_id", 1), ("ignore_label_id", None), ("blank_identifier_id", 1)],
)
def test_datasets_that_do_not_go_together(tmp_path, name, value):
    first, second = build(tmp_path / "a", FLAT), build(tmp_path / "b", FLAT)
    edit_metadata(second, **{name: value})
    match = f"{name} is (0|200) in .*a/train but {value} in .*b/train; use one at a time"
    with pytest.raises(InputError, match=match):
        PuzzleDataset([first, second], "train")


def test_mixing_needs_the_blank_identifier_zero(tmp_path):
    paths = [build(tmp_path / name, FLAT, blank_identifier_id=1) for name in "ab"]
    assert PuzzleDataset(paths[:1], "train").metadata.blank_identifier_id == 1
    with pytest.raises(InputError, match="blank_identifier_id is 1; only datasets where it is 0"):
        PuzzleDataset(paths, "train")


# Training batches.


def test_every_group_once_per_epoch(tmp_path):
    dataset = PuzzleDataset([build(tmp_path / "d", [[1, 1, 1]] * 12)], "train")
    stream = TrainStream(dataset, 4, 1, seed=0)
    orders, puzzles = [], set()
    for _ in range(20):
        numbers = np.concatenate([numbers_of(batch) for batch, _ in stream])
        assert sorted(numbers // 3) == list(range(12))
        orders.append(tuple(numbers // 3))
        puzzles |= set(numbers.tolist())
    assert len(set(orders)) == 20
    assert puzzles == set(range(36))


def test_batches_span_epochs_but_not_intervals(tmp_path):
    dataset = PuzzleDataset([build(tmp_path / "d", FLAT)], "train")
    stream = TrainStream(dataset, 4, epochs_per_interval=3, seed=0)  # 21 examples an interval
    for interval in range(3):
        pairs = list(stream)
        assert len(pairs) == 5
        assert pairs[0][1] == {"epoch": 3 * interval, "offset": 4}
        assert pairs[1][1] == {"epoch": 3 * interval + 1, "offset": 1}
        assert pairs[-1][1] == {"epoch": 3 * interval + 3, "offset": 0}
        groups = np.concatenate([numbers_of(batch) for batch, _ in pairs]) // 2
        assert sorted(groups[:7]) == sorted(groups[7:14]) == list(range(7))


def test_puzzles_with_several_examples(tmp_path):
    dataset = PuzzleDataset([build(tmp_path / "d", ARC)], "train")
    for batch, _ in take(TrainStream(dataset, 7, 2, seed=3), 200):
        numbers, identifiers = numbers_of(batch), batch["puzzle_identifiers"]
        assert np.array_equal(
            np.searchsorted(dataset.puzzle_indices, numbers, "right"), identifiers
        )
        visits = [
            (identifier, [int(number) for _, number in rows])
            for identifier, rows in itertools.groupby(
                zip(identifiers, numbers, strict=True), key=lambda row: int(row[0])
            )
        ]
        for identifier, examples in visits[:-1]:
            # Neighbouring epochs may visit a puzzle twice in a row.
            count = int(np.diff(dataset.puzzle_indices)[identifier - 1])
            assert len(examples) % count == 0
            for start in range(0, len(examples), count):
                assert len(set(examples[start : start + count])) == count


def test_the_last_puzzle_is_cut_at_random(tmp_path):
    dataset = PuzzleDataset([build(tmp_path / "d", [[3]])], "train")
    pairs = take(TrainStream(dataset, 2, 1, seed=0), 200)
    assert {tuple(numbers_of(batch).tolist()) for batch, _ in pairs} == set(
        itertools.permutations(range(3), 2)
    )


@pytest.mark.parametrize("groups", [FLAT, ARC])
def test_resuming_anywhere_gives_the_same_batches(tmp_path, groups):
    dataset = PuzzleDataset([build(tmp_path / "d", groups)], "train")
    arguments = (dataset, 5, 3, 17)
    pairs = take(TrainStream(*arguments), 12)
    for number, (_, position) in enumerate(pairs[:-1]):
        stored = json.loads(json.dumps(position))
        resumed = take(TrainStream(*arguments, position=stored), 11 - number)
        for (batch, after), (expected, expected_after) in zip(
            resumed, pairs[number + 1 :], strict=True
        ):
            assert same(batch, expected)
            assert after == expected_after


def test_the_seed_decides(tmp_path):
    dataset = PuzzleDataset([build(tmp_path / "d", FLAT)], "train")
    first, again, other = (take(TrainStream(dataset, 7, 5, seed), 5) for seed in (1, 1, 2))
    assert all(same(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not all(same(a, b) for (a, _), (b, _) in zip(first, other, strict=True))


@pytest.mark.parametrize("groups", [FLAT, ARC])
def test_ranks_partition_the_global_batch(tmp_path, groups):
    dataset = PuzzleDataset([build(tmp_path / "d", groups)], "train")
    whole = take(TrainStream(dataset, 6, 4, 0), 9)
    shares = [take(TrainStream(dataset, 6, 4, 0, (rank, 3)), 9) for rank in range(3)]
    for (batch, position), *parts in zip(whole, *shares, strict=True):
        assert all(part_position == position for _, part_position in parts)
        joined = {name: np.concatenate([part[name] for part, _ in parts]) for name in batch}
        assert same(joined, batch)


def test_stream_errors(tmp_path):
    dataset = PuzzleDataset([build(tmp_path / "d", [[1], [3, 2]])], "train")
    assert len(list(TrainStream(dataset, 6, 2, 0))) == 1
    with pytest.raises(
        InputError,
        match="interval of 2 epochs may hold only 6 examples, fewer than the batch of 7; "
        "use a smaller global_batch_size or a larger eval_interval",
    ):
        TrainStream(dataset, 7, 2, 0)
    with pytest.raises(InputError, match="global_batch_size 6 cannot be split over 4 ranks"):
        TrainStream(dataset, 6, 2, 0, shard=(0, 4))
    with pytest.raises(InputError, match="global_batch_size 0 cannot"):
        list(iterate_test(dataset, 0))
    with pytest.raises(InputError, match="seed is -1"):
        TrainStream(dataset, 6, 2, -1)
    for position in ({"epoch": 0, "offset": 2}, {"epoch": -1, "offset": 0}, {"step": 3}):
        with pytest.raises(InputError, match=r"data position .* does not fit 2 groups"):
            TrainStream(dataset, 6, 2, 0, position=position)


def test_total_steps(tmp_path):
    metadata = PuzzleDataset([build(tmp_path / "d", [[1], [2]])], "train").metadata
    assert total_steps(metadata, epochs=5, batch_size=4) == 3  # 5 * 2 * 1.5 / 4 = 3.75


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=8),
    batch_size=st.integers(1, 12),
    epochs=st.integers(1, 12),
    seed=st.integers(0, 2**70),
)
def test_stream_properties(tmp_path_factory, groups, batch_size, epochs, seed):
    dataset = PuzzleDataset([build(tmp_path_factory.mktemp("data") / "d", groups)], "train")
    if epochs * sum(map(min, groups)) < batch_size:
        with pytest.raises(InputError, match="an interval of"):
            TrainStream(dataset, batch_size, epochs, seed)
        return
    pairs = list(TrainStream(dataset, batch_size, epochs, seed))
    assert pairs
    group_of_puzzle = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    visits = []
    for batch, position in pairs:
        assert batch["inputs"].shape == batch["labels"].shape == (batch_size, S)
        assert 0 <= position["offset"] < len(groups)
        assert position["epoch"] <= epochs
        visits.append(group_of_puzzle[batch["puzzle_identifiers"] - 1])
    assert pairs[-1][1] == {"epoch": epochs, "offset": 0}
    if all(count == 1 for group in groups for count in group):
        visits = np.concatenate(visits)
        assert len(visits) == epochs * len(groups) // batch_size * batch_size
        for start in range(0, len(visits) - len(groups) + 1, len(groups)):
            assert sorted(visits[start : start + len(groups)]) == list(range(len(groups)))


# Evaluation batches.


@pytest.mark.parametrize("world_size", [1, 4])
def test_test_batches_are_padded(tmp_path, world_size):
    directory = build(tmp_path / "d", [[3, 2], [1]], split="test", pad_id=9)
    dataset = PuzzleDataset([directory], "test")
    ranks = [list(iterate_test(dataset, 4, (rank, world_size))) for rank in range(world_size)]
    numbers, identifiers = [], []
    for number, parts in enumerate(zip(*ranks, strict=True)):
        assert all((name, rows) == ("all", [4, 2][number]) for name, _, rows in parts)
        assert all(len(batch["inputs"]) == 4 // world_size for _, batch, _ in parts)
        batch = {
            field: np.concatenate([part[field] for _, part, _ in parts]) for field in parts[0][1]
        }
        numbers.extend(numbers_of(batch)[: parts[0][2]].tolist())
        identifiers.extend(batch["puzzle_identifiers"].tolist())
    assert numbers == list(range(6))
    assert identifiers == [1, 1, 1, 2, 2, 3, 0, 0]
    assert (batch["inputs"][2:] == 9).all()
    assert (batch["labels"][2:] == IGNORE_LABEL).all()


# Prefetching.


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def counting(made, stop):
    for number in range(stop):
        made.append(number)
        yield number


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_prefetch_keeps_the_order_and_ends(depth):
    assert list(prefetch(range(20), depth)) == list(range(20))
    assert list(prefetch([], depth)) == []
    assert not prefetch_threads()


def test_prefetch_stays_ahead_by_its_depth():
    made = []
    items = prefetch(counting(made, 100), depth=3)
    assert made == []
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert made == [0, 1, 2, 3]
    items.close()
    assert not prefetch_threads()


def test_prefetch_passes_exceptions_on_in_order():
    def failing():
        yield 1
        raise InputError("token 12 is outside the vocabulary")

    items = prefetch(failing(), depth=5)
    assert next(items) == 1
    with pytest.raises(InputError, match="token 12"):
        next(items)
    assert not prefetch_threads()


def test_prefetch_ends_its_thread_when_the_consumer_stops():
    for item in prefetch(itertools.count()):
        if item == 3:
            break
    assert not prefetch_threads()

    def interrupted():
        for item in prefetch(itertools.count()):
            if item == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    never_started = prefetch(itertools.count())
    never_started.close()
    assert not prefetch_threads()


def test_prefetched_stream_resumes_from_the_consumed_position(tmp_path):
    dataset = PuzzleDataset([build(tmp_path / "d", ARC)], "train")
    plain = take(TrainStream(dataset, 4, 5, 0), 4)
    items = prefetch(iter(TrainStream(dataset, 4, 5, 0)), depth=3)
    _, position = next(items)
    items.close()
    for (batch, _), (expected, _) in zip(
        TrainStream(dataset, 4, 5, 0, position=position), plain[1:], strict=False
    ):
        assert same(batch, expected)
