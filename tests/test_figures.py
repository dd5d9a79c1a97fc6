"""The figures of the README, the pages and the cards are those of the files that they come from."""

import csv
import json
import re
from functools import partial
from pathlib import Path

import pytest
from pages import CARDS, CHECKOUT, README

RECIPES = (CHECKOUT / "docs" / "fast_recipe.md").read_text("utf-8")
SOLVERS = [card.parent for card in CARDS if card.parent.name != "arc-agi-1"]


def rows_of(text: str, head: str) -> list[list[str]]:
    """The cells of the table under a heading row that begins with ``head``, without bold."""
    (table,) = re.findall(rf"^\| {re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    return [
        [cell.replace("*", "").strip() for cell in line.strip().strip("|").split("|")]
        for line in table.splitlines()
    ]


def ways_of(folder: Path) -> list[dict]:
    return json.loads((folder / "accuracy.json").read_text("utf-8"))


def interval(figures: dict) -> str:
    share, low, high = (100 * figures[key] for key in ("share", "low", "high"))
    return f"{share:.2f} [{low:.2f}, {high:.2f}]"


@pytest.mark.parametrize("folder", SOLVERS, ids=lambda folder: folder.name)
def test_a_card_has_the_figures_of_its_measurement(folder):
    card = (folder / "README.md").read_text("utf-8").split("## Accuracy")[1]
    (head,) = re.findall(r"^\| way of solving \| (.*) \|$", card, re.M)
    columns = head.split(" | ")
    ways = ways_of(folder)
    rows = rows_of(card, "way of solving")
    assert [row[0].removesuffix(", with rule check") for row in rows] == [w["way"] for w in ways]
    for way, (_, *cells) in zip(ways, rows, strict=True):
        for column, cell in zip(columns, cells, strict=True):
            if column in way:
                assert cell == f"{way[column]:.2f}"
            else:
                name, labelled = re.subn(", the labelled answer", "", column)
                assert cell == interval(way["exact" if labelled else "solved"][name]), column
    for rating, count, solved in rows_of(card, f"{ways[0]['way']} | puzzles"):
        figures = ways[0]["solved"][rating]
        assert (int(count), solved) == (figures["count"], interval(figures))


def test_the_models_of_the_readme():
    rows = rows_of(README.read_text("utf-8"), "model | one attempt")
    assert len(rows) == len(SOLVERS)
    for name, first, checked, _ in rows:
        folder = CHECKOUT / "trm_mlx" / "pretrained" / re.match(r"\[`([\w-]+)`", name)[1]
        ways = ways_of(folder)
        thorough = f"up to 16 trajectories of {ways[0]['way']}, symmetries and restarts, by rule"
        (thorough,) = (way for way in ways if way["way"] == thorough)
        share, count = re.match(r"([\d.]+) % of ([\d,]+)", first).groups()
        assert int(count.replace(",", "")) == ways[0]["solved"]["all"]["count"]
        assert share == f"{100 * ways[0]['solved']['all']['share']:.2f}"
        assert checked == f"{100 * thorough['solved']['all']['share']:.2f} %"


def test_ways_of_solving_of_the_fast_recipe():
    ways = {way["way"]: way for way in ways_of(CHECKOUT / "trm_mlx" / "pretrained" / "sudoku-9x9")}
    named = {
        "one trajectory of 16 steps": "16 steps",
        "one trajectory until it halts, up to 16 steps": "until it halts, up to 16 steps",
        "one trajectory of 64 steps": "64 steps",
    }
    many = "up to 16 trajectories of {} steps, symmetries and restarts, by {}"
    for steps in (16, 64):
        named[f"up to 16 trajectories of {steps} steps, no rule check"] = many.format(steps, "q")
    named["`trm solve`: up to 16 of 16 steps, restarts, symmetries, rule check"] = many.format(
        16, "rule"
    )
    named["the same with 64 steps"] = many.format(64, "rule")
    rows = rows_of(RECIPES, "way of solving | all")
    assert [row[0] for row in rows] == [*named]
    for words, *shares, evaluations, _, _ in rows:  # the last two are of earlier pieces
        way = ways[named[words]]
        for name, share in zip(("all", "clue17", "forum_hardest_1905"), shares, strict=True):
            assert float(share[:-2]) == round(100 * way["solved"][name]["share"], 2), words
        assert float(evaluations) == round(way["evaluations"], 1)


def curves_of(name: str) -> dict[tuple[str, str], list[dict[str, float]]]:
    """The evaluations of a table in docs/, by run and set, in per cent."""
    curves = {}
    with (CHECKOUT / "docs" / name).open() as file:
        for row in csv.DictReader(file):
            values = {key: float(row[key]) for key in ("step", "minutes", "eflop")}
            values["share"] = 100 * float(row["accuracy"])
            curves.setdefault((row["run"], row["set"]), []).append(values)
    return curves


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", cell)]


