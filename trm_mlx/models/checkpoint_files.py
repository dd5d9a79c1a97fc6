"""Model folders: ``config.json`` and safetensors, enough to rebuild a model.

A folder with a ``state.json`` is also a point of a training run (see ``run.checkpoint``). Both JSON
files hold the SHA-256 of others, which are checked when those are read: a bit that flipped in an
array would change answers without a word.
"""

import difflib
import json
import os
import re
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import read_model_config, to_dict
from trm_mlx.errors import InputError, located
from trm_mlx.files import open_regular, read_text, sha256
from trm_mlx.models.model import RecursiveReasoner, build_model

CONFIG_FILE, MODEL_FILE, EMA_FILE = "config.json", "model.safetensors", "ema.safetensors"
STATE_FILE = "state.json"
SUMS = "sha256"  # the key of both JSON files: checksums by file name
PARTS_FILE = "puzzle_rows.safetensors"
PRETRAINED = Path(__file__).parents[1] / "pretrained"

# Of the kinds of numbers a safetensors file may hold, those that MLX reads as what they are: it
# takes 8-bit floats for whole numbers, without a word.
_KINDS = {"F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}
_STEP = re.compile(r"step_(\d+)")
_LARGEST_HEADER = 100_000_000  # bytes, as the format's own reader has it
_LARGEST_FILE = 2**36  # bytes; a carry of a large batch can have gigabytes


def load(folder: str | Path) -> tuple[RecursiveReasoner, ModelConfig]:
    """Load a model for evaluation, with averaged weights where the folder has them.

    Args:
        folder: a checkpoint folder, or a run folder, whose newest checkpoint is taken, or the name
            of a model that comes with the package (see `bundled`).

    Raises:
        InputError: a file is missing or damaged, or does not hold the model it should.
    """
    folder = find_checkpoint(folder)
    config = read_config(folder)
    model = build_model(config)
    assign_weights(model, read_model_weights(folder), str(folder))
    if config.num_puzzle_rows:
        model.puzzle_emb.compose(read_parts(folder, config))
    model.eval()
    return model, config


def bundled() -> dict[str, Path]:
    """The models that come with the package: their names and folders."""
    return {path.parent.name: path.parent for path in sorted(PRETRAINED.glob(f"*/{CONFIG_FILE}"))}


def find_checkpoint(folder: str | Path) -> Path:
    """``folder`` itself if it is a checkpoint, else the newest ``step_*`` inside it.

    Where there is no such folder, the bundled model of this name.

    Raises:
        InputError: there is neither.
    """
    if not isinstance(folder, str | os.PathLike):
        raise InputError(
            f"a model is a folder or a name, such as 'sudoku-9x9', not {type(folder).__name__}"
        )
    folder = Path(folder)
    if (folder / CONFIG_FILE).exists():
        return folder
    if folder.is_file():
        raise InputError(
            f"{folder} is a file: make a model folder of it with trm convert {folder}, then name "
            f"{folder}-mlx"
        )
    steps = step_folders(folder)
    if not steps and not folder.exists() and (known := bundled().get(str(folder))):
        return known
    if not steps:
        found = "has no checkpoint" if folder.is_dir() else "does not exist"
        names = [*bundled()]
        plain = {re.sub("[^a-z0-9]", "", name): name for name in names}
        wanted = re.sub("[^a-z0-9]", "", str(folder).lower())
        near = [plain[name] for name in difflib.get_close_matches(wanted, plain, cutoff=0.7)]
        name = f"did you mean {near[0]}? Name" if near else "name"
        raise InputError(
            f"{folder} {found}: {name} a folder with "
            f"{CONFIG_FILE} and {MODEL_FILE}, a run folder with step_* inside, or a bundled model, "
            f"{', '.join(names)}"
        )
    return steps[-1]


def step_folders(run: Path) -> list[Path]:
    """The checkpoints ``step_NNNNNNN`` of a run, from the first to the newest, by their number."""
    found = (path.parent for path in run.glob(f"step_*/{CONFIG_FILE}"))
    return sorted((path for path in found if _STEP.fullmatch(path.name)), key=step_of)


def step_of(folder: Path) -> int:
    """The number in the name of a checkpoint folder, -1 for any other folder."""
    named = _STEP.fullmatch(folder.name)
    return int(named[1]) if named else -1


def read_config(folder: Path) -> ModelConfig:
    """The ``config.json`` of a model folder.

    Raises:
        InputError: it is missing or damaged, or is not what ``state.json`` was written with.
    """
    path = folder / CONFIG_FILE
    values = read_json(path)
    _check_sum(path)
    values.pop(SUMS, None)
    with located(path):
        return read_model_config(values)


def read_json(path: Path) -> dict:
    """The object of a JSON file.

    Raises:
        InputError: it is missing, damaged, too large, or holds something else.
    """
    try:
        values = json.loads(read_text(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged, copy it again: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold one JSON object")
    return values


def _check_sum(path: Path) -> None:
    """Compare a file with its SHA-256 in ``config.json`` and ``state.json``, where they have it."""
    for name in (CONFIG_FILE, STATE_FILE):
        place = path.with_name(name)
        sums = read_json(place).get(SUMS) if place.exists() and place != path else None
        expected = sums.get(path.name) if isinstance(sums, dict) else None
        if expected is None:
            continue
        if sha256(path) != expected:
            raise InputError(
                f"{path} is not the file that {name} was written with (SHA-256): it is damaged or "
                f"was changed; copy it again, or take its line out of {name} if you changed it"
            )
        return


def read_model_weights(folder: Path) -> dict[str, mx.array]:
    """A checkpoint's arrays by name, the averaged ones where it has them."""
    weights = read_weights(folder / MODEL_FILE)
    if (folder / EMA_FILE).exists():
        weights |= read_weights(folder / EMA_FILE)
    return weights


def read_parts(folder: Path, config: ModelConfig) -> mx.array:
    """The rows of every puzzle identifier of a checkpoint with structured rows, ``[N, K]``.

    Raises:
        InputError: they are missing or damaged.
    """
    path = folder / PARTS_FILE
    parts = read_weights(path).get("parts")
    count, rows = config.num_puzzle_identifiers, config.num_puzzle_rows
    if parts is None or parts.ndim != 2 or len(parts) != count or parts.max().item() >= rows:
        raise InputError(f"{path} is not of this model: copy it again")
    return parts.astype(mx.int32)


def read_weights(path: Path) -> dict[str, mx.array]:
    """The arrays of a safetensors file by name.

    Raises:
        InputError: it is missing, damaged, cut short, or holds numbers MLX would misread.
    """
    try:
        _check_header(path)
        _check_sum(path)
        return mx.load(str(path), format="safetensors")
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}") from error


def _check_header(path: Path) -> None:
    """MLX reads arrays when they are needed, too late for a clear word about a damaged file."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= _LARGEST_HEADER else b""
    try:
        arrays = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        kinds = {name: entry["dtype"] for name, entry in arrays.items()}
        end = max((entry["data_offsets"][1] for entry in arrays.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f"{path} is not a safetensors file, or damaged: copy it again") from error
    for name, kind in kinds.items():
        if kind not in _KINDS:
            raise InputError(f"{path}: {name} holds {kind}; save it as F32, F16 or BF16")
    if size > _LARGEST_FILE:
        raise InputError(f"{path} has {size:,} bytes; no file of a model has {_LARGEST_FILE:,}")
    if size != 8 + length + end:
        raise InputError(
            f"{path} has {size:,} bytes where its header tells of {8 + length + end:,}: "
            "copy it again"
        )


def assign_weights(model: RecursiveReasoner, weights: dict[str, mx.array], source: str) -> None:
    """Put every array of ``weights`` into the model, strictly.

    Raises:
        InputError: a missing, unexpected or misshapen array, by name.
    """
    expected = dict(tree_flatten(model.parameters()))
    for problem, names in (
        ("lacks", expected.keys() - weights.keys()),
        ("has the unexpected", weights.keys() - expected.keys()),
    ):
        if names:
            raise InputError(
                f"{source} {problem} {', '.join(sorted(names))}: it is not a "
                f"checkpoint of this architecture ({model.config.name})"
            )
    for name, array in weights.items():
        if array.shape != expected[name].shape:
            raise InputError(
                f"{source}: {name} has shape {array.shape}, "
                f"the configuration asks for {expected[name].shape}"
            )
    model.load_weights([(name, array.astype(mx.float32)) for name, array in weights.items()])


def save_model(
    folder: Path,
    model: RecursiveReasoner,
    dtype: mx.Dtype = mx.float32,
    average: dict | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors`` into an existing folder.

    Args:
        folder: existing, empty.
        model: its weights are stored.
        dtype: of the stored weights; loaded, they are float32 again.
        average: averaged weights for ``ema.safetensors``, if there are any.

    Raises:
        OSError: a file cannot be written.
    """
    weights = tree_map(lambda array: array.astype(dtype), model.parameters())
    save_arrays(folder / MODEL_FILE, weights)
    files = [MODEL_FILE]
    if average:
        save_arrays(folder / EMA_FILE, average)
        files.append(EMA_FILE)
    if model.config.num_puzzle_rows:
        narrow = mx.uint16 if model.config.num_puzzle_rows <= 2**16 else mx.int32
        save_arrays(folder / PARTS_FILE, {"parts": model.puzzle_emb.parts.astype(narrow)})
        files.append(PARTS_FILE)
    values = to_dict(model.config) | {SUMS: {name: sha256(folder / name) for name in files}}
    (folder / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def save_arrays(path: Path, tree) -> None:
    """Write a tree of arrays as safetensors under flat dotted names.

    Equal trees give equal files: the order in a file follows that in which names are inserted.

    Raises:
        OSError: the file cannot be written.
    """
    arrays = dict(sorted(tree_flatten(tree)))
    mx.eval(arrays)
    try:
        mx.save_safetensors(str(path), arrays, metadata={"format": "mlx"})
    except RuntimeError as error:
        raise OSError(str(error)) from error
