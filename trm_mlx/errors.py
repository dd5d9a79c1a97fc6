"""The one exception a user is meant to read."""


class InputError(ValueError):
    """Bad input: one line that names the offending value and the remedy.

    Command lines print it as ``error: ...`` and exit with status 2; Python callers catch it as a
    ``ValueError``.
    """
