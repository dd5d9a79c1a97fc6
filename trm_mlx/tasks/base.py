"""What a task is: the few things the rest of the package asks of a kind of puzzle.

A board is a uint8 array of *cell values* ``[seq_len]``, a batch ``[N, seq_len]``; a model reads
*tokens* of the same shape. NumPy only: a task knows no model.
"""

from typing import Protocol

import numpy as np


class Symmetry(Protocol):
    """A batch of N invertible changes, one a row, that turn puzzles into puzzles."""

    def apply(self, boards: np.ndarray) -> np.ndarray:
        """Cell values ``[N, seq_len]``, or ``[seq_len]`` for N images of one, to the images."""

    def inverse(self) -> "Symmetry":
        """The changes that undo these: ``s.inverse().apply(s.apply(boards)) == boards``."""


class Task(Protocol):
    """A kind of puzzle with one board size."""

    name: str
    seq_len: int
    vocab_size: int

    def parse(self, text: str) -> np.ndarray:
        """A question's cell values; `InputError` says what does not fit and where."""

    def render(self, values: np.ndarray, givens: np.ndarray | None = None) -> str:
        """Plain text for one board; with ``givens``, what was not given is marked."""

    def line(self, values: np.ndarray) -> str:
        """One board in one line, as a CSV file holds it; `parse` reads it back."""

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Cell values of any shape to tokens, uint8."""

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens of any shape to cell values, uint8."""

    def generate(
        self, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``count`` random puzzles: questions, answers ``[count, seq_len]``, ratings ``[count]``.

        A rating says how hard a puzzle is, 0 for the easiest.
        """

    def sample_symmetry(self, rng: np.random.Generator, count: int) -> Symmetry:
        """``count`` independent symmetries, drawn uniformly."""

    def check(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Which answers solve their questions by the rules, without a label: ``[...]`` bool."""
