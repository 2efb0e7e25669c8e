"""The book: built as ``make book`` builds it, read as HTML, and then as a person does, in a real browser."""

import functools
import http.server
import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import publish
import pytest
import stick

bs4 = pytest.importorskip("bs4")
pytest.importorskip("sphinx_book_theme")

ROOT = Path(__file__).parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
FAULTS = tomllib.loads((ROOT / "tinylib" / "audit" / "faults.toml").read_text(encoding="utf-8"))
PAGES = ["index", "symptoms", "cards", "glossary", "teaching"]
PHONE = {"width": 390, "height": 844}

Pages = dict[str, Any]


def build(root: Path, folder: Path) -> Path:
    """Build the book of the course in ``root`` with the command of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    command = shlex.split(re.search(r"^\t@\$\(BIN\)/python (-m sphinx .+)$", makefile, re.MULTILINE)[1])
    command = [word.replace("build/", f"{folder}/") for word in command]
    done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder / "book"


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def pages(book: Path) -> Pages:
    """Every page by its path in the book."""
    return read(book)


def read(book: Path) -> Pages:
    paths = {path.relative_to(book).as_posix(): path for path in book.rglob("*.html")}
    paths = {name: path for name, path in paths.items() if not name.startswith("_static/")}  # templates
    return {
        name: bs4.BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for name, path in paths.items()
    }


def page_of(lesson: Path) -> str:
    return f"notebooks/{lesson.stem}.html"


def cells(lesson: Path) -> list[dict[str, Any]]:
    return json.loads(lesson.read_text(encoding="utf-8"))["cells"]


def markdown(lesson: Path) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in cells(lesson) if cell["cell_type"] == "markdown")


def outputs(lesson: Path) -> list[dict[str, Any]]:
    return [output for cell in cells(lesson) for output in cell.get("outputs", [])]


def figures(lesson: Path) -> list[str]:
    """The alt texts of a lesson's figures."""
    data = [output.get("data", {}) for output in outputs(lesson)]
    return ["".join(types["text/plain"]) for types in data if "image/png" in types]


def words(text: str) -> str:
    return " ".join(text.split())


def said(element: Any) -> str:
    return words(element.get_text())


def own_links(element: Any) -> list[str]:
    """The links of an element that stay in the book."""
    links = [link["href"] for link in element.find_all("a", href=True)]
    return [link for link in links if not urlsplit(link).scheme]


def lessons_of(element: Any) -> set[str]:
    """The numbers of the lessons that an element links to."""
    return {number for link in own_links(element) for number in re.findall(r"notebooks/(\d\d)_", link)}


def table_rows(element: Any) -> list[list[str]]:
    return [[said(cell) for cell in row.find_all("td")] for row in element.find_all("tr") if row.find("td")]


def under(page: Any, heading: str) -> Any:
    """The section of a page with this heading."""
    for title in page.article.find_all(["h1", "h2", "h3"]):
        if said(title).rstrip("# ") == heading:
            return title.parent
    raise AssertionError(f"no heading {heading!r}")


# What is there


def test_every_lesson_and_page_is_in_the_book_and_in_its_menu(pages: Pages) -> None:
    expected = {*map(page_of, LESSONS), *(f"{name}.html" for name in PAGES)}
    assert set(pages) == expected | {"search.html", "genindex.html"}
    menu = {link.split("#")[0] for link in own_links(pages["index.html"].find(class_="bd-sidebar-primary"))}
    assert menu >= expected - {"index.html"}
    for path in LESSONS:
        (title,) = re.findall(r"^# (.+)$", markdown(path), re.MULTILINE)[:1]
        assert said(pages[page_of(path)].h1).rstrip("#") == title


def test_no_link_or_anchor_is_broken(pages: Pages, book: Path) -> None:
    anchors = {name: {tag["id"] for tag in page.find_all(id=True)} for name, page in pages.items()}
    checked = 0
    for name, page in pages.items():
        for link in own_links(page):
            path, anchor = unquote(urlsplit(link).path), urlsplit(link).fragment
            target = ((book / name).parent / path).resolve() if path else book / name
            assert target.is_file(), f"{name}: {link}"
            if anchor:
                assert anchor in anchors[target.relative_to(book.resolve()).as_posix() if path else name], (
                    f"{name}: {link}"
                )
            checked += 1
    assert checked > 500


