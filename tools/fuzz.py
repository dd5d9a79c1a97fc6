"""Throw damaged input at everything that reads: nothing but an `InputError` may come of it.

    python tools/fuzz.py --inputs 20000            # every target
    python tools/fuzz.py --inputs 2000 csv json    # some

Inputs are mutations of good ones; one that reaches lines of the package which none before it
reached is mutated further. A finding, an exception of another kind, an input that takes over five
seconds of the processor, or one after which the process has grown by half a gigabyte, is written
to --keep and ends that target.
"""

import argparse
import contextlib
import functools
import gzip
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz_converter import converter_targets

import trm_mlx
from trm_mlx import InputError, arch_config, load_config, tasks
from trm_mlx.builders.arc_files import read_subset
from trm_mlx.cli import main as command
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import read_yaml
from trm_mlx.data.dataset import PuzzleDataset, puzzle_names
from trm_mlx.data.format import IDENTIFIERS_FILE
from trm_mlx.data.tables import is_table, read_rows
from trm_mlx.demo import schemas
from trm_mlx.demo.registry import ModelEntry
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model
from trm_mlx.tasks.arc import ARC
from trm_mlx.tasks.registry import read_puzzles

SLOW, GROWTH = 5.0, 512  # seconds of the processor an input, MiB
LARGE = 4000  # bytes of an input that is mutated further, unless a good one is larger
PACKAGE = str(Path(trm_mlx.__file__).parent)
EVIL = (
    "", " ", "\0", "\n", "\r\n", "-1", "0", "NaN", "1e999", "9" * 30, "null", "[]", "{}", '"', "'",
    "{" * 50, "[" * 3000, "é", "\u202e", "😀", "²", "٣", "../..", "/etc/passwd",
    "!!python/object:x", "&a [*a]", "true", "%s", "a" * 5000, "=", ":", ",", "arch.",
    "9223372036854775808",
)  # fmt: skip
Reader = Callable[[bytes], object]


