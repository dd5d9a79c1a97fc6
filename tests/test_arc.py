"""The ARC task: tokens and back, text, symmetries with their inverses, names."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trm_mlx.errors import InputError
from trm_mlx.tasks.arc import (
    ARC,
    SIZE,
    TRANSFORMS,
    Symmetry,
    canvas_of,
    check_grid,
    crop_sizes,
    grid_key,
    grid_of_key,
    grids_of,
    read_name,
    transform,
)

grids = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.integers(0, 9)
)
symmetries = st.builds(
    lambda number, colours: Symmetry(np.array([number]), np.array([[0, *colours]], np.uint8)),
    st.integers(0, 7),
    st.permutations(range(1, 10)),
)


# Tokens


@given(grids)
def test_a_canvas_gives_its_grid_back(grid):
    np.testing.assert_array_equal(grids_of(canvas_of(grid)[None])[0], grid)
    np.testing.assert_array_equal(grid_of_key(grid_key(grid)), grid)


def test_canvas_of_a_small_grid():
    canvas = canvas_of(np.array([[0, 9, 1], [2, 3, 4]], np.uint8)).reshape(30, 30)
    expected = np.zeros((30, 30))
    expected[:3, :4] = [[2, 11, 3, 1], [4, 5, 6, 1], [1, 1, 1, 0]]
    np.testing.assert_array_equal(canvas, expected)


@pytest.mark.parametrize(("rows", "columns"), [(30, 30), (30, 4), (4, 30)])
def test_end_marks_that_do_not_fit_are_left_out(rows, columns):
    canvas = canvas_of(np.zeros((rows, columns), np.uint8)).reshape(30, 30)
    assert (canvas[:rows, :columns] == 2).all()
    assert (canvas == 1).sum() == (rows < 30) * columns + (columns < 30) * rows


def crop_by_trial(canvas):
    """The first of the largest rectangles of colours at the top left, tried one by one."""
    best = 0, 0
    for size in itertools.product(range(1, 31), repeat=2):
        inside = canvas.reshape(30, 30)[: size[0], : size[1]]
        if ((inside >= 2) & (inside <= 11)).all() and size[0] * size[1] > best[0] * best[1]:
            best = size
    return best


def test_crop_is_the_largest_rectangle_of_colours():
    """On noise with few holes, on noise with many, and on ties: the fewest rows win."""
    rng = np.random.default_rng(0)
    canvases = [rng.choice([0, 1, 2, 11, 12], size=900, p=[p, p, 0.5, 0.5 - 3 * p, p])
                for p in (0.001, 0.004, 0.01, 0.03, 0.1) for _ in range(4)]  # fmt: skip
    tie = np.zeros((30, 30), int)
    tie[:2, :6] = tie[:4, :3] = tie[:6, :2] = 5
    canvases += [tie.ravel(), np.zeros(900, int), np.full(900, 1), np.full(900, 7)]
    rows, columns = crop_sizes(np.stack(canvases))
    assert list(zip(rows, columns, strict=True)) == [crop_by_trial(c) for c in canvases]
    assert (rows[-4], columns[-4]) == (2, 6)
    assert (rows[-3], columns[-3]) == (0, 0)
    assert grids_of(np.zeros((1, 900)))[0].shape == (0, 0)
    assert grid_of_key(grid_key(np.zeros((0, 0), np.uint8))).shape == (0, 0)


def test_keys_tell_shapes_apart():
    flat = np.zeros((1, 6), np.uint8)
    assert len({grid_key(flat.reshape(rows, -1)) for rows in (1, 2, 3, 6)}) == 4


@given(arrays.arrays(np.uint8, (2, 900), elements=st.integers(0, 11)))
def test_decoding_cleans_once(tokens):
    task = ARC()
    clean = task.decode(tokens)
    assert clean.shape == tokens.shape
    np.testing.assert_array_equal(task.decode(task.encode(clean)), clean)
    for before, after in zip(grids_of(tokens), grids_of(clean), strict=True):
        np.testing.assert_array_equal(before, after)


# Text


@given(grids)
def test_text_round_trip(grid):
    task = ARC()
    canvas = canvas_of(grid)
    np.testing.assert_array_equal(task.parse(task.render(canvas)), canvas)


def test_spellings_of_a_grid():
    task = ARC()
    for text in ("012\n345", "0 1 2\n3 4 5\n", " 0,1,2,\n\n 3,4,5", "0, 1, 2\n3, 4, 5"):
        np.testing.assert_array_equal(
            task.parse(text), canvas_of(np.arange(6, dtype=np.uint8).reshape(2, 3))
        )


def test_rendering_marks_what_was_not_given():
    task = ARC()
    given, answer = task.parse("01\n23"), task.parse("012\n935")
    assert task.render(answer, givens=given) == " 0 1+2\n+9 3+5"
    assert task.render(answer) == " 0 1 2\n 9 3 5"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not a grid"),
        ("12\n3", "rows differ in length"),
        ("12\n3x", "row 2: 'x' is no colour"),
        ("1" * 31, "1x31 cells is larger than 30x30"),
        ("1\n" * 31, "31x1 cells is larger than 30x30"),
    ],
)
def test_text_that_is_no_grid(text, match):
    with pytest.raises(InputError, match=match):
        ARC().parse(text)


@pytest.mark.parametrize(
    ("cells", "match"),
    [
        ([[1, 2], [3]], "rows differ in length"),
        ([[1, [2]], [3, 4]], "rows differ in length"),
        ([], "not a grid"),
        ([[]], "not a grid"),
        ([1, 2], "not a grid"),
        ([[[1]]], "not a grid"),
        ([[0.5]], "not a grid"),
        ([[True]], "not a grid"),
        ([["1"]], "not a grid"),
        ([[10**30]], "not a grid"),
        (None, "not a grid"),
        ("1", "not a grid"),
        ({"a": 1}, "not a grid"),
        ([[0, 10]], "10 is no colour"),
        ([[-1]], "-1 is no colour"),
        ([[0] * 31], "1x31 cells is larger"),
    ],
)
def test_lists_that_are_no_grid(cells, match):
    with pytest.raises(InputError, match=match):
        check_grid(cells)


# Symmetries


@given(grids, symmetries)
def test_inverse_undoes_a_symmetry(grid, symmetry):
    np.testing.assert_array_equal(symmetry.inverse().image(symmetry.image(grid)), grid)
    np.testing.assert_array_equal(symmetry.image(symmetry.inverse().image(grid)), grid)
    canvas = canvas_of(grid)
    there_and_back = symmetry.inverse().apply(symmetry.apply(canvas))
    np.testing.assert_array_equal(there_and_back, canvas[None])


@given(symmetries)
def test_a_name_stands_for_its_symmetry(symmetry):
    (name,) = symmetry.names("abc")
    puzzle, read = read_name(name)
    assert puzzle == "abc"
    np.testing.assert_array_equal(read.transforms, symmetry.transforms)
    np.testing.assert_array_equal(read.colours, symmetry.colours)


def test_transforms_in_the_published_order():
    grid = np.array([[1, 2, 3], [4, 5, 6]])
    expected = [
        [[1, 2, 3], [4, 5, 6]],
        [[3, 6], [2, 5], [1, 4]],  # counter-clockwise
        [[6, 5, 4], [3, 2, 1]],
        [[4, 1], [5, 2], [6, 3]],
        [[3, 2, 1], [6, 5, 4]],  # left to right
        [[4, 5, 6], [1, 2, 3]],
        [[1, 4], [2, 5], [3, 6]],
        [[6, 3], [5, 2], [4, 1]],
    ]
    assert [transform(grid, number).tolist() for number in range(TRANSFORMS)] == expected
    for number in range(TRANSFORMS):
        symmetry = Symmetry(np.array([number]), np.arange(10)[None])
        assert symmetry.transposes[0] == (len(expected[number]) == 3)


def test_printed_names():
    symmetry = Symmetry(np.array([3, 7]), np.array([range(10), [0, *range(9, 0, -1)]], np.uint8))
    assert symmetry.names("x") == ["x|||t3|||0123456789", "x|||t7|||0987654321"]
    assert read_name("x")[0] == "x"
    np.testing.assert_array_equal(read_name("x")[1].image(np.eye(3, dtype=int)), np.eye(3))


@pytest.mark.parametrize(
    "name",
    ["x|||t8|||0123456789", "x|||t1|||0123456788", "x|||t1", "x|||t1|||012", "x|||a|||t1|||b"],
)
def test_names_that_no_symmetry_prints(name):
    with pytest.raises(InputError, match="is no puzzle's name"):
        read_name(name)


def test_samples_are_uniform_and_keep_the_background():
    symmetry = ARC().sample_symmetry(np.random.default_rng(0), 8000)
    assert (symmetry.colours[:, 0] == 0).all()
    assert (np.sort(symmetry.colours, axis=1) == np.arange(10)).all()
    # Five standard deviations of a count of 8000 draws with chance 1/8, and with chance 1/9.
    assert abs(np.bincount(symmetry.transforms, minlength=8) - 1000).max() < 148
    for colour in range(1, 10):
        counts = np.bincount(symmetry.colours[:, colour], minlength=10)[1:]
        assert abs(counts - 8000 / 9).max() < 141


def test_apply_on_a_batch_takes_one_symmetry_a_row():
    rng = np.random.default_rng(1)
    symmetry = Symmetry.sample(rng, 5)
    shapes = [(1, 1), (2, 5), (30, 30), (30, 7), (3, 3)]
    boards = [rng.integers(10, size=shape).astype(np.uint8) for shape in shapes]
    images = symmetry.apply(np.stack([canvas_of(board) for board in boards]))
    for row, (board, image) in enumerate(zip(boards, images, strict=True)):
        one = symmetry[[row]]
        np.testing.assert_array_equal(image, canvas_of(one.image(board)))
        np.testing.assert_array_equal(grids_of(image[None])[0], symmetry.image(board, row))
    assert images.shape == (5, SIZE**2)