def test_every_figure_is_there_with_its_alt_text(pages: Pages, book: Path) -> None:
    for name, page in pages.items():
        for image in page.select("article img"):
            assert ((book / name).parent / image["src"]).stat().st_size > 1000, f"{name}: {image['src']}"
            assert len(image.get("alt", "")) > 60, f"{name}: {image['src']}"
    for path in LESSONS:
        shown = [words(image["alt"]) for image in pages[page_of(path)].select("article img")]
        assert shown == list(map(words, figures(path)))
    assert len(pages["index.html"].select("article img")) == 1


def test_nothing_is_loaded_from_the_network(pages: Pages, book: Path) -> None:
    loads = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
    for name, page in pages.items():
        for tag, attribute in loads.items():
            for element in page.find_all(tag, attrs={attribute: True}):
                assert not re.match(r"(https?:)?//", element[attribute]), f"{name}: {element}"
    for path in book.rglob("*.css"):
        assert not re.search(r"""(@import|url\()\s*["']?(https?:)?//""", path.read_text(encoding="utf-8")), (
            path
        )


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_shows_its_stored_outputs_and_keeps_its_solutions_folded(path: Path, pages: Pages) -> None:
    article = pages[page_of(path)].article
    text = words(article.get_text())
    for output in outputs(path):
        assert words("".join(output.get("text", ""))) in text
        data = output.get("data", {})
        if set(data) == {"text/plain"} and "step/s]" not in "".join(data["text/plain"]):
            assert words("".join(data["text/plain"])) in text
    for cell in cells(path):
        if cell["cell_type"] == "code":
            left_out = "remove-cell" in cell["metadata"].get("tags", [])
            assert (words("".join(cell["source"])) in text) != left_out
    assert "step/s]" not in text, "the text of a progress bar"
    assert "```" not in text
    folded = article.find_all("details")
    assert len(folded) == markdown(path).count("<details>") > 0
    for details in folded:
        assert not details.has_attr("open")
        assert len(said(details)) > len(said(details.summary)) + 20, "a hint lies outside of its fold"
    assert any("Solution" in said(details.summary) and details.find(class_="highlight") for details in folded)


def test_where_the_address_of_the_repository_is_known_links_to_the_code_lead_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources = import_sources(monkeypatch)
    monkeypatch.setattr(sources, "LESSONS", tmp_path)
    sources.copy_lessons("https://example.org/us/course", "v1.0")
    text = markdown(tmp_path / LESSONS[7].name)
    assert "(https://example.org/us/course/blob/v1.0/tinylib/audit/faults.toml)" in text
    assert "](../" not in text


def test_a_published_book_opens_its_lessons_and_loads_nothing(tmp_path: Path) -> None:
    root = tmp_path / "course"
    stick.copy_course(root)
    publish.publish(root, "https://github.com/someone/silent-bugs", "v1.0")
    book = build(root, tmp_path / "build")
    pages = read(book)
    test_nothing_is_loaded_from_the_network(pages, book)
    test_every_figure_is_there_with_its_alt_text(pages, book)
    for path in LESSONS:
        links = {link["href"] for link in pages[page_of(path)].find_all("a", href=True)}
        file = f"someone/silent-bugs/blob/v1.0/notebooks/{path.name}"
        assert f"https://colab.research.google.com/github/{file}" in links
        assert any(link.startswith("https://mybinder.org/v2/gh/someone/silent-bugs/v1.0?") for link in links)


# What is looked up


def test_the_cards_are_those_of_the_lessons(pages: Pages) -> None:
    for lesson, there, here in [
        (2, "Rule card", "The rule card"),
        (3, "Who shifts where?", "Who shifts where"),
    ]:
        theirs = under(pages[page_of(LESSONS[lesson])], there)
        ours = under(pages["cards.html"], here)
        assert len(table_rows(ours)) >= 5
        assert table_rows(ours) == table_rows(theirs)
        for paragraph in theirs.find_all(["p", "li"]):
            assert said(paragraph) in said(ours)


