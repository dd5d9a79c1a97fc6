"""YAML read so that whatever is wrong with a text is a line for its user, and nothing blows up."""

from pathlib import Path
from typing import Any, ClassVar

import yaml

from trm_mlx.errors import InputError, shortened

_DEEPEST = 20  # levels of a YAML value
_WIDEST = 4096  # bits of a whole number; Python refuses to print one of 4,300 digits


class _Loader(yaml.SafeLoader):
    """YAML without dates, as a run may be named after one, and without what can blow up: aliases,
    and nesting deeper than any configuration."""

    _depth = 0

    yaml_implicit_resolvers: ClassVar = {
        first: [pair for pair in resolvers if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_yaml_int(self, node: yaml.Node) -> int:
        number = super().construct_yaml_int(node)
        if number.bit_length() > _WIDEST:
            raise yaml.YAMLError(f"a whole number of more than {_WIDEST} bits")
        return number

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read here, write the value again")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.YAMLError(f"nested more than {_DEEPEST} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(path: Path) -> dict:
    """A YAML file that holds a mapping.

    Raises:
        InputError: missing, unreadable, or not a mapping.
    """
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(
            f"{path} is not YAML: {shortened(' '.join(str(error).split()))}"
        ) from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold key: value lines, found {type(values).__name__}")
    return values


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is none.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error
