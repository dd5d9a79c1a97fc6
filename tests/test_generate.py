"""Puzzles made on the fly: the line between training and test, streams, images, and own tasks."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trm_mlx import tasks
from trm_mlx.cli import main
from trm_mlx.config_io import load_config, train_config
from trm_mlx.data.arrays import IGNORE_LABEL, SplitArrays
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.data.sampler import GeneratedStream
from trm_mlx.data.writer import write_dataset
from trm_mlx.errors import InputError
from trm_mlx.evaluate import RulesEvaluator
from trm_mlx.models.checkpoint_files import read_weights
from trm_mlx.run.trainer import Trainer
from trm_mlx.tasks import Puzzles, Task, registry
from trm_mlx.tasks import holdout as task_split
from trm_mlx.tasks.holdout import draw, draw_distinct, fingerprints, held_out
from trm_mlx.tasks.sudoku import HARDEST
from trm_mlx.train.augment import Augmentation
from trm_mlx.train.batches import open_test, open_train, train_stream

CHECKOUT = Path(__file__).resolve().parents[1]
SMALL = ("sudoku4x4", "maze6x6", "addition2", "multiplication1")
ARCH = {
    "name": "trm",
    "hidden_size": 16,
    "num_heads": 2,
    "H_cycles": 1,
    "L_cycles": 1,
    "L_layers": 1,
    "puzzle_emb_ndim": 0,
    "halt_max_steps": 2,
}


def config(*data_paths, **changes):
    values = {
        "arch": ARCH,
        "data_paths": list(data_paths),
        "global_batch_size": 8,
        "epochs": 4,
        "eval_interval": 2,
        "puzzles_per_epoch": 20,
        "test_puzzles": 6,
        "lr_warmup_steps": 2,
    }
    return train_config({**values, **changes})


def rng(seed=0):
    return np.random.default_rng(seed)


class Few(Task):
    """Three puzzles, in a fixed order of preference."""

    name, seq_len, vocab_size = "few", 2, 9

    def generate(self, count, rng):
        boards = np.repeat(rng.choice(3, count, p=[0.9, 0.09, 0.01])[:, None], 2, axis=1)
        return Puzzles(boards.astype(np.uint8), boards.astype(np.uint8), np.zeros(count, int))


# Which puzzles are held out


@pytest.mark.parametrize("name", SMALL)
def test_no_puzzle_is_on_both_sides(name):
    task = tasks.get(name)
    keys = []
    for testing in (False, True):
        puzzles = draw(task, 300, rng(), testing)
        assert len(puzzles.ratings) == 300
        assert task.check(puzzles.questions, puzzles.answers).all()
        assert (held_out(task, *puzzles[:2]) == testing).all()
        keys.append(set(task.split_keys(*puzzles[:2])))
    assert not keys[0] & keys[1]


@pytest.mark.parametrize("name", ["sudoku9x9", "maze7x7", "addition3", "multiplication2"])
def test_images_fall_on_the_same_side_and_one_in_eight_is_held_out(name):
    task = tasks.get(name)
    questions, answers, _ = task.generate(1500, rng())
    sides = held_out(task, questions, answers)
    assert 0.08 < sides.mean() < 0.17
    if "sudoku" in name:  # too many grids for images to meet; 4x4 is split by its grids
        return
    symmetry = task.sample_symmetry(rng(1), 1500)
    images = symmetry.apply(questions), symmetry.apply(answers)
    assert (held_out(task, *images) == sides).all()


def test_the_line_is_the_same_on_every_machine():
    task = tasks.get("addition3")
    questions = np.stack([task.parse("1+2"), task.parse("2+1"), task.parse("999+0")])
    assert fingerprints(task, questions, questions).tolist() == [
        11868681386100499350,
        11868681386100499350,
        652132643147327047,
    ]


def test_4x4_sudoku_holds_out_whole_grids():
    grids = tasks.get("sudoku4x4").all_grids()
    sides = held_out(tasks.get("sudoku4x4"), grids, grids)
    assert 20 < sides.sum() < 60


def test_distinct_puzzles_up_to_the_last():
    task = Few()
    sides = held_out(task, *task.generate(1, rng())[:2])
    every = np.repeat(np.arange(3, dtype=np.uint8)[:, None], 2, axis=1)
    training = (~held_out(task, every, every)).sum()
    assert not sides.any()
    puzzles = draw_distinct(task, 10, rng())
    assert len(puzzles.ratings) == training, "the rare puzzle was not waited for"
    ticks = []
    draw_distinct(tasks.get("addition3"), 2500, rng(), tick=ticks.append)
    assert sum(ticks) == 2500


def test_a_side_without_puzzles(monkeypatch):
    monkeypatch.setattr(task_split, "PATIENCE", 100)
    monkeypatch.setattr(task_split, "held_out", lambda task, q, a: np.zeros(len(q), bool))
    with pytest.raises(InputError, match=r"few: none of .* puzzles is a held-out one"):
        draw(Few(), 1, rng(), testing=True)


# The stream


def count_of(rows, generator):
    return {"inputs": generator.integers(2**40, size=(rows, 1))}


def take(stream, count):
    pairs = []
    while len(pairs) < count:
        pairs.extend(stream)
    return pairs[:count]


def test_stream_is_cut_into_intervals():
    stream = GeneratedStream(count_of, 10, 4, epochs_per_interval=2, seed=0)
    for interval in range(3):
        positions = [position for _, position in stream]
        assert positions == [
            {"epoch": 2 * interval, "offset": 4},
            {"epoch": 2 * interval, "offset": 8},
            {"epoch": 2 * interval + 1, "offset": 2},
            {"epoch": 2 * interval + 1, "offset": 6},
            {"epoch": 2 * interval + 2, "offset": 0},
        ]
    short = GeneratedStream(count_of, 10, 4, epochs_per_interval=1, seed=0)
    assert [position for _, position in short] == [
        {"epoch": 0, "offset": 4},
        {"epoch": 1, "offset": 0},  # the last two puzzles fill no batch
    ]


@pytest.mark.parametrize("interval", [1, 3])
def test_resuming_anywhere_gives_the_same_batches(interval):
    arguments = (count_of, 10, 4, interval, 17)
    pairs = take(GeneratedStream(*arguments), 12)
    batches = [tuple(batch["inputs"].ravel()) for batch, _ in pairs]
    assert len(set(batches)) == 12
    for number, (_, position) in enumerate(pairs[:-1]):
        stored = json.loads(json.dumps(position))
        resumed = take(GeneratedStream(*arguments, position=stored), 11 - number)
        assert [tuple(b["inputs"].ravel()) for b, _ in resumed] == batches[number + 1 :]
        assert [p for _, p in resumed] == [p for _, p in pairs[number + 1 :]]


def test_stream_errors():
    with pytest.raises(InputError, match="2 epochs of puzzles_per_epoch=3 is less than the batch"):
        GeneratedStream(count_of, 3, 7, 2, 0)
    for position in ({"epoch": 0, "offset": 10}, {"epoch": -1, "offset": 0}, {"step": 3}):
        with pytest.raises(InputError, match=r"data position .* does not fit puzzles_per_epoch=10"):
            GeneratedStream(count_of, 10, 2, 2, 0, position=position)


@pytest.mark.parametrize("name", SMALL)
def test_training_batches_are_solved_training_puzzles(name):
    run, task = config(f"generate:{name}"), tasks.get(name)
    data, test = open_train(run), open_test(run)
    assert data.metadata.task == test.metadata.task == name
    shown, solved = [], []
    for batch, _ in take(train_stream(data, test, run, None), 20):
        assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}
        assert batch["inputs"].shape == (8, task.seq_len)
        shown.append(task.decode(batch["inputs"]))
        solved.append(task.decode(batch["labels"]))
    shown, solved = np.concatenate(shown), np.concatenate(solved)
    assert task.check(shown, solved).all()
    assert not held_out(task, shown, solved).any()
    assert len({board.tobytes() for board in shown}) > 20

    arrays = test.parts[0].arrays
    questions, answers = task.decode(arrays.inputs), task.decode(arrays.labels)
    assert len({board.tobytes() for board in questions}) == len(questions) == 6
    assert held_out(task, questions, answers).all()
    again = open_test(config(f"generate:{name}", seed=9)).parts[0].arrays
    assert (again.inputs == arrays.inputs).all(), "runs are tested on different puzzles"


def test_the_seed_decides():
    runs = [config("generate:addition2", seed=seed) for seed in (1, 1, 2)]
    first, again, other = (
        take(train_stream(open_train(run), open_test(run), run, None), 1)[0][0] for run in runs
    )
    assert (first["inputs"] == again["inputs"]).all()
    assert (first["inputs"] != other["inputs"]).any()


def test_fewer_test_puzzles_than_wished():
    test = open_test(config("generate:multiplication1", test_puzzles=1000))
    assert 5 < test.metadata.total_puzzles < 30


@pytest.mark.parametrize(
    ("data_paths", "changes", "message"),
    [
        (["generate:chess"], {}, "no task 'chess'; choose sudoku4x4"),
        (["generate:"], {}, "no task ''"),
        (["generate:no.such:x"], {}, "no module 'no.such'"),
        (["generate:addition1", "data"], {}, "data_paths mixes generate:addition1 with others"),
        (["generate:addition1"], {"augment": True}, "augment=true with generate:addition1"),
        (["generate:sudoku5x5"], {}, "no Sudoku of size 5"),
    ],
)
def test_sources_that_do_not_work(monkeypatch, data_paths, changes, message):
    monkeypatch.setattr(registry, "_TASKS", {})  # whatever other tests have registered
    with pytest.raises(InputError, match=message):
        open_train(config(*data_paths, **changes))


def test_options():
    words = ["data=generate:sudoku4x4", "puzzles_per_epoch=50"]
    assert load_config(words).data_paths == ("generate:sudoku4x4",)
    with pytest.raises(InputError, match="puzzles_per_epoch=0: must be greater than 0"):
        load_config(["data=x", "puzzles_per_epoch=0"])
    with pytest.raises(InputError, match="test_puzzles=0: must be greater than 0"):
        load_config(["data=x", "test_puzzles=0"])


# Runs


def states_of(run):
    return {
        (file, name): np.array(array)
        for file in ("model", "optimizer", "carry")
        for name, array in read_weights(run / "step_0000010" / f"{file}.safetensors").items()
    }


@pytest.mark.parametrize("cut", [2, 5, 7])
def test_a_generated_run_resumes_exactly(tmp_path, cut):
    whole = Trainer(config("generate:sudoku4x4", checkpoint_path=str(tmp_path / "whole")))
    assert whole.total_steps == 4 * 20 // 8
    whole.fit()
    part = Trainer(config("generate:sudoku4x4", checkpoint_path=str(tmp_path / "cut")))
    taken = 0
    while taken < cut:
        for batch, position in part.stream:
            part.train_step(batch)
            part.progress.position, taken = position, taken + 1
            if taken == cut:
                break
        else:
            part.progress.interval += 1
            part.progress.position = dict(part.stream.position)
    part.save()
    resumed = Trainer(part.config, resume=tmp_path / "cut")
    resumed.fit()
    first, second = states_of(tmp_path / "whole"), states_of(tmp_path / "cut")
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=str(name))


def test_another_epoch_is_another_run(tmp_path):
    run = config("generate:addition1", checkpoint_path=str(tmp_path / "r"))
    Trainer(run).fit()
    longer = config(
        "generate:addition1", checkpoint_path=str(tmp_path / "r"), epochs=6, puzzles_per_epoch=24
    )
    with pytest.raises(InputError, match=r"puzzles_per_epoch=24 cannot resume .* with 20"):
        Trainer(longer, resume=tmp_path / "r")


def test_commands(tmp_path, capsys):
    words = ["train", "data=generate:maze6x6", "evaluators=[rules]", "epochs=2", "eval_interval=1"]
    words += ["puzzles_per_epoch=16", "test_puzzles=6", "global_batch_size=8"]
    words += [f"arch.{key}={value}" for key, value in ARCH.items() if key != "name"]
    assert main([*words, f"checkpoint_path={tmp_path / 'run'}"]) == 0
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"rules/valid_accuracy": ' in log
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--evaluators", "rules", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["all"]["count"] == 6
    assert set(results["rules"]) == {"exact_accuracy", "valid_accuracy", "copying_accuracy"}
    assert main(["eval", str(tmp_path / "run"), "--split", "train"]) == 2
    assert "generate:maze6x6 has no split 'train' to evaluate on" in capsys.readouterr().err


def test_the_run_is_named_after_the_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Trainer(config("generate:maze6x6")).run.parent == Path("checkpoints/maze6x6")


# RulesEvaluator


def test_rules_accept_what_the_label_does_not_show():
    task = tasks.get("maze5x5")
    question = task.parse("S...#.##.#.##.#...G#.....")
    answers = np.stack([question] * 3)
    answers[0, [1, 2, 3, 8, 13]] = 4  # the label
    answers[1, [5, 10, 15, 16, 17]] = 4  # as short
    rules = RulesEvaluator(task)
    rules.begin()
    for row in range(3):
        batch = {"inputs": task.encode(question[None]), "labels": task.encode(answers[:1])}
        rules.update(batch, {"preds": task.encode(answers[row : row + 1])})
    metrics, files = rules.result()
    assert metrics == pytest.approx(
        {"exact_accuracy": 1 / 3, "valid_accuracy": 2 / 3, "copying_accuracy": 20 / 25}
    )
    assert not files
    rules.begin()
    assert set(rules.result().metrics.values()) == {0}


# Images on the fly


def store(folder, name, count, seed=0, **splits):
    """A dataset of generated puzzles, or of those given for a split."""
    task, arrays = tasks.get(name), {}
    for split in ("train", "test"):
        testing = split == "test"
        puzzles = splits.get(split) or draw_distinct(task, count, rng(seed), testing)
        every = np.arange(len(puzzles.ratings) + 1)
        arrays[split] = SplitArrays(
            task.encode(puzzles.questions),
            task.encode(puzzles.answers),
            np.zeros(len(every) - 1, int),
            every,
            every,
        )
    write_dataset(
        folder, arrays, ["<blank>"], vocab_size=task.vocab_size, seq_len=task.seq_len, task=name
    )
    return str(folder)


@pytest.mark.parametrize("name", ["sudoku6x6", "maze6x6", "addition2"])
def test_augmented_batches_are_images(tmp_path, name):
    task = tasks.get(name)
    path = store(tmp_path / "d", name, 16)
    run, plain = config(path, augment=True), config(path)
    data, test = open_train(run), open_test(run)
    images = take(train_stream(data, test, run, None), 6)
    originals = take(train_stream(data, test, plain, None), 6)
    changed = 0
    for (image, position), (original, plain_position) in zip(images, originals, strict=True):
        assert position == plain_position
        assert {array.dtype for array in image.values()} == {np.dtype(np.int32)}
        shown, solved = (task.decode(image[part]) for part in ("inputs", "labels"))
        assert task.check(shown, solved).all()
        changed += (image["inputs"] != original["inputs"]).any(axis=1).sum()
        if name != "sudoku6x6":
            keys = task.split_keys(task.decode(original["inputs"]), None)
            assert task.split_keys(shown, None) == keys
    assert changed > 10
    for number, (_, position) in enumerate(images[:-1]):
        resumed = take(train_stream(data, test, run, position), 5 - number)
        for (batch, _), (expected, _) in zip(resumed, images[number + 1 :], strict=True):
            assert all((batch[part] == expected[part]).all() for part in batch)


def test_a_puzzle_is_shown_in_all_its_images(tmp_path):
    task = tasks.get("maze6x6")
    one = draw(task, 1, rng())
    run = config(
        store(tmp_path / "d", "maze6x6", 4, train=one), augment=True, epochs=400, eval_interval=400
    )
    pairs = take(train_stream(open_train(run), open_test(run), run, None), 50)
    boards = np.concatenate([batch["inputs"] for batch, _ in pairs])
    _, counts = np.unique(boards, axis=0, return_counts=True)
    assert len(counts) == 8
    assert abs(counts - 50).max() < 35  # five standard deviations


def test_images_show_no_test_puzzle(tmp_path):
    """4x4 grids are images of two of them: without care nearly every batch would show some."""
    task = tasks.get("sudoku4x4")
    run = config(store(tmp_path / "d", "sudoku4x4", 100), augment=True, epochs=4)
    data, test = open_train(run), open_test(run)
    labels = {row.tobytes() for row in task.decode(test.parts[0].arrays.labels)}
    assert len(labels) > 20
    pairs = take(train_stream(data, test, run, None), 100)
    shown = {row.tobytes() for batch, _ in pairs for row in task.decode(batch["labels"])}
    assert len(shown) > 100
    assert not shown & labels


def test_images_of_puzzles_in_both_splits_are_shown(tmp_path):
    both = draw(tasks.get("maze6x6"), 8, rng())
    run = config(store(tmp_path / "d", "maze6x6", 8, train=both, test=both), augment=True)
    assert take(train_stream(open_train(run), open_test(run), run, None), 1)


def test_cells_without_labels_have_no_images():
    task = tasks.get("maze6x6")
    questions, answers, _ = task.generate(2, rng())
    labels = task.encode(answers).astype(np.int32)
    labels[1, 3] = IGNORE_LABEL
    with pytest.raises(InputError, match="augment=true: some cells of the maze6x6 data have no"):
        Augmentation(task, frozenset())({"inputs": task.encode(questions), "labels": labels}, rng())


def test_augmenting_what_no_task_fits(tmp_path):
    arrays = SplitArrays(*[np.ones((8, 3), int)] * 2, np.zeros(8, int), *[np.arange(9)] * 2)
    path = tmp_path / "d"
    write_dataset(path, {"train": arrays, "test": arrays}, [""], vocab_size=4, seq_len=3)
    run = config(str(path), augment=True, checkpoint_path=str(tmp_path / "run"))
    with pytest.raises(InputError, match="no known task has vocab_size 4 and seq_len 3"):
        Trainer(run)
    assert not (tmp_path / "run").exists()


# The flat layout


def flat(folder, examples=8, identifiers=None, **changes):
    folder.mkdir(parents=True)
    tokens = np.arange(examples * 3).reshape(examples, 3) % 7
    np.save(folder / "all__inputs.npy", tokens)
    np.save(folder / "all__labels.npy", tokens[:, ::-1])
    if identifiers is not None:
        np.save(folder / "all__puzzle_identifiers.npy", identifiers)
    values = {"vocab_size": 7, "seq_len": 3, "num_examples": examples, "description": "toy"}
    (folder / "dataset.json").write_text(json.dumps(values | changes))
    return folder


def test_flat_layout(tmp_path):
    data = PuzzleDataset([flat(tmp_path / "d")], "train")
    assert (data.metadata.vocab_size, data.metadata.seq_len) == (7, 3)
    assert (data.metadata.total_groups, data.metadata.num_puzzle_identifiers) == (8, 1)
    batch = data.batch(np.array([1, 0]), np.array([1, 0]), 2)
    assert batch["inputs"].tolist() == [[3, 4, 5], [0, 1, 2]]
    assert batch["labels"].tolist() == [[5, 4, 3], [2, 1, IGNORE_LABEL]]
    named = PuzzleDataset([flat(tmp_path / "named", identifiers=[0, 1, 2, 3] * 2)], "test")
    assert named.metadata.num_puzzle_identifiers == 4
    assert named.puzzle_identifiers.tolist() == [0, 1, 2, 3] * 2


def test_flat_splits(tmp_path):
    flat(tmp_path / "d" / "train")
    flat(tmp_path / "d" / "test", examples=4)
    run = config(str(tmp_path / "d"))
    assert open_train(run).metadata.total_puzzles == 8
    assert open_test(run).metadata.total_puzzles == 4


def test_flat_folder_is_not_silently_its_own_test(tmp_path):
    path = str(flat(tmp_path / "d"))
    assert open_test(config(path)) is None
    assert open_test(config(path, data_paths_test=[path])).metadata.total_puzzles == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_examples": 9}, "'num_examples' is 9, but all__inputs.npy holds 8; correct it"),
        ({"seq_len": 4}, r"all__inputs.npy: shape \(8, 3\) is not \(8, 4\)"),
        ({"vocab_size": "7"}, "'vocab_size' has the wrong type: '7'"),
    ],
)
def test_broken_flat_layout(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        PuzzleDataset([flat(tmp_path / "d", **changes)], "train")


# A task of one's own


def test_example_trains_through_the_launcher(tmp_path):
    assert len((CHECKOUT / "examples" / "custom_task.py").read_text().splitlines()) < 60
    words = [f"arch.{key}={value}" for key, value in ARCH.items() if key != "name"]
    words += ["data=generate:examples.custom_task:sort8", "evaluators=[rules]"]
    words += ["puzzles_per_epoch=32", "epochs=1", "eval_interval=1", "global_batch_size=8"]
    words += ["test_puzzles=5", f"checkpoint_path={tmp_path / 'run'}"]
    command = [sys.executable, CHECKOUT / "pretrain.py", *words]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "on 5 puzzles" in done.stderr


def test_example_keeps_its_own_rules(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT)
    task = tasks.get("examples.custom_task:sort8")
    question = task.parse("31415926")
    assert task.render(question) == "31415926"
    answers = np.stack([np.sort(question), question])
    assert task.check(question, answers).tolist() == [True, False]
    assert task.check(*draw(task, 20, rng())[:2]).all()
    with pytest.raises(InputError, match="'31': write 8 digits"):
        task.parse("31")


class Liar(Few):
    """Says its boards have two cells, and seven tokens."""

    name = "liar"
    boards = np.zeros((1, 3), np.uint8)

    def generate(self, count, rng):
        boards = np.repeat(self.boards, count, axis=0)
        return Puzzles(boards, boards, np.zeros(count, int))

    def split_keys(self, questions, answers):
        return [bytes([row % 256, row // 256]) for row in range(len(questions))]


@pytest.mark.parametrize(
    ("board", "message"),
    [
        ([[0, 0, 0]], r"the task liar generates boards of shape \(3,\): its seq_len is 2"),
        ([[0, 8]], r"generate:liar: token 9 is outside the vocabulary \(0 to 8\)"),
    ],
)
def test_a_task_that_does_not_do_what_it_says(monkeypatch, board, message):
    monkeypatch.setattr(registry, "_TASKS", {})
    monkeypatch.setattr(Liar, "boards", np.array(board, np.uint8))
    tasks.register(Liar())
    data = open_train(config("generate:liar"))
    with pytest.raises(InputError, match=message):
        data.batch(8, rng())


def test_images_of_puzzles_are_drawn():
    task = tasks.get("sudoku9x9")
    puzzles = task.generate(40, np.random.default_rng(0), images_of=HARDEST)
    assert task.check(puzzles.questions, puzzles.answers).all()
    assert (task.solve(puzzles.questions)[0] == 1).all()
    assert len(np.unique(puzzles.questions, axis=0)) == 40
    known = task.image_keys(task.parse_batch(HARDEST))
    assert set(task.image_keys(puzzles.questions)) == set(known)
    assert len(set(known)) == len(HARDEST)


@pytest.mark.parametrize("name", ["sudoku9x9", "maze10x10", "maze30x30"])
def test_levels_get_harder(name):
    task = tasks.get(name)
    assert list(task.levels) == ["easy", "hard", "hardest"]
    ratings = [
        task.generate(3, np.random.default_rng(0), **options).ratings.min()
        for options in task.levels.values()
    ]
    assert ratings == sorted(set(ratings))
