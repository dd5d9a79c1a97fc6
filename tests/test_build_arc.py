"""The ARC builder: its sources, what it writes, what it draws, and what it refuses."""

import argparse
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import trm_mlx
from trm_mlx.adaptation.prepare import read_tasks
from trm_mlx.builders import arc as builder
from trm_mlx.builders import arc_augment
from trm_mlx.cli import main
from trm_mlx.config_io import load_config
from trm_mlx.data import writer
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.tasks.arc import Symmetry, grid_key, read_name

LAUNCHER = Path(__file__).resolve().parents[1] / "dataset" / "build_arc_dataset.py"


# Small puzzles and their files


def random_grid(rng, largest=30):
    return rng.integers(10, size=rng.integers(1, largest + 1, size=2)).tolist()


def random_puzzle(rng, train=3, test=2, largest=9):
    return {
        kind: [
            {side: random_grid(rng, largest) for side in ("input", "output")} for _ in range(count)
        ]
        for kind, count in (("train", train), ("test", test))
    }


def write_subset(folder, name, puzzles, solved=True):
    """The two files of a subset; puzzles have their test outputs."""
    challenges = {
        key: {**puzzle, "test": [{"input": pair["input"]} for pair in puzzle["test"]]}
        for key, puzzle in puzzles.items()
    }
    (folder / f"arc_{name}_challenges.json").write_text(json.dumps(challenges))
    if solved:
        solutions = {key: [pair["output"] for pair in p["test"]] for key, p in puzzles.items()}
        (folder / f"arc_{name}_solutions.json").write_text(json.dumps(solutions))


@pytest.fixture
def sources(tmp_path):
    """Two subsets, "training" with 5 puzzles and "evaluation" with 3: {subset: puzzles}."""
    rng = np.random.default_rng(0)
    subsets = {
        "training": {f"t{number}": random_puzzle(rng) for number in range(5)},
        "evaluation": {f"e{number}": random_puzzle(rng, train=2) for number in range(3)},
    }
    for name, puzzles in subsets.items():
        write_subset(tmp_path, name, puzzles)
    return subsets


def words(folder, *options, output="d"):
    return [
        "build", "arc", "--input-file-prefix", f"{folder}/arc", "--output-dir",
        f"{folder}/{output}", "--subsets", "training", "evaluation", "--test-set-name",
        "evaluation", *map(str, options),
    ]  # fmt: skip


def build(folder, *options, output="d"):
    assert main(words(folder, *options, output=output)) == 0
    return folder / output


class Split:
    """What a split holds, by the names of its puzzles."""

    def __init__(self, directory, split):
        self.data = PuzzleDataset([directory], split)
        self.metadata, arrays = self.data.metadata, self.data.parts[0].arrays
        self.inputs, self.labels = np.array(arrays.inputs), np.array(arrays.labels)
        self.names = json.loads((directory / "identifiers.json").read_text())
        self.groups = [
            [self.names[identifier] for identifier in self.data.puzzle_identifiers[first:end]]
            for first, end in itertools.pairwise(self.data.group_indices)
        ]

    def puzzles(self):
        """(name, inputs [n, 900], labels [n, 900]) of every puzzle."""
        offsets = itertools.pairwise(self.data.puzzle_indices)
        names = itertools.chain.from_iterable(self.groups)
        for name, (first, end) in zip(names, offsets, strict=True):
            yield name, self.inputs[first:end], self.labels[first:end]


def find_grid(tokens):
    """The grid on a canvas wherever it is, and its place; all else must be as it should."""
    cells = tokens.reshape(30, 30)
    rows, columns = (np.flatnonzero((cells > 1).any(axis=axis)) for axis in (1, 0))
    (top, left), (bottom, right) = (rows[0], columns[0]), (rows[-1] + 1, columns[-1] + 1)
    expected = np.zeros((30, 30))
    expected[top:bottom, left:right] = cells[top:bottom, left:right]
    if bottom < 30:
        expected[bottom, left:right] = 1
    if right < 30:
        expected[top:bottom, right] = 1
    np.testing.assert_array_equal(cells, expected)
    grid = cells[top:bottom, left:right] - 2
    assert grid.max() <= 9
    return grid, (top, left)


