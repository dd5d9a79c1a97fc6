"""Test-time compute: which trajectories run, what makes them differ, and which answer is taken."""

import itertools

import mlx.core as mx
import numpy as np
import pytest

from trm_mlx import InputError, SearchConfig, Solver
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models.act import Carry
from trm_mlx.models.model import build_model
from trm_mlx.solve.scheduler import Scheduler
from trm_mlx.solve.search import SELECTORS, Perturbation, Trajectory
from trm_mlx.tasks.sudoku import Sudoku

TASK = Sudoku(4)
RANDOM = np.random.default_rng(0)
QUESTIONS, ANSWERS, _ = TASK.generate(9, RANDOM)
INPUTS = TASK.encode(QUESTIONS)


@pytest.fixture
def model():
    arch = arch_config(
        "trm", hidden_size=16, num_heads=2, L_layers=1, puzzle_emb_ndim=0, halt_max_steps=3
    )
    return build_model(ModelConfig.of(arch, seq_len=16, vocab_size=6, num_puzzle_identifiers=1))


def ended(answer, confidence=0.1, halted=False, steps=3, residual=1.0, passes=None):
    return Trajectory(
        answer=np.array([answer]),
        steps=steps,
        confidence=confidence,
        halted=halted,
        residual=residual,
        passes=passes,
    )


# Selectors: which trajectory is chosen, and after how many of them enough is known


@pytest.mark.parametrize(
    ("select", "done", "chosen", "enough"),
    [
        ("q", [ended(1, 0.2), ended(2, 0.9, True), ended(3, 0.95, True)], 2, 2),
        ("q", [ended(1, 0.2), ended(2, 0.4), ended(3, 0.3)], 1, 3),
        ("first", [ended(1, 0.9, True, 3), ended(2, 0.6, True, 2), ended(3)], 1, 3),
        ("first", [ended(1, 0.6, True, 1), ended(2, 0.9, True, 1)], 0, 1),
        ("first", [ended(1, 0.1), ended(2, 0.3), ended(3, 0.2)], 1, 3),
        ("mode", [ended(1, 0.9), ended(2), ended(2, 0.2)], 2, 3),
        ("mode", [ended(1, 0.2), ended(1, 0.1), ended(2, 0.9)], 0, 2),
        ("mode", [ended(1), ended(2, 0.3), ended(3)], 1, 3),
        ("mode", [ended(1), ended(1), ended(2), ended(2, 0.9)], 3, 4),
        ("residual", [ended(1, 0.9, True), ended(2, residual=0.5), ended(3)], 1, 3),
        ("rule", [ended(1, 0.9, passes=False), ended(2, passes=True), ended(3)], 1, 2),
        ("rule", [ended(a, a / 10, passes=False) for a in (1, 3, 2)], 1, 3),
    ],
)
def test_selectors(select, done, chosen, enough):
    search = SearchConfig(trajectories=len(done), restarts=True, select=select)
    assert SELECTORS[select].choose(done) == chosen
    lengths = range(1, len(done) + 1)
    assert min(n for n in lengths if search.settled(done[:n], max_steps=3)) == enough


# What makes trajectories differ


def carry_of(steps, perturbed):
    rows = len(steps)
    states = {name: mx.full((rows, 4, 64), float(i)) for i, name in enumerate(("z_H", "z_L"))}
    keys = mx.array(np.arange(2 * rows, dtype=np.uint32).reshape(rows, 2))
    batch = {"perturbed": mx.array(perturbed), "key": keys}
    return Carry(states, mx.array(steps), mx.zeros((rows,), mx.bool_), batch)


