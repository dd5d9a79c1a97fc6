"""The server of ``trm demo``, without a browser: what it answers, refuses, streams and cancels."""

import contextlib
import errno
import http.client
import json
import os
import queue
import re
import signal
import socket
import threading
import time
from pathlib import Path
from socketserver import ThreadingTCPServer
from urllib.parse import urlsplit

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import served

from trm_mlx import InputError, SearchConfig, Solver, tasks
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.demo import jobs, schemas
from trm_mlx.demo.jobs import Full, Job, JobQueue
from trm_mlx.demo.registry import ModelEntry, ModelRegistry
from trm_mlx.demo.schemas import read_entry, read_generate, read_solve
from trm_mlx.demo.server import Handler, Server
from trm_mlx.models import checkpoint_files
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model
from trm_mlx.solve.questions import bundled_solvers
from trm_mlx.solve.search import DEFAULT_SEARCH
from trm_mlx.solve.solver import HALT_THRESHOLD
from trm_mlx.tasks.arc import ARC

CHECKOUT = Path(__file__).resolve().parents[1]
PUZZLE = "1... .... .... ...4"
NAMES = {"sudoku4x4": "four", "sudoku9x9": "nine", "maze7x7": "maze", "addition2": "sums"}


def save_untrained(folder, task, steps=3):
    arch = arch_config(
        "trm", hidden_size=8, num_heads=1, L_layers=1, H_cycles=1, L_cycles=1, puzzle_emb_ndim=0,
        halt_max_steps=steps,
    )  # fmt: skip
    sizes = {"seq_len": task.seq_len, "vocab_size": task.vocab_size, "num_puzzle_identifiers": 1}
    mx.random.seed(0)
    model = build_model(ModelConfig.of(arch, **sizes))
    model.q_head.weight = mx.random.normal(model.q_head.weight.shape)
    folder.mkdir(parents=True)
    save_model(folder, model)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained models in the place of the bundled ones."""
    folder = tmp_path_factory.mktemp("pretrained")
    for task, name in NAMES.items():
        save_untrained(folder / name, tasks.get(task))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_files, "PRETRAINED", folder)
        return ModelRegistry(None)


class Client:
    """Requests to a server."""

    def __init__(self, server):
        self.server, self.port = server, server.server_address[1]

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)

    def ask(self, method, path, body=None, headers=()):
        """Status, headers and body."""
        connection = self.connect()
        headers = {"Content-Type": "application/json", **dict(headers)}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content

    def post(self, path, body, **headers):
        """Status and values of a POST; ``body`` is bytes or values."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        status, _, content = self.ask("POST", path, body, headers)
        return status, json.loads(content)

    def start(self, **body):
        """Send a wish to solve; its connection."""
        connection = self.connect()
        connection.request("POST", "/solve", json.dumps(body), {"Content-Type": "application/json"})
        return connection

    def work(self):
        """Do the next job on this thread, as the main one of ``trm demo`` does."""
        self.server.jobs.take().run()

    def raw(self, data):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


@pytest.fixture
def client(models):
    with Server(models, max_waiting=2) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Client(running)
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_the_server_waits_while_it_has_no_room_for_a_connection(client, monkeypatch, number):
    tries = []

    def refused(server):
        tries.append(server)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched, contextlib.closing(client.connect()) as connection:
        patched.setattr(ThreadingTCPServer, "get_request", refused)
        connection.request("GET", "/models")
        time.sleep(0.3)
    assert 1 <= len(tries) <= 3
    assert client.ask("GET", "/style.css")[0] == 200


def events(connection):
    return [json.loads(line) for line in connection.getresponse()]


# Pages and puzzles


