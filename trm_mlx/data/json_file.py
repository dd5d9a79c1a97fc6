"""JSON files, read so that whatever is wrong with one is a line for its user."""

import json
from pathlib import Path

from trm_mlx.errors import InputError, shortened


def read_json(path: str | Path, absent: str, damaged: str) -> object:
    """What a JSON file holds.

    Args:
        absent, damaged: what the user can do where it cannot be read, or is no JSON.

    Raises:
        InputError: it is so.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {shortened(path)}: {error.strerror}; {absent}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; {damaged}") from error