def originals(name, inputs, labels):
    """The pairs that a puzzle's canvases show once its symmetry is undone, sorted, and places."""
    _, symmetry = read_name(name)
    undo, pairs, places = symmetry.inverse(), [], []
    for canvases in zip(inputs, labels, strict=True):
        (before, place), (after, other) = map(find_grid, canvases)
        assert place == other
        pairs.append((undo.image(before).tolist(), undo.image(after).tolist()))
        places.append(place)
    return sorted(pairs), places


def pairs_of(examples):
    return sorted((example["input"], example["output"]) for example in examples)


# What is written


def test_every_image_is_its_puzzle(tmp_path, sources):
    """Counts, order, names, and that undoing the symmetry of a name gives the source back."""
    directory = build(tmp_path, "--num-aug", 4)
    train, test = Split(directory, "train"), Split(directory, "test")
    every = sources["training"] | sources["evaluation"]
    assert {group[0] for group in train.groups} == set(every)
    assert {group[0] for group in test.groups} == set(sources["evaluation"])
    assert [group for group in train.groups if group in test.groups] == test.groups
    for group in train.groups:
        assert len(set(group)) == 5
        assert {read_name(name)[0] for name in group} == {group[0]}
    # Five images of: 5 puzzles with 3 + 2 examples, 3 with 2; then the latter's 2 tests.
    assert (len(train.inputs), len(test.inputs)) == (5 * (25 + 6), 5 * 6)
    for name, inputs, labels in train.puzzles():
        puzzle = read_name(name)[0]
        held_out = puzzle in sources["evaluation"]
        expected = every[puzzle]["train"] + ([] if held_out else every[puzzle]["test"])
        pairs, places = originals(name, inputs, labels)
        assert pairs == pairs_of(expected)
        assert (0, 0) in places
    for name, inputs, labels in test.puzzles():
        pairs, places = originals(name, inputs, labels)
        assert pairs == pairs_of(every[read_name(name)[0]]["test"])
        assert set(places) == {(0, 0)}


def test_files_of_the_published_layout(tmp_path, sources):
    directory = build(tmp_path, "--num-aug", 2)
    assert sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*.*")) == [
        "identifiers.json",
        "test/all__group_indices.npy",
        "test/all__inputs.npy",
        "test/all__labels.npy",
        "test/all__puzzle_identifiers.npy",
        "test/all__puzzle_indices.npy",
        "test/dataset.json",
        "test_puzzles.json",
        "train/all__group_indices.npy",
        "train/all__inputs.npy",
        "train/all__labels.npy",
        "train/all__puzzle_identifiers.npy",
        "train/all__puzzle_indices.npy",
        "train/dataset.json",
    ]
    for path in directory.rglob("*.npy"):
        tokens = path.stem in ("all__inputs", "all__labels")
        assert np.load(path).dtype == (np.uint8 if tokens else np.int32)
    assert (directory / "test" / "dataset.json").read_text() == (
        '{"pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": 12, '
        '"seq_len": 900, "num_puzzle_identifiers": 25, "total_groups": 3, '
        '"mean_puzzle_examples": 2.0, "total_puzzles": 9, "sets": ["all"]}'
    )
    names = json.loads((directory / "identifiers.json").read_text())
    assert names[0] == "<blank>"
    assert len(set(names)) == 25
    assert json.loads((directory / "test_puzzles.json").read_text()) == sources["evaluation"]


def test_identifiers_count_through_the_train_split(tmp_path, sources):
    data = Split(build(tmp_path, "--num-aug", 3), "train").data
    assert data.puzzle_identifiers.tolist() == list(range(1, 33))


def test_a_puzzle_of_two_subsets_shares_its_identifier(tmp_path, sources, capsys):
    write_subset(tmp_path, "training", {**sources["training"], "e1": sources["evaluation"]["e1"]})
    train = Split(build(tmp_path, "--num-aug", 0), "train")
    assert sorted(name for (name,) in train.groups) == sorted([*(f"t{n}" for n in range(5)),
                                                               "e0", "e1", "e1", "e2"])  # fmt: skip
    assert len(train.names) == 1 + 8
    assert "warning: the answers of 1 test puzzles (e1, ...) are trained on" in (
        capsys.readouterr().err
    )


def test_a_second_set_can_be_held_out(tmp_path, sources):
    directory = build(tmp_path, "--num-aug", 0, "--test-set-name2", "training")
    assert len(Split(directory, "test").groups) == 8
    assert len(json.loads((directory / "test_puzzles.json").read_text())) == 8


