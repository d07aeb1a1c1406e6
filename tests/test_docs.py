"""Every Python and shell block of README, CONTRIBUTING and docs/ runs as it stands, and so do those of a model card.

The blocks of a page run in order: Python in one namespace of this process, `sh` in bash with `set -e` and `likely` on its PATH,
all in one folder. There they find, with digits as stand-ins for photographs,

    photos/boot, photos/coat, photos/shirt   folders of images, one for each class
    new/00.png …, new/sandals                images to classify, and those of a class to add
    site/boot, site/coat, site/shirt         images of these classes from another place
    mask.png                                 white where an image is observed, black where it is not
    mobilenet                                a backbone, tiny and with random weights
    model                                    a model of photos, unless a block writes it

An HTML comment on the line before a block changes that:

    <!-- not run: REASON -->                 at most 15 of these in all
    <!-- slow -->                            runs in `make slow` alone; needed above 5 seconds
    <!-- background: URL -->                 slow; is left running until the end of the page, and the next block waits for URL
"""

import contextlib
import io
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from likely import Classifier

ROOT = Path(__file__).parent.parent
README, README_CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN, SHOWN = {"python", "sh"}, {"text", "json", "yaml"}
NUMBER = re.compile(r"(?<![\w.-])\d+(?:,\d{3})*(?:\.\d+)?%?", re.ASCII)
BLOCK = re.compile(r"^((?:<!-- [^\n]* -->\n)*)```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_NOT_RUN, MOST_SECONDS, SECONDS_TO_START = 15, 5, 60


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and what the comments before it say."""

    language: str
    source: str
    where: str
    marks: dict[str, str] = field(hash=False)

    @property
    def is_run(self) -> bool:
        return self.language in RUN and "not run" not in self.marks

    @property
    def is_slow(self) -> bool:
        return bool({"slow", "background"} & self.marks.keys())


def blocks(page: Path, name: str = "") -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            language=match[2],
            source=match[3],
            where=f"{name or page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start(2)) + 1}",
            marks=dict(re.findall(r"<!-- (not run|slow|background):? ?(.*?) -->", match[1])),
        )
        for match in BLOCK.finditer(text)
    ]


@dataclass
class Page:
    """A folder in which the blocks of a page run, one after the other."""

    folder: Path
    namespace: dict[str, object] = field(default_factory=lambda: {"__name__": "__main__"})
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, block: Block) -> str:
        """Return what the block prints."""
        if block.language == "python":
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block.source, block.where, "exec"), self.namespace)
            return out.getvalue()
        script = f"set -aeuo pipefail; [ ! -e .variables ] || . ./.variables\n{block.source}\nexport -p > .variables"
        command = ["bash", "-c", script]
        if "background" in block.marks:
            self.running.append(
                subprocess.Popen(command, cwd=self.folder, env=self.environment, start_new_session=True)
            )
            wait_for(block.marks["background"], self.running[-1])
            return ""
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.where} exits with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "CURL_HOME": str(self.folder)}

    def close(self) -> None:
        for process in self.running:
            os.killpg(process.pid, 15)
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        assert process.poll() is None, f"ended with {process.returncode} before {url} answered"
        try:
            urlopen(url).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.2)


def seconds_of_processor() -> float:
    """Return the processor time of this process and its children, which a busy machine does not increase."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@pytest.fixture(scope="session")
def provided(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Path:
    folder = tmp_path_factory.mktemp("provided")
    digits = load_digits()
    kinds = {"photos/boot": 0, "photos/coat": 3, "photos/shirt": 4, "new/sandals": 7}
    images = {name: digits.images[digits.target == digit] * 15.9 for name, digit in kinds.items()}
    for name, of_class in images.items():
        write(folder / name, of_class[4:])
    rng = np.random.default_rng(0)
    for name in ("boot", "coat", "shirt"):
        of_class = images[f"photos/{name}"][4:64]
        write(folder / "site" / name, np.clip(of_class + rng.normal(0, 70, of_class.shape), 0, 255))
    write(folder / "new", [image for of_class in images.values() for image in of_class[:4]])
    Image.fromarray(np.repeat([[255], [0]], 4, axis=0).repeat(8, axis=1).astype(np.uint8)).save(folder / "mask.png")
    shutil.copytree(backbone, folder / "mobilenet")
    (folder / ".curlrc").write_text("fail-with-body\nsilent\n")  # an answer that reports an error fails the block
    photos = sorted((folder / "photos").rglob("*.png"))
    Classifier("gaussian").fit(photos, [path.parent.name for path in photos]).save(folder / "model")
    return folder


def write(folder: Path, images: Iterable[np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{i:02}.png")


@pytest.fixture
def page(provided: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Return a page in a folder of its own, with what is provided."""
    page = Page(shutil.copytree(provided, tmp_path / "page"))
    path = request.node.callspec.params["path"] if hasattr(request.node, "callspec") else README
    if any("--out model" in block.source for block in blocks(path)):
        shutil.rmtree(page.folder / "model")
    yield page
    page.close()


def some(pages: list[Path], *, slow: bool) -> list[object]:
    """Return the pages that have a block of this kind to run."""
    return [
        pytest.param(path, id=str(path.relative_to(ROOT)))
        for path in pages
        if any(block.is_run and block.is_slow is slow for block in blocks(path))
    ]


@pytest.mark.parametrize("path", some(PAGES, slow=False))
def test_the_quick_blocks_of_a_page_run(page, path):
    for block in blocks(path):
        if block.is_run and not block.is_slow:
            before = seconds_of_processor()
            page.run(block)
            seconds = seconds_of_processor() - before
            assert seconds < MOST_SECONDS, f"{block.where} takes {seconds:.1f} s of processor time: <!-- slow -->"


@pytest.mark.slow
@pytest.mark.parametrize("path", some(PAGES, slow=True))
def test_all_blocks_of_a_page_run(page, path):
    printed = {block: page.run(block) for block in blocks(path) if block.is_run}
    if path == README:
        assert float(printed[example()].splitlines()[0]) > 0.9  # the accuracy


def test_the_example_of_the_readme_has_ten_lines():
    assert len([line for line in example().source.splitlines() if line.strip()]) == 10


def test_the_translated_readme_has_the_same_blocks():
    assert translated_blocks(README_CHINESE) == translated_blocks(README)


def translated_blocks(page: Path) -> list[tuple[str, str, dict[str, str]]]:
    """Return the language, the source without comments and the marks of each block."""
    return [(block.language, re.sub(r"\s*#.*", "", block.source), block.marks) for block in blocks(page)]


def test_the_translated_readme_has_the_same_numbers():
    chinese, english = (prose_lines(page) for page in (README_CHINESE, README))
    assert [sorted(numbers(row)) for row in table_rows(chinese)] == [
        sorted(numbers(row)) for row in table_rows(english)
    ]
    assert sorted(numbers("\n".join(chinese))) == sorted(numbers("\n".join(english)))


def test_the_translated_readme_has_the_same_links():
    chinese, english = (re.findall(r"\]\(((?!README)[^)]*)\)", p.read_text("utf-8")) for p in (README_CHINESE, README))
    assert sorted(chinese) == sorted(english)


@pytest.mark.parametrize("page_of_readme", [README, README_CHINESE], ids=["english", "chinese"])
def test_the_numbers_of_the_readme_stand_in_the_benchmark_that_their_row_links_to(page_of_readme):
    measured = [row for row in table_rows(prose_lines(page_of_readme)) if numbers(row)]
    assert len(measured) > 10
    for row in measured:
        (link,) = re.findall(r"\((docs/benchmarks/[\w-]+\.md)\)", row)
        found = set(numbers((ROOT / link).read_text(encoding="utf-8")))
        missing = [number for number in numbers(row) if not forms(number) & found]
        assert not missing, f"{link} lacks {missing}"


def forms(number: str) -> set[str]:
    """Return a number, and a percentage as a fraction of as many digits."""
    return {number, str(Decimal(number[:-1]).scaleb(-2))} if number.endswith("%") else {number}


def prose_lines(page: Path) -> list[str]:
    return BLOCK.sub("", page.read_text(encoding="utf-8")).splitlines()


def table_rows(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("| ")]


def numbers(text: str) -> list[str]:
    """Return the numbers of a text, link targets excepted."""
    return NUMBER.findall(re.sub(r"\]\([^)]*\)", "]", text))


def example() -> Block:
    (block,) = [block for block in blocks(README) if block.language == "python"]
    return block


@pytest.mark.slow
def test_all_blocks_of_a_model_card_run(page):
    train = "likely train photos --model gaussian --out model"
    page.run(Block("sh", train, "the training", {}))
    shutil.copy(page.folder / "new" / "00.png", page.folder / "image.png")
    (page.folder / "DATA").symlink_to("photos")
    *usage, command = blocks(page.folder / "model" / "README.md", "the model card")
    assert [block.language for block in usage] == ["sh", "python"]
    for block in usage:
        page.run(block)
    assert command.source.strip() == train


def test_few_blocks_are_not_run_and_all_say_why():
    reasons = [block.marks["not run"] for path in PAGES for block in blocks(path) if "not run" in block.marks]
    assert len(reasons) <= MOST_NOT_RUN
    assert all(reasons)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_command_stands_in_a_block_that_runs(path):
    assert {block.language for block in blocks(path)} <= RUN | SHOWN
    shown = "".join(block.source for block in blocks(path) if block.language in SHOWN)
    assert not re.findall(r"^(?:\$ |likely |pip |python |make |>>> ).*", shown, re.MULTILINE)
