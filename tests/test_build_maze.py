"""The maze builder: its sources, what it writes, and what it refuses."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import building
import numpy as np
import pytest
from building import HEADER

from trm_mlx.cli import main
from trm_mlx.data.writer import SplitStream
from trm_mlx.tasks.maze import CHARSET, Maze

build = partial(building.build, "maze")
refusal = partial(building.refusal, "maze")
LAUNCHER = Path(__file__).resolve().parents[1] / "dataset" / "build_maze_dataset.py"


def text_of(board):
    return "".join(CHARSET[value] for value in board)


write_csv = partial(building.write_csv, text_of=text_of)


def mazes(count, side=6, seed=0):
    return Maze(side).generate(count, np.random.default_rng(seed))


def boards(dataset):
    arrays = dataset.parts[0].arrays
    task = Maze(int(dataset.metadata.seq_len**0.5))
    return task.decode(arrays.inputs), task.decode(arrays.labels)


def test_csv_folder(tmp_path):
    train_puzzles, test_puzzles = mazes(5), mazes(3, seed=1)
    write_csv(tmp_path / "train.csv", train_puzzles)
    write_csv(tmp_path / "test.csv", test_puzzles)
    train, test = build(tmp_path / "d", "--input", tmp_path)
    for dataset, puzzles in ((train, train_puzzles), (test, test_puzzles)):
        metadata = dataset.metadata
        assert (metadata.vocab_size, metadata.seq_len, metadata.task) == (6, 36, "maze6x6")
        assert (metadata.pad_id, metadata.ignore_label_id) == (0, 0)
        arrays = dataset.parts[0].arrays
        np.testing.assert_array_equal(arrays.inputs, puzzles.questions + 1)
        np.testing.assert_array_equal(arrays.labels, puzzles.answers + 1)


def test_eight_images_as_published(tmp_path):
    train_puzzles = mazes(4)
    write_csv(tmp_path / "train.csv", train_puzzles)
    write_csv(tmp_path / "test.csv", mazes(2, seed=1))
    train, test = build(tmp_path / "d", "--input", tmp_path, "--aug")
    assert train.group_indices.tolist() == [0, 8, 16, 24, 32]
    assert test.group_indices.tolist() == [0, 1, 2]
    assert (train.metadata.total_groups, train.metadata.total_puzzles) == (4, 32)
    questions, answers = boards(train)
    for number, originals in ((0, train_puzzles.questions), (1, train_puzzles.answers)):
        for maze, original in enumerate(originals.reshape(-1, 6, 6)):
            quarter = np.rot90(original)
            images = [original, quarter, np.rot90(original, 2), np.rot90(original, 3)]
            images += [np.fliplr(original), np.flipud(original), original.T, np.fliplr(quarter)]
            written = (questions, answers)[number][8 * maze : 8 * maze + 8]
            expected = np.stack(images).reshape(8, 36)
            if number:  # the label is that of the image, where the published one contradicts it
                expected = Maze(6).relabel(questions[8 * maze : 8 * maze + 8], expected)
            np.testing.assert_array_equal(written, expected)


def shortest_paths(question, side):
    """Their number: walks that are as long as the shortest path, by powers of the adjacency."""
    cells = np.arange(side * side)
    apart = abs(cells[:, None] // side - cells // side) + abs(cells[:, None] % side - cells % side)
    free = question != CHARSET.index("#")
    steps = ((apart == 1) & free & free[:, None]).astype(np.int64)
    (start,), (goal,) = (np.flatnonzero(question == CHARSET.index(end)) for end in "SG")
    walks, length = np.eye(side * side, dtype=np.int64), 0
    while not walks[start, goal]:
        walks, length = walks @ steps, length + 1
        assert length < side * side
    return walks[start, goal]


@pytest.mark.parametrize("kind", ["walls", "tree"])
def test_generator(tmp_path, capsys, kind):
    words = ["--generate", 7, "--kind", kind, "--min-path-length", 10]
    train, test = build(tmp_path / "d", *words, "--num-train", 30, "--num-test", 12)
    said, _, several = capsys.readouterr().out.removesuffix("\n").partition("; ")
    assert said == (
        f"{tmp_path}/d: 30 maze7x7 training puzzles with 0 augmentations each, 12 test puzzles"
    )
    questions = [question for data in (train, test) for question in boards(data)[0]]
    count = sum(shortest_paths(question, 7) > 1 for question in questions)
    label = f"{count} of all have several shortest paths, of which the label is one"
    assert several == (label if kind == "walls" else "")
    assert (count > 0) == (kind == "walls")
    task, keys = Maze(7), []
    for dataset, count in ((train, 30), (test, 12)):
        questions, answers = boards(dataset)
        assert len(np.unique(questions, axis=0)) == count
        assert task.check(questions, answers).all()
        assert task.distances(questions).min() >= 10
        keys.append(set(task.split_keys(questions, answers)))
    assert not keys[0] & keys[1]


def test_same_seed_same_mazes(tmp_path):
    words = ["--generate", 6, "--num-train", 4, "--num-test", 2]
    first, again, other = (
        boards(build(tmp_path / name, *words, "--seed", seed)[0])[0]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert (first == again).all()
    assert (first != other).any()


def test_csv_file_is_split_and_images_stay_together(tmp_path):
    """Every maze and its mirror image: whichever is held out, the other must not be trained on."""
    puzzles = mazes(20)
    mirror = Maze(6).dihedral()[4]
    both = [np.concatenate([b, b[:, mirror]]) for b in puzzles[:2]]
    path = write_csv(tmp_path / "p.csv", (*both, np.tile(puzzles.ratings, 2)))
    train, test = build(tmp_path / "d", "--input", path, "--num-test", 8)
    keys = [set(Maze(6).split_keys(*boards(dataset))) for dataset in (train, test)]
    assert not keys[0] & keys[1]
    assert len(boards(test)[0]) == 8
    assert len(keys[0] | keys[1]) == 20


def test_subsample(tmp_path):
    path = write_csv(tmp_path / "p.csv", mazes(20))
    words = ["--input", path, "--num-test", 5, "--subsample-size", 6]
    train, test = build(tmp_path / "d", *words)
    assert (len(boards(train)[0]), len(boards(test)[0])) == (6, 5)


def test_many_mazes_are_written_in_chunks(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "p.csv", mazes(30))
    whole, _ = build(tmp_path / "whole", "--input", path, "--num-test", 5, "--aug")
    monkeypatch.setattr("trm_mlx.builders.maze.CHUNK", 24)
    cut, _ = build(tmp_path / "cut", "--input", path, "--num-test", 5, "--aug")
    np.testing.assert_array_equal(boards(whole)[1], boards(cut)[1])


# What is refused


Q = "S   #" + " ## #" + " ## #" + "   G#" + "     "
A = "Sooo#" + " ##o#" + " ##o#" + "   G#" + "     "


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "is empty: its first line must name the columns"),
        (["source,question,rating", f"x,{Q},1"], "has no column of answers that is known"),
        ([HEADER], "has no puzzles after its header"),
        ([HEADER, f"x,{Q},{A},1", f"x,{Q.replace('S', ' ')},{A},1"], "line 3: 0 cells hold S"),
        (
            [HEADER, f"x,{Q.replace('G', ' ')},{A},1"],
            "line 2: looks like a 5x5 maze; 0 cells hold G",
        ),
        ([HEADER, f"x,S{Q[1:-1]}S,{A},1"], "line 2: looks like a 5x5 maze; 2 cells hold S"),
        ([HEADER, f"x,{Q.replace('   G', '###G')},{A},1"], "line 2: the answer does not solve"),
        (
            [HEADER, f"x,S#{Q[2:5]}#{Q[6:]},{A},1"],
            "line 2: looks like a 5x5 maze; there is no way from S to G",
        ),
        ([HEADER, f"x,{Q[:-1]},{A},1"], "line 2: looks like a maze; 24 cells are no square maze"),
        (
            [HEADER, f"x,{Q},{A},1", f"x,{Q + ' ' * 11},{A},1"],
            "line 3: looks like a 6x6 maze, where maze5x5",
        ),
        ([HEADER, f"x,{Q},{A[:-1]},1"], "line 2: 24 cells in 1 rows where a 5x5 maze has 25"),
        (
            [HEADER, f"x,{Q.replace('#', '%')},{A},1"],
            "line 2: looks like a 5x5 maze; character '%' at r1c5",
        ),
        ([HEADER, f"x,{Q},{A.replace('o', '*')},1"], "line 2: character '*' at r1c2"),
        ([HEADER, f"x,{Q},{A.replace('o', ' ', 1)},1"], "line 2: the answer does not solve"),
        ([HEADER, f"x,{Q},{A},long"], "line 2: rating 'long' is not a number"),
    ],
)
def test_bad_csv(tmp_path, capsys, lines, expected):
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(lines))
    line = refusal(capsys, tmp_path / "d", "--input", path)
    assert line.startswith(str(path))
    assert expected in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--generate", 4], "no maze of side 4; use 5 to 99"),
        (["--generate", 6, "--num-train", 0], "num_train=0: must be at least 1"),
        (["--generate", 6, "--min-path-length", 0], "min_path_length=0: must be at least 1"),
        (["--generate", 6, "--kind", "cave"], "invalid choice: 'cave'"),
        (["--generate", 6, "--input", "x.csv"], "not allowed with argument"),
        (["--input", "absent.csv"], "absent.csv does not exist"),
        (["--input", ".", "--min-path-length", 9], "min_path_length goes with generate"),
    ],
)
def test_bad_options(tmp_path, capsys, words, expected):
    assert expected in refusal(capsys, tmp_path / "d", *words)


def test_folder_in_use(tmp_path, capsys):
    words = ["--generate", 6, "--num-train", 3, "--num-test", 2]
    train, _ = build(tmp_path / "d", *words)
    before = boards(train)[0]
    capsys.readouterr()
    assert "set overwrite" in refusal(capsys, tmp_path / "d", *words, "--seed", 1)
    train, _ = build(tmp_path / "d", *words, "--seed", 1, "--overwrite")
    assert (boards(train)[0] != before).any()


@pytest.mark.parametrize(
    ("failure", "status"), [(OSError(28, "No space left on device"), 2), (KeyboardInterrupt(), 130)]
)
def test_a_build_that_breaks_off_leaves_nothing(tmp_path, capsys, monkeypatch, failure, status):
    def breaking(chunks, **indices):
        def broken():
            yield next(chunks)
            raise failure

        return SplitStream(broken(), **indices)

    monkeypatch.setattr("trm_mlx.builders.write.SplitStream", breaking)
    words = ["--generate", "6", "--num-train", "3", "--num-test", "2"]
    assert main(["build", "maze", "--output-dir", str(tmp_path / "d"), *words]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "interrupted" or "No space left on device; free some disk space" in line
    assert not list(tmp_path.iterdir())


def test_launcher(tmp_path):
    words = ["--generate", "6", "--num-train", "2", "--num-test", "1", "--output-dir", "d"]
    done = subprocess.run([sys.executable, LAUNCHER, *words], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "d" / "train" / "dataset.json").exists()
