"""CUDA kernels for what MLX would take several passes over memory for.

Each does the work of a plain function of the same name in ``activations``, ``norms`` or ``heads``,
which call it on an NVIDIA GPU; a test there compares the two. CUDA's run-time compiler builds each
when it is first used, in about a second.
"""

import functools
from collections.abc import Sequence

import mlx.core as mx

THREADS = 256  # of a block
VECTOR_BYTES = 16  # the widest load there is
NORM_BYTES = 8  # narrower, for more threads: few columns are read at once

# V elements at a time; `Vector` of them is loaded and stored at once.
_PREAMBLE = """
    struct alignas(sizeof(T) * V) Vector { T at[V]; };
    size_t thread = cooperative_groups::this_grid().thread_rank();
"""

_GATED_SILU = """
    size_t size = size_t(product_shape[0]) / 2 * product_shape[1];
    size_t i = thread * V;
    if (i >= size) return;
    Vector gate = *(const Vector*)(product + i), up = *(const Vector*)(product + size + i);
    #pragma unroll
    for (int k = 0; k < V; k++) {
        float x = float(gate.at[k]);
        up.at[k] = T(float(T(x / (1.0f + expf(-x)))) * float(up.at[k]));
    }
    *(Vector*)(gated + i) = up;
"""

_GATED_SILU_GRADIENTS = """
    size_t size = size_t(product_shape[0]) / 2 * product_shape[1];
    size_t i = thread * V;
    if (i >= size) return;
    Vector gate = *(const Vector*)(product + i), up = *(const Vector*)(product + size + i);
    Vector slope = *(const Vector*)(cotangent + i), result;
    #pragma unroll
    for (int k = 0; k < V; k++) {
        float x = float(gate.at[k]), c = float(slope.at[k]), share = 1.0f / (1.0f + expf(-x));
        T silu = T(x * share);
        gate.at[k] = T(c * float(up.at[k]) * (share + x * share * (1.0f - share)));
        result.at[k] = T(float(silu) * float(up.at[k]));
        up.at[k] = T(c * float(silu));
    }
    *(Vector*)(d_product + i) = gate;
    *(Vector*)(d_product + size + i) = up;
    *(Vector*)(gated + i) = result;
"""

# One thread a few columns; the second pass over them comes from the cache.
_NORM_POSITIONS = """
    size_t rows = x_shape[0], columns = x_shape[1], column = thread * V;
    if (column >= columns) return;
    float scale[V] = {};
    #pragma unroll 8
    for (size_t row = 0; row < rows; row++) {
        Vector value = *(const Vector*)(x + row * columns + column);
        for (int k = 0; k < V; k++) scale[k] += float(value.at[k]) * float(value.at[k]);
    }
    for (int k = 0; k < V; k++) scale[k] = 1.0f / sqrtf(scale[k] / rows + EPSILON);
    #pragma unroll 8
    for (size_t row = 0; row < rows; row++) {
        Vector value = *(const Vector*)(x + row * columns + column);
        for (int k = 0; k < V; k++) value.at[k] = T(float(value.at[k]) * scale[k]);
        *(Vector*)(normed + row * columns + column) = value;
    }
"""

_NORM_POSITIONS_GRADIENT = """
    size_t rows = x_shape[0], columns = x_shape[1], column = thread * V;
    if (column >= columns) return;
    float scale[V] = {}, pull[V] = {};
    #pragma unroll 8
    for (size_t row = 0; row < rows; row++) {
        Vector value = *(const Vector*)(x + row * columns + column);
        Vector slope = *(const Vector*)(cotangent + row * columns + column);
        for (int k = 0; k < V; k++) {
            scale[k] += float(value.at[k]) * float(value.at[k]);
            pull[k] += float(value.at[k]) * float(slope.at[k]);
        }
    }
    for (int k = 0; k < V; k++) {
        scale[k] = 1.0f / sqrtf(scale[k] / rows + EPSILON);
        pull[k] *= scale[k] * scale[k] * scale[k] / rows;
    }
    #pragma unroll 8
    for (size_t row = 0; row < rows; row++) {
        Vector value = *(const Vector*)(x + row * columns + column);
        Vector slope = *(const Vector*)(cotangent + row * columns + column);
        for (int k = 0; k < V; k++)
            value.at[k] = T(float(slope.at[k]) * scale[k] - float(value.at[k]) * pull[k]);
        *(Vector*)(gradient + row * columns + column) = value;
    }
"""

# A thread moves V elements of the first half of a head and their partners in the second half.
_MOVE_HEADS = """
    constexpr int HALF = DIMS / 2, STEPS = HALF / V, ROWS = MERGES ? LENGTH : PADDED;
    size_t item = thread;
    int j = item % STEPS * V; item /= STEPS;
    int head = item % HEADS; item /= HEADS;
    int row = item % ROWS; item /= ROWS;
    int part = item % MOVED;
    size_t sample = item / MOVED;
    if (sample >= size_t(BATCH)) return;
    T* inside = (T*)(POINTER) + ((sample * PADDED + row) * HEADS + head) * DIMS + j;
    T* outside = (T*)tokens + (((sample * LENGTH + row) * PARTS + part) * HEADS + head) * DIMS + j;
    const T* from = MERGES ? inside : outside;
    T* to = MERGES ? outside : inside;
    Vector low = {}, high = {};
    if (row < LENGTH) {
        low = *(const Vector*)from;
        high = *(const Vector*)(from + HALF);
        if (part < ROTATED) {
            #pragma unroll
            for (int k = 0; k < V; k++) {
                float a = float(low.at[k]), b = float(high.at[k]);
                float c = cosines[row * HALF + j + k], s = sines[row * HALF + j + k];
                if (MERGES) s = -s;
                low.at[k] = T(a * c - b * s);
                high.at[k] = T(b * c + a * s);
            }
        }
    }
    *(Vector*)to = low;
    *(Vector*)(to + HALF) = high;
"""


