"""Loads a model by its folder, or by its name on the Hugging Face hub."""

import hashlib
import os
import sys
from pathlib import Path

from trm_mlx.config import ModelConfig
from trm_mlx.convert.sources import download, is_repository
from trm_mlx.errors import InputError
from trm_mlx.models import checkpoint_files
from trm_mlx.models.model import RecursiveReasoner


def load(named: str | Path) -> tuple[RecursiveReasoner, ModelConfig]:
    """Load a model for evaluation, with averaged weights where the folder has them.

    Args:
        named: a checkpoint folder, or a run folder, whose newest checkpoint is taken, or the name
            of a model that comes with the package (see `bundled`), or ``owner/name`` on the Hugging
            Face hub, whose weights are fetched, and converted where they are another package's.

    Raises:
        InputError: a file is missing or damaged, or does not hold the model it should; or the hub
            cannot be read.
    """
    return checkpoint_files.load(local_folder(named))


def local_folder(named: str | Path) -> str | Path:
    """Return the folder of a model, which is fetched if ``named`` is a name on the hub.

    A repository with a model folder of this package is taken as it is; other weights are converted
    into the cache, ``$XDG_CACHE_HOME/trm-mlx``.

    Raises:
        InputError: the repository cannot be read, or its model not be converted without being told
            more.
    """
    if not isinstance(named, str) or not is_repository(named):
        return named
    source = download(named)
    if source.config is not None and source.weights.name == "model.safetensors":
        try:
            checkpoint_files.read_config(source.weights.parent)
            return str(source.weights.parent)
        except InputError:
            pass  # another package's config.json
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    # The folder in the hub's own cache is named after the revision.
    version = hashlib.sha256(str(source.weights).encode()).hexdigest()[:16]
    folder = cache / "trm-mlx" / f"{named.rpartition('/')[2]}-{version}"
    if not folder.exists():
        from trm_mlx.convert.convert import convert  # seldom needed, and much to import

        try:
            convert(source, folder, {}, report=lambda line: print(line, file=sys.stderr))
        except InputError as error:
            raise InputError(f"{error}; say it to trm convert {named}") from error
    return str(folder)
