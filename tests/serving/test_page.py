"""The page in a real browser: drop a photo, see its class and a heat map; a phone; the keyboard alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

import frostline
from frostline.stats.predictions import Prediction
from support.photos import photo
from support.runs import Run
from support.serving import Live, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")

DROP = """([name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.querySelector("#drop").dispatchEvent(
      new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def bundle(run: Run) -> Path:
    return run.out / "frozen" / "bundle"


@pytest.fixture(scope="module")
def live(bundle: Path) -> Iterator[Live]:
    with running(bundle) as server:
        yield server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


def opened(browser: Browser, url: str, **options: Any) -> Page:
    """The page, once it knows its model; whatever goes elsewhere or wrong fails the test."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.on("request", lambda r: None if r.url.startswith((url, "blob:", "data:")) else pytest.fail(r.url))
    page.goto(url)
    expect(page.locator("#model-facts")).to_contain_text("Classes: class 2, class 10, Tulpe ü.")
    return page


def test_drop_a_photo_and_see_what_it_is_and_why(live: Live, chromium: Browser, bundle: Path, tmp_path: Path) -> None:
    page = opened(chromium, live.url)
    name = '<img src=x onerror=alert("no")>.jpg'
    page.evaluate(DROP, [name, list(photo(3))])
    card = page.locator(".result")
    expect(card.locator(".name")).to_have_text(name)
    (tmp_path / "a.jpg").write_bytes(photo(3))
    (expected,) = frostline.predict(bundle, [tmp_path / "a.jpg"])
    assert isinstance(expected, Prediction)
    expect(card.locator(".prediction")).to_have_text(
        re.compile(f"^{expected.predicted} {100 * expected.confidence:.0f} %$")
    )
    expect(card.locator(".classes li")).to_have_count(3)
    expect(card.locator(".neighbours h4")).to_have_text(
        re.compile(f"Class {expected.predicted}: . of the 5 most similar training photos")
    )
    widths = card.locator(".fill").evaluate_all("bars => bars.map(b => b.getBoundingClientRect().width)")
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 2

    card.get_by_role("button", name="Show heat map").click()
    overlay = card.locator(".overlay")
    expect(overlay).to_be_visible(timeout=90_000)
    assert overlay.evaluate("image => image.naturalWidth") == 60
    card.get_by_role("button", name="Show photo").click()
    expect(overlay).to_be_hidden()
    page.context.close()


def test_a_bad_file_gets_a_reason_and_the_others_go_on(live: Live, chromium: Browser, tmp_path: Path) -> None:
    page = opened(chromium, live.url)
    (tmp_path / "bad.jpg").write_bytes(b"no photo at all")
    (tmp_path / "cut.jpg").write_bytes(photo(1)[:300])
    (tmp_path / "good.jpg").write_bytes(photo(1))
    page.locator("#files").set_input_files([tmp_path / n for n in ("bad.jpg", "cut.jpg", "good.jpg")])
    page.wait_for_selector('body[data-done="3"]')
    failed = page.locator(".failed .prediction")
    expect(failed.nth(0)).to_have_text("This file can't be used: not a photo (unknown format).")
    expect(failed.nth(1)).to_contain_text("truncated")
    expect(page.locator(".result:not(.failed) .classes li")).to_have_count(3)
    expect(page.locator("#count")).to_have_text("3 photos")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".result")).to_have_count(0)
    page.context.close()


def test_a_phone_has_a_camera_and_nothing_sticks_out(live: Live, chromium: Browser, tmp_path: Path) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}
    page = opened(chromium, live.url, **phone)
    camera = page.get_by_label("Take a photo")
    assert camera.get_attribute("capture") == "environment"
    expect(page.locator(".camera")).to_be_visible()
    long = tmp_path / f"{'a-long-name-without-a-break' * 4}.jpg"
    long.write_bytes(photo(2))
    camera.set_input_files(long)
    page.wait_for_selector('body[data-done="1"]')
    expect(page.locator(".classes li")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.context.close()


def test_the_keyboard_alone_will_do(live: Live, chromium: Browser, tmp_path: Path) -> None:
    page = opened(chromium, live.url)
    page.on("filechooser", lambda _: None)  # a busy browser must know in time that the test handles its dialog
    (tmp_path / "a.jpg").write_bytes(photo(5))

    def tab_to(selector: str) -> None:
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        pytest.fail(f"the Tab key does not lead to {selector}")

    tab_to("#files")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(tmp_path / "a.jpg")
    page.wait_for_selector('body[data-done="1"]')
    expect(page.get_by_role("status")).to_have_text(re.compile(r"^a\.jpg: .+, .*\d+ %$"))  # for screen readers
    tab_to(".heat-map")
    page.keyboard.press("Enter")
    expect(page.locator(".overlay")).to_be_visible(timeout=90_000)
    assert page.evaluate("document.activeElement.className") == "heat-map"
    tab_to("summary")
    page.keyboard.press("Enter")
    expect(page.locator("#classes")).to_contain_text("Tulpe ü")
    page.context.close()


def test_a_token_is_asked_for_and_kept_in_the_tab(bundle: Path, chromium: Browser) -> None:
    with running(bundle, FROSTLINE_TOKEN="t0ken") as server:  # noqa: S106
        page = chromium.new_context().new_page()
        page.goto(server.url)
        field = page.get_by_label("This server needs a token")
        expect(field).to_be_focused()
        field.fill("wrong")
        field.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("The server did not accept this token.")
        field.fill("t0ken")
        field.press("Enter")
        expect(page.locator("#model-facts")).to_contain_text("Classes: ")
        page.reload()
        expect(page.locator("#model-facts")).to_contain_text("Classes: ")
        page.context.close()
