"""Checkpoints of every known kind become model folders; the rest gets one line and no folder."""

import codecs
import collections
import io
import json
import os
import pickle
import re
import resource
import shlex
import struct
import subprocess
import sys
import tarfile
import types
import zipfile
import zlib
from pathlib import Path

import mlx.core as mx
import numpy as np
import parity
import pytest
from mlx.utils import tree_flatten

import trm_mlx
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.convert import read
from trm_mlx.convert.infer import expansion_of, infer_config
from trm_mlx.convert.names import published_names
from trm_mlx.errors import InputError
from trm_mlx.models.checkpoint_files import assign_weights, read_weights, save_model
from trm_mlx.models.model import build_model
from trm_mlx.tasks import task_of
from trm_mlx.tasks.padded_sudoku import PaddedSudoku

CHECKOUT = Path(__file__).resolve().parents[1]
SHARED = CHECKOUT.parent / "shared"
SIZES = {"vocab_size": 11, "seq_len": 81, "num_puzzle_identifiers": 3}
VARIANTS = ("trm", "trm_singlez", "trm_hier6", "hrm", "transformers_baseline")
WORDS = ["num_heads=2", "puzzle_emb_len=0"]
PREFIX = "_orig_mod.model.inner."


def tiny(variant="trm", sizes=None, **changes):
    """The arrays of a small random model of ours, all of them non-zero."""
    arch = {"hidden_size": 16, "num_heads": 2, "puzzle_emb_len": 0, **changes}
    model = build_model(ModelConfig.of(arch_config(variant, **arch), **{**SIZES, **(sizes or {})}))
    mx.random.seed(7)
    return {
        name: np.array(array + 0.1 * mx.random.normal(array.shape))
        for name, array in tree_flatten(model.parameters())
    }


def prefixed(arrays, prefix=PREFIX):
    return {prefix + name: array for name, array in arrays.items()}


def save_torch(arrays, path, **beside):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(array) for name, array in arrays.items()}
    torch.save({"state_dict": state, **beside} if beside else state, path)


def save_safetensors(arrays, path):
    mx.save_safetensors(str(path) + ".safetensors", {n: mx.array(a) for n, a in arrays.items()})
    Path(str(path) + ".safetensors").rename(path)


def save_npz(arrays, path):
    with path.open("wb") as file:
        np.savez(file, **arrays)


