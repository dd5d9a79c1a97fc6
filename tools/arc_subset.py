"""Writes a smaller test split of an ARC dataset, to judge a run by while options are chosen.

    python tools/arc_subset.py data/arc1-fast data/arc1-check --puzzles 100 --versions 16

The puzzles are evenly spread over the held-out ones in alphabetical order, the same ones every
time, and have their first versions; the identifiers are those of the dataset.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from trm_mlx.cli import explained
from trm_mlx.data.arrays import SplitArrays
from trm_mlx.data.dataset import PuzzleDataset, puzzle_names
from trm_mlx.data.writer import write_dataset
from trm_mlx.tasks.arc import ARC, PUZZLES_FILE, SEPARATOR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="dataset folder of trm build arc")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--puzzles", type=int, default=100)
    parser.add_argument("--versions", type=int, default=16)
    arguments = parser.parse_args()
    data = PuzzleDataset([arguments.source], "test")
    names = puzzle_names(data)
    puzzles = json.loads((arguments.source / PUZZLES_FILE).read_text("utf-8"))
    known = sorted(puzzles)
    places = np.linspace(0, len(known), arguments.puzzles, endpoint=False).astype(int)
    chosen = {known[place] for place in places}
    owners, groups = [], [0]
    for first, end in zip(data.group_indices, data.group_indices[1:], strict=False):
        if names[data.puzzle_identifiers[first]].partition(SEPARATOR)[0] in chosen:
            owners += range(first, min(end, first + arguments.versions))
            groups.append(len(owners))
    spans = [np.arange(*data.puzzle_indices[owner : owner + 2]) for owner in owners]
    (part,) = data.parts
    examples = np.concatenate(spans)
    arrays = SplitArrays(
        part.arrays.inputs[examples],
        part.arrays.labels[examples],
        data.puzzle_identifiers[owners],
        np.append(0, np.cumsum([len(span) for span in spans])),
        np.array(groups),
    )
    write_dataset(
        arguments.target,
        {"test": arrays},
        names,
        vocab_size=ARC.vocab_size,
        seq_len=ARC.seq_len,
        extra_files={PUZZLES_FILE: json.dumps({name: puzzles[name] for name in sorted(chosen)})},
    )
    print(f"{arguments.target}: {len(chosen)} puzzles, {len(examples)} examples")


if __name__ == "__main__":
    sys.exit(explained(main))
