"""Configuration: Hydra's spelling, types, choices; bad input is an `InputError`, nothing else."""

import dataclasses

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trm_mlx import tasks
from trm_mlx.commands.train import describe_options
from trm_mlx.config import ArchConfig, ModelConfig, TrainConfig
from trm_mlx.config_io import (
    arch_config,
    config_folder,
    load_config,
    read_model_config,
    read_yaml,
    to_dict,
    train_config,
    typed_overrides,
)
from trm_mlx.errors import InputError

DATA = "data_paths=[data/sudoku]"
YAML_FILES = sorted(config_folder().rglob("*.yaml"))
ARCHS = sorted(path.stem for path in (config_folder() / "arch").glob("*.yaml"))


def message_of(*overrides):
    """The one line that ``overrides`` are refused with."""
    with pytest.raises(InputError) as caught:
        load_config(overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_hydra_spelling():
    config = load_config(
        [
            "arch=trm",
            "data_paths=[a,b]",
            "arch.L_layers=2",
            "arch.H_cycles=3",
            "arch.L_cycles=4",
            "+run_name=x",
            "ema=True",
        ]
    )
    assert config.arch.name == "trm"
    assert config.data_paths == ("a", "b")
    assert (config.arch.L_layers, config.arch.H_cycles, config.arch.L_cycles) == (2, 3, 4)
    assert config.run_name == "x"
    assert config.ema is True


PUBLISHED = """
arch=trm data_paths=[data/arc1concept-aug-1000] arch.L_layers=2 arch.H_cycles=3 arch.L_cycles=4
    +run_name=pretrain_att_arc1concept_4 ema=True
arch=trm data_paths=[data/sudoku-extreme-1k-aug-1000] evaluators=[] epochs=50000 eval_interval=5000
    lr=1e-4 puzzle_emb_lr=1e-4 weight_decay=1.0 puzzle_emb_weight_decay=1.0 arch.mlp_t=True
    arch.pos_encodings=none arch.L_layers=2 arch.H_cycles=3 arch.L_cycles=6
    +run_name=pretrain_mlp_t_sudoku ema=True
arch=trm data_paths=[data/maze-30x30-hard-1k] evaluators=[] epochs=50000 eval_interval=5000
    lr=1e-4 puzzle_emb_lr=1e-4 weight_decay=1.0 puzzle_emb_weight_decay=1.0 arch.L_layers=2
    arch.H_cycles=3 arch.L_cycles=4 +run_name=pretrain_att_maze30x30 ema=True
"""


@pytest.mark.parametrize("command", PUBLISHED.strip().replace("\n    ", " ").splitlines())
def test_published_commands(command):
    config = load_config(command.split())
    arc = "arc1concept" in command
    assert config.evaluators == (None if arc else ())
    assert (config.lr, config.global_batch_size, config.ema) == (1e-4, 768, True)
    assert config.puzzle_emb_lr == (1e-2 if arc else 1e-4)
    assert (config.epochs, config.eval_interval) == ((100_000, 10_000) if arc else (50_000, 5000))
    assert config.weight_decay == config.puzzle_emb_weight_decay == (0.1 if arc else 1.0)
    assert config.arch.mlp_t is ("arch.mlp_t=True" in command)
    assert config.arch.prefix == 16


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "'1e-4'", ".0001"])
def test_numbers_as_yaml_and_people_write_them(text):
    assert load_config([DATA, f"lr={text}"]).lr == 1e-4


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_every_yaml_file_loads(path):
    assert isinstance(read_yaml(path), dict)
    if path.parent.name == "arch":
        assert arch_config(path.stem).name == path.stem
    elif path.parent.name == "experiment":
        assert load_config([DATA, f"experiment={path.stem}"]).data_paths == ("data/sudoku",)
    else:
        assert isinstance(load_config([DATA]), TrainConfig)


