"""The page of ``trm demo`` in a headless Chromium: entering, solving, watching, on a phone too."""

import re
import shutil
from pathlib import Path

import pytest
from serving import served

from trm_mlx import tasks
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model

api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install 'trm-mlx[browser-test]'"
)
expect = api.expect
pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PUZZLE = "...2.1..3.....2."
ANSWER = "4312213432411423"
MARKS = ("given", "filled", "new", "changed", "breaks a rule")
GONE = re.compile(r"^The server does not answer. Start it again with: trm demo")
PASTE = """text => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text", text);
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        installed = next(filter(None, map(shutil.which, BROWSERS)), None)
        path = installed or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("there is no Chromium: python -m playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address():
    with served("--checkpoint", "sudoku-4x4") as (_, address):
        yield address


@pytest.fixture
def visit(browser):
    """Opens a page; whatever it complains of, its security policy say, fails the test."""
    contexts, complaints = [], []

    def visit(address, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text))
        page.goto(address)
        page.wait_for_selector("[role=gridcell][aria-label]")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [text for text in complaints if not re.search(r" 400 |ERR_FAILED", text)] == []


def symbols(page):
    return "".join(cell or "." for cell in page.locator("[role=gridcell]").all_inner_texts())


def hold(page, path):
    """The next request of a path, in a list; it waits until something is done with it."""
    held = []
    page.route(f"**/{path}", lambda route: held.append(route), times=1)
    return held


def solve(page):
    page.get_by_role("button", name="Solve", exact=True).click()
    page.wait_for_selector("#numbers:not([hidden])")


def test_a_puzzle_is_solved_and_watched(visit, address):
    page = visit(address)
    assert symbols(page) == PUZZLE
    solve(page)
    assert symbols(page) == ANSWER
    assert page.locator("#status").inner_text().startswith("Solved: halted at step 1")
    assert page.locator("#evaluations").inner_text() == "1"
    assert page.locator("#chosen").inner_text() == "1"
    assert page.locator(".board .new").count() == 12
    page.locator("#step").press("ArrowLeft")
    assert symbols(page) == PUZZLE
    page.get_by_role("button", name="Play").click()
    page.wait_for_selector(".board .new")
    assert symbols(page) == ANSWER


def test_steps_and_trajectories(visit, address):
    page = visit(address)
    page.locator("summary").click()
    page.get_by_label("Attempts", exact=True).fill("2")
    page.get_by_label("Stop when it is this sure").fill("")
    page.get_by_label("Take the answer by").select_option("residual")
    solve(page)
    assert page.locator("#number").inner_text() == "8 of 8"
    assert page.locator("#evaluations").inner_text() == "16"
    assert page.locator("#trajectories button").count() == 2
    assert page.locator("#trajectories .answer[aria-pressed=true]").count() == 1
    page.locator("#step").fill("3")
    assert page.locator("#number").inner_text() == "3 of 8"
    answer = page.locator("#trajectories .answer").inner_text()
    assert page.locator("#attempt").inner_text() == f"Attempt {answer} of 2"
    assert page.locator("#chosen").inner_text() == f"{answer} of 2"
    assert page.locator(".board .filled").count() > 0
    page.get_by_label("Attempts", exact=True).fill("300")
    page.get_by_role("button", name="Solve", exact=True).click()
    page.wait_for_selector("#status.bad")
    assert "must be a whole number from 1 to 256" in page.locator("#status").inner_text()


def test_cells_by_keyboard(visit, address):
    page = visit(address)
    page.get_by_role("button", name="Clear").click()
    cells = page.locator("[role=gridcell]")
    expect(page.locator("#text")).to_have_value("................")
    cells.nth(0).focus()
    for key in ("3", "ArrowRight", "ArrowDown", "4", "End", "1"):
        page.keyboard.press(key)
    expect(page.locator("#text")).to_have_value("3....4.1........")
    expect(page.locator("#cell")).to_have_text("Row 2, column 4: 1, given")
    page.keyboard.press("Backspace")
    expect(page.locator("#text")).to_have_value("3....4..........")
    page.keyboard.press("Enter")
    page.wait_for_selector("#numbers:not([hidden])")
    cells.nth(6).focus()
    assert re.search(r"confidence \d+\.\d %", page.locator("#cell").inner_text())
    cells.nth(1).hover()
    assert page.locator("#cell").inner_text().startswith("Row 1, column 2:")
    assert "confidence" in cells.nth(1).get_attribute("aria-label")


@pytest.mark.parametrize(
    ("text", "wrong", "sentence"),
    [
        ("11..............", [0, 1], "r1c1 and r1c2 both hold 1"),
        ("....z...........", [4], "r2c1 holds 'z'"),
        ("1...", [4], "4 cells where a 4x4 Sudoku has 16"),
    ],
)
def test_what_is_wrong_is_shown_where_it_is(visit, address, text, wrong, sentence):
    page = visit(address)
    page.locator("#text").fill(text)
    page.wait_for_selector("[aria-invalid=true]")
    marked = page.locator("[role=gridcell]").evaluate_all(
        "cells => cells.flatMap((c, i) => c.getAttribute('aria-invalid') === 'true' ? [i] : [])"
    )
    assert marked == wrong
    assert sentence in page.get_by_role("alert").inner_text()
    assert page.get_by_role("button", name="Solve", exact=True).is_disabled()
    page.locator("#text").fill(PUZZLE)
    expect(page.get_by_role("button", name="Solve", exact=True)).to_be_enabled()
    expect(page.locator("#problem")).to_be_hidden()


def test_another_model_while_one_works(visit, address):
    page = visit(address)
    page.locator("summary").click()
    page.get_by_label("Steps of each, at most").fill("256")
    page.get_by_label("Attempts", exact=True).fill("1")
    page.get_by_label("Stop when it is this sure").fill("")
    page.get_by_role("button", name="Solve", exact=True).click()
    page.wait_for_selector("#play:enabled")
    page.get_by_label("Model").select_option("arithmetic")
    expect(page.locator("[role=gridcell]")).to_have_count(12)
    expect(page.locator("#text")).to_have_value("123+321=")
    expect(page.get_by_role("button", name="Solve", exact=True)).to_be_enabled()
    expect(page.locator("#number")).to_have_text("")


def test_a_new_puzzle(visit, address):
    page = visit(address)
    page.get_by_role("button", name="New puzzle").click()
    expect(page.locator("#text")).not_to_have_value(PUZZLE)
    expect(page.locator("#status")).to_have_text("Press Solve.")
    solve(page)
    assert page.locator("#status.right").count() == 1


def test_dark_and_light(visit, address):
    brightness = {}
    for scheme in ("light", "dark"):
        page = visit(address, color_scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3]))
    assert brightness["light"] > 700
    assert brightness["dark"] < 100


def test_in_print(visit, address):
    page = visit(address, color_scheme="dark")
    solve(page)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 251, 250)"
    expect(page.locator("#number")).to_have_text("1 of 1")
    for id in ("#board", "#status", "#number", "#legend"):
        expect(page.locator(id)).to_be_visible()
    for id in ("#solve", "#play", "#step", "#palette", "#model"):
        expect(page.locator(id)).to_be_hidden()


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Addresses of pages with an untrained model, by task."""
    found = {}
    for name in ("sudoku9x9", "maze7x7"):
        task = tasks.get(name)
        arch = arch_config(
            "trm", hidden_size=16, num_heads=2, L_layers=1, puzzle_emb_ndim=0, halt_max_steps=4
        )
        sizes = {"seq_len": task.seq_len, "vocab_size": task.vocab_size}
        found[name] = tmp_path_factory.mktemp("models") / name
        found[name].mkdir()
        model = build_model(ModelConfig.of(arch, num_puzzle_identifiers=1, **sizes))
        save_model(found[name], model)
    return found


