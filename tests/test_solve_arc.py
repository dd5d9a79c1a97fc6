"""``trm solve`` on ARC: a puzzle of the dataset of a checkpoint, shown and drawn."""

import dataclasses
import json
import re

import mlx.core as mx
import numpy as np
import pytest

import trm_mlx
from trm_mlx import Solver
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.data.arrays import SplitArrays
from trm_mlx.data.dataset import PuzzleDataset, puzzle_names
from trm_mlx.data.writer import write_dataset
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model
from trm_mlx.tasks import get
from trm_mlx.tasks.arc import ARC, canvas_of, grids_of
from trm_mlx.view.recording import percent

GRIDS = {"input": [[1, 2, 3], [4, 5, 6]], "output": [[6, 5], [4, 3], [2, 1]]}
SECOND = {"input": [[7, 8], [9, 0]], "output": [[0]]}
PUZZLES = {"ab12": [GRIDS, SECOND], "cd34": [{"input": [[1, 1, 1]], "output": [[2]]}]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a dataset ``data`` and an untrained model ``model`` for it."""
    folder = tmp_path_factory.mktemp("arc")
    example = {"input": [[1, 2]], "output": [[2, 1]]}
    challenges = {
        name: {"train": [example], "test": [{"input": pair["input"]} for pair in tests]}
        for name, tests in PUZZLES.items()
    }
    challenges["trained"] = {"train": [example], "test": [{"input": [[5]]}]}
    solutions = {name: [pair["output"] for pair in tests] for name, tests in PUZZLES.items()}
    solutions["trained"] = [[[5]]]
    for subset, names in {"a": ["trained"], "b": list(PUZZLES)}.items():
        for kind, content in {"challenges": challenges, "solutions": solutions}.items():
            path = folder / f"arc_{subset}_{kind}.json"
            path.write_text(json.dumps({name: content[name] for name in names}))
    words = ["--subsets", "a", "b", "--test-set-name", "b", "--num-aug", "2"]
    words += ["--input-file-prefix", str(folder / "arc"), "--output-dir", str(folder / "data")]
    assert main(["build", "arc", *words]) == 0
    save_untrained(folder / "model", PuzzleDataset([folder / "data"], "test").metadata)
    return folder


def save_untrained(folder, sizes, identifiers=None):
    mx.random.seed(0)
    arch = arch_config(
        "trm", hidden_size=16, num_heads=2, L_layers=1, H_cycles=1, L_cycles=1, halt_max_steps=3,
        puzzle_emb_ndim=16, puzzle_emb_len=1,
    )  # fmt: skip
    identifiers = identifiers or sizes.num_puzzle_identifiers
    config = ModelConfig.of(arch, seq_len=900, vocab_size=12, num_puzzle_identifiers=identifiers)
    model = build_model(config)
    model.puzzle_emb.weights = mx.random.normal(model.puzzle_emb.weights.shape)
    model.q_head.bias = mx.array([-9.0, 0.0])  # never halts
    folder.mkdir()
    save_model(folder, model)


def solve(place, *words, model="model"):
    words = ["solve", "--checkpoint", place / model, *words]
    return main(list(map(str, words)))


def refusal(place, capsys, *words, model="model"):
    capsys.readouterr()
    assert solve(place, *words, model=model) == 2
    output = capsys.readouterr()
    assert output.out == ""
    said = ("MLX ", f"warning: {place / model} does not name its puzzles")
    (line,) = [line for line in output.err.splitlines() if not line.startswith(said)]
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def named(place, name, index):
    """The tokens, identifier and label of an example, found without the command's help."""
    data = PuzzleDataset([place / "data"], "test")
    identifier = puzzle_names(data).index(name)
    (owner,) = np.flatnonzero(data.puzzle_identifiers == identifier)
    example = data.puzzle_indices[owner] + index
    arrays = data.parts[0].arrays
    return arrays.inputs[example], identifier, arrays.labels[example]


@pytest.mark.parametrize("index", [0, 1])
def test_a_puzzle_by_its_name(place, capsys, index):
    status = solve(place, "--data", place / "data", "--name", "ab12", "--index", index)
    output = capsys.readouterr().out
    tokens, identifier, _ = named(place, "ab12", index)
    np.testing.assert_array_equal(tokens, canvas_of(np.array(PUZZLES["ab12"][index]["input"])))
    assert output.startswith(f"{ARC().render(tokens)}\n\n")
    model, _ = trm_mlx.load(place / "model")
    solver = Solver(model, intermediates=True)
    (solution,) = solver.solve([tokens], [identifier])
    (other,) = solver.solve([tokens])
    assert not np.array_equal(
        solution.outputs[0].cell_confidence, other.outputs[0].cell_confidence
    ), "the embedding counts"
    for number, step in enumerate(solution.outputs, start=1):
        sure = re.escape(percent(step.confidence))
        assert re.search(rf"^step +{number} .* sure it is done +{sure}$", output, re.M)
    assert "Not solved: stopped at step 3, not the dataset's answer, sure" in output
    assert "attempts 1, network runs 3, answer chosen by q" in output
    assert "rules" not in output
    assert status == 1


def test_an_image_and_an_example_by_its_number(place, capsys):
    """Without a name the examples of the whole split are counted; an image has its own name."""
    data = PuzzleDataset([place / "data"], "test")
    names = puzzle_names(data)
    image = next(name for name in names if name.startswith("ab12|||"))
    solve(place, "--data", place / "data", "--name", image, "--index", 1)
    by_name = capsys.readouterr().out
    (owner,) = np.flatnonzero(data.puzzle_identifiers == names.index(image))
    solve(place, "--data", place / "data", "--index", data.puzzle_indices[owner] + 1)
    assert capsys.readouterr().out == by_name
    assert solve(place, "--data", place / "data", "--name", "trained", "--split", "train") == 1


def test_an_answer_that_is_the_label(place, capsys, monkeypatch, tmp_path):
    """With a model that knows."""
    _, _, label = named(place, "ab12", 0)
    real = Solver.solve

    def knowing(solver, inputs, identifiers, on_step=None):
        for solution in real(solver, inputs, identifiers, on_step):
            last = solution.outputs[-1]._replace(answer=label.astype(np.int32))
            outputs = (*solution.outputs[:-1], last)
            yield dataclasses.replace(solution, answer=last.answer, outputs=outputs, halted=True)

    monkeypatch.setattr(Solver, "solve", knowing)
    words = ["--data", place / "data", "--name", "ab12", "--save", tmp_path / "out.html"]
    assert solve(place, *words) == 0
    assert "Solved: halted at step 3, the dataset's answer, sure" in capsys.readouterr().out
    recording = json.loads(
        re.search(r"^const recording = (.*);$", (tmp_path / "out.html").read_text(), re.M)[1]
    )
    assert recording["ending"] == "halted at step 3, the dataset's answer"
    assert recording["painted"]
    assert recording["rows"] >= 3
    assert recording["columns"] >= 3
    (grid,) = grids_of(label[None])
    shown = [cell[0] for cell in recording["frames"][-1]["cells"]]
    shown = np.array(shown).reshape(recording["rows"], recording["columns"])[:3, :2]
    np.testing.assert_array_equal(shown, grid.astype(str))


@pytest.mark.parametrize("suffix", ["png", "gif", "html"])
def test_pictures(place, tmp_path, capsys, suffix):
    target = tmp_path / f"out.{suffix}"
    words = ["--data", place / "data", "--name", "ab12", "--save", target, "--watch"]
    if suffix != "html":
        image_module = pytest.importorskip("PIL.Image")
    assert solve(place, *words) == 1
    output = capsys.readouterr().out
    assert re.findall(r"^step (\d) of 3", output, re.M) == ["1", "2", "3"]
    assert "break a rule" not in output  # there is none
    assert " 1 2 3\n 4 5 6\n" in output
    assert "stopped at step 3, not the dataset's answer" in output
    if suffix == "html":
        text = target.read_text("utf-8")
        assert len(text) > 5_000
        assert "#2ecc40" in text  # the third of the question's colours
        return
    with image_module.open(target) as image:
        assert 300 < image.width < 1000
        assert 120 < image.height < 1000
        frames = [image.convert("RGB").copy()]
        if suffix == "gif":
            assert image.n_frames == 4
        colours = {colour for _, colour in frames[0].getcolors(1 << 20)}
        assert len(colours) > 8
        near = [(0x2E, 0xCC, 0x40), (0xFF, 0x41, 0x36)]  # a palette of 128 may move them a little
        for wanted in near:
            assert min(sum(abs(a - b) for a, b in zip(c, wanted, strict=True)) for c in colours) < 9


def test_refusals(place, tmp_path, capsys):
    data = ["--data", place / "data"]

    def refused(*words, **options):
        return refusal(place, capsys, *words, **options)

    line = refused(*data, "--name", "zz99")
    start = f"--name zz99: no puzzle of {place / 'data'} is called that; the first of its split "
    assert line.startswith(start)
    assert line.removeprefix(start).partition("|||")[0] in ("test is ab12", "test is cd34")
    assert "--name trained has no examples in the split test" in refused(*data, "--name", "trained")
    line = refused(*data, "--name", "ab12", "--index", 2)
    assert line == "--index 2: ab12 has examples 0 to 1"
    remedy = (
        f"--data DIR --name PUZZLE, or let it learn yours: trm adapt {place / 'model'} TASK.json"
    )
    assert refused("1 2 3").endswith(remedy)
    assert refused("in.csv", "-o", tmp_path / "o.csv").endswith(remedy)
    assert refused("--name", "ab12", "1").endswith("add --data DIR")
    line = refused(*data, "--trajectories", 2, "--restarts", "--select", "rule")
    assert line == "select 'rule': arc has no rules; choose one of q, first, mode, residual"
    line = refused(*data, "--trajectories", 2, "--symmetries")
    assert "is not one of the puzzle's images: leave out symmetries" in line
    line = refused(*data, "--index", 0, 1, "--save", tmp_path / "out.png")
    assert "--save shows one puzzle, not 2" in line
    assert not any(tmp_path.iterdir())


def test_a_dataset_or_a_checkpoint_of_another_kind(place, tmp_path, capsys):
    sudoku = get("sudoku4x4")
    arrays = SplitArrays.of(*map(sudoku.encode, sudoku.generate(2, np.random.default_rng(0))[:2]))
    write_dataset(tmp_path / "d", {"test": arrays}, ["<blank>"], vocab_size=6, seq_len=16)
    line = refusal(place, capsys, "--data", tmp_path / "d", "--name", "ab12")
    assert line.startswith(f"seq_len is 900 in {place / 'model'} but 16 in {tmp_path / 'd'}: ")
    sizes = PuzzleDataset([place / "data"], "test").metadata
    save_untrained(tmp_path / "few", sizes, identifiers=2)
    line = refusal(tmp_path, capsys, "--data", place / "data", model="few")
    assert line.startswith(
        f"num_puzzle_identifiers is 2 in {tmp_path / 'few'} but "
        f"{sizes.num_puzzle_identifiers} in {place / 'data'}: "
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory; rebuild the dataset"),
        ("{", "is not JSON"),
        ('["<blank>", 1]', "holds no list of names"),
        ('["<blank>"]', "1 puzzles are named, but the dataset counts 10"),
    ],
)
def test_a_dataset_without_its_names(place, tmp_path, capsys, content, problem):
    (tmp_path / "test").symlink_to(place / "data" / "test")
    if content is not None:
        (tmp_path / "identifiers.json").write_text(content)
    line = refusal(place, capsys, "--data", tmp_path, "--name", "ab12")
    assert f"{tmp_path / 'identifiers.json'}" in line
    assert problem in line