def known_symptoms(pages: Pages) -> dict[str, Any]:
    """The sections that are told in a reader's words, by their headings."""
    page = pages["symptoms.html"]
    known = under(page, "All that the audit knows")
    sections = [title.parent for title in page.article.find_all("h3")]
    return {said(s.h3).rstrip("#"): s for s in sections if known not in s.parents}


@pytest.mark.parametrize(
    ("symptom", "code", "lesson"),
    [
        ("My model talks gibberish", "mask.missing", "01"),
        ("It never stops", "labels.end_of_turn", "05"),
        ("It repeats the last token", "labels.never_shifted", "03"),
        ("It skips every other word", "labels.shifted_twice", "03"),
        ("My loss is NaN", "labels.nothing_in_batch", "04"),
        ("My loss is 0", "labels.never_shifted", "03"),
        ("The first loss is far too high", "labels.shifted_twice", "03"),
        ("My answers change with the batch", "mask.ignored", "02"),
        ("The loss got better when I packed", "packing.samples_see_each_other", "06"),
        ("It forgets what was said before", "mask.hides_tokens", "05"),
    ],
)  # fmt: skip
def test_a_symptom_leads_to_its_cause_lesson_and_code(
    pages: Pages, symptom: str, code: str, lesson: str
) -> None:
    section = known_symptoms(pages)[f'"{symptom}"']
    assert lesson in lessons_of(section)
    assert code in [said(element) for element in section.find_all("code")]


def test_every_symptom_has_a_lesson_and_every_code_a_symptom(pages: Pages) -> None:
    linked = set()
    for heading, section in known_symptoms(pages).items():
        assert lessons_of(section), heading
        for link in section.find_all("a", class_="reference"):
            if link["href"].startswith("#"):
                code = said(link)
                assert link["href"] == "#" + re.sub(r"[._]", "-", code)
                linked.add(code)
    assert linked == set(FAULTS)


@pytest.mark.parametrize("code", FAULTS)
def test_the_auditors_words_for_a_code_are_on_the_page(pages: Pages, code: str) -> None:
    section = pages["symptoms.html"].find("section", id=re.sub(r"[._]", "-", code))
    fault = FAULTS[code]
    for part in (fault["what"].rstrip("."), code, fault["symptom"], fault["cause"], fault["fix"]):
        assert words(part) in said(section)
    (link,) = section.find_all("a", class_="reference")
    assert f"lesson {said(link).replace(' · ', ', ')}" == fault["lesson"]
    assert lessons_of(section) == {said(link)[:2]}


@pytest.mark.parametrize(
    ("shown", "lesson"),
    [
        ("The name of the city of the city of the city", 1),
        ("7, 9, 11", 3),
        ("5, 5, 5", 3),
        ("10.8", 3),
        ("15.6", 3),
        ("14.4", 3),
        ('action "",weather "",place', 4),
    ],
)
def test_what_the_symptoms_quote_is_a_stored_output(pages: Pages, shown: str, lesson: int) -> None:
    assert shown in said(pages["symptoms.html"].article)
    assert shown in said(pages[page_of(LESSONS[lesson])].article)


def test_no_label_at_all_gives_nan_or_zero_as_the_symptoms_say() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))
    ids = torch.randint(0, 64, (2, 6))
    nothing = torch.full_like(ids, -100)
    assert model(ids, labels=nothing).loss.isnan()
    assert model(ids, labels=nothing, num_items_in_batch=7).loss == 0
    one_row = torch.stack([ids[0], nothing[1]])
    torch.testing.assert_close(model(ids, labels=one_row).loss, model(ids[:1], labels=ids[:1]).loss)


