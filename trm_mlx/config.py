"""Every option, declared once: frozen dataclasses whose defaults are the published ones.

A field's type says how its value is read (by ``config_io.py``), its help text is what ``--help``
prints. The defaults are those of TRM's ``config/cfg_pretrain.yaml`` and ``config/arch/trm.yaml``;
the files under ``config/`` hold only what differs from them.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from trm_mlx.errors import InputError

_REQUIRED = dataclasses.MISSING
ARC_SIDE = 30  # of the canvas on which ARC puzzles are stored


def _option(default: Any, text: str, **limits: Any) -> Any:
    """A field with its help; of ``limits``, ``above``, ``low`` and ``high`` bound its value."""
    return field(default=default, metadata={"help": text, **limits})


def _size(default: Any, text: str, most: int, least: int = 1) -> Any:
    """A whole number with an end: a config.json of a few bytes must not ask for gigabytes."""
    return _option(default, text, low=least, high=most)


def _choice(text: str, *choices: str) -> Any:
    """A field that takes one of ``choices``, by default the first."""
    return _option(choices[0], text, choices=choices)


@dataclass(frozen=True, kw_only=True)
class ArchConfig:
    """A model up to the sizes its data decides. Names and defaults are the published ones."""

    name: str = _option("trm", "variant: trm, trm_singlez, trm_hier6, hrm, transformers_baseline")
    hidden_size: int = _size(512, "width D of every state", 2**20)
    num_heads: int = _size(8, "attention heads", 2**20)
    expansion: float = _option(
        4.0, "SwiGLU expansion; inner width = expansion * D * 2/3", above=0, high=2**20
    )
    H_cycles: int = _size(3, "outer cycles of a supervision step", 2**16)
    L_cycles: int = _size(6, "reasoning updates per outer cycle", 2**16)
    H_layers: int = _size(0, "blocks of H_level (hrm, transformers_baseline)", 1024, least=0)
    L_layers: int = _size(2, "blocks of L_level (all but transformers_baseline)", 1024, least=0)
    mlp_t: bool = _option(False, "mix tokens with a SwiGLU instead of attention")
    pos_encodings: str = _choice(
        "position encoding; rope2d: by row and column of a square board",
        *("rope", "rope2d", "learned", "none"),
    )
    board_convolution: bool = _option(
        False, "mix the 3x3 cells around each before a net's blocks; needs rope2d"
    )
    puzzle_emb_ndim: int | None = _option(
        None, "width of a puzzle's learned embedding; null: hidden_size, 0: none", low=0
    )
    puzzle_emb_len: int = _size(
        16, "prefix positions of the puzzle embedding; 0: as many as it fills", 2**20, least=0
    )
    puzzle_rows: str = _choice(
        "an ARC puzzle's embedding; structured: rows of puzzle, symmetry and colours, added",
        "versions",
        "structured",
    )
    halt_max_steps: int = _size(16, "supervision steps a puzzle gets at most", 2**16)
    halt_exploration_prob: float = _option(
        0.1, "chance of a random minimum of steps", low=0, high=1
    )
    no_ACT_continue: bool = _option(True, "halt on q_halt > 0, without a continue target")
    bootstrap_q_continue: bool = _option(
        True, "train q_continue on the next step's q values (unless no_ACT_continue)"
    )
    dropout: float = _option(
        0.0, "share of what output projections read that training drops", low=0, high=0.9
    )
    canvases: tuple[int, ...] | None = _option(
        None,
        "sides of the canvases that an ARC puzzle may have, the smallest that fits it; null: [30]",
    )
    forward_dtype: str = _choice(
        "dtype of activations; auto: bfloat16 on a GPU, float32 on the CPU",
        *("auto", "float32", "bfloat16", "float16"),
    )

    def __post_init__(self) -> None:
        _check(self, ArchConfig, "arch.")
        if self.hidden_size < self.num_heads:
            raise InputError(
                f"arch.num_heads={self.num_heads} is more than arch.hidden_size={self.hidden_size}"
            )
        for positions, multiple, needed in (
            ("rope", 2, "an even number"),
            ("rope2d", 4, "a multiple of 4"),
        ):
            turns = self.pos_encodings == positions and not self.mlp_t
            if turns and self.head_dims % multiple:
                raise InputError(
                    f"arch.num_heads={self.num_heads} gives heads of {self.head_dims} dimensions; "
                    f"{positions} needs {needed}: change arch.num_heads or arch.hidden_size"
                )
        if self.board_convolution and not self.board_positions:
            raise InputError(
                "arch.board_convolution=true wants positions on a board: set "
                "arch.pos_encodings=rope2d, and arch.mlp_t=false"
            )
        if self.canvases is not None:
            self._check_canvases(self.canvases)
        if self.puzzle_dims > self.prefix * self.hidden_size:
            raise InputError(
                f"arch.puzzle_emb_ndim={self.puzzle_dims} does not fit into "
                f"arch.puzzle_emb_len={self.prefix} positions of {self.hidden_size}: "
                f"set arch.puzzle_emb_len=0 or at least {-(-self.puzzle_dims // self.hidden_size)}"
            )

    def _check_canvases(self, sides: tuple[int, ...]) -> None:
        shown = f"arch.canvases={list(sides)}"
        if not sides or min(sides) < 1 or max(sides) != ARC_SIDE or len(set(sides)) < len(sides):
            raise InputError(
                f"{shown}: name different sides up to {ARC_SIDE}, such as "
                f"[11,14,17,21,26,{ARC_SIDE}]"
            )
        if len(sides) > 1 and not self.board_positions:
            raise InputError(
                f"{shown}: to no positions but arch.pos_encodings=rope2d is a smaller canvas the "
                "same picture; set it, and arch.mlp_t=false"
            )

    @property
    def board_positions(self) -> bool:
        """Whether positions are rows and columns of a square board."""
        return self.pos_encodings == "rope2d" and not self.mlp_t

    @property
    def smaller_canvases(self) -> bool:
        """Whether a batch may hold smaller canvases than those that are stored."""
        return self.canvases is not None and len(self.canvases) > 1

    @property
    def head_dims(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def puzzle_dims(self) -> int:
        """Width of a puzzle embedding, 0 for none."""
        return self.hidden_size if self.puzzle_emb_ndim is None else self.puzzle_emb_ndim

    @property
    def prefix(self) -> int:
        """Positions in front of the puzzle, P."""
        if self.puzzle_dims == 0:
            return 0
        return self.puzzle_emb_len or -(-self.puzzle_dims // self.hidden_size)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ArchConfig):
    """Everything needed to build a model: an ``ArchConfig`` and the sizes its data decides."""

    vocab_size: int = _size(_REQUIRED, "tokens, V", 2**20)
    seq_len: int = _size(_REQUIRED, "positions of a puzzle, S", 2**20)
    num_puzzle_identifiers: int = _size(
        _REQUIRED, "rows of the puzzle-embedding table, N", 2**31 - 1
    )
    num_puzzle_rows: int | None = _size(
        None, "rows of the table where several make an embedding; null: one does", 2**31 - 1
    )
    task: str | None = _option(
        None, "its task, a name or package.module:NAME; null: unknown, see `tasks.task_of`"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, ModelConfig, "")
        if self.board_positions and self.side**2 != self.seq_len:
            raise InputError(
                f"seq_len={self.seq_len} is no square board, which arch.pos_encodings=rope2d "
                "needs: use rope"
            )

    @property
    def length(self) -> int:
        """Positions of a state, L = P + S."""
        return self.prefix + self.seq_len

    @property
    def side(self) -> int:
        """Of the square board, where the puzzle is one."""
        return math.isqrt(self.seq_len)

    @property
    def any_length(self) -> bool:
        """Whether no weight depends on the number of positions."""
        return not self.mlp_t and self.pos_encodings != "learned"

    def difference(self, other: "ModelConfig", lengths: bool = True) -> str | None:
        """The first field that changes what weights mean and differs; None if there is none.

        Cycles, halting, dtype, the number of puzzles and the task may differ and, without
        ``lengths``, the number of positions where no weight depends on it.
        """
        free = {
            "H_cycles", "L_cycles", "halt_max_steps", "halt_exploration_prob", "no_ACT_continue",
            "bootstrap_q_continue", "forward_dtype", "num_puzzle_identifiers", "puzzle_emb_ndim",
            "puzzle_emb_len", "H_layers", "L_layers", "expansion", "task", "dropout",
            "canvases", "num_puzzle_rows",
        }  # fmt: skip
        if not lengths and self.any_length:
            free.add("seq_len")
        meaning = [item.name for item in dataclasses.fields(self) if item.name not in free]
        for name in (*meaning, "puzzle_dims", "prefix"):
            if getattr(self, name) != getattr(other, name):
                return name
        return None

    @classmethod
    def of(cls, arch: ArchConfig, **sizes: Any) -> "ModelConfig":
        """Complete an architecture by the fields that only a `ModelConfig` has."""
        return cls(**dataclasses.asdict(arch), **sizes)


@dataclass(frozen=True, kw_only=True)
class EvaluatorConfig:
    """One task evaluator. The names with @ are the published ones."""

    name: str = _option(_REQUIRED, "task evaluator", choices=("arc", "arc@ARC", "rules"))
    aggregated_voting: bool = _option(False, "keep the votes of earlier evaluations")

    def __post_init__(self) -> None:
        _check(self, EvaluatorConfig, "evaluators.")

    @property
    def task(self) -> str:
        """The name by which ``evaluate.__init__`` knows it."""
        return self.name.partition("@")[0]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: its architecture and all that ``python pretrain.py --help`` lists."""

    arch: ArchConfig = field(default_factory=ArchConfig)

    data_paths: tuple[str, ...] = _option(
        (), "dataset folders (mixed) or generate:TASK; data=X means [X]", path=True
    )
    data_paths_test: tuple[str, ...] = _option(
        (), "the same, to evaluate on; empty: data_paths", path=True
    )
    augment: bool = _option(False, "show a random symmetric image of a puzzle, every time")
    reveal_cells: int = _option(
        0, "show up to this many more cells of the answer in a puzzle; needs augment=true", low=0
    )
    puzzles_per_epoch: int = _option(10_000, "of generate:TASK, new ones in every epoch", above=0)
    test_puzzles: int = _option(1000, "of generate:TASK, held out", above=0)

    evaluators: tuple[EvaluatorConfig, ...] | None = _option(
        None,
        "task evaluators: [rules], [{name: arc, aggregated_voting: true}], []; null: arc for ARC",
    )
    epochs: int = _option(100_000, "visits to every group of puzzles", above=0)
    eval_interval: int | None = _option(
        10_000, "epochs between evaluations, divides epochs; null, or more: one, at the end"
    )
    min_eval_interval: int = _option(0, "first interval that evaluates")
    eval_max_steps: int | None = _option(
        None, "supervision steps of a puzzle in evaluations; null: arch.halt_max_steps", above=0
    )
    checkpoint_every_eval: bool = _option(True, "save at every evaluation, not only last")
    save_interval: int | None = _option(
        None,
        "training steps between checkpoints, besides those of evaluations; null: no more",
        above=0,
    )
    keep_checkpoints: int | None = _option(None, "newest checkpoints to keep; null: all", above=0)
    keep_best: str | None = _option(
        None, "also keep the best by a metric, such as all/exact_accuracy; the lowest of a loss"
    )
    eval_save_outputs: tuple[str, ...] = _option(
        (),
        "arrays to save: inputs, labels, puzzle_identifiers, logits, preds, q_halt_logits, "
        "q_continue_logits",
    )

    global_batch_size: int = _option(768, "rows per step, over all processes", above=0)
    batch_size: str = _option("auto", "rows computed at once; auto: as many as memory holds")
    grad_checkpoint: str = _choice(
        "recompute the forward pass in the backward; auto: where memory is short",
        "auto",
        "true",
        "false",
    )
    loss: str = _choice(
        "loss on the answer tokens", "stablemax_cross_entropy", "softmax_cross_entropy"
    )
    loss_weights: tuple[float, ...] = _option(
        (), "weights of the losses of steps 1, 2, ..., the last for all later ones; empty: all 1"
    )
    label_smoothing: float = _option(
        0.0, "share of the target spread over all tokens", low=0, high=1
    )
    q_loss_weight: float = _option(0.5, "weight of the halting head's losses", low=0)
    random_starts: float = _option(
        0.0, "share of puzzles that start from random states", low=0, high=1
    )
    depth_curriculum: bool = _option(
        False, "recurse less at first: 1/3 of the cycles until 30 % of the steps, 2/3 until 60 %"
    )

    optimizer: str = _choice(
        "optimizer of the weights; muon: of the blocks' matrices, adamw for the rest",
        "adam_atan2",
        "adamw",
        "muon",
    )
    lr: float = _option(1e-4, "learning rate of the weights", low=0)
    lr_min_ratio: float = _option(
        1.0, "end of the cosine as a share of lr; 1: constant", low=0, high=1
    )
    lr_decay_share: float = _option(1.0, "last share of the run, in which rates fall")
    lr_warmup_steps: int = _option(2000, "steps of linear warm-up", low=0)
    beta1: float = _option(0.9, "decay of the first moment")
    beta2: float = _option(0.95, "decay of the second moment")
    weight_decay: float = _option(0.1, "decoupled weight decay", low=0)
    muon_lr: float = _option(0.02, "learning rate of muon", low=0)
    muon_weight_decay: float = _option(0.005, "weight decay of muon", low=0)
    puzzle_emb_lr: float = _option(1e-2, "learning rate of puzzle embeddings", low=0)
    puzzle_emb_lr_min_ratio: float | None = _option(
        None, "end of their cosine as a share of puzzle_emb_lr; null: lr_min_ratio", low=0, high=1
    )
    puzzle_emb_lr_warmup_steps: int | None = _option(
        None, "steps of their linear warm-up; null: lr_warmup_steps", low=0
    )
    puzzle_emb_weight_decay: float = _option(0.1, "weight decay of puzzle embeddings", low=0)
    grad_clip: float | None = _option(None, "largest global gradient norm; null: no limit", above=0)
    ema: bool = _option(False, "keep an exponential moving average and evaluate it")
    ema_rate: float = _option(0.999, "decay of the moving average", low=0, high=1)
    freeze_weights: bool = _option(False, "train the puzzle embeddings only")

    seed: int = _option(0, "seed of weights, data order and exploration", low=0, high=2**63 - 1)
    compile: str = _choice("mx.compile the whole step; auto: on a Mac", "auto", "true", "false")
    load_checkpoint: str | None = _option(None, "checkpoint folder to start from", path=True)
    checkpoint_path: str | None = _option(
        None, "run folder; null: checkpoints/PROJECT_NAME/RUN_NAME", path=True
    )
    project_name: str | None = _option(None, "null: the first dataset's name")
    run_name: str | None = _option(None, "null: variant and time of day")
    wandb: bool = _option(False, "report to Weights & Biases too")

    def __post_init__(self) -> None:
        _check(self, TrainConfig, "")
        rows = self.batch_size
        if rows != "auto" and not (rows.isdecimal() and int(rows) > 0):
            raise InputError(f"batch_size={rows}: write a whole number above 0, or auto")
        if not 0 < self.lr_decay_share <= 1:
            raise InputError(
                f"lr_decay_share={self.lr_decay_share}: must be greater than 0, and at most 1"
            )
        if self.reveal_cells and not self.augment:
            raise InputError(
                f"reveal_cells={self.reveal_cells} is done while training: set augment=true too"
            )
        if self.keep_checkpoints is None and self.keep_best is not None:
            raise InputError(
                f"keep_best={self.keep_best} without keep_checkpoints, which keeps "
                "every checkpoint: set keep_checkpoints=1, or more"
            )
        for name in ("beta1", "beta2"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must lie between 0 and 1")
        if self.depth_curriculum and self.arch.name not in ("trm", "trm_singlez", "hrm"):
            raise InputError(
                f"depth_curriculum=true: arch={self.arch.name} cannot recurse less; use trm, "
                "trm_singlez or hrm, or leave it out"
            )
        for weight in self.loss_weights:
            if not 0 <= weight < math.inf:
                raise InputError(f"loss_weights: {weight} is no weight, write numbers from 0 up")
        if self.freeze_weights and not self.arch.puzzle_dims:
            raise InputError(
                "freeze_weights=true with arch.puzzle_emb_ndim=0 leaves nothing to train: "
                "set one of them otherwise"
            )
        if not self.data_paths:
            raise InputError("data_paths is empty: name a dataset folder, data_paths=[data/NAME]")
        interval = self.eval_interval
        if interval is not None and (interval < 1 or self.epochs % self.epochs_per_interval):
            raise InputError(
                f"eval_interval={interval} does not divide epochs={self.epochs}: "
                f"set eval_interval={_nearest_divisor(self.epochs, interval)}"
            )

    @property
    def epochs_per_interval(self) -> int:
        return min(self.eval_interval or self.epochs, self.epochs)


def _check(config: Any, declared: type, prefix: str) -> None:
    """Check the fields of ``declared`` against their choices and bounds; None passes."""
    for item in dataclasses.fields(declared):
        value, limits = getattr(config, item.name), item.metadata
        wrong = None
        if value is None or not limits:
            continue
        if "choices" in limits and value not in limits["choices"]:
            wrong = f"choose one of {', '.join(limits['choices'])}"
        elif "above" in limits and not value > limits["above"]:
            wrong = f"must be greater than {limits['above']}"
        elif "high" in limits and not limits.get("low", 0) <= value <= limits["high"]:
            wrong = f"must be from {limits.get('low', 0)} to {limits['high']}"
        elif "low" in limits and not limits["low"] <= value:
            wrong = f"must be at least {limits['low']}"
        if wrong:
            raise InputError(f"{prefix}{item.name}={value}: {wrong}")


def _nearest_divisor(whole: int, wish: int) -> int:
    last = min(math.isqrt(whole), 10**6)  # no wait for a mistyped number of epochs
    divisors = {d for i in range(1, last + 1) if whole % i == 0 for d in (i, whole // i)}
    return min(divisors, key=lambda divisor: (abs(divisor - wish), divisor))