def test_a_large_board_on_a_phone(visit, untrained):
    with served("--checkpoint", str(untrained["sudoku9x9"])) as (_, address):
        page = visit(address, viewport={"width": 375, "height": 800}, has_touch=True)
        page.locator("summary").click()
        width = "document.documentElement.scrollWidth"
        assert page.evaluate(width) == 375
        page.locator("[role=gridcell]").nth(2).tap()
        page.get_by_role("button", name="8", exact=True).tap()
        expect(page.locator("#text")).to_have_value(re.compile(r"^\.\.8\.9"))
        expect(page.locator("#level")).to_have_value("hardest")
        expect(page.locator("#legend li")).to_have_text([*MARKS, "how sure of a cell"])
        box = page.locator("[role=gridcell]").nth(80).bounding_box()
        assert box["width"] >= 30
        assert box["x"] + box["width"] <= 375
        solve(page)
        assert page.locator("#trajectories button").count() == 16
        assert page.evaluate(width) == 375
        page.get_by_label("Attempts", exact=True).fill("256")
        page.get_by_role("button", name="Solve", exact=True).click()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#status")).to_have_text("Stopped.")


def test_a_maze_is_drawn(visit, untrained):
    with served("--checkpoint", str(untrained["maze7x7"])) as (_, address):
        page = visit(address, viewport={"width": 1000, "height": 800})
        expect(page.locator("#status")).to_have_text("Press Solve.")
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#text")).to_have_value(re.compile(r"^S\.{6}\n(\.{7}\n){5}\.{6}G$"))
        assert "how sure of a cell" not in page.locator("#legend").inner_text()
        cells = page.locator("[role=gridcell]")
        cells.nth(8).hover()
        page.mouse.down()
        end = cells.nth(10).bounding_box()
        page.mouse.move(end["x"] + 9, end["y"] + 9, steps=20)
        page.mouse.up()
        expect(page.locator("#text")).to_have_value(re.compile(r"^S\.{6}\n\.###"))
        page.get_by_role("button", name="goal").click()
        cells.nth(3).click()
        expect(page.locator("#text")).to_have_value(re.compile(r"^S\.\.G\.\.\.\n\.###[.\n]+$"))
        solve(page)
        assert len(set(symbols(page))) > 1


