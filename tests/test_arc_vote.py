"""The ARC evaluator: votes, pass@k, the submission; in training and in `trm eval`."""

import itertools
import json
import shutil
from collections import defaultdict

import numpy as np
import pytest
from arcs import random_grid, random_puzzles

from trm_mlx.cli import main
from trm_mlx.config import EvaluatorConfig
from trm_mlx.config_io import load_config, to_dict, train_config
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.errors import InputError
from trm_mlx.evaluate import build_evaluators
from trm_mlx.evaluate.arc import ArcEvaluator, leading, packed, ranked, score, unpacked
from trm_mlx.files import atomic_file
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.run import checkpoint
from trm_mlx.run.trainer import Trainer
from trm_mlx.tasks.arc import Symmetry, canvas_of, grid_key

KS = (1, 2, 5, 10, 100, 1000)


# A plain statement of the evaluator, from the description: row by row, cell by cell


def plain_crop(tokens):
    cells, best, best_area = tokens.reshape(30, 30), (0, 0), 0
    for rows in range(1, 31):
        for columns in range(1, 31):
            inside = cells[:rows, :columns]
            if rows * columns > best_area and ((inside >= 2) & (inside <= 11)).all():
                best, best_area = (rows, columns), rows * columns
    return cells[: best[0], : best[1]] - 2


def plain_undo(name, grid):
    puzzle, *parts = name.split("|||")
    if not parts:
        return puzzle, grid.tolist()
    turn_back = {
        "t0": lambda g: g,
        "t1": lambda g: np.rot90(g, -1),
        "t2": lambda g: np.rot90(g, 2),
        "t3": lambda g: np.rot90(g, 1),
        "t4": np.fliplr,
        "t5": np.flipud,
        "t6": np.transpose,
        "t7": lambda g: np.rot90(np.fliplr(g), -1),
    }[parts[0]]
    return puzzle, [[parts[1].index(str(c)) for c in row] for row in turn_back(grid).tolist()]


def plain_evaluation(puzzles, rows):
    """pass@k, the answers by rank, and the submission, of rows (name, input, answer, q)."""
    votes = defaultdict(list)
    for name, tokens, answer, q in rows:
        puzzle, asked = plain_undo(name, plain_crop(tokens))
        _, answered = plain_undo(name, plain_crop(answer))
        votes[puzzle, str(asked)].append((answered, 1 / (1 + np.exp(-float(q)))))
    passed, submission = dict.fromkeys(KS, 0.0), {}
    for puzzle, content in puzzles.items():
        submission[puzzle] = []
        for pair in content["test"]:
            distinct = []
            for answered, _ in votes[puzzle, str(pair["input"])]:
                if answered not in distinct:
                    distinct.append(answered)
            weights = []
            for number, answer in enumerate(distinct):
                mine = [q for a, q in votes[puzzle, str(pair["input"])] if a == answer]
                weights.append((-len(mine), -sum(mine) / len(mine), number))
            order = [distinct[number] for _, _, number in sorted(weights)] or [[[0]]]
            for k in KS:
                passed[k] += (pair["output"] in order[:k]) / len(content["test"]) / len(puzzles)
            attempts = [order[0], order[min(1, len(order) - 1)]]
            submission[puzzle].append(dict(zip(("attempt_1", "attempt_2"), attempts, strict=True)))
    return passed, submission


# Puzzles and answers


def keyed(puzzles):
    return {
        name: [
            tuple(grid_key(np.array(pair[side], np.uint8)) for side in ("input", "output"))
            for pair in puzzle["test"]
        ]
        for name, puzzle in puzzles.items()
    }


def image(symmetry, row, cells):
    return canvas_of(symmetry.image(np.array(cells, np.uint8), row))


def rows_for(puzzles, rng, versions, answer_of):
    """A row (name, input, answer, q) for each test of each of so many versions of each puzzle."""
    rows = []
    for puzzle, content in puzzles.items():
        symmetry = Symmetry.sample(rng, versions)
        for row, name in enumerate([puzzle, *symmetry.names(puzzle)[1:]]):
            own = symmetry if row else Symmetry.identity()
            for pair in content["test"]:
                answer = image(own, row, answer_of(pair))
                rows.append((name, image(own, row, pair["input"]), answer, 0.0))
    return rows


