"""How many arithmetic operations a supervision step takes."""

from mlx.utils import tree_flatten

from trm_mlx.config import ModelConfig
from trm_mlx.models.blocks import Level
from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.models.recursion import Recursion


def flop(model: RecursiveReasoner, recursion: Recursion, cells: int | None = None) -> int:
    """Return the operations of one training step of a row: two per product, backward twice forward.

    Embedding, heads and the bootstrap target are left out.

    Args:
        recursion: of the step.
        cells: of its board; by default ``seq_len``.
    """
    config = model.config
    length = config.prefix + (config.seq_len if cells is None else cells)
    costs = {net: _application(model[net], config, length) for net in recursion.nets}
    free = sum(costs[update.net] for update in recursion.free_updates)
    return free + 3 * sum(costs[update.net] for update in recursion.in_grad_updates)


def _application(net: Level, config: ModelConfig, length: int) -> int:
    """Operations of one net applied to one row."""
    products = sum(
        weight.size * (config.hidden_size if "mlp_t" in name else length)
        for name, weight in tree_flatten(net.parameters())
    )
    if not config.mlp_t:
        products += 2 * len(net.layers) * config.hidden_size * length**2
    return 2 * products
