"""Products of many small matrices by the BLAS that is loaded, on the core that asks for them.

MLX asks for them one by one, and each call of the BLAS wakes all cores for some microseconds' work.
"""

from ctypes import Array, c_float, c_int, c_void_p

import numpy as np

from trm_mlx.device import blas

ROWS_FIRST, PLAIN, TRANSPOSED = 101, 111, 112  # of cblas.h


def multiply_all(left: np.ndarray, right: np.ndarray, result: np.ndarray) -> None:
    """Write ``left [..., M, K] @ right [..., K, N]``, both float32, into ``result [..., M, N]``.

    The elements of a row of each, or of a column of left and right, lie together in memory.
    Without MKL, NumPy multiplies.
    """
    library = blas()
    if not hasattr(library, "MKL_Set_Num_Threads_Local"):
        np.matmul(left, right, out=result)
        return
    (left_order, left_step), (right_order, right_step) = _layout(left), _layout(right)
    rows, columns, inner = *result.shape[-2:], left.shape[-1]

    def of_group(value: int) -> Array:  # one group of matrices, each with the same sizes
        return (c_int * 1)(value)

    before = library.MKL_Set_Num_Threads_Local(1)
    library.cblas_sgemm_batch(
        *(ROWS_FIRST, of_group(left_order), of_group(right_order)),
        *map(of_group, (rows, columns, inner)),
        *((c_float * 1)(1), _addresses(left), of_group(left_step)),
        *(_addresses(right), of_group(right_step)),
        *((c_float * 1)(0), _addresses(result), of_group(_layout(result)[1])),
        *(1, of_group(result[..., 0, 0].size)),
    )
    library.MKL_Set_Num_Threads_Local(before)


def _layout(matrices: np.ndarray) -> tuple[int, int]:
    """Whether each is to be transposed, and the elements from a row (or column) to the next."""
    row, column = (stride // matrices.itemsize for stride in matrices.strides[-2:])
    return (PLAIN, row) if column == 1 else (TRANSPOSED, column)


def _addresses(matrices: np.ndarray) -> Array:
    """Where each matrix begins."""
    addresses = np.asarray(matrices.ctypes.data)
    for size, stride in zip(matrices.shape[:-2], matrices.strides[:-2], strict=True):
        addresses = addresses[..., None] + np.arange(size) * stride
    return (c_void_p * addresses.size)(*addresses.ravel().tolist())
