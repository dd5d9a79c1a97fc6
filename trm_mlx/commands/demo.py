"""``trm demo``: a page in the browser, on this machine, to watch models solve puzzles."""

import argparse
import sys
import threading
import webbrowser

from trm_mlx.commands.options import add_task_argument, named_model
from trm_mlx.demo.compile_tasks import compiling
from trm_mlx.demo.jobs import warm_up
from trm_mlx.demo.registry import ModelRegistry
from trm_mlx.demo.server import Server
from trm_mlx.errors import InputError
from trm_mlx.files import path_text

PORT = 8642


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port", type=int, default=PORT, help="0 for any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address and open nothing"
    )
    parser.add_argument(
        "--checkpoint",
        type=path_text,
        help="a model to begin with, beside the bundled ones: a checkpoint or run folder, or a "
        "bundled model by its name",
    )
    add_task_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C: threads answer requests, this one computes."""
    if not 0 <= arguments.port <= 65535:
        raise InputError(f"--port {arguments.port}: must lie between 0 and 65535")
    registry = ModelRegistry(named_model(arguments))
    with Server(registry, arguments.port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(
            f"{server.url} shows models at work, on this machine only; Ctrl-C ends it", flush=True
        )
        if not arguments.no_browser:
            webbrowser.open(server.url)
        with compiling(entry.task.name for entry in registry.entries.values()):
            try:
                _warm_up(registry)
                server.jobs.serve()
            finally:
                server.shutdown()


def _warm_up(registry: ModelRegistry) -> None:
    try:
        warm_up(registry, next(iter(registry.entries.values())))
    except OSError as error:  # connections may have taken all descriptors
        print(f"warning: the first puzzle will wait for its model: {error}", file=sys.stderr)
