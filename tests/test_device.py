"""The start-up line, its warnings, and a fast BLAS under MLX on Linux."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import mlx.core as mx
import pytest

from trm_mlx import cli, device


@pytest.fixture
def linux_cpu(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(device, "device_kind", lambda: "cpu")


def test_one_line_names_the_library(linux_cpu, monkeypatch, capsys):
    monkeypatch.setattr(device, "preload_blas", lambda: "libmkl_rt.so.3")
    device.announce("auto")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("on cpu, float32, BLAS libmkl_rt.so.3")


def test_no_library_is_one_warning_with_the_remedy(linux_cpu, monkeypatch, capsys):
    monkeypatch.setattr(device, "preload_blas", lambda: None)
    device.announce("float32")
    _, warning = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: no fast BLAS")
    assert "pip install" in warning


def test_mlx_imported_first_is_a_warning():
    code = "import mlx.core, trm_mlx.device as b; print(b.preload_blas()); b.announce('auto')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if "on cpu" not in done.stderr or sys.platform != "linux":
        pytest.skip("only MLX on a Linux CPU needs the preloading")
    assert done.stdout.strip() == "None"
    imported, _, announced = done.stderr.splitlines()
    assert imported.endswith("swap the imports")
    assert announced.startswith("warning: mlx was imported before trm_mlx")


def test_bfloat16_on_a_cpu_is_warned_of(linux_cpu, monkeypatch, capsys):
    monkeypatch.setattr(device, "preload_blas", lambda: "libopenblas.so.0")
    device.announce("bfloat16")
    assert "arch.forward_dtype=auto" in capsys.readouterr().err.splitlines()[1]


def test_auto_is_bfloat16_on_a_gpu(monkeypatch):
    monkeypatch.setattr(device, "device_kind", lambda: "metal")
    assert device.default_dtype() == "bfloat16"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems need no preloading")
def test_matrix_products_go_through_the_preloaded_library():
    if device.preload_blas() is None:
        pytest.skip("no fast BLAS is installed")
    with open("/proc/self/maps", encoding="ascii") as maps:
        assert device.preload_blas() in maps.read()


def test_the_device_is_that_of_the_moment(monkeypatch):
    """A conversion is verified on the CPU also where there is a GPU."""
    monkeypatch.setattr(mx, "default_device", lambda: SimpleNamespace())
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    assert device.device_kind() == "cuda"
    monkeypatch.undo()
    with mx.stream(mx.cpu):
        assert device.device_kind() == "cpu"


@pytest.mark.parametrize(("system", "set_to"), [("darwin", "1"), ("linux", None)])
def test_long_gpu_work_is_allowed_on_a_mac(monkeypatch, system, set_to):
    name = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", system)
    device.allow_long_gpu_work()
    assert os.environ.pop(name, None) == set_to


def test_a_run_says_that_long_gpu_work_is_allowed(monkeypatch, capsys):
    monkeypatch.setattr(device, "device_kind", lambda: "metal")
    monkeypatch.delenv("AGX_RELAX_CDM_CTXSTORE_TIMEOUT", raising=False)
    device.announce("auto")
    said = capsys.readouterr().err
    monkeypatch.setenv("AGX_RELAX_CDM_CTXSTORE_TIMEOUT", "1")
    device.announce("auto")
    long = "; GPU work may take long while a display is on (AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1)\n"
    assert capsys.readouterr().err == said.rstrip() + long


def test_memory_is_wired_on_a_mac(monkeypatch):
    """Up to the working set that macOS recommends."""
    wired = []
    monkeypatch.setattr(
        mx, "set_wired_limit", lambda limit: wired.append((device.device_kind(), limit))
    )
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 2.0**33})
    for kind in ("cpu", "cuda", "metal"):
        monkeypatch.setattr(device, "device_kind", lambda kind=kind: kind)
        device.keep_memory()
    assert wired == [("metal", 2**33)]


GIB = 2**30
CUDA_SAYS = "cudaMallocAsync(&data, size, stream) failed: out of memory"
METAL_SAYS = "[METAL] Command buffer execution failed: Insufficient Memory (0000000e:kIOGPU...)."


@pytest.mark.parametrize(
    ("kind", "says", "others"),
    [
        ("cuda", CUDA_SAYS, ", 99 of the GPU's 139 GiB are held by other programs"),
        ("metal", METAL_SAYS, ""),
    ],
)
def test_a_full_memory_is_one_line_with_the_remedy(monkeypatch, capsys, kind, says, others):
    """A GPU may be shared, and MLX knows only what its own program holds."""

    def fail(_words):
        raise RuntimeError(says)

    monkeypatch.setattr(cli, "_dispatch", fail)
    monkeypatch.setattr(device, "device_kind", lambda: kind)
    info = {"total_memory": 139 * GIB, "free_memory": 10 * GIB}
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 20 * GIB)
    monkeypatch.setattr(mx, "get_cache_memory", lambda: 10 * GIB)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == (
        f"error: out of memory{others}: work on fewer rows at once, by --batch-size N or, in "
        f"training, batch_size=N, or end what else needs memory ({says})\n"
    )


def test_other_failures_of_mlx_are_not_taken_for_it():
    with pytest.raises(RuntimeError, match="misaligned"), device.memory_failures_explained():
        raise RuntimeError("cudaLaunchKernel failed: misaligned address")


def test_freed_memory_is_kept_on_a_linux_cpu():
    """Arrays of a step are there again in the next without a page fault for each of their pages."""
    script = """
import resource, sys
import numpy as np
from trm_mlx import cli, device
import mlx.core as mx
mx.set_default_device(mx.cpu)
if sys.argv[1] == "kept":
    device.keep_memory()
def step():
    arrays = [np.ones(2**20) for _ in range(4)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("malloc is not glibc's")
    faults = {
        name: int(subprocess.check_output([sys.executable, "-c", script, name]))
        for name in ("kept", "plain")
    }
    assert 10 * faults["kept"] < faults["plain"], faults
