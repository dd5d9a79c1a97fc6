"""Messages stay readable lines however long the value is that they complain about."""

import json

import pytest

from trm_mlx import InputError
from trm_mlx.cli import main
from trm_mlx.config_io import load_config
from trm_mlx.evaluate.arc import _read_tests

LONG, NUMBER = "a" * 3000, "9" * 3000
RUN = ("experiment=sudoku4x4", "data_paths=[generate:sudoku4x4]")
LINE = 420  # characters that are room enough for the value's start, the place and the remedy


def test_short_words_are_whole():
    message = f"a.yaml: {'a' * 200}: choose one of trm, hrm"
    assert str(InputError(message)) == message


def test_long_words_tell_their_start_and_their_length():
    message = str(InputError(f"a.yaml: {'b' * 12345}: choose one"))
    assert message == f"a.yaml: {'b' * 60}... (12,345 characters): choose one"


def test_long_values_of_short_words_keep_the_place_and_the_remedy():
    message = str(InputError(f"lr={[0] * 1000}: write a number"))
    assert message.startswith("lr=[0, 0, 0")
    assert message.endswith("0, 0]: write a number")
    assert "... (2,679 characters) ..." in message


def refusal(capsys, words):
    status = main(list(words))
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert len(line) < LINE
    return line


@pytest.mark.parametrize(
    "words",
    [
        (LONG,),
        (f"{LONG} {LONG}",),
        ("solve", f"--{LONG}"),
        ("solve", "--max-steps", LONG),
        ("solve", "--select", LONG, "1"),
        ("solve", "--checkpoint", "arithmetic", f"{LONG}+1"),
        ("solve", "--checkpoint", "arithmetic", f"{NUMBER}+1"),
        ("train", LONG),
        ("train", f"{LONG}=1"),
        ("train", f"arch.{LONG}=1"),
        ("train", f"arch.L_cycles.{LONG}=1"),
        ("train", f"arch={LONG}"),
        ("train", f"arch=[{LONG}]"),
        ("train", f"arch.name={LONG}"),
        ("train", f"arch.hidden_size={'9' * 300}"),
        ("train", f"experiment={LONG}"),
        ("train", f"lr={LONG}"),
        ("train", f"lr=[{LONG}]"),
        ("train", f"lr={{{LONG}: [1]}}"),
        ("train", f"lr={{{LONG}"),
        ("train", f"epochs=-{NUMBER}"),
        ("train", f"optimizer={LONG}"),
        ("train", f"evaluators=[{LONG}]"),
        ("train", f"data_paths=[generate:{LONG}]"),
        ("train", f"data_paths=[generate:{LONG}:NAME]"),
        ("train", *RUN, f"keep_best={LONG}"),
        ("train", *RUN, f"eval_save_outputs=[{LONG}]"),
        ("build", "sudoku", "--generate", NUMBER, "--output-dir", "out"),
        ("build", "arithmetic", "--n-digits", NUMBER, "--output-dir", "out"),
        ("convert", "weights", "out", LONG),
        ("convert", "weights", "out", f"num_heads={LONG}"),
        ("plot", "run", "--output", LONG),
    ],
    ids=lambda words: " ".join(word[:24] for word in words),
)
def test_words_of_a_command_line(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert "characters)" in refusal(capsys, words)


@pytest.mark.parametrize(
    "words",
    [
        ("solve", "--checkpoint", LONG, "1"),
        ("solve", "--checkpoint", "sudoku-4x4", "--data", LONG),
        ("solve", "--file", LONG),
        ("solve", "--save", f"{LONG}.png", "1"),
        ("train", f"data_paths=[{LONG}]"),
        ("train", f"resume={LONG}"),
        ("train", *RUN, f"run_name={LONG}"),
        ("train", *RUN, f"checkpoint_path={LONG}"),
        ("build", "sudoku", "--input", LONG, "--output-dir", "out"),
        ("convert", LONG, "out"),
        ("export", LONG, "out"),
        ("plot", LONG),
    ],
    ids=lambda words: " ".join(word[:24] for word in words),
)
def test_paths_that_the_system_refuses(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    line = refusal(capsys, words)
    assert "characters)" in line
    assert line.endswith("File name too long")


@pytest.mark.parametrize("rating", [LONG, NUMBER * 2], ids=["word", "number"])
def test_cells_of_a_table(tmp_path, capsys, rating):
    table = tmp_path / "table.csv"
    row = f"a,1.3434122143432.,1234341221434321,{rating}"
    table.write_text(f"source,question,answer,rating\n{row}\n")
    words = ["build", "sudoku", "--input", str(table), "--output-dir", str(tmp_path / "out")]
    assert "characters) is not a number" in refusal(capsys, words)


def test_names_of_puzzles(tmp_path, capsys):
    pair = {"input": [[0]], "output": [[NUMBER]]}
    (tmp_path / "x_t_challenges.json").write_text(
        json.dumps({LONG: {"train": [pair], "test": [pair]}})
    )
    (tmp_path / "x_t_solutions.json").write_text(json.dumps({LONG: [[[1]]]}))
    words = ["build", "arc", "--input-file-prefix", str(tmp_path / "x"), "--subsets", "t"]
    words += ["--test-set-name", "t", "--output-dir", str(tmp_path / "out")]
    assert "characters), train" in refusal(capsys, words)
    (tmp_path / "test_puzzles.json").write_text(json.dumps({LONG: {"test": []}}))
    with pytest.raises(InputError, match=r"puzzle a{60}\.\.\. \(3,000 characters\): has no list"):
        _read_tests(tmp_path / "test_puzzles.json")


@pytest.mark.parametrize("value", ["-0x" + "f" * 5000, "0b" + "1" * 20000, "[0x" + "f" * 4000])
def test_whole_numbers_too_long_to_print(value):
    """Python refuses to write them in decimal, with an exception of its own."""
    with pytest.raises(InputError, match=r"characters\): not a YAML value"):
        load_config([f"epochs={value}", f"seed={value}"])