def test_every_term_of_the_glossary_is_in_a_lesson_that_it_names(pages: Pages) -> None:
    terms = pages["glossary.html"].find_all("dt")
    assert len(terms) > 40
    text = {path.stem[:2]: said(pages[page_of(path)].article).lower().replace("_", " ") for path in LESSONS}
    for term in terms:
        lessons = lessons_of(term.find_next_sibling("dd"))
        assert lessons, said(term)
        name = said(term).rstrip("#").lower().replace("_", " ")
        assert all(name in text[number] for number in lessons), f"{name}: {lessons}"


# What is taught


def head_minutes(path: Path) -> str:
    return re.search(r"^\*(\d+) minutes · ", markdown(path), re.MULTILINE)[1]


def test_the_minutes_are_those_of_the_lessons(pages: Pages) -> None:
    minutes = [head_minutes(path) for path in LESSONS]
    in_the_guide = [row[1] for row in table_rows(under(pages["teaching.html"], "Minutes"))]
    assert in_the_guide == [*minutes, str(sum(map(int, minutes)))]
    assert [row[1] for row in table_rows(under(pages["index.html"], "Lessons"))] == minutes


def test_the_plans_fill_their_time_with_what_the_lessons_have(pages: Pages) -> None:
    guide = pages["teaching.html"]
    short, long = under(guide, "A plan for 90 minutes"), under(guide, "A plan for half a day")
    starts = [int(row[0]) for row in table_rows(short)]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] < 90
    time = 0
    for start, minutes, *_ in table_rows(long):
        assert start == f"{time // 60}:{time % 60:02}"
        time += int(minutes)
    assert time == 240
    for row in [*short.find_all("tr"), *long.find_all("tr")]:
        lessons = [path for path in LESSONS if path.stem[:2] in [said(link) for link in row.find_all("a")]]
        text = "".join(said(pages[page_of(path)].article) for path in lessons).lower()
        for chapter in row.find_all("em"):
            assert said(chapter).rstrip(".").lower() in text, said(chapter)
        for number, title in re.findall(r"exercise (\d), ([^,.?]+)", said(row), re.IGNORECASE):
            assert f"exercise {number}: {title}" in text, title


def misconceptions(path: Path) -> list[str]:
    return re.findall(r'^- \*"(.+?)"\* ', markdown(path).split("**Misconceptions met**")[1], re.MULTILINE)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_misconception_has_its_question(path: Path, pages: Pages) -> None:
    (title,) = re.findall(r"^# (.+)$", markdown(path), re.MULTILINE)[:1]
    rows = table_rows(under(pages["teaching.html"], title))
    met = misconceptions(path)
    assert len(met) == markdown(path).split("**Misconceptions met**")[1].split("**Sources:**")[0].count(
        "\n- "
    )
    assert [row[0] for row in rows] == [met_with.replace("`", "") for met_with in met]
    for _, question, reply in rows:
        assert "?" in question
        assert reply


def import_sources(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "notebooks")
    monkeypatch.syspath_prepend(ROOT / "book")
    import sources

    return sources


@pytest.mark.parametrize("change", ["a new misconception", "one that is gone"])
def test_a_misconception_and_its_question_cannot_part(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    sources = import_sources(monkeypatch)
    real = sources.misconceptions
    met = {
        "a new misconception": lambda path: real(path) | {"New.": "No."},
        "one that is gone": lambda path: {},
    }
    monkeypatch.setattr(sources, "misconceptions", met[change])
    with pytest.raises(ValueError, match="but not in both"):
        sources.questions_tables()


# What a person sees


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(book: Path) -> Iterator[str]:
    """The address of the book on this machine."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=book)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of the browser; what it complains about is an error, and so is what it asks the network for."""
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(15_000)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(f"{request.failure}: {request.url}"))
    page.on(
        "response",
        lambda reply: errors.append(f"{reply.status}: {reply.url}") if reply.status >= 400 else None,
    )
    page.on(
        "request", lambda request: errors.append(f"asks: {request.url}") if elsewhere(request.url) else None
    )
    yield page
    context.close()
    # What was still on its way when the page was left is aborted; nothing is wrong with it.
    assert [error for error in errors if not error.startswith("net::ERR_ABORTED")] == []


