"""``trm solve`` on CSV files, its options of computation, and the same options of ``trm eval``."""

import csv
import errno
import gzip
import io
import json
import sys
import time

import mlx.core as mx
import numpy as np
import pytest

import trm_mlx
from trm_mlx import SearchConfig, Solver, progress
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.data.arrays import SplitArrays
from trm_mlx.data.writer import write_dataset
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model
from trm_mlx.solve import csv_files
from trm_mlx.solve.questions import Source, bundled_model, find_source, read_questions
from trm_mlx.solve.solver import measure
from trm_mlx.tasks.sudoku import Sudoku

TASK = Sudoku(4)
QUESTIONS, ANSWERS, _ = TASK.generate(30, np.random.default_rng(0), extra_givens=4)
COLUMNS = "question,answer,solved,steps,confidence,trajectories,evaluations,rule_checked"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained model that halts its puzzles at its first step, or never."""
    arch = arch_config(
        "trm", hidden_size=16, num_heads=2, L_layers=1, puzzle_emb_ndim=0, halt_max_steps=3
    )
    model = build_model(ModelConfig.of(arch, seq_len=16, vocab_size=6, num_puzzle_identifiers=1))
    model.q_head.weight = mx.random.normal(model.q_head.weight.shape, key=mx.random.key(3))
    first, *_ = trm_mlx.refine(model, TASK.encode(QUESTIONS))
    logits = np.log(first.halt_probability / (1 - first.halt_probability))
    model.q_head.bias = mx.array([-5.0 - float(np.median(logits)), 0.0])
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, model)
    return folder


@pytest.fixture
def puzzles(tmp_path):
    """A CSV file in the published layout."""
    path = tmp_path / "puzzles.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "question", "answer", "rating"])
        for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
            writer.writerow(["here", TASK.line(question), TASK.line(answer), 0])
    return path


def solve(checkpoint, *words):
    return main(["solve", "--checkpoint", str(checkpoint), *map(str, words)])


def refusal(capsys, checkpoint, *words):
    capsys.readouterr()
    assert solve(checkpoint, *words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    line = output.err.splitlines()[-1]
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_to_csv(checkpoint, puzzles, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert solve(checkpoint, puzzles, "-o", out, "--batch-size", 4, "--trajectories", 1) == 0
    summary = capsys.readouterr().out
    assert out.read_text().splitlines()[0] == COLUMNS
    rows = rows_of(out)
    assert [row["question"] for row in rows] == [TASK.line(question) for question in QUESTIONS]
    model, _ = trm_mlx.load(checkpoint)
    expected = list(Solver(model).solve(TASK.encode(QUESTIONS)))
    for row, question, solution in zip(rows, QUESTIONS, expected, strict=True):
        answer = TASK.decode(solution.answer)
        assert row["answer"] == TASK.line(answer)
        assert row["solved"] == ("true" if TASK.check(question, answer) else "false")
        assert float(row["confidence"]) == pytest.approx(solution.confidence, abs=2e-4)
        for name in ("steps", "trajectories", "evaluations"):
            assert int(row[name]) == getattr(solution, name)
        assert row["rule_checked"] == "false"
    assert len({row["steps"] for row in rows}) > 1
    solved = sum(row["solved"] == "true" for row in rows)
    evaluations = sum(int(row["evaluations"]) for row in rows) / 30
    assert f"{out}: 30 rows, {solved} solved, 0 unreadable; 1.00 attempts and" in summary
    assert f"{evaluations:.2f} network runs a puzzle, answer chosen by q" in summary
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "puzzles.csv"]


def test_broken_rows_are_reported_and_kept(checkpoint, tmp_path, capsys):
    good = [TASK.line(question) for question in QUESTIONS[:3]]
    bad = ["", "11" + "." * 14, "x", "7" + "." * 15]
    file = tmp_path / "in.csv"
    # Before, between and after good ones; the last two lines have no field, and bytes of no text.
    lines = ["rating,question", f"1,{bad[0]}", f"1,{good[0]}", f"1,{bad[1]}", f"1,{bad[2]}"]
    lines += [f"1,{good[1]}", f"1,{good[2]}", f"1,{bad[3]}", "1"]
    file.write_bytes("\n".join(lines).encode() + b"\n1,\xff\xfe\n")
    out = tmp_path / "out.csv"
    assert solve(checkpoint, file, "-o", out) == 1
    output = capsys.readouterr()
    assert f"{out}: 9 rows, " in output.out
    assert ", 6 unreadable; " in output.out
    complaints = [line for line in output.err.splitlines() if line.startswith(str(file))]
    reasons = {int(line.split("line ")[1].split(":")[0]): line for line in complaints}
    assert list(reasons) == [2, 4, 5, 8, 9, 10]
    assert "r1c1 and r1c2 both hold 1" in reasons[4]
    assert "digit 7 at r1c1 does not fit" in reasons[8]
    rows = rows_of(out)
    assert [row["question"] for row in rows[:7]] == [
        bad[0], good[0], bad[1], bad[2], good[1], good[2], bad[3],
    ]  # fmt: skip
    assert [bool(row["answer"]) for row in rows] == [False, True, False, False, True, True] + (
        [False] * 3
    )
    assert all(row["solved"] == "false" for row in rows if not row["answer"])


def test_field_too_long(checkpoint, puzzles, tmp_path, capsys):
    """What the csv module refuses is one row's affair too."""
    lines = puzzles.read_text().splitlines()
    lines.insert(3, "a," + "1" * (csv.field_size_limit() + 1) + ",,")
    puzzles.write_text("\n".join(lines) + "\n")
    assert solve(checkpoint, puzzles, "-o", tmp_path / "out.csv") == 1
    assert f"{puzzles} line 4: field larger than field limit" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "out.csv")) == 31