def test_a_held_out_set_without_solutions(tmp_path, sources, capsys):
    """A competition's: what it does not tell stands as [[0]], which is said."""
    (tmp_path / "arc_evaluation_solutions.json").unlink()
    directory = build(tmp_path, "--num-aug", 1)
    puzzles = json.loads((directory / "test_puzzles.json").read_text())
    assert [pair["output"] for pair in puzzles["e0"]["test"]] == [[[0]], [[0]]]
    assert [find_grid(row)[0].shape for row in Split(directory, "test").labels] == [(1, 1)] * 12
    assert "arc_evaluation_solutions.json not found: tests without" in capsys.readouterr().err


def test_solutions_inside_the_challenges(tmp_path, sources):
    for subset, puzzles in sources.items():
        (tmp_path / f"arc_{subset}_solutions.json").unlink()
        (tmp_path / f"arc_{subset}_challenges.json").write_text(json.dumps(puzzles))
    directory = build(tmp_path, "--num-aug", 0)
    assert json.loads((directory / "test_puzzles.json").read_text()) == sources["evaluation"]


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_seed_decides_everything(tmp_path, sources):
    first = contents(build(tmp_path, "--num-aug", 3, output="a"))
    assert contents(build(tmp_path, "--num-aug", 3, output="b")) == first
    other = contents(build(tmp_path, "--num-aug", 3, "--seed", 1, output="c"))
    assert other["all__inputs.npy"] != first["all__inputs.npy"]
    assert other["identifiers.json"] != first["identifiers.json"]


def test_chunks_change_no_byte(tmp_path, sources, monkeypatch):
    """What is painted at once bounds memory; without random places it shows nowhere else."""
    first = Split(build(tmp_path, "--num-aug", 9, output="a"), "test")
    monkeypatch.setattr(arc_augment, "CANVASES_AT_ONCE", 1)
    second = Split(build(tmp_path, "--num-aug", 9, output="b"), "test")
    np.testing.assert_array_equal(first.inputs, second.inputs)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_launcher(tmp_path, sources):
    command = [sys.executable, str(LAUNCHER), *words(tmp_path, "--num-aug", 1)[2:]]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"{tmp_path}/d: 8 ARC puzzles, 3 of them held out, in 16 versions\n"
    assert done.stderr == ""


# What is drawn


def test_distribution_of_the_drawn(tmp_path, sources):
    """Transforms, colours and places are uniform; which example stays is, too."""
    rng = np.random.default_rng(3)
    puzzle = random_puzzle(rng, train=4, largest=9)
    for pair in puzzle["train"]:  # room in both directions for 22 places, as 9x8 or 8x9
        pair["input"] = rng.integers(10, size=(9, 8)).tolist()
        pair["output"] = rng.integers(10, size=(5, 8)).tolist()
    write_subset(tmp_path, "evaluation", {"x": puzzle})
    train = Split(build(tmp_path, "--num-aug", 4000), "train")
    images = [image for image in train.puzzles() if image[0].startswith("x|||")]
    symmetries = [read_name(name)[1] for name, _, _ in images]
    transforms = Counter(int(symmetry.transforms[0]) for symmetry in symmetries)
    assert abs(np.array([transforms[t] for t in range(8)]) - 500).max() < 105  # 5 deviations
    colours = np.concatenate([symmetry.colours for symmetry in symmetries])
    assert (colours[:, 0] == 0).all()
    assert abs(np.bincount(colours[:, 5], minlength=10)[1:] - 4000 / 9).max() < 100
    stayed, rows, columns = Counter(), Counter(), Counter()
    for symmetry, (_, inputs, _) in zip(symmetries, images, strict=True):
        places = [find_grid(tokens)[1] for tokens in inputs]
        stayed.update(number for number, place in enumerate(places) if place == (0, 0))
        if not symmetry.transposes[0]:
            rows.update(top for top, left in places if (top, left) != (0, 0))
            columns.update(left for top, left in places if (top, left) != (0, 0))
    assert abs(np.array([stayed[n] for n in range(4)]) - 1000).max() < 150
    # Some 2000 images move 3 of 4 examples each, to one of 22 rows and one of 23 columns.
    moved = rows.total()
    assert sorted(rows) == list(range(22))
    assert sorted(columns) == list(range(23))
    for counts in (rows, columns):
        share = moved / len(counts)
        assert max(abs(count - share) for place, count in counts.items() if place) < 6 * share**0.5


