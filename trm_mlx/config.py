"""What can be configured: frozen dataclasses, the single declaration of every option.

A field's type says how its value is read and its help text is what ``--help`` prints; reading is
``options.py``'s business.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from trm_mlx.errors import InputError, shortened


def _option(text: str, choices: tuple[str, ...] = (), **kwargs: Any) -> Any:
    return field(metadata={"help": text, "choices": choices}, **kwargs)


@dataclass(frozen=True, kw_only=True)
class ArchConfig:
    """A model up to the sizes its data decides. Names and defaults are the published ones."""

    name: str = _option("variant: trm, trm_singlez, trm_hier6, hrm, transformers_baseline")
    hidden_size: int = _option("width D of every state", default=512)
    num_heads: int = _option("attention heads", default=8)
    expansion: float = _option("SwiGLU expansion; inner width = expansion * D * 2/3", default=4.0)
    H_cycles: int = _option("outer cycles of a supervision step", default=3)
    L_cycles: int = _option("reasoning updates per outer cycle", default=6)
    H_layers: int = _option("blocks of H_level (hrm, transformers_baseline)", default=0)
    L_layers: int = _option("blocks of L_level (all but transformers_baseline)", default=2)
    mlp_t: bool = _option("mix tokens with a SwiGLU instead of attention", default=False)
    pos_encodings: str = _option(
        "position encoding; rope2d: by row and column of a square board",
        choices=("rope", "rope2d", "learned", "none"),
        default="rope",
    )
    puzzle_emb_ndim: int | None = _option(
        "width of a puzzle's learned embedding; null: hidden_size, 0: none", default=None
    )
    puzzle_emb_len: int = _option(
        "prefix positions for the puzzle embedding; 0: as many as its width fills", default=0
    )
    halt_max_steps: int = _option("supervision steps a puzzle gets at most", default=16)
    halt_exploration_prob: float = _option(
        "chance that a row must run a random minimum of steps", default=0.1
    )
    no_ACT_continue: bool = _option("halt on q_halt > 0, without a continue target", default=True)
    bootstrap_q_continue: bool = _option(
        "train q_continue on the next step's q values (unless no_ACT_continue)", default=True
    )
    forward_dtype: str = _option(
        "dtype of activations; auto: bfloat16 on a GPU, float32 on the CPU",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
    )

    def __post_init__(self) -> None:
        _check_choices(self, "arch.")
        _check_positive(
            self, "arch.", "hidden_size", "num_heads", "expansion", "H_cycles", "L_cycles",
            "halt_max_steps",
        )  # fmt: skip
        if self.hidden_size < self.num_heads:
            raise InputError(
                f"arch.num_heads={shortened(self.num_heads)} is more than "
                f"arch.hidden_size={self.hidden_size}"
            )
        for positions, multiple, needed in (
            ("rope", 2, "an even number"),
            ("rope2d", 4, "a multiple of 4"),
        ):
            turns = self.pos_encodings == positions and not self.mlp_t
            if turns and self.head_dims % multiple:
                raise InputError(
                    f"arch.num_heads={shortened(self.num_heads)} gives heads of "
                    f"{shortened(self.head_dims)} dimensions; {positions} needs {needed}: "
                    "change arch.num_heads or arch.hidden_size"
                )
        # Beyond any machine's memory or patience, and no wait or overflow for a mistyped size.
        _check_range(
            self, "arch.", 0, 2**20, "hidden_size", "num_heads", "expansion", "puzzle_emb_len"
        )
        _check_range(self, "arch.", 0, 2**16, "H_cycles", "L_cycles", "halt_max_steps")
        _check_range(self, "arch.", 0, 1024, "H_layers", "L_layers")
        if self.H_cycles * self.L_cycles > 2**20:
            raise InputError(
                f"arch.H_cycles={self.H_cycles} times arch.L_cycles={self.L_cycles} updates are "
                f"too many for a supervision step: at most {2**20}"
            )
        _check_range(self, "arch.", 0, 1, "halt_exploration_prob")
        if self.puzzle_dims < 0:
            raise InputError(
                f"arch.puzzle_emb_ndim={shortened(self.puzzle_dims)}: must be at least 0, or null"
            )
        if self.puzzle_dims > self.prefix * self.hidden_size:
            raise InputError(
                f"arch.puzzle_emb_ndim={shortened(self.puzzle_dims)} does not fit into "
                f"arch.puzzle_emb_len={self.prefix} positions of {self.hidden_size}: "
                f"set arch.puzzle_emb_len=0 or at least {-(-self.puzzle_dims // self.hidden_size)}"
            )

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
    """Everything needed to build a model: an `ArchConfig` and the sizes its data decides."""

    vocab_size: int = _option("tokens, V")
    seq_len: int = _option("positions of a puzzle, S")
    num_puzzle_identifiers: int = _option("rows of the puzzle-embedding table, N")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self, "", "vocab_size", "seq_len", "num_puzzle_identifiers")
        _check_range(self, "", 1, 2**20, "vocab_size", "seq_len")
        _check_range(self, "", 1, 2**31 - 1, "num_puzzle_identifiers")
        if self.pos_encodings == "rope2d" and not self.mlp_t and self.side**2 != self.seq_len:
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

        Cycles, halting, dtype and the number of puzzles may differ and, without ``lengths``, the
        number of positions where no weight depends on it.
        """
        free = {
            "H_cycles", "L_cycles", "halt_max_steps", "halt_exploration_prob", "no_ACT_continue",
            "bootstrap_q_continue", "forward_dtype", "num_puzzle_identifiers", "puzzle_emb_ndim",
            "puzzle_emb_len", "H_layers", "L_layers", "expansion",
        }  # fmt: skip
        if not lengths and self.any_length:
            free.add("seq_len")
        meaning = [item.name for item in dataclasses.fields(self) if item.name not in free]
        for name in (*meaning, "puzzle_dims", "prefix"):
            if getattr(self, name) != getattr(other, name):
                return name
        return None

    @classmethod
    def of(cls, arch: ArchConfig, **sizes: int) -> "ModelConfig":
        """An architecture completed by ``vocab_size``, ``seq_len``, ``num_puzzle_identifiers``."""
        return cls(**dataclasses.asdict(arch), **sizes)


