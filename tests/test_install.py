"""The wheel works by itself: outside the checkout, with the configuration files inside."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the unpacked wheel, as pip would install it."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site, folder, code):
    # First in the path, it hides the checkout, even one installed in editable mode.
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)


def files_in(folder):
    paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in paths if "__pycache__" not in path.parts}


def test_configuration_files_travel(site, tmp_path):
    done = run(
        site,
        tmp_path,
        "import trm_mlx, trm_mlx.config_io as c\n"
        "print(trm_mlx.__file__)\n"
        "print(c.load_config(['experiment=sudoku4x4', 'arch.L_cycles=5']).arch.L_cycles)",
    )
    assert done.returncode == 0, done.stderr
    place, cycles = done.stdout.split()
    assert place.startswith(str(site))
    assert cycles == "5"


@pytest.mark.parametrize("target", ["install", "test", "lint", "format", "train", "demo"])
def test_make_targets(target):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        ["make", "--dry-run", "VENV=absent", target],
        cwd=CHECKOUT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "pip install" in done.stdout
    assert ("pretrain.py" in done.stdout) == (target in ("train", "demo"))


def test_requirements_are_extras_of_the_package():
    lines = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (requirement,) = [line for line in lines if not line.startswith("#")]
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", requirement)[1].split(",")
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.findall(
        r"^([\w-]+) = \[", text.partition("[project.optional-dependencies]")[2], re.M
    )
    assert set(extras) <= set(declared)


def test_pages_travel(site):
    for name in ("demo/page/index.html", "demo/page/app.js", "view/board.js", "view/page.html"):
        assert (site / "trm_mlx" / name).is_file(), name


def test_only_the_package_is_installed(site):
    names = {path.name for path in site.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"trm_mlx"}


def test_everything_the_package_reads_is_installed(site):
    """Weights, the page, the configuration: whatever is no code."""
    package, config = files_in(CHECKOUT / "trm_mlx"), files_in(CHECKOUT / "config")
    assert {Path("view/page.html"), Path("pretrained/sudoku-4x4/model.safetensors")} < package
    assert files_in(site / "trm_mlx") == package | {Path("_config", path) for path in config}


def test_a_bundled_model_solves_and_draws(site, tmp_path):
    solve = ["solve", "...2.1..3.....2.", "--save", "thoughts.html"]
    done = run(site, tmp_path, f"from trm_mlx.cli import main\nsys.exit(main({solve!r}))")
    assert done.returncode == 0, done.stderr
    assert "rules satisfied" in done.stdout
    assert "</html>" in (tmp_path / "thoughts.html").read_text(encoding="utf-8")


def test_the_command_trains_and_solves(site, tmp_path):
    build = [
        "build", "sudoku", "--generate", "4", "--num-train", "16", "--num-test", "4",
        "--output-dir", "data",
    ]  # fmt: skip
    train = [
        "train", "experiment=sudoku4x4", "data_paths=[data]", "global_batch_size=8", "epochs=2",
        "checkpoint_path=run", "arch.L_layers=1", "arch.hidden_size=8",
    ]  # fmt: skip
    solve = ["solve", "--checkpoint", "run", "--data", "data"]
    for arguments, expected in ((build, {0}), (train, {0}), (solve, {0, 1})):
        done = run(site, tmp_path, f"from trm_mlx.cli import main\nsys.exit(main({arguments!r}))")
        assert done.returncode in expected, done.stderr
    assert "network runs" in done.stdout
