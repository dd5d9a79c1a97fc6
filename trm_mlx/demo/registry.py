"""The models that a page may choose from: those of the package, and the one named at the start."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.config import ModelConfig
from trm_mlx.demo.board_input import Form, form_of
from trm_mlx.errors import InputError, located
from trm_mlx.models.checkpoint_files import bundled, find_checkpoint, load, read_config
from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.tasks import fitting
from trm_mlx.tasks.base import Task
from trm_mlx.view.html import layout
from trm_mlx.view.style import BoardStyle, find_style

TOLD = ("format", "blank", "example", "palette", "legend", "fixed")  # to the page, of a form


class ModelEntry(NamedTuple):
    """A model that has not been loaded yet, its task, how that looks and how it is entered."""

    name: str
    folder: Path
    config: ModelConfig
    task: Task
    look: BoardStyle
    form: Form

    def described(self) -> dict:
        """What the page has to know of it."""
        return {
            "name": self.name,
            "task": self.task.name,
            "layout": layout(self.look),
            **{name: getattr(self.form, name) for name in TOLD},
            "max_steps": self.config.halt_max_steps,
        }


class ModelRegistry:
    """Models by name, the one to begin with first, then large boards of Sudoku before others.

    Args:
        checkpoint: a folder, or the name of a bundled model, to begin with.

    Raises:
        InputError: it is no model, or one whose boards cannot be drawn; there is no model at all.
    """

    def __init__(self, checkpoint: str | None):
        folders = bundled()
        if checkpoint is not None:
            folders[checkpoint] = find_checkpoint(checkpoint)
        if not folders:
            raise InputError("no model comes with this package; name one with --checkpoint DIR")
        offers = [_offer(name, folder) for name, folder in folders.items()]
        offers.sort(key=lambda o: (o.name != checkpoint, o.look.kind != "sudoku", -o.task.seq_len))
        self.offers: Mapping[str, ModelEntry] = {offer.name: offer for offer in offers}
        self._models: dict[str, RecursiveReasoner] = {}

    def offer(self, name: str) -> ModelEntry:
        """`InputError` where there is no model of that name."""
        if name not in self.offers:
            raise InputError(f"no model {name!r}; choose one of {', '.join(self.offers)}")
        return self.offers[name]

    def model(self, offer: ModelEntry) -> RecursiveReasoner:
        """The model, loaded when it is first asked for."""
        if offer.name not in self._models:
            self._models[offer.name], _ = load(offer.folder)
        return self._models[offer.name]


def _offer(name: str, folder: Path) -> ModelEntry:
    config = read_config(folder)
    with located(name):
        task = fitting(config.vocab_size, config.seq_len)
        look = find_style(task, np.zeros((1, task.seq_len), np.uint8))
        if look is None:
            raise InputError(
                f"the page cannot draw {task.name}: it draws Sudoku, mazes and arithmetic"
            )
    return ModelEntry(name, folder, config, task, look, form_of(task, look))
