"""The names of the puzzles of a dataset, as its builder wrote them."""

from pathlib import Path

from trm_mlx.data.json_file import read_json
from trm_mlx.data.loader import PuzzleDataset
from trm_mlx.data.schema import IDENTIFIERS_FILE
from trm_mlx.errors import InputError


def puzzle_names(data: PuzzleDataset) -> list[str]:
    """A name for every puzzle identifier; of several datasets, numbered as the loader does.

    Raises:
        InputError: ``identifiers.json`` is absent, damaged, or of another dataset.
    """
    names: list[str] = []
    for directory in dict.fromkeys(part.folder.parent for part in data.parts):
        own = _read(directory / IDENTIFIERS_FILE)
        names += own[1:] if names else own  # as in the loader, they share the blank one
    if len(names) != data.metadata.num_puzzle_identifiers:
        raise InputError(
            f"{directory / IDENTIFIERS_FILE}: {len(names)} puzzles are named, but the dataset "
            f"counts {data.metadata.num_puzzle_identifiers}; rebuild the dataset"
        )
    return names


def _read(path: Path) -> list[str]:
    names = read_json(path, "rebuild the dataset", "rebuild the dataset")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} holds no list of names; rebuild the dataset")
    return names
