"""Write the generated parts of the documentation, or with --check say which are out of date.

Option tables and help pages come from the option models and the commands themselves, the fields of a prediction from its type,
the map of the packages from their docstrings and the layers of pyproject.toml, and the tables of docs/benchmarks/ from the
scripts in bench/.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel
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
from likely.prediction import CalibrationMethod, ClassPrediction, GroupPrediction, Guarantee, Prediction, Status
from likely.training.options import TrainingOptions

DOCS = Path(__file__).parent
TABLES = DOCS.parent / "bench" / "results"
KINDS: Mapping[Any, str] = {int: "whole number", float: "number", bool: "on, off"}
TYPE_LINKS = {
    "Status": "[status](#status)",
    "Guarantee": "[guarantee](#guarantee)",
    "ClassPrediction": "[objects](#classes)",
    "GroupPrediction": "[objects](#groups)",
}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
EXAMPLE = Prediction(  # `likely classify model new/00.png --format jsonl --top-k 2`, as in the documentation's tests
    input="new/00.png",
    status=Status.KNOWN,
    label="boot",
    probability=0.9999150425246603,
    p_value=0.8620689655172413,
    prediction_set=("boot",),
    classes=(
        ClassPrediction(
            label="boot",
            probability=0.9999150425246603,
            p_value=0.8620689655172413,
            log_likelihood=-228.9145965576172,
        ),
        ClassPrediction(
            label="shirt",
            probability=0.00007702615301032676,
            p_value=0.034482758620689655,
            log_likelihood=-236.9815216064453,
        ),
    ),
    bits_per_dim=5.185430207926841,
    p_real=0.8768125176429749,
    calibration=CalibrationMethod.SPLIT,
    model="model@ed8b",
)
PREDICTION_INTRO = """
`likely classify --format jsonl` writes one JSON object per image and line. The [HTTP API](http.md) returns the same fields with
an `id`, and `Classifier.classify` returns them as [`likely.Prediction`](python.md).

Read `status` first: `label` names the most probable class even for an image that is `unknown`.
"""
EXIT_CODES = """
## Exit codes

`likely classify` exits with

| code | meaning |
|---|---|
| 0 | every image is classified, whatever its status |
| 1 | some inputs could not be read and have the status `error`; all others are classified |
| 2 | the request is invalid: an unknown option, or no model in MODEL; nothing is classified |
| 3 | internal error, with its traceback on stderr |
"""
NOTE = "<!-- Written by docs/generate.py: change the code, then `make docs`. -->"


def options_page() -> str:
    """docs/reference/options.md: every option of every family, of training and of images."""
    lines = ["# Options", "", NOTE, ""]
    lines += [
        "Flags of `likely train`; in Python, keys of `Classifier(options=…, training=…, images=…, features=…)`.",
        "",
    ]
    for name, kind in FAMILIES.items():
        lines += [f"## {name}", "", summary(kind), "", *table(rows(kind.options_type)), ""]
    own = {name: TrainConfig.model_fields[name] for name in ("seed", "label_check_folds", "repeats", "augment_with")}
    lines += ["## every run", "", "In Python the seed is `Classifier(random_state=…)`.", "", *table(own.items()), ""]
    groups = {"training": TrainingOptions, "images": ImageOptions, "features": FeatureOptions}
    for title, options in groups.items():
        lines += [f"## {title}", "", (options.__doc__ or "").strip(), "", *table(rows(options)), ""]
    lines += ["## decoder", "", (DecoderOptions.__doc__ or "").strip(), "", *table(rows(DecoderOptions, DECODER)), ""]
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
    """A field's default as typed on the command line; empty if it is None."""
    if field.default is None:
        return ""
    return f"`{ {True: 'on', False: 'off'}[field.default] if isinstance(field.default, bool) else field.default }`"


def commands_page() -> str:
    """docs/reference/cli.md: the help page of every command."""
    lines = ["# The command line", "", NOTE, ""]
    lines += [
        "Exit codes: 0 success, 1 some inputs failed and the others are processed, 2 invalid request, 3 internal error.",
        "",
    ]
    for context in walk(click.Context(cli, info_name="likely", terminal_width=100, **cli.context_settings)):
        lines += [f"## {context.command_path}", "", "```text", context.get_help(), "```", ""]
    return "\n".join(lines)


def walk(context: click.Context) -> Iterator[click.Context]:
    """The contexts of a command and of its subcommands, depth first."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            below = context.command.get_command(context, name)
            assert below is not None
            yield from walk(click.Context(below, parent=context, info_name=name))


def prediction_page() -> str:
    """docs/reference/prediction.md: the fields and statuses of a prediction."""
    lines = ["# Prediction JSON", "", NOTE, PREDICTION_INTRO, "```json", EXAMPLE.model_dump_json(indent=2), "```", ""]
    for title, kind in {"Fields": Prediction, "Classes": ClassPrediction, "Groups": GroupPrediction}.items():
        doc = [] if kind is Prediction else [kind.__doc__ or "", ""]
        lines += [f"## {title}", "", *doc, "| field | type | description |", "|---|---|---|", *field_rows(kind), ""]
    for title, values in {"Status": Status, "Guarantee": Guarantee, "Calibration": CalibrationMethod}.items():
        lines += [f"## {title}", "", *enum_table(title.lower(), values), ""]
    return "\n".join(lines) + EXIT_CODES


def field_rows(kind: type[BaseModel]) -> Iterator[str]:
    """The rows of a table of the fields of a JSON object."""
    for name, schema in kind.model_json_schema()["properties"].items():
        description = schema["description"].replace("|", "\\|")
        yield f"| `{name}` | {json_type(schema)} | {description} |"


def json_type(schema: Mapping[str, Any]) -> str:
    """The JSON type of a field in words."""
    if "anyOf" in schema:
        return " or ".join(json_type(choice) for choice in schema["anyOf"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return TYPE_LINKS[name]
    if schema["type"] == "array":
        return f"array of {json_type(schema['items']) if '$ref' in schema['items'] else schema['items']['type'] + 's'}"
    return str(schema["type"])


def enum_table(title: str, values: type[StrEnum]) -> list[str]:
    """The table of the values of an enumeration, whose docstring explains each in a paragraph of its own."""
    found = re.findall(r"^    `([\w-]+)`: (.+(?:\n    [^`\n].*)*)$", values.__doc__ or "", re.MULTILINE)
    meanings = {value: " ".join(meaning.split()) for value, meaning in found}
    return [f"| `{title}` | meaning |", "|---|---|", *(f"| `{value}` | {meanings[value]} |" for value in values)]


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
    "reference/prediction.md": prediction_page,
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