def brute_force_images(pairs, symmetry):
    """Each image of a puzzle as the bag of its pairs, cell by cell."""
    return [
        frozenset(
            Counter(
                tuple(grid_key(np.ascontiguousarray(symmetry.image(grid, row))) for grid in pair)
                for pair in pairs
            ).items()
        )
        for row in range(len(symmetry))
    ]


@pytest.mark.parametrize(
    "pairs",
    [
        [([[1, 0], [0, 0]], [[1]])],
        [([[1, 1], [1, 1]], [[2]])],  # one shape under all transforms
        [([[0, 0]], [[0]]), ([[0], [0]], [[0]])],  # swapped by a turn: the order does not count
        [([[1]], [[2]]), ([[2]], [[1]])],
        [([[1]], [[2]]), ([[1]], [[2]]), ([[2]], [[1]])],  # a pair twice is not a pair once
        [([[3, 0, 4]], [[5, 5]])],
        [([[0]], [[0]])],
    ],
)
def test_images_are_new_exactly_if_they_differ(pairs, monkeypatch):
    """Of all that was drawn, in order, what a cell by cell comparison would keep."""
    pairs = [tuple(np.array(grid, np.uint8) for grid in pair) for pair in pairs]
    drawn, sample = [Symmetry.identity()], Symmetry.sample
    monkeypatch.setattr(
        Symmetry, "sample", lambda *given: drawn.append(sample(*given)) or drawn[-1]
    )
    wanted = 1000
    kept = arc_augment.distinct(arc_augment.cells_of(pairs), wanted, np.random.default_rng(0))
    names, seen = [], set()
    for symmetry in drawn:
        images = zip(symmetry.names("x"), brute_force_images(pairs, symmetry), strict=True)
        for name, image in images:
            if image not in seen:
                seen.add(image)
                names.append(name)
    assert kept.names("x") == names
    tries = sum(map(len, drawn)) - 1
    assert tries == 5 * wanted or len(kept) == wanted + 1
    assert tries <= 5 * wanted


def test_as_many_as_wanted_where_there_are_enough():
    rng = np.random.default_rng(0)
    pair = tuple(rng.integers(10, size=(6, 6)).astype(np.uint8) for _ in range(2))
    for wanted in (0, 1, 7, 300):
        kept = arc_augment.distinct(arc_augment.cells_of([pair]), wanted, rng)
        assert len(kept) == wanted + 1


def test_few_augmentations_are_reported(tmp_path, sources, capsys):
    plain = {"train": [{"input": [[0]], "output": [[0]]}], "test": [{"input": [[0]],
             "output": [[7]]}]}  # fmt: skip
    write_subset(tmp_path, "evaluation", {"dull": plain, "bright": random_puzzle(
        np.random.default_rng(0))})  # fmt: skip
    train = Split(build(tmp_path, "--num-aug", 20), "train")
    assert [len(group) for group in train.groups if group[0] == "dull"] == [9]
    assert (
        "1 puzzles look the same under many symmetries and have fewer than 20 augmentations, "
        "dull the fewest: 8\n" in capsys.readouterr().out
    )


# What is refused


def refused(capsys, arguments):
    """The one line that a command which cannot be carried out prints."""
    assert main(list(map(str, arguments))) == 2
    lines = [
        line for line in capsys.readouterr().err.splitlines() if "not found: tests" not in line
    ]
    (line,) = lines
    assert line.startswith("error: ")
    return line