def test_pages(client):
    for path, kind in (("/", "html"), ("/app.js", "javascript"), ("/style.css", "css")):
        status, headers, content = client.ask("GET", path)
        assert status == 200
        assert kind in headers["Content-Type"]
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert not re.search(rb"https?://(?!www\.w3\.org)", content), "it works offline"
        assert not re.search(rb"<[^>]* (style|on\w+)=|<style|<script>", content), "forbidden by it"
    paths = re.findall(r'(?:src|href)="([^"]+)"', client.ask("GET", "/")[2].decode())
    seen = set()
    while paths:
        path = paths.pop()
        status, _, content = client.ask("GET", path)
        assert status == 200, path
        seen.add(path)
        imports = re.findall(r'^import .* from "\.(/[^"]+)"', content.decode(), re.M)
        paths += [path for path in imports if path not in seen]
    assert {"/player.js", "/entry.js", "/watch.js"} <= seen


def test_models(client):
    models = json.loads(client.ask("GET", "/models")[2])
    assert [model["name"] for model in models["models"]] == ["nine", "four", "sums", "maze"]
    layout = {"rows": 4, "columns": 4, "box": [2, 2], "painted": False, "hidden": ""}
    layout["filled"] = "filled"
    assert models["models"][1]["layout"] == layout
    assert models["defaults"]["trajectories"] == DEFAULT_SEARCH.trajectories
    for model in models["models"]:
        for text in filter(None, (model["blank"], model["example"])):
            _, entry = client.post("/entry", {"model": model["name"], "text": text})
            assert entry["problem"] is None
            assert len(entry["cells"]) == len(entry["symbols"])


def test_a_wrong_cell_beyond_the_board():
    """The text is of a larger board than the model's."""
    board = "\n".join([*["#" * 10] * 15, "#" * 26])
    typed = ModelRegistry(None).entry("maze-10x10").read_board(board)
    assert len(typed.cells) == 100
    assert "row 16 has 26 cells, row 1 has 10" in typed.problem


def test_bundled_models_can_be_drawn():
    assert next(iter(ModelRegistry(None).entries)).startswith("sudoku")
    assert set(ModelRegistry(None).entries) == set(bundled_solvers())


def test_examples_have_one_solution():
    for name in ("sudoku4x4", "sudoku6x6", "sudoku9x9"):
        task = tasks.get(name)
        text = task.board_input().example
        assert task.solve(task.parse(text)[None])[0].tolist() == [1], name


@pytest.mark.parametrize(
    ("name", "text", "wrong", "problem"),
    [
        ("sudoku4x4", "11..2.1..3.....2", [0, 1], "r1c1 and r1c2 both hold 1"),
        ("sudoku4x4", "1... .a.. .... ...é", [5, 15], "r2c2 holds 'a'"),
        ("sudoku4x4", "1... .7.. .... ...4", [5], "digit 7 at r2c2"),
        ("sudoku4x4", "1... ....", [8], "8 cells where"),
        ("sudoku4x4", "", [0], "0 cells where"),
        ("sudoku4x4", PUZZLE + "1", [15], "17 cells where"),
        ("sudoku9x9", "5" + "." * 79 + "é", [80], "r9c9 holds 'é'"),
        ("maze5x5", "S...." + "." * 20, [], "0 cells hold G"),
        ("maze5x5", "S.S.." + "." * 19 + "G", [0, 2], "2 cells hold S"),
        ("maze5x5", "So.oG" + "." * 20, [1, 3], "o at r1c2 marks an answer"),
        ("maze5x5", "......\n" * 4 + "S....G", [], "looks like a 5x6 maze"),
        ("maze5x5", "S....\n....G", [10], "10 cells in 2 rows"),
        ("maze5x5", "S...." * 6, [24], "30 cells in 1 rows"),
        ("maze5x5", "S#...\n#....\n.....\n.....\n....G", [0, 24], "no way from S to G"),
        ("maze5x5", "S....\n....\n.....\n.....\n....G", [9], "row 2 has 4 cells"),
        ("maze5x5", "S..é." + "." * 19 + "G", [3], "character 'é'"),
        ("addition2", "1x+3", [1], "is no addition"),
        ("addition2", "123+4=", [], "more than 2 digits"),
    ],
)
def test_what_is_wrong_is_shown_where_it_is(tmp_path, name, text, wrong, problem):
    task = tasks.get(name)
    mine = str(save_untrained(tmp_path / "mine", task))
    entry = ModelRegistry(mine).entry(mine).read_board(text)
    assert entry.wrong == wrong
    assert problem in entry.problem
    assert len(entry.cells) == len(entry.symbols) == task.seq_len
    assert [n for n, (_, mark, _, _) in enumerate(entry.cells) if mark == "wrong"] == wrong


