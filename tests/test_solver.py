"""The solver: the answers of evaluation, in order, whatever shares a batch and when rows halt."""

import itertools

import mlx.core as mx
import numpy as np
import pytest

import trm_mlx
from trm_mlx import InputError, SearchConfig, Solver
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.evaluate.evaluate import EvaluationStep, run_all_steps
from trm_mlx.models.model import build_model
from trm_mlx.solve import batcher
from trm_mlx.solve.batcher import Batcher
from trm_mlx.solve.scheduler import Scheduler

STEPS = 5
INPUTS = np.random.default_rng(0).integers(0, 6, (13, 9))
IDENTIFIERS = np.random.default_rng(1).integers(0, 3, 13)


@pytest.fixture(params=["trm", "hrm", "trm_singlez"])
def model(request):
    """Untrained, with a halting head that lets its puzzles halt at various steps."""
    arch = arch_config(
        request.param,
        hidden_size=16,
        num_heads=2,
        H_layers=1,
        L_layers=1,
        puzzle_emb_len=1,
        halt_max_steps=STEPS,
    )
    sizes = {"seq_len": 9, "vocab_size": 6, "num_puzzle_identifiers": 3}
    model = build_model(ModelConfig.of(arch, **sizes))
    model.puzzle_emb.weights = mx.random.normal(model.puzzle_emb.weights.shape)
    model.q_head.weight = 2 * mx.random.normal(model.q_head.weight.shape, key=mx.random.key(5))
    # Half of the puzzles halt at their second step.
    second = list(trm_mlx.refine(model, INPUTS, IDENTIFIERS))[1].halt_probability
    middle = float(np.sort(np.log(second / (1 - second)))[6:8].mean())
    model.q_head.bias = mx.array([-5.0 - middle, -5.0])
    return model


def by_hand(model, inputs, identifier, threshold, max_steps=STEPS):
    """One puzzle alone: (answer, steps, probability) by the definition."""
    for refinement in trm_mlx.refine(model, inputs[None], [identifier], max_steps):
        if refinement.halt_probability[0] > threshold:
            break
    return refinement.answers[0], refinement.step, refinement.halt_probability[0]


@pytest.mark.parametrize("batch_size", [1, 4, 20, None])
def test_any_batch_size_solves_as_one_by_one(model, batch_size):
    solver = Solver(model, halt_threshold=0.5, batch_size=batch_size)
    solutions = list(solver.solve(INPUTS, IDENTIFIERS))
    assert len(solutions) == len(INPUTS)
    for inputs, identifier, solution in zip(INPUTS, IDENTIFIERS, solutions, strict=True):
        answer, steps, probability = by_hand(model, inputs, identifier, 0.5)
        np.testing.assert_array_equal(solution.answer, answer)
        assert solution.steps == solution.evaluations == steps
        assert solution.confidence == pytest.approx(probability, abs=1e-4)
        assert solution.halted == (solution.confidence > 0.5)
        assert (solution.trajectories, solution.passes, solution.outputs) == (1, None, ())
    # The test is about rows that halt at different times.
    assert len({solution.steps for solution in solutions}) >= 2


def test_fixed_steps_are_the_published_evaluation_bit_by_bit(model):
    """Also for the last batch, which is not full."""
    step = EvaluationStep(model, "stablemax_cross_entropy")
    solver = Solver(model, halt_threshold=None, batch_size=5, intermediates=True)
    solutions = list(solver.solve(INPUTS, IDENTIFIERS))
    assert [solution.steps for solution in solutions] == [STEPS] * 13
    for start in range(0, 13, 5):
        inputs, identifiers = np.zeros((5, 9), np.int32), np.zeros(5, np.int32)
        rows = min(5, 13 - start)
        inputs[:rows], identifiers[:rows] = INPUTS[start:][:5], IDENTIFIERS[start:][:5]
        batch = {
            "inputs": mx.array(inputs),
            "labels": mx.array(inputs),
            "puzzle_identifiers": mx.array(identifiers),
        }
        model.eval()
        outputs, _ = run_all_steps(step, batch)
        boundary = 0 if model.config.no_ACT_continue else outputs["q_continue_logits"]
        confidence = np.array(mx.sigmoid(outputs["q_halt_logits"] - boundary))
        answers = np.array(mx.argmax(outputs["logits"], axis=-1))
        carry = model.initial_carry(batch)
        for _ in range(STEPS):
            carry, _ = model(carry, batch)
        for row in range(rows):
            solution = solutions[start + row]
            np.testing.assert_array_equal(solution.answer, answers[row])
            assert solution.confidence == confidence[row]
            for name, state in carry.states.items():
                np.testing.assert_array_equal(solution.outputs[-1].states[name], state[row])


