"""Dependencies, versions, generated pages and links of the project."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

import likely

ROOT = Path(__file__).parent.parent
BANNED = {"torchvision", "timm", "torch-fidelity", "lightning", "pytorch-lightning", "gradio", "netcal"}


def canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def required(name: str, seen: set[str]) -> Iterator[str]:
    """Iterate over all direct and indirect dependencies of a package."""
    if name in seen:
        return
    seen.add(name)
    yield name
    try:
        needs = distribution(name).requires or []
    except PackageNotFoundError:
        return
    for need in needs:
        if name == "likely" or "extra ==" not in need:
            yield from required(canonical(re.split(r"[^\w.-]", need)[0]), seen)


def test_dependencies_exclude_banned_packages():
    found = set(required("likely", set()))
    assert {"torch", "scikit-learn", "numpy", "pyarrow"} <= found
    assert not found & BANNED


def test_constraints_name_no_registry():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    assert lines[1] == "torch==2.13.0"
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    assert not pinned & BANNED


def test_relative_links_in_the_readme_exist():  # `make check` follows those of docs/
    path = ROOT / "README.md"
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_development_packages_are_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonical(line.partition("==")[0]) for line in lines if "==" in line}
    installed = {canonical(d.metadata["Name"]) for d in distributions()}
    assert set(required("likely", set())) & installed - pinned <= {"likely", "setuptools"}


@pytest.fixture(scope="module")
def generate():
    """Import docs/generate.py as a module."""
    spec = spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_contain_flags_and_options(generate):
    commands = generate.commands_page()
    assert all(
        flag in commands
        for flag in ("--learning-rate", "--augment-flip", "--backbone-stages", "--decoder-minutes", "-h, --help")
    )
    options = generate.options_page()
    assert "| `--latent-dims` |" in options
    assert "| `--seed` | whole number ≥ 0, < 4294967296 | `0` |" in options
    assert "| `--label-check-folds` |" in options
    assert "`one_cycle`, `cosine`" in options
    assert "| `--augment-flip` | on, off | `off` |" in options
    assert r"p(c \| x)" in options
    rows = [line for line in options.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def test_published_table_stays_without_measurements(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    monkeypatch.setattr(generate, "TABLES", tmp_path)
    (tmp_path / "here.md").write_text("new\n")
    page = "<!-- table: {} -->\n{}\n<!-- end -->\n"
    (tmp_path / "benchmarks.md").write_text(page.format("gone.md", "published") + page.format("here.md", "old"))
    assert generate.with_tables("benchmarks.md") == page.format("gone.md", "published") + page.format("here.md", "new")


def test_ci_workflow_and_local_run_call_the_same_targets():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    local = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert set(re.findall(r"^make \S+", "\n".join(steps), re.M)) == set(re.findall(r"\bmake \S+", local))


def test_version_is_consistent():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"] == likely.__version__


def test_supported_python_versions_are_classified_and_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    classified = {line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert classified == set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"])
    assert min(classified, key=lambda version: int(version[2:])) == project["requires-python"].lstrip(">=")