def test_defaults_of_file_and_class_agree():
    """Python users, who skip cfg_pretrain.yaml, must not get another run by it."""
    assert load_config([DATA]) == TrainConfig(data_paths=("data/sudoku",))
    assert ArchConfig() == arch_config() == arch_config("trm") == load_config([DATA]).arch


# The published config/cfg_pretrain.yaml and config/arch/trm.yaml, but for the data: data_paths
# stays required, and evaluators is null, which is [arc@ARC] where there is data for it.
PUBLISHED_RUN = {
    "global_batch_size": 768, "epochs": 100_000, "eval_interval": 10_000,
    "checkpoint_every_eval": True, "min_eval_interval": 0, "lr": 1e-4, "lr_min_ratio": 1.0,
    "lr_warmup_steps": 2000, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1,
    "puzzle_emb_weight_decay": 0.1, "puzzle_emb_lr": 1e-2, "seed": 0, "ema": False,
    "ema_rate": 0.999, "freeze_weights": False, "loss": "stablemax_cross_entropy",
    "optimizer": "adam_atan2", "data_paths_test": (),
}  # fmt: skip
PUBLISHED_TRM = {
    "name": "trm", "hidden_size": 512, "num_heads": 8, "expansion": 4, "H_cycles": 3,
    "L_cycles": 6, "H_layers": 0, "L_layers": 2, "mlp_t": False, "pos_encodings": "rope",
    "puzzle_emb_len": 16, "halt_max_steps": 16, "halt_exploration_prob": 0.1,
    "no_ACT_continue": True,
}  # fmt: skip


def test_defaults_are_the_published_ones():
    config = TrainConfig(data_paths=("data/sudoku",))
    assert {name: getattr(config, name) for name in PUBLISHED_RUN} == PUBLISHED_RUN
    assert {name: getattr(config.arch, name) for name in PUBLISHED_TRM} == PUBLISHED_TRM
    assert config.arch.puzzle_dims == 512


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_no_yaml_file_repeats_a_default(path):
    values = read_yaml(path)
    if path.parent.name == "arch":
        assert values.get("name", "trm") == path.stem
        values = {"arch": values}
    arch = arch_config(values.get("arch", {}).get("name", "trm"))
    base = arch if path.parent.name == "experiment" else ArchConfig()
    config = train_config({"data_paths": ["data/sudoku"], **values})
    defaults = {**to_dict(TrainConfig(data_paths=("none",))), "arch": None}
    repeated = [key for key in values if to_dict(config)[key] == defaults[key]]
    repeated += [k for k in values.get("arch", {}) if getattr(config.arch, k) == getattr(base, k)]
    assert repeated == []


@pytest.mark.parametrize("name", ARCHS)
def test_arch_choice(name):
    assert load_config([DATA, f"arch={name}"]).arch == arch_config(name)


@pytest.mark.parametrize("name", ["trm", "trm_hier6", "hrm"])
def test_arch_file_comes_before_its_changes_wherever_it_stands(name):
    words = [f"arch={name}", "arch.L_cycles=4"]
    config = load_config([DATA, *words])
    assert config.arch == dataclasses.replace(arch_config(name), L_cycles=4)
    assert load_config([DATA, *reversed(words)]) == config


@pytest.mark.parametrize("value", ["[" * 3000, "{" * 3000, "[a: &x [1], b: *x]"])
def test_values_that_could_blow_up_are_refused(value):
    with pytest.raises(InputError, match="not a YAML value"):
        load_config([DATA, f"lr={value}"])


def test_later_value_wins():
    assert load_config([DATA, "lr=1", "lr=2"]).lr == 2


EXPERIMENTS = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_recipe_is_one_command(name):
    config = load_config([f"experiment={name}"])
    assert config.data_paths
    for path in config.data_paths:
        if path.startswith("generate:"):
            assert tasks.get_generator(path.removeprefix("generate:"))


