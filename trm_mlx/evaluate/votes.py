"""Votes for answers to ARC tests: their order, and as arrays for a checkpoint."""

import hashlib
from collections.abc import Sequence

import numpy as np

from trm_mlx.errors import InputError

Question = tuple[str, bytes]  # a puzzle and the key of one test input
Answers = dict[bytes, tuple[int, float]]  # by key: votes, sum of their halting probabilities
Votes = dict[Question, Answers]
Arrays = dict[str, np.ndarray]


def ranked(answers: Answers) -> list[bytes]:
    """The answers to one question, most votes first."""

    def weight(answer: bytes) -> tuple[int, float]:
        count, halting = answers[answer]
        return count, halting / count

    return sorted(answers, key=weight, reverse=True)


def leading(votes: Votes, most: int) -> Votes:
    """The ``most`` first answers to each question, in the order in which they came."""
    found = {}
    for question, answers in votes.items():
        chosen = set(ranked(answers)[:most])
        found[question] = {key: vote for key, vote in answers.items() if key in chosen}
    return found


def packed(votes: Votes, questions: Sequence[Question]) -> Arrays:
    """Votes for some of these questions as arrays of whole numbers, exact to the bit.

    ``questions [32]`` tells the questions apart from others, ``question``, ``count``, ``halting``
    and ``length [N]`` are of the answers, whose keys are ``keys``, one after the other.
    """
    place = {question: number for number, question in enumerate(questions)}
    rows = [
        (place[question], count, halting, key)
        for question, answers in votes.items()
        for key, (count, halting) in answers.items()
    ]
    return {
        "questions": _digest(questions),
        "question": np.array([row[0] for row in rows], np.int32),
        "count": np.array([row[1] for row in rows], np.int64),
        "halting": np.array([row[2] for row in rows], np.float64).view(np.int64),
        "length": np.array([len(row[3]) for row in rows], np.int32),
        "keys": np.frombuffer(b"".join(row[3] for row in rows), np.uint8),
    }


def unpacked(arrays: Arrays, questions: Sequence[Question]) -> Votes:
    """The votes that `packed` made arrays of.

    Raises:
        InputError: arrays of votes for other questions, or of none.
    """
    try:
        if not np.array_equal(arrays["questions"], _digest(questions)):
            raise InputError(
                "its votes are for the tests of another dataset: name the same data_paths_test=, "
                "or leave them behind with evaluators=[arc]"
            )
        if arrays["length"].sum() != len(arrays["keys"]) or (arrays["count"] < 1).any():
            raise ValueError
        sums = arrays["halting"].view(np.float64).tolist()
        keys, ends = arrays["keys"].tobytes(), np.cumsum(arrays["length"]).tolist()
        columns = arrays["question"].tolist(), arrays["count"].tolist(), sums, ends
        votes: Votes = {}
        start = 0
        for number, count, halting, end in zip(*columns, strict=True):
            votes.setdefault(questions[number], {})[keys[start:end]] = count, halting
            start = end
    except InputError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        raise InputError("its votes are damaged: resume from an earlier step") from error
    return votes


def _digest(questions: Sequence[Question]) -> np.ndarray:
    state = hashlib.sha256()
    for puzzle, asked in questions:
        for part in (puzzle.encode(), asked):
            state.update(len(part).to_bytes(8, "little") + part)
    return np.frombuffer(state.digest(), np.uint8)