def test_more_steps_than_trained(model):
    solutions = list(Solver(model, max_steps=9, halt_threshold=None).solve(INPUTS))
    *_, last = trm_mlx.refine(model, INPUTS, max_steps=9)
    np.testing.assert_array_equal([solution.answer for solution in solutions], last.answers)
    assert {solution.evaluations for solution in solutions} == {9}


def test_threshold(model):
    def steps(threshold):
        return Solver(model, halt_threshold=threshold).predict(INPUTS, IDENTIFIERS)[1]

    assert (steps(0) == 1).all()
    assert (steps(1) == STEPS).all()
    assert (steps(0.9) >= steps(0.5)).all()
    assert steps(0.9).sum() > steps(0.5).sum()


def test_intermediates_are_every_step_of_the_answer(model):
    refinements = list(trm_mlx.refine(model, INPUTS, IDENTIFIERS))
    solver = Solver(model, batch_size=4, intermediates=True)
    for row, solution in enumerate(solver.solve(INPUTS, IDENTIFIERS)):
        assert len(solution.outputs) == solution.steps
        for output, refinement in zip(solution.outputs, refinements, strict=False):
            np.testing.assert_array_equal(output.answer, refinement.answers[row])
            assert output.confidence == pytest.approx(refinement.halt_probability[row], abs=1e-4)
            for name, state in output.states.items():
                np.testing.assert_allclose(state, refinement.states[name][row], atol=1e-4)


def test_compiled_is_the_same():
    arch = arch_config("trm", hidden_size=8, num_heads=1, L_layers=1, H_cycles=1, L_cycles=1)
    model = build_model(ModelConfig.of(arch, seq_len=4, vocab_size=3, num_puzzle_identifiers=1))
    inputs = np.random.default_rng(0).integers(0, 3, (5, 4))
    search = SearchConfig(trajectories=2, noise=0.5, restarts=True, select="residual")
    results = [
        list(Solver(model, max_steps=2, batch_size=2, compiled=c, search=search).solve(inputs))
        for c in (False, True)
    ]
    for plain, compiled in zip(*results, strict=True):
        np.testing.assert_array_equal(plain.answer, compiled.answer)
        assert plain.confidence == pytest.approx(compiled.confidence, abs=1e-4)


@pytest.fixture
def events(monkeypatch):
    """What a batch does, in order: its launched steps, and those that are read."""
    made, order = batcher.batch_step, []

    def counting(*options):
        step = made(*options)

        def launch(*arguments):
            order.append("launch")
            return step(*arguments)

        return launch

    read = Batcher._read
    monkeypatch.setattr("trm_mlx.solve.solver.batch_step", counting)
    monkeypatch.setattr(Batcher, "_read", lambda *a: order.append("read") or read(*a))
    return order


def test_a_lone_puzzle_launches_its_own_steps_only(model, events):
    """It is handed out after them, and the end is known without another step."""
    taken = set()
    for inputs, identifier in zip(INPUTS, IDENTIFIERS, strict=True):
        events.clear()
        (solution,) = Solver(model).solve([inputs], [identifier])
        assert events == ["launch", "read"] * solution.steps
        taken.add(solution.steps)
    assert len(taken) >= 2
    # Further trajectories are not begun before they are needed.
    search = SearchConfig(trajectories=9, restarts=True)
    events.clear()
    (solution,) = Solver(model, search=search).solve(INPUTS[:1], IDENTIFIERS[:1])
    assert events.count("launch") == solution.evaluations


def test_several_puzzles_keep_the_device_busy(model, events):
    """A step is read when the next one is launched, but for the steps of the last puzzle."""
    solutions = Solver(model, batch_size=1).solve(INPUTS, IDENTIFIERS)
    steps = [solution.steps for solution in solutions]
    many = ["launch", "launch", "read"] + ["launch", "read"] * (sum(steps[:-1]) - 1)
    assert events[: len(many)] == many
    assert events.count("launch") == sum(steps)


