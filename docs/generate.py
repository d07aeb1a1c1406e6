"""Write the generated parts of the documentation, or with --check say which are out of date.

Option tables and help pages come from the option models and the commands themselves, the map of the packages from their
docstrings and the layers of pyproject.toml, and the tables of docs/benchmarks/ from the scripts in bench/.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from likely.cli import cli
from likely.cli.flags import flag_name, without_none
from likely.cli.train import DECODER
from likely.data.preprocessing import ImageOptions
from likely.experiment import TrainConfig
from likely.features.feature_decoder import DecoderOptions
from likely.features.feature_extractors import FeatureOptions
from likely.models import FAMILIES, summary
from likely.options import Options
from likely.training.options import TrainingOptions

DOCS = Path(__file__).parent
TABLES = DOCS.parent / "bench" / "results"
KINDS: Mapping[Any, str] = {int: "whole number", float: "number", bool: "on, off"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
NOTE = "<!-- Written by docs/generate.py: change the code, then `make docs`. -->"


def options_page() -> str:
    """docs/reference/options.md: every option of every family, of training and of images."""
    lines = ["# Options", "", NOTE, ""]
    lines += [
        "A flag of `likely train`; in Python, a key of `Classifier(options=…, training=…, images=…, features=…)`.",
        "",
    ]
    for name, kind in FAMILIES.items():
        lines += [f"## {name}", "", summary(kind), "", *table(rows(kind.options_type)), ""]
    own = {name: TrainConfig.model_fields[name] for name in ("seed", "label_check_folds", "repeats", "augment_with")}
    lines += ["## every run", "", "In Python the seed is `Classifier(random_state=…)`.", "", *table(own.items()), ""]
    groups = {"training": TrainingOptions, "images": ImageOptions, "features": FeatureOptions}
    for title, options in groups.items():
        lines += [f"## {title}", "", (options.__doc__ or "").strip(), "", *table(rows(options)), ""]
    lines += ["## drawing", "", (DecoderOptions.__doc__ or "").strip(), "", *table(rows(DecoderOptions, DECODER)), ""]
    return "\n".join(lines)


def rows(options: type[Options], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The fields of an option model, those of a nested one with its name in front."""
    for name, field in options.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Options):
            yield from rows(nested, f"{prefix}{name}__")
        else:
            yield prefix + name, field


def table(fields: Iterable[tuple[str, FieldInfo]]) -> Iterator[str]:
    """The rows of a table of options."""
    yield from ("| flag | values | default | meaning |", "|---|---|---|---|")
    for name, field in fields:
        cells = (f"`{flag_name(name)}`", values(field), default(field), field.description or "")
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def values(field: FieldInfo) -> str:
    """What a field may be: its choices, or its kind and its bounds."""
    kind = without_none(field.annotation)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    bounds = [
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(rule, name)
    ]
    return " ".join(filter(None, (KINDS.get(kind, ""), ", ".join(bounds))))


def default(field: FieldInfo) -> str:
    """A field's default as people type it; nothing where leaving it out has a meaning of its own."""
    if field.default is None:
        return ""
    return f"`{ {True: 'on', False: 'off'}[field.default] if isinstance(field.default, bool) else field.default }`"


def commands_page() -> str:
    """docs/reference/cli.md: the help page of every command."""
    lines = ["# The command line", "", NOTE, ""]
    lines += [
        "Exit codes: 0 all well, 1 some inputs failed (each said, the rest done), 2 the request cannot be met.",
        "",
    ]
    for context in walk(click.Context(cli, info_name="likely", terminal_width=100, **cli.context_settings)):
        lines += [f"## {context.command_path}", "", "```text", context.get_help(), "```", ""]
    return "\n".join(lines)


def walk(context: click.Context) -> Iterator[click.Context]:
    """A command and those below it, each as if it had been typed."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            below = context.command.get_command(context, name)
            assert below is not None
            yield from walk(click.Context(below, parent=context, info_name=name))


def packages_page() -> str:
    """docs/contributing/packages.md: the packages, the higher layers first."""
    lines = ["# Map of the packages", "", NOTE, ""]
    lines += ["A package imports only from the packages below it; import-linter checks that.", ""]
    lines += ["| in `src/likely/` | content |", "|---|---|"]
    for name in layers():
        doc = (import_module(f"likely.{name}").__doc__ or "").strip().partition("\n")[0]
        lines.append(f"| `{name}` | {doc.replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


def layers() -> list[str]:
    """The packages and modules that the contracts of pyproject.toml put above one another."""
    settings = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    return [
        name for contract in contracts for layer in contract.get("layers", ()) for name in re.findall(r"\w+", layer)
    ]


def with_tables(name: str) -> str:
    """A page with the committed tables of bench/results in their places."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.sub(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", _filled, text, flags=re.DOTALL)


def _filled(match: re.Match[str]) -> str:
    table = TABLES / match[2]
    if not table.exists():  # as in a checkout without measurements: then what was published stands
        return match[0]
    words = re.sub("^#", "###", table.read_text(encoding="utf-8").strip(), flags=re.MULTILINE)  # below the page's own
    return match[1] + words + "\n" + match[3]


PAGES: dict[str, Callable[[], str]] = {
    "reference/options.md": options_page,
    "reference/cli.md": commands_page,
    "contributing/packages.md": packages_page,
    **{
        f"benchmarks/{path.name}": partial(with_tables, f"benchmarks/{path.name}")
        for path in sorted((DOCS / "benchmarks").glob("*.md"))
    },
}


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
