from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from markupsafe import Markup, escape
from report_contents import NASTY, report_of

from likely.base import Domain, LikelihoodKind, LikelihoodType
from likely.reporting.formatting import likelihood_phrase
from likely.reporting.html import ReportContent, render
from likely.reporting.html.page import Table
from likely.reporting.html.sections.predictions import prediction_sections

VOID = {"meta", "link", "img", "wbr", "br"}


class Page(HTMLParser):
    """Parser of a page: elements with attributes, text, and whether all elements are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


@pytest.fixture(scope="module")
def html(full: ReportContent) -> str:
    return render(full)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_element_is_closed(page: Page, large: ReportContent) -> None:
    assert page.open == []
    assert Page(render(large)).open == []


def test_page_loads_nothing(page: Page, html: str) -> None:
    assert all(value.startswith("data:") for value in page.values("src"))
    assert all(value.startswith(("#", "data:")) for value in page.values("href"))
    assert not re.search(r"@import|url\(|<script|\ssrcset", html)


def test_policy_allows_only_the_style_sheet(page: Page, html: str) -> None:
    style = re.findall(r"<style>(.*?)</style>", html, flags=re.S)
    policy = next(value for value in page.values("content") if "default-src" in value)
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert len(style) == 1
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    assert not page.values("style")
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]


def test_every_image_has_a_text_alternative(page: Page) -> None:
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    charts = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    assert images
    assert all(image["alt"] and image["width"] and image["height"] for image in images)
    assert len(charts) == 7
    assert all(chart["aria-label"] for chart in charts)


def test_every_table_has_headers_and_a_caption(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    scopes = page.values("scope")
    assert tags.count("table") == tags.count("caption") == tags.count("thead")
    assert {"col", "row"} == set(scopes)


def test_names_are_escaped(page: Page, html: str) -> None:
    assert "<b>" not in html.replace("<b>All classes</b>", "")
    assert str(escape(NASTY))[:16] in html
    assert f"8 generated images of {NASTY}".removeprefix("8") in "".join(page.values("alt"))


def test_links_have_targets(page: Page) -> None:
    links = [value.removeprefix("#") for value in page.values("href") if value.startswith("#")]
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert set(links) <= set(ids)
    assert set(page.values("popovertarget")) <= set(ids)
    assert {anchor for anchor in ids if f"{anchor}-title" in ids} == set(links) - {"main"}


def test_charts_are_well_formed(html: str) -> None:
    drawings = re.findall(r'<svg role="img".*?</svg>(?=</div>)', html, flags=re.S)
    assert len(drawings) == 7
    for drawing in drawings:
        ElementTree.fromstring(drawing)


ANCHORS = {
    "curves": "training",
    "confusion": "confusion",
    "reliability": "reliability",
    "per_class": "classes",
    "samples": "samples",
    "interpolation": "interpolation",
    "reconstructions": "reconstructions",
    "most_atypical": "most-atypical",
    "most_confident_errors": "most-confident-errors",
    "accepted_unknown": "accepted-unknown",
    "label_issues": "label-issues",
    "similar_images": "similar-images",
    "data": "data",
    "provenance": "provenance",
}


def sections(content: ReportContent) -> list[str]:
    return [attributes["id"] for tag, attributes in Page(render(content)).elements if tag == "section"]


@pytest.mark.parametrize(("field", "anchor"), ANCHORS.items())
def test_section_is_absent_without_its_data(field: str, anchor: str, full: ReportContent) -> None:
    without = sections(replace(full, **{field: ()} if field == "interpolation" else {field: None}))
    assert set(sections(full)) - set(without) == {anchor}


def test_rejection_has_a_chart_for_each_measurement(full: ReportContent) -> None:
    def charts(content: ReportContent) -> list[str]:
        found = [section for section in prediction_sections(content) if section.anchor == "rejection"]
        return [chart.title for section in found for chart in section.blocks[0].charts]

    assert len(charts(full)) == 2
    assert charts(replace(full, false_alarms=None)) == charts(full)[1:]
    assert charts(replace(full, p_values=None)) == charts(full)[:1]
    assert charts(replace(full, p_values=None, false_alarms=None)) == []


def test_report_without_data_has_no_sections(bare: ReportContent) -> None:
    page = Page(render(bare))
    tags = [tag for tag, _ in page.elements]
    assert page.open == []
    assert tags.count("section") == tags.count("dl") == tags.count("aside") == 0
    assert "fashion" in page.words


def test_every_field_after_the_class_names_is_optional(full: ReportContent) -> None:
    for each in fields(ReportContent)[2:]:
        default = getattr(ReportContent(full.header, full.class_names), each.name)
        assert Page(render(replace(full, **{each.name: default}))).open == []


def test_likelihood_type_is_described(bare: ReportContent) -> None:
    types = (
        LikelihoodType(LikelihoodKind.LOWER_BOUND, Domain.PIXELS8),
        LikelihoodType(LikelihoodKind.EXACT, Domain.FEATURES),
        LikelihoodType(LikelihoodKind.UNNORMALIZED, Domain.PIXELS8),
        None,
    )
    assert len({likelihood_phrase(each) for each in types}) == len(types)
    for each in types:
        header = replace(bare.header, likelihood_type=each)
        assert likelihood_phrase(each) in "".join(Page(render(replace(bare, header=header))).words)


@pytest.mark.parametrize("edge", [64, 128, 512])
def test_report_of_ten_classes_is_small(edge: int) -> None:
    names = tuple(f"class {k}" for k in range(10))
    noise = report_of(names, (3, edge, edge), per_class=12)  # the worst that there is: no encoding makes it smaller
    assert len(render(noise)) < 5e6


def test_photographs_open_at_full_size(large: ReportContent) -> None:
    photographs = report_of(("boot", "bag"), (3, 60, 90), per_class=8)
    page = Page(render(photographs))
    opened = [attributes for _, attributes in page.elements if "popover" in attributes]
    buttons = [attributes for tag, attributes in page.elements if tag == "button" and attributes["type"] == "button"]
    n = sum(len(photographs.most_atypical.images) for _ in range(3)) + 2 + 4 + 2
    assert len(opened) == n
    assert all(each["role"] == "dialog" and each["aria-label"] for each in opened)
    assert len(buttons) == 2 * n  # to open and to close
    assert "popover" not in {key for _, attributes in Page(render(large)).elements for key in attributes}  # tiny images


def test_many_classes_are_folded(large: ReportContent) -> None:
    blocks = {section.anchor: section.blocks for section in prediction_sections(large)}
    _, pairs = blocks["confusion"]
    assert isinstance(pairs, Table)
    assert 0 < len(pairs.rows) <= 20
    (table,) = blocks["classes"]
    assert isinstance(table, Table)
    assert len(table.rows) + len(table.folded) == len(large.class_names)
    assert large.per_class is not None
    assert Markup(table.rows[0][0]).striptags() == large.class_names[int(large.per_class.recall.argmin())]
    assert "details" in [tag for tag, _ in Page(render(large)).elements]