def test_rows_are_read_as_they_are_written(checkpoint, tmp_path):
    """Constant memory: never far more rows read than written, of however many."""
    task, ahead, written = Sudoku(4), [], [0]
    file = tmp_path / "in.csv"
    file.write_text("question\n" + "\n".join(map(TASK.line, np.tile(QUESTIONS, (8, 1)))) + "\n")
    read = [0]

    def counted():
        for question in read_questions(Source("in.csv", table=file), task):
            read[0] += 1
            yield question

    def tick(rows):
        written[0] += rows
        ahead.append(read[0] - written[0])

    model, _ = trm_mlx.load(checkpoint)
    solver = Solver(model, max_steps=1, batch_size=4)
    csv_files.solve_table(solver, task, counted(), tmp_path / "out.csv", "in.csv", print, tick)
    assert written == [240]
    assert max(ahead) <= 16 * 4 + 8


def test_full_disk(checkpoint, puzzles, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.csv"
    out.write_text("precious")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    line = refusal(capsys, checkpoint, puzzles, "-o", out)
    assert line == f"cannot write {out}: No space left on device; nothing was written"
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "puzzles.csv"]


def test_interrupted(checkpoint, puzzles, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(csv_files, "_row", interrupted)
    assert solve(checkpoint, puzzles, "-o", tmp_path / "out.csv") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["puzzles.csv"]


def test_files_that_cannot_be_used(checkpoint, puzzles, tmp_path, capsys):
    out = tmp_path / "out.csv"

    def refused(*words):
        line = refusal(capsys, checkpoint, *words)
        assert not out.exists()
        return line

    absent, file = tmp_path / "absent.csv", tmp_path / "in.csv"
    assert refused(absent, "-o", out).startswith(f"there is no file {absent}")
    assert refused(tmp_path, "-o", out).startswith(f"{tmp_path} is a folder")
    for content, message in (
        ("", f"{file} is empty: write a puzzle"),
        ("name,age\nx,1\n", f"{file} has no column for the question: its first line must name"),
        ("question\n", f"{file} has no puzzles after its header"),
    ):
        file.write_text(content)
        assert refused(file, "-o", out).startswith(message)
    missing = tmp_path / "no" / "out.csv"
    assert refused(puzzles, "-o", missing).startswith(f"{missing}: there is no folder")
    assert refused(puzzles, "-o", tmp_path) == f"{tmp_path} is a folder: name a file to write"
    assert "is the input itself" in refused(puzzles, "-o", puzzles)
    assert "batch_size 0: must be at least 1" in refused(puzzles, "-o", out, "--batch-size", 0)


# Inputs of every form


def answers(path):
    return [row["question"] for row in rows_of(path) if row["answer"]]


def test_any_input_becomes_a_table_of_answers(checkpoint, puzzles, tmp_path, capsys, monkeypatch):
    lines = [TASK.line(question) for question in QUESTIONS[:3]]
    text, out = "\n".join(lines), tmp_path / "out.csv"
    words = ["-o", out, "--trajectories", 1]
    (tmp_path / "list.txt").write_text(text)
    (tmp_path / "list.json").write_text(json.dumps(lines))
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps({"Puzzle": t}) for t in lines))
    (tmp_path / "windows.txt").write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    (tmp_path / "utf16.txt").write_bytes(text.encode("utf-16"))
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(f"quizzes\n{text}\n".encode()))
    (tmp_path / "mine.csv").write_text("start;end\n" + text.replace("\n", ";\n") + ";\n")
    for source in (
        [text], [tmp_path / "list.txt"], ["--file", tmp_path / "list.txt"],
        [tmp_path / "list.json"], [tmp_path / "list.jsonl"], [tmp_path / "windows.txt"],
        [tmp_path / "utf16.txt"], [tmp_path / "list.csv.gz"],
        [tmp_path / "mine.csv", "--question-column", "start"],
    ):  # fmt: skip
        out.unlink(missing_ok=True)
        assert solve(checkpoint, *source, *words) == 0
        assert answers(out) == lines, source
    for source in (["-"], ["--file", "-"], []):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-16"))))
        assert solve(checkpoint, *source, *words) == 0
        assert answers(out) == lines


