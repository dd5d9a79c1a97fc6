"""Runs a notebook from top to bottom and saves it with what it prints and draws.

python tools/run_notebook.py examples/tour.ipynb
"""

import argparse
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def executed(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of its own; an error in a cell is raised.

    Progress on standard error and times of execution are left out, as they differ every time.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": path.parent}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    path = parser.parse_args().notebook
    nbformat.write(executed(path), path)


if __name__ == "__main__":
    main()
