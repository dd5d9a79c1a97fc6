"""Files that are written whole, whatever stands at their place."""

import os
import stat
import subprocess
import sys
import threading

import pytest

from trm_mlx.errors import InputError
from trm_mlx.files import atomic_file, check_target


def write(path, text="new"):
    with atomic_file(path) as unfinished:
        unfinished.write_text(text)


def write_and_fail(path):
    with atomic_file(path) as unfinished:
        unfinished.write_text("ne")
        unfinished.with_name("absent").unlink()


def test_a_regular_file_is_replaced_when_the_new_one_is_whole(tmp_path):
    (tmp_path / "out").write_text("old")
    with pytest.raises(FileNotFoundError):
        write_and_fail(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "old"
    write(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path, target):
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "link to link").symlink_to("link")
    write(tmp_path / "link to link")
    assert (tmp_path / target).read_text() == "new"
    assert os.readlink(tmp_path / "link to link") == "link"
    assert os.readlink(tmp_path / "link") == target


def test_a_link_into_a_missing_folder_is_no_target(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "absent" / "file")
    with pytest.raises(InputError, match=f"link: there is no folder {tmp_path}/absent, create it"):
        check_target(tmp_path / "link")
    (tmp_path / "absent").mkdir()
    check_target(tmp_path / "link")


def test_a_circle_of_links_is_refused_and_stays(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "a")
    assert os.readlink(tmp_path / "a") == "b"


def test_a_pipe_is_written_into(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write(pipe)
    reader.join(timeout=10)
    assert read == ["new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_written_into(tmp_path):
    """As root, a renamed file would take the place of the device, for every program."""
    before = os.stat(os.devnull)
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    write(link)
    assert os.path.samestat(os.stat(os.devnull), before)
    assert link.is_symlink()


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="this system has no /dev/stdout")
@pytest.mark.parametrize("redirected", [False, True], ids=["pipe", "file"])
def test_standard_output_by_its_name(tmp_path, redirected):
    code = (
        "from pathlib import Path; from trm_mlx.files import atomic_file\n"
        "with atomic_file(Path('/dev/stdout')) as file: file.write_text('new\\n')\n"
        "print('after')"
    )
    command = [sys.executable, "-c", code]
    if redirected:
        with (tmp_path / "out").open("a") as out:
            subprocess.run(command, check=True, stdout=out)
        text = (tmp_path / "out").read_text()
    else:
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert text.split() == ["new", "after"]