# The tables in docs/ are rounded themselves, so that a last digit may be either of two.
SHARE, MINUTES, EFLOP = (partial(pytest.approx, abs=within) for within in (0.056, 0.056, 0.00056))
SOURCES = ("17 clues", "forum's hardest")


def test_how_soon_each_recipe_solved_how_much():
    curves = curves_of("recipes.csv")
    runs = ("fast", "depth_curriculum=false", "paper")
    *levels, last = rows_of(RECIPES, "| fast | with `depth_curriculum=false`")
    for level, *cells in levels:
        share, source = re.match(r"(\d+) % of (.*)", level).groups()
        for run, cell in zip(runs, cells, strict=True):
            reached = [p for p in curves[run, source] if p["share"] >= float(share)]
            assert bool(reached) == (cell != "not reached")
            if reached:
                first = reached[0]
                assert numbers(cell) == [MINUTES(first["minutes"]), EFLOP(first["eflop"])]
    for run, cell in zip(runs, last[1:], strict=True):
        easy, hard = (curves[run, source][-1] for source in SOURCES)
        found = [MINUTES(easy["minutes"]), EFLOP(easy["eflop"])]
        assert numbers(cell) == [*found, SHARE(easy["share"]), SHARE(hard["share"])]


def shares_at(curves: dict, run: str, step: float) -> list[float]:
    """The shares of both sources at the evaluation nearest to a step."""
    nearest = [min(curves[run, s], key=lambda p: abs(p["step"] - step)) for s in SOURCES]
    return [SHARE(point["share"]) for point in nearest]


def test_what_each_option_earned():
    options, thousand = curves_of("options.csv"), curves_of("thousand.csv")
    first, *rows = rows_of(RECIPES, "changed | 17 clues")
    both = (
        shares_at(thousand, "full_depth", 1533),
        shares_at(options, "depth_curriculum=false", 1533),
    )
    assert list(map(numbers, first[1:])) == [list(pair) for pair in zip(*both, strict=True)]
    for changed, *cells in rows:
        run = re.search(r"`(.*)`", changed)[1]
        assert numbers(" ".join(cells)) == shares_at(options, run, 1533), run
    rows = rows_of(RECIPES, "| steps | EFLOP | 17 clues")
    sets = [(options, "fast"), (options, "depth_curriculum=false"), (thousand, "full_depth")]
    for (_, steps, _, *cells), (curves, run) in zip(rows, sets, strict=True):
        found = shares_at(curves, run, float(steps.replace(",", "")))
        assert numbers(" ".join(cells)) == found


def test_what_each_option_of_the_maze_recipe_earned():
    curves = curves_of("maze_options.csv")
    rows = rows_of(RECIPES, "changed | steps | per cent")
    rows = [row for row in rows if "convolution" not in row[0]]  # those runs were not kept
    names = {"nothing, seeds 0 and 1": ["base", "seed=1"]}
    names |= {row[0]: ["ladder"] for row in rows if "10x10 first" in row[0]}
    for changed, _, cell in rows:
        plain = re.sub(r"arch\.|optimizer=|`", "", changed)
        runs = names.get(changed) or [re.match(r"[\w=.]+", plain)[0]]
        assert numbers(cell) == [SHARE(curves[run, "all"][-1]["share"]) for run in runs], changed
    assert 2 * (len(rows) + 1) == len(curves)


def test_accuracy_during_the_training_of_the_bundled_sudoku():
    log = CHECKOUT / "trm_mlx" / "pretrained" / "sudoku-9x9"
    found = []
    for piece in ("training_first.csv", "training_second.csv", "training.csv"):
        with (log / piece).open() as file:
            rows = [row for row in csv.DictReader(file) if row["evaluated exact accuracy"]]
        found.append({int(r["step"]): 100 * float(r["evaluated exact accuracy"]) for r in rows})
    section = RECIPES.split("## The run that made")[1].split("\n## ")[0]
    (shares,) = (row[1:] for row in rows_of(section, "step |") if row[0] == "per cent")
    assert [float(share) for share in shares] == list(map(SHARE, found[0].values()))
    assert found[0].keys() == {1225 * n for n in range(1, 11)}
    text = " ".join(section.split())
    first, second, last = (f"{found[1][step]:.1f} %" for step in (3676, 7352, 11028))
    assert first == second
    assert f"{first} after 3,676 and after 7,352 steps" in text
    assert f"{last} in the end" in text
    halfway, last = (f"{found[2][step]:.1f} %" for step in (2784, 5568))
    assert f"{halfway} after 2,784 steps, {last} in the end" in text