def text_of(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def text_target(read: Callable[[str], object]) -> Reader:
    return lambda data: read(text_of(data))


def file_target(path: Path, read: Callable[[], object]) -> Reader:
    """A reader of the file ``path``, which each input takes the place of for a moment."""

    def run(data: bytes) -> None:
        before = path.read_bytes() if path.exists() else b""
        path.write_bytes(data)
        try:
            read()
        finally:
            path.write_bytes(before)

    return run


def targets(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    """Readers, each with the good inputs that mutation starts from."""
    found: dict[str, tuple[Reader, list[bytes]]] = {}
    for name in ("sudoku4x4", "sudoku9x9", "maze10x10", "addition3", "multiplication2"):
        task = tasks.get(name)
        puzzles = task.generate(3, np.random.default_rng(0))
        seeds = [task.line(board).encode() for board in puzzles.questions]
        seeds += [task.render(board).encode() for board in puzzles.questions]
        found[name] = text_target(task.parse), seeds
    found["arc text"] = text_target(ARC().parse), [b"012\n345\n678", b"0 1\n2 3"]
    words = ["arch=trm lr=1e-4 data_paths=[a,b]", "arch.hidden_size=64 data=x epochs=7 ema=True"]
    found["overrides"] = text_target(lambda t: load_config(t.split(" "))), [*map(str.encode, words)]
    recipe = Path(__file__).parents[1] / "config" / "experiment" / "sudoku4x4.yaml"
    found["yaml"] = (
        file_target(folder / "a.yaml", lambda: read_yaml(folder / "a.yaml")),
        [recipe.read_bytes()],
    )
    table = "source,question,answer,rating\n" + "".join(
        f"a,{'.' * 15}{k},{'1234341221434321'},{k}\n" for k in range(1, 4)
    )
    path = folder / "in.csv"
    words = ["build", "sudoku", "--input", str(path), "--num-test", "1"]
    words += ["--output-dir", str(folder / "out"), "--overwrite"]
    found["csv to dataset"] = file_target(path, lambda: refused(words)), [table.encode()]
    found |= puzzle_targets(folder)
    found |= page_targets()
    found |= arc_targets(folder / "arc") | dataset_targets(folder) | checkpoint_targets(folder)
    return found | converter_targets(folder / "weights")


def puzzle_targets(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    """Puzzles as text of any kind, and as tables."""
    seeds = [
        f"[Puzzle]\n{spelled}\n[State]\n{spelled}"
        for task in map(tasks.get, ("sudoku4x4", "sudoku6x6", "sudoku9x9", "maze10x10"))
        for board in task.generate(2, np.random.default_rng(0)).questions
        for spelled in (task.line(board), task.render(board))
    ]
    seeds += [seed.split("\n", 1)[1].rsplit("\n[State]")[0] for seed in seeds]
    seeds += [json.dumps(seeds[-3:]), json.dumps({"puzzle": [[1, 0, None, "."]] * 4})]
    seeds += ["int a[4][4] = {{1, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 3, 0}, {0, 0, 0, 4}};"]
    seeds += ["<table><tr><td>1</td><td>&nbsp;</td></tr><tr><td></td><td>4</td></tr></table>"]
    seeds += ["  1 2 3 4\nA 1 . . .\nB . 2 . .\nC . . 3 .\nD . . . 4", "0 1.0 NaN\n" * 4]
    seeds += ["[Puzzle]\n" + "1.......2" * 9 + "\n[Regions]\n" + "111222333" * 9]
    seeds += ["12+34=\n5*6", "|1|2|\n|-|-|\n| |4|\n", "12 34 5 6\n", "  #..S\n  G...  # mine"]
    seeds += ["S.#../..#../.#..G", "S . # . .\n. . # . .\n. # . . G", "#####\n#S G#\n#####"]
    seeds += ["12.4  1.34\n34..  .412\n.143  2143\n4321  432."]
    data = [seed.encode() for seed in seeds]
    found = {"puzzle text": (text_target(read_puzzles), data)}
    for name in ("sudoku9x9", "maze10x10", "addition3"):
        read = functools.partial(read_puzzles, task=tasks.get(name))
        found[f"puzzle text {name}"] = text_target(read), data
    rows = [{"puzzle": "1.." * 5, "solution": "123" * 5, "rating": 1}] * 3
    tables = [
        "\n".join(map(json.dumps, rows)).encode(),
        json.dumps(rows).encode(),
        b"sep=;\nQuizzes;Solutions;difficulty\n1.;12;0.5\n" * 2,
        f"{'1.' * 8},{'12' * 8}\n".encode() * 3,
        "question\tanswer\n1.\t12\n".encode("utf-16"),
        gzip.compress(b"question,answer\n1.,12\n"),
    ]
    for name in ("any.csv", "quizzes.npy", "quizzes.npz"):
        path = folder / name
        if path.suffix == ".npy":
            np.save(path, np.ones((3, 4, 4), np.uint8))
            tables = [path.read_bytes()]
        elif path.suffix == ".npz":
            np.savez(path, quizzes=np.ones((3, 4, 4), np.uint8), solutions=np.ones((3, 4, 4)))
            tables = [path.read_bytes()]
        read = functools.partial(read_table, path)
        found[f"table {path.suffix}"] = file_target(path, read), tables
    return found


def read_table(path: Path) -> None:
    is_table(path)
    for row in read_rows(path):
        if not row.problem:
            with contextlib.suppress(InputError):
                read_puzzles(row.question)


def refused(words: list[str]) -> None:
    """A command that may fail in the documented way."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        status = command(words)
    if status not in (0, 1, 2):
        raise AssertionError(f"exit status {status}")


def arc_targets(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    folder.mkdir()
    pair = {"input": [[0, 1], [2, 3]], "output": [[4]]}
    challenges = {"a": {"train": [pair, pair], "test": [{"input": [[5]]}]}}
    files = {"challenges": challenges, "solutions": {"a": [[[6, 7]]]}}
    found = {}
    for name, content in files.items():
        (folder / f"x_t_{name}.json").write_text(json.dumps(content))
    lines = folder / "lines.jsonl"
    found["arc lines"] = (
        file_target(lines, lambda: read_subset(lines, "lines", None, True)),
        [f"{json.dumps(challenges['a'])}\n".encode() * 2],
    )
    for name, content in files.items():
        target = file_target(
            folder / f"x_t_{name}.json", lambda: read_subset(str(folder / "x"), "t", True)
        )
        found[f"arc {name}"] = target, [json.dumps(content).encode()]
    return found


def page_targets() -> dict[str, tuple[Reader, list[bytes]]]:
    """What the page of ``trm demo`` sends: bodies, and puzzles half typed."""
    options = {"trajectories": 4, "restarts": True, "noise": 0.5, "select": "mode", "seed": 1}
    body = {"model": "a", "text": "1..", **options, "max_steps": None, "halt_threshold": 0.5}
    found = {
        "page solve": (schemas.read_solve, [json.dumps(body).encode()]),
        "page entry": (schemas.read_entry, [b'{"model": "a", "text": "1..\\n\\u00e9"}']),
        "page generate": (schemas.read_generate, [b'{"model": "a"}']),
    }
    for name in ("sudoku6x6", "maze7x7", "maze10x10", "maze30x30", "addition3", "multiplication2"):
        task = tasks.get(name)
        style = task.board_style(np.zeros((1, task.seq_len), np.uint8))
        entry = ModelEntry(name, Path(), None, task, style, task.board_input())
        boards = task.generate(3, np.random.default_rng(0)).questions
        seeds = [write(board).encode() for board in boards for write in (task.line, task.render)]
        found[f"page {name}"] = text_target(entry.read_board), seeds
    return found


def dataset_targets(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    refused(["build", "arithmetic", "--n-digits", "1", "--num-train", "4", "--num-test", "2",
             "--output-dir", str(folder / "data")])  # fmt: skip
    found = {}
    for path in sorted((folder / "data" / "train").iterdir()):
        target = file_target(path, lambda: PuzzleDataset([str(folder / "data")], "train"))
        found[f"dataset {path.name}"] = target, [path.read_bytes()]
    data = PuzzleDataset([str(folder / "data")], "train")
    names = folder / "data" / IDENTIFIERS_FILE
    target = file_target(names, lambda: puzzle_names(data))
    found[f"dataset {names.name}"] = target, [names.read_bytes()]
    return found


def checkpoint_targets(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    (folder / "model").mkdir()
    arch = arch_config("trm", hidden_size=8, num_heads=1, L_layers=1, puzzle_emb_ndim=0)
    config = ModelConfig.of(arch, seq_len=4, vocab_size=5, num_puzzle_identifiers=1)
    save_model(folder / "model", build_model(config))
    found = {}
    for path in sorted((folder / "model").iterdir()):
        target = file_target(path, lambda: trm_mlx.load(folder / "model"))
        found[f"checkpoint {path.name}"] = target, [path.read_bytes()]
    return found


def mutated(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Some random damage."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 8, 64))
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = rng.choice(EVIL).encode("utf-8", "surrogatepass")
        elif kind == 3:
            data[at : at + length] = rng.choice(EVIL).encode("utf-8", "surrogatepass")
        elif kind == 4:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 20))
        elif kind == 5:
            data[at : at + length] = rng.randbytes(length)
        else:
            other = rng.choice(others)
            data[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(data)


class Coverage:
    """The lines of the package that inputs have reached.

    A function none of whose last ``BORING`` calls reached a new line is traced in one call of
    ``BORING``, since tracing takes several times as long as reading.
    """

    BORING = 64

    def __init__(self) -> None:
        self.lines: set[tuple] = set()
        self._calls: Counter = Counter()  # of each function since it reached a new line

    def grows_by(self, read: Reader, data: bytes) -> bool:
        """Run a reader; return whether it reached a new line."""
        before = len(self.lines)
        sys.settrace(self._enter)
        try:
            read(data)
        except InputError:
            pass
        finally:
            sys.settrace(None)
        return len(self.lines) > before

    def _enter(self, frame: FrameType, _event: str, _argument: object) -> Callable | None:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            return None
        self._calls[code] += 1
        calls = self._calls[code]
        return self._line if calls < self.BORING or calls % self.BORING == 0 else None

    def _line(self, frame: FrameType, event: str, _argument: object) -> Callable:
        place = frame.f_code, frame.f_lineno
        if event == "line" and place not in self.lines:
            self.lines.add(place)
            self._calls[frame.f_code] = 0
        return self._line


def fuzz(read: Reader, seeds: list[bytes], inputs: int, rng: random.Random) -> bytes | None:
    """The first input with a finding, which is printed; None if there is none."""
    corpus, coverage = list(seeds), Coverage()
    most = max(LARGE, 2 * max(map(len, seeds)))
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(inputs):
        data = seeds[number] if number < len(seeds) else mutated(rng.choice(corpus), rng, corpus)
        start = time.process_time()
        try:
            if coverage.grows_by(read, data) and len(data) < most:
                corpus.append(data)
        except Exception:
            traceback.print_exc()
            return data
        seconds = time.process_time() - start
        if seconds > SLOW:  # traced
            start = time.process_time()
            with contextlib.suppress(InputError):
                read(data)
            seconds = time.process_time() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) / 1024
        if (seconds > SLOW and number > len(seeds)) or grown > GROWTH:
            print(f"{seconds:.1f} s, {grown:.0f} MiB more")
            return data
    print(f"{inputs} inputs, {len(corpus)} kept, {len(coverage.lines)} lines reached", flush=True)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="parts of their names (default: all)")
    parser.add_argument("--inputs", type=int, default=20_000, help="to each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("findings"), help="folder of findings")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    findings = 0
    for name, (read, seeds) in targets(folder).items():
        if arguments.targets and not any(part in name for part in arguments.targets):
            continue
        print(f"{name}: ", end="", flush=True)
        found = fuzz(read, seeds, arguments.inputs, random.Random(f"{arguments.seed} {name}"))
        if found is not None:
            findings += 1
            arguments.keep.mkdir(exist_ok=True)
            path = arguments.keep / f"{name.replace(' ', '_')}.bin"
            path.write_bytes(found)
            print(f"{name}: finding in {path}", flush=True)
    shutil.rmtree(folder)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
