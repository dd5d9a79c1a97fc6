"""ARC evaluation: all augmented versions of a test vote on its answer.

As in the published evaluator (``evaluators/arc.py`` of TRM): every predicted grid is cropped, its
symmetry undone, and it is one vote for an answer to the original test. Answers are ranked by their
number of votes, then by the mean probability of halting, then by who came first. Unlike there,
the main process counts for all (see `evaluate.evaluate`), and a test without any vote keeps its
place in the submission.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from trm_mlx.data.dataset import PuzzleDataset, puzzle_names
from trm_mlx.data.format import read_json
from trm_mlx.errors import InputError, located
from trm_mlx.evaluate.evaluate import EvalResult
from trm_mlx.tasks.arc import PUZZLES_FILE, grid_key, grid_of_key, grids_of, pairs_of, read_name

SUBMISSION_FILE = "submission.json"
PASS_KS = (1, 2, 5, 10, 100, 1000)
ATTEMPTS = 2  # that a submission has for each test
KEPT = PASS_KS[-1]  # answers to a test whose votes later evaluations add to
NO_ANSWER = grid_key(np.zeros((1, 1), np.uint8))  # submitted where there is no vote

Test = tuple[bytes, bytes]  # keys of its input and of its solution
TestInput = tuple[str, bytes]  # a puzzle and the key of one test input
Answers = dict[bytes, tuple[int, float]]  # by key: votes, sum of their halting probabilities
Votes = dict[TestInput, Answers]
Arrays = dict[str, np.ndarray]


def score(tests: dict[str, list[Test]], votes: Votes) -> EvalResult:
    """Return pass@k, the mean over puzzles of the fraction of their tests solved, and a submission.

    ``unanswered`` counts the tests without a vote.
    """
    solved = dict.fromkeys(PASS_KS, 0.0)
    unanswered = 0
    submission = {}
    for puzzle, pairs in tests.items():
        submission[puzzle] = []
        for question, solution in pairs:
            ranking = ranked(votes.get((puzzle, question), {}))
            for k in PASS_KS:
                solved[k] += (solution in ranking[:k]) / len(pairs)
            unanswered += not ranking
            submission[puzzle].append(submitted(map(grid_of_key, attempts(ranking))))
    metrics = {f"pass@{k}": value / len(tests) for k, value in solved.items()}
    metrics["unanswered"] = float(unanswered)
    return EvalResult(metrics, {SUBMISSION_FILE: json.dumps(submission)})


class ArcEvaluator:
    """The `Evaluator` of an ARC test split.

    Args:
        names: of the puzzle identifiers, by identifier.
        tests: of every puzzle to score, its tests in order.
        aggregated_voting: keep the votes of earlier evaluations, of earlier checkpoints that is,
            for the `KEPT` leading answers to each test.
    """

    name = "ARC"

    def __init__(
        self, names: list[str], tests: dict[str, list[Test]], aggregated_voting: bool = False
    ):
        self.names, self.tests, self.aggregated_voting = names, tests, aggregated_voting
        self.votes: Votes = {}
        self._earlier: Votes = {}  # of completed evaluations
        self._questions = dict.fromkeys((name, ask) for name in tests for ask, _ in tests[name])

    @classmethod
    def of(cls, data: PuzzleDataset, aggregated_voting: bool = False) -> "ArcEvaluator":
        """Return the evaluator for a dataset of the ARC builder.

        Raises:
            InputError: it lacks the builder's JSON files, or they do not belong to it.
        """
        tests: dict[str, list[Test]] = {}
        for directory in dict.fromkeys(part.folder.parent for part in data.parts):
            tests |= _read_tests(directory / PUZZLES_FILE)
        return cls(puzzle_names(data), tests, aggregated_voting)

    def begin(self) -> None:
        """Start an evaluation; the votes of one that was interrupted are dropped."""
        self.votes = {question: dict(answers) for question, answers in self._earlier.items()}

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Count the votes of a batch; rows of other puzzles, padding for one, have none."""
        names = [self.names[identifier] for identifier in batch["puzzle_identifiers"]]
        halting = np.exp(-np.logaddexp(0, -outputs["q_halt_logits"].astype(np.float64)))
        asked, answered = grids_of(batch["inputs"]), grids_of(outputs["preds"])
        for name, before, after, probability in zip(names, asked, answered, halting, strict=True):
            puzzle, symmetry = read_name(name)
            if puzzle not in self.tests:
                continue
            undo = symmetry.inverse()
            question = puzzle, grid_key(undo.image(before))
            if question in self._questions:
                answer = grid_key(undo.image(after))
                answers = self.votes.setdefault(question, {})
                count, total = answers.get(answer, (0, 0.0))
                answers[answer] = count + 1, total + float(probability)

    def result(self) -> EvalResult:
        """pass@k and ``submission.json`` after all batches; see `score`."""
        if self.aggregated_voting:
            self._earlier = leading(self.votes, KEPT)
        return score(self.tests, self.votes)

    def state(self) -> Arrays:
        """Return the votes that the next evaluation adds to, as arrays; empty if there are none."""
        return packed(self._earlier, list(self._questions)) if self.aggregated_voting else {}

    def restore(self, state: Arrays) -> None:
        """Continue from a `state`.

        Raises:
            InputError: it is of other tests, or damaged.
        """
        if self.aggregated_voting:
            self._earlier = unpacked(state, list(self._questions))


