"""Draws what happens inside a model while it solves a puzzle, for docs/how_it_thinks.md.

python tools/thinking.py "..4.9.....5.6.....3....2..1...[81 cells]" -o docs/states.png
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from trm_mlx import Solver, load
from trm_mlx.solve.search import StepOutput
from trm_mlx.tasks import task_of

RIGHT, WRONG, SURE, NOTES = "#dbe7ee", "#d55e00", "#0072b2", "#e69f00"


def movement(outputs: tuple[StepOutput, ...], state: str) -> list[float]:
    """Return how far a state moves in every step after the first, by its own length."""
    values = [output.states[state].astype(np.float32) for output in outputs]
    return [
        float(np.linalg.norm(after - before) / np.linalg.norm(after))
        for before, after in itertools.pairwise(values)
    ]


def figure(boards: np.ndarray, question: np.ndarray, outputs: tuple[StepOutput, ...], side: int):
    """Draw wrong cells, certainty and states by step, and where digits change.

    Args:
        boards: cell values after every step ``[steps, S]``; the last one is taken as right.
    """
    from matplotlib.figure import Figure

    steps = np.arange(1, len(outputs) + 1)
    wrong = boards != boards[-1]
    drawn = Figure(figsize=(10, 6.4), layout="constrained")
    (left, right), (below, map_) = drawn.subplots(2, 2)

    left.bar(steps, wrong.sum(axis=1), color=WRONG)
    left.set(title="cells that are still wrong", xlabel="step")
    right.plot(steps, [100 * output.confidence for output in outputs], "o-", color=SURE)
    right.axhline(99, color="#6e7781", linewidth=1, linestyle=":")
    right.annotate("99 %: it stops", (1, 99), (1, 90), color="#6e7781", fontsize="small")
    right.set(title="how sure it is that it is done, per cent", xlabel="step", ylim=(-4, 104))
    # Both show where they meet.
    hollow = {"marker": "s", "markersize": 9, "markerfacecolor": "none"}
    for state, words, style in (
        ("z_H", "z_H, read as the answer", {"marker": "o", "color": SURE}),
        ("z_L", "z_L, its notes", {"color": NOTES, **hollow}),
    ):
        below.plot(steps[1:], movement(outputs, state), label=words, **style)
    below.set(title="how far the states move, in parts of their length", xlabel="step")
    below.set_ylim(0, 1.35 * below.get_ylim()[1])
    below.legend(frameon=False, loc="upper center", ncols=2)
    for axes in (left, right, below):
        axes.set_xticks(steps)
        axes.spines[["top", "right"]].set_visible(False)

    last = np.where(wrong.any(axis=0), len(steps) - wrong[::-1].argmax(axis=0) + 1, 1)
    blanks = np.ma.masked_where(question > 0, last).reshape(side, side)
    map_.imshow(blanks, cmap="YlOrRd", vmin=1)
    for (row, column), step in np.ndenumerate(blanks):
        if not blanks.mask[row, column]:
            ink = "white" if step > 0.6 * last.max() else "black"
            map_.text(column, row, int(step), ha="center", va="center", color=ink, fontsize=9)
    map_.set(title="from which step on a digit is right; grey: given", xticks=[], yticks=[])
    map_.set_facecolor("#e3e6e9")
    box = round(side**0.5)
    for edge in range(box, side, box):
        map_.axhline(edge - 0.5, color="black", linewidth=1)
        map_.axvline(edge - 0.5, color="black", linewidth=1)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("puzzle", help="a Sudoku of 9x9 or 4x4 cells, as text")
    parser.add_argument("--checkpoint", default="sudoku-9x9", help="default: %(default)s")
    parser.add_argument("--extra-steps", type=int, default=3, help="after it would have stopped")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    model, config = load(arguments.checkpoint)
    task = task_of(config)
    question = task.parse(arguments.puzzle)
    tokens = task.encode(question)[None]
    steps = next(Solver(model).solve(tokens)).steps + arguments.extra_steps
    solver = Solver(model, max_steps=steps, halt_threshold=None, intermediates=True)
    (solution,) = solver.solve(tokens)
    boards = np.stack([task.decode(output.answer) for output in solution.outputs])
    if not task.check(question, boards[-1]):
        raise SystemExit("the model does not solve this puzzle: take another one")
    drawn = figure(boards, question, solution.outputs, round(task.seq_len**0.5))
    drawn.savefig(arguments.output, dpi=100)


if __name__ == "__main__":
    main()