@dataclass(frozen=True, kw_only=True)
class EvaluatorConfig:
    """One task evaluator. The names with @ are the published ones."""

    name: str = _option("task evaluator", choices=("arc", "arc@ARC", "rules"))
    aggregated_voting: bool = _option("keep the votes of earlier evaluations", default=False)

    def __post_init__(self) -> None:
        _check_choices(self, "evaluators.")

    @property
    def task(self) -> str:
        """The name by which `train.evaluators` knows it."""
        return self.name.partition("@")[0]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: its architecture and all that ``python pretrain.py --help`` lists."""

    arch: ArchConfig
    data_paths: tuple[str, ...] = _option(
        "dataset folders, several are mixed; or generate:TASK (data=X is short for data_paths=[X])"
    )
    data_paths_test: tuple[str, ...] = _option(
        "dataset folders to evaluate on, or generate:TASK; empty: data_paths", default=()
    )
    augment: bool = _option(
        "show a random image of a puzzle under its task's symmetries, every time", default=False
    )
    reveal_cells: int = _option(
        "show from 0 to this many more cells of the answer in a puzzle, a ladder of difficulty; "
        "needs augment=true",
        default=0,
    )
    puzzles_per_epoch: int = _option("of generate:TASK, new ones in every epoch", default=10_000)
    test_puzzles: int = _option("of generate:TASK, held out", default=1000)
    evaluators: tuple[EvaluatorConfig, ...] = _option(
        "task evaluators to run: [rules], [arc], or [{name: arc, aggregated_voting: true}]",
        default=(),
    )
    global_batch_size: int = _option("rows per step, over all processes", default=768)
    batch_size: str = _option(
        "rows computed at once, their gradients added up; auto: as many as memory holds",
        default="auto",
    )
    grad_checkpoint: str = _option(
        "compute products of the forward pass again in the backward pass, to keep less; "
        "auto: where memory is short",
        choices=("auto", "true", "false"),
        default="auto",
    )
    epochs: int = _option("visits to every group of puzzles", default=50000)
    eval_interval: int | None = _option(
        "epochs between evaluations, a divisor of epochs; null: once, at the end", default=None
    )
    min_eval_interval: int = _option("first interval that evaluates", default=0)
    checkpoint_every_eval: bool = _option("save at every evaluation, not only last", default=True)
    keep_checkpoints: int | None = _option("newest checkpoints to keep; null: all", default=None)
    keep_best: str | None = _option(
        "also keep the best by this metric of evaluations, such as all/exact_accuracy: the "
        "lowest of a loss, the highest of others",
        default=None,
    )
    eval_save_outputs: tuple[str, ...] = _option(
        "arrays to save at an evaluation: inputs, labels, puzzle_identifiers, logits, preds, "
        "q_halt_logits, q_continue_logits",
        default=(),
    )
    loss: str = _option(
        "loss on the answer tokens",
        choices=("stablemax_cross_entropy", "softmax_cross_entropy"),
        default="stablemax_cross_entropy",
    )
    loss_weights: tuple[float, ...] = _option(
        "weights of the losses of supervision steps 1, 2, ..., the last for all later ones; "
        "empty: all 1",
        default=(),
    )
    label_smoothing: float = _option("share of the target spread over all tokens", default=0.0)
    q_loss_weight: float = _option("weight of the halting head's losses", default=0.5)
    random_starts: float = _option(
        "share of puzzles that start from random states instead of the model's own", default=0.0
    )
    depth_curriculum: bool = _option(
        "recurse less at first: a third of H_cycles and L_cycles until 30 % of the steps, two "
        "thirds until 60 %",
        default=False,
    )
    optimizer: str = _option(
        "optimizer of the weights; muon: of the blocks' matrices, adamw for the rest",
        choices=("adam_atan2", "adamw", "muon"),
        default="adam_atan2",
    )
    lr: float = _option("learning rate of the weights", default=1e-4)
    lr_min_ratio: float = _option("end of the cosine as a share of lr; 1: constant", default=1.0)
    lr_decay_share: float = _option(
        "last share of the run in which the rates fall; before, they are constant", default=1.0
    )
    lr_warmup_steps: int = _option("steps of linear warm-up", default=2000)
    beta1: float = _option("decay of the first moment", default=0.9)
    beta2: float = _option("decay of the second moment", default=0.95)
    weight_decay: float = _option("decoupled weight decay of the weights", default=1.0)
    muon_lr: float = _option("learning rate of muon", default=0.02)
    muon_weight_decay: float = _option("decoupled weight decay of muon", default=0.005)
    puzzle_emb_lr: float = _option("learning rate of the puzzle embeddings", default=1e-4)
    puzzle_emb_weight_decay: float = _option("weight decay of the puzzle embeddings", default=1.0)
    grad_clip: float | None = _option("largest global gradient norm; null: no limit", default=None)
    ema: bool = _option("keep an exponential moving average and evaluate it", default=False)
    ema_rate: float = _option("decay of the moving average", default=0.999)
    freeze_weights: bool = _option("train the puzzle embeddings only", default=False)
    seed: int = _option("seed of weights, data order and exploration", default=0)
    compile: str = _option(
        "mx.compile the whole step; auto: on a Mac",
        choices=("auto", "true", "false"),
        default="auto",
    )
    load_checkpoint: str | None = _option("checkpoint folder to start from", default=None)
    checkpoint_path: str | None = _option(
        "run folder; null: checkpoints/PROJECT_NAME/RUN_NAME", default=None
    )
    project_name: str | None = _option("null: the first dataset's name", default=None)
    run_name: str | None = _option("null: variant and time of day", default=None)
    wandb: bool = _option("report to Weights & Biases too", default=False)

    def __post_init__(self) -> None:
        _check_choices(self, "")
        _check_positive(
            self, "", "global_batch_size", "epochs", "puzzles_per_epoch", "test_puzzles"
        )
        if self.batch_size != "auto" and not (
            self.batch_size.isdecimal() and int(self.batch_size) > 0
        ):
            raise InputError(
                f"batch_size={shortened(self.batch_size)}: write a whole number above 0, or auto"
            )
        _check_range(self, "", 0, 1, "ema_rate", "lr_min_ratio", "label_smoothing", "random_starts")
        _check_range(
            self, "", 0, math.inf, "lr", "puzzle_emb_lr", "lr_warmup_steps", "reveal_cells"
        )
        _check_range(self, "", 0, math.inf, "muon_lr", "muon_weight_decay", "q_loss_weight")
        if not 0 < self.lr_decay_share <= 1:
            raise InputError(
                f"lr_decay_share={self.lr_decay_share}: must be greater than 0, and at most 1"
            )
        if self.reveal_cells and not self.augment:
            raise InputError(
                f"reveal_cells={self.reveal_cells} is done while training: set augment=true too"
            )
        if self.keep_checkpoints is not None:
            _check_positive(self, "", "keep_checkpoints")
        elif self.keep_best is not None:
            raise InputError(
                f"keep_best={shortened(self.keep_best)} without keep_checkpoints, which keeps "
                "every checkpoint: set keep_checkpoints=1, or more"
            )
        _check_range(self, "", 0, math.inf, "weight_decay", "puzzle_emb_weight_decay")
        _check_range(self, "", 0, 2**63 - 1, "seed")
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
        if self.grad_clip is not None and not self.grad_clip > 0:
            raise InputError(f"grad_clip={self.grad_clip}: must be greater than 0, or null")
        if self.freeze_weights and not self.arch.puzzle_dims:
            raise InputError(
                "freeze_weights=true with arch.puzzle_emb_ndim=0 leaves nothing to train: "
                "set one of them otherwise"
            )
        if not self.data_paths:
            raise InputError("data_paths is empty: name a dataset folder, data_paths=[data/NAME]")
        interval = self.eval_interval
        if interval is not None and (interval < 1 or self.epochs % interval):
            raise InputError(
                f"eval_interval={shortened(interval)} does not divide "
                f"epochs={shortened(self.epochs)}: "
                f"set eval_interval={shortened(_nearest_divisor(self.epochs, interval))}"
            )

    @property
    def epochs_per_interval(self) -> int:
        return self.eval_interval or self.epochs


def _check_choices(config: Any, prefix: str) -> None:
    for item in dataclasses.fields(config):
        choices = item.metadata.get("choices")
        value = getattr(config, item.name)
        if choices and value not in choices:
            raise InputError(
                f"{prefix}{item.name}={shortened(value)}: choose one of {', '.join(choices)}"
            )


def _check_positive(config: Any, prefix: str, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise InputError(
                f"{prefix}{name}={shortened(getattr(config, name))}: must be greater than 0"
            )


def _check_range(config: Any, prefix: str, low: float, high: float, *names: str) -> None:
    for name in names:
        if not low <= getattr(config, name) <= high:
            wanted = f"at least {low}" if high == math.inf else f"from {low} to {high}"
            raise InputError(f"{prefix}{name}={shortened(getattr(config, name))}: must be {wanted}")


def _nearest_divisor(whole: int, wish: int) -> int:
    last = min(math.isqrt(whole), 10**6)  # enough for any run, and no wait for a mistyped one
    divisors = {d for i in range(1, last + 1) if whole % i == 0 for d in (i, whole // i)}
    return min(divisors, key=lambda divisor: (abs(divisor - wish), divisor))