@pytest.mark.parametrize(
    ("name", "mlp_t", "L_cycles"),
    [("sudoku_mlp", True, 6), ("sudoku_attention", False, 6), ("maze", False, 4)],
)
def test_recipes_are_the_published_runs(name, mlp_t, L_cycles):
    config = load_config([f"experiment={name}"])
    arch = config.arch
    assert (arch.mlp_t, arch.pos_encodings) == (mlp_t, "none" if mlp_t else "rope")
    assert (arch.H_cycles, arch.L_cycles, arch.L_layers) == (3, L_cycles, 2)
    assert (arch.hidden_size, arch.num_heads, arch.halt_max_steps) == (512, 8, 16)
    assert (arch.puzzle_emb_len, arch.puzzle_dims) == (16, 512)
    assert (config.epochs, config.eval_interval, config.global_batch_size) == (50000, 5000, 768)
    assert (config.lr, config.puzzle_emb_lr, config.lr_min_ratio) == (1e-4, 1e-4, 1.0)
    assert (config.weight_decay, config.puzzle_emb_weight_decay) == (1.0, 1.0)
    assert (config.lr_warmup_steps, config.ema, config.ema_rate) == (2000, True, 0.999)


def test_experiment_choice():
    recipe = read_yaml(config_folder() / "experiment" / "sudoku4x4.yaml")
    config = load_config(["experiment=sudoku4x4"])
    assert config.arch.hidden_size == recipe["arch"]["hidden_size"]
    assert config.lr == float(recipe["lr"])
    for words in (["experiment=sudoku4x4", "lr=0.5"], ["lr=0.5", "experiment=sudoku4x4"]):
        changed = load_config([*words, "arch.L_cycles=5"])
        assert changed.lr == 0.5
        assert changed.arch == dataclasses.replace(config.arch, L_cycles=5)


def test_resumed_values_replace_the_defaults():
    base = to_dict(load_config([DATA, "lr=0.5", "arch=hrm", "arch.L_cycles=5"]))
    config = load_config(["epochs=20", "eval_interval=10"], base=base)
    assert (config.lr, config.arch.name, config.arch.L_cycles) == (0.5, "hrm", 5)
    assert config.epochs == 20