def test_fixed_steps_keep_the_device_busy(model, events):
    """Where no row halts early it is known that the next step is needed."""
    (_,) = Solver(model, halt_threshold=None).solve(INPUTS[:1])
    assert events == ["launch", *["launch", "read"] * (STEPS - 1), "read"]


def test_one_compiled_step_a_model(monkeypatch):
    """However many solvers there are; and none for a single puzzle, unless it is asked for."""
    arch = arch_config("trm", hidden_size=8, num_heads=1, L_layers=1, H_cycles=1, L_cycles=1)
    model = build_model(ModelConfig.of(arch, seq_len=4, vocab_size=3, num_puzzle_identifiers=1))
    inputs = np.random.default_rng(0).integers(0, 3, (5, 4))
    compiled = []

    def spy(function, inputs):
        compiled.append(function)
        return function

    monkeypatch.setattr("mlx.core.compile", spy)
    monkeypatch.setattr("trm_mlx.device.compiles", lambda: True)
    list(Solver(model).solve(inputs[:1]))
    assert len(compiled) == 0
    for threshold in (0.5, 0.6):
        list(Solver(model, halt_threshold=threshold).solve(inputs))
    assert len(compiled) == 1
    list(Solver(model, intermediates=True).solve(inputs))
    assert len(compiled) == 2


def test_reads_and_answers_as_needed(model):
    """An endless input: read a bounded number of puzzles ahead, first results at once."""
    read = itertools.count()

    def endless():
        while True:
            yield INPUTS[next(read) % len(INPUTS)]

    solutions = Solver(model, batch_size=4).solve(endless())
    for _ in range(30):
        next(solutions)
    assert next(read) < 30 + 16 * 4 + 8


@pytest.mark.parametrize(("batch_size", "rows"), [(None, 3), (2, 2), (8, 8)])
def test_rows(model, monkeypatch, batch_size, rows):
    """By default no more rows than puzzles: on a CPU each costs its time."""
    seen = []

    class Spy(Batcher):
        def __init__(self, model, step, scheduler, rows, *options):
            seen.append(rows)
            super().__init__(model, step, scheduler, rows, *options)

    monkeypatch.setattr("trm_mlx.solve.solver.Batcher", Spy)
    assert len(list(Solver(model, batch_size=batch_size).solve(INPUTS[:3]))) == 3
    assert seen == [rows]


def watch_rows(monkeypatch, maker):
    """The rows of every step from now on."""
    rows, make = [], getattr(batcher, maker)

    def watched(*options):
        step = make(*options)

        def run(carry, *arrays):
            rows.append(len(carry.halted))
            return step(carry, *arrays)

        return run

    monkeypatch.setattr(f"trm_mlx.solve.solver.{maker}", watched)
    return rows


@pytest.mark.parametrize("compiled", [False, True])
def test_rows_without_a_puzzle_are_taken_away_at_the_end(model, monkeypatch, compiled):
    """Not where a compiled step would be traced anew; the answers are the same."""
    options = {"max_steps": 6, "halt_threshold": 0.5}
    expected = list(Solver(model, **options, batch_size=1).solve(INPUTS, IDENTIFIERS))
    early = min(range(len(INPUTS)), key=lambda number: expected[number].steps)
    late = max(range(len(INPUTS)), key=lambda number: expected[number].steps)
    assert expected[late].steps > expected[early].steps + 1
    chosen = [*[early] * 20, late]
    rows = watch_rows(monkeypatch, "compiled_step" if compiled else "batch_step")
    solver = Solver(model, **options, batch_size=21, compiled=compiled)
    solutions = solver.solve(INPUTS[chosen], IDENTIFIERS[chosen])
    for number, solution in zip(chosen, solutions, strict=True):
        assert solution.steps == expected[number].steps
        np.testing.assert_array_equal(solution.answer, expected[number].answer)
    assert rows[0] == 21
    assert rows[-1] == (21 if compiled else 1)