@pytest.mark.parametrize(("noise_on", "other"), [("z_L", "z_H"), ("z_H", "z_L")])
def test_noise(noise_on, other):
    search = SearchConfig(trajectories=2, noise=0.5, noise_on=noise_on)
    perturb = Perturbation.of(search, ("z_H", "z_L"))
    carry = carry_of([0, 1, 2], [False, True, True])
    states = perturb(carry, mx.array([True, False, False]))
    np.testing.assert_array_equal(states[other], carry.states[other])
    noise = np.array(states[noise_on] - carry.states[noise_on])
    assert (noise[0] == 0).all()
    assert noise[1:].std() == pytest.approx(0.5, rel=0.1)
    assert abs(noise[1:].mean()) < 0.1
    # Another row, another key, and another step of the same row: other noise.
    later = perturb(carry._replace(steps=carry.steps + 1), mx.array([False] * 3))
    assert not np.allclose(noise[1], noise[2])
    assert not np.allclose(later[noise_on][1], states[noise_on][1])


def test_restarts():
    perturb = Perturbation.of(SearchConfig(trajectories=2, restarts=True), ("z_H", "z_L"))
    carry = carry_of([0, 0, 2], [False, True, True])
    states = perturb(carry, mx.array([True, True, False]))
    for name, before in carry.states.items():
        np.testing.assert_array_equal(states[name][0], before[0])
        np.testing.assert_array_equal(states[name][2], before[2])
        assert np.array(states[name][1]).std() == pytest.approx(1, rel=0.15)
    assert not np.allclose(states["z_H"][1], states["z_L"][1])


def test_noise_reaches_every_reasoning_state_of_six():
    states = ("z_H", *(f"z_L{i}" for i in range(1, 7)))
    perturb = Perturbation.of(SearchConfig(trajectories=2, noise=1.0), states)
    assert perturb.noisy == states[1:]


class Copier:
    """Stands in for a model: answers with the question it is given, certain of it or not."""

    def __init__(self, model, confidence):
        self.model, self.confidence = model, confidence

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, carry, batch):
        carry, outputs = self.model(carry, batch)
        logits = 9.0 * mx.equal(batch["inputs"][..., None], mx.arange(6)).astype(mx.float32)
        certainty = mx.full(outputs["q_halt_logits"].shape, self.confidence)
        return carry, {**outputs, "logits": logits, "q_halt_logits": certainty}


def test_symmetries_are_undone(model, monkeypatch):
    """A model that copies its question must return every puzzle as it was."""
    search = SearchConfig(trajectories=3, symmetries=True, select="residual")
    solver = Solver(Copier(model, -1.0), task=TASK, search=search, intermediates=True)
    seen = set()
    record = Scheduler.record

    def spy(scheduler, job, trajectory):
        seen.add(trajectory.answer.tobytes())
        record(scheduler, job, trajectory)

    monkeypatch.setattr(Scheduler, "record", spy)
    for question, solution in zip(INPUTS, solver.solve(INPUTS), strict=True):
        np.testing.assert_array_equal(solution.answer, question)
        np.testing.assert_array_equal(solution.outputs[-1].answer, question)
    assert len(seen) > 2 * len(INPUTS), "the model saw no images"


# How much is spent


def test_only_unsettled_puzzles_get_more(model):
    """A question that is its own answer passes at once; the others use all trajectories."""
    inputs = INPUTS.copy()
    inputs[[1, 4]] = TASK.encode(ANSWERS[[1, 4]])
    search = SearchConfig(trajectories=4, symmetries=True, select="rule")
    solver = Solver(Copier(model, -1.0), task=TASK, search=search, max_steps=2)
    solutions = list(solver.solve(inputs))
    assert [s.passes for s in solutions] == [row in (1, 4) for row in range(9)]
    assert [s.trajectories for s in solutions] == [1 if row in (1, 4) else 4 for row in range(9)]
    assert [s.evaluations for s in solutions] == [2 if row in (1, 4) else 8 for row in range(9)]
    # Nobody asked for the rules here, so none is said to have been checked.
    search = SearchConfig(trajectories=4, symmetries=True)
    for confidence, trajectories in ((5.0, 1), (-1.0, 4)):
        solver = Solver(Copier(model, confidence), task=TASK, search=search, max_steps=2)
        solutions = list(solver.solve(inputs))
        assert {(s.trajectories, s.passes) for s in solutions} == {(trajectories, None)}