@pytest.mark.parametrize("name", ARCHS)
def test_resolved_config_round_trips(name):
    config = load_config([DATA, f"arch={name}", "+run_name=x", "lr=3e-4", "grad_clip=1"])
    assert train_config(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


def test_model_config_round_trips():
    config = ModelConfig.of(arch_config("hrm"), vocab_size=11, seq_len=81, num_puzzle_identifiers=3)
    assert read_model_config(to_dict(config)) == config
    assert config.length == config.prefix + 81


@pytest.mark.parametrize(
    "key", ["eval_interval", "grad_clip", "checkpoint_path", "run_name", "load_checkpoint"]
)
@pytest.mark.parametrize("spelling", ["null", "", "~"])
def test_null_for_optional_fields(key, spelling):
    assert getattr(load_config([DATA, f"{key}={spelling}"]), key) is None


def test_null_puzzle_width_means_hidden_size():
    arch = load_config([DATA, "arch.puzzle_emb_ndim=null"]).arch
    assert (arch.puzzle_emb_ndim, arch.puzzle_dims) == (None, arch.hidden_size)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("learning_rate=1", "unknown key learning_rate: did you mean "),
        ("epoch=1", "unknown key epoch: did you mean epochs?"),
        ("arch.L_cycle=1", "unknown key arch.L_cycle: did you mean arch.L_cycles?"),
        ("arch.hidden=1", "unknown key arch.hidden: did you mean arch.hidden_size?"),
        ("arch.=1", "unknown key arch.: did you mean arch."),
        ("epochs=many", "epochs='many': expected a whole number"),
        ("epochs=1.5", "epochs=1.5: expected a whole number"),
        ("epochs=true", "epochs=True: expected a whole number"),
        ("epochs=null", "epochs=None: expected a whole number"),
        ("lr=fast", "lr='fast': expected a number"),
        ("lr=true", "lr=True: expected a number"),
        ("lr=[1]", "lr=[1]: expected a number"),
        ("lr=.nan", "lr=nan: expected a number"),
        ("lr=nan", "lr='nan': expected a number"),
        ("arch.expansion=.inf", "arch.expansion=inf: expected a number"),
        ("lr=" + "9" * 400, "expected a number"),
        ("ema=1", "ema=1: expected true or false"),
        ("ema=maybe", "ema='maybe': expected true or false"),
        ("data_paths=a", "data_paths='a': expected a list like [a,b]"),
        ("data_paths=[[a]]", "data_paths[0]=['a']: expected text"),
        ("data_paths=[]", "data_paths is empty"),
        ("grad_clip=x", "grad_clip='x': expected a number or null"),
        ("batch_size={a: b}", "batch_size={'a': 'b'}: expected text"),
        ("arch.mlp_t=3", "arch.mlp_t=3: expected true or false"),
        ("arch.name=null", "choose one of hrm,"),
        ("arch=5", "arch=5: expected"),
        ("arch=null", "arch=None: expected"),
        ("arch=[trm]", "arch=['trm']: expected"),
        ("arch={1: 2}", "unknown key arch.1"),
        ("arch=trn", "arch=trn: no such file; choose one of " + ", ".join(ARCHS)),
        ("experiment=x", "experiment=x: no such file; choose one of "),
        ("epochs.x=1", "epochs={'x': 1}: expected a whole number"),
        ("data_paths.x=1", "data_paths.x"),
        ("eval_interval=30000", "does not divide epochs=100000: set eval_interval=25000"),
        ("eval_interval=0", "eval_interval=0 does not divide epochs=100000: set eval_interval=1"),
        ("epochs=-1", "epochs=-1: must be greater than 0"),
        ("global_batch_size=0", "global_batch_size=0: must be greater than 0"),
        ("evaluators=[chess]", "evaluators.name=chess: choose one of arc, arc@ARC"),
        ("loss=mse", "loss=mse: choose one of stablemax_cross_entropy, softmax_cross_entropy"),
        ("optimizer=sgd", "optimizer=sgd: choose one of adam_atan2, adamw"),
        ("arch.pos_encodings=alibi", "choose one of rope, rope2d, learned, none"),
        ("arch.board_convolution=true", "board_convolution=true wants positions on a board: set"),
        ("arch.forward_dtype=float64", "choose one of auto, float32, bfloat16, float16"),
        ("arch.hidden_size=0", "arch.hidden_size=0: must be from 1 to 1048576"),
        ("arch.num_heads=1024", "arch.num_heads=1024 is more than arch.hidden_size=512"),
        ("arch.hidden_size=24", "rope needs an even number"),
        ("arch.puzzle_emb_ndim=100000", "arch.puzzle_emb_len=0 or at least 196"),
        ("arch.puzzle_emb_ndim=-5", "arch.puzzle_emb_ndim=-5"),
        ("arch.puzzle_emb_len=-5", "arch.puzzle_emb_len=-5: must be"),
        ("lr", "write key=value"),
        ("=1", "write key=value"),
        ("", "write key=value"),
        ("lr=[1", "not a YAML value"),
        ("lr=0x_", "not a YAML value"),
        ("lr=!!python/object/apply:os.system [true]", "not a YAML value"),
        ("lr=" + "[" * 3000, "not a YAML value"),
    ],
    ids=lambda text: text[:40],
)
def test_refused(override, expected):
    assert expected in message_of(DATA, override)


@pytest.mark.parametrize("key", ["beta1", "ema_rate", "arch.halt_exploration_prob"])
@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_shares_lie_between_0_and_1(key, value):
    assert f"{key}={value}" in message_of(DATA, f"{key}={value}")


def test_missing_data_is_named():
    assert message_of() == "data_paths is empty: name a dataset folder, data_paths=[data/NAME]"