def converted(folder):
    weights = read_weights(folder / "model.safetensors")
    return {name: np.array(array.astype(mx.float32)) for name, array in weights.items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def convert(*words):
    return main(["convert", *map(str, words)])


def refusal(capsys, file, *words):
    """The one line on stderr of a conversion that must leave nothing behind."""
    before = sorted(path.name for path in file.parent.iterdir())
    capsys.readouterr()
    assert convert(file, file.parent / "out", "--quiet", *words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("error: ")
    assert sorted(path.name for path in file.parent.iterdir()) == before
    return line.removeprefix("error: ")


# Formats and names


@pytest.mark.parametrize("save", [save_torch, save_safetensors, save_npz])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_in_every_format(tmp_path, capsys, save, variant):
    arrays = tiny(variant)
    save(prefixed(arrays), tmp_path / "step_10")
    assert convert(tmp_path / "step_10", tmp_path / "out", *WORDS) == 0
    assert f"\n{variant}: by the names of the arrays\n" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors"}
    assert_same(arrays, converted(tmp_path / "out"))
    _, loaded = trm_mlx.load(tmp_path / "out")
    assert loaded.name == variant
    assert {size: getattr(loaded, size) for size in SIZES} == SIZES


@pytest.mark.parametrize("prefix", ["model.inner.", "_orig_mod.", "module.model.inner.", ""])
def test_prefixes(tmp_path, capsys, prefix):
    arrays = tiny()
    save_npz(prefixed(arrays, prefix), tmp_path / "a.npz")
    assert convert(tmp_path / "a.npz", *WORDS) == 0
    assert_same(arrays, converted(tmp_path / "a.npz-mlx"))
    assert (f"prefix {prefix} taken off 15 names" in capsys.readouterr().out) == bool(prefix)


def test_npz_of_the_earlier_port(tmp_path, capsys):
    """It adds two buffers of one batch; written compressed, one array in Fortran's order."""
    arrays = tiny()
    theirs = prefixed(arrays, "model.inner.")
    theirs["model.inner.lm_head.weight"] = np.asfortranarray(arrays["lm_head.weight"])
    theirs["model.inner.puzzle_emb.local_weights"] = np.zeros((1, 16), np.float32)
    theirs["model.inner.puzzle_emb.local_ids"] = np.zeros(1, np.int32)
    np.savez_compressed(tmp_path / "step_6510_mlx.npz", **theirs)
    assert convert(tmp_path / "step_6510_mlx.npz", tmp_path / "out", *WORDS) == 0
    assert "left out, rebuilt whenever needed: puzzle_emb.local_" in capsys.readouterr().out
    assert_same(arrays, converted(tmp_path / "out"))


def test_other_precisions(tmp_path):
    """Parameters in doubles, as a module itself saves them, and half precision."""
    torch = pytest.importorskip("torch")
    arrays = tiny()
    state = {n: torch.nn.Parameter(torch.tensor(a).double()) for n, a in arrays.items()}
    state["H_init"] = torch.tensor(arrays["H_init"]).bfloat16()
    torch.save({"model_state_dict": state}, tmp_path / "a.pth")
    assert convert(tmp_path / "a.pth", *WORDS) == 0
    arrays["H_init"] = state["H_init"].float().numpy()
    assert_same(arrays, converted(tmp_path / "a.pth-mlx"))


def test_stored_in_bfloat16(tmp_path):
    arrays = tiny()
    save_npz(arrays, tmp_path / "a.npz")
    assert convert(tmp_path / "a.npz", "--dtype", "bfloat16", tmp_path / "out", *WORDS) == 0
    stored = read_weights(tmp_path / "out" / "model.safetensors")
    assert {array.dtype for array in stored.values()} == {mx.bfloat16}
    model, _ = trm_mlx.load(tmp_path / "out")
    for name, array in tree_flatten(model.parameters()):
        assert array.dtype == mx.float32
        np.testing.assert_array_equal(np.array(array), np.array(stored[name].astype(mx.float32)))
        np.testing.assert_allclose(np.array(array), arrays[name], rtol=2**-8)


def test_without_torch(tmp_path, capsys, monkeypatch):
    """Only PyTorch's own format and --verify need it."""
    arrays = tiny()
    save_npz(arrays, tmp_path / "a.npz")
    save_safetensors(arrays, tmp_path / "b.safetensors")
    save_torch(arrays, tmp_path / "c.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("a.npz", "b.safetensors"):
        assert convert(tmp_path / name, *WORDS, "--quiet") == 0
    remedy = "needs torch: pip install 'trm-mlx[convert]'"
    assert refusal(capsys, tmp_path / "c.pth", *WORDS) == f"reading PyTorch files {remedy}"
    line = refusal(capsys, tmp_path / "a.npz", *WORDS, "--verify")
    assert line == f"--verify {remedy}"
    capsys.readouterr()
    words = [str(tmp_path / "a.npz-mlx"), str(tmp_path / "a.pth"), "--to", "torch"]
    assert main(["export", *words]) == 2
    assert capsys.readouterr().err == f"error: writing PyTorch files {remedy}\n"


def test_published_configuration(tmp_path, capsys):
    """Heads and cycles from all_config.yaml; key=value words go before it."""
    save_npz(tiny(), tmp_path / "step_4")
    (tmp_path / "all_config.yaml").write_text(
        "arch:\n  name: recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1\n"
        "  loss: {name: x}\n  num_heads: 4\n  H_cycles: 1\n  L_cycles: 4\n  expansion: 4\n"
        "  halt_max_steps: 2\n  puzzle_emb_len: 1\n  forward_dtype: bfloat16\n  rope_theta: 10000\n"
    )
    config = ["--config", tmp_path / "all_config.yaml"]
    assert convert(tmp_path / "step_4", *config, "arch.L_cycles=3", "seq_len=16", "--quiet") == 0
    assert capsys.readouterr().out == ""
    _, loaded = trm_mlx.load(tmp_path / "step_4-mlx")
    assert (loaded.num_heads, loaded.H_cycles, loaded.L_cycles) == (4, 1, 3)
    assert (loaded.halt_max_steps, loaded.seq_len, loaded.forward_dtype) == (2, 16, "auto")
    assert convert(tmp_path / "step_4", tmp_path / "beside") == 0
    assert "all_config.yaml: its options are taken" in capsys.readouterr().out
    assert trm_mlx.load(tmp_path / "beside")[1].num_heads == 4
    (tmp_path / "all_config.yaml").write_text("arch: {name: x, rope_theta: 500000}")
    assert refusal(capsys, tmp_path / "step_4", *config, "num_heads=4").endswith(
        "arch.rope_theta=500000; ours is always 10000"
    )
    (tmp_path / "all_config.yaml").write_text("arch: 3")
    assert "has no arch section" in refusal(capsys, tmp_path / "step_4", *config)


# nano-trm

NANO = {
    "hidden_size": 16, "num_layers": 2, "num_heads": 2, "H_cycles": 2, "L_cycles": 3,
    "N_supervision_val": 8, "ffn_expansion": 4, "puzzle_emb_len": 1, "pos_emb_type": "1d",
    "use_mlp_t": False, "seq_len": 36, "rope_theta": 10000, "vocab_size": 11, "batch_size": 8,
}  # fmt: skip


def nano_weights(**changes):
    arrays = tiny(**changes)
    renamed = {
        re.sub(r"^L_level", "lenet", name)
        .replace("embed_tokens", "input_embedding")
        .replace("H_init", "z_H_init")
        .replace("L_init", "z_L_init"): array
        for name, array in arrays.items()
    }
    renamed["q_head.weight"], renamed["q_head.bias"] = (
        renamed["q_head.weight"][:1],
        renamed["q_head.bias"][:1],
    )
    return arrays, renamed


def test_nano_trm(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    arrays, theirs = nano_weights()
    shadow = {name: torch.tensor(theirs[name] * 2) for name in ("lm_head.weight", "q_head.weight")}
    state = {"EMACallback": {"shadow": shadow, "decay": 0.999}, "ModelCheckpoint{'monitor': 1}": {}}
    beside = {"pytorch-lightning_version": "2.5", "callbacks": state, "epoch": 3}
    save_torch(theirs, tmp_path / "last.ckpt", hyper_parameters=NANO, **beside)
    assert convert(tmp_path / "last.ckpt", tmp_path / "out") == 0
    assert "nano-trm names changed to the published ones" in capsys.readouterr().out
    arrays["q_head.weight"] = np.stack([2 * arrays["q_head.weight"][0], np.zeros(16)])
    arrays["q_head.bias"] = np.array([arrays["q_head.bias"][0], -5], np.float32)
    arrays["lm_head.weight"] = 2 * arrays["lm_head.weight"]
    assert_same(arrays, converted(tmp_path / "out"))
    _, loaded = trm_mlx.load(tmp_path / "out")
    assert (loaded.seq_len, loaded.num_heads, loaded.H_cycles, loaded.L_cycles) == (36, 2, 2, 3)
    assert (loaded.halt_max_steps, loaded.pos_encodings, loaded.prefix) == (8, "rope", 1)


def test_nano_trm_on_a_board(tmp_path, capsys):
    """Its two-dimensional positions are ours where there is no prefix; PyTorch agrees with MLX."""
    pytest.importorskip("torch")
    _, theirs = nano_weights(puzzle_emb_ndim=0)
    settings = {**NANO, "pos_emb_type": "2d", "puzzle_emb_len": 0}
    save_torch(theirs, tmp_path / "last.ckpt", hyper_parameters=settings)
    assert convert(tmp_path / "last.ckpt", tmp_path / "out", "--verify") == 0
    _, loaded = trm_mlx.load(tmp_path / "out")
    assert (loaded.seq_len, loaded.pos_encodings, loaded.prefix) == (36, "rope2d", 0)


@pytest.mark.parametrize("positions", ["null", "3d", None])
def test_nano_trm_without_positions(tmp_path, positions):
    """Its code treats every other word as none."""
    _, theirs = nano_weights()
    settings = {**NANO, "pos_emb_type": positions}
    save_torch(theirs, tmp_path / "a.ckpt", hyper_parameters=settings)
    assert convert(tmp_path / "a.ckpt", "--quiet") == 0
    assert trm_mlx.load(tmp_path / "a.ckpt-mlx")[1].pos_encodings == "none"


def test_nano_trm_of_padded_boards(tmp_path, capsys):
    """Its first version, for 4x4 boards in 6x6 positions: the sizes say the task."""
    _, theirs = nano_weights(sizes={"vocab_size": 7, "seq_len": 36})
    settings = {**NANO, "vocab_size": 7, "max_grid_size": 6, "N_supervision": 2}
    del settings["N_supervision_val"], settings["pos_emb_type"]
    save_torch(theirs, tmp_path / "last.ckpt", hyper_parameters=settings)
    assert convert(tmp_path / "last.ckpt", tmp_path / "out") == 0
    _, loaded = trm_mlx.load(tmp_path / "out")
    assert (loaded.vocab_size, loaded.seq_len, loaded.halt_max_steps) == (7, 36, 2)
    assert task_of(loaded) == PaddedSudoku(4, 6)
    capsys.readouterr()
    words = ["--checkpoint", str(tmp_path / "out"), "--trajectories", "1"]
    assert main(["solve", "...2.1..3.....2.", *words]) in (0, 1)
    assert capsys.readouterr().out.startswith(" . . | . 2\n . 1 | . .\n-----+-----\n")


def test_nano_trm_without_counterpart(tmp_path, capsys):
    _, theirs = nano_weights()
    file = tmp_path / "a.ckpt"
    save_torch(theirs, file, hyper_parameters={**NANO, "pos_emb_type": "2d"})
    assert "2d positions and a prefix, which it numbers in one" in refusal(capsys, file)
    save_torch(theirs, file, hyper_parameters={**NANO, "num_heads": [2]})
    assert "num_heads is list, where a number or a word is expected" in refusal(capsys, file)
    theirs["lenet.layers.0.mlp.dwconv.weight"] = np.zeros((4, 1, 3), np.float32)
    save_torch(theirs, file, hyper_parameters=NANO)
    assert "(lenet.layers.0.mlp.dwconv.weight), which no published" in refusal(capsys, file)


# Inference from names and shapes

ROWS = {
    "TRM attention": (6_828_034, 15, {"name": "trm"}),
    "TRM mlp_t": (5_028_866, 15, {"name": "trm", "mlp_t": True, "pos_encodings": "none"}),
    "TRM learned": (6_877_698, 16, {"name": "trm", "pos_encodings": "learned"}),
    "TRM no puzzle": (6_828_034, 14, {"name": "trm", "puzzle_emb_ndim": 0, "puzzle_emb_len": 0}),
    "single-z": (6_828_034, 14, {"name": "trm_singlez"}),
    "hier6": (6_828_034, 20, {"name": "trm_hier6"}),
    "HRM": (27_275_266, 39, {"name": "hrm", "puzzle_emb_len": 0, "H_layers": 4, "L_layers": 4}),
    "baseline": (
        27_144_194,
        38,
        {
            "name": "transformers_baseline",
            "puzzle_emb_len": 0,
            "num_heads": 12,
            "H_layers": 8,
            "L_layers": 0,
        },
    ),
}


def full_size(changes):
    """Shapes of a published model by name, and its configuration."""
    pytest.importorskip("torch")
    import oracle

    config = {
        "hidden_size": 512, "num_heads": 8, "expansion": 4, "H_layers": 0, "L_layers": 2,
        "mlp_t": False, "pos_encodings": "rope", "puzzle_emb_ndim": 512, "puzzle_emb_len": 16,
        "seq_len": 81, "vocab_size": 11, "num_puzzle_identifiers": 1, **changes,
    }  # fmt: skip
    shapes = {name: tuple(a.shape) for name, a in oracle.random_weights(config, 0).items()}
    return shapes, config


def zeros(shapes):
    return {name: mx.zeros(shape) for name, shape in shapes.items()}  # lazy, so of no size


@pytest.mark.parametrize("prefix", [PREFIX, "model.inner."])
@pytest.mark.parametrize("row", ROWS)
def test_published_sizes(row, prefix):
    parameters, tensors, changes = ROWS[row]
    shapes, expected = full_size(changes)
    assert len(shapes) == tensors
    trained = {n: s for n, s in shapes.items() if "_init" not in n and "puzzle_emb" not in n}
    assert sum(np.prod(shape) for shape in trained.values()) == parameters
    weights, settings, _ = published_names(prefixed(zeros(shapes), prefix), {}, "file")
    config, _ = infer_config(weights, settings)
    assign_weights(build_model(config), weights, "file")
    for name, value in expected.items():
        assert getattr(config, name) == value, name
    assert (config.H_cycles, config.L_cycles) == ((2, 2) if config.name == "hrm" else (3, 6)) or (
        config.name == "transformers_baseline"
    )


@pytest.mark.skipif(not SHARED.exists(), reason="the listing is not beside this checkout")
def test_published_sizes_are_those_listed():
    blocks = (SHARED / "field" / "state_dicts.txt").read_text().split("\n## ")[1:]
    listed = []
    for block in blocks:
        found = re.findall(r"^_orig_mod\.model\.inner\.(\S+) +\[([\d, ]+)\]", block, re.MULTILINE)
        listed.append({name: tuple(map(int, shape.split(","))) for name, shape in found})
    assert listed == [full_size(changes)[0] for _, _, changes in ROWS.values()]


@pytest.mark.parametrize("row", ["TRM mlp_t", "TRM learned", "hier6", "HRM", "baseline"])
def test_every_faulty_array_is_named(row):
    shapes, config = full_size(ROWS[row][2])
    given = {key: config[key] for key in ("name", "num_heads", "H_layers", "L_layers")}

    def complaint(weights):
        with pytest.raises(InputError) as caught:
            assign_weights(build_model(infer_config(weights, given).config), weights, "file")
        return str(caught.value)

    for name, shape in shapes.items():
        if name not in ("puzzle_emb.weights", "embed_pos.embedding_weight"):  # fine without
            rest = {other: array for other, array in zeros(shapes).items() if other != name}
            assert complaint(rest).startswith(f"file lacks {name}:")
        if name != "puzzle_emb.weights":  # any width and number of rows is a model
            wrong = {**zeros(shapes), name: mx.zeros((*shape[:-1], shape[-1] + 2))}
            assert complaint(wrong).startswith(f"file: {name} has shape")
    extra = {**zeros(shapes), "rotary.weight": mx.zeros(1)}
    assert complaint(extra).startswith("file has the unexpected rotary.weight:")


def test_heads(tmp_path, capsys):
    """Never guessed where a wrong number would fit as well."""
    shapes, _ = full_size(ROWS["baseline"][2])
    with pytest.raises(InputError, match=r"num_heads=7 does not fit o_proj.weight, which has 504"):
        infer_config(zeros(shapes), {"num_heads": 7})
    file = tmp_path / "a.npz"
    save_npz(tiny(), file)
    line = refusal(capsys, file)
    assert line.endswith("say the number of heads: add num_heads=..., one of 1, 2, 4, 8")
    assert "num_heads=5 does not fit o_proj.weight" in refusal(capsys, file, "num_heads=5")
    save_npz(tiny(mlp_t=True, pos_encodings="none"), file)
    assert convert(file, "puzzle_emb_len=0") == 0  # has none


def test_sequence_length(tmp_path, capsys):
    """Said when guessed, asked for when unknown, and held against shapes that know it."""
    file, out = tmp_path / "a.npz", tmp_path / "out"
    arrays = tiny()
    table = arrays["embed_tokens.embedding_weight"]
    for vocabulary, expected in ((6, 900), (12, 900), (11, 81)):
        for name in ("embed_tokens.embedding_weight", "lm_head.weight"):
            arrays[name] = np.resize(table, (vocabulary, 16))
        save_npz(arrays, file)
        place = tmp_path / f"out{vocabulary}"
        assert convert(file, place, *WORDS) == 0
        assert f"seq_len {expected}: GUESSED, as the published" in capsys.readouterr().out
        assert trm_mlx.load(place)[1].seq_len == expected
    assert convert(file, out, *WORDS, "seq_len=16") == 0
    assert "GUESSED" not in capsys.readouterr().out
    assert trm_mlx.load(out)[1].seq_len == 16
    arrays["embed_tokens.embedding_weight"] = arrays["lm_head.weight"] = np.resize(table, (7, 16))
    save_npz(arrays, tmp_path / "b" if (tmp_path / "b").mkdir() else tmp_path / "b" / "c")
    line = refusal(capsys, tmp_path / "b" / "c", *WORDS)
    assert line.endswith("the weights do not say the sequence length: add seq_len=... (V=7)")


@pytest.mark.parametrize("how", [{"mlp_t": True}, {"pos_encodings": "learned"}])
def test_prefix_and_sequence_length_from_their_sum(how):
    arrays = {name: mx.array(array) for name, array in tiny(puzzle_emb_len=5, **how).items()}
    for given in ({"seq_len": 81}, {"puzzle_emb_len": 5}, {"seq_len": 81, "puzzle_emb_len": 5}):
        config, _ = infer_config(arrays, {"num_heads": 2, **given})
        assert (config.prefix, config.seq_len) == (5, 81)
    for given in ({"seq_len": 86}, {"seq_len": 87}, {"seq_len": 81, "puzzle_emb_len": 4}):
        with pytest.raises(InputError, match=r"do not fit the weights, which are for 86 in all"):
            infer_config(arrays, {"num_heads": 2, **given})


@pytest.mark.parametrize("expansion", [1.0, 4.0, 32.0, 50.0])
def test_expansion_from_shapes(expansion):
    """Another number that gives the same widths is as good."""
    arrays = tiny(expansion=expansion, mlp_t=True, pos_encodings="none")
    weights = {name: mx.array(array) for name, array in arrays.items()}
    config, _ = infer_config(weights, {"puzzle_emb_len": 1})
    assign_weights(build_model(config), weights, "file")


def test_expansion_below_one():
    assert expansion_of([(512, 256)]) == 0.75  # no whole number is narrow enough
    assert expansion_of([(512, 768), (97, 256)]) == 2.0
    assert expansion_of([(512, 1536), (97, 512)]) == 4.0


def test_contradicted_sizes(tmp_path, capsys):
    file = tmp_path / "a.npz"
    save_npz(tiny(), file)
    assert refusal(capsys, file, *WORDS, "hidden_size=32").endswith(
        "hidden_size=32 is given, but the weights have 16"
    )
    assert "lacks L_level.layers.2.mlp" in refusal(capsys, file, *WORDS, "L_layers=3")
    assert "lacks L1_init, L2_init" in refusal(capsys, file, *WORDS, "name=trm_hier6")
    assert "arch=gpt: no such file" in refusal(capsys, file, *WORDS, "name=gpt")
    assert "unknown key seqlen: did you mean seq_len?" in refusal(capsys, file, "seqlen=16")
    assert "num_heads='two': expected a whole number" in refusal(capsys, file, "num_heads=two")
    assert "name one output folder" in refusal(capsys, file, "another")
    assert "cannot read" in refusal(capsys, file, "--config", tmp_path / "absent.yaml")


# Hostile files


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("how", ["state dict", "beside it", "pickle"])
def test_pickled_code_is_not_run(tmp_path, capsys, how):
    trap, file = tmp_path / "executed", tmp_path / "evil.pth"
    evil = Call(os.system, f"mkdir {trap}")
    if how == "pickle":
        file.write_bytes(pickle.dumps(evil))
        assert "plain pickles are refused, as loading them could execute" in refusal(capsys, file)
    else:
        torch = pytest.importorskip("torch")
        content = {"lm_head.weight": evil}
        torch.save({"state_dict": {}, **content} if how == "beside it" else content, file)
        line = refusal(capsys, file)
        assert line.startswith(f"{file} is not a whole PyTorch file of weights alone")
        assert f"(it asks to run {os.system.__module__}.system)" in line
        assert "as loading it could execute code: save the model's state_dict()" in line
    assert not trap.exists()
    pickle.loads(pickle.dumps(evil))
    assert trap.exists(), "the trap itself does not work"


def test_pickled_code_in_npz_is_not_run(tmp_path, capsys):
    trap, file = tmp_path / "executed", tmp_path / "evil.npz"
    np.savez(file, weights=np.array([Call(os.mkdir, str(trap))], object))
    assert "holds object values; numbers convert, pickled objects never" in refusal(capsys, file)
    assert not trap.exists()


def test_claimed_sizes_are_not_believed(tmp_path, capsys, monkeypatch):
    """Before memory is set aside for them."""
    torch = pytest.importorskip("torch")
    file = tmp_path / "a"
    torch.save({"lm_head.weight": torch.zeros(1).expand(10**6, 10**6)}, file)
    assert "claims shape (1000000, 1000000), the file holds less" in refusal(capsys, file)

    torch.save({"lm_head.weight": torch.zeros(1000)}, file)
    with zipfile.ZipFile(file) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert "is compressed, which torch.save never does" in refusal(capsys, file)

    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("lm_head.weight.npy", header.getvalue() + bytes(64))
    assert "claims shape (1000000, 1000000), the file holds 192 bytes" in refusal(capsys, file)

    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4',")
    assert refusal(capsys, file).startswith(f"{file} is not a whole .npz file: ")

    text = b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,16]}}'
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    assert "is not a whole safetensors file" in refusal(capsys, file)
    file.write_bytes(struct.pack("<Q", 2**62) + text)
    assert "is not a whole safetensors file" in refusal(capsys, file)

    monkeypatch.setattr(read, "LARGEST_BYTES", 1000)
    save_npz(tiny(), file)
    assert "no published model is as large" in refusal(capsys, file)


class Attributed(collections.OrderedDict):
    """Pickles as an OrderedDict whose method ``items`` is a number."""

    def __reduce__(self):
        return collections.OrderedDict, (), {"items": 1}, None, iter(dict.items(self))


def save_pickle(content, path):
    """A PyTorch file of that pickle, without any stored tensor."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(content, 2))
        archive.writestr("a/version", "3\n")


def test_memory_is_not_set_aside_for_numbers_in_a_pickle(tmp_path, capsys):
    """weights_only lets a file of 257 bytes ask for any amount."""
    torch = pytest.importorskip("torch")
    file = tmp_path / "a"
    doubled = Call(codecs.encode, "a" * 99, "utf-8")
    for _ in range(40):
        doubled = Call(codecs.encode, doubled, "hex")
    for asked, call in (
        ("torch.Tensor", Call(torch.Tensor, 10**5, 10**5)),
        (r"(__builtin__|builtins).bytearray", Call(bytearray, 10**11)),
        ("_codecs.encode", doubled),
    ):
        save_pickle({"lm_head.weight": call}, file)
        assert re.search(rf"\(it asks to run {asked}\)", refusal(capsys, file))
    table = torch.zeros(1000)
    torch.save({f"table{i}": table for i in range(1000)}, file)
    assert re.search(
        r"claims tensors of 4,000,000 bytes and has [\d,]+: save", refusal(capsys, file)
    )
    torch.save(Attributed({"lm_head.weight": table}), file)
    assert "is not a whole PyTorch file of weights alone" in refusal(capsys, file)


SHARED_TUPLES = b"\x80\x02)q\x00" + 99 * b"h\x00h\x00\x86q\x00" + b"h\x00"
REPEATED_TEXT = b"\x80\x02](X\x50\xc3\x00\x00" + 50_000 * b"a" + b"q\x00" + 20_000 * b"h\x00" + b"e"


@pytest.mark.parametrize("value", [SHARED_TUPLES, REPEATED_TEXT])
@pytest.mark.parametrize(
    ("end", "asked"),
    [
        (b")\x81.", "(it holds the opcode NEWOBJ)"),  # an instance of it
        (b")R.", "(it asks to run what has no name)"),
        (b"}b.", "(it asks to change what is no tensor)"),
        (b"Q.", "(it asks for what is no tensor)"),
        (b"}h\x00\x85K\x01s.", "(it names values by other than words and numbers)"),
    ],
)
def test_what_takes_for_ever_to_print_or_compare(tmp_path, capsys, value, end, asked):
    """PyTorch prints what it refuses, and a dictionary compares its keys."""
    pytest.importorskip("torch")
    file = tmp_path / "a"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", value + end)
    assert asked in refusal(capsys, file)


def test_values_shared_many_times(tmp_path):
    """A mapping may stand in a file many times."""
    torch = pytest.importorskip("torch")
    _, theirs = nano_weights()
    extras = [dict(NANO)] * 99
    save_torch(theirs, tmp_path / "a.ckpt", hyper_parameters=NANO, optimizer_states=extras)
    assert convert(tmp_path / "a.ckpt", "--quiet") == 0
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["optimizer_states"] == extras


def test_archives_that_readers_could_see_differently(tmp_path, capsys):
    """PyTorch ignores case in names, and finds an archive behind other bytes."""
    torch = pytest.importorskip("torch")
    file = tmp_path / "a"
    torch.save({"lm_head.weight": torch.zeros(1000)}, file)
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    for other, complaint in (
        (name.replace("data.pkl", "DATA.PKL"), "holds two entries of one name: save it again"),
        ("b/data.pkl", "is an archive, but neither a PyTorch file nor an .npz of arrays"),
    ):
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(other, b"\x80\x02}.")
        assert refusal(capsys, file) == f"{file} {complaint}"
        file.write_bytes(whole)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("PK"))
    for start in (tar.getvalue(), b"PK\5\6" + bytes(18)):
        file.write_bytes(start + whole)
        assert "expected weights as torch.save writes them" in refusal(capsys, file)


def test_archives_whose_checked_pickle_pytorch_would_not_take(tmp_path, capsys):
    """A harmless one for the check, beside the one that PyTorch reads."""
    torch = pytest.importorskip("torch")
    file = tmp_path / "a"
    torch.save({"lm_head.weight": torch.zeros(1000)}, file)
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}

    def rewritten(name: str, extra: bytes = b"") -> str:
        with zipfile.ZipFile(file, "w") as archive:
            for each, data in content.items():
                entry = zipfile.ZipInfo(each.replace("data.pkl", name))
                if each.endswith("data.pkl"):
                    entry.extra = extra
                archive.writestr(entry, data)
            archive.writestr("a/b/data.pkl", content["a/data.pkl"])
        return refusal(capsys, file)

    neither = f"{file} is an archive, but neither a PyTorch file nor an .npz of arrays"
    assert rewritten("DATA.PKL") == rewritten("data.pkl") == neither
    # Python prefers a second name that stands beside the first, since 3.12.
    unicode = struct.pack("<BL", 1, zlib.crc32(b"a/data.pkl")) + b"a/x"
    two_names = f"{file} holds an entry of two names: save it again"
    extra = struct.pack("<HH", 0x7075, len(unicode)) + unicode
    assert rewritten("data.pkl", extra) in (two_names, neither)
    for between in (b"", bytes(1000)):  # PyTorch reads the first of two archives of one size
        file.write_bytes(whole + between + whole)
        assert refusal(capsys, file) == f"{file} has its directory not at its end: save it again"
    file.write_bytes(whole)
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"PK"
    assert refusal(capsys, file) == f"{file} has its directory not at its end: save it again"


def test_numbers_that_the_archive_does_not_hold(tmp_path, capsys):
    """A pickle that says of 1,000 stored numbers that they are 1,000,000."""
    torch = pytest.importorskip("torch")
    file = tmp_path / "a"
    torch.save({"lm_head.weight": torch.zeros(1000)}, file)
    with zipfile.ZipFile(file) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            written = struct.pack("<cH", b"M", 1000), struct.pack("<ci", b"J", 10**6)
            archive.writestr(name, data.replace(*written) if name.endswith(".pkl") else data)
    assert refusal(capsys, file).startswith(f"{file} is not a whole PyTorch file of weights alone")


def test_archives_do_not_unpack_without_bound(tmp_path, capsys):
    file = tmp_path / "a.npz"
    np.savez_compressed(file, **{"lm_head.weight": np.zeros(10**6, np.float32)})
    assert re.search(r"unpacks to 4,000,\d+ bytes from [\d,]+: save it", refusal(capsys, file))


def test_mappings_repeated_without_end(tmp_path, capsys):
    """Beside the weights, where Lightning puts its settings."""
    _, theirs = nano_weights()
    within, laughs = dict(NANO), dict(NANO)
    within["itself"] = within
    for _ in range(100):
        laughs = {"a": laughs, "b": laughs}
    beside = {"hyper_parameters": within, "callbacks": {"a": laughs}}
    save_torch(theirs, tmp_path / "a.ckpt", **beside)
    assert convert(tmp_path / "a.ckpt", tmp_path / "out", "--quiet") == 0


def test_settings_that_are_no_settings(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    _, theirs = nano_weights()
    file, shared = tmp_path / "a.ckpt", []
    for _ in range(100):
        shared = [shared, shared]  # whose text would not end
    for value in (torch.zeros(2), shared, {"a": 1}):
        for name in ("rope_theta", "pos_emb_type", "num_heads"):
            save_torch(theirs, file, hyper_parameters={**NANO, name: value})
            assert (
                f"{name} is {'array' if torch.is_tensor(value) else type(value).__name__}, wh"
                in (refusal(capsys, file))
            )
    for shadow in ({"lm_head.weight": 1}, {1: torch.zeros(2)}):
        state = {"EMACallback": {"shadow": shadow}}
        save_torch(theirs, file, hyper_parameters=NANO, callbacks=state)
        assert "the average of EMACallback is no state dict" in refusal(capsys, file)


# Where checkpoints are found


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for huggingface_hub: repositories are folders below ``hub.folder``."""
    errors = types.ModuleType("huggingface_hub.errors")
    errors.HfHubHTTPError = type("HfHubHTTPError", (OSError,), {})
    errors.LocalEntryNotFoundError = type("LocalEntryNotFoundError", (FileNotFoundError,), {})
    fake = types.ModuleType("huggingface_hub")
    fake.folder, fake.fetched = tmp_path / "hub", []

    class HfApi:
        def list_repo_files(self, repository, revision=None):
            folder = fake.folder / repository
            if not folder.is_dir():
                raise errors.HfHubHTTPError("404: no such\n repository")
            return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]

    def download(repository, name, revision=None):
        fake.fetched.append((name, revision))
        return str(fake.folder / repository / name)

    fake.HfApi, fake.hf_hub_download = HfApi, download
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return fake