def test_a_puzzle_that_takes_long_does_not_fill_the_memory(model):
    """The solutions after it wait for it, so new puzzles have to wait as well."""
    read = [0]

    def puzzles():
        yield INPUTS[0]
        for answer in TASK.encode(np.tile(ANSWERS, (40, 1))):
            read[0] += 1
            yield answer

    search = SearchConfig(trajectories=100, symmetries=True, select="rule")
    copier = Copier(model, -1.0)
    solver = Solver(copier, task=TASK, search=search, max_steps=1, batch_size=2)
    first, *others = solver.solve(itertools.islice(puzzles(), 200))
    assert (first.trajectories, {s.trajectories for s in others}) == (100, {1})
    read[0] = 0
    assert next(solver.solve(puzzles())).trajectories == 100
    assert read[0] <= 16 * 2 + 2


@pytest.mark.parametrize("select", SELECTORS)
def test_any_batch_size_finds_the_same(model, select):
    """Rows that would idle work ahead; what they find must count no earlier than its turn."""
    second = 0.02 * mx.random.normal(model.q_head.weight.shape, key=mx.random.key(1))
    model.q_head.weight, model.q_head.bias = 40 * second, mx.array([-1.0, 0.0])
    search = SearchConfig(
        trajectories=5, noise=0.5, restarts=True, symmetries=True, select=select, seed=3
    )
    results = [
        list(Solver(model, batch_size=size, task=TASK, search=search).solve(INPUTS))
        for size in (1, 4, 40)
    ]
    for solutions in zip(*results, strict=True):
        assert len({s.answer.tobytes() for s in solutions}) == 1
        numbers = {(s.steps, s.trajectories, s.evaluations, s.halted, s.passes) for s in solutions}
        assert len(numbers) == 1
    spent = {s.trajectories for s in results[0]}
    assert max(spent) > 1


def test_seeds(model):
    def answers(seed):
        search = SearchConfig(trajectories=4, restarts=True, select="residual", seed=seed)
        return Solver(model, search=search).predict(INPUTS)[0]

    np.testing.assert_array_equal(answers(0), answers(0))
    assert (answers(0) != answers(1)).any()


def test_first_to_halt_costs_no_more_than_side_by_side(model):
    second = 0.8 * mx.random.normal(model.q_head.weight.shape, key=mx.random.key(1))
    model.q_head.weight, model.q_head.bias = second, mx.array([-1.0, 0.0])
    search = SearchConfig(trajectories=4, restarts=True, select="first")
    for solution in Solver(model, 6, halt_threshold=0.5, search=search).solve(INPUTS):
        side_by_side = 4 * solution.steps
        assert solution.evaluations <= side_by_side + 6
        if solution.halted and solution.steps == 1:
            assert solution.evaluations <= 6 * solution.trajectories


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trajectories": 0}, "trajectories 0: must be at least 1"),
        ({"trajectories": 3}, "trajectories 3 would all be the same: add noise, restarts"),
        ({"noise": 0.1}, "set trajectories to at least 2"),
        ({"symmetries": True}, "set trajectories to at least 2"),
        ({"trajectories": 2, "noise": -1.0}, "noise -1.0: must be at least 0"),
        ({"trajectories": 2, "noise": float("nan")}, "noise nan"),
        ({"select": "best"}, "select 'best': choose one of q, first, mode, residual, rule"),
        ({"seed": -1}, "seed -1: must be at least 0"),
        ({"trajectories": "2"}, "trajectories='2': must be a whole number"),
        ({"noise": None}, "noise=None: must be a number"),
        ({"symmetries": 1}, "symmetries=1: must be True or False"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(InputError, match=message):
        SearchConfig(**options)
