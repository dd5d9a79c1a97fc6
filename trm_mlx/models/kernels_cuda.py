"""CUDA kernels for what MLX would take several passes over memory for.

Each does the work of a plain function of the same name in ``blocks``, ``layers``, ``attention`` or
``convolution``, which call it on an NVIDIA GPU; a test there compares the two. CUDA's run-time
compiler builds each when it is first used, in about a second.
"""

import functools
import math
from collections.abc import Callable, Sequence

import mlx.core as mx

THREADS = 256  # of a block
VECTOR_BYTES = 16  # the widest load there is
COLUMN_BYTES = 8  # narrower where a thread reads a column, for more threads
HELD_BYTES = 4  # and again where it holds one in registers
HELD_ROWS = 128
SUMS = 512  # partial sums of the gradient of a convolution's taps

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
    Vector grad = *(const Vector*)(cotangent + i), result;
    #pragma unroll
    for (int k = 0; k < V; k++) {
        float x = float(gate.at[k]), c = float(grad.at[k]), share = 1.0f / (1.0f + expf(-x));
        T silu = T(x * share);
        gate.at[k] = T(c * float(up.at[k]) * (share + x * share * (1.0f - share)));
        result.at[k] = T(float(silu) * float(up.at[k]));
        up.at[k] = T(c * float(silu));
    }
    *(Vector*)(d_product + i) = gate;
    *(Vector*)(d_product + size + i) = up;
    *(Vector*)(gated + i) = result;
"""

# A warp a row: V elements of it a thread, then the next 32 V.
_NORM_CHANNELS = """
    size_t row = thread / 32, columns = x_shape[1];
    if (row >= size_t(x_shape[0])) return;
    const T* from = x + row * columns;
    float scale = 0.0f;
    for (size_t column = thread % 32 * V; column < columns; column += 32 * V) {
        Vector value = *(const Vector*)(from + column);
        for (int k = 0; k < V; k++) scale += float(value.at[k]) * float(value.at[k]);
    }
    for (int o = 16; o; o /= 2) scale += __shfl_xor_sync(0xffffffff, scale, o);
    scale = 1.0f / sqrtf(scale / columns + EPSILON);
    for (size_t column = thread % 32 * V; column < columns; column += 32 * V) {
        Vector value = *(const Vector*)(from + column);
        for (int k = 0; k < V; k++) value.at[k] = T(float(value.at[k]) * scale);
        *(Vector*)(normed + row * columns + column) = value;
    }
"""

_NORM_CHANNELS_GRADIENT = """
    size_t row = thread / 32, columns = x_shape[1], start = row * columns;
    if (row >= size_t(x_shape[0])) return;
    float scale = 0.0f, dot = 0.0f;
    for (size_t column = thread % 32 * V; column < columns; column += 32 * V) {
        Vector value = *(const Vector*)(x + start + column);
        Vector grad = *(const Vector*)(cotangent + start + column);
        for (int k = 0; k < V; k++) {
            scale += float(value.at[k]) * float(value.at[k]);
            dot += float(value.at[k]) * float(grad.at[k]);
        }
    }
    for (int o = 16; o; o /= 2) {
        scale += __shfl_xor_sync(0xffffffff, scale, o);
        dot += __shfl_xor_sync(0xffffffff, dot, o);
    }
    scale = 1.0f / sqrtf(scale / columns + EPSILON);
    dot *= scale * scale * scale / columns;
    for (size_t column = thread % 32 * V; column < columns; column += 32 * V) {
        Vector value = *(const Vector*)(x + start + column);
        Vector grad = *(const Vector*)(cotangent + start + column);
        for (int k = 0; k < V; k++)
            value.at[k] = T(float(grad.at[k]) * scale - float(value.at[k]) * dot);
        *(Vector*)(gradient + start + column) = value;
    }
"""

# A thread a few columns; as many rows as registers hold are read once.
_NORM_POSITIONS = """
    constexpr int HELD = ROWS <= HELD_ROWS ? ROWS : 0;
    size_t columns = x_shape[1], column = thread * V;
    if (column >= columns) return;
    Vector held[HELD + 1];
    float scale[V] = {};
    #pragma unroll
    for (int row = 0; row < HELD; row++) held[row] = *(const Vector*)(x + row * columns + column);
    #pragma unroll 8
    for (int row = 0; row < ROWS; row++) {
        Vector value = HELD ? held[HELD ? row : 0] : *(const Vector*)(x + row * columns + column);
        for (int k = 0; k < V; k++) scale[k] += float(value.at[k]) * float(value.at[k]);
    }
    for (int k = 0; k < V; k++) scale[k] = 1.0f / sqrtf(scale[k] / ROWS + EPSILON);
    #pragma unroll 8
    for (int row = 0; row < ROWS; row++) {
        Vector value = HELD ? held[HELD ? row : 0] : *(const Vector*)(x + row * columns + column);
        for (int k = 0; k < V; k++) value.at[k] = T(float(value.at[k]) * scale[k]);
        *(Vector*)(normed + row * columns + column) = value;
    }