def edit(folder, name, change):
    path = folder / f"arc_{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        (
            "training_challenges",
            lambda c: c["t1"]["train"][2]["input"].append([1] * 40),
            "training_challenges.json: puzzle t1, train[2], input: the rows differ in length",
        ),
        (
            "training_challenges",
            lambda c: c["t1"]["train"][0].update(output=[[1] * 31]),
            "puzzle t1, train[0], output: a grid of 1x31 cells is larger than 30x30",
        ),
        (
            "evaluation_challenges",
            lambda c: c["e0"]["test"][1].update(input=[[3, 10]]),
            "evaluation_challenges.json: puzzle e0, test[1], input: 10 is no colour",
        ),
        (
            "training_challenges",
            lambda c: c["t0"]["train"][0].pop("output"),
            "puzzle t0, train[0], output: missing, not a grid",
        ),
        (
            "training_solutions",
            lambda c: c["t3"].__setitem__(1, [[-1]]),
            "training_solutions.json: puzzle t3, output 1: -1 is no colour",
        ),
        (
            "training_solutions",
            lambda c: c["t3"].pop(),
            "training_solutions.json: puzzle t3 needs a list of 2 outputs",
        ),
        ("training_solutions", lambda c: c.update(t3=7), "puzzle t3 needs a list of 2 outputs"),
        ("training_solutions", lambda c: c.pop("t3"), "puzzle t3 has no solution"),
        ("training_challenges", lambda c: c.pop("t3"), "puzzle t3 has no challenge"),
        ("training_challenges", lambda c: c.update(t0=[]), "puzzle t0 has no 'train' examples"),
        ("training_challenges", lambda c: c["t0"].pop("test"), "puzzle t0 has no 'test' examples"),
        (
            "training_challenges",
            lambda c: c["t0"].update(train=[1]),
            "puzzle t0 has no 'train' examples",
        ),
        (
            "training_challenges",
            lambda c: c.update({"a|||b": c["t0"]}),
            "puzzle a|||b: ||| marks augmentations",
        ),
        ("training_challenges", dict.clear, "training_challenges.json holds no puzzles"),
    ],
)
def test_damaged_puzzles(tmp_path, sources, capsys, name, change, match):
    edit(tmp_path, name, change)
    assert match in refused(capsys, words(tmp_path, "--num-aug", 1))
    assert not list(tmp_path.glob("**/*.npy"))


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("training_challenges", None, "training_challenges.json: No such file"),
        ("training_challenges", b'{"a": ', "training_challenges.json is not JSON"),
        ("training_solutions", b"\xff\xfe", "training_solutions.json is not JSON"),
        ("training_solutions", b"[" * 100_000, "training_solutions.json is not JSON"),
        ("training_solutions", b"[]", "training_solutions.json holds no puzzles"),
        ("training_solutions", None, "training_solutions.json not found, and its subset is"),
    ],
)
def test_damaged_files(tmp_path, sources, capsys, name, content, match):
    path = tmp_path / f"arc_{name}.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert match in refused(capsys, words(tmp_path))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--num-aug", -1], "num_aug=-1: must be at least 0"),
        (["--seed", -1], "seed=-1: must be at least 0"),
        (["--num-aug", "x"], "invalid int value"),
        (["--test-set-name", "evaluatoin"], "evaluatoin: choose one of the subsets, training"),
        (["--test-set-name2", "concept"], "test_set_name2=concept: choose one of"),
        (["--subsets", "training", "training"], "subsets names training 2 times"),
        (["--subsets", "evaluation", "nonsense"], "arc_nonsense_challenges.json: No such file"),
        (["--input-file-prefix", "none/arc"], "none/arc_training_challenges.json: No such file"),
    ],
)
def test_bad_options(tmp_path, sources, capsys, options, match):
    assert match in refused(capsys, words(tmp_path, *options))
    assert not (tmp_path / "d").exists()


# Files in other forms


def write_tasks(folder, puzzles):
    folder.mkdir(parents=True)
    for name, puzzle in puzzles.items():
        (folder / f"{name}.json").write_text(json.dumps(puzzle))


def test_folders_of_one_puzzle_a_file(tmp_path, sources, capsys):
    """As the ARC repositories have them: the same dataset as from the competition's files."""
    expected = contents(build(tmp_path, "--num-aug", 2))
    for name, puzzles in sources.items():
        write_tasks(tmp_path / "repository" / "data" / name, puzzles)
    for place in ("repository", "repository/data"):
        command = ["build", "arc", "--input", f"{tmp_path}/{place}", "--num-aug", "2"]
        command += ["--subsets", "training", "evaluation", "--overwrite"]
        assert main([*command, "--output-dir", f"{tmp_path}/d"]) == 0
        assert contents(tmp_path / "d") == expected
    assert "warning" not in capsys.readouterr().err


