"""Times each operation of a block alone, forward and backward: the table of docs/performance.md.

python tools/bench_ops.py --batch-size 768
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

from trm_mlx import device
from trm_mlx.models.attention import Attention
from trm_mlx.models.blocks import CHANNELS, POSITIONS, Axis, gated_silu, gated_silu_gradients
from trm_mlx.models.layers import norm_channels, norm_positions

import mlx.core as mx  # isort: skip

LENGTH, DIMS, HEADS = 97, 512, 8
Operation = tuple[str, Callable]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--runs", type=int, default=10)
    arguments = parser.parse_args()
    device.announce("auto")
    for name, run in operations(arguments.batch_size):
        print(f"{name:50} {milliseconds(run, arguments.runs):8.3f} ms", flush=True)


def operations(batch: int) -> Iterator[Operation]:
    """The name of each operation and a function that runs it."""
    yield from half("positions", POSITIONS, norm_positions, LENGTH, (LENGTH, batch * DIMS))
    yield from half("channels", CHANNELS, norm_channels, DIMS, (batch * LENGTH, DIMS))
    layer, x = Attention(DIMS, HEADS, rope=True), normal(batch, LENGTH, DIMS)
    yield "attention", lambda: layer(x, in_grad=False)
    yield "attention, inside a gradient", lambda: layer(x, in_grad=True)
    yield "attention and its gradient", lambda: mx.vjp(lambda x: layer(x, True), [x], [x])[1]
    size = 2048 if device.device_kind() == "cpu" else 8192
    large = normal(size, size)
    yield f"matrix product, {size} cubed", lambda: large @ large


def half(name: str, axis: Axis, norm: Callable, mixed: int, shape: tuple) -> Iterator[Operation]:
    """The operations of a SwiGLU along one axis and of the norm after it."""
    inner = -(-round(4 * mixed * 2 / 3) // 256) * 256
    x, grad = normal(*shape), normal(*shape)
    gate_up, down = normal(2 * inner, mixed), normal(mixed, inner)
    product = axis.product(x, gate_up)
    hidden = gated_silu(product)
    mx.eval(product, hidden)
    yield f"{name}: gate and up", lambda: axis.product(x, gate_up)
    yield f"{name}: silu, gate x up", lambda: gated_silu(product)
    yield f"{name}: down, residual", lambda: axis.down(x, hidden, down)
    yield f"{name}: gradient of hidden", lambda: axis.hidden_grad(grad, down)
    yield f"{name}: gradient of silu", lambda: gated_silu_gradients(product, hidden)
    yield f"{name}: gradient of x", lambda: axis.input_grad(grad, product, gate_up)
    yield (
        f"{name}: gradients of weights",
        lambda: axis.weight_grads(x, product, hidden, grad),
    )
    yield f"{name}: norm", lambda: norm(x)
    yield f"{name}: gradient of norm", lambda: mx.vjp(norm, [x], [grad])[1]
    yield f"{name}: an addition", lambda: x + grad


def normal(*shape: int) -> mx.array:
    dtype = getattr(mx, device.default_dtype())
    array = (mx.random.normal(shape) * 0.05).astype(dtype)
    mx.eval(array)
    return array


def milliseconds(run: Callable, runs: int) -> float:
    """The median of three rounds of ``runs`` calls, after a round of warm-up."""
    rounds = []
    for _ in range(4):
        start = time.perf_counter()
        for _ in range(runs):
            mx.async_eval(run())
        mx.synchronize()
        rounds.append((time.perf_counter() - start) / runs * 1e3)
    return statistics.median(rounds[1:])


if __name__ == "__main__":
    main()
