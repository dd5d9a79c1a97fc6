"""Configurations from YAML files and ``key=value`` words in Hydra's spelling.

The dataclasses of ``config.py`` hold the defaults, the YAML files under ``config/`` what differs:
``cfg_pretrain.yaml`` for every run, ``arch/NAME.yaml`` for one variant, ``experiment/NAME.yaml``
for one recipe. An unknown key is an error that names the nearest one.
"""

import dataclasses
import difflib
import math
import types
import typing
from pathlib import Path
from typing import Any, ClassVar

import yaml

from trm_mlx.config import ArchConfig, EvaluatorConfig, ModelConfig, TrainConfig
from trm_mlx.errors import InputError, located
from trm_mlx.files import expand_path, read_text


def config_folder() -> Path:
    """Where the YAML files lie: inside an installed wheel, or at the root of a checkout."""
    package = Path(__file__).parent
    installed = package / "_config"
    return installed if installed.is_dir() else package.parent / "config"


def load_config(overrides: typing.Sequence[str] = (), base: dict | None = None) -> TrainConfig:
    """A run's configuration from ``key=value`` overrides, e.g. ``arch=trm +run_name=x lr=1e-4``.

    Args:
        overrides: Hydra's spelling: ``arch=NAME`` and ``experiment=NAME`` choose files,
            ``arch.L_cycles=4`` sets one value, a leading ``+`` is allowed, lists are ``[a,b]``.
        base: values to start from instead of ``cfg_pretrain.yaml`` (a resumed run's own).

    Raises:
        InputError: an unknown key, file or choice, or a value of the wrong type.
    """
    if isinstance(overrides, str):
        raise InputError(f"overrides={overrides!r}: must be a list of strings, [{overrides!r}]")
    values = dict(base) if base is not None else read_yaml(config_folder() / "cfg_pretrain.yaml")
    # Files first, wherever they stand on the line: the single values are changes to them.
    order = {"experiment": 0, "arch": 1}
    pairs = sorted(map(_split_override, overrides), key=lambda pair: order.get(pair[0], 2))
    for key, value in pairs:
        if key == "experiment":
            _merge(values, _read_choice("experiment", value))
        elif key == "data":
            values["data_paths"] = [value]
        else:
            _set(values, key.split("."), value)
    return train_config(values)


def train_config(values: dict) -> TrainConfig:
    """A run's configuration from nested dictionaries, ``arch`` completed from its file.

    Raises:
        InputError: an unknown key or choice, or a value of the wrong type.
    """
    values = dict(values)
    arch = values.get("arch", "trm")
    if isinstance(arch, str):
        arch = {"name": arch}
    if not isinstance(arch, dict):
        raise InputError(f"arch={arch!r}: expected the name of a variant, such as arch=trm")
    arch = {**_read_choice("arch", arch.get("name", "trm")), **arch}
    values["arch"] = _build(ArchConfig, arch, "arch.")
    return _build(TrainConfig, values, "")


def arch_config(name: str = "trm", **changes: Any) -> ArchConfig:
    """The architecture ``config/arch/NAME.yaml``, with some fields changed.

    Raises:
        InputError: an unknown variant or field, or a value it cannot have.
    """
    return _build(ArchConfig, {**_read_choice("arch", name), **changes}, "arch.")


def typed_overrides(words: typing.Sequence[str]) -> dict[str, Any]:
    """``key=value`` words for the fields of a ``ModelConfig``, checked and typed."""
    return typed_fields(dict(_split_override(word) for word in words))


def typed_fields(values: typing.Mapping[str, Any]) -> dict[str, Any]:
    """Values for some fields of a ``ModelConfig``, checked and typed."""
    kinds = typing.get_type_hints(ModelConfig)
    _check_known(values, kinds, "")
    return {key: _typed(key, value, kinds[key]) for key, value in values.items()}


def to_dict(config: Any) -> dict:
    """Nested dictionaries and lists, fit for YAML and JSON."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }


def read_model_config(values: dict) -> ModelConfig:
    """A ``ModelConfig`` from what a checkpoint's ``config.json`` holds."""
    return _build(ModelConfig, values, "")


def shown(value: Any) -> str:
    """Return a value as one types it."""
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return f"[{','.join(map(shown, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_choice(group: str, name: Any) -> dict:
    folder = config_folder() / group
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise InputError(f"{group}={name}: no such file; choose one of {', '.join(known)}")
    return read_yaml(folder / f"{name}.yaml")