@pytest.mark.parametrize(
    ("text", "wrong", "problem"),
    [
        ("S...\n....\n....\n...G", [], None),
        ("S...\n....\n....\n....", [], "0 cells hold G"),
        ("S...\n....\n...é\n...G", [11], "character 'é' at r3c4"),
        ("S...\n....\n..##\n..#G", [0, 15], "no way from S to G"),
    ],
)
def test_a_smaller_maze_is_shown_without_the_walls_around_it(text, wrong, problem):
    task = tasks.get("maze5x5")
    entry = ModelEntry("mine", Path(), None, task, task.board_style([]), task.board_input())
    typed = entry.read_board(text)
    assert (typed.layout["rows"], typed.layout["columns"]) == (4, 4)
    assert "".join(typed.symbols) == text.replace("\n", "")
    assert len(typed.cells) == 16
    assert typed.wrong == wrong
    assert typed.problem is None if problem is None else problem in typed.problem


def test_a_smaller_maze_is_solved_without_the_walls_around_it(client):
    text = "S...#\n....#\n....#\n...G#"
    _, answer = client.post("/entry", {"model": "maze", "text": text})
    assert (answer["layout"]["rows"], answer["layout"]["columns"]) == (4, 5)
    connection = client.start(model="maze", text=text, trajectories=2)
    client.work()
    events = [json.loads(line) for line in connection.getresponse().read().splitlines()]
    connection.close()
    assert {len(event["cells"]) for event in events if event["kind"] == "step"} == {20}


def test_a_puzzle_is_made(client):
    answers = queue.Queue()
    ask = threading.Thread(target=lambda: answers.put(client.post("/generate", {"model": "sums"})))
    ask.start()
    client.work()
    status, made = answers.get(timeout=5)
    ask.join()
    assert status == 200
    assert tasks.get("addition2").parse(made["text"]).size == 9
    status, answer = client.post("/generate", {"model": "sums", "level": "hard"})
    assert (status, answer["error"]) == (400, "no level 'hard'; those of sums: none")


# Solving


def test_steps_stream_in_order(client):
    connection = client.start(
        model="four", text=PUZZLE, trajectories=2, halt_threshold=None, select="residual", seed=3
    )
    client.work()
    queued, *steps, end = events(connection)
    connection.close()
    assert queued == {"kind": "queued", "ahead": 0}
    assert [(s["trajectory"], s["step"]) for s in steps] == [
        (t, s) for t in (0, 1) for s in (1, 2, 3)
    ]
    assert all(len(step["cells"]) == 16 for step in steps)
    assert end["kind"] == "end"
    assert (end["trajectories"], end["evaluations"], end["steps"]) == (2, 6, 3)
    assert end["solved"] is False
    assert end["trajectory"] in (0, 1)


def test_steps_come_while_the_next_are_computed(client, monkeypatch):
    """The first line of a step is read before the job goes on."""
    seen = threading.Event()

    def two_steps(registry, request, question, emit):
        emit({"kind": "step", "number": 1})
        assert seen.wait(5)
        emit({"kind": "step", "number": 2})

    monkeypatch.setattr(jobs, "solve", two_steps)
    connection = client.start(model="four", text=PUZZLE)
    numbers = []

    def read():
        for line in connection.getresponse():
            numbers.append(json.loads(line).get("number"))
            if numbers[-1] == 1:
                seen.set()

    reader = threading.Thread(target=read)
    reader.start()
    client.work()
    reader.join(5)
    connection.close()
    assert numbers == [None, 1, 2]


