"""Build wheel and sdist, install each into clean environments, run it there; resolve the extras.

    python tools/install_test.py                        # every Python from 3.10 to 3.13 there is
    python tools/install_test.py --pythons python3.12

Where this machine cannot run a wheel (a Mac's, an NVIDIA GPU's), its requirements are read from the
metadata and looked up for that platform, nothing installed. Prints a line for each; exits 1 if one
fails. Needs `hatchling`, `packaging` and a package index.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement

CHECKOUT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
COMMANDS = (
    "--version",
    "build sudoku --generate 4 --num-train 64 --num-test 8 --extra-givens 6 --output-dir data",
    "train experiment=sudoku4x4 data_paths=[data] global_batch_size=16 checkpoint_path=run",
    "solve ...2.1..3.....2. --save thoughts.html",
    "doctor --seconds 0.1",
)
MAC = {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin"}
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"}
# Extra, the machine its markers are read for, and the tags of wheels that fit.
ELSEWHERE = {
    "metal": (MAC, [f"macosx_{version}_0_arm64" for version in range(14, 10, -1)]),
    "cuda": (
        LINUX,
        [f"manylinux_2_{version}_x86_64" for version in range(35, 16, -1)]
        + ["manylinux2014_x86_64"],
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pythons", nargs="*", help="commands (default: those of the path)")
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "dist")
        run([sys.executable, "-m", "hatchling", "build", "-d", str(built)], CHECKOUT)
        for python in pythons() if arguments.pythons is None else arguments.pythons:
            for package in sorted(built.iterdir()):
                place = Path(folder, "environment")
                failures += report(f"{python} {package.name}", installed, python, package, place)
        (wheel,) = built.glob("*.whl")
        for extra in ELSEWHERE:
            for version in VERSIONS:
                name = f"[{extra}] for Python {version} on {ELSEWHERE[extra][1][0]}"
                failures += report(name, resolved, wheel, extra, version)
    return 1 if failures else 0


def pythons() -> list[str]:
    """The Pythons of the path that run."""
    names = [f"python{version}" for version in VERSIONS]
    return [name for name in names if not subprocess.call(["sh", "-c", f"{name} -V >&2"])]


def report(name: str, check, *arguments) -> bool:
    """Print how a check went; True if it failed."""
    try:
        print(f"{name}: {check(*arguments)}", flush=True)
    except subprocess.CalledProcessError as error:
        print(f"{name}: FAILED: {' '.join(error.cmd)}\n{error.stdout}{error.stderr}", flush=True)
        return True
    return False


def installed(python: str, package: Path, place: Path) -> str:
    """Install with the cpu extra into a clean environment and run the demo's first lines."""
    run([python, "-m", "venv", "--clear", str(place)])
    run([str(place / "bin" / "pip"), "install", "--quiet", f"{package}[cpu]"])
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            output = run([str(place / "bin" / "trm"), *command.split()], Path(folder))
    return output.splitlines()[-1]


def resolved(wheel: Path, extra: str, version: str) -> str:
    """Wheels for another machine, for everything that an extra asks for there."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(path).decode())
    machine, tags = ELSEWHERE[extra]
    environment = {**machine, "python_version": version, "python_full_version": f"{version}.0"}
    platforms = [f"--platform={tag}" for tag in tags]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--target",
        "nowhere",
        "--quiet",
    ]
    command += ["--only-binary=:all:", "--no-deps", "--ignore-installed", "--report=-"]
    command += [*platforms, f"--python-version={version}"]
    found, waiting = {}, applying(metadata.get_all("Requires-Dist"), {extra}, environment)
    while waiting:  # pip would read the markers for the machine it runs on
        requirement = waiting.pop()
        (one,) = json.loads(run([*command, str(requirement)]))["install"]
        name = one["metadata"]["name"]
        if name not in found or requirement.extras:
            found[name] = one["metadata"]["version"]
            asked = one["metadata"].get("requires_dist", [])
            waiting += applying(asked, requirement.extras, environment)
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))


def applying(lines: list[str], extras: set[str], environment: dict[str, str]) -> list[Requirement]:
    """Requirements that apply there, without their markers."""
    chosen = []
    for requirement in map(Requirement, lines):
        marker, requirement.marker = requirement.marker, None
        if marker is None or any(
            marker.evaluate({**environment, "extra": extra}) for extra in extras or {""}
        ):
            chosen.append(requirement)
    return chosen


def run(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