def has_arc_files(data: PuzzleDataset) -> bool:
    """Whether every folder of the data is one of ``trm build arc``."""
    return all((part.folder.parent / PUZZLES_FILE).is_file() for part in data.parts)


def _read_tests(path: Path) -> dict[str, list[Test]]:
    """Read the tests of every puzzle in a ``test_puzzles.json``."""
    tests = {}
    absent = "the evaluator arc is for datasets of 'trm build arc', for others set evaluators=[]"
    puzzles = read_json(path, absent, "rebuild the dataset")
    if not isinstance(puzzles, dict) or not puzzles:
        raise InputError(f"{path} holds no puzzles by name; rebuild the dataset")
    for puzzle, content in puzzles.items():
        with located(f"{path}: puzzle {puzzle}"):
            tests[puzzle] = [tuple(map(grid_key, pair)) for pair in pairs_of(content, "test")]
    return tests


def attempts(ranking: list[bytes]) -> list[bytes]:
    """Return the answers to one question that are submitted, `ATTEMPTS` of them."""
    first = ranking[:ATTEMPTS] or [NO_ANSWER]
    return first + first[:1] * (ATTEMPTS - len(first))


def submitted(grids: Iterable[np.ndarray]) -> dict[str, list]:
    """Return the answers to one question in the form of Kaggle's competitions."""
    return {f"attempt_{number}": grid.tolist() for number, grid in enumerate(grids, start=1)}


def ranked(answers: Answers) -> list[bytes]:
    """Return the answers to one question, most votes first."""

    def weight(answer: bytes) -> tuple[int, float]:
        count, halting = answers[answer]
        return count, halting / count

    return sorted(answers, key=weight, reverse=True)


def leading(votes: Votes, most: int) -> Votes:
    """Return the ``most`` first answers to each question, in the order in which they came."""
    found = {}
    for question, answers in votes.items():
        chosen = set(ranked(answers)[:most])
        found[question] = {key: vote for key, vote in answers.items() if key in chosen}
    return found


def packed(votes: Votes, questions: Sequence[TestInput]) -> Arrays:
    """Return the votes for these questions as integer arrays, exact to the bit.

    ``questions [32]`` is a digest of all questions; ``question``, ``count``, ``halting`` and
    ``length [N]`` describe the answers, whose keys are concatenated in ``keys``.
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


def unpacked(arrays: Arrays, questions: Sequence[TestInput]) -> Votes:
    """Return the votes that `packed` made arrays of.

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


def _digest(questions: Sequence[TestInput]) -> np.ndarray:
    state = hashlib.sha256()
    for puzzle, asked in questions:
        for part in (puzzle.encode(), asked):
            state.update(len(part).to_bytes(8, "little") + part)
    return np.frombuffer(state.digest(), np.uint8)
