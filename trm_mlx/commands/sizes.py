"""Whether a dataset is like the one that a checkpoint was trained on."""

from trm_mlx.config import ModelConfig
from trm_mlx.data.schema import DatasetMetadata
from trm_mlx.errors import InputError


def check_sizes(
    config: ModelConfig, checkpoint: object, sizes: DatasetMetadata, data: object
) -> None:
    """Refuse tokens that the model does not read, and puzzles that it has no embedding of.

    ``checkpoint`` and ``data`` say for messages where the two are from.
    """
    for name in ("seq_len", "vocab_size", "num_puzzle_identifiers"):
        ours, theirs = getattr(config, name), getattr(sizes, name)
        if theirs != ours and (name != "num_puzzle_identifiers" or theirs > ours):
            raise InputError(
                f"{name} is {ours} in {checkpoint} but {theirs} in {data}: "
                "name a dataset like the one it was trained on, --data DIR"
            )
