"""Your own words: the shipped model in a page of the book, in a real browser (``make test-words``)."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import states
import words
from test_book import PHONE, build

pytestmark = pytest.mark.words

JAPAN, MOUSE = "What is the capital of Japan?", "What is the plural of mouse?"
LOADING, ANSWERING = 120_000, 240_000
"""Milliseconds after which a test gives up; a loaded machine has taken a third of it."""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built book, with the model beside it."""
    if not shutil.which("npm"):
        pytest.skip("there is no npm here, which fetches the program")
    folder = build(words.ROOT, "book", tmp_path_factory.mktemp("book"))
    try:
        words.put(folder / "words")
    except RuntimeError as error:
        pytest.skip(f"the model or its program cannot be had: {error}")
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    """The address at which that book is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on a phone whose browser has kept nothing of another test; what a script throws is an error."""
    context = browser.new_context(viewport=PHONE, has_touch=True)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def loads(page: Any) -> Any:
    """Return the button that loads the model."""
    return page.get_by_role("button", name="Load the model (98 MB + 10 MB, once)")


def ask(page: Any, prompt: str, pads: int) -> tuple[str, list[tuple[str, float]]]:
    """Ask the loaded model, with the keys; return its answer, and the first tokens with their percents."""
    part = page.get_by_role("region", name="Your own words")
    part.get_by_label("Pads").fill(str(pads))
    part.get_by_label("Your words").fill(prompt)
    page.keyboard.press("Enter")
    part.locator(".answer small:text-matches('it ended|Cut off')").wait_for(timeout=ANSWERING)
    shares = [share.split("\n") for share in part.locator(".next li").all_inner_texts()]
    said = part.locator(".answer strong").inner_text()
    return said, [(token, float(percent.removesuffix(" %"))) for token, percent in shares]


def test_the_model_answers_with_and_without_pads_after_one_download(site: str, page: Any) -> None:
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site}/index.html", wait_until="networkidle")
    assert loads(page).is_enabled()
    assert [url for url in asked if not url.startswith((f"{site}/_", f"{site}/index.html", "data:"))] == []
    asked.clear()
    loads(page).tap()
    field = page.get_by_label("Your words")
    field.wait_for(timeout=LOADING)
    assert field.evaluate("field => field == document.activeElement")
    there = [url for url in asked if not url.startswith(("data:", f"blob:{site}"))]
    assert there == [f"{site}/words/{name}" for name in words.FILES]

    known = states.stored()
    for prompt, pads in [(MOUSE, 0), (MOUSE, 64), (JAPAN, 0)]:
        answer, shares = ask(page, prompt, pads)
        state = known[prompt, pads, not pads, "left"]
        assert (answer == state["answer"]) == (pads == 0)
        assert ("mice" in answer) == (prompt == MOUSE and pads == 0)
        # 4 times 8 bits against 32: a wide lead stays one, and no probability is far from its own.
        assert len(shares) == 5
        assert shares[0] == (state["next"][0][0], pytest.approx(state["next"][0][1], abs=4))

    asked.clear()
    page.reload()
    loads(page).tap()
    field.wait_for(timeout=LOADING)
    assert not [url for url in asked if "/words/" in url], "the browser has not kept it"


def test_stop_stops_and_one_can_ask_again(site: str, page: Any) -> None:
    page.goto(f"{site}/index.html")
    loads(page).tap()
    page.get_by_role("button", name="Ask").tap(timeout=LOADING)
    page.get_by_role("button", name="Stop").tap()
    page.get_by_text("Stopped after").wait_for(timeout=ANSWERING)
    assert ask(page, JAPAN, 1)[0].startswith("The capital of Japan is Tokyo")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 404}, "was put up without its model"),
        ({"body": "another file"}, "is not the file that this page knows"),
    ],
)
def test_what_cannot_be_had_or_is_another_file_is_said(
    site: str, page: Any, answer: dict[str, Any], said: str
) -> None:
    page.route("**/words/wllama.wasm", lambda route: route.fulfill(**answer))
    page.goto(f"{site}/index.html")
    for _ in range(2):  # and nothing of it is kept
        loads(page).tap()
        page.get_by_text(said).wait_for()
    page.unroute_all()
    loads(page).tap()
    page.get_by_label("Your words").wait_for(timeout=LOADING)


def test_without_64_bit_memory_the_button_says_so(site: str, page: Any) -> None:
    page.add_init_script("WebAssembly.Memory = function () { throw new TypeError() }")
    page.goto(f"{site}/index.html")
    page.get_by_text("needs a browser whose WebAssembly has 64-bit memory").wait_for()
    assert loads(page).is_disabled()
    assert page.get_by_role("slider", name="Pads").is_enabled()


def test_a_damaged_file_is_fetched_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "words" / "wllama.js").write_text("damaged", encoding="utf-8")
    words.put(folder / "words")
    assert words._is_whole(folder / "words" / "wllama.js")
    for name in words.FILES:
        monkeypatch.setitem(words.FILES, name, {"bytes": 0, "sha256": "another"})
    with pytest.raises(RuntimeError, match="is not the file that the course knows"):
        words.put(folder / "words")
