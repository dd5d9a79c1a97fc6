"""Completion of command lines by a shell's Tab, through argcomplete.

A shell learns of it by ``eval "$(register-python-argcomplete trm)"`` in its start file; it then
runs ``trm`` with ``_ARGCOMPLETE`` set. Only the module of the verb that is being typed is imported.
"""

import argparse
import importlib
import os
from collections.abc import Mapping

import argcomplete

Verbs = Mapping[str, tuple[str, str]]  # each with its module and summary


def complete(verbs: Verbs) -> None:
    """Write the words that can follow what has been typed, and end the process."""
    argcomplete.autocomplete(parser_of(verbs, os.environ["COMP_LINE"].split()[1:]))


def parser_of(verbs: Verbs, words: list[str]) -> argparse.ArgumentParser:
    """A parser of all verbs, that of ``words`` with its options."""
    root = argparse.ArgumentParser("trm")
    groups = {(): root.add_subparsers()}
    for verb, (module_name, summary) in verbs.items():
        *group, name = names = verb.split()
        if tuple(group) not in groups:
            groups[tuple(group)] = groups[()].add_parser(*group).add_subparsers()
        parser = groups[tuple(group)].add_parser(name, help=summary)
        if words[: len(names)] == names:
            importlib.import_module(module_name).add_arguments(parser)
    return root