def test_a_smaller_maze_has_a_smaller_board(visit, untrained):
    with served("--checkpoint", str(untrained["maze7x7"])) as (_, address):
        page = visit(address)
        expect(page.locator("#status")).to_have_text("Press Solve.")
        page.evaluate(PASTE, "S...#\n....#\n....#\n...G#")
        cells = page.locator("[role=gridcell]")
        expect(cells).to_have_count(20)
        expect(page.locator("#board")).to_have_class(re.compile("painted"))
        page.get_by_role("button", name="wall").click()
        cells.nth(6).click()
        expect(page.locator("#text")).to_have_value("S...#\n.#..#\n....#\n...G#")
        solve(page)
        expect(cells).to_have_count(20)
        page.get_by_role("button", name="Clear").click()
        expect(cells).to_have_count(49)
        expect(page.locator("#board")).to_have_class(re.compile("painted"))


def test_an_answer_that_comes_late_changes_nothing(visit, address):
    """Leaving a state ends its request: a new puzzle, a solution, an entry."""
    page = visit(address)
    text, board, held = page.locator("#text"), page.locator("#board"), []
    page.route("**/generate", lambda route: held.append(route))
    with page.expect_request("**/generate"):
        page.get_by_role("button", name="New puzzle").click()
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Clear").click()
    expect(text).to_have_value("." * 16)
    page.route("**/solve", lambda route: held.append(route))
    with page.expect_request("**/solve"):
        page.get_by_role("button", name="Solve", exact=True).click()
    page.route("**/entry", lambda route: held.append(route))
    with page.expect_event("requestfailed"):
        page.evaluate(PASTE, PUZZLE)
    page.locator("[role=gridcell]").nth(0).press("3")
    expect(text).to_have_value(PUZZLE)
    expect(board).to_have_attribute("aria-busy", "true")
    assert symbols(page) == "." * 16
    held[-1].continue_()
    expect(page.locator("#status")).to_have_text("Press Solve.")
    assert symbols(page) == PUZZLE
    page.unroute("**/entry")
    page.locator("[role=gridcell]").nth(0).press("4")
    expect(text).to_have_value("4" + PUZZLE[1:])
    page.reload()
    expect(text).to_have_value("4" + PUZZLE[1:])
    expect(page.get_by_role("button", name="Solve", exact=True)).to_be_enabled()


def test_a_server_that_is_gone(visit, address):
    page = visit(address)
    page.route("**/solve", lambda route: route.abort())
    page.get_by_role("button", name="Solve", exact=True).click()
    expect(page.locator("#status.bad")).to_have_text(GONE)
    expect(page.get_by_role("button", name="Solve", exact=True)).to_be_enabled()
    page.route("**/entry", lambda route: route.abort())
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#status.bad")).to_have_text(GONE)
    page.unroute("**/entry")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status")).to_have_text("Press Solve.")
    assert symbols(page) == "." * 16


