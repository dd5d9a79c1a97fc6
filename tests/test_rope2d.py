"""Two-dimensional rotary positions beside a plain statement of the formula."""

import math

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from trm_mlx.config import ArchConfig, ModelConfig
from trm_mlx.errors import InputError
from trm_mlx.models import attention, kernels_cpu
from trm_mlx.models.attention import Attention, Board
from trm_mlx.models.model import build_model

ON_CUDA = mx.cuda.is_available()


def turned(vector, row, column):
    """A head's vector turned pair by pair: the first half of the pairs by the row."""
    half, quarter = len(vector) // 2, len(vector) // 4
    result = np.empty(len(vector))
    for pair in range(half):
        place = row if pair < quarter else column
        angle = place * 100.0 ** -((pair % quarter) / quarter)
        low, high = vector[pair], vector[pair + half]
        result[pair] = low * math.cos(angle) - high * math.sin(angle)
        result[pair + half] = high * math.cos(angle) + low * math.sin(angle)
    return result


def plain_attention(layer, x, board, heads):
    """``x [L, D]`` after attention and its residual, in loops over heads and positions."""
    x = np.asarray(x, np.float64)
    length, dims = x.shape
    size = dims // heads
    qkv = (x @ np.array(layer.qkv_proj.weight, np.float64).T).reshape(length, 3, heads, size)
    cells = [divmod(cell, board.side) for cell in range(board.side**2)]
    places = [(0, 0)] * board.prefix + cells
    mixed = np.empty((length, heads, size))
    for head in range(heads):
        query, key = (
            np.stack([turned(qkv[i, part, head], *places[i]) for i in range(length)])
            for part in (0, 1)
        )
        scores = query @ key.T / math.sqrt(size)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed[:, head] = shares / shares.sum(axis=1, keepdims=True) @ qkv[:, 2, head]
    return x + mixed.reshape(length, dims) @ np.array(layer.o_proj.weight, np.float64).T


@pytest.mark.parametrize("board", [Board(0, 5), Board(3, 4), Board(0, 8)])
@pytest.mark.parametrize("loops", [True, False])
def test_attention_is_the_plain_formula(board, loops):
    layer, length = Attention(32, 2, True, board.prefix), board.prefix + board.side**2
    x = mx.random.normal((2, length, 32), key=mx.random.key(0))
    expected = [plain_attention(layer, row, board, 2) for row in x]
    grad = mx.random.normal(x.shape, key=mx.random.key(1))

    def results():
        outside = layer(x, in_grad=False)
        (inside,), gradients = mx.vjp(lambda x: layer(x, in_grad=True), [x], [grad])
        return outside, inside, gradients[0]

    if loops:
        outside, inside, gradient = results()
    else:
        with kernels_cpu.disabled():
            outside, inside, gradient = mx.compile(results)()
    np.testing.assert_allclose(outside, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(inside, expected, rtol=1e-4, atol=1e-5)
    step = 1e-5
    moved = [
        sum(
            (plain_attention(layer, x[i] + sign * step * grad[i], board, 2) * grad[i]).sum()
            for i in range(2)
        )
        for sign in (1, -1)
    ]
    found = float((gradient * grad).sum())
    assert found == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-3)


def test_the_score_of_two_cells_depends_on_how_they_lie_alone():
    board, size = Board(1, 6), 16
    angles = np.array(attention.board_angles(board, size))
    assert angles.shape == (37, 8)
    assert not angles[0].any()
    cell = {(r, c): 1 + r * 6 + c for r in range(6) for c in range(6)}
    np.testing.assert_allclose(
        angles[cell[4, 5]] - angles[cell[1, 3]], angles[cell[3, 2]], atol=1e-5
    )
    one_dimension = np.array([place * 100.0 ** (-k / 4) for place in (3, 2) for k in range(4)])
    np.testing.assert_allclose(angles[cell[3, 2]], one_dimension, rtol=1e-5)


def sizes(**changed):
    arch = {"name": "trm", "hidden_size": 32, "num_heads": 2, "pos_encodings": "rope2d"}
    arch |= {"puzzle_emb_ndim": 0, "vocab_size": 6, "seq_len": 25, "num_puzzle_identifiers": 1}
    return ModelConfig(**(arch | changed))


def test_a_model_holds_no_table_and_reads_the_board():
    model = build_model(sizes(L_layers=1, H_cycles=1, L_cycles=1))
    rope = build_model(sizes(L_layers=1, H_cycles=1, L_cycles=1, pos_encodings="rope"))
    names, others = ([n for n, _ in tree_flatten(m.parameters())] for m in (model, rope))
    assert names == others
    # A transposed board gives other answers where positions tell rows from columns.
    board = mx.array(np.random.default_rng(0).integers(1, 6, (1, 5, 5)), mx.int32)
    logits = []
    for tokens in (board, board.swapaxes(1, 2)):
        batch = {"inputs": tokens.reshape(1, 25), "puzzle_identifiers": mx.zeros((1,), mx.int32)}
        model.eval()
        logits.append(model(model.initial_carry(batch), batch)[1]["logits"].reshape(1, 5, 5, -1))
    assert float(mx.abs(logits[0] - logits[1].swapaxes(1, 2)).max()) > 1e-3


def test_what_has_no_board_is_refused():
    with pytest.raises(InputError, match=r"seq_len=24 is no square board, which .* use rope$"):
        sizes(seq_len=24)
    with pytest.raises(InputError, match="heads of 6 dimensions; rope2d needs a multiple of 4"):
        ArchConfig(name="trm", hidden_size=12, num_heads=2, pos_encodings="rope2d")
    assert sizes(seq_len=24, mlp_t=True).mlp_t  # which has no heads to turn


@pytest.mark.skipif(not ON_CUDA, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("board", [Board(0, 9), Board(16, 9), Board(0, 30)])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_kernels_turn_as_the_plain_function(monkeypatch, board, dtype):
    length = board.prefix + board.side**2
    with mx.stream(mx.gpu):
        layer = Attention(128, 2, True, board.prefix)
        x, grad = (
            mx.random.normal((2, length, 128), key=mx.random.key(seed)).astype(dtype)
            for seed in (0, 1)
        )
        results = []
        for name in ("cuda", "metal"):
            monkeypatch.setattr(attention, "device_kind", lambda name=name: name)
            value, gradient = mx.vjp(lambda x: layer(x, in_grad=True), [x], [grad])
            results.append([layer(x, in_grad=False), *value, *gradient])
            mx.eval(results[-1])
    for ours, plain in zip(*results, strict=True):
        ours, plain = (np.array(array.astype(mx.float32)) for array in (ours, plain))
        room = 1e-2 if dtype == mx.float32 else 5e-2  # products in TF32 and bfloat16
        np.testing.assert_allclose(ours, plain, rtol=room, atol=room * np.abs(plain).max())
