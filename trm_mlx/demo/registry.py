"""The models of the page, those of the package and one of the user's, with their boards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.config import ModelConfig
from trm_mlx.errors import InputError, located
from trm_mlx.models.checkpoint_files import bundled, find_checkpoint, load, read_config
from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.solve.questions import bundled_solvers
from trm_mlx.tasks import read_puzzle, task_of
from trm_mlx.tasks.base import BoardInput, BoardStyle, Task, WrongCells
from trm_mlx.view.html import CellData, board_data, layout_data, legend_data
from trm_mlx.view.recording import Mark, first_frame
from trm_mlx.view.style import FILLS, NAMES, rows_of


class TypedBoard(NamedTuple):
    """A puzzle as far as it has been typed.

    layout: see `layout_data`; cells: see `board_data`.
    symbols: the characters of its text, one a cell.
    wrong: the indices of the cells that ``problem`` is about, where it is about some.
    problem: why it is no puzzle; None if it is one.
    """

    layout: dict
    cells: list[CellData]
    symbols: list[str]
    wrong: list[int]
    problem: str | None


class ModelEntry(NamedTuple):
    """A model, not loaded yet, with its task and how boards of that look and are typed."""

    name: str
    folder: Path
    config: ModelConfig
    task: Task
    style: BoardStyle
    input: BoardInput

    @classmethod
    def of(cls, name: str, folder: Path, config: ModelConfig) -> "ModelEntry":
        """Find the task of a model folder; ``name`` is that on the page.

        Raises:
            InputError: its task cannot be found or has no rules.
        """
        with located(name):
            task = task_of(config)
        return cls(name, folder, config, task, _style_of(task), task.board_input())

    @property
    def characters(self) -> list[str]:
        """The character of every cell value in the text of a puzzle."""
        return [symbol.replace(" ", self.input.empty) for symbol in self.style.symbols]

    def to_dict(self) -> dict:
        """Return what the page has to know of it."""
        fills = dict(zip(self.characters, self.style.fills, strict=False))
        keys = [
            {"symbol": symbol, "name": name, "fill": fills.get(symbol, "")}
            for symbol, name in self.input.keys.items()
        ]
        return {
            "name": self.name,
            "task": self.task.name,
            "max_steps": self.config.halt_max_steps,
            "layout": layout_data(self.style),
            "legend": legend_data(self.style),
            "levels": list(self.task.levels),
            **self.input._asdict(),
            "keys": keys,
        }

    def read_board(self, text: str) -> TypedBoard:
        """Read a puzzle that may be half typed or wrong.

        Raises:
            InputError: the text is far too long to be one.
        """
        if len(text) > 4 * self.task.seq_len + 100:
            raise InputError(
                f"{len(text)} characters where a {self.task.name} has {self.task.seq_len} cells; "
                "send one puzzle"
            )
        question = read_puzzle(text, self.task)
        entry = self.showing(question.task)
        if isinstance(question.error, WrongCells):
            return entry._read_unfinished(text, str(question.error), question.error.cells)
        if question.error is not None:
            return entry._read_unfinished(text, str(question.error), ())
        return entry._read_whole(question.values)

    def showing(self, task: Task) -> "ModelEntry":
        """Return this entry for a puzzle of a task that may show less of the board."""
        return self._replace(task=task, style=_style_of(task))

    def _read_whole(self, values: np.ndarray) -> TypedBoard:
        characters, style = self.characters, self.style
        symbols = [characters[values[index]] for row in rows_of(style) for index in row]
        cells = board_data(style, first_frame(values))
        return TypedBoard(layout_data(style), cells, symbols, [], None)

    def _read_unfinished(self, text: str, problem: str, wrong: Sequence[int]) -> TypedBoard:
        """Read what can be read; unknown characters are wrong where nothing else is said to be."""
        shown = [index for row in rows_of(self.style) for index in row]
        characters, count = self.characters, len(shown)
        symbols = self._split(text)[:count]
        symbols += [self.input.empty] * (count - len(symbols))
        unknown = [index for index, symbol in enumerate(symbols) if symbol not in characters]
        values = np.zeros(self.task.seq_len, np.uint8)
        values[shown] = [characters.index(s) if s in characters else 0 for s in symbols]
        cells = board_data(self.style, first_frame(values))
        # The text may be of a larger board.
        wrong = [shown.index(index) for index in wrong if index in shown]
        for index in wrong or unknown:
            symbol = symbols[index] if index in unknown else cells[index][0]
            cells[index] = (symbol, NAMES[Mark.WRONG], FILLS[Mark.WRONG], 0.0)
        layout = layout_data(self.style)
        return TypedBoard(layout, cells, symbols, wrong or unknown, problem)

    def _split(self, text: str) -> list[str]:
        """Return the characters of a text that stand for cells, in the order of the cells."""
        keys = self.input
        rows = text.strip("\r\n").splitlines() if keys.by_rows else ["".join(text.split())]
        if len(rows) > 1:
            width = self.style.columns
            rows = [row[:width].ljust(width, keys.empty) for row in rows]
        characters = "".join(rows) if keys.keys else ""
        return [keys.aliases.get(c, c) for c in characters if c not in keys.ignored]


def _style_of(task: Task) -> BoardStyle:
    return task.board_style(np.zeros((1, task.seq_len), np.uint8))


class ModelRegistry:
    """Models by name: the one to begin with, those with an example, large boards before small.

    Args:
        checkpoint: a folder, or the name of a bundled model, to begin with.

    Raises:
        InputError: it is no model, or there is none at all; see `ModelEntry.of`.
    """

    def __init__(self, checkpoint: str | None):
        configs, folders = bundled_solvers(), bundled()
        if checkpoint is not None:
            folders[checkpoint] = find_checkpoint(checkpoint)
            configs[checkpoint] = read_config(folders[checkpoint])
        if not configs:
            raise InputError("no model comes with this package; name one with --checkpoint DIR")
        entries = [ModelEntry.of(name, folders[name], c) for name, c in configs.items()]
        entries.sort(key=lambda e: (e.name != checkpoint, e.input.example is None, -e.task.seq_len))
        self.entries: Mapping[str, ModelEntry] = {entry.name: entry for entry in entries}
        self._models: dict[str, RecursiveReasoner] = {}

    def entry(self, name: str) -> ModelEntry:
        """Return the entry of a model; `InputError` where there is none of that name."""
        if name not in self.entries:
            raise InputError(f"no model {name!r}; choose one of {', '.join(self.entries)}")
        return self.entries[name]

    def model(self, entry: ModelEntry) -> RecursiveReasoner:
        """Return the model, which is loaded when it is first asked for."""
        if entry.name not in self._models:
            self._models[entry.name], _ = load(entry.folder)
        return self._models[entry.name]