def gated_silu(product: mx.array) -> mx.array:
    """See ``activations.gated_silu``."""
    rows, columns = product.shape
    (gated,) = _launch(
        _kernel("gated_silu", ("product",), ("gated",), _GATED_SILU),
        [product],
        [(rows // 2, columns)],
        product.size // 2,
        columns,
    )
    return gated


def gated_silu_gradients(product: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    """See ``activations.gated_silu_gradients``."""
    d_product, gated = _launch(
        _kernel(
            "gated_silu_gradients",
            ("product", "cotangent"),
            ("d_product", "gated"),
            _GATED_SILU_GRADIENTS,
        ),
        [product, cotangent],
        [product.shape, cotangent.shape],
        cotangent.size,
        product.shape[1],
    )
    return d_product, gated


def norm_positions(x: mx.array, epsilon: float) -> mx.array:
    """See ``norms.norm_positions``; ``x [L, N]``."""
    source = _NORM_POSITIONS.replace("EPSILON", f"{epsilon}f")
    (normed,) = _launch(
        _kernel("norm_positions", ("x",), ("normed",), source),
        [x],
        [x.shape],
        x.shape[1],
        x.shape[1],
        NORM_BYTES,
    )
    return normed


def norm_positions_gradient(x: mx.array, cotangent: mx.array, epsilon: float) -> mx.array:
    """The gradient of `norm_positions` at ``x``."""
    source = _NORM_POSITIONS_GRADIENT.replace("EPSILON", f"{epsilon}f")
    (gradient,) = _launch(
        _kernel("norm_positions_gradient", ("x", "cotangent"), ("gradient",), source),
        [x, cotangent],
        [x.shape],
        x.shape[1],
        x.shape[1],
        NORM_BYTES,
    )
    return gradient


def split_heads(
    tokens: mx.array, cosines: mx.array, sines: mx.array, rotated: int, padded: int, moved: int
) -> list[mx.array]:
    """The first ``moved`` parts of ``tokens [B, L, parts, H, D]``, each ``[B, padded, H, D]``.

    Positions from L on are zero. The first ``rotated`` parts get the rotary encoding of
    ``cosines`` and ``sines [L, D/2]``.
    """
    batch, length, parts, heads, dims = tokens.shape
    names = tuple(f"part{i}" for i in range(moved))
    return _move_heads(
        ("tokens", "cosines", "sines"), names, [tokens, cosines, sines],
        [(batch, padded, heads, dims)] * moved, batch * moved * padded * heads * dims // 2,
        "tokens_shape[0]", LENGTH=length, PADDED=padded, PARTS=parts, MOVED=moved,
        ROTATED=rotated, HEADS=heads, DIMS=dims, MERGES=False,
    )  # fmt: skip


def merge_heads(
    parts: Sequence[mx.array], cosines: mx.array, sines: mx.array, rotated: int, length: int
) -> mx.array:
    """The transpose of `split_heads`: ``[B, padded, H, D]`` each to ``[B, L, parts, H, D]``."""
    batch, padded, heads, dims = parts[0].shape
    names = tuple(f"part{i}" for i in range(len(parts)))
    (tokens,) = _move_heads(
        (*names, "cosines", "sines"), ("tokens",), [*parts, cosines, sines],
        [(batch, length, len(parts), heads, dims)], batch * len(parts) * length * heads * dims // 2,
        "part0_shape[0]", LENGTH=length, PADDED=padded, PARTS=len(parts), MOVED=len(parts),
        ROTATED=rotated, HEADS=heads, DIMS=dims, MERGES=True,
    )  # fmt: skip
    return tokens


def _move_heads(inputs, outputs, arrays, shapes, elements, batch, **constants) -> list[mx.array]:
    pointer = "part0"
    for i in range(1, constants["MOVED"]):
        pointer = f"part == {i} ? (T*)part{i} : (T*)({pointer})"
    source = _MOVE_HEADS.replace("POINTER", pointer).replace("BATCH", batch)
    name = f"{'merge' if constants['MERGES'] else 'split'}_heads"
    kernel = _kernel(name, inputs, outputs, source)
    return _launch(kernel, arrays, shapes, elements, constants["DIMS"] // 2, **constants)


def _launch(
    kernel,
    inputs: Sequence[mx.array],
    shapes: Sequence[tuple[int, ...]],
    elements: int,
    inner: int,
    bytes_at_once: int = VECTOR_BYTES,
    **constants: int,
) -> list[mx.array]:
    """Run a kernel with a thread for every few of ``elements``; rows of ``inner`` stay whole."""
    dtype = inputs[0].dtype
    width = bytes_at_once // dtype.size
    while inner % width:
        width //= 2
    return kernel(
        inputs=list(inputs),
        template=[("T", dtype), ("V", width), *constants.items()],
        grid=(elements // width, 1, 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=list(shapes),
        output_dtypes=[dtype] * len(shapes),
    )


@functools.cache
def _kernel(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], source: str):
    return mx.fast.cuda_kernel(name, list(inputs), list(outputs), _PREAMBLE + source)