def test_puzzles_of_a_dataset_become_a_table_of_answers(checkpoint, data, tmp_path):
    out = tmp_path / "out.csv"
    assert solve(checkpoint, "--data", data, "--index", 4, 2, "-o", out, "--trajectories", 1) == 0
    assert answers(out) == [TASK.line(QUESTIONS[4]), TASK.line(QUESTIONS[2])]


def test_a_file_in_a_puzzles_place_is_read_and_a_missing_one_said(checkpoint, tmp_path, capsys):
    puzzle = TASK.line(QUESTIONS[0])
    file = tmp_path / "puzzle.txt"
    file.write_text(TASK.render(QUESTIONS[0]))
    solve(checkpoint, puzzle, "--trajectories", 1)
    expected = capsys.readouterr().out
    solve(checkpoint, file, "--trajectories", 1)
    assert capsys.readouterr().out == expected
    for name in ("absent.txt", f"{tmp_path}/absent", "~/absent.sdm"):
        assert refusal(capsys, checkpoint, name) == (
            f"there is no file {name}: correct its name, or write a puzzle"
        )
    assert refusal(capsys, checkpoint, tmp_path).startswith(f"{tmp_path} is a folder: name a file")


def test_closed_input_is_one_line(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal(capsys, checkpoint).startswith("no puzzle: write one after trm solve")


def test_puzzles_of_another_kind_are_told(checkpoint, capsys):
    maze = "\n".join(["S...."] + ["....."] * 3 + ["....G"])
    line = refusal(capsys, checkpoint, maze)
    assert line.endswith("looks like a 5x5 maze, where sudoku4x4 is wanted")


def test_what_no_bundled_model_solves_is_told(capsys):
    assert main(["solve", "\n".join(["S" + "." * 30] + ["." * 31] * 29 + ["." * 30 + "G"])]) == 2
    assert "no bundled model solves maze31x31. Models to choose from: " in capsys.readouterr().err
    assert main(["solve", "5" + "." * 79 + "A"]) == 2
    assert "looks like a 9x9 Sudoku; r9c9 holds 'A'" in capsys.readouterr().err


def test_the_bundled_model_is_one_that_reads_all_mazes():
    small, large = ("S" + "\n".join(["." * n] * n)[1:-1] + "G" for n in (7, 12))
    for mazes, name in (((small,), "maze-10x10"), ((small, large), "maze-30x30")):
        assert bundled_model(Source("mazes", "\n\n".join(mazes))) == name


def test_a_smaller_maze_is_shown_without_the_walls_around_it(tmp_path, capsys):
    rows = [
        "#########",
        "#S..#...#",
        "###.#.#.#",
        "#...#.#.#",
        "#.###.#.#",
        "#.....#G#",
        "#########",
    ]
    answer = [
        "#########",
        "#Soo#ooo#",
        "###o#o#o#",
        "#ooo#o#o#",
        "#o###o#o#",
        "#ooooo#G#",
        "#########",
    ]
    maze, target = tmp_path / "maze.txt", tmp_path / "answers.csv"
    maze.write_text("\n".join(rows))
    assert main(["solve", str(maze), "--save", str(tmp_path / "maze.html")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("\n".join(rows) + "\n\n")
    assert "\n\n" + "\n".join(answer) + "\n\n" in shown
    assert '"rows": 7, "columns": 9' in (tmp_path / "maze.html").read_text()
    assert main(["solve", str(maze), "-o", str(target)]) == 0
    with target.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["question"], row["answer"], row["solved"]) == (
        "\n".join(rows), "/".join(answer), "true",
    )  # fmt: skip
    assert trm_mlx.solve("\n".join(rows)).text == "/".join(answer)


def test_what_is_known_of_a_puzzle_is_said_after_a_failure(checkpoint, capsys):
    """Never as the answer: an untrained model solves neither."""
    for puzzle, words in (
        ("123. .... .... ...4", "the puzzle has no solution, as the exact solver finds"),
        ("." * 16, "the puzzle has several solutions, as the exact solver finds; this is none"),
    ):
        assert solve(checkpoint, puzzle, "--trajectories", 1) == 1
        assert words in capsys.readouterr().out
    unique = TASK.line(QUESTIONS[0])
    assert solve(checkpoint, unique, "--trajectories", 1) == 1
    assert "exact solver" not in capsys.readouterr().out


def test_long_work_is_seen_to_go_on(checkpoint, capsys, monkeypatch):
    """One line where there is no terminal; a line kept up to date where there is."""
    monkeypatch.setattr(progress, "SILENT", 0)
    monkeypatch.setattr(progress, "APART", 0)
    solve(checkpoint, TASK.line(QUESTIONS[0]), "--max-steps", 2, "--trajectories", 1)
    shown = capsys.readouterr()
    assert "solving" not in shown.out
    assert shown.err.count("up to 1 attempts of 2 steps a puzzle") == 1
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.StatusLine("begun") as line:
        time.sleep(0.1)
        line.update("going on")
    assert capsys.readouterr().err == "\rbegun\x1b[K\rgoing on\x1b[K\r\x1b[K"


def test_more_trajectories_alone_differ_as_those_of_the_default_search(checkpoint, capsys):
    words = [TASK.line(QUESTIONS[0]), "--halt-threshold", "none"]
    solve(checkpoint, *words, "--trajectories", 2)
    plain = capsys.readouterr().out
    solve(checkpoint, *words, "--trajectories", 2, "--restarts", "--symmetries", "--select", "rule")
    assert capsys.readouterr().out == plain
    assert "attempts 2, network runs 6, answer chosen by rule" in plain


def test_one_call_from_text_to_text(checkpoint):
    question, label = QUESTIONS[0], ANSWERS[0]
    answer = trm_mlx.solve(TASK.render(question))
    assert answer == (TASK.line(label), True, answer.steps)
    untrained = trm_mlx.solve(TASK.line(question), checkpoint=str(checkpoint))
    assert len(untrained.text) == 16
    assert not untrained.solved
    for text, problem in (
        (3, "a puzzle is text, such as '53..7....', not int"),
        ("", "looks like no puzzle"),
        ("11" + "." * 14, "r1c1 and r1c2 both hold 1"),
        (f"{TASK.line(question)}\n{TASK.line(question)}", "2 puzzles where one is wanted"),
    ):
        with pytest.raises(trm_mlx.InputError, match=problem):
            trm_mlx.solve(text)
    with pytest.raises(
        trm_mlx.InputError, match=r"sudoku4x4 does not exist: did you mean sudoku-4x4"
    ):
        trm_mlx.load("sudoku4x4")


# The options of computation


def test_options_reach_the_solver(checkpoint, puzzles, tmp_path, capsys):
    out = tmp_path / "out.csv"
    words = ["--max-steps", 4, "--halt-threshold", "none", "--trajectories", 3, "--symmetries"]
    words += ["--noise", 0.2, "--noise-on", "z_H", "--restarts", "--select", "rule", "--seed", 5]
    assert solve(checkpoint, puzzles, "-o", out, *words) == 0
    assert "chosen by rule" in capsys.readouterr().out
    search = SearchConfig(
        trajectories=3, symmetries=True, noise=0.2, noise_on="z_H", restarts=True, select="rule",
        seed=5,
    )  # fmt: skip
    model, _ = trm_mlx.load(checkpoint)
    solver = Solver(model, max_steps=4, halt_threshold=None, task=TASK, search=search)
    rows = rows_of(out)
    for row, solution in zip(rows, solver.solve(TASK.encode(QUESTIONS)), strict=True):
        assert row["answer"] == TASK.line(TASK.decode(solution.answer))
        assert int(row["evaluations"]) == solution.evaluations == 4 * solution.trajectories
        assert row["rule_checked"] == "true"


def test_shown_steps_are_those_of_the_chosen_trajectory(checkpoint, capsys):
    puzzle = TASK.line(QUESTIONS[0])
    words = ["--trajectories", 3, "--symmetries", "--select", "residual", "--halt-threshold", 1]
    solve(checkpoint, puzzle, *words)
    output = capsys.readouterr().out
    search = SearchConfig(trajectories=3, symmetries=True, select="residual")
    model, _ = trm_mlx.load(checkpoint)
    solver = Solver(model, halt_threshold=1, task=TASK, search=search, intermediates=True)
    (solution,) = solver.solve(TASK.encode(QUESTIONS[:1]))
    steps = [line.split()[-1] for line in output.splitlines() if line.startswith("step")]
    assert steps == [TASK.line(TASK.decode(output.answer)) for output in solution.outputs]
    assert "attempts 3, network runs 9, answer chosen by residual" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--noise", "0.1"], "set trajectories to at least 2"),
        (["--halt-threshold", "2"], "halt_threshold 2.0: must lie between 0 and 1"),
        (["--halt-threshold", "x"], "argument --halt-threshold: invalid"),
        (["--select", "best"], "invalid choice: 'best'"),
    ],
)
def test_bad_options(checkpoint, capsys, words, message):
    assert message in refusal(capsys, checkpoint, TASK.line(QUESTIONS[0]), *words)