def test_a_run_shorter_than_the_interval_is_evaluated_at_its_end():
    assert load_config([DATA, "epochs=20"]).epochs_per_interval == 20


@pytest.mark.parametrize("name", ["2024-01-01", "2001-13-45", "mlp-7", "'12:30'", "1.5"])
def test_runs_may_be_named_after_dates_and_numbers(name):
    assert load_config([DATA, f"run_name={name}"]).run_name == name.strip("'")


@pytest.mark.parametrize("key", ["run_name", "project_name", "checkpoint_path", "load_checkpoint"])
@pytest.mark.parametrize("name", ["007", "1e5", "1.50", "0x10", "yes", "a #b", "[x", "a: b", "*"])
def test_names_stay_as_they_are_typed(key, name):
    assert getattr(load_config([DATA, f"{key}={name}"]), key) == name


@pytest.mark.parametrize("word", ["data=007", "data_paths=[007]", "data_paths=['007']"])
def test_names_of_data_stay_as_they_are_typed(word):
    assert load_config([word]).data_paths == ("007",)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5000), st.integers(-3, 6000))
def test_proposed_interval_is_accepted(epochs, interval):
    words = [DATA, f"epochs={epochs}"]
    try:
        config = load_config([*words, f"eval_interval={interval}"])
    except InputError as error:
        proposal = str(error).rpartition("set ")[2]
        config = load_config([*words, proposal])
    assert config.epochs % config.epochs_per_interval == 0


def test_mistyped_epochs_are_refused_at_once():
    assert "does not divide" in message_of(DATA, f"epochs={10**400 + 7}", "eval_interval=10")


def test_typed_overrides():
    assert typed_overrides(["L_cycles=4", "expansion=2", "mlp_t=true"]) == {
        "L_cycles": 4,
        "expansion": 2.0,
        "mlp_t": True,
    }
    with pytest.raises(InputError, match="did you mean seq_len"):
        typed_overrides(["seqlen=4"])


@pytest.mark.parametrize(
    "content", ["- a\n", "", "a: [1\n", "a: 2001-13-45\nb: [", "\x00", "a: " + "[" * 3000]
)
def test_unusable_yaml_file(tmp_path, content):
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"x\.yaml"):
        read_yaml(path)
    with pytest.raises(InputError, match=r"cannot read .*absent"):
        read_yaml(tmp_path / "absent.yaml")
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(InputError, match=r"x\.yaml"):
        read_yaml(path)


def test_help_lists_every_option():
    text = describe_options()
    for declared, prefix in ((TrainConfig, ""), (ArchConfig, "arch.")):
        for field in dataclasses.fields(declared):
            assert field.name == "arch" or f"  {prefix}{field.name} " in text
    for line in ("weight decay  [a number; default 0.1]", "[a list like [a,b]; default []]"):
        assert line in text
    assert "[auto | true | false; default auto]" in text


KEYS = st.sampled_from(
    [field.name for field in dataclasses.fields(TrainConfig)]
    + [f"arch.{field.name}" for field in dataclasses.fields(ArchConfig)]
    + ["arch", "experiment", "arch.x.y", "data_paths.x", "", "."]
)
VALUES = st.one_of(
    st.text(max_size=12),
    st.text("[]{}:,&*!|>-0x._1e+'\"#~?@% \n", max_size=10),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["null", "true", "[]", "{}", "[a,b]", "{a: 1}", "trm", "hrm", *ARCHS]),
)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.one_of(st.text(max_size=15), st.builds("{}={}".format, KEYS, VALUES)), max_size=4)
)
@example(["lr=0b_"])
@example(["lr=2001-13-45"])
@example(["arch={? []}"])
@example(["arch=null", "arch.x=1"])
def test_any_words_give_a_config_or_an_input_error(words):
    try:
        config = load_config([DATA, *words])
    except InputError:
        return
    assert isinstance(config, TrainConfig)
    assert train_config(to_dict(config)) == config