def test_the_models_come_late_or_not_at_all(browser, address):
    """Until the server has said what models there are, nothing can be done, and nothing breaks."""
    context = browser.new_context()
    page, held, errors = context.new_page(), [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route("**/models", lambda route: held.append(route))
    with page.expect_request("**/models"):
        page.goto(address)
    status, button = page.locator("#status"), page.locator("#solve")
    expect(status).to_have_text("Reading the puzzle…")
    expect(button).to_be_disabled()
    for name in ("New puzzle", "Clear"):
        page.get_by_role("button", name=name).click()
    page.locator("#text").fill("1...")
    page.evaluate(PASTE, PUZZLE)
    held.pop().abort()
    expect(page.locator("#status.bad")).to_have_text(GONE)
    page.unroute("**/models")
    button.click()  # Try again
    expect(status).to_have_text("Press Solve.")
    assert symbols(page) == PUZZLE
    solve(page)
    assert symbols(page) == ANSWER
    assert errors == []
    context.close()


@pytest.mark.parametrize("path", ["entry", "generate", "solve"])
def test_each_request_may_be_slow_or_lost(visit, address, path):
    """Whatever is pressed meanwhile, the page ends with a puzzle that can be solved."""
    page = visit(address)
    begin = {"entry": "Clear", "generate": "New puzzle", "solve": "Solve"}[path]
    for others in (["Clear"], ["New puzzle"], ["Clear", "New puzzle"]):
        for lost in (False, True):
            held = hold(page, path)
            with page.expect_request(f"**/{path}"):
                page.get_by_role("button", name=begin, exact=True).click()
            for name in others:
                page.get_by_role("button", name=name).click()
            if held:
                held[0].abort() if lost else held[0].continue_()
            expect(page.locator("#status")).to_have_text("Press Solve.")
            assert symbols(page) == re.sub(r"[^.\d]", "", page.locator("#text").input_value())
            solve(page)
            assert page.locator("#status.right").count() == 1


def test_the_pointer_rests_where_a_board_comes(visit, address):
    """`visit` fails the test for an error of JavaScript."""
    page = visit(address)
    page.locator("[role=gridcell]").nth(5).hover()
    page.route("**/entry", lambda route: None)
    page.get_by_label("Model").evaluate(
        "(list) => { list.value = 'arithmetic'; list.dispatchEvent(new Event('change')); }"
    )
    expect(page.locator("[role=gridcell]")).to_have_count(12)
    page.locator("[role=gridcell]").nth(5).hover()
    page.locator("[role=gridcell]").nth(4).press("7")
    expect(page.locator("#text")).to_have_value("123+321=")


def test_words_for_a_maze(visit, tmp_path):
    """Its legend and its cells speak of a path."""
    maze = "\n".join(["S..." + 6 * ".", *9 * [10 * "."]])[:-1] + "G"
    words = ["--checkpoint", "maze-10x10", "--halt-threshold", "none", "--trajectories", "1"]
    main(["solve", maze, *words, "--save", str(tmp_path / "out.html")])
    page = visit(f"file://{tmp_path / 'out.html'}")
    words = ["path", "new", "no longer path", "breaks a rule"]
    expect(page.locator("#legend li")).to_have_text(words)
    page.locator("#step").fill("4")
    path = page.locator("[role=gridcell][aria-label*=': o, path, confidence']")
    assert path.count() > 0


def test_a_saved_film(visit, tmp_path, capsys):
    """The page of ``trm solve --save`` draws its board with the same code."""
    words = ["--checkpoint", "sudoku-4x4", "--halt-threshold", "none", "--trajectories", "1"]
    assert main(["solve", PUZZLE, *words, "--save", str(tmp_path / "out.html")]) == 0
    page = visit(f"file://{tmp_path / 'out.html'}", viewport={"width": 375, "height": 800})
    assert symbols(page) == PUZZLE
    page.keyboard.press("ArrowRight")
    assert symbols(page) == ANSWER
    expect(page.locator("#cell")).to_have_text(re.compile("^Point at a cell"))
    page.locator("[role=gridcell]").first.focus()
    page.keyboard.press("ArrowRight")  # to another cell, not another step
    expect(page.locator("#cell")).to_have_text(re.compile(r"^Row 1, column 2: 3, new, confidence"))
    expect(page.locator("#state")).to_have_text(re.compile("^Step 1 of 8"))
    page.locator("#step").fill("7")
    page.get_by_role("button", name="Play").click()
    assert page.locator("#play").inner_text() == "Pause"
    expect(page.locator("#state")).to_have_text(re.compile("^Step 8 of 8.*rules satisfied$"))
    expect(page.locator("#play")).to_have_text("Play")
    page.get_by_role("button", name="Play").click()  # at the end it begins again
    expect(page.locator("#state")).to_have_text("The question")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