def test_a_board_in_rows_and_boards_in_lines(checkpoint, tmp_path, capsys, monkeypatch):
    """Which of the two a text is, its shape tells."""
    lines = [TASK.line(question) for question in QUESTIONS[:2]]

    def shown(text):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        capsys.readouterr()
        solve(checkpoint)
        return capsys.readouterr().out

    boards = [TASK.render(question) for question in QUESTIONS[:2]]
    assert shown(boards[0]) == shown(lines[0])
    assert shown("\n".join(lines)).count("rules ") == 2
    assert shown("\n".join(boards)) == shown("\n".join(lines))


def test_puzzles_with_embeddings_of_their_own(tmp_path, capsys):
    """Each is solved with its own; their images, which have none, are not tried."""
    arch = arch_config("trm", hidden_size=16, num_heads=2, L_layers=1, halt_max_steps=2)
    model = build_model(ModelConfig.of(arch, seq_len=16, vocab_size=6, num_puzzle_identifiers=3))
    model.puzzle_emb.weights = mx.random.normal(model.puzzle_emb.weights.shape)
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", model)
    tokens, ends = TASK.encode(QUESTIONS[[0, 0]]), np.arange(3)
    arrays = SplitArrays(tokens, tokens, np.array([1, 2]), ends, ends)
    names = ["<blank>", "first", "second"]
    write_dataset(tmp_path / "data", {"test": arrays}, names, vocab_size=6, seq_len=16)
    words = ["--data", tmp_path / "data", "--halt-threshold", "none", "--trajectories", 1]

    def steps(*more):
        solve(tmp_path / "model", *words, *more)
        output = capsys.readouterr().out
        return [line for line in output.splitlines() if line.startswith("step")], output

    by_name, _ = steps("--name", "second")
    assert by_name == steps("--index", 1)[0]
    assert by_name != steps("--name", "first")[0]
    del words[2:]
    assert "attempts 16, network runs 32, answer chosen by rule" in steps("--name", "second")[1]
    line = refusal(capsys, tmp_path / "model", *words, "--trajectories", 2, "--symmetries")
    assert line.startswith("puzzle 0: the embedding of puzzle identifier 1 is not one of")


