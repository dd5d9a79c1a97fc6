"""Loads a model by its folder, or by its name on the Hugging Face hub."""

from pathlib import Path

from trm_mlx.config import ModelConfig
from trm_mlx.convert.sources import is_repository
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
    """Return the folder of a model, which is fetched if ``named`` is a name on the hub."""
    if not isinstance(named, str) or not is_repository(named):
        return named
    from trm_mlx.convert.convert import model_folder  # seldom needed, and much to import

    return model_folder(named)
