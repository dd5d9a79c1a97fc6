"""``trm doctor``: what it says, and what it finds wrong."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trm_mlx import device
from trm_mlx.bench import machine
from trm_mlx.cli import main
from trm_mlx.commands import doctor

CHECKOUT = Path(__file__).resolve().parents[1]
REAL_MEMORY = machine.memory

REMEDIES = {
    "blas": "no fast BLAS found, expect a fiftieth of the speed: pip install 'trm-mlx[cpu]'",
    "gpu": "there is an NVIDIA GPU, but MLX runs on the CPU: pip install 'trm-mlx[cuda]'",
    "memory": "0.5 GiB of memory: use a smaller batch_size=",
    "glibc": "glibc 2.31: MLX's wheels need 2.35, use a newer system or container",
    "disk": "0.0 GiB free on the disk here: clear some for checkpoints",
}


@pytest.fixture
def healthy(monkeypatch):
    """A Linux CPU with a fast BLAS, room and no GPU, whatever the tests run on."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(device, "device_kind", lambda: "cpu")
    monkeypatch.setattr(device, "_TOO_LATE", False)
    monkeypatch.setattr(device, "preload_blas", lambda: "libfast.so")
    monkeypatch.setattr(machine, "blas", lambda: "/lib/libfast.so")
    monkeypatch.setattr(machine.os.path, "exists", lambda path: path != "/dev/nvidia0")
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(2**34, 2**34, 2**34))
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.39"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**34))
    return monkeypatch


def diagnosis(capsys, status):
    assert main(["doctor", "--seconds", "0.01"]) == status
    return capsys.readouterr().out.splitlines()


def test_a_healthy_machine(healthy, capsys):
    lines = diagnosis(capsys, 0)
    assert lines[-1] == "nothing is wrong"
    facts = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[:-1]}
    assert list(facts) == [
        "trm-mlx",
        "installed",
        "extras",
        "device",
        "BLAS",
        "compiler",
        "memory",
        "attention",
        "disk",
        "float32",
    ]
    assert facts["BLAS"] == "/lib/libfast.so"
    assert facts["float32"].endswith(" GFLOP/s in matrix products")
    assert float(facts["float32"].split()[0].replace(",", "")) > 0
    assert facts["attention"] == "fused for heads of 64: nowhere; 42: nowhere; 32: nowhere"
    assert facts["memory"] == "16.0 GiB for arrays, 16.0 GiB in all"
    assert "mlx " in facts["installed"]
    assert "convert (torch " in facts["extras"]


def test_every_extra_is_looked_at():
    """But for those that bring MLX itself, which is the device's line, and those for the tests."""
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {
        re.match(r"[\w-]+", requirement)[0]: extra
        for extra, requirements in project["optional-dependencies"].items()
        for requirement in requirements
        if not extra.endswith("test")
    }
    del asked["mlx"]
    assert asked == doctor.EXTRAS
    needed = {re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]}
    assert needed == set(doctor.NEEDED)


@pytest.mark.parametrize("illness", REMEDIES)
def test_every_illness_has_a_remedy(healthy, capsys, illness):
    if illness == "blas":
        healthy.setattr(device, "preload_blas", lambda: None)
    if illness == "gpu":
        healthy.setattr(machine.os.path, "exists", lambda path: True)
    if illness == "memory":
        healthy.setattr(machine, "memory", lambda: machine.Memory(2**29, 2**29, 2**34))
    if illness == "glibc":
        healthy.setattr("platform.libc_ver", lambda: ("glibc", "2.31"))
    if illness == "disk":
        healthy.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**20))
    wrong = [line for line in diagnosis(capsys, 1) if line.startswith("wrong: ")]
    assert len(wrong) == 1
    assert wrong[0].startswith(f"wrong: {REMEDIES[illness]}")


def test_memory_in_a_container(healthy, capsys, tmp_path):
    healthy.setattr(machine, "memory", REAL_MEMORY)
    healthy.setattr(device, "machine_memory", lambda: 2**36)
    healthy.setattr(device, "GROUPS", tmp_path)
    (tmp_path / "memory.max").write_text(f"{2**33}\n")
    text = "8.0 GiB for arrays, 8.0 GiB in all, the limit of this container or job; the computer"
    assert f"memory       {text} has 64.0 GiB" in diagnosis(capsys, 0)
    (tmp_path / "memory.max").write_text(f"{2**29}\n")
    assert f"wrong: {REMEDIES['memory']}" in diagnosis(capsys, 1)


@pytest.mark.parametrize(
    ("kind", "programs", "said"),
    [
        ("cpu", {"g++": "echo g++ 13.2; echo more"}, "g++ 13.2; only compile=true uses it"),
        ("cpu", {}, "no g++; only compile=true would use one: leave compile at auto"),
        ("cpu", {"g++": "exit 1"}, "no g++; only compile=true would use one: leave"),
        ("cpu", {"clang++": "echo clang 17"}, "no g++; only "),  # MLX does not ask for that
        ("metal", {"g++": "echo g++ 13.2"}, "Metal's, of the system"),
        ("cuda", {"g++": "echo g++ 13.2"}, "CUDA's nvrtc, beside MLX"),
    ],
)
def test_the_compiler_that_mlx_would_use(tmp_path, monkeypatch, kind, programs, said):
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(device, "device_kind", lambda: kind)
    assert machine.compiler().startswith(said)


def test_a_gpu_in_use_is_not_missed(healthy, capsys):
    healthy.setattr(device, "device_kind", lambda: "cuda")
    assert machine.unused_gpu() is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems bring their own")
def test_the_blas_is_named_by_its_path():
    if device.preload_blas() is None:
        pytest.skip("no fast BLAS is installed")
    assert machine.blas().startswith("/")
    assert device.preload_blas() in machine.blas()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_no_time_to_multiply(capsys, seconds):
    assert main(["doctor", f"--seconds={seconds}"]) == 2
    assert f"--seconds {seconds}: must be greater than 0" in capsys.readouterr().err


def test_what_fits_on_a_mac(capsys):
    """Rows grow with the memory, and docs/mac.md says what the plan says, but for the seconds."""
    page = (CHECKOUT / "docs" / "mac.md").read_text(encoding="utf-8")
    command = re.search(r"^trm (doctor --plan .*)$", page, re.M)[1]
    assert main(command.split()) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    written = [line.strip("| ").split(" | ") for line in page.splitlines() if " GB | " in line]
    assert [cells[:-1] for cells in written] == [cells[:-1] for cells in lines[2:]]
    rows = {(memory, name): int(count.split(",")[0]) for memory, name, _, count, *_ in lines[2:]}
    for name in {name for _, name in rows}:
        assert 1 <= rows["8 GB", name] < rows["64 GB", name] <= 768
    assert any("does not fit" in cell for cell in lines[7])
    assert main(["doctor", "--plan", "0"]) == 2
