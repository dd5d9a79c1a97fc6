"""A model exported as an MLX function runs elsewhere, in Python as in C++, as it does here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from pages import CHECKOUT, blocks
from tiny import randomize

import trm_mlx
from trm_mlx import device
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.convert.mlxfn import export_mlxfn
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model
from trm_mlx.solve.solver import HALT_THRESHOLD

SIZES = {"vocab_size": 7, "seq_len": 9}
SMALL = {"hidden_size": 16, "num_heads": 2, "H_cycles": 1, "L_cycles": 2}
DOCS = CHECKOUT / "docs" / "apps.md"


def saved(folder, variant="trm", identifiers=1, **changes):
    """A model folder with random weights."""
    sizes = SIZES | {"num_puzzle_identifiers": identifiers}
    model = build_model(ModelConfig.of(arch_config(variant, **SMALL, **changes), **sizes))
    randomize(model)
    folder.mkdir()
    save_model(folder, model)
    return folder


def export(*words):
    return main(["export", *map(str, words), "--to", "mlxfn"])


def steps_of(model, inputs, identifiers, steps):
    """Answers, halting probabilities and states after every step, from the solver."""
    solver = trm_mlx.Solver(model, max_steps=steps, halt_threshold=None, intermediates=True)
    solutions = list(solver.solve(inputs, identifiers))
    for step in range(steps):
        outputs = [solution.outputs[step] for solution in solutions]
        yield (
            np.stack([output.answer for output in outputs]),
            np.array([output.confidence for output in outputs]),
            {name: np.stack([o.states[name] for o in outputs]) for name in model.recursion.states},
        )


@pytest.mark.parametrize(
    ("variant", "identifiers", "changes"),
    [
        ("trm", 3, {}),
        ("trm", 1, {"mlp_t": True, "pos_encodings": "none", "puzzle_emb_ndim": 0}),
        ("trm", 1, {"pos_encodings": "rope2d", "board_convolution": True}),
        ("trm_hier6", 1, {}),
        ("hrm", 3, {"pos_encodings": "learned"}),
    ],
    ids=["rope", "mlp_t", "rope2d", "hier6", "hrm"],
)
def test_every_step_is_the_solvers(tmp_path, variant, identifiers, changes):
    folder = saved(tmp_path / "model", variant, identifiers, **changes)
    assert export(folder, tmp_path / "a.mlxfn", "--batch-size", 1, 3, "--quiet") == 0
    function, metadata = mx.import_function(str(tmp_path / "a.mlxfn"), return_metadata=True)
    signature = json.loads(metadata)
    model, config = trm_mlx.load(folder)
    assert signature["halt_threshold"] == HALT_THRESHOLD
    assert signature["halt_max_steps"] == config.halt_max_steps
    assert signature["batch_sizes"] == [1, 3]
    for rows in (1, 3):
        inputs = np.random.default_rng(rows).integers(1, 7, (rows, 9)).astype(np.int32)
        numbers = np.arange(rows, dtype=np.int32) % identifiers
        batch = {"inputs": mx.array(inputs)}
        if identifiers > 1:
            batch["puzzle_identifiers"] = mx.array(numbers)
        states = {}
        for answers, halting, expected in steps_of(model, inputs, numbers, 3):
            assert {*batch, *expected} == {*signature["inputs"]}
            outputs = dict(zip(signature["outputs"], function(**batch, **states), strict=True))
            np.testing.assert_array_equal(np.array(outputs["answers"]), answers)
            np.testing.assert_allclose(np.array(outputs["halting"]), halting, atol=1e-4)
            for name, state in expected.items():
                assert outputs[name].shape == (rows, *signature["state_shape"])
                np.testing.assert_allclose(np.array(outputs[name]), state, atol=1e-3)
            # With random weights, a rounding would grow from step to step.
            states = {name: mx.array(state) for name, state in expected.items()}
    with pytest.raises(ValueError, match="No imported function found"):
        function(inputs=mx.zeros((2, 9), mx.int32))


@pytest.mark.parametrize("mlp_t", [False, True])
def test_nothing_of_this_device_is_written(tmp_path, mlp_t):
    """Planned for CUDA, the model would trace kernels of its own; the file has none."""
    positions = {"pos_encodings": "rope2d", "board_convolution": True}
    if mlp_t:
        positions = {"pos_encodings": "none"}
    folder = saved(tmp_path / "model", mlp_t=mlp_t, forward_dtype="bfloat16", **positions)
    with device.assumed("cuda", 2**30):
        export_mlxfn(folder, tmp_path / "a.mlxfn", report=lambda line: None)
    content = (tmp_path / "a.mlxfn").read_bytes()
    assert b"Matmul" in content
    assert b"CustomKernel" not in content
    _, halting, z_h, _ = mx.import_function(str(tmp_path / "a.mlxfn"))(
        inputs=mx.ones((1, 9), mx.int32)
    )
    assert z_h.dtype == mx.bfloat16
    assert halting.dtype == mx.float32


def test_refusals(tmp_path, capsys, monkeypatch):
    folder, out = saved(tmp_path / "model"), tmp_path / "a.mlxfn"
    monkeypatch.setattr(mx, "is_available", lambda _: False)
    (tmp_path / "taken").write_text("mine")
    for words, error in (
        ([folder, tmp_path / "taken"], "taken exists: name another file, or remove it"),
        ([folder, out, "--batch-size", 4, 0], "batch size 0: must be at least 1"),
        ([folder, out, "--ema"], "--ema is not for --to mlxfn: leave it out"),
        ([folder, out, "--device", "gpu"], "device gpu: MLX has no GPU on this machine"),
        ([folder, tmp_path / "taken" / "below"], "cannot write"),
    ):
        assert export(*words) == 2
        assert error in capsys.readouterr().err
    assert main(["export", str(folder), str(out), "--device", "cpu"]) == 2
    assert "--device is not for --to torch" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"model", "taken"}
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.slow
def test_a_program_in_cpp_solves_a_sudoku(tmp_path):
    """The commands of the page, in its order, print what it shows."""
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    if not (Path(mx.__file__).parent / "include").is_dir():
        pytest.skip("this build of MLX comes without its headers")
    (tmp_path / "examples").symlink_to(CHECKOUT / "examples")
    (tmp_path / "trm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m trm_mlx "$@"\n')
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for name in ("trm", "python"):
        (tmp_path / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        ["bash", "-e", "-c", blocks(DOCS, "bash")[0]],
        cwd=tmp_path, env=environment, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(blocks(DOCS, "text")[0])
    command = next(line for line in blocks(DOCS, "bash")[0].splitlines() if "./solve" in line)
    puzzle, (answer, line) = command.split()[-1], done.stdout.splitlines()[-2:]
    model, _ = trm_mlx.load("sudoku-4x4")
    task = trm_mlx.tasks.get("sudoku4x4")
    question = task.parse(puzzle)
    answers, steps = trm_mlx.predict(model, task.encode(question)[None])
    assert [*map(int, answer)] == task.decode(answers)[0].tolist()
    assert line.startswith(f"{steps[0]} steps, ")
    assert task.check(question[None], task.parse(answer)[None]).all()
