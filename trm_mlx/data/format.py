"""What a dataset directory holds: the file names, and what dataset.json says of it.

The layout is the published one (dataset/common.py and puzzle_dataset.py of HRM,
https://github.com/sapientinc/HRM, kept by https://github.com/SamsungSAILMontreal/TinyRecursiveModels):

    DIR/identifiers.json                  name of every puzzle identifier; entry 0 is "<blank>"
    DIR/{split}/dataset.json              DatasetMetadata
    DIR/{split}/{set}__{array}.npy        SplitArrays (see ``arrays``), one file per field

Three levels: a group (one original puzzle) owns puzzles (its augmented versions), and a puzzle owns
examples (one for Sudoku and mazes, several for ARC).
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from trm_mlx.errors import InputError
from trm_mlx.files import LARGEST_JSON, read_bytes

METADATA_FILE = "dataset.json"
IDENTIFIERS_FILE = "identifiers.json"
SET_NAME = "all"  # the one set that the published builders write

_JSON_TYPES = {  # every other field of DatasetMetadata is an int
    "ignore_label_id": (int, type(None)),
    "mean_puzzle_examples": (int, float),
    "total_puzzles": (int, type(None)),
    "sets": list,
    "task": (str, type(None)),
}


@dataclass(frozen=True)
class DatasetMetadata:
    """The contents of dataset.json, fields in the published order.

    docs/file_formats.md says what each of them means.
    """

    pad_id: int
    ignore_label_id: int | None  # this label on disk is not counted by the loss
    blank_identifier_id: int
    vocab_size: int
    seq_len: int
    num_puzzle_identifiers: int
    total_groups: int
    mean_puzzle_examples: float
    total_puzzles: int | None  # None: not said, as HRM's builders do not
    sets: list[str]
    task: str | None = None  # its name, for ``tasks.get``; not in published datasets

    @classmethod
    def read(cls, path: str | Path) -> "DatasetMetadata":
        """Read and check a dataset.json; keys of other tools are ignored.

        Raises:
            InputError: the file is absent, is not JSON, or lacks or mistypes a key.
        """
        kinds = {field.name: _JSON_TYPES.get(field.name, int) for field in fields(cls)}
        content = read_keys(path, kinds, defaults={"task": None, "total_puzzles": None})
        for name in ("vocab_size", "seq_len", "num_puzzle_identifiers", "total_groups"):
            if content[name] < 1:
                raise InputError(f"{path}: '{name}' is {content[name]}; it must be at least 1")
        mean = content["mean_puzzle_examples"]
        if not (math.isfinite(mean) and mean > 0):
            raise InputError(f"{path}: 'mean_puzzle_examples' is {mean}; it must be above 0")
        sets = content["sets"]
        if not sets or not all(isinstance(name, str) for name in sets):
            raise InputError(f"{path}: 'sets' is {sets}; it must list names, such as ['all']")
        return cls(**content)

    @classmethod
    def of_puzzles(
        cls,
        vocab_size: int,
        seq_len: int,
        puzzles: int,
        num_puzzle_identifiers: int = 1,
        task: str | None = None,
    ) -> "DatasetMetadata":
        """One set of puzzles of one example and one group each, padded and ignored where 0."""
        return cls(
            pad_id=0,
            ignore_label_id=0,
            blank_identifier_id=0,
            vocab_size=vocab_size,
            seq_len=seq_len,
            num_puzzle_identifiers=num_puzzle_identifiers,
            total_groups=puzzles,
            mean_puzzle_examples=1.0,
            total_puzzles=puzzles,
            sets=[SET_NAME],
            task=task,
        )

    def write(self, path: str | Path) -> None:
        """Write the one-line JSON that ``read`` and the published loaders read."""
        content = asdict(self)
        if self.task is None:
            del content["task"]
        Path(path).write_text(json.dumps(content), encoding="utf-8")


def merge_metadata(
    folders: list[Path], parts: list[DatasetMetadata], sets: list[str]
) -> DatasetMetadata:
    """The metadata of several datasets, read from ``folders``, as one whose sets are ``sets``.

    total_groups * mean_puzzle_examples stays the sum over the parts.

    Raises:
        InputError: the parts encode puzzles differently.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for folder, other in zip(folders, parts, strict=True):
        for name in ("seq_len", "vocab_size", "pad_id", "ignore_label_id", "blank_identifier_id"):
            here, there = getattr(first, name), getattr(other, name)
            if here != there:
                raise InputError(
                    f"{name} is {here} in {folders[0]} but {there} in {folder}; use one at a time"
                )
    if first.blank_identifier_id != 0:
        raise InputError(
            f"{folders[0]}: blank_identifier_id is {first.blank_identifier_id}; "
            "only datasets where it is 0 can be mixed"
        )
    groups = sum(part.total_groups for part in parts)
    visited = sum(part.total_groups * part.mean_puzzle_examples for part in parts)
    return replace(
        first,
        num_puzzle_identifiers=1 + sum(part.num_puzzle_identifiers - 1 for part in parts),
        total_groups=groups,
        mean_puzzle_examples=visited / groups,
        total_puzzles=sum(part.total_puzzles for part in parts),
        sets=sets,
        task=first.task if len({part.task for part in parts}) == 1 else None,
    )


def read_keys(
    path: str | Path, kinds: dict[str, type | tuple[type, ...]], defaults: dict | None = None
) -> dict:
    """The keys of a dataset.json that ``kinds`` names, with their types; others are ignored.

    Raises:
        InputError: the file is absent, is not JSON, or lacks or mistypes a key.
    """
    content = read_json(path, "build the dataset first", "rebuild the dataset")
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object; rebuild the dataset")
    content = {**(defaults or {}), **content}
    for name, kind in kinds.items():
        if name not in content:
            raise InputError(f"{path}: key '{name}' is missing; rebuild the dataset")
        value = content[name]
        if isinstance(value, bool) or not isinstance(value, kind):
            raise InputError(f"{path}: '{name}' has the wrong type: {value!r}; correct it")
    return {name: content[name] for name in kinds}


def read_json(
    path: str | Path,
    absent: str,
    damaged: str,
    object_type: Callable[[list[tuple[str, Any]]], dict] = dict,
) -> Any:
    """The value of a JSON file, which may begin with a mark of its encoding.

    Args:
        absent: the remedy where the file cannot be read.
        damaged: the remedy where it is not JSON.
        object_type: makes an object of its pairs.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_bytes(Path(path), LARGEST_JSON), object_pairs_hook=object_type)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; {absent}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; {damaged}") from error
