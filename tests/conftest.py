"""Settings of every test: exact float32 products, and our package before MLX, for its BLAS.

Tests run on the CPU, also where there is a GPU: there, numbers are compared to the last digit.
``TRM_TEST_DEVICE=gpu`` runs them on the GPU, which not all of them are for.
"""

import os
import tempfile

os.environ["MLX_ENABLE_TF32"] = "0"
# MKL picks kernels by CPU, and each rounds in its own way. One unit of rounding in the weights
# moves the loss of trm_singlez's second step by up to 1.6e-5, where its trace allows 1e-5, and on
# one CPU MKL's own choice failed there. With the same kernels everywhere, and in every process of
# a test, the outcome is the same.
os.environ["MKL_CBWR"] = "COMPATIBLE"

# Modules of tasks that tests name are not to be remembered for their user.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="trm-mlx-state-")

import trm_mlx  # noqa: F401  isort: skip
import mlx.core as mx  # isort: skip

mx.set_default_device(getattr(mx, os.environ.get("TRM_TEST_DEVICE", "cpu")))

pytest_plugins = ["shared_data"]