def test_the_chosen_trajectory_is_named(models):
    emitted, puzzle = [], tasks.read_puzzle(PUZZLE, tasks.get("sudoku4x4"))
    body = {"model": "four", "text": PUZZLE, "trajectories": 4, "select": "q"}
    body["halt_threshold"] = None
    request = read_solve(json.dumps(body).encode())
    jobs.solve(models, request, puzzle, emitted.append)
    entry = models.entry("four")
    solver = Solver(
        models.model(entry), halt_threshold=None, search=request.search, task=entry.task
    )
    (solution,) = solver.solve(entry.task.encode(puzzle.values)[None])
    assert emitted[-1]["trajectory"] == solution.trajectory > 0


def test_a_queue_that_is_full(client):
    waiting = [client.start(model="four", text=PUZZLE) for _ in range(2)]
    lines = [json.loads(connection.getresponse().readline()) for connection in waiting]
    assert sorted(line["ahead"] for line in lines) == [0, 1]
    status, answer = client.post("/solve", {"model": "four", "text": PUZZLE})
    assert status == 503
    assert answer["error"] == "other puzzles are waiting already; try again when one is solved"
    for connection in waiting:
        connection.close()


def wait_until(condition):
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("waited for 5 seconds")


def test_a_client_that_goes_is_forgotten(client):
    connection = client.start(model="four", text=PUZZLE)
    answer = connection.getresponse()
    answer.readline()
    waiting = client.server.jobs
    assert len(waiting) == 1
    answer.close()
    connection.close()
    wait_until(lambda: not len(waiting))


def test_a_job_under_way_ends_after_its_step(client, monkeypatch):
    started, steps = [], []

    def endless(registry, request, question, emit):
        while len(steps) < 1000:
            emit({"kind": "step"})
            steps.append(1)
            if len(steps) == 3:
                answer.close()
                connection.close()
                wait_until(lambda: started[0]._cancelled.is_set())

    monkeypatch.setattr(jobs, "solve", endless)
    connection = client.start(model="four", text=PUZZLE)
    answer = connection.getresponse()
    wait_until(lambda: len(client.server.jobs))
    started.append(client.server.jobs._jobs[0])
    client.work()
    assert len(steps) == 3


def test_cancelling_ends_a_search(models):
    """What `Solver.solve` does with a watch that raises."""
    request = read_solve(json.dumps({"model": "four", "text": PUZZLE}).encode())
    puzzle = tasks.read_puzzle(PUZZLE, tasks.get("sudoku4x4"))
    job = Job(lambda emit: jobs.solve(models, request, puzzle, lambda e: (emit(e), job.cancel())))
    job.run()
    assert job.events.get()["step"] == 1
    assert job.events.get() is None


def test_the_queue():
    waiting, jobs = JobQueue(2), [Job(lambda emit: emit({"kind": "done"})) for _ in range(3)]
    assert [waiting.join(job) for job in jobs[:2]] == [0, 1]
    with pytest.raises(Full):
        waiting.join(jobs[2])
    waiting.leave(jobs[0])
    assert waiting.join(jobs[2]) == 1
    threading.Thread(target=waiting.serve, daemon=True).start()
    for job in jobs[1:]:
        assert job.events.get(timeout=5) == {"kind": "done"}
        assert job.events.get(timeout=5) is None
    assert jobs[0].events.empty()


def test_what_only_the_model_can_refuse_is_an_event(client, tmp_path):
    weights = client.server.registry.entry("nine").folder / "model.safetensors"
    weights.rename(tmp_path / "gone")
    connection = client.start(model="nine", text="." * 81)
    client.work()
    (tmp_path / "gone").rename(weights)
    assert [event["kind"] for event in events(connection)] == ["queued", "error"]
    connection.close()


def test_a_job_without_memory_is_an_event_and_the_next_one_runs():
    def fail(_emit):
        raise RuntimeError("cudaMalloc(&data, size) failed: out of memory")

    job, after = Job(fail), Job(lambda emit: emit({"kind": "done"}))
    job.run()
    after.run()
    event = job.events.get(timeout=5)
    assert event["kind"] == "error"
    assert event["sentence"].startswith("out of memory: work on fewer rows at once")
    assert job.events.get(timeout=5) is None
    assert after.events.get(timeout=5) == {"kind": "done"}