def elsewhere(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).hostname != "127.0.0.1"


def test_every_page_opens_without_an_error_and_fits_a_phone(site: str, pages: Pages, page: Any) -> None:
    for name in pages:
        page.goto(f"{site}/{name}")
        for size in (PHONE, {"width": 1400, "height": 900}):
            page.set_viewport_size(size)
            width = page.evaluate("document.scrollingElement.scrollWidth")
            assert width <= size["width"], f"{name} is {width} wide, and the window {size['width']}"


def test_a_wide_grid_scrolls_sideways_on_a_phone(site: str, page: Any) -> None:
    page.set_viewport_size(PHONE)
    page.goto(f"{site}/{page_of(LESSONS[2])}")
    grid = page.locator(".cell_output pre", has_text="attention_mask").first
    grid.evaluate("grid => grid.scrollLeft = 100")
    assert grid.evaluate("grid => grid.scrollLeft") == 100


@pytest.mark.parametrize("from_disk", [False, True], ids=["served", "from a disk"])
def test_search_finds_the_attention_mask(site: str, book: Path, page: Any, from_disk: bool) -> None:
    page.goto(f"{book.as_uri() if from_disk else site}/index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("attention mask")
    page.keyboard.press("Enter")
    found = page.locator("#search-results li a")
    found.filter(has_text="02 · Fix with masks").first.wait_for()
    assert "symptoms" in " ".join(found.all_inner_texts()).lower()
    found.filter(has_text="02 · Fix with masks").first.click()
    page.wait_for_url(f"**/{page_of(LESSONS[2])}*")
    assert page.locator("article h1").inner_text().startswith("02 · Fix with masks")


LEAST_CONTRAST = """selectors => {
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = colour => {
        const linear = x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = numbers(colour).map(x => linear(x / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = element => {
        const colour = getComputedStyle(element).backgroundColor;
        return numbers(colour)[3] === 0 ? ground(element.parentElement) : colour;
    };
    const contrast = element => {
        const both = [light(getComputedStyle(element).color), light(ground(element))];
        return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    };
    return Math.min(...selectors.map(selector => contrast(document.querySelector(selector))));
}"""
CORNER_IS_OPAQUE = """image => {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, 1, 1).data[3] === 255;
}"""


def test_light_and_dark_are_readable(site: str, page: Any) -> None:
    page.goto(f"{site}/{page_of(LESSONS[2])}")
    kinds = [
        "article p",
        "article p a",
        "article summary",
        "article td",
        "article h1",
        ".cell_output pre",
        "nav a",
    ]
    grounds = {}
    for theme in ("dark", "light"):
        page.locator(".theme-switch-button").first.click()
        page.locator(f'.theme-change-button[data-mode="{theme}"]').first.click()
        assert page.locator("html").get_attribute("data-theme") == theme
        assert page.evaluate(LEAST_CONTRAST, kinds) >= 4.5, theme
        grounds[theme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert grounds["dark"] != grounds["light"]
    images = page.locator("article img")
    for i in range(images.count()):
        images.nth(i).scroll_into_view_if_needed()
        assert images.nth(i).evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        assert images.nth(i).evaluate(CORNER_IS_OPAQUE), "black lines on a dark page"
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "light", "the choice is forgotten"


def test_a_hint_opens_when_it_is_pressed(site: str, page: Any) -> None:
    page.goto(f"{site}/{page_of(LESSONS[1])}")
    solution = page.locator("details", has_text="def safe_rows")
    code = solution.locator("pre")
    assert not code.is_visible()
    solution.locator("summary").click()
    assert code.is_visible()


def test_the_menu_works_on_a_phone(site: str, page: Any) -> None:
    page.set_viewport_size(PHONE)
    page.goto(f"{site}/index.html")
    page.locator("button.primary-toggle").click()
    menu = page.get_by_role("dialog").locator("visible=true")
    menu.get_by_role("link", name="03 · Label misalignment").click()
    page.wait_for_url(f"**/{page_of(LESSONS[3])}")
    assert page.locator("article h1").inner_text().startswith("03 · Label misalignment")