# Evaluation with the same options


@pytest.fixture
def data(tmp_path):
    arrays = SplitArrays.of(TASK.encode(QUESTIONS), TASK.encode(ANSWERS))
    write_dataset(tmp_path / "data", {"test": arrays}, ["<blank>"], vocab_size=6, seq_len=16)
    return tmp_path / "data"


def evaluate(capsys, checkpoint, data, *words):
    capsys.readouterr()
    words = ["eval", checkpoint, "--data", data, "--json", *words]
    assert main(list(map(str, words))) == 0
    return json.loads(capsys.readouterr().out)["all"]


def test_eval_with_fixed_steps_is_the_published_evaluation(checkpoint, data, capsys):
    published = evaluate(capsys, checkpoint, data)
    fixed = evaluate(capsys, checkpoint, data, "--halt-threshold", "none")
    for name in ("count", "accuracy", "exact_accuracy", "steps"):
        assert fixed[name] == pytest.approx(published[name], rel=1e-6)
    assert (fixed["trajectories"], fixed["evaluations"], fixed["rule_checked"]) == (1, 3, 0)
    assert "lm_loss" not in fixed


def test_eval_says_what_was_spent(checkpoint, data, capsys):
    adaptive = evaluate(capsys, checkpoint, data, "--halt-threshold", 0.5)
    assert 1 < adaptive["steps"] == adaptive["evaluations"] < 3
    words = ["--trajectories", 4, "--symmetries", "--select", "rule", "--batch-size", 7]
    searched = evaluate(capsys, checkpoint, data, *words)
    assert 1 < searched["trajectories"] <= 4
    assert searched["evaluations"] > adaptive["evaluations"]
    assert searched["rule_checked"] == 1
    assert searched["exact_accuracy"] >= adaptive["exact_accuracy"]


