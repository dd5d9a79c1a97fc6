"""Finds the file of weights that a person means: a file, a folder, or a Hugging Face repository."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from trm_mlx.errors import InputError
from trm_mlx.files import read_text

# What holds weights, and what lies beside them under such an ending.
WEIGHTS = re.compile(r"step_\d+|.+\.(safetensors|pth|pt|bin|ckpt|npz)")
NOT_WEIGHTS = re.compile(
    r"(ema|carry|optimizer|evaluators_\d+)\.safetensors|(optimizer|scheduler|training_args|rng_state).*"
)
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
CONFIGS = ("all_config.yaml", "config.json")
DEPTH, MOST = 3, 20
ADDRESS = re.compile(r"https?://(?:huggingface\.co|hf\.co)/")
REPOSITORY = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)((?:/[\w.-]+)*?)/?(?:@([\w./-]+))?")


class Source(NamedTuple):
    """A file of weights and its configuration, if there is one beside it or ``asked`` for."""

    weights: Path
    config: Path | None
    asked: bool = False


def find_source(named: str) -> Source:
    """Return the weights that a path or the name of a Hugging Face repository means.

    Raises:
        InputError: there are none, or several to choose from.
    """
    path = Path(named)
    if is_repository(named):
        return download(named)
    if path.is_dir():
        try:
            names = [item.name for item in path.iterdir() if item.is_file()]
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        path /= _choose(names, str(path))
    config = next((p for name in CONFIGS if (p := path.with_name(name)).is_file()), None)
    return Source(path, config if config != path else None)


def is_repository(named: str) -> bool:
    """Whether ``named`` is no local path but ``owner/name[/PATH][@REVISION]``, or its address."""
    if ADDRESS.match(named):
        return True
    # In a folder that is here, a name that is not is mistyped.
    local = os.path.lexists(named) or os.path.lexists(named.partition("/")[0])
    return not local and REPOSITORY.fullmatch(named) is not None


def download(named: str) -> Source:
    """Fetch the weights of a Hugging Face repository and the configuration beside them.

    Files that were fetched before are not fetched again.

    Raises:
        InputError: huggingface_hub is missing, the repository cannot be read, or holds no weights
            or several files of them.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise InputError(
            f"{named} is no file or folder here; to fetch it from the Hugging Face hub, "
            "pip install 'trm-mlx[hub]'"
        ) from error
    address = re.sub(
        r"/(?:blob|resolve|tree)/([^/?]+)(/[^?]*)?.*", r"\2@\1", ADDRESS.sub("", named)
    )
    match = REPOSITORY.fullmatch(address)
    if match is None:
        raise InputError(f"{named}: write owner/name, owner/name/FILE or owner/name@REVISION")
    repository, within, revision = match[1], match[2].strip("/"), match[3]
    try:
        listed = list(HfApi().list_repo_files(repository, revision=revision))
        below = f"{within}/" if within else ""
        inside = [name for name in listed if name.startswith(below)]
        chosen = within if within in listed else _choose(inside, named)
        folder = PurePosixPath(chosen).parent
        beside = [n for n in listed if PurePosixPath(n).parent == folder]
        wanted = [n for n in beside if PurePosixPath(n).name in CONFIGS]
        if chosen.endswith(INDEX):
            wanted += [n for n in beside if n.endswith(".safetensors")]
        for name in wanted:
            hf_hub_download(repository, name, revision=revision)
        weights = Path(hf_hub_download(repository, chosen, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"cannot fetch {named} from the Hugging Face hub: {reason}") from error
    config = next((p for name in CONFIGS if (p := weights.with_name(name)).is_file()), None)
    return Source(weights, config)


def checkpoints_below(folder: Path) -> list[Path]:
    """Return up to `MOST` files of weights in a folder and `DEPTH` levels of those inside it.

    Files of this package's own models are left out.
    """
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        path = Path(place)
        own = "config.json" in names and _is_own(path / "config.json")
        deep = len(path.relative_to(folder).parts) >= DEPTH
        folders[:] = [] if deep or own else sorted(n for n in folders if n[0] not in "._")
        if not own:
            found += [path / name for name in sorted(names) if _holds_weights(name)]
        if len(found) >= MOST:
            break
    return found[:MOST]


def _is_own(config: Path) -> bool:
    """Whether a ``config.json`` is that of a model folder of this package."""
    try:
        return '"num_puzzle_identifiers"' in read_text(config)
    except (OSError, UnicodeDecodeError):
        return False


def _choose(names: Sequence[str], place: str) -> str:
    """Return the one file of weights, the highest of several steps; those at the top go first."""
    found = [name for name in names if _holds_weights(PurePosixPath(name).name)]
    depth = min((name.count("/") for name in found), default=0)
    found = [name for name in found if name.count("/") == depth]
    for whole in (INDEX, WHOLE):
        wholes = [name for name in found if PurePosixPath(name).name == whole]
        if len(wholes) == 1:
            return wholes[0]
    steps = [name for name in found if re.fullmatch(r"step_\d+", PurePosixPath(name).name)]
    if steps and len(steps) == len(found) and len({PurePosixPath(n).parent for n in steps}) == 1:
        return max(steps, key=lambda name: int(name.rpartition("_")[2]))
    if len(found) == 1:
        return found[0]
    if not found:
        some = ", ".join(sorted(names)[:8]) or "no file"
        raise InputError(
            f"{place} holds {some}, and no weights (step_N, .safetensors, .pth, .pt, .bin, .ckpt, "
            ".npz): name the file or folder that does"
        )
    raise InputError(f"{place} holds {len(found)} files of weights: name one of {_some(found)}")


def _holds_weights(name: str) -> bool:
    return name == INDEX or bool(WEIGHTS.fullmatch(name) and not NOT_WEIGHTS.fullmatch(name))


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:8]) + (", ..." if len(names) > 8 else "")