FLAT = {"name": "trm", "num_heads": 4, "L_cycles": 1, "H_cycles": 1, "halt_max_steps": 2,
        "puzzle_emb_len": 0, "vocab_size": 11, "hidden_size": 16}  # fmt: skip


def repository(folder, config=FLAT):
    folder.mkdir(parents=True)
    save_npz(prefixed(tiny()), folder / "step_10")
    save_npz(prefixed(tiny()), folder / "step_9")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_models_of_the_hub(hub, capsys, tmp_path):
    repository(hub.folder / "owner" / "name")
    for named in ("owner/name", "https://huggingface.co/owner/name/tree/v2"):
        assert convert(named, tmp_path / f"out{len(hub.fetched)}") == 0
    assert hub.fetched == [(n, r) for r in (None, "v2") for n in ("config.json", "step_10")]
    assert "config.json: its options are taken" in capsys.readouterr().out
    _, loaded = trm_mlx.load(tmp_path / "out0")
    assert (loaded.num_heads, loaded.halt_max_steps) == (4, 2)
    assert convert("owner/name/step_9", "--quiet") == 0
    assert (tmp_path / "step_9-mlx" / "config.json").exists()
    assert hub.fetched[-1] == ("step_9", None)
    assert convert("owner/other") == 2
    line = capsys.readouterr().err
    assert line == (
        "error: cannot fetch owner/other from the Hugging Face hub: 404: no such repository\n"
    )


