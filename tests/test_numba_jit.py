"""Ctrl-C while a compiled function runs."""

import importlib
import os
import signal
import sys
import threading

import numpy as np
import pytest

from trm_mlx import tasks
from trm_mlx.numba_jit import compiled, uninterrupted


@compiled
def _times(number, factor=3):
    return factor * number


@compiled
def _times_plus_one(number):
    return _times(number) + 1


def test_compiled_functions_call_each_other_with_their_defaults():
    assert (_times(2), _times(2, 5), _times_plus_one(2)) == (6, 10, 7)


def test_machine_code_on_disk_is_that_of_the_functions_as_they_are(tmp_path, monkeypatch):
    """Also where the caller's file is as it was: numba alone would not notice."""
    head = "from trm_mlx.numba_jit import compiled\n"
    (tmp_path / "calling.py").write_text(
        f"{head}from called import amount\n\n@compiled\ndef more(n):\n    return n + amount()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for amount in (1, 20):
        (tmp_path / "called.py").write_text(
            f"{head}\n@compiled\ndef amount():\n    return {amount}\n"
        )
        for name in ("calling", "called"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        assert importlib.import_module("calling").more(3) == 3 + amount


def test_ctrl_c_takes_effect_when_the_function_returns():
    done = []

    @uninterrupted
    def work(first, second):
        signal.raise_signal(signal.SIGINT)
        done.append(first + second)
        return done

    with pytest.raises(KeyboardInterrupt):
        work(1, 2)
    assert done == [3]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_puzzles_are_made():
    """Without care numba raises a SystemError here, or the process crashes."""
    task = tasks.get("maze30x30")
    task.generate(1, np.random.default_rng(0))
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        task.generate(300, np.random.default_rng(0), min_path_length=110)


def test_other_threads_and_other_handlers_are_left_alone(monkeypatch):
    seen = []
    before = signal.signal(signal.SIGINT, lambda *details: seen.append(details))
    try:
        uninterrupted(signal.raise_signal)(signal.SIGINT)
        assert len(seen) == 1
        thread = threading.Thread(target=lambda: seen.append(uninterrupted(len)("abc")))
        thread.start()
        thread.join()
        assert seen[1] == 3
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        uninterrupted(signal.raise_signal)(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
