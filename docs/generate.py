"""Write the generated parts of the documentation, or with --check say which are out of date.

Option tables and help pages come from the option models and the commands themselves; the tables of docs/benchmarks.md are
those that the scripts in bench/ wrote.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from likely.contract import Options
from likely.data.images import ImageOptions
from likely.models import FAMILIES, summary
from likely.surfaces.cli import cli
from likely.surfaces.cli.flags import spelled
from likely.training.options import TrainingOptions

DOCS = Path(__file__).parent
TABLES = DOCS.parent / "bench" / "results"
NOTE = "<!-- Written by docs/generate.py: change the code, then `make docs`. -->"


def options_page() -> str:
    """docs/options.md: every option of every family, of training and of images."""
    lines = ["# Options", "", NOTE, ""]
    lines += ["A flag of `likely train`; in Python, a key of `Classifier(options=…, training=…, images=…)`.", ""]
    for name, kind in FAMILIES.items():
        lines += [f"## {name}", "", summary(kind), "", *table(kind.options_type, ""), ""]
    for title, options in (("training", TrainingOptions), ("images", ImageOptions)):
        lines += [f"## {title}", "", (options.__doc__ or "").strip(), "", *table(options, ""), ""]
    return "\n".join(lines)


def table(options: type[Options], prefix: str) -> Iterator[str]:
    """The rows of one option model, those of a nested one with its name in front."""
    if not prefix:
        yield from ("| flag | default | meaning |", "|---|---|---|")
    for name, field in options.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Options):
            yield from table(nested, f"{name}__")
        else:
            default = "" if field.default is None else f"`{field.default}`"
            yield f"| `{spelled(prefix + name)}` | {default} | {field.description} |"


def commands_page() -> str:
    """docs/cli.md: the help page of every command."""
    lines = ["# The command line", "", NOTE, ""]
    lines += [
        "Exit codes: 0 all well, 1 some inputs failed (each said, the rest done), 2 the request cannot be met.",
        "",
    ]
    for path, command in walk(cli, ("likely",)):
        context = click.Context(command, info_name=" ".join(path), terminal_width=100, max_content_width=100)
        lines += [f"## {' '.join(path)}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and those below it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from walk(below, (*path, name))


def benchmarks_page() -> str:
    """docs/benchmarks.md with the committed tables of bench/results in their places."""
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    return re.sub(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", _filled, text, flags=re.DOTALL)


def _filled(match: re.Match[str]) -> str:
    return match[1] + (TABLES / match[2]).read_text(encoding="utf-8").strip() + "\n" + match[3]


PAGES = {"options.md": options_page, "cli.md": commands_page, "benchmarks.md": benchmarks_page}


def main() -> int:
    """Write the pages, or with --check compare them."""
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"docs out of date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
        return 1
    print(f"docs: {', '.join(stale) + ' written' if stale else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