def feed(evaluator, rows, batch_size=7):
    """Show the rows to an evaluator in batches, the last of them padded with blank rows."""
    blank = (evaluator.names[0], np.zeros(900), np.full(900, 5), 9.0)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        batch += [blank] * (batch_size - len(batch))
        names, inputs, answers, halting = zip(*batch, strict=True)
        evaluator.update(
            {
                "puzzle_identifiers": np.array([evaluator.names.index(name) for name in names]),
                "inputs": np.stack(inputs).astype(np.int32),
            },
            {
                "preds": np.stack(answers).astype(np.int32),
                "q_halt_logits": np.array(halting, np.float32),
            },
        )


def evaluator_for(puzzles, rows, **options):
    names = ["<blank>", *dict.fromkeys(name for name, *_ in rows)]
    return ArcEvaluator(names, keyed(puzzles), **options)


def judged(puzzles, rows):
    evaluator = evaluator_for(puzzles, rows)
    evaluator.begin()
    feed(evaluator, rows)
    return evaluator.result()


# What it says


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_plain_statement(seed):
    """Right answers among wrong ones, noise, equal counts, equal halting, tests without a vote."""
    rng = np.random.default_rng(seed)
    puzzles = random_puzzles(rng, 5)
    wrong = {p: [random_grid(rng, 3) for _ in range(3)] for p in puzzles}
    rows = []
    for puzzle, (name, tokens, answer, _) in (
        (row[0].split("|||")[0], row)
        for row in rows_for(puzzles, rng, 9, lambda pair: pair["output"])
    ):
        kind = rng.integers(5)
        if puzzle == "p0" or (puzzle == "p1" and rng.random() < 0.9):
            continue
        if kind == 0:  # one of a few wrong ones, so that votes add up and tie
            parts = name.split("|||")[1:]
            own = Symmetry(
                np.array([int(parts[0][1])]), np.array([list(map(int, parts[1]))], np.uint8)
            ) if parts else Symmetry.identity()  # fmt: skip
            answer = image(own, 0, wrong[puzzle][rng.integers(3)])
        elif kind == 1:
            answer = rng.integers(0, 12, 900)
        elif kind == 2:
            answer = np.zeros(900)
        rows.append((name, tokens, answer, float(rng.integers(-2, 3))))
    rows = [rows[number] for number in rng.permutation(len(rows))]
    passed, submission = plain_evaluation(puzzles, rows)
    metrics, files = judged(puzzles, rows)
    assert json.loads(files["submission.json"]) == submission
    assert metrics["unanswered"] >= 2
    assert {f"pass@{k}": pytest.approx(value) for k, value in passed.items()} | {
        "unanswered": metrics["unanswered"]
    } == metrics
    assert 0 < metrics["pass@1"] < 1


@pytest.mark.parametrize("number", range(8))
def test_planted_answers_are_found_under_every_transform(number):
    rng = np.random.default_rng(number)
    puzzles = random_puzzles(rng, 4)
    rows = []
    for puzzle, content in puzzles.items():
        symmetry = Symmetry(np.array([number]), Symmetry.sample(rng, 1).colours)
        (name,) = symmetry.names(puzzle)
        for pair in content["test"]:
            rows.append((name, image(symmetry, 0, pair["input"]),
                         image(symmetry, 0, pair["output"]), -3.0))  # fmt: skip
    metrics, files = judged(puzzles, rows)
    assert metrics == {f"pass@{k}": 1.0 for k in KS} | {"unanswered": 0.0}
    assert json.loads(files["submission.json"]) == {
        puzzle: [{"attempt_1": pair["output"], "attempt_2": pair["output"]} for pair in c["test"]]
        for puzzle, c in puzzles.items()
    }


def test_votes_go_before_halting_and_halting_before_the_first():
    answers = {b"once": (1, 0.9), b"twice": (2, 0.2), b"surely": (1, 0.95), b"again": (1, 0.95)}
    assert ranked(answers) == [b"twice", b"surely", b"again", b"once"]


