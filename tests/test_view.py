"""Recordings: on the terminal, as pictures and as a page; ``trm solve --watch, --save``."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import trm_mlx
from trm_mlx import InputError, SearchConfig, Solver
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model
from trm_mlx.solve import batcher
from trm_mlx.solve.scheduler import Solution, StepEvent
from trm_mlx.solve.search import StepOutput
from trm_mlx.tasks import arc, get
from trm_mlx.tasks.arc import ARC, canvas_of
from trm_mlx.tasks.base import Task
from trm_mlx.tasks.maze import PATH
from trm_mlx.view import image, terminal
from trm_mlx.view.recording import FrameBuilder, Mark, Verdict, recording_of
from trm_mlx.view.save import save
from trm_mlx.view.style import FILLS, STRONG_FILLS, cells_of, legend_of, style_of
from trm_mlx.view.terminal import Screen, ScreenContext

SUDOKU = get("sudoku4x4")
QUESTION = SUDOKU.parse("1... .... .... ...4")
STEPS = ("12.. .... .... ...4", "1323 3... .... ...4", "1342 4213 2431 3124")
DRAWN = ["sudoku4x4", "sudoku6x6", "sudoku9x9", "maze9x9", "addition3", "arc"]


def record(task, question, boards):
    """A recording of given boards; the n-th step is sure of what it fills in by n / steps."""
    outputs = tuple(
        StepOutput(
            task.encode(board).astype(np.int32),
            number / len(boards),
            np.where(board == question, 1, number / len(boards)).astype(np.float32),
            {},
        )
        for number, board in enumerate(boards, start=1)
    )
    solution = Solution(
        answer=outputs[-1].answer,
        steps=len(outputs),
        confidence=1.0,
        halted=True,
        residual=0.0,
        outputs=outputs,
        evaluations=len(outputs),
    )
    return recording_of(task, question, solution, Verdict(True, "rules satisfied"))


def board(text):
    return np.array([int(c) for c in text.replace(" ", "").replace(".", "0")], np.uint8)


@pytest.fixture
def sudoku():
    return record(SUDOKU, QUESTION, [board(step) for step in STEPS])


def any_recording(name):
    if name == "arc":
        grids = np.random.default_rng(0).integers(0, 10, (3, 5, 7)).astype(np.uint8)
        question, *boards = map(canvas_of, grids)
        return record(ARC(), question, boards)
    task = get(name)
    puzzles = task.generate(1, np.random.default_rng(0))
    question, answer = puzzles.questions[0], puzzles.answers[0]
    half = np.where(np.arange(len(answer)) % 2, answer, question)
    return record(task, question, [half, answer])


def test_marks(sudoku):
    _, first, second, _ = sudoku.frames
    assert first.marks[:3].tolist() == [Mark.GIVEN, Mark.NEW, Mark.GIVEN]
    assert second.changes == 4
    # r1c2 and r1c4 are both 3, as is r2c1 in the same box; r1c3 is a new 2 that fits.
    assert second.marks[:5].tolist() == [
        Mark.GIVEN, Mark.WRONG, Mark.NEW, Mark.WRONG, Mark.WRONG,
    ]  # fmt: skip
    changed = record(SUDOKU, QUESTION, [board(STEPS[0]), board("13.. .... .... ...4")])
    assert changed.frames[2].marks[1] == Mark.CHANGED


def shown(made, delay, trajectories=1):
    """What `Screen` makes of the steps of a recording, all of them of the first trajectory."""
    first, *frames = made.frames
    context = ScreenContext(made.task, first.values, len(frames), trajectories)
    with Screen(context, delay) as screen:
        for frame in frames:
            output = StepOutput(made.task.encode(frame.values), frame.halting, frame.cells, {})
            screen.on_step(StepEvent(0, 0, frame.step, output))
        screen.finish(made, 0)


def test_plain_frames(sudoku, capsys):
    shown(sudoku, delay=60)  # waits for nobody where nobody looks
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert output.startswith("the question\n")
    assert re.findall(r"^step (\d) of 3", output, re.M) == ["1", "2", "3"]
    assert " 1+2 | . ." in output
    assert " 1!3 |+2!3" in output
    assert "sure it is done [#######.............] 33.3 %" in output
    assert "attempt" not in output


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """No colour, and a time that `sleep` alone moves; the time, and the waits."""
    now, waits = [100.0], []

    def sleep(seconds):
        waits.append(round(seconds, 6))
        now[0] += seconds

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(terminal.time, "sleep", sleep)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now, waits


def test_no_colour_where_it_is_not_wanted(sudoku, clock, monkeypatch):
    _, waits = clock
    monkeypatch.setattr("sys.stdout", Terminal())  # here: after the fixtures pytest sets its own
    shown(sudoku, delay=0.3)
    assert waits == [0, 0.3, 0.3, 0.3]  # before each frame; the last one is not waited for
    assert "\x1b" not in terminal.sys.stdout.getvalue()


def test_a_slow_model_is_not_slowed_down(sudoku, clock, monkeypatch):
    now, waits = clock
    make = terminal.FrameBuilder.next

    def slow(self, output, trajectory):
        now[0] += 0.2
        return make(self, output, trajectory)

    monkeypatch.setattr(terminal.FrameBuilder, "next", slow)
    monkeypatch.setattr("sys.stdout", Terminal())
    shown(sudoku, delay=0.3)
    assert waits == [0, 0.1, 0.1, 0.1]


def test_trajectories_in_turns(capsys):
    """As a batch of several rows works on them; marks follow each trajectory for itself."""
    context = ScreenContext(SUDOKU, QUESTION, 2, 2)
    boards = {(0, 1): STEPS[0], (1, 1): STEPS[2], (0, 2): STEPS[1], (1, 2): STEPS[2]}
    with Screen(context, 0) as screen:
        for (trajectory, step), text in boards.items():
            answer = SUDOKU.encode(board(text))
            screen.on_step(StepEvent(0, trajectory, step, StepOutput(answer, 0.5, np.ones(16), {})))
        screen.finish(record(SUDOKU, QUESTION, [board(STEPS[0]), board(STEPS[1])]), 0)
    output = capsys.readouterr().out
    headings = re.findall(r"^attempt (\d) of 2, step (\d) of 2 +(\d+) cells? ", output, re.M)
    assert headings == [
        ("1", "1", "1"), ("2", "1", "14"), ("1", "2", "4"), ("2", "2", "0"), ("1", "2", "4"),
    ]  # fmt: skip


def test_colours_of_cells(sudoku):
    rich = pytest.importorskip("rich.console")
    text = terminal.styled(ScreenContext(SUDOKU, QUESTION, 3, 1), sudoku.frames[2])
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert styles["[" + "#" * 13] == "bright_green"  # 2/3 of a bar of 20
    assert styles["!3"] == terminal.STYLES[Mark.WRONG]
    assert styles["+2"] == terminal.STYLES[Mark.NEW]
    stream = io.StringIO()
    rich.Console(file=stream, force_terminal=True, color_system="standard", no_color=False).print(
        text
    )
    assert "\x1b[1;37;41m!3" in stream.getvalue()


def test_rich_is_asked_for_where_it_is_needed(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'trm-mlx\[view\]', or set NO_COLOR=1"):
        terminal.colourful()


class Plain(Task):
    name, seq_len, vocab_size = "plain", 3, 4

    def render(self, values, givens=None):
        return "<" + " ".join(map(str, values)) + ">"


def test_confidence_is_relative_to_that_in_given_cells():
    """Trained on smoothed labels, a model is sure by 0.8 of what it is given: no doubt, but 1."""
    output = StepOutput(SUDOKU.encode(board(STEPS[2])), 0.5, np.full(16, 0.4), {})
    output.cell_confidence[[0, 15]] = 0.75, 0.8  # as in the question
    frame = FrameBuilder(SUDOKU, QUESTION).next(output)
    np.testing.assert_allclose(frame.cells[[0, 1, 15]], [0.75 / 0.8, 0.5, 1])


def painted_recording():
    """A maze whose second step gives up the third cell of a path."""
    task = get("maze5x5")
    question = task.parse("S..G." + "\n....." * 4)
    first, second = question.copy(), question.copy()
    first[[1, 2]] = second[1] = PATH
    return record(task, question, [first, second])


def test_what_is_no_longer_path_is_not_filled():
    made = painted_recording()
    style = style_of(made)
    cells = [cells_of(style, frame.values, frame.marks)[0] for frame in made.frames]
    assert {cell.fill for cell in cells[1][1:3]} == {STRONG_FILLS[Mark.NEW]}
    assert cells[2][2].fill == cells[0][2].fill
    assert cells[2][2].dot == STRONG_FILLS[Mark.CHANGED]
    assert cells[0][0].fill != cells[0][3].fill  # start and goal
    words = dict(legend_of(style))
    assert [*words] == ["path", "new", "no longer path", "breaks a rule"]
    assert words["no longer path"].dot == cells[2][2].dot


@pytest.mark.parametrize("lines", [24, 10])
def test_painted_boards_fit_the_terminal(lines, monkeypatch):
    """A cell is two characters wide or, where the terminal is too low, half a character."""
    pytest.importorskip("rich")
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, lines)))
    made = painted_recording()
    context = ScreenContext(made.task, made.frames[0].values, 2, 1)
    text = terminal.styled(context, made.frames[2])
    board = text.plain.split("\n\n")[1].splitlines()
    assert board[0] == ("S   ● G   " if lines == 24 else "▀" * 5)
    assert len(board) == (5 if lines == 24 else 3)
    assert "no longer path" in text.plain
    assert "  1 cell changed" in text.plain


def test_tasks_of_ones_own(tmp_path):
    """A task that says nothing of its board is drawn in a row, its values as numbers."""
    own = record(Plain(), np.array([0, 0, 1]), [np.array([2, 1, 1])])
    context = ScreenContext(own.task, own.frames[0].values, 1, 1)
    assert terminal.plain(context, own.frames[1]).endswith("\n+2+1 1")
    save(own, tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text("utf-8")
    data = json.loads(re.search(r"^const recording = (.*);$", text, re.M)[1])
    assert (data["rows"], data["columns"]) == (1, 3)
    assert [cell[:2] for cell in data["frames"][1]["cells"]] == [
        ["2", "new"], ["1", "new"], ["1", "given"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_pictures(tmp_path, name, suffix):
    image_module = pytest.importorskip("PIL.Image")
    made = any_recording(name)
    save(made, tmp_path / f"out.{suffix}")
    with image_module.open(tmp_path / f"out.{suffix}") as image:
        assert 300 < image.width < 1000
        assert 120 < image.height < 1000
        assert len(image.convert("RGB").getcolors(1 << 20)) > 8
        if suffix == "gif":
            assert image.n_frames == len(made.frames)


def test_pixels(tmp_path, sudoku):
    image_module = pytest.importorskip("PIL.Image")
    from trm_mlx.view import image

    wrong = sudoku._replace(frames=sudoku.frames[:3])
    save(wrong, tmp_path / "out.png")
    size = 396 // 4
    with image_module.open(tmp_path / "out.png") as drawn:

        def cell(index, x=0):
            row, column = divmod(index, 4)
            return drawn.getpixel((x + column * size + 12, 64 + row * size + 12))

        left, right = image.MARGIN, drawn.width - image.MARGIN - 4 * size
        fills = [cell(index, left) for index in (0, 2, 1)]  # given, filled, wrong
        expected = [FILLS[mark] for mark in (Mark.GIVEN, Mark.KEPT, Mark.WRONG)]
        assert ["#{:02x}{:02x}{:02x}".format(*fill) for fill in fills] == expected
        assert cell(1, right) == image.ramp_colour(2 / 3)
        assert "#{:02x}{:02x}{:02x}".format(*cell(0, right)) == FILLS[Mark.GIVEN]


def test_a_cell_given_back_is_not_filled():
    pytest.importorskip("PIL")

    back = record(SUDOKU, QUESTION, [board(STEPS[0]), QUESTION])
    assert back.frames[-1].marks[1] == Mark.CHANGED
    assert image.settled(back).marks[1] == Mark.GIVEN


def test_arc_has_its_colours(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    grid = np.arange(10, dtype=np.uint8).reshape(2, 5)
    save(record(ARC(), canvas_of(grid), [canvas_of(grid)]), tmp_path / "out.png")
    with image_module.open(tmp_path / "out.png") as image:
        seen = [
            "#{:02x}{:02x}{:02x}".format(*image.getpixel((28 + c * 79 + 40, 64 + r * 79 + 40)))
            for r in range(2)
            for c in range(5)
        ]
    assert seen == list(arc.FILLS[2:])


@pytest.mark.parametrize("name", DRAWN)
def test_page(tmp_path, name):
    made = any_recording(name)
    save(made, tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text("utf-8")
    assert not re.search(r"https?:|//[a-z]|src=|<link|@import|{{", text)
    data = json.loads(re.search(r"^const recording = (.*);$", text, re.M)[1])
    assert [frame["step"] for frame in data["frames"]] == list(range(len(made.frames)))
    assert {len(frame["cells"]) for frame in data["frames"]} == {data["rows"] * data["columns"]}
    assert data["frames"][-1]["cells"][0][3] == 1


# The command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    mx.random.seed(0)
    arch = arch_config(
        "trm", hidden_size=16, num_heads=2, L_layers=1, puzzle_emb_ndim=0, halt_max_steps=3
    )
    model = build_model(ModelConfig.of(arch, seq_len=16, vocab_size=6, num_puzzle_identifiers=1))
    folder = tmp_path_factory.mktemp("saved")
    save_model(folder, model)
    return folder


def solve(checkpoint, *words):
    line = ["solve", SUDOKU.line(QUESTION), "--checkpoint", checkpoint, "--trajectories", 1, *words]
    return main(list(map(str, line)))


def test_watch_and_save(checkpoint, tmp_path, capsys):
    target = tmp_path / "out.html"
    words = ["--halt-threshold", "none", "--watch", "--save", target]
    assert solve(checkpoint, *words) == 1  # the model is untrained
    output = capsys.readouterr().out
    assert re.findall(r"^step (\d) of 3", output, re.M) == ["1", "2", "3"]
    assert "rules broken" in output
    assert output.splitlines()[-1] == str(target)
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_steps_are_shown_as_they_are_computed(checkpoint, monkeypatch, capsys):
    """Step t + 1 is under way while step t is shown; nothing beyond it has begun."""
    made, launched, seen = batcher.batch_step, [], []

    def counting(*options):
        step = made(*options)
        return lambda *arguments: launched.append(1) or step(*arguments)

    def spy(screen, trajectory, frame):
        seen.append((trajectory, frame.step, len(launched)))
        return show(screen, trajectory, frame)

    show = Screen._show
    monkeypatch.setattr("trm_mlx.solve.solver.batch_step", counting)
    monkeypatch.setattr(Screen, "_show", spy)
    solve(checkpoint, "--halt-threshold", "none", "--max-steps", 5, "--watch")
    assert seen == [(0, 0, 0), (0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5), (0, 5, 5)]
    headings = re.findall(r"^step (\d) of 5", capsys.readouterr().out, re.M)
    assert headings == ["1", "2", "3", "4", "5"]


def test_the_last_frame_is_the_answer(checkpoint, capsys):
    """Of several trajectories the one whose answer was taken, though others came after it."""
    words = ["--trajectories", 4, "--symmetries", "--select", "residual", "--halt-threshold", 1]
    model, _ = trm_mlx.load(checkpoint)
    for seed in range(9):
        search = SearchConfig(trajectories=4, symmetries=True, select="residual", seed=seed)
        solver = Solver(model, halt_threshold=1, task=SUDOKU, search=search, intermediates=True)
        (solution,) = solver.solve(SUDOKU.encode(QUESTION)[None])
        if solution.trajectory < 3:
            break
    assert solution.trajectory < 3
    solve(checkpoint, *words, "--seed", seed, "--watch")
    output = capsys.readouterr().out
    frames = re.findall(r"^attempt (\d) of 4, step (\d) of 3.*\nsure .*\n((?:.+\n)+)", output, re.M)
    order = [(str(t), str(s)) for t in (1, 2, 3, 4) for s in (1, 2, 3)]
    assert [frame[:2] for frame in frames] == [*order, (str(solution.trajectory + 1), "3")]
    values = SUDOKU.decode(solution.answer)
    digits = [character for character in frames[-1][2] if character in "01234."]
    assert "".join(digits).replace(".", "0") == SUDOKU.line(values)


@pytest.mark.parametrize("pipe", [True, False], ids=["nobody reads", "Ctrl-C"])
def test_watching_ends_early(checkpoint, pipe):
    line = [sys.executable, "-m", "trm_mlx", "solve", SUDOKU.line(QUESTION), "--watch"]
    line += ["--checkpoint", str(checkpoint), "--trajectories", "1", "--halt-threshold", "none"]
    with subprocess.Popen(
        [*line, "--max-steps", "1000000"],
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while not process.stdout.readline().startswith("step 2 of "):
                pass
            if pipe:
                process.stdout.close()
            else:
                process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == (141 if pipe else 130)
            said = [line for line in process.stderr if not line.startswith("MLX ")]
            assert said == ([] if pipe else ["interrupted\n"])
        finally:
            process.kill()


def test_refusals(checkpoint, tmp_path, capsys, monkeypatch):
    def refused(*words):
        assert solve(checkpoint, *words) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert not any(tmp_path.glob("out*"))
        return error

    assert "end the name in .png, .gif or .html" in refused("--save", tmp_path / "out.jpg")
    assert "there is no folder" in refused("--save", tmp_path / "no" / "out.png")
    assert "must lie between 0 and 60" in refused("--watch", "--delay", -1)
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in refused("--save", tmp_path / "folder.png")
    monkeypatch.setattr(terminal.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'trm-mlx[view]'" in refused("--save", tmp_path / "out.png")
    puzzles = tmp_path / "two.txt"
    puzzles.write_text(f"{SUDOKU.line(QUESTION)}\n{SUDOKU.line(QUESTION)}\n")
    for option in (["--watch"], ["--save", tmp_path / "out.html"]):
        words = ["solve", "--file", puzzles, "--checkpoint", checkpoint, *option]
        assert main(list(map(str, words))) == 2
        assert f"{option[0]} shows one puzzle, not 2" in capsys.readouterr().err


def test_a_disk_that_refuses(sudoku, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*out.html: No space left on device"):
        save(sudoku, tmp_path / "out.html")
    assert not any(tmp_path.iterdir())


def test_a_sheet_says_that_a_grid_is_empty(tmp_path):
    """A model that has not learnt enough answers with grids of no rows or no columns."""
    for shape in ((2, 3), (0, 3), (3, 0), (0, 0)):
        path = tmp_path / "sheet.png"
        image.save_sheet([[("attempt", np.zeros(shape, np.uint8))]], ["#ff0000"], path)
        with image.Image.open(path) as sheet:
            colours = {colour for _, colour in sheet.getcolors()}
        assert ((255, 0, 0) in colours) == (shape == (2, 3))
