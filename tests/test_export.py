"""Checkpoints of ours become PyTorch state dicts as the published code saves them."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny import randomize

import trm_mlx
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models.checkpoint_files import EMA_FILE, save_arrays, save_model
from trm_mlx.models.model import build_model

torch = pytest.importorskip("torch", reason="it writes PyTorch files")
TorchModel = pytest.importorskip("trm_mlx.convert.torch_model").TorchModel

SIZES = {"vocab_size": 7, "seq_len": 9, "num_puzzle_identifiers": 3}
SMALL = {"hidden_size": 16, "num_heads": 2, "puzzle_emb_len": 0, "H_cycles": 1, "L_cycles": 2}
VARIANTS = ("trm", "trm_singlez", "trm_hier6", "hrm", "transformers_baseline")
PREFIX = "_orig_mod.model.inner."


def saved(folder, variant="trm", average=False, **changes):
    """A model folder with random weights, and the model."""
    model = build_model(ModelConfig.of(arch_config(variant, **SMALL, **changes), **SIZES))
    randomize(model)
    folder.mkdir()
    save_model(folder, model)
    if average:
        save_arrays(folder / EMA_FILE, {"lm_head.weight": 2 * model.lm_head.weight})
    return model


def export(*words):
    return main(["export", *map(str, words)])


def refusal(capsys, *words):
    capsys.readouterr()
    assert export(*words) == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert output.out == ""
    return line.removeprefix("error: ")


@pytest.mark.parametrize("variant", VARIANTS)
def test_pytorch_computes_the_same(tmp_path, capsys, variant):
    model = saved(tmp_path / "ours", variant, forward_dtype="float32")
    model.eval()
    assert export(tmp_path / "ours", tmp_path / "theirs.pth", "--to", "torch") == 0
    printed = capsys.readouterr().out
    assert f"arch={variant} arch.hidden_size=16 arch.num_heads=2" in printed
    assert "arch.puzzle_emb_ndim=16 " in printed
    # As in the published config/arch: HRM and the baseline have no such option.
    assert ("arch.puzzle_emb_len=1 " in printed) == variant.startswith("trm")
    state = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    fields = {**SMALL, **SIZES, "puzzle_emb_ndim": 16, "forward_dtype": "float32"}
    fields |= {key: getattr(model.config, key) for key in ("name", "pos_encodings", "mlp_t")}
    fields |= {key: getattr(model.config, key) for key in ("H_layers", "L_layers")}

    inputs = np.random.default_rng(0).integers(0, 7, (3, 9))
    identifiers = np.array([2, 0, 2])
    logits, q = TorchModel(fields, weights).first_step(
        {"inputs": torch.tensor(inputs), "puzzle_identifiers": torch.tensor(identifiers)}
    )
    batch = {"inputs": mx.array(inputs), "puzzle_identifiers": mx.array(identifiers)}
    _, outputs = model(model.initial_carry(batch), batch)
    np.testing.assert_allclose(np.array(outputs["logits"]), logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(np.array(outputs["q_halt_logits"]), q[:, 0].numpy(), atol=1e-4)
    np.testing.assert_allclose(np.array(outputs["q_continue_logits"]), q[:, 1].numpy(), atol=1e-4)


def test_there_and_back(tmp_path, capsys):
    """Initial states in bfloat16, as published, and said so where that rounds them."""
    model = saved(tmp_path / "ours")
    assert export(tmp_path / "ours", tmp_path / "theirs.pth") == 0
    assert "rounded to bfloat16, as published: H_init, L_init\n" in capsys.readouterr().out
    state = torch.load(tmp_path / "theirs.pth", weights_only=True)
    arrays = dict(tree_flatten(model.parameters()))
    assert {name.removeprefix(PREFIX) for name in state} == arrays.keys()
    assert {n.removeprefix(PREFIX) for n, t in state.items() if t.dtype == torch.bfloat16} == {
        "H_init",
        "L_init",
    }
    words = ["num_heads=2", "puzzle_emb_len=0", "seq_len=9", "--quiet"]
    assert main(["convert", str(tmp_path / "theirs.pth"), str(tmp_path / "again"), *words]) == 0
    again, _ = trm_mlx.load(tmp_path / "again")
    for name, array in tree_flatten(again.parameters()):
        expected = arrays[name]
        if name.endswith("_init"):
            expected = expected.astype(mx.bfloat16).astype(mx.float32)
        assert mx.array_equal(array, expected), name
    assert export(tmp_path / "again", tmp_path / "more.pth") == 0
    assert "rounded" not in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["model.inner.", ""])
def test_prefix(tmp_path, prefix):
    saved(tmp_path / "ours")
    assert export(tmp_path / "ours", tmp_path / "a.pth", "--prefix", prefix, "--quiet") == 0
    assert f"{prefix}H_init" in torch.load(tmp_path / "a.pth", weights_only=True)


def test_averaged_weights(tmp_path, capsys):
    model = saved(tmp_path / "ours", average=True)
    heads = {}
    for name, words in (("raw", []), ("average", ["--ema"])):
        assert export(tmp_path / "ours", tmp_path / name, *words) == 0
        heads[name] = torch.load(tmp_path / name, weights_only=True)[PREFIX + "lm_head.weight"]
    np.testing.assert_array_equal(heads["raw"].numpy(), np.array(model.lm_head.weight))
    np.testing.assert_array_equal(heads["average"].numpy(), 2 * np.array(model.lm_head.weight))
    saved(tmp_path / "plain")
    line = refusal(capsys, tmp_path / "plain", tmp_path / "a.pth", "--ema")
    assert line.endswith("plain holds no averaged weights (ema.safetensors): leave out --ema")


def test_refusals(tmp_path, capsys):
    saved(tmp_path / "ours")
    (tmp_path / "taken").write_text("mine")
    line = refusal(capsys, tmp_path / "ours", tmp_path / "taken")
    assert line == f"{tmp_path}/taken exists: name another file, or remove it"
    assert (tmp_path / "taken").read_text() == "mine"
    line = refusal(capsys, tmp_path / "ours", tmp_path / "taken" / "below")
    assert line.startswith(f"cannot write {tmp_path}/taken/below: ")
    assert "absent does not exist" in refusal(capsys, tmp_path / "absent", tmp_path / "a.pth")
    assert "invalid choice: 'onnx'" in refusal(capsys, tmp_path / "ours", "a", "--to", "onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"ours", "taken"}


def test_what_the_published_code_could_not_load(tmp_path, capsys):
    saved(tmp_path / "base", "transformers_baseline", mlp_t=True, pos_encodings="none")
    line = refusal(capsys, tmp_path / "base", tmp_path / "a.pth")
    assert line.endswith("mlp_t=true, which the published transformers_baseline does not know")
    (tmp_path / "base" / "config.json").write_text(
        (tmp_path / "base" / "config.json").read_text().replace('emb_len": 0', 'emb_len": 3')
    )
    line = refusal(capsys, tmp_path / "base", tmp_path / "a.pth")
    assert "puzzle_emb_len=3, where the published transformers_baseline always has 1" in line


def test_interrupted_writing_leaves_nothing(tmp_path, capsys, monkeypatch):
    saved(tmp_path / "ours")

    def full(state, path):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    line = refusal(capsys, tmp_path / "ours", tmp_path / "a.pth")
    assert line.startswith(f"cannot write {tmp_path}/a.pth: ")
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_positions_on_a_board_are_refused(tmp_path, capsys):
    saved(tmp_path / "model", pos_encodings="rope2d")
    assert "pos_encodings=rope2d, which the published trm does not know" in refusal(
        capsys, tmp_path / "model", tmp_path / "out.pt"
    )
    assert not (tmp_path / "out.pt").exists()