def test_pass_at_k_counts_the_first_k_answers():
    """The right answer is fourth of four for one test of two; the other test is solved."""
    right, others = grid_key(np.ones((1, 1), np.uint8)), [bytes([1, n]) for n in (2, 3, 4)]
    asked = [bytes([1, n]) for n in (5, 6)]
    votes = {
        ("p", asked[0]): {right: (1, 0.5), **dict.fromkeys(others, (2, 0.5))},
        ("p", asked[1]): {right: (1, 0.1)},
    }
    metrics, files = score({"p": [(asked[0], right), (asked[1], right)]}, votes)
    assert metrics == {
        "pass@1": 0.5, "pass@2": 0.5, "pass@5": 1, "pass@10": 1, "pass@100": 1, "pass@1000": 1,
        "unanswered": 0,
    }  # fmt: skip
    assert json.loads(files["submission.json"]) == {
        "p": [{"attempt_1": [[2]], "attempt_2": [[3]]}, {"attempt_1": [[1]], "attempt_2": [[1]]}]
    }


def test_a_test_without_votes_keeps_its_place():
    puzzles = random_puzzles(np.random.default_rng(0), 2)
    rows = rows_for(puzzles, np.random.default_rng(1), 2, lambda pair: pair["output"])
    metrics, files = judged(puzzles, rows[1:2])  # the second test of p0, as it is
    second = puzzles["p0"]["test"][1]["output"]
    nothing = {"attempt_1": [[0]], "attempt_2": [[0]]}
    assert json.loads(files["submission.json"]) == {
        "p0": [nothing, {"attempt_1": second, "attempt_2": second}],
        "p1": [nothing, nothing],
    }
    assert (metrics["pass@1"], metrics["unanswered"]) == (0.25, 3)


def test_extreme_halting_logits_are_probabilities():
    puzzles = random_puzzles(np.random.default_rng(0), 1, tests=1)
    rows = rows_for(puzzles, np.random.default_rng(1), 2, lambda pair: pair["output"])
    evaluator = evaluator_for(puzzles, rows)
    feed(evaluator, [(*rows[0][:3], 1e4), (*rows[1][:3], -1e4)])
    assert [list(answers.values()) for answers in evaluator.votes.values()] == [[(2, 1.0)]]


@pytest.mark.parametrize("aggregated", [False, True])
def test_votes_are_kept_across_evaluations_only_if_asked(aggregated):
    rng = np.random.default_rng(0)
    puzzles = random_puzzles(rng, 1, tests=1)
    right = rows_for(puzzles, rng, 3, lambda pair: pair["output"])
    wrong = [(name, tokens, tokens, q) for name, tokens, _, q in right]
    evaluator = evaluator_for(puzzles, right, aggregated_voting=aggregated)
    for rows in (right, right, wrong):
        evaluator.begin()
        feed(evaluator, wrong)  # an evaluation that is dropped leaves nothing behind
        evaluator.begin()
        feed(evaluator, rows)
        metrics = evaluator.result().metrics
    assert metrics["pass@1"] == aggregated


def random_votes(rng, questions, answers=20):
    return {
        question: {
            grid_key(random_grid(rng, 30)): (int(rng.integers(1, 9)), float(rng.random()))
            for _ in range(answers)
        }
        for question in questions
    }


def test_votes_as_arrays_are_the_votes():
    rng = np.random.default_rng(0)
    questions = [(f"p{number}", grid_key(random_grid(rng))) for number in range(5)]
    for votes in (random_votes(rng, questions[:3]), {}):
        again = unpacked(packed(votes, questions), questions)
        assert again == votes
        assert [list(answers) for answers in again.values()] == [
            list(answers) for answers in votes.values()
        ]
    arrays = packed(random_votes(rng, questions), questions)
    with pytest.raises(InputError, match="votes are for the tests of another dataset"):
        unpacked(arrays, questions[1:])
    for damage in (
        {"count": arrays["count"] * 0},
        {"keys": arrays["keys"][1:]},
        {"question": arrays["question"] + 5},
        {"halting": arrays["halting"][1:]},
        {"length": arrays["length"] * 0.5},
    ):
        with pytest.raises(InputError, match="votes are damaged: resume from an earlier step"):
            unpacked(arrays | damage, questions)


def test_only_leading_answers_are_kept():
    """They are what a checkpoint holds: at most 1000 answers of 901 bytes a test."""
    answers = {bytes([1, n]): (1 + n % 3, 0.1 * n) for n in range(9)}
    kept = leading({("p", b""): answers}, 4)[("p", b"")]
    assert list(kept) == [bytes([1, n]) for n in (2, 5, 7, 8)]
    assert all(kept[key] == answers[key] for key in kept)