def test_one_puzzle_and_a_folder_of_them_hold_out_their_tests(tmp_path):
    puzzles = {f"p{n}": random_puzzle(np.random.default_rng(n)) for n in range(3)}
    write_tasks(tmp_path / "mine", puzzles)
    for place, count in (("mine", 3), ("mine/p1.json", 1)):
        built = trm_mlx.build_arc(
            tmp_path / "d", input_file_prefix=tmp_path / place, num_aug=0, overwrite=True
        )
        assert built.warnings == ()
        for split, examples in (("train", 3), ("test", 2)):
            found = Split(tmp_path / "d", split)
            assert len(found.groups) == count
            assert len(found.inputs) == count * examples


def test_lists_of_pairs_and_of_puzzles(tmp_path):
    rng = np.random.default_rng(0)
    write_tasks(tmp_path / "rearc", {name: random_puzzle(rng)["train"] for name in "ab"})
    built = trm_mlx.build_arc(tmp_path / "d", input_file_prefix=tmp_path / "rearc", num_aug=0)
    assert built.warnings == ("nothing is held out: there is no test split to evaluate on",)
    assert sorted(Split(built.folder, "train").groups) == [["a"], ["b"]]
    assert not (built.folder / "test").exists()
    listed = [{"id": name, **random_puzzle(rng)} for name in "xyz"]
    (tmp_path / "listed.json").write_text(json.dumps(listed))
    trm_mlx.build_arc(tmp_path / "e", input_file_prefix=tmp_path / "listed.json", num_aug=0)
    assert sorted(Split(tmp_path / "e", "test").groups) == [["x"], ["y"], ["z"]]


def test_json_lines_have_one_puzzle_a_line(tmp_path):
    listed = [{"task_id": n, **random_puzzle(np.random.default_rng(0))} for n in "xyz"]
    path, lines = tmp_path / "tasks.jsonl", [json.dumps(puzzle) for puzzle in listed]
    path.write_text("\n\n".join(lines) + "\n")
    (tmp_path / "tasks.json").write_text(json.dumps(listed))
    for name in ("tasks.json", "tasks.jsonl"):
        trm_mlx.build_arc(tmp_path / f"d-{name}", input_file_prefix=tmp_path / name, num_aug=0)
    assert contents(tmp_path / "d-tasks.jsonl") == contents(tmp_path / "d-tasks.json")
    assert [puzzle.name for puzzle in read_tasks(path)[0]] == ["x", "y", "z"]
    path.write_text("\n".join([lines[0][:-2], *lines[1:]]))
    with pytest.raises(
        trm_mlx.InputError, match=r"tasks.jsonl line 1 is not JSON: Expecting .* correct it"
    ):
        trm_mlx.build_arc(tmp_path / "e", input_file_prefix=path, num_aug=0)
    built = trm_mlx.build_arc(tmp_path / "e", input_file_prefix=path, num_aug=0, skip_invalid=True)
    assert sorted(Split(built.folder, "train").groups) == [["y"], ["z"]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_mark_of_the_encoding(tmp_path, sources, encoding):
    expected = contents(build(tmp_path, "--num-aug", 1))
    for path in tmp_path.glob("arc_*.json"):
        path.write_text(path.read_text(), encoding=encoding)
    assert contents(build(tmp_path, "--num-aug", 1, "--overwrite")) == expected


def test_invalid_puzzles_are_left_out_and_counted(tmp_path, sources, capsys):
    edit(tmp_path, "training_challenges", lambda c: c["t1"].pop("train"))
    edit(tmp_path, "training_challenges", lambda c: c["t2"]["train"].append({"input": [[0]]}))
    edit(tmp_path, "training_solutions", lambda c: c.pop("t3"))
    assert "or leave such puzzles out with --skip-invalid" in refused(capsys, words(tmp_path))
    build(tmp_path, "--num-aug", 0, "--skip-invalid")
    output = capsys.readouterr()
    assert "warning: 3 puzzles are left out, the first: " in output.err
    assert "puzzle t1 has no 'train' examples" in output.err
    assert ": 5 ARC puzzles, 3 of them held out" in output.out


def test_a_name_that_occurs_twice(tmp_path, sources, capsys):
    path = tmp_path / "arc_training_challenges.json"
    text, puzzle = path.read_text(), json.dumps(json.loads(path.read_text())["t1"])
    path.write_text(f'{text[:-1]}, "t1": {puzzle}}}')
    build(tmp_path, "--num-aug", 0)
    assert "puzzle t1 occurs twice, the same each time" in capsys.readouterr().err
    path.write_text(f'{text[:-1]}, "t1": {puzzle.replace("[[", "[[9, ", 1)}}}')
    assert "puzzle t1 occurs twice, and differs: rename" in refused(
        capsys, words(tmp_path, "--overwrite")
    )
    path.write_text(text)
    write_subset(tmp_path, "training2", {"t1": sources["training"]["t1"]})
    subsets = ["--subsets", "training", "training2", "evaluation"]
    build(tmp_path, "--num-aug", 0, "--overwrite", *subsets)
    assert "1 names (t1, ...) occur in several subsets" in capsys.readouterr().err


def test_a_leak_under_another_name(tmp_path, sources, capsys):
    sources["training"]["copy"] = sources["evaluation"]["e1"]
    write_subset(tmp_path, "training", sources["training"])
    build(tmp_path, "--num-aug", 0)
    assert "the answers of 1 test puzzles (e1, ...) are trained on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "match"),
    [("nowhere", "nowhere: no such file or folder"), ("empty", "empty holds no JSON files")],
)
def test_no_puzzles_there(tmp_path, capsys, place, match):
    (tmp_path / "empty").mkdir()
    command = ["build", "arc", "--input", tmp_path / place, "--output-dir", tmp_path / "d"]
    assert match in refused(capsys, command)