@pytest.mark.parametrize("ours", [False, True])
def test_solving_with_a_model_of_the_hub(hub, capsys, tmp_path, ours):
    """One of this package is taken as it is, another is converted once, into the cache."""
    folder = hub.folder / "owner" / "name"
    if ours:
        model = build_model(ModelConfig.of(arch_config(**FLAT_ARCH), **SIZES))
        folder.mkdir(parents=True)
        save_model(folder, model)
    else:
        repository(folder)
    for _ in range(2):
        words = ["--checkpoint", "owner/name", "--trajectories", "1"]
        assert main(["solve", *words, ".34567891" + "." * 72]) in (0, 1)
    output = capsys.readouterr()
    assert "step  2" in output.out
    assert output.err.count("its options are taken") == (0 if ours else 1)
    model, config = trm_mlx.load("owner/name")
    assert (config.hidden_size, config.halt_max_steps, model.training) == (16, 2, False)
    answer = trm_mlx.solve(".34567891" + "." * 72, "owner/name")
    assert len(answer.text) == 81
    assert (tmp_path / "cache").exists() != ours


FLAT_ARCH = {"name": "trm", "hidden_size": 16, "num_heads": 2, "H_cycles": 1, "L_cycles": 1,
             "puzzle_emb_ndim": 0, "halt_max_steps": 2}  # fmt: skip


