"""Settings of every test: exact float32 products, and our package before MLX, for its BLAS.

Tests run on the CPU, also where there is a GPU: there, numbers are compared to the last digit.
"""

import os

os.environ["MLX_ENABLE_TF32"] = "0"
# MKL picks kernels by CPU, and each rounds in its own way. One unit of rounding in the weights moves
# the losses of some recorded training steps by 1.6e-5 where 1e-5 is allowed, so the traces can be
# held to that only with the same kernels everywhere.
os.environ["MKL_CBWR"] = "COMPATIBLE"

import trm_mlx  # noqa: F401  isort: skip
import mlx.core as mx  # isort: skip

mx.set_default_device(mx.cpu)