def test_an_existing_dataset_needs_overwrite(tmp_path, sources, capsys):
    before = contents(build(tmp_path, "--num-aug", 1))
    assert "set overwrite" in refused(capsys, words(tmp_path, "--num-aug", 2))
    assert contents(tmp_path / "d") == before
    assert contents(build(tmp_path, "--num-aug", 2, "--overwrite")) != before


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("moment", [1, 30])
def test_what_fails_on_the_way_leaves_no_dataset(
    tmp_path, sources, capsys, monkeypatch, failure, overwrite, moment
):
    """A full disk, or Ctrl-C, in the train split's tokens or in the test split's."""
    monkeypatch.setattr(arc_augment, "CANVASES_AT_ONCE", 1)
    if overwrite:
        build(tmp_path, "--num-aug", 1)
    before = contents(tmp_path)
    check_tokens, calls = writer.check_tokens, itertools.count(1)

    def failing(*arguments):
        if next(calls) == moment:
            raise failure
        check_tokens(*arguments)

    monkeypatch.setattr(writer, "check_tokens", failing)
    options = words(tmp_path, "--num-aug", 3, *(["--overwrite"] if overwrite else []))
    if isinstance(failure, OSError):
        assert "No space left on device; free some" in refused(capsys, options)
    else:
        assert main(options) == 130
    assert contents(tmp_path) == before
    assert (tmp_path / "d").exists() == overwrite


def test_commands_of_the_documentation_parse():
    text = (LAUNCHER.parents[1] / "docs" / "arc.md").read_text(encoding="utf-8")
    shell = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in shell.splitlines()]
    options = [words[2:] for words in commands if "dataset/build_arc_dataset.py" in words]
    assert len(options) == 3
    for words in options:
        parser = argparse.ArgumentParser()
        builder.add_arguments(parser)
        assert parser.parse_args(words).test_set_name in words
    runs = [words for words in commands if "pretrain.py" in words]
    trained = [load_config(words[words.index("pretrain.py") + 1 :]) for words in runs]
    assert len(trained) == 4
    assert all(config.evaluators for config in trained)


def test_a_task_whose_answers_are_hidden_is_held_out_and_files_that_macos_hides_are_not_read(
    tmp_path, capsys
):
    puzzle = random_puzzle(np.random.default_rng(0))
    for test in puzzle["test"]:
        del test["output"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.json").write_text(json.dumps(puzzle))
    (tmp_path / "own" / "._mine.json").write_bytes(b"\0\5\26\7")
    command = ["build", "arc", "--num-aug", "0", "--overwrite"]
    for place in (tmp_path / "own", tmp_path / "own" / "mine.json"):
        line = ["--input", str(place), "--output-dir", str(tmp_path / "d")]
        assert main([*command, *line]) == 0
        said = capsys.readouterr()
        assert "1 ARC puzzles, 1 of them held out" in said.out
        assert "tests without an output get [[0]], so the score of 2 means nothing" in said.err