# Refusals


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 20000, "is not JSON"),
        (b"9" * 5000, "is not JSON"),
        (b"[1]", "send one JSON object"),
        ({}, "model null: must be given, as text"),
        ({"model": "four", "text": 5}, "text 5: must be given"),
        ({"model": "no", "text": PUZZLE}, "no model 'no'; choose one of nine, four"),
        ({"model": "../four", "text": PUZZLE}, "no model '../four'"),
        ({"model": "four", "text": "11.............."}, "both hold 1"),
        ({"model": "four", "text": PUZZLE, "steps": 3}, 'unknown option "steps"; known are'),
        ({"model": "four", "text": PUZZLE, "trajectories": 0}, "a whole number from 1 to 256"),
        ({"model": "four", "text": PUZZLE, "trajectories": True}, "trajectories true: must be"),
        ({"model": "four", "text": PUZZLE, "trajectories": 10**30}, "a whole number from 1 to"),
        ({"model": "four", "text": PUZZLE, "max_steps": 257}, "max_steps 257: must be"),
        ({"model": "four", "text": PUZZLE, "max_steps": 256}, "more than 1024 in all"),
        ({"model": "four", "text": PUZZLE, "restarts": 1}, "restarts 1: choose one of true"),
        ({"model": "four", "text": PUZZLE, "noise": -1}, "noise -1: must be a number from 0 to 10"),
        ({"model": "four", "text": PUZZLE, "select": "best"}, 'select "best": choose one of "q"'),
        ({"model": "four", "text": PUZZLE, "halt_threshold": 2}, "must be a number from 0 to 1"),
        (b'{"model": "four", "text": ".", "noise": NaN}', "NaN is no number of JSON"),
        (b'{"model": "four", "text": ".", "noise": 1e999}', "must be a number from 0 to 10"),
        ({"model": "four", "text": PUZZLE, "trajectories": 1}, "set trajectories to at least 2"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_bodies(client, body, sentence):
    status, answer = client.post("/solve", body)
    assert status == 400
    assert sentence in answer["error"]
    assert "\n" not in answer["error"]
    assert not len(client.server.jobs)


def test_puzzles_too_long(client):
    status, answer = client.post("/entry", {"model": "four", "text": "." * 1000})
    assert status == 400
    assert "send one puzzle" in answer["error"]


def test_the_answer_reaches_a_client_that_is_still_sending(client):
    with socket.create_connection(("127.0.0.1", client.port), timeout=5) as connection:
        head = f"POST /entry HTTP/1.0\r\nHost: 127.0.0.1:{client.port}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 200000\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(20):
            connection.sendall(b" " * 10_000)
            threading.Event().wait(0.005)
        assert b" 413 " in connection.recv(65536)


def test_bodies_too_large(client):
    for size in (schemas.MAX_BODY + 1, 500_000):
        status, answer = client.post("/entry", b" " * size)
        assert status == 413
        assert answer["error"] == "send at most 65536 bytes"
    assert client.post("/entry", b" " * schemas.MAX_BODY)[0] == 400
    head = f"POST /entry HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\n"
    head += "Content-Type: application/json\r\n"
    assert " 413 " in client.raw(f"{head}Content-Length: {'9' * 40}\r\n\r\n".encode())
    assert " 400 " in client.raw(f"{head}Content-Length: -1\r\n\r\n".encode())
    assert " 411 " in client.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/../pyproject.toml", 404),
        ("GET", "/page/app.js", 404),
        ("POST", "/nothing", 404),
        ("GET", "/solve", 405),
        ("POST", "/", 405),
        ("PUT", "/entry", 405),
        ("OPTIONS", "/solve", 405),
        ("BREW", "/", 405),
    ],
)
def test_wrong_places(client, method, path, status):
    found, headers, content = client.ask(method, path, b"{}")
    assert found == status
    assert json.loads(content)["error"]
    assert headers["Content-Security-Policy"]