"""

_NORM_POSITIONS_GRADIENT = """
    size_t columns = x_shape[1], column = thread * V;
    if (column >= columns) return;
    float scale[V] = {}, dot[V] = {};
    #pragma unroll 8
    for (int row = 0; row < ROWS; row++) {
        Vector value = *(const Vector*)(x + row * columns + column);
        Vector grad = *(const Vector*)(cotangent + row * columns + column);
        for (int k = 0; k < V; k++) {
            scale[k] += float(value.at[k]) * float(value.at[k]);
            dot[k] += float(value.at[k]) * float(grad.at[k]);
        }
    }
    for (int k = 0; k < V; k++) {
        scale[k] = 1.0f / sqrtf(scale[k] / ROWS + EPSILON);
        dot[k] *= scale[k] * scale[k] * scale[k] / ROWS;
    }
    #pragma unroll 8
    for (int row = 0; row < ROWS; row++) {
        Vector value = *(const Vector*)(x + row * columns + column);
        Vector grad = *(const Vector*)(cotangent + row * columns + column);
        for (int k = 0; k < V; k++)
            value.at[k] = T(float(grad.at[k]) * scale[k] - float(value.at[k]) * dot[k]);
        *(Vector*)(gradient + row * columns + column) = value;
    }
"""

# A thread moves V elements of the first half of a head and their partners in the second half; a row
# of blocks for each position that is written. Sizes of a puzzle are read when it runs: compiled in,
# they would cost seconds for every canvas.
_MOVE_HEADS = """
    constexpr int HALF = DIMS / 2, STEPS = HALF / V;
    int length = LENGTH, padded = PADDED, row = blockIdx.y;
    size_t item = blockIdx.x * size_t(blockDim.x) + threadIdx.x;
    int j = item % STEPS * V; item /= STEPS;
    int head = item % HEADS; item /= HEADS;
    int part = item % MOVED;
    size_t sample = item / MOVED;
    if (sample >= size_t(BATCH)) return;
    T* inside = (T*)(POINTER) + ((sample * padded + row) * HEADS + head) * DIMS + j;
    T* outside = (T*)tokens + (((sample * length + row) * PARTS + part) * HEADS + head) * DIMS + j;
    const T* from = MERGES ? inside : outside;
    T* to = MERGES ? outside : inside;
    Vector low = {}, high = {};
    if (row < length) {
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

# Of threads that have a few channels each.
_BOARDS = """
    int length = x_shape[1], columns = x_shape[2], side = int(sqrtf(length - PREFIX) + 0.5f);
    int column = thread * V % columns;
"""

# Moves a thread one column on along a board's row: `near` holds the 3x3 cells around it.
_NEXT_COLUMN = """
        #pragma unroll
        for (int i = 0; i < 3; i++) {
            near[i][0] = near[i][1];
            near[i][1] = near[i][2];
            near[i][2] = Vector{};
            if (place + 1 < side && row + i >= 1 && row + i <= side)
                near[i][2] = *(const Vector*)(from + ((i - 1) * side + place + 1) * columns);
        }
        if (place < 0) continue;
"""


def _of_boards(source: str) -> str:
    return _BOARDS + source.replace("NEXT_COLUMN", _NEXT_COLUMN)


# A thread a row of a board, or a position in front of it.
_CONVOLVE = _of_boards(
    """
    int item = thread * V / columns;
    int row = item % (PREFIX + side) - PREFIX, sample = item / (PREFIX + side);
    if (sample >= x_shape[0]) return;
    size_t start = size_t(sample) * length * columns + column;
    if (row < 0) {
        start += size_t(row + PREFIX) * columns;
        *(Vector*)(mixed + start) = *(const Vector*)(x + start);
        return;
    }
    start += size_t(PREFIX + row * side) * columns;
    const T* from = x + start;
    float tap[9][V];
    #pragma unroll
    for (int i = 0; i < 9; i++)
        for (int k = 0; k < V; k++) tap[i][k] = taps[i * columns + column + k];
    Vector near[3][3] = {};
    for (int place = -1; place < side; place++) {
        NEXT_COLUMN
        Vector result;
        #pragma unroll
        for (int k = 0; k < V; k++) {
            float sum = float(near[1][1].at[k]);
            #pragma unroll
            for (int i = 0; i < 9; i++) sum += float(near[i / 3][i % 3].at[k]) * tap[i][k];
            result.at[k] = T(sum);
        }
        *(Vector*)(mixed + start + size_t(place) * columns) = result;
    }
"""
)

# A thread some rows of boards.
_TAPS_GRADIENT = _of_boards(
    """
    int part = thread * V / columns;
    if (part >= SUMS) return;
    float sums[9][V] = {};
    for (int item = part; item < x_shape[0] * side; item += SUMS) {
        int row = item % side;
        size_t start = (size_t(item / side) * length + PREFIX + row * side) * columns + column;
        const T* from = x + start;
        Vector near[3][3] = {};
        for (int place = -1; place < side; place++) {
            NEXT_COLUMN
            Vector grad = *(const Vector*)(cotangent + start + place * columns);
            #pragma unroll
            for (int tap = 0; tap < 9; tap++)
                for (int k = 0; k < V; k++)
                    sums[tap][k] += float(near[tap / 3][tap % 3].at[k]) * float(grad.at[k]);
        }
    }
    for (int tap = 0; tap < 9; tap++)
        for (int k = 0; k < V; k++)
            gradients[(part * 9 + tap) * columns + column + k] = sums[tap][k];
"""
)


def gated_silu(product: mx.array) -> mx.array:
    """See ``blocks.gated_silu``."""
    rows, columns = product.shape
    kernel = _kernel("gated_silu", ("product",), ("gated",), _GATED_SILU)
    width = _width(product, columns)
    shapes = [(rows // 2, columns)]
    return _launch(kernel, [product], shapes, product.size // 2 // width, width)[0]


def gated_silu_gradients(product: mx.array, cotangent: mx.array) -> list[mx.array]:
    """See ``blocks.gated_silu_gradients``."""
    names = ("product", "cotangent"), ("d_product", "gated")
    kernel = _kernel("gated_silu_gradients", *names, _GATED_SILU_GRADIENTS)
    width = _width(product, product.shape[1])
    shapes = [product.shape, cotangent.shape]
    return _launch(kernel, [product, cotangent], shapes, cotangent.size // width, width)


def norm_channels(x: mx.array, epsilon: float) -> mx.array:
    """See ``layers.norm_channels``; ``x [R, D]``."""
    source = _NORM_CHANNELS.replace("EPSILON", f"{epsilon}f")
    kernel = _kernel("norm_channels", ("x",), ("normed",), source)
    return _launch(kernel, [x], [x.shape], 32 * len(x), _width(x, x.shape[1]))[0]


def norm_channels_gradient(x: mx.array, cotangent: mx.array, epsilon: float) -> mx.array:
    """The gradient of `norm_channels` at ``x``."""
    source = _NORM_CHANNELS_GRADIENT.replace("EPSILON", f"{epsilon}f")
    kernel = _kernel("norm_channels_gradient", ("x", "cotangent"), ("gradient",), source)
    return _launch(kernel, [x, cotangent], [x.shape], 32 * len(x), _width(x, x.shape[1]))[0]


def norm_positions(x: mx.array, epsilon: float) -> mx.array:
    """See ``layers.norm_positions``; ``x [L, N]``."""
    source = _NORM_POSITIONS.replace("EPSILON", f"{epsilon}f").replace("HELD_ROWS", f"{HELD_ROWS}")
    kernel = _kernel("norm_positions", ("x",), ("normed",), source)
    rows, columns = x.shape
    width = _width(x, columns, HELD_BYTES if rows <= HELD_ROWS else COLUMN_BYTES)
    return _launch(kernel, [x], [x.shape], columns // width, width, ROWS=rows)[0]


def norm_positions_gradient(x: mx.array, cotangent: mx.array, epsilon: float) -> mx.array:
    """The gradient of `norm_positions` at ``x``."""
    source = _NORM_POSITIONS_GRADIENT.replace("EPSILON", f"{epsilon}f")
    kernel = _kernel("norm_positions_gradient", ("x", "cotangent"), ("gradient",), source)
    rows, columns = x.shape
    width = _width(x, columns, COLUMN_BYTES)
    return _launch(kernel, [x, cotangent], [x.shape], columns // width, width, ROWS=rows)[0]


def split_heads(
    tokens: mx.array, cosines: mx.array, sines: mx.array, rotated: int, padded: int, moved: int
) -> list[mx.array]:
    """The first ``moved`` parts of ``tokens [B, L, parts, H, D]``, each ``[B, padded, H, D]``.

    Positions from L on are zero. The first ``rotated`` parts get the rotary encoding of
    ``cosines`` and ``sines [L, D/2]``.
    """
    batch, _length, parts, heads, dims = tokens.shape
    names = tuple(f"part{i}" for i in range(moved))
    return _move_heads(
        ("tokens", "cosines", "sines"), names, [tokens, cosines, sines],
        [(batch, padded, heads, dims)] * moved, padded,
        {"BATCH": "tokens_shape[0]", "LENGTH": "tokens_shape[1]", "PADDED": "gridDim.y"},
        PARTS=parts, MOVED=moved, ROTATED=rotated, HEADS=heads, DIMS=dims, MERGES=False,
    )  # fmt: skip


def merge_heads(
    parts: Sequence[mx.array], cosines: mx.array, sines: mx.array, rotated: int, length: int
) -> mx.array:
    """The transpose of `split_heads`: ``[B, padded, H, D]`` each to ``[B, L, parts, H, D]``."""
    batch, _padded, heads, dims = parts[0].shape
    names = tuple(f"part{i}" for i in range(len(parts)))
    (tokens,) = _move_heads(
        (*names, "cosines", "sines"), ("tokens",), [*parts, cosines, sines],
        [(batch, length, len(parts), heads, dims)], length,
        {"BATCH": "part0_shape[0]", "LENGTH": "gridDim.y", "PADDED": "part0_shape[1]"},
        PARTS=len(parts), MOVED=len(parts), ROTATED=rotated, HEADS=heads, DIMS=dims, MERGES=True,
    )  # fmt: skip
    return tokens


def convolve(x: mx.array, taps: mx.array, prefix: int) -> mx.array:
    """See ``convolution.convolve``."""
    kernel = _kernel("convolve", ("x", "taps"), ("mixed",), _CONVOLVE)
    batch, length, columns = x.shape
    width = _width(x, columns, COLUMN_BYTES)
    threads = batch * (prefix + math.isqrt(length - prefix)) * columns // width
    return _launch(kernel, [x, taps], [x.shape], threads, width, PREFIX=prefix)[0]


def taps_gradient(x: mx.array, cotangent: mx.array, prefix: int) -> mx.array:
    """See ``convolution.taps_gradient``."""
    kernel = _kernel("taps_gradient", ("x", "cotangent"), ("gradients",), _TAPS_GRADIENT)
    columns = x.shape[2]
    width = _width(x, columns, HELD_BYTES)
    shapes, threads = [(SUMS, 3, 3, columns)], SUMS * columns // width
    constants = {"PREFIX": prefix, "SUMS": SUMS}
    (gradients,) = _launch(
        kernel, [x, cotangent], shapes, threads, width, dtype=mx.float32, **constants
    )
    return gradients.sum(axis=0)


def _move_heads(
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    arrays: Sequence[mx.array],
    shapes: Sequence[tuple[int, ...]],
    rows: int,
    sizes: dict[str, str],
    **constants: int,
) -> list[mx.array]:
    pointer = "part0"
    for i in range(1, constants["MOVED"]):
        pointer = f"part == {i} ? (T*)part{i} : (T*)({pointer})"
    source = _MOVE_HEADS.replace("POINTER", pointer)
    for name, words in sizes.items():
        source = source.replace(name, words)
    kernel = _kernel(
        "merge_heads" if constants["MERGES"] else "split_heads", inputs, outputs, source
    )
    half = constants["DIMS"] // 2
    width = _width(arrays[0], half)
    threads = shapes[0][0] * constants["MOVED"] * constants["HEADS"] * half // width
    return _launch(kernel, arrays, shapes, threads, width, rows=rows, **constants)


def _width(x: mx.array, inner: int, limit: int = VECTOR_BYTES) -> int:
    """How many elements a thread handles at once, in rows of ``inner`` and ``limit`` bytes."""
    width = limit // x.dtype.size
    while inner % width:
        width //= 2
    return width


def _launch(
    kernel: Callable,
    inputs: Sequence[mx.array],
    shapes: Sequence[tuple[int, ...]],
    threads: int,
    width: int,
    rows: int = 1,
    dtype: mx.Dtype | None = None,
    **constants: int,
) -> list[mx.array]:
    """Run a kernel in ``rows`` of so many threads.

    Its results have the dtype of the first input, if they are given no other.
    """
    return kernel(
        inputs=list(inputs),
        template=[("T", inputs[0].dtype), ("V", width), *constants.items()],
        grid=(threads, rows, 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=list(shapes),
        output_dtypes=[dtype or inputs[0].dtype] * len(shapes),
    )


@functools.cache
def _kernel(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], source: str) -> Callable:
    return mx.fast.cuda_kernel(name, list(inputs), list(outputs), _PREAMBLE + source)