def _split_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.lstrip("+").partition("=")
    if not equals or not key:
        raise InputError(f"cannot read {text!r}: write key=value, for example arch=trm or lr=1e-4")
    try:
        return key, _override_value(key, value)
    except ValueError as error:
        raise InputError(f"{key}={value}: not a YAML value; quote it") from error


def _override_value(key: str, text: str) -> Any:
    """A typed value; names and paths stay as they are typed, but for quotes and null."""
    kind = str | None if key == "data" else typing.get_type_hints(TrainConfig).get(key)
    if kind == str | None and text not in ("", "null", "Null", "NULL", "~"):
        return parse_yaml(text) if text[0] in "'\"" else text
    return parse_yaml(text, _TextLoader if kind == tuple[str, ...] else _Loader)


def _set(values: dict, path: list[str], value: Any) -> None:
    for key in path[:-1]:
        inner = values.get(key, {})
        inner = {"name": inner} if isinstance(inner, str) else inner
        if not isinstance(inner, dict):
            raise InputError(f"{'.'.join(path)}: {key} has no keys of its own, write {key}=...")
        values[key] = dict(inner)
        values = values[key]
    values[path[-1]] = value


def _merge(values: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            value = {**values[key], **value}
        values[key] = value


def _build(declared: type, values: dict, prefix: str) -> Any:
    kinds = typing.get_type_hints(declared)
    _check_known(values, kinds, prefix)
    for item in dataclasses.fields(declared):
        required = item.default is dataclasses.MISSING
        if required and item.name not in values:
            raise InputError(f"{prefix}{item.name} is not set: add {prefix}{item.name}=...")
    typed = {key: _typed(prefix + key, v, kinds[key]) for key, v in values.items()}
    for item in dataclasses.fields(declared):
        if item.metadata.get("path") and typed.get(item.name) is not None:
            with located(f"{prefix}{item.name}"):
                typed[item.name] = _expanded(typed[item.name])
    return declared(**typed)


def _expanded(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return expand_path(value) if isinstance(value, str) else tuple(map(expand_path, value))


def _check_known(keys: typing.Iterable[str], kinds: dict[str, Any], prefix: str) -> None:
    for key in keys:
        if key not in kinds:
            known = [*kinds, *(() if prefix else ("experiment", "arch"))]
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise InputError(f"unknown key {prefix}{key}: did you mean {prefix}{nearest}?")


def _typed(key: str, value: Any, kind: Any) -> Any:
    """``value`` as ``kind``; PyYAML reads ``1e-4`` as text, so text that is a number counts."""
    if isinstance(value, ArchConfig | EvaluatorConfig):
        return value
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    wanted = options[0]
    if isinstance(value, list | tuple) and typing.get_origin(wanted) is tuple:
        inner = typing.get_args(wanted)[0]
        return tuple(_typed(f"{key}[{i}]", v, inner) for i, v in enumerate(value))
    if wanted is EvaluatorConfig and isinstance(value, str | dict):
        return _build(wanted, {"name": value} if isinstance(value, str) else value, f"{key}.")
    if wanted is float and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif wanted is str and isinstance(value, bool | int | float):
        return shown(value)
    elif type(value) is wanted and not (wanted is float and not math.isfinite(value)):
        return value
    raise InputError(f"{key}={value!r}: expected {type_name(kind)}")


def type_name(kind: Any) -> str:
    """Return the type of an option in words."""
    if isinstance(kind, types.UnionType):
        return " or ".join(type_name(option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "a list like [a,b]"
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        EvaluatorConfig: "an evaluator's name or {name: ...}",
    }
    return names.get(kind, "null")


class _Loader(yaml.SafeLoader):
    """YAML without dates, as a run may be named after one, and without aliases, which multiply."""

    yaml_implicit_resolvers: ClassVar = {
        first: [pair for pair in resolvers if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read here, write the value again")
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: yaml.Node) -> int:
        number = super().construct_yaml_int(node)
        str(number)  # a ValueError beyond 4,300 digits, which no message could show
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _TextLoader(_Loader):
    """YAML whose values are text, whatever they look like."""

    yaml_implicit_resolvers: ClassVar = {}


def load_yaml(path: Path) -> Any:
    """Return the value of a YAML file.

    Raises:
        InputError: missing, unreadable, or not YAML.
    """
    try:
        return parse_yaml(read_text(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> dict:
    """Return the mapping that a YAML file holds.

    Raises:
        InputError: as `load_yaml`, or it holds something else.
    """
    values = load_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold key: value lines, found {type(values).__name__}")
    return values


def parse_yaml(text: str, loader: type[_Loader] = _Loader) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is none.
    """
    try:
        return yaml.load(text, loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error