def test_other_sites_are_refused(client):
    body = {"model": "four", "text": PUZZLE}
    here = f"http://127.0.0.1:{client.port}"
    assert client.post("/entry", body, Origin=here)[0] == 200
    assert client.post("/entry", body, Host=f"localhost:{client.port}")[0] == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{client.port}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{client.port}"},
        {"Host": "127.0.0.1:1"},
    ):
        assert client.post("/entry", body, **headers)[0] == 403, headers
    assert client.ask("GET", "/models", headers={"Host": "evil.example"})[0] == 403
    assert client.post("/entry", body, Content_Type="text/plain")[0] == 415
    assert " 403 " in client.raw(b"GET / HTTP/1.0\r\n\r\n")


def test_what_is_no_http(client):
    assert "Bad request" in client.raw(b"\x16\x03\x01\r\n\r\n")
    assert " 414 " in client.raw(b"GET /" + b"a" * 70_000 + b" HTTP/1.0\r\n\r\n")
    assert client.ask("GET", "/")[0] == 200


def test_a_client_that_stalls(client, monkeypatch):
    monkeypatch.setattr(Handler, "timeout", 0.05)
    head = f"POST /entry HTTP/1.0\r\nHost: 127.0.0.1:{client.port}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
    assert client.raw(head.encode()) == ""
    assert client.ask("GET", "/models")[0] == 200


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
keys = st.sampled_from(["model", "text", *schemas.OPTIONS]) | st.text()


@settings(max_examples=100, deadline=None)
@given(st.binary() | st.dictionaries(keys, values).map(lambda d: json.dumps(d).encode()))
def test_any_body_is_read_or_refused(body):
    for read in (read_entry, read_generate, read_solve):
        with contextlib.suppress(InputError):
            read(body)


def test_options_left_out_are_those_of_the_command():
    request = read_solve(b'{"model": "four", "text": ""}')
    assert request == ("four", "", None, HALT_THRESHOLD, DEFAULT_SEARCH)
    request = read_solve(b'{"model": "four", "text": "", "seed": 4, "halt_threshold": null}')
    assert request.halt_threshold is None
    assert request.search == SearchConfig(
        trajectories=16, restarts=True, symmetries=True, select="rule", seed=4
    )


# The command


def test_the_command_runs_until_it_is_interrupted(tmp_path):
    folder = save_untrained(tmp_path / "mine", tasks.get("sudoku9x9"))
    with served("--checkpoint", str(folder)) as (process, address):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
        connection.request("GET", "/models")
        models = json.load(connection.getresponse())["models"]
        assert models[0]["name"] == str(folder)
        body = {"model": str(folder), "text": "." * 81, "trajectories": 2}
        connection.request("POST", "/solve", json.dumps(body), {"Content-Type": "application/json"})
        assert events(connection)[-1]["kind"] == "end"
        connection.close()
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output == ""
    assert error == "interrupted\n"


def test_the_command_serves_where_warming_up_finds_no_descriptor(monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    def served(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("trm_mlx.commands.demo.warm_up", full)
    monkeypatch.setattr(JobQueue, "serve", served)
    assert main(["demo", "--no-browser", "--port", "0"]) == 130
    assert "warning: the first puzzle will wait for its model: " in capsys.readouterr().err


def test_refusals_of_the_command(tmp_path, capsys):
    def refused(*words):
        assert main(["demo", "--no-browser", *map(str, words)]) == 2
        return capsys.readouterr().err

    assert "--port 70000: must lie between 0 and 65535" in refused("--port", 70000)
    assert "does not exist" in refused("--checkpoint", tmp_path / "no")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on port {port}: Address already in use" in refused("--port", port)
    folder = save_untrained(tmp_path / "arc", ARC())
    assert "ARC, which has no rule" in refused("--checkpoint", folder)
