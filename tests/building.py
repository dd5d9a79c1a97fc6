"""Running a dataset builder: the table it reads, what it wrote, or the line it refuses with."""

import csv

from trm_mlx.cli import main
from trm_mlx.data.dataset import PuzzleDataset

HEADER = "source,question,answer,rating"


def write_csv(path, puzzles, text_of):
    """Write questions, answers and ratings as a table of the published layout."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER.split(","))
        for question, answer, rating in zip(*puzzles, strict=True):
            writer.writerow(["test", text_of(question), text_of(answer), rating])
    return path


def build(task, folder, *words):
    """Both splits of what ``trm build TASK`` wrote."""
    assert main(["build", task, "--output-dir", str(folder), *map(str, words)]) == 0
    return [PuzzleDataset([folder], split) for split in ("train", "test")]


def refusal(task, capsys, folder, *words):
    """The line on stderr of a build that must fail and leave nothing behind."""
    before = sorted(folder.parent.iterdir())
    status = main(["build", task, "--output-dir", str(folder), *map(str, words)])
    output = capsys.readouterr()
    assert status == 2
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("error: ")
    assert sorted(folder.parent.iterdir()) == before
    return line.removeprefix("error: ")
