"""The page, clicked through in a real Chromium."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.incidents import early, everything, with_text

WHOLE = {"whole": everything(), "early": early()}
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def graph(page: Page, number: int = 0) -> Locator:
    return page.locator(".flame").nth(number)


def frame(page: Page, name: str, number: int = 0) -> Locator:
    # Its rectangle: the frame itself is as wide as its text, what is clipped of it too.
    return graph(page, number).locator(f'.f[aria-label^="{name} "] > rect').first


def width(box: Locator) -> float:
    found = box.bounding_box()
    assert found is not None
    return found["width"]


def shown(box: Locator) -> bool:
    """Tell whether a frame is drawn."""
    return bool(box.evaluate("rect => getComputedStyle(rect.parentElement).display !== 'none'"))


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, {"width": 390, "height": 844}])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_opens_without_a_complaint_and_nothing_sticks_out(open_page, name, size, scheme):
    page = open_page(WHOLE[name], viewport=size, color_scheme=scheme)

    expect(page.get_by_role("heading", level=1)).to_contain_text("no byte of an answer has come.")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert "kubernetes-api-silent, 61 s: 2026" in page.title()


def test_threads_with_equal_stacks_unfold_at_a_click(open_page):
    page = open_page(everything())
    folded = page.locator(".stack", has_text="14 threads like this")
    expect(folded.get_by_text("ThreadPoolExecutor-0_13")).to_be_hidden()

    folded.locator("summary").click()

    expect(folded.get_by_text("ThreadPoolExecutor-0_13")).to_be_visible()
    expect(folded.get_by_text("concurrent/futures/thread.py:90")).to_be_visible()


def test_all_threads_unfold_and_fold_again(open_page):
    page = open_page(everything())
    number = page.locator(".stack").count()

    page.get_by_role("button", name="Open all").click()
    expect(page.locator(".stack[open]")).to_have_count(number)
    page.get_by_role("button", name="Close all").click()
    expect(page.locator(".stack[open]")).to_have_count(0)


def test_library_frames_can_be_hidden(open_page):
    page = open_page(everything())
    stalled = page.locator(".stack").first

    page.get_by_label("Hide library frames").check()

    expect(stalled.get_by_text("ssl.py:1105")).to_be_hidden()
    expect(stalled.get_by_text("KubernetesExecutor.sync")).to_be_visible()


def test_pointing_at_a_frame_tells_function_place_and_shares(open_page):
    page = open_page(everything())

    frame(page, "KubernetesExecutor.sync").hover()

    expect(graph(page).locator(".info")).to_have_text(
        "KubernetesExecutor.sync"
        " (airflow/providers/cncf/kubernetes/executors/kubernetes_executor.py:631):"
        " 100 %, 16 of 16 samples; normally 12 %"
    )


def test_a_click_zooms_into_a_frame_and_another_one_goes_back(open_page):
    page = open_page(everything())
    whole = width(graph(page, 1).locator(".graph"))
    chosen, other = frame(page, "KubernetesExecutor.sync", 1), frame(page, "sleep", 1)
    before = width(chosen)
    assert before < whole / 2

    chosen.click()

    assert width(chosen) == pytest.approx(whole, abs=2)
    assert not shown(other)
    assert width(frame(page, "SchedulerJobRunner._run_scheduler_loop", 1)) == pytest.approx(
        whole, abs=2
    )
    assert (
        width(frame(page, "BaseExecutor.heartbeat", 0)) > whole / 2
    )  # the other graph stays as it is

    chosen.click()

    assert width(chosen) == pytest.approx(before, abs=1)
    assert shown(other)


def test_the_button_zooms_out_and_is_there_only_then(open_page):
    page = open_page(everything())
    button = graph(page, 1).get_by_role("button", name="Zoom out")
    chosen = frame(page, "DagRun.update_state", 1)
    before = width(chosen)
    expect(button).to_be_hidden()

    chosen.click()
    expect(button).to_be_visible()
    button.click()

    expect(button).to_be_hidden()
    assert width(chosen) == pytest.approx(before, abs=1)


def test_a_graph_is_one_stop_for_the_keyboard_and_arrows_move_in_it(open_page):
    page = open_page(everything())
    normal = graph(page, 1)
    info = normal.locator(".info")
    assert normal.locator('.f[tabindex="0"]').count() == 1
    normal.locator(".f").first.focus()
    expect(info).to_contain_text("all, without 14 outermost frames: 100 %, 600 of 600 samples")

    page.keyboard.press("ArrowUp")
    expect(info).to_contain_text("SchedulerJobRunner._run_scheduler_loop (")
    page.keyboard.press("ArrowUp")
    expect(info).to_contain_text("wrapped (watchdog_hook/integrations/airflow/loop.py")
    page.keyboard.press("ArrowLeft")
    expect(info).to_contain_text("sleep (threading.py:1094)")
    page.keyboard.press("Enter")
    sleeping = frame(page, "sleep", 1)
    assert width(sleeping) == pytest.approx(width(normal.locator(".graph")), abs=2)
    expect(sleeping.locator("..")).to_be_focused()
    page.keyboard.press("Escape")
    assert width(sleeping) < width(normal.locator(".graph"))
    page.keyboard.press("ArrowDown")
    expect(info).to_contain_text("SchedulerJobRunner._run_scheduler_loop (")
    assert normal.locator('.f[tabindex="0"]').count() == 1


def test_a_search_marks_frames_and_says_their_share(open_page):
    page = open_page(everything())
    found = page.locator("#found")

    page.keyboard.press("/")
    page.keyboard.type("urllib3")

    expect(found).to_have_text(
        "“urllib3”: 94 % of the stall, 4 % of the healthy loop, 5 lines of the stacks"
    )
    assert graph(page).locator(".f.hit").count() == 5
    expect(page.locator(".stack").first.locator(".hits")).to_have_text("5 found")

    page.keyboard.press("Escape")

    expect(found).to_have_text("")
    assert page.locator(".hit").count() == 0


def test_a_search_that_finds_nothing_says_so_and_takes_no_text_for_a_pattern(open_page):
    page = open_page(everything())

    page.get_by_label("Search frames").fill(".*<b>")

    expect(page.locator("#found")).to_have_text(
        "“.*<b>”: 0 % of the stall, 0 % of the healthy loop, 0 lines of the stacks"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_the_button_says_otherwise(open_page, scheme):
    page = open_page(everything(), color_scheme=scheme)

    def brightness() -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3

    first = brightness()
    assert (first > 128) == (scheme == "light")
    button = page.locator("#theme")
    expect(button).to_have_text("Dark" if scheme == "light" else "Light")

    button.click()
    assert (brightness() > 128) == (scheme == "dark")
    expect(button).to_have_text("Light" if scheme == "light" else "Dark")
    button.click()
    assert brightness() == first


CONTRAST = """
() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).map((each) => each / 255)
      .map((each) => (each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, two) => {
    const [more, less] = [light(one), light(two)].sort((a, b) => b - a);
    return (more + 0.05) / (less + 0.05);
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
  };
  const found = {};
  const least = (name, value) => { found[name] = Math.min(found[name] ?? 99, value); };
  for (const box of document.querySelectorAll(".f")) {
    const text = box.querySelector("text");
    if (!text || box.classList.contains("all")) continue;
    least(`frame ${box.classList[1]}`,
      ratio(getComputedStyle(text).fill, getComputedStyle(box.querySelector("rect")).fill));
  }
  for (const name of [".dim", ".tag", ".hot", ".function", ".place", "dt", "dd", "th", "td", "h1", "code"]) {
    for (const each of document.querySelectorAll(name)) {
      least(name, ratio(getComputedStyle(each).color, behind(each)));
    }
  }
  return found;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_on_what_lies_behind_it(open_page, scheme):
    found = open_page(everything(), color_scheme=scheme).evaluate(CONTRAST)

    assert {"frame airflow", "frame library", "frame hook", "frame yours"} <= found.keys()
    assert {name: value for name, value in found.items() if value < 4.5} == {}


def test_without_scripts_all_is_there_but_the_controls(open_page):
    page = open_page(everything(), java_script_enabled=False)

    expect(page.get_by_text("SSLSocket.read ssl.py:1105").first).to_be_visible()
    expect(page.locator(".f.airflow").first).to_be_visible()
    for control in ("#search", "#theme", "#unfold"):
        expect(page.locator(control)).to_be_hidden()
    folded = page.locator(".stack", has_text="14 threads like this")
    folded.locator("summary").click()
    expect(folded.get_by_text("ThreadPoolExecutor-0_13")).to_be_visible()


def test_a_text_that_would_like_to_be_a_script_is_text(open_page):
    page = open_page(with_text(everything(), EVIL).evolve(id=everything().id))

    expect(page.get_by_role("heading", level=1)).to_have_text(EVIL)
    assert page.evaluate("document.querySelectorAll('script, img').length") == 1
    page.get_by_label("Search frames").fill(EVIL)
    expect(page.locator("#found")).to_contain_text(f"“{EVIL}”: 100 % of the stall")
    graph(page).locator(".f > rect").nth(1).hover()
    expect(graph(page).locator(".info")).to_contain_text(EVIL)
    page.get_by_role("button", name="Open all").click()
    for folded in page.locator("details > summary").all():
        folded.click()


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Return a server's address, and what it was asked for."""
    asked: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


TRY = """
async (url) => {
  const script = document.createElement("script");
  script.textContent = "window.ran = true";
  document.body.append(script);
  const image = new Image();
  const loaded = new Promise((done) => { image.onload = image.onerror = done; });
  image.src = `${url}/image`;
  await loaded;
  const fetched = await fetch(`${url}/fetch`).then(() => true, () => false);
  return [window.ran === true, fetched];
}
"""


def test_the_policy_holds_even_where_a_script_gets_in(open_page, server):
    url, asked = server
    page = open_page(everything(), quiet=False)

    assert page.evaluate(TRY, url) == [False, False]
    assert asked == []


def test_the_policy_is_what_holds_it(browser, server):
    url, asked = server
    page = browser.new_page()

    assert page.evaluate(TRY, url) == [True, True]
    assert asked == ["/image", "/fetch"]
    page.close()
