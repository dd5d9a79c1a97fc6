"""Products of many small matrices by the BLAS that is loaded, on the core that asks for them.

MLX asks for them one by one, and each call of the BLAS wakes all cores for some microseconds' work.
"""

from ctypes import c_float, c_int64, c_void_p

import numpy as np

from trm_mlx.device import blas

ROWS_FIRST, PLAIN, TRANSPOSED = 101, 111, 112  # of cblas.h


def multiply_all(
    left: np.ndarray, right: np.ndarray, result: np.ndarray, adds: bool = False
) -> None:
    """Write ``left [N, M, K] @ right [N, K, P]``, both float32, into ``result [N, M, P]``.

    The elements of a row of each, or of a column of left and right, lie together in memory.
    Without MKL, NumPy multiplies.

    Args:
        adds: to what the result holds.
    """
    library = blas()
    if not hasattr(library, "MKL_Set_Num_Threads_Local"):
        result[:] = left @ right + result if adds else left @ right
        return
    sizes = *result.shape[1:], left.shape[2]
    (left_order, *left_place), (right_order, *right_place) = _layout(left), _layout(right)
    result_place = _layout(result)[1:]
    before = library.MKL_Set_Num_Threads_Local(1)
    library.cblas_sgemm_batch_strided(
        *(ROWS_FIRST, left_order, right_order, *sizes),
        *(c_float(1), *left_place, *right_place, c_float(adds), *result_place, len(result)),
    )
    library.MKL_Set_Num_Threads_Local(before)


def _layout(matrices: np.ndarray) -> tuple[int, c_void_p, int, c_int64]:
    """The order of each, where the first begins, and how far on the next line and matrix do."""
    next_matrix, row, column = (stride // matrices.itemsize for stride in matrices.strides)
    order, line = (PLAIN, row) if column == 1 else (TRANSPOSED, column)
    return order, c_void_p(matrices.ctypes.data), line, c_int64(next_matrix)