# Configuration


def test_spellings_of_the_option():
    for words in (["evaluators=[arc]"], ["evaluators=[arc@ARC]"], ["evaluators=[{name: arc@ARC}]"]):
        config = load_config(["data_paths=[x]", *words])
        assert [(e.task, e.aggregated_voting) for e in config.evaluators] == [("arc", False)]
        assert train_config(to_dict(config)) == config
    pooled = load_config(["data_paths=[x]", "evaluators=[{name: arc, aggregated_voting: true}]"])
    assert pooled.evaluators == (EvaluatorConfig(name="arc", aggregated_voting=True),)
    assert train_config(json.loads(json.dumps(to_dict(pooled)))) == pooled


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("evaluators=[chess]", "evaluators.name=chess: choose one of arc, arc@ARC"),
        ("evaluators=[{name: arc, k: 1}]", r"unknown key evaluators\[0\].k"),
        ("evaluators=[{}]", r"evaluators\[0\].name is not set"),
        ("evaluators=[3]", r"evaluators\[0\]=3: expected an evaluator's name"),
        ("evaluators=arc", "evaluators='arc': expected a list"),
    ],
)
def test_unusable_options(word, match):
    with pytest.raises(InputError, match=match):
        load_config(["data_paths=[x]", word])


@pytest.mark.parametrize("number", [1, 2])
def test_published_recipes(number):
    config = load_config([f"experiment=arc{number}"])
    assert config.data_paths == (f"data/arc{number}concept-aug-1000",)
    assert [evaluator.task for evaluator in config.evaluators] == ["arc"]
    assert (config.arch.H_cycles, config.arch.L_cycles, config.arch.L_layers) == (3, 4, 2)
    assert (config.global_batch_size, config.epochs, config.eval_interval) == (768, 100_000, 10_000)
    assert (config.lr, config.puzzle_emb_lr) == (1e-4, 1e-2)
    assert (config.weight_decay, config.puzzle_emb_weight_decay) == (0.1, 0.1)
    assert (config.arch.hidden_size, config.arch.puzzle_emb_len, config.ema) == (512, 16, True)


# In a run


def small_run(dataset, run, **changes):
    return train_config(
        {
            "arch": {
                "name": "trm", "hidden_size": 8, "num_heads": 1, "H_cycles": 1, "L_cycles": 1,
                "L_layers": 1, "puzzle_emb_len": 1, "halt_max_steps": 1, "mlp_t": True,
                "pos_encodings": "none", "expansion": 0.1,
            },
            "data_paths": [str(dataset)], "evaluators": ["arc"], "global_batch_size": 3,
            "epochs": 2, "eval_interval": 1, "checkpoint_path": str(run), **changes,
        }
    )  # fmt: skip


def test_arc_is_the_default_on_its_data_and_nothing_elsewhere(dataset, tmp_path):
    (evaluator,) = Trainer(small_run(dataset, tmp_path / "run", evaluators=None)).evaluators
    assert isinstance(evaluator, ArcEvaluator)
    assert Trainer(small_run(dataset, tmp_path / "none", evaluators=[])).evaluators == []
    generated = small_run("generate:sudoku4x4", tmp_path / "other", evaluators=None)
    assert Trainer(generated).evaluators == []


def votes_in(trainer):
    (evaluator,) = trainer.evaluators
    return sum(count for answers in evaluator.votes.values() for count, _ in answers.values())


