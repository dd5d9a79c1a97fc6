"""ARC evaluation: all augmented versions of a test vote on its answer.

As in the published evaluator (``evaluators/arc.py`` of TRM): every predicted grid is cropped, its
symmetry undone, and it is one vote for an answer to the original test. Answers are ranked by their
number of votes, then by the mean probability of halting, then by who came first. Unlike there,
of several processes one counts for all (see `evaluate.evaluate`), and a test without any vote keeps
its place in the submission.
"""

import json
from pathlib import Path

import numpy as np

from trm_mlx.data.dataset import PuzzleDataset, puzzle_names
from trm_mlx.data.format import read_json
from trm_mlx.errors import InputError, located
from trm_mlx.evaluate.evaluate import EvalResult
from trm_mlx.evaluate.votes import Arrays, Votes, leading, packed, ranked, unpacked
from trm_mlx.tasks.arc import PUZZLES_FILE, check_grid, grid_key, grid_of_key, grids_of, read_name

SUBMISSION_FILE = "submission.json"
PASS_KS = (1, 2, 5, 10, 100, 1000)
ATTEMPTS = 2  # that a submission has for each test
KEPT = PASS_KS[-1]  # answers to a test whose votes later evaluations add to
NO_ANSWER = grid_key(np.zeros((1, 1), np.uint8))  # submitted where there is no vote

Test = tuple[bytes, bytes]  # keys of its input and of its solution


def score(tests: dict[str, list[Test]], votes: Votes) -> EvalResult:
    """pass@k as means over puzzles of the share of their tests solved, and the submission.

    Also reports how many tests are ``unanswered``, having no vote.
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
            attempts = ranking[:ATTEMPTS] or [NO_ANSWER]
            attempts += attempts[:1] * (ATTEMPTS - len(attempts))
            submission[puzzle].append(
                {
                    f"attempt_{number}": grid_of_key(answer).tolist()
                    for number, answer in enumerate(attempts, start=1)
                }
            )
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
        self._earlier: Votes = {}  # of evaluations that came to their end
        self._questions = dict.fromkeys((name, ask) for name in tests for ask, _ in tests[name])

    @classmethod
    def of(cls, data: PuzzleDataset, aggregated_voting: bool = False) -> "ArcEvaluator":
        """For a dataset of the ARC builder.

        Raises:
            InputError: it lacks the builder's JSON files, or they do not belong to it.
        """
        tests: dict[str, list[Test]] = {}
        for directory in dict.fromkeys(part.folder.parent for part in data.parts):
            tests |= _read_tests(directory / PUZZLES_FILE)
        return cls(puzzle_names(data), tests, aggregated_voting)

    def begin(self) -> None:
        """Start an evaluation; what one without a `result` has counted is forgotten."""
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
        """The votes that the next evaluation adds to, as arrays; none where each begins anew."""
        return packed(self._earlier, list(self._questions)) if self.aggregated_voting else {}

    def restore(self, state: Arrays) -> None:
        """Go on from a `state`.

        Raises:
            InputError: it is of other tests, or damaged.
        """
        if self.aggregated_voting:
            self._earlier = unpacked(state, list(self._questions))


def has_arc_files(data: PuzzleDataset) -> bool:
    """Whether every folder of the data is one of ``trm build arc``."""
    return all((part.folder.parent / PUZZLES_FILE).is_file() for part in data.parts)


def _read_tests(path: Path) -> dict[str, list[Test]]:
    """The tests of every puzzle in a ``test_puzzles.json``."""
    tests = {}
    absent = "the evaluator arc is for datasets of 'trm build arc', for others set evaluators=[]"
    puzzles = read_json(path, absent, "rebuild the dataset")
    if not isinstance(puzzles, dict) or not puzzles:
        raise InputError(f"{path} holds no puzzles by name; rebuild the dataset")
    for puzzle, content in puzzles.items():
        with located(f"{path}: puzzle {puzzle}"):
            pairs = content.get("test") if isinstance(content, dict) else None
            if not pairs or not all(isinstance(pair, dict) for pair in pairs):
                raise InputError("has no list of tests; rebuild the dataset")
            tests[puzzle] = [
                tuple(grid_key(check_grid(pair.get(side))) for side in ("input", "output"))
                for pair in pairs
            ]
    return tests
