"""A task of your own: sort eight digits. It trains, from this file alone, by

    python pretrain.py experiment=sudoku4x4 data=generate:examples.custom_task:sort8 \\
        checkpoint_path=checkpoints/sort8

and the model is solved and shown by

    trm solve 31415926 --checkpoint checkpoints/sort8 --watch
    trm demo --checkpoint checkpoints/sort8

Seven names make a task; `Task` has the rest. A board is an array of cell values, uint8: here the
digits of the question, and of the answer. The model reads them as tokens, one more; 0 is padding.
"""

import numpy as np

from trm_mlx import InputError
from trm_mlx.tasks import Puzzles, Task, register


class Sort(Task):
    name = "sort8"
    seq_len = 8
    vocab_size = 11  # padding and ten digits

    def parse(self, text: str) -> np.ndarray:
        if len(text) != self.seq_len or not (text.isascii() and text.isdigit()):
            raise InputError(f"{text!r}: write {self.seq_len} digits, 31415926 for example")
        return np.array([int(digit) for digit in text], np.uint8)

    def render(self, values: np.ndarray, givens: np.ndarray | None = None) -> str:
        return "".join(map(str, values))

    def generate(self, count: int, rng: np.random.Generator) -> Puzzles:
        questions = rng.integers(10, size=(count, self.seq_len), dtype=np.uint8)
        swaps = (questions[:, 1:] < questions[:, :-1]).sum(axis=1)  # how hard it is, roughly
        return Puzzles(questions, np.sort(questions), swaps)

    def check(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        return (np.sort(question) == answer).all(axis=-1)

    # Optional. All orders of the same digits are one puzzle: the held-out digits are
    # never trained on, in any order.
    def split_keys(self, questions: np.ndarray, answers: np.ndarray) -> list[bytes]:
        return [answer.tobytes() for answer in answers]


register(Sort())