def test_runs_at_every_evaluation_and_by_itself(dataset, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    trainer = Trainer(small_run(dataset, run))
    results = trainer.fit()
    assert votes_in(trainer) == 12  # of the last evaluation, not of both
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    judgements = [line for line in lines if "ARC/pass@1" in line]
    steps = [line["step"] for line in judgements]
    assert steps == [line["step"] for line in lines if "all/exact_accuracy" in line] != []
    assert [path.name for path in sorted(run.glob("step_*"))] == [f"step_{n:07d}" for n in steps]
    assert judgements[-1] == {
        "step": steps[-1], **{f"ARC/{name}": value for name, value in results["ARC"].items()}
    }  # fmt: skip
    assert f"step {steps[-1]}: ARC pass@1 " in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(["eval", str(run), "--evaluators", "arc", "--json", "--batch-size", "8"]) == 0
    assert json.loads(capsys.readouterr().out)["ARC"] == results["ARC"]
    submission = json.loads((tmp_path / "submission.json").read_text())
    written = run / f"evaluation_{steps[-1]:07d}" / "submission.json"
    assert json.loads(written.read_text()) == submission
    assert {name: len(tests) for name, tests in submission.items()} == {
        f"p{number}": 2 for number in range(3)
    }
    for steps in (1, 3):
        words = ["--evaluators", "arc", "--json", "--max-steps", str(steps)]
        assert main(["eval", str(run), *words, "--output-dir", f"steps{steps}"]) == 0
        assert json.loads(capsys.readouterr().out)["all"]["steps"] == steps
        assert (tmp_path / f"steps{steps}" / "submission.json").is_file()
    assert main(["eval", str(run), "--evaluators", "arc", "--max-steps", "0"]) == 2
    assert "--max-steps 0: must be at least 1" in capsys.readouterr().err


POOLED = [{"name": "arc", "aggregated_voting": True}]


@pytest.fixture(scope="module")
def pooled(dataset, tmp_path_factory):
    """A run of four evaluations that add up, left alone."""
    run = tmp_path_factory.mktemp("pooled") / "run"
    trainer = Trainer(small_run(dataset, run, epochs=4, evaluators=POOLED))
    trainer.fit()
    assert votes_in(trainer) == 4 * 12
    return trainer


def judgements_of(run):
    """Submissions by their step, and what was logged of them."""
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    files = {path.parent.name: path.read_text() for path in run.glob("*/submission.json")}
    return files, [line for line in log if "ARC/pass@1" in line]


@pytest.mark.parametrize("moment", [1, 3, 5, 7, 9, 10])
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_resumed_run_adds_to_the_votes_before(dataset, pooled, tmp_path, how, moment):
    """Ended after a step, or in the middle of an evaluation."""
    run, moments = tmp_path / "run", itertools.count(1)
    at_kill = tmp_path / "killed"

    def end():
        due = next(moments) == moment
        if due and how == "killed":
            shutil.copytree(run, at_kill)
        return due and how == "stopped"

    Trainer(small_run(dataset, run, epochs=4, evaluators=POOLED)).fit(end)
    if how == "killed":
        run = at_kill
    resume = run if list(run.glob("step_*")) else None
    if resume is None:
        shutil.rmtree(run)
    again = Trainer(small_run(dataset, run, epochs=4, evaluators=POOLED), resume=resume)
    again.fit()
    assert judgements_of(run) == judgements_of(pooled.run)
    assert again.evaluators[0].votes == pooled.evaluators[0].votes
    for step in run.glob("step_*"):
        assert len(list(step.glob("evaluators_*"))) == 1


def test_a_kill_between_the_votes_and_the_state_that_counts_them(
    dataset, pooled, tmp_path, monkeypatch
):
    """Where an evaluation is made after its checkpoint, its votes and its place are two files."""
    run = tmp_path / "run"
    config = small_run(dataset, run, epochs=4, evaluators=POOLED)
    trainer, asked = Trainer(config), []

    def end():
        asked.append(trainer.progress.step)
        return asked.count(3) == 2  # in the third evaluation

    trainer.fit(end)
    (step,) = (path for path in run.glob("step_*") if path.name == "step_0000003")
    before = {path.name for path in step.iterdir()}

    def killed(path):
        if path.name == "state.json":
            raise KeyboardInterrupt
        return atomic_file(path)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "atomic_file", killed)
        with pytest.raises(KeyboardInterrupt):
            Trainer(config, resume=run).fit()
    assert {path.name for path in step.iterdir()} - before == {"evaluators_000003.safetensors"}
    again = Trainer(config, resume=run)
    again.fit()
    assert judgements_of(run) == judgements_of(pooled.run)
    assert again.evaluators[0].votes == pooled.evaluators[0].votes


