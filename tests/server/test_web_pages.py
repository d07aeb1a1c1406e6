"""Web pages in Chromium. With LIKELY_SCREENSHOTS=FOLDER, the tests write screenshots there, such as those in docs/images/."""

import os
import shutil
import threading
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image
from sklearn.datasets import load_digits

from likely.server.http.app import application
from likely.server.http.model_registry import ModelRegistry
from likely.server.http.settings import Settings
from likely.server.store import PredictionFilter, Scope, Store

CHROMIUM = shutil.which("chromium")
MISSING = "Chromium is not installed; `make test-system` installs it"
LIGHT = {"viewport": {"width": 1200, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Image files: eight digits and three images of no class."""
    folder, digits = tmp_path_factory.mktemp("images"), load_digits().images * 255 / 16
    for i in range(1500, 1508):
        Image.fromarray(digits[i].astype(np.uint8)).save(folder / f"digit-{i}.png")
    for i, turned in enumerate(
        (digits[1501][::-1].T, 255 - digits[1502], np.random.default_rng(0).integers(0, 256, (8, 8)))
    ):
        Image.fromarray(np.ascontiguousarray(turned).astype(np.uint8)).save(folder / f"strange-{i}.png")
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="module")
def service(trained, tmp_path_factory):
    """Running service: (store, URL, key)."""
    store = Store.open(tmp_path_factory.mktemp("pages") / "store")
    _, secret = store.keys.add("person", [Scope.ADMIN])
    app = application(ModelRegistry([trained]), store, Settings(login_rate_limit=1e6))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    (port,) = [socket.getsockname()[1] for each in server.servers for socket in each.sockets]
    yield store, f"http://127.0.0.1:{port}", secret
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        if os.environ.get("LIKELY_SYSTEM_TESTS"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, service):
    """Function that opens a page and logs in; errors in the browser's console fail the test."""
    errors, contexts = [], []

    def page(how=LIGHT):
        _, address, secret = service
        contexts.append(browser.new_context(**how))
        found = contexts[-1].new_page()
        found.goto(address)
        found.get_by_label("Key").fill(secret)
        found.on("pageerror", lambda error: errors.append(str(error)))
        found.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        found.get_by_role("button", name="Log in").click()
        found.get_by_role("button", name="Choose files").wait_for()
        return found

    yield page
    for context in contexts:
        context.close()
    assert errors == []


def go(page, name):
    page.get_by_role("link", name=name, exact=True).click()
    page.wait_for_timeout(200)


def check_layout(page, name):
    """Check that the page fits the screen, in light and dark colors and on a phone; write screenshots if requested."""
    folder, light = os.environ.get("LIKELY_SCREENSHOTS"), page.viewport_size
    if folder:
        page.locator("#notifications p").first.wait_for(state="detached")  # notifications would cover the page
    for look, scheme, size in (("", "light", light), ("-dark", "dark", light), ("-phone", "light", PHONE["viewport"])):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        if folder:
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(600)
            page.screenshot(path=Path(folder) / f"page-{name}{look}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(light)


def classify(page, images):
    page.locator("input[type=file]").first.set_input_files(images)
    page.locator(".prediction").nth(len(images) - 1).wait_for()


def test_images_can_be_classified_explained_and_corrected(opened, service, images):
    page, store = opened(), service[0]
    classify(page, images)
    statuses = set(page.locator(".badge").all_inner_texts())
    assert {"known", "unknown"} <= statuses
    unknown = page.locator(".prediction").filter(has=page.locator(".badge.unknown")).first
    assert unknown.locator(".bars").count() == 0
    assert not {"false", "null", "undefined"} & set(unknown.inner_text().split())
    page.get_by_role("button", name="Why?").last.click()
    page.locator(".pair img").nth(1).wait_for()
    page.get_by_role("button", name="Wrong?").last.click()
    page.get_by_role("button", name="Save").click()  # no class is preselected
    page.get_by_text("Choose a class first.").wait_for()
    page.get_by_label("Correct class").select_option("7")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved: 7.").wait_for()
    assert len(store.predictions(PredictionFilter(true_label="7"))) == 1
    page.evaluate("scrollTo(0, 0)")
    check_layout(page, "classify")
    phone = opened(PHONE)

    classify(phone, images[:4])
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"


def test_unreadable_image_is_shown_among_predictions(opened, images, tmp_path):
    page, cut = opened(), tmp_path / "cut.png"
    cut.write_bytes(Path(images[0]).read_bytes()[:60])
    classify(page, [images[0], str(cut)])
    page.get_by_text("Cannot be read").wait_for()
    page.get_by_text("2 images classified").wait_for()
    go(page, "Review")
    page.get_by_text("2 images classified").wait_for(state="hidden")


def test_many_images_can_be_labeled_by_keyboard_and_mouse(opened, service, images):
    page, store = opened(), service[0]
    classify(page, images)
    go(page, "Review")
    boxes = page.locator(".tile input")
    boxes.nth(0).wait_for()
    n = boxes.count()
    boxes.nth(0).focus()
    page.keyboard.press("Space")
    boxes.nth(n - 1).click(modifiers=["Shift"])
    page.get_by_text(f"{n} selected").wait_for()
    check_layout(page, "review")
    page.get_by_label("Class of the selected images").fill("strange")
    page.keyboard.press("Enter")
    page.get_by_text(f"{n} labeled strange.").wait_for()
    assert len(store.predictions(PredictionFilter(true_label="strange"))) == n
    page.get_by_role("button", name="Labeled").click()
    page.get_by_text("labeled strange").first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as a training folder").click()
    assert download.value.suggested_filename == "labeled.zip"


def test_new_images_appear_on_the_map(opened, images):
    page, other = opened(), opened()
    go(page, "Map")
    page.locator(".map .marker").first.wait_for()
    before = page.locator(".map image").count()
    classify(other, images[:3])
    page.locator(".map image").nth(before + 2).wait_for()
    page.get_by_role("button", name="Show all").click()
    check_layout(page, "map")
    where = page.locator(".map .marker").first.get_attribute("transform")
    page.locator(".map").focus()
    page.keyboard.press("+")
    assert page.locator(".map .marker").first.get_attribute("transform") != where


def test_classes_show_samples_and_a_new_one_can_be_added(opened, service, tmp_path):
    page = opened()
    go(page, "Classes")
    page.get_by_alt_text("0, generated").first.wait_for()
    page.get_by_text("in training").first.wait_for()
    check_layout(page, "classes")
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)).save(tmp_path / f"{i}.png")
    page.get_by_label("Name of the new class").fill("noise")
    page.locator("form.add input[type=file]").set_input_files(sorted(map(str, tmp_path.iterdir())))
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("now has the class noise").wait_for()
    page.get_by_role("heading", name="noise", exact=True).wait_for()
    go(page, "Model")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("is served now").wait_for()
    go(page, "Classes")
    page.get_by_role("heading", name="0", exact=True).wait_for()
    assert not page.get_by_role("heading", name="noise", exact=True).count()


def test_model_page_links_report_and_card(opened):
    page = opened()
    go(page, "Model")
    page.get_by_text("gaussian").first.wait_for()
    check_layout(page, "model")
    with page.context.expect_page() as report:
        page.get_by_role("link", name="Report").click()
    report.value.get_by_role("heading").first.wait_for()
    with page.context.expect_page() as card:
        page.get_by_role("link", name="Model card").click()
    card.value.get_by_text("## ").first.wait_for()


def test_login_refuses_an_unknown_key(browser, service):
    context = browser.new_context(**LIGHT)
    page = context.new_page()
    page.goto(service[1])
    page.get_by_label("Key").fill("lk_nobody")
    check_layout(page, "login")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("there is no such key").wait_for()
    context.close()


def test_pasted_image_is_classified(opened):
    page = opened()
    file = BytesIO()
    Image.fromarray((load_digits().images[1510] * 255 / 16).astype(np.uint8)).save(file, "PNG")
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], 'pasted.png', { type: 'image/png' }));
            dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }));
        }""",
        list(file.getvalue()),
    )
    page.get_by_text("pasted.png", exact=True).wait_for()
