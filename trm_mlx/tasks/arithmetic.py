"""Addition and multiplication of whole numbers, written out as one line of fixed width.

``123+456=`` is the question, ``123+456=0579`` the answer. Numbers are padded with zeros to a fixed
width, so that a digit of one weight always has the same place; the result has room for the largest
one. Cell values are the places in ``SYMBOLS``, 0 is a blank; a model reads tokens, one more. The
whole line is labelled, as a Sudoku's givens are.

Multiplication has another symbol, and so another vocabulary, than addition.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.tasks import puzzle_text
from trm_mlx.tasks.base import BoardInput, BoardStyle, Permutation, Puzzles, Task

SYMBOLS = " 0123456789=+*"
MOST_DIGITS = 9  # products still fit into 64 bits


class Operation(NamedTuple):
    """An operation on two numbers."""

    noun: str
    symbol: str
    apply: Callable[[np.ndarray, np.ndarray], np.ndarray]
    result_digits: Callable[[int], int]  # of the largest result, by the digits of the numbers


ADDITION = Operation("addition", "+", np.add, lambda digits: digits + 1)
MULTIPLICATION = Operation("multiplication", "*", np.multiply, lambda digits: 2 * digits)


@dataclass(frozen=True)
class Arithmetic(Task):
    """One operation on two numbers of up to ``digits`` digits.

    Raises:
        InputError: ``digits`` is not 1 to 9.
    """

    operation: Operation = ADDITION
    digits: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= MOST_DIGITS:
            raise InputError(
                f"no {self.operation.noun} of {self.digits} digits; use 1 to {MOST_DIGITS}"
            )

    @property
    def name(self) -> str:
        return f"{self.operation.noun}{self.digits}"

    @property
    def result_digits(self) -> int:
        return self.operation.result_digits(self.digits)

    @property
    def seq_len(self) -> int:
        return 2 * self.digits + 2 + self.result_digits

    @property
    def vocab_size(self) -> int:
        return SYMBOLS.index(self.operation.symbol) + 2

    # Text

    def parse(self, text: str) -> np.ndarray:
        """Read ``12+345``, with or without ``=`` at the end, and spaces anywhere.

        Raises:
            InputError: anything else, or a number of more than ``digits`` digits.
        """
        return self.from_cells(puzzle_text.cells_of(text, self.name))

    def from_cells(self, cells: str) -> np.ndarray:
        """Return the cell values of a question; errors as of `parse`."""
        sign = re.escape(self.operation.symbol)
        match = re.fullmatch(rf"([0-9]+){sign}([0-9]+)=?", "".join(cells.split()))
        if not match:
            raise InputError(
                f"{cells.strip()!r} is no {self.operation.noun}: write 12{self.operation.symbol}345"
            )
        numbers = [number.lstrip("0") or "0" for number in match.groups()]
        for number in numbers:
            if len(number) > self.digits:
                raise InputError(f"{number} has more than {self.digits} digits, as {self.name} has")
        first, second = (np.array([int(number)]) for number in numbers)
        return self._lines(first, second)[0]

    def reads(self, other: Task) -> bool:
        """Return whether numbers of the other task fit into this one's digits."""
        same = isinstance(other, Arithmetic) and other.operation is self.operation
        return same and other.digits <= self.digits

    def render(self, values: np.ndarray, givens: np.ndarray | None = None) -> str:
        """``12+345=357``: the numbers without leading zeros, ``?`` for a blank between digits."""
        line = "".join(np.array(list(SYMBOLS))[values])
        return re.sub(r"\b0+(?=[0-9])", "", line.rstrip().replace(" ", "?"))

    # Rules

    def generate(self, count: int, rng: np.random.Generator) -> Puzzles:
        """Return ``count`` puzzles, every pair of numbers equally likely.

        The rating is the number of digits of the result, less one.
        """
        first, second = rng.integers(10**self.digits, size=(2, count))
        results = np.maximum(self.operation.apply(first, second), 1)
        ratings = np.log10(results).astype(np.int64)
        questions, answers = self._lines(first, second), self._lines(first, second, solved=True)
        return Puzzles(questions, answers, ratings)

    def check(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Return which answers are the question's line with the right result, bool ``[...]``."""
        question, answer = np.asarray(question), np.asarray(answer)
        first, second = self._operands(question)
        return (answer == self._lines(first, second, solved=True)).all(axis=-1)

    def conflicts(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Return which cells differ from the right line."""
        first, second = self._operands(np.asarray(question))
        return np.asarray(answer) != self._lines(first, second, solved=True)

    # Symmetries and splits

    def sample_symmetry(self, rng: np.random.Generator, count: int) -> Permutation:
        """Draw swaps of the operands, with probability 1/2."""
        stay = np.arange(self.seq_len)
        swap = stay.copy()
        swap[: self.digits] += self.digits + 1
        swap[self.digits + 1 : 2 * self.digits + 1] -= self.digits + 1
        return Permutation(np.stack([stay, swap])[rng.integers(2, size=count)])

    def split_keys(self, questions: np.ndarray, answers: np.ndarray) -> list[bytes]:
        """Return the two numbers, the smaller one first."""
        pairs = np.sort(np.stack(self._operands(questions), axis=-1), axis=-1)
        return [pair.tobytes() for pair in pairs.astype("<i8")]

    # The board on a screen

    def board_style(self, boards: np.ndarray) -> BoardStyle:
        """Return one row of symbols, coloured by their marks."""
        return BoardStyle(1, self.seq_len, SYMBOLS)

    def board_input(self) -> BoardInput:
        """Return how the two numbers are typed; signs and result are fixed."""
        sign, digits = self.operation.symbol, "123456789"[: self.digits]
        return BoardInput(
            f"Two numbers of up to {self.digits} digits: 12{sign}345=",
            f"0{sign}0=",
            f"{digits}{sign}{digits[::-1]}=",
            keys={digit: digit for digit in "0123456789"},
            empty=" ",
            erase="0",
            # The signs and the result.
            fixed=(self.digits, *range(2 * self.digits + 1, self.seq_len)),
        )

    def _lines(self, first: np.ndarray, second: np.ndarray, solved: bool = False) -> np.ndarray:
        """Cell values ``[..., seq_len]`` of numbers ``[...]``, with or without the result."""
        sign, equals = (
            np.full((*first.shape, 1), SYMBOLS.index(mark)) for mark in (self.operation.symbol, "=")
        )
        results = _digits(self.operation.apply(first, second), self.result_digits) + 1
        parts = [
            _digits(first, self.digits) + 1,
            sign,
            _digits(second, self.digits) + 1,
            equals,
            results if solved else np.zeros_like(results),
        ]
        return np.concatenate(parts, axis=-1).astype(np.uint8)

    def _operands(self, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The two numbers ``[...]`` of lines ``[..., seq_len]``."""
        powers = 10 ** np.arange(self.digits)[::-1]
        digits = np.asarray(lines).astype(np.int64) - 1
        second = digits[..., self.digits + 1 : 2 * self.digits + 1]
        return digits[..., : self.digits] @ powers, second @ powers


def _digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """Decimal digits ``[..., width]`` of whole numbers ``[...]``, the most significant first."""
    return numbers[..., None] // 10 ** np.arange(width)[::-1] % 10
