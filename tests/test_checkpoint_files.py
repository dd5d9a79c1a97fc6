"""Reading safetensors: what MLX would misread, or read too late to say so."""

import json

import mlx.core as mx
import pytest

from trm_mlx import InputError
from trm_mlx.models.checkpoint_files import find_checkpoint, read_weights, save_arrays


def write(path, kind, size, values=4):
    entry = {"dtype": kind, "shape": [values], "data_offsets": [0, size * values]}
    header = json.dumps({"__metadata__": {"format": "mlx"}, "w": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size * values))
    return path


@pytest.mark.parametrize(
    ("kind", "size", "dtype"),
    [("F32", 4, mx.float32), ("BF16", 2, mx.bfloat16), ("I64", 8, mx.int64), ("BOOL", 1, mx.bool_)],
)
def test_kinds_that_mean_what_they_say(tmp_path, kind, size, dtype):
    read = read_weights(write(tmp_path / "w.safetensors", kind, size))
    assert {name: (array.dtype, array.shape) for name, array in read.items()} == {
        "w": (dtype, (4,))
    }


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E8M0", "F8_E5M2", "F64", "C64", "new"])
def test_kinds_that_mlx_misreads_are_refused(tmp_path, kind):
    path = write(tmp_path / "w.safetensors", kind, 8 if kind in ("F64", "C64") else 1)
    with pytest.raises(InputError, match=rf"w holds {kind}; save it as F32, F16 or BF16"):
        read_weights(path)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_file_cut_short_is_refused_when_it_is_opened(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    save_arrays(path, {"w": mx.zeros((8, 8))})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=str(path)):
        read_weights(path)


@pytest.mark.parametrize("text", ["[]", "5", '{"w": 5}', '{"w": {"dtype": "F32"}}', "[" * 9999])
def test_headers_of_nonsense(tmp_path, text):
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode())
    with pytest.raises(InputError, match="is not a safetensors file, or damaged"):
        read_weights(path)


def test_a_header_of_impossible_length(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match="is not a safetensors file"):
        read_weights(path)


def test_newest_checkpoint_is_that_of_the_greatest_number(tmp_path):
    for name in ("step_9", "step_10", "step_0000003", "step_11.copy", "step_12"):
        (tmp_path / name).mkdir()
        if name != "step_12":
            (tmp_path / name / "config.json").write_text("{}")
    assert find_checkpoint(tmp_path).name == "step_10"