def test_resuming_without_votes_says_so(dataset, tmp_path, capsys):
    run = tmp_path / "run"
    Trainer(small_run(dataset, run)).fit()
    assert not list(run.glob("*/evaluators_*"))
    trainer = Trainer(small_run(dataset, run, epochs=3, evaluators=POOLED), resume=run)
    trainer.fit()
    assert "has no votes: ARC counts anew" in capsys.readouterr().err
    assert votes_in(trainer) == 12
    trainer = Trainer(small_run(dataset, run, epochs=4), resume=run)  # nor are they taken up
    trainer.fit()
    assert votes_in(trainer) == 12


def test_the_evaluator_sees_what_evaluation_saves(dataset, tmp_path):
    """Every real row once: the votes are those of the saved outputs, and padding has none."""
    trainer = Trainer(
        small_run(
            dataset, tmp_path / "run", eval_interval=2, global_batch_size=5,
            eval_save_outputs=["inputs", "preds", "puzzle_identifiers", "q_halt_logits"],
        )
    )  # fmt: skip
    trainer.fit()
    (path,) = (tmp_path / "run").glob("outputs_*.npz")
    saved = dict(np.load(path))
    assert len(saved["preds"]) == 12
    again = ArcEvaluator.of(trainer.test_data)
    batch = {name: saved[name] for name in ("inputs", "puzzle_identifiers")}
    again.update(batch, {name: saved[name] for name in ("preds", "q_halt_logits")})
    (evaluator,) = trainer.evaluators
    assert evaluator.votes == again.votes
    assert votes_in(trainer) == 12


def test_labels_as_answers_solve_everything(dataset):
    """The builder's own test split, shown with its labels, through two mixed datasets."""
    data = PuzzleDataset([dataset], "test")
    evaluator = ArcEvaluator.of(data)
    owners = np.searchsorted(data.puzzle_indices, np.arange(12), side="right") - 1
    batch = data.batch(np.arange(12), owners, 15)
    evaluator.update(batch, {"preds": batch["labels"], "q_halt_logits": np.zeros(15)})
    assert evaluator.result().metrics == {f"pass@{k}": 1.0 for k in KS} | {"unanswered": 0.0}


def copy_of(dataset, folder):
    for path in dataset.rglob("*"):
        target = folder / path.relative_to(dataset)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("test_puzzles.json", None, "test_puzzles.json: No such file.* set evaluators=\\[\\]"),
        ("identifiers.json", None, "identifiers.json: No such file"),
        ("identifiers.json", "{", "identifiers.json is not JSON"),
        ("identifiers.json", "{}", "identifiers.json holds no list"),
        ("identifiers.json", '["<blank>"]', "1 puzzles are named, but the dataset counts 7"),
        ("test_puzzles.json", '{"p": {}}', "test_puzzles.json: puzzle p: has no list of tests"),
        ("test_puzzles.json", '{"p": {"test": 5}}', "puzzle p: has no list of tests"),
        ("test_puzzles.json", '{"p": {"test": [{"input": [[1]]}]}}', "puzzle p: missing, not"),
    ],
)
def test_a_dataset_without_its_puzzles(dataset, tmp_path, name, content, match):
    """Found before training, which may take days."""
    directory = copy_of(dataset, tmp_path / "d")
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_text(content)
    with pytest.raises(InputError, match=match):
        Trainer(small_run(directory, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_several_datasets_have_the_identifiers_of_the_loader(dataset, tmp_path):
    other = copy_of(dataset, tmp_path / "other")
    data = PuzzleDataset([dataset, other], "test")
    (evaluator,) = build_evaluators([EvaluatorConfig(name="arc")], data)
    assert len(evaluator.names) == data.metadata.num_puzzle_identifiers == 13
    own = json.loads((dataset / "identifiers.json").read_text())
    assert evaluator.names == own + own[1:]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--evaluators", "chess"], "evaluators.name=chess: choose one of arc"),
        (["--evaluators", "arc", "--output-dir", "none/a"], "there is no folder none, create it"),
        (["--evaluators", "arc", "--output-dir", __file__], "is a file: name a folder"),
    ],
)
def test_unusable_command_lines(dataset, tmp_path, capsys, options, match):
    save_model(tmp_path, Trainer(small_run(dataset, tmp_path / "run")).model)
    assert main(["eval", str(tmp_path), "--data", str(dataset), *options]) == 2
    assert match in capsys.readouterr().err
