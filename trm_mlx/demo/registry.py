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
from trm_mlx.tasks import task_of
from trm_mlx.tasks.base import BoardInput, BoardStyle, Task, WrongCells
from trm_mlx.view.html import CellData, board_data, layout_data, legend_data
from trm_mlx.view.recording import Mark, first_frame
from trm_mlx.view.style import FILLS, NAMES


class TypedBoard(NamedTuple):
    """A puzzle as far as it has been typed.

    cells: see `board_data`.
    symbols: the characters of its text, one a cell.
    wrong: the indices of the cells that ``problem`` is about, where it is about some.
    problem: why it is no puzzle; None if it is one.
    """

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
        style = task.board_style(np.zeros((1, task.seq_len), np.uint8))
        return cls(name, folder, config, task, style, task.board_input())

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
        try:
            values = self.task.parse(text)
        except WrongCells as error:
            return self._read_unfinished(text, str(error), error.cells)
        except InputError as error:
            return self._read_unfinished(text, str(error), ())
        characters = self.characters
        symbols = [characters[value] for value in values]
        return TypedBoard(board_data(self.style, first_frame(values)), symbols, [], None)

    def _read_unfinished(self, text: str, problem: str, wrong: Sequence[int]) -> TypedBoard:
        """Read what can be read; unknown characters are wrong where nothing else is said to be."""
        characters, count = self.characters, self.task.seq_len
        symbols = self._split(text)[:count]
        symbols += [self.input.empty] * (count - len(symbols))
        unknown = [index for index, symbol in enumerate(symbols) if symbol not in characters]
        values = [characters.index(s) if s in characters else 0 for s in symbols]
        cells = board_data(self.style, first_frame(np.array(values, np.uint8)))
        wrong = [index for index in wrong if index < count]  # the text may be of a larger board
        for index in wrong or unknown:
            symbol = symbols[index] if index in unknown else cells[index][0]
            cells[index] = (symbol, NAMES[Mark.WRONG], FILLS[Mark.WRONG], 0.0)
        return TypedBoard(cells, symbols, list(wrong) or unknown, problem)

    def _split(self, text: str) -> list[str]:
        """Return the characters of a text that stand for cells, in the order of the cells."""
        keys = self.input
        rows = text.strip("\r\n").splitlines() if keys.by_rows else ["".join(text.split())]
        if len(rows) > 1:
            width = self.style.columns
            rows = [row[:width].ljust(width, keys.empty) for row in rows]
        characters = "".join(rows) if keys.keys else ""
        return [keys.aliases.get(c, c) for c in characters if c not in keys.ignored]


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
