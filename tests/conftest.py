"""Settings of every test: exact float32 products, and our package before MLX, for its BLAS.

Tests run on the CPU, also where there is a GPU: there, numbers are compared to the last digit.
"""

import os

os.environ["MLX_ENABLE_TF32"] = "0"

import trm_mlx  # noqa: F401  isort: skip
import mlx.core as mx  # isort: skip

mx.set_default_device(mx.cpu)