def test_rows_stay_while_puzzles_are_to_come(model, monkeypatch):
    """Rows are idle where a puzzle holds back the others, and work again after it."""
    rows = watch_rows(monkeypatch, "batch_step")

    def narrow(puzzles, search, task, max_steps, _window, on_step):
        return Scheduler(puzzles, search, task, max_steps, 3, on_step)

    monkeypatch.setattr("trm_mlx.solve.solver.Scheduler", narrow)
    solver = Solver(model, 6, 0.5, batch_size=6, compiled=False)
    solutions = solver.solve(INPUTS, IDENTIFIERS)
    for _ in range(len(INPUTS) - 3):
        next(solutions)
        assert rows[-1] == 6
    assert len(list(solutions)) == 3
    assert rows[-1] < 6


def test_new_weights_are_used(model):
    solver = Solver(model, halt_threshold=None)
    before = solver.predict(INPUTS)[0]
    model.lm_head.weight = -model.lm_head.weight
    assert (solver.predict(INPUTS)[0] != before).any()


def test_predict(model):
    answers, steps = trm_mlx.predict(model, INPUTS, max_steps=3, halt_threshold=0.6)
    assert answers.shape == INPUTS.shape
    for row, (inputs, answer) in enumerate(zip(INPUTS, answers, strict=True)):
        expected = by_hand(model, inputs, 0, 0.6, max_steps=3)
        np.testing.assert_array_equal(answer, expected[0])
        assert steps[row] == expected[1]
    answers, steps = trm_mlx.predict(model, INPUTS[:0])
    assert (answers.shape, steps.shape) == ((0, 9), (0,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps 0: must be at least 1"),
        ({"halt_threshold": 1.5}, "halt_threshold 1.5: must lie between 0 and 1"),
        ({"halt_threshold": float("nan")}, "halt_threshold nan"),
        ({"batch_size": 0}, "batch_size 0: must be at least 1"),
        ({"search": SearchConfig(select="rule")}, "select 'rule' needs a task"),
        ({"search": SearchConfig(trajectories=2, symmetries=True)}, "symmetries needs a task"),
        (
            {"search": SearchConfig(trajectories=2, noise=1.0, noise_on="z_X")},
            "noise_on z_X: this model has the states z_L",
        ),
    ],
)
def test_options_that_make_no_sense(options, message):
    arch = arch_config("trm_singlez", hidden_size=8, num_heads=1, L_layers=1)
    model = build_model(ModelConfig.of(arch, seq_len=4, vocab_size=3, num_puzzle_identifiers=1))
    with pytest.raises(InputError, match=message):
        Solver(model, **options)


def test_puzzles_that_do_not_fit(model):
    solver = Solver(model)
    for bad, message in (
        (np.full(9, 6), r"puzzle 2: a token lies outside the model's vocabulary 0\.\.5"),
        (np.zeros(8, int), r"puzzle 2: inputs of shape \(1, 8\) do not fit"),
    ):
        with pytest.raises(InputError, match=message):
            list(solver.solve([INPUTS[0], INPUTS[1], bad]))
    for identifiers in ([0], [0, 3]):
        with pytest.raises(InputError, match=r"puzzle 1: puzzle identifier .*0 to 2 per puzzle"):
            list(solver.solve(INPUTS[:2], identifiers))


@pytest.mark.parametrize("name", trm_mlx.__all__)
def test_public_names_resolve(name):
    assert getattr(trm_mlx, name) is not None


def test_what_is_no_model_task_or_token_is_told():
    loaded = trm_mlx.load("sudoku-4x4")
    with pytest.raises(
        InputError, match=r"takes a model, not tuple: model, config = trm_mlx\.load"
    ):
        Solver(loaded)
    with pytest.raises(InputError, match="max_steps='3': must be a whole number or None"):
        Solver(loaded[0], max_steps="3")
    with pytest.raises(InputError, match=r"a token is 1\.5: pass whole numbers"):
        next(Solver(loaded[0]).solve(np.full((1, 16), 1.5)))
    with pytest.raises(InputError, match=r"a model is a folder or a name, .* not NoneType"):
        trm_mlx.load(None)
    with pytest.raises(InputError, match="puzzles are read from text, not int"):
        trm_mlx.tasks.read_puzzles(3)
    with pytest.raises(InputError, match=r"must be a list of folders, \['data/x'\]"):
        trm_mlx.PuzzleDataset("data/x", "train")
    with pytest.raises(InputError, match=r"must be a list of strings, \['lr=1'\]"):
        trm_mlx.load_config("lr=1")
    with pytest.raises(InputError, match="a task has a name, such as 'sudoku9x9', not int"):
        trm_mlx.tasks.get(9)