def test_without_the_hub(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert convert("owner/name") == 2
    assert capsys.readouterr().err.endswith("hub, pip install 'trm-mlx[hub]'\n")
    with pytest.raises(InputError, match="owner/name is no file or folder here; to fetch it"):
        trm_mlx.load("owner/name")
    with pytest.raises(InputError, match="did you mean sudoku-9x9"):
        trm_mlx.load("sudoku9x9")
    (tmp_path / "checkpoints").mkdir()  # then it is a path with a mistake
    assert convert("checkpoints/name") == 2
    line = capsys.readouterr().err
    assert line == "error: cannot read checkpoints/name: No such file or directory\n"


def test_folders(tmp_path, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    assert "holds no file, and no weights (step_N," in refusal(capsys, folder)
    save_safetensors(tiny(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["x"], **FLAT}))
    (folder / "optimizer.pt").write_bytes(b"x")
    assert convert(folder) == 0
    assert trm_mlx.load(tmp_path / "model-mlx")[1].num_heads == 4
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_npz(tiny(), folder / "b.npz")
    line = refusal(capsys, folder)
    assert line == f"{folder} holds 2 files of weights: name one of a.safetensors, b.npz"
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert convert(folder / "b.npz", "num_heads=2", "seq_len=81", "puzzle_emb_len=0") == 0
    assert "config.json: says nothing of the architecture" in capsys.readouterr().out


def test_sharded_safetensors(tmp_path, capsys):
    folder, arrays = tmp_path / "model", tiny()
    folder.mkdir()
    names = sorted(arrays)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    for shard, held in shards.items():
        save_safetensors({name: arrays[name] for name in held}, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert convert(folder, tmp_path / "new", *WORDS) == 0
    assert_same(arrays, converted(tmp_path / "new"))
    assert convert(index, tmp_path / "out2", *WORDS) == 0
    index.write_text(json.dumps({"weight_map": weight_map | {"other": shard}}))
    assert "and its files differ in other: copy them again" in refusal(capsys, folder)
    index.write_text(json.dumps({"weight_map": {"a": "../../a.safetensors"}}))
    assert "which is not in its folder" in refusal(capsys, folder)
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    assert "gone.safetensors: No such file" in refusal(capsys, folder)
    index.write_text("[]")
    assert "is no index of safetensors files" in refusal(capsys, folder)


def test_without_a_name_it_lists_what_is_here(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert convert() == 0
    assert capsys.readouterr().out.startswith("no checkpoint found here;\nname a file of weights")
    (tmp_path / "runs" / "a b").mkdir(parents=True)
    (tmp_path / "step_7").write_bytes(b"x")
    (tmp_path / "runs" / "a b" / "last.ckpt").write_bytes(b"x")
    save_npz(tiny(), tmp_path / "a.npz")
    assert convert("a.npz", "own", *WORDS, "--quiet") == 0
    assert convert() == 0
    listed = capsys.readouterr().out.splitlines()[:4]
    commands = ["  trm convert a.npz", "  trm convert step_7", "  trm convert 'runs/a b/last.ckpt'"]
    assert listed == ["3 found here:", *commands]


# What lies around the weights in a file


@pytest.mark.parametrize(
    ("key", "shadow"), [("ema_helper", None), ("ema", None), ("ema", "shadow")]
)
def test_averages_beside_the_model(tmp_path, capsys, key, shadow):
    torch = pytest.importorskip("torch")
    arrays = tiny()
    state = {PREFIX + name: torch.tensor(array) for name, array in arrays.items()}
    trained = {name: 2 * array for name, array in state.items() if "_init" not in name}
    average = {"mu": 0.999, shadow: trained} if shadow else trained
    torch.save({"step": 3, "model": state, key: average}, tmp_path / "a.pth")
    assert convert(tmp_path / "a.pth", tmp_path / "new", *WORDS) == 0
    place = f"{key}.{shadow}" if shadow else key
    said = f"averaged weights of {place} taken for 13 of 15 arrays; for the last ones, --key model"
    assert said in capsys.readouterr().out.splitlines()
    averaged = {name: array if "_init" in name else 2 * array for name, array in arrays.items()}
    assert_same(averaged, converted(tmp_path / "new"))
    assert convert(tmp_path / "a.pth", tmp_path / "raw", *WORDS, "--key", "model") == 0
    assert_same(arrays, converted(tmp_path / "raw"))
    assert "a.pth lacks L_init" in refusal(capsys, tmp_path / "a.pth", *WORDS, "--key", place)
    torch.save({"model": state, key: {**trained, "other": torch.zeros(1)}}, tmp_path / "b.pth")
    assert f"{key} averages other, which model has not" in refusal(capsys, tmp_path / "b.pth")


def test_averages_that_are_not_taken_are_named(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    state = {"net." + name: torch.tensor(array) for name, array in tiny().items()}
    for key, value in (("ema", {"shadow_params": [*state.values()]}), ("swa_weights", {**state})):
        torch.save({"model": state, key: value}, tmp_path / f"{key}.pth")
        assert convert(tmp_path / f"{key}.pth", *WORDS) == 0
        said = f"averages in {key} not taken; --key names the weights wanted"
        assert said in capsys.readouterr().out.splitlines()


def test_wrappers_by_key(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    arrays = tiny()
    state = {name: torch.tensor(array) for name, array in arrays.items()}
    torch.save({"step": 3, "best": {"net": state}, "last": {}}, tmp_path / "a.pt")
    line = refusal(capsys, tmp_path / "a.pt")
    assert line.endswith("step is int, not a tensor; --key names it, one of best")
    assert convert(tmp_path / "a.pt", *WORDS, "--key", "best.net") == 0
    assert_same(arrays, converted(tmp_path / "a.pt-mlx"))
    assert "no state dict at --key best.x" in refusal(capsys, tmp_path / "a.pt", "--key", "best.x")
    save_npz(prefixed(arrays, "ema."), tmp_path / "b.npz")
    assert convert(tmp_path / "b.npz", *WORDS, "--key", "ema") == 0
    assert_same(arrays, converted(tmp_path / "b.npz-mlx"))
    assert "no array is called e.something" in refusal(capsys, tmp_path / "b.npz", "--key", "e")


# Relatives


@pytest.mark.parametrize(
    ("family", "foreign"),
    [
        ("an FPRM", "L_level.conv.weight"),
        ("an FPRM", "L_level.alpha_1_param"),
        ("a URM", "init_hidden"),
        ("a URM", "layers.0.mlp.dwconv.weight"),
        ("an SE-RRM", "Z_init"),
        ("an SE-RRM", "L_level.layers.0.attn_t.qkv.weight"),
        ("the PyTorch TRM from scratch (embed_input, init_y, init_z)", "init_y"),
    ],
)
def test_relatives_are_refused_by_name(tmp_path, capsys, family, foreign):
    file = tmp_path / "a.npz"
    save_npz(prefixed({**tiny(), foreign: np.zeros(16, np.float32)}), file)
    assert refusal(capsys, file) == (
        f"{file} is {family}: it has {foreign}, which no model of this package has: it cannot be "
        "converted"
    )


def test_foreign_arrays_are_named(tmp_path, capsys):
    arrays = {"L_level.layers.0.gate.weight": np.zeros(2, np.float32)}
    save_npz({**tiny(), **arrays}, tmp_path / "a.npz")
    assert "has L_level.layers.0.gate.weight, which no model" in refusal(capsys, tmp_path / "a.npz")
    arrays = {name: array for name, array in tiny(puzzle_emb_ndim=0).items() if "init" not in name}
    save_npz(arrays, tmp_path / "b.npz")
    assert "b.npz is an EqR: it has no H_init and L_init" in refusal(capsys, tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page"),
        (b"<html><head>", "a web page"),
        (b"Entry not found", "what a hub says of a missing file"),
        (b"GGUF\3\0\0\0", "a GGUF file"),
        (b"\x1f\x8b\x08\x00" + bytes(9), "packed with gzip: unpack it first"),
        (b'{"weight_map": {}}', "JSON text"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2), "a file of PyTorch before 1.6"),
    ],
)
def test_files_in_place_of_weights(tmp_path, capsys, content, what):
    (tmp_path / "a.pth").write_bytes(content)
    assert refusal(capsys, tmp_path / "a.pth").startswith(f"{tmp_path}/a.pth is {what}")


def test_a_file_named_as_a_checkpoint(tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(b"x")
    assert main(["solve", "--checkpoint", str(tmp_path / "x.pth"), "." * 81]) == 2
    assert "make a model folder of it with trm convert" in capsys.readouterr().err


def test_pipes_are_not_read(tmp_path, capsys):
    os.mkfifo(tmp_path / "a.pth")
    assert "a device or a pipe, not a regular file" in refusal(capsys, tmp_path / "a.pth")
    assert "a device or a pipe" in refusal(capsys, Path("/dev/zero"))


# Damaged, foreign and useless files


@pytest.mark.parametrize("save", [save_torch, save_safetensors, save_npz])
def test_truncated(tmp_path, capsys, save):
    file = tmp_path / "a"
    save(tiny(), file)
    whole = file.read_bytes()
    for length in (1, 8, 9, 100, 5000, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert refusal(capsys, file, *WORDS).startswith(str(file))


@pytest.mark.parametrize("save", [save_torch, save_npz])
def test_overwritten(tmp_path, capsys, save):
    """Both formats have check sums."""
    file, arrays = tmp_path / "a", tiny()
    save(arrays, file)
    whole, value = file.read_bytes(), arrays["lm_head.weight"].tobytes()
    assert value in whole
    file.write_bytes(whole.replace(value, value[::-1]))
    assert re.search(r"is damaged: .* is wrong; copy it again", refusal(capsys, file, *WORDS))


def test_foreign_files(tmp_path, capsys):
    file = tmp_path / "a"
    assert refusal(capsys, file) == f"cannot read {file}: No such file or directory"
    file.write_bytes(b"")
    assert refusal(capsys, file).startswith(f"{file} is empty")
    file.write_bytes(b"PK\x03\x04" + bytes(50))
    assert refusal(capsys, file) == f"{file} is cut short or damaged: copy it again"
    for content in (b"hello", b"\x80\x02", bytes(100), os.urandom(3) + b"\xff" * 50):
        file.write_bytes(content)
        assert "expected weights as torch.save writes them" in refusal(capsys, file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "is an archive, but neither a PyTorch file nor an .npz" in refusal(capsys, file)


def test_foreign_contents(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    file = tmp_path / "a"
    for content in ([1, 2], {}, {1: torch.zeros(1)}, torch.zeros(3), {"state_dict": {}}):
        torch.save(content, file)
        assert "does not hold a state dict (names to tensors)" in refusal(capsys, file)
    torch.save({"epoch": 3, "optimizer": {}}, file)
    assert "does not hold a state dict: epoch is int, not a tensor" in refusal(capsys, file)
    torch.save({"a": torch.zeros(3).to_sparse()}, file)
    assert "a is not a plain dense tensor" in refusal(capsys, file)
    resnet = {"conv1.weight": torch.zeros(64, 3, 7, 7), "bn1.weight": torch.zeros(64)}
    torch.save({**resnet, "bn1.num_batches_tracked": torch.tensor(1.0)}, file)
    assert refusal(capsys, file).endswith(
        "none of the 3 arrays (bn1.num_batches_tracked, bn1.weight, conv1.weight, ...) belongs to "
        "an L_level or H_level: not a TRM-family checkpoint"
    )


def test_useless_values(tmp_path, capsys):
    file, arrays = tmp_path / "a", tiny()
    save_npz({**arrays, "lm_head.weight": arrays["lm_head.weight"].astype(np.int8)}, file)
    assert "lm_head.weight holds" in refusal(capsys, file, *WORDS)
    for value in (np.nan, np.inf):
        save_npz({**arrays, "q_head.bias": np.array([0, value], np.float32)}, file)
        assert "q_head.bias holds values that are not finite" in refusal(capsys, file, *WORDS)
    save_npz({**arrays, "model.inner.H_init": arrays["H_init"]}, file)
    assert "holds H_init twice, under two prefixes" in refusal(capsys, file, *WORDS)
    save_npz({**arrays, "puzzle_emb.weights": np.zeros(3, np.float32)}, file)
    assert "puzzle_emb.weights has shape (3,), it should be" in refusal(capsys, file, *WORDS)
    levels = {name: array for name, array in arrays.items() if name.startswith("L_level")}
    save_npz(levels, file)
    assert "lack embed_tokens.embedding_weight, so nothing says vocab" in refusal(capsys, file)


def test_unwritable_output(tmp_path, capsys):
    file = tmp_path / "a.npz"
    save_npz(tiny(), file)
    (tmp_path / "taken").mkdir()
    assert convert(file, tmp_path / "taken", *WORDS) == 2
    assert "taken exists: name another" in capsys.readouterr().err
    assert convert(file, file / "below", *WORDS, "--quiet") == 2
    assert f"error: cannot write {file}/below: " in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "taken"}


def test_full_disk(tmp_path):
    file = tmp_path / "a.npz"
    save_npz(tiny(), file)

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [sys.executable, CHECKOUT / "convert_torch_to_mlx.py", file, *WORDS, "--quiet"]
    done = subprocess.run(
        command, preexec_fn=little_room, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {file}-mlx: ")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


# Verification


@pytest.mark.parametrize("variant", VARIANTS)
def test_verify(tmp_path, capsys, variant):
    pytest.importorskip("torch")
    save_npz(tiny(variant), tmp_path / "a.npz")
    words = [*WORDS, "seq_len=9", "H_cycles=1", "L_cycles=2", "--verify", "--dtype", "bfloat16"]
    assert convert(tmp_path / "a.npz", tmp_path / "out", *words) == 0
    found = re.search(
        r"PyTorch: logits (\S+), q (\S+) \(tolerance (\S+)\)", capsys.readouterr().out
    )
    logits, q, tolerance = map(float, found.groups())
    assert 0 < max(logits, q) <= tolerance < 1e-2


def test_failed_verification_leaves_no_folder(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    save_npz(tiny(), tmp_path / "a.npz")
    monkeypatch.setattr("trm_mlx.models.layers.EPSILON", 1e-3)
    assert convert(tmp_path / "a.npz", *WORDS, "seq_len=9", "--verify", "--quiet") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: largest difference from PyTorch: logits ")
    assert error.endswith("no folder written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


# The golden checkpoints


@pytest.mark.skipif(not SHARED.exists(), reason="the traces are not beside this checkout")
@pytest.mark.parametrize(
    "folder",
    [*VARIANTS, "trm_mlp_t", "trm_learned_pos"],
)
def test_golden(tmp_path, capsys, folder):
    torch = pytest.importorskip("torch")
    golden = SHARED / "golden" / folder
    told = json.loads((golden / "config.json").read_text())
    skipped = ("forward_dtype", "puzzle_emb_ndim", "hidden_size", "H_layers", "L_layers", "mlp_t")
    words = [f"{key}={value}" for key, value in told["config"].items() if key not in skipped]
    words.append(f"seq_len={told['seq_len']}")
    for name in ("initial", "final", "final_ema"):
        source, out = golden / f"{name}.pth", tmp_path / name
        assert convert(source, out, *words, "--verify") == 0
        theirs = torch.load(source, weights_only=True)
        arrays = {key.rpartition("inner.")[2]: a.float().numpy() for key, a in theirs.items()}
        assert_same(arrays, converted(out))
    assert capsys.readouterr().out.count("largest difference from PyTorch") == 3

    with np.load(golden / "trace.npz") as trace:
        model, config = trm_mlx.load(tmp_path / "initial")
        names = ("inputs", "labels", "puzzle_identifiers")
        batch = {name: mx.array(trace[f"batch0/{name}"]) for name in names}
        carry = model.initial_carry(batch)
        for step in range(config.halt_max_steps):
            carry, outputs = model(carry, batch)
            bound = parity.allowed(trace[f"eval{step}/sensitivity"])
            for name in ("logits", "q_halt_logits", "q_continue_logits"):
                difference = np.abs(np.array(outputs[name]) - trace[f"eval{step}/{name}"]).max()
                assert difference <= bound, (step, name)


def test_documented_commands_parse():
    """Every convert and export command of docs/convert.md, with the parsers of the commands."""
    from trm_mlx.cli import Parser
    from trm_mlx.commands import convert as convert_command
    from trm_mlx.commands import export as export_command

    text = (CHECKOUT / "docs" / "convert.md").read_text(encoding="utf-8")
    found = {"convert": 0, "export": 0}
    for line in "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines():
        words = shlex.split(line, comments=True)
        for start, module in (
            (["trm", "convert"], convert_command),
            (["trm", "export"], export_command),
        ):
            if words[:2] == start:
                parser = Parser()
                module.add_arguments(parser)
                parser.parse_intermixed_args(words[2:])
                found[start[1]] += 1
    assert min(found.values()) >= 3
