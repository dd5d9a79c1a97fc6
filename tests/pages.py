"""Takes the pages of the documentation apart: blocks, shell commands, inline code, links."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
README = CHECKOUT / "README.md"
DOCS = sorted((CHECKOUT / "docs").glob("*.md"))
CARDS = sorted((CHECKOUT / "trm_mlx" / "pretrained").glob("*/README.md"))
PAGES = [README, CHECKOUT / "CONTRIBUTING.md", *DOCS, *CARDS]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Command(NamedTuple):
    """A command line of a page, without what stands before and after it: pipes, variables."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def name_of(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The contents of the fenced blocks of a language."""
    text = page.read_text(encoding="utf-8")
    return [content for kind, content in _FENCE.findall(text) if kind == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks, line breaks as spaces."""
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]


def commands(page: Path) -> list[Command]:
    """Every shell command: continued lines joined, comments gone, pipes and lists taken apart."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [
        Command(name_of(page), words) for line in lines for words in _simple_commands(line) if words
    ]


def _simple_commands(line: str) -> list[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if word and set(word) <= set("|&"):
            found.append([])
        elif found[-1] or not re.match(r"[A-Z_]+=", word):  # VARIABLE=value goes before a command
            found[-1].append(word)
    return [tuple(words) for words in found]


def links(page: Path) -> list[str]:
    """The targets of the links that lead to a file or to a heading, not to the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in targets if "://" not in target]


def anchors(page: Path) -> set[str]:
    """What a link may name behind ``#``: a page's headings as GitHub spells them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        numbers = (f"{slug}-{number}" for number in range(1, 1000))
        found.add(next(name for name in (slug, *numbers) if name not in found))
    return found
