"""The two kinds of work: making a puzzle, and solving one while somebody watches."""

import time

import numpy as np

from trm_mlx.demo.requests import SolveRequest
from trm_mlx.demo.shelf import Offer, Shelf
from trm_mlx.demo.work import Tell
from trm_mlx.solve.schedule import Glimpse
from trm_mlx.solve.solver import Solver
from trm_mlx.view.film import Reel, ending, judged
from trm_mlx.view.page import board


def generate(offer: Offer, tell: Tell) -> None:
    """One event, ``puzzle``, with the text of a new puzzle."""
    (question,) = offer.task.generate(1, np.random.default_rng()).questions
    tell({"kind": "puzzle", "text": offer.task.render(question)})


def warm_up(shelf: Shelf, offer: Offer) -> None:
    """Load a model and let it take one step, so that the first puzzle need not wait for that."""
    blank = np.zeros((1, offer.task.seq_len), np.uint8)
    solver = Solver(shelf.model(offer), max_steps=1, intermediates=True, states=False)
    next(solver.solve(offer.task.encode(blank)))


def solve(shelf: Shelf, request: SolveRequest, question: np.ndarray, tell: Tell) -> None:
    """A ``step`` event after every supervision step, then one ``end``.

    ``question`` is cell values ``[S]``. Steps are counted from 1, trajectories from 0.
    """
    start = time.perf_counter()
    offer = shelf.offer(request.model)
    task, look = offer.task, offer.look
    solver = Solver(
        shelf.model(offer),
        request.max_steps,
        request.halt_threshold,
        search=request.search,
        task=task,
        intermediates=True,
        states=False,
    )
    reel = Reel(task, question)

    def watch(glimpse: Glimpse) -> None:
        frame = reel.next(glimpse)
        tell(
            {
                "kind": "step",
                "trajectory": glimpse.trajectory,
                "step": frame.step,
                "halting": round(frame.halting, 4),
                "changes": frame.changes,
                "cells": board(look, frame),
                "seconds": round(time.perf_counter() - start, 3),
            }
        )

    (solution,) = solver.solve(task.encode(question)[None], watch=watch)
    verdict = judged(task, question, task.decode(solution.answer))
    tell(
        {
            "kind": "end",
            "trajectory": solution.trajectory,
            "trajectories": solution.trajectories,
            "steps": solution.steps,
            "evaluations": solution.evaluations,
            "confidence": round(solution.confidence, 4),
            "solved": verdict.right,
            "ending": ending(solution.steps, solution.halted, verdict),
            "select": request.search.select,
            "seconds": round(time.perf_counter() - start, 3),
        }
    )
