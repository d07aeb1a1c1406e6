"""The project uses the standard vocabulary of its field: retired words appear nowhere."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORDS = Path(__file__).with_name("retired_words.txt")
FOLDERS = ("src", "tests", "bench", "docs", "deploy")
SUFFIXES = {".py", ".js", ".html", ".css", ".md", ".toml", ".yml", ".yaml", ".txt", ".cff", ".jsonl", ""}
DATA = {WORDS, Path(__file__), ROOT / "LICENSE"}


def text_files() -> list[Path]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    files += [path for path in ROOT.iterdir() if path.suffix in SUFFIXES]
    return sorted(path for path in files if path.is_file() and path.suffix in SUFFIXES and path not in DATA)


@cache
def retired(section: str) -> re.Pattern[str]:
    sections = re.split(r"(?m)^\[(\w+)\].*$", WORDS.read_text(encoding="utf-8"))
    lines = sections[sections.index(section) + 1].splitlines()
    return re.compile("|".join(line for line in lines if line and not line.startswith("#")), re.IGNORECASE)


def python_files() -> list[Path]:
    return sorted(
        path for folder in ("src", "tests", "bench") for path in (ROOT / folder).rglob("*.py") if path not in DATA
    )


def words_of(identifier: str) -> list[str]:
    """Split an identifier at underscores, hyphens and changes of case.

    >>> words_of("_nFiguresOf-PARTS")
    ['n', 'Figures', 'Of', 'PARTS']
    """
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)


def identifiers(source: str) -> Iterator[tuple[int, str]]:
    """Names that Python source binds, its keyword arguments and dictionary keys, and options in its strings."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield line, name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield line, name
            case ast.ClassDef(name=name) | ast.alias(asname=str(name)):
                yield line, name
            case ast.Dict(keys=keys):
                yield from ((key.lineno, key.value) for key in keys if _is_key(key))
            case ast.Constant(value=str(text)) if re.fullmatch(r"--[a-z][a-z-]*", text):
                yield line, text


def _is_key(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier()


@pytest.mark.parametrize("path", text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_text_contains_no_retired_word(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("aria-labelledby", "")
    matches = re.finditer(rf"(?<![a-zA-Z])(?:{retired('never').pattern})", text, re.IGNORECASE)
    assert [(text.count("\n", 0, match.start()) + 1, match.group()) for match in matches] == []


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_identifiers_contain_no_retired_word(path: Path) -> None:
    bad = [
        (line, name)
        for line, name in identifiers(path.read_text(encoding="utf-8"))
        if any(retired("identifier").fullmatch(word) for word in words_of(name))
    ]
    assert bad == []


DOCSTRING_STARTS = re.compile(r"(What|Whether|How|Those|The same|Of)\b")


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_start_with_an_imperative_or_noun_phrase(path: Path) -> None:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, documented)]
    starts = [(getattr(node, "lineno", 1), (ast.get_docstring(node) or "").partition("\n")[0]) for node in nodes]
    assert [(line, start) for line, start in starts if DOCSTRING_STARTS.match(start)] == []


def test_scanner_finds_retired_words() -> None:
    source = 'def told(share_of=1):\n    return {"lead": "--n-turns"}\n'
    assert [name for _, name in identifiers(source)] == ["told", "share_of", "lead", "--n-turns"]
    assert retired("never").search("Optimisers and colours of twins")
    assert not retired("never").match("realism")