def test_eval_refuses_what_does_not_go_together(checkpoint, data, capsys):
    words = ["eval", str(checkpoint), "--data", str(data), "--restarts", "--save", "preds"]
    assert main(words) == 2
    assert (
        "--save, --loss and --evaluators belong to the published evaluation"
        in capsys.readouterr().err
    )


def test_measure_counts_labelled_tokens_only(checkpoint, data):
    from trm_mlx.data.dataset import PuzzleDataset

    path = data / "test" / "all__labels.npy"
    labels = np.load(path)
    model, _ = trm_mlx.load(checkpoint)
    answers, _ = Solver(model).predict(TASK.encode(QUESTIONS))
    labels[:, 3:] = 0  # what the metadata calls unlabelled
    np.save(path, labels)
    metrics = measure(Solver(model), PuzzleDataset([data], "test"))["all"]
    right = answers[:, :3] == labels[:, :3]
    assert metrics["accuracy"] == pytest.approx(right.mean())
    assert metrics["exact_accuracy"] == pytest.approx(right.all(axis=1).mean())


@pytest.mark.parametrize("heading", ["Sudoku", "Puzzle, hard", "question,answer", "Sudoku,,,"])
def test_a_heading_makes_no_table_of_a_board(tmp_path, heading):
    for name, rows in (("a.txt", "1...\n..2.\n.3..\n...4"), ("a.csv", "1,,,\n,,2,\n,3,,\n,,,4")):
        path = tmp_path / name
        path.write_text(f"{heading}\n{rows}\n")
        (question,) = read_questions(find_source(None, str(path)))
        assert question.task.line(question.values) == "1000002003000004"
