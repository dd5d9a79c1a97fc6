"""Sets ARC tasks aside that no training sees, to judge ``trm adapt`` by.

    python tools/arc_unseen.py kaggle/combined/arc-agi data/unseen --every 16

takes every sixteenth task of the subset, in alphabetical order, out of the files
``PREFIX_SUBSET_challenges.json`` and ``..._solutions.json``: ``data/unseen/tasks`` holds those, one
a file, and ``data/unseen/arc-agi_...json`` what is left, for ``trm build arc --input-file-prefix
data/unseen/arc-agi``; the other subsets are copied as they are.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from trm_mlx.cli import explained
from trm_mlx.data.format import read_json
from trm_mlx.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prefix", type=Path, help="of the files, kaggle/combined/arc-agi say")
    parser.add_argument("target", type=Path, help="new folder to write")
    parser.add_argument("--subset", default="evaluation", help="default: %(default)s")
    parser.add_argument("--every", type=int, default=16, help="default: %(default)s")
    arguments = parser.parse_args()
    prefix, target = arguments.prefix, arguments.target
    sources = [
        prefix.with_name(f"{prefix.name}_{arguments.subset}_{kind}.json")
        for kind in ("challenges", "solutions")
    ]
    tasks, solutions = (read_json(file, "correct the path", "correct it") for file in sources)
    if target.exists():
        raise InputError(f"{target} is there already: name a new folder")
    (target / "tasks").mkdir(parents=True)
    for path in prefix.parent.glob(f"{prefix.name}_*.json"):
        shutil.copy(path, target)
    names = sorted(tasks)[:: arguments.every]
    for name in names:
        task = tasks.pop(name)
        for test, output in zip(task["test"], solutions.pop(name), strict=True):
            test["output"] = output
        (target / "tasks" / f"{name}.json").write_text(json.dumps(task), "utf-8")
    for file, values in zip(sources, (tasks, solutions), strict=True):
        (target / file.name).write_text(json.dumps(values), "utf-8")
    print(f"{target}: {len(names)} tasks set aside, {len(tasks)} left in {arguments.subset}")


if __name__ == "__main__":
    sys.exit(explained(main))
