"""The book: built as ``make book`` and ``make run`` build it, read as HTML, and opened in a real browser."""

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import publish
import pytest
import stick
from lessons import EVERY, EXECUTED, LESSONS, ROOT, cells, read, title_and_aim
from nbformat import NotebookNode

bs4 = pytest.importorskip("bs4")
pytest.importorskip("sphinx_book_theme")
pytest.importorskip("sphinx_revealjs")

FAULTS = tomllib.loads((ROOT / "batchaudit" / "faults.toml").read_text(encoding="utf-8"))
PAGES = ["index", "symptoms", "cards", "glossary", "frameworks", "teaching"]
PHONE = {"width": 390, "height": 844}
PAPER = {"width": 718, "height": 1000}
"""What A4 has between its margins, in CSS pixels."""
TAGS = {"book": "", "run": "-t run"}


@dataclass
class Site:
    """A built book, and the folder of the notebooks whose outputs it shows."""

    folder: Path
    notebooks: Path

    @cached_property
    def pages(self) -> dict[str, Any]:
        """Every page by its path in the book."""
        paths = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*.html")}
        return {
            name: bs4.BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
            for name, path in paths.items()
            if not name.startswith(("_static/", "slides/"))  # templates, and the slides
        }

    def lesson(self, path: Path) -> Any:
        """The page of a lesson."""
        return self.pages[page_of(path)]


def build(root: Path, target: str, folder: Path) -> Path:
    """Build the book of the course in ``root`` with the commands that the Makefile has for a target."""
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    (slides,) = re.findall(r"^SLIDES = (.+)$", makefile, re.MULTILINE)
    recipe = makefile.split(f"\n{target}: ")[1].split("\n\n")[0].replace("$(SLIDES)", slides)
    for line in re.findall(r"python (-m sphinx .+)$", recipe, re.MULTILINE):
        command = [word.replace("build/", f"{folder}/") for word in shlex.split(line)]
        done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder / target


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(build(ROOT, "book", tmp_path_factory.mktemp("book")), ROOT / "notebooks")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The book of a published copy of the course, after a run whose outputs are none of the stored ones."""
    root = tmp_path_factory.mktemp("run") / "course"
    stick.copy_course(root)
    publish.publish(root, "https://github.com/someone/silent-bugs", "v1.0")
    executed = root / EXECUTED.relative_to(ROOT)
    executed.mkdir(parents=True)
    for path in EVERY:
        notebook = read(root / "notebooks" / path.name)
        for number, output in enumerate(outputs(notebook)):
            if "text" in output:
                output.text = f"printed in this run, output {number}\n"
            if "image/png" in output.get("data", {}):
                output.data["text/plain"] = f"Line chart of this run, output {number}: " + "it rises, " * 5
        nbformat.write(notebook, executed / path.name)
    return Site(build(root, "run", root / "build"), executed)


@pytest.fixture(scope="session", params=["book", "run"])
def site(request: pytest.FixtureRequest) -> Site:
    return request.getfixturevalue(request.param)


def page_of(lesson: Path) -> str:
    return f"notebooks/{lesson.stem}.html"


def markdown(lesson: Path) -> str:
    return "\n\n".join(cell.source for cell in cells(lesson, "markdown"))


def title(lesson: Path) -> str:
    return title_and_aim(read(lesson))[0]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def words(text: str) -> str:
    return " ".join(text.split())


def said(element: Any) -> str:
    return words(element.get_text()).rstrip("#")  # behind a heading stands its anchor


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
    (found,) = [tag for tag in page.article.find_all(["h1", "h2", "h3"]) if said(tag) == heading]
    return found.parent


# What is there, after `make book` and after `make run`


def test_every_lesson_and_page_is_in_the_menu(site: Site) -> None:
    expected = {*map(page_of, EVERY), *(f"{name}.html" for name in PAGES)}
    assert set(site.pages) == expected | {"search.html", "genindex.html"}
    menu = {
        link.split("#")[0] for link in own_links(site.pages["index.html"].find(class_="bd-sidebar-primary"))
    }
    assert menu >= expected - {"index.html"}


def test_no_link_or_anchor_is_broken(site: Site) -> None:
    anchors = {name: {tag["id"] for tag in page.find_all(id=True)} for name, page in site.pages.items()}
    for name, page in site.pages.items():
        for link in own_links(page):
            path, anchor = unquote(urlsplit(link).path), urlsplit(link).fragment
            target = ((site.folder / name).parent / path).resolve() if path else site.folder / name
            assert target.is_file(), f"{name}: {link}"
            if anchor:
                there = target.relative_to(site.folder.resolve()).as_posix() if path else name
                assert anchor in anchors[there], f"{name}: {link}"


def test_every_figure_is_there_with_its_alt_text(site: Site) -> None:
    for name, page in site.pages.items():
        for image in page.select("article img"):
            assert ((site.folder / name).parent / image["src"]).stat().st_size > 1000, image["src"]
            assert len(image.get("alt", "")) > 60, f"{name}: {image['src']}"
    for path in LESSONS:
        data = [output.get("data", {}) for output in outputs(read(site.notebooks / path.name))]
        figures = [words(types["text/plain"]) for types in data if "image/png" in types]
        drawn = site.lesson(path).select("article .cell_output img")
        assert [words(image["alt"]) for image in drawn] == figures


def test_nothing_is_loaded_from_the_network(site: Site) -> None:
    loads = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
    for name, page in site.pages.items():
        for tag, attribute in loads.items():
            for element in page.find_all(tag, attrs={attribute: True}):
                assert not re.match(r"(https?:)?//", element[attribute]), f"{name}: {element}"
    for path in site.folder.rglob("*.css"):
        style = path.read_text(encoding="utf-8")
        assert not re.search(r"""(@import|url\()\s*["']?(https?:)?//""", style), path


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_shows_its_outputs_and_keeps_its_solutions_folded(path: Path, site: Site) -> None:
    article = site.lesson(path).article
    text = said(article)
    assert said(article.h1) == title(path)
    notebook = read(site.notebooks / path.name)
    for output in outputs(notebook):
        assert words(output.get("text", "")) in text
        data = output.get("data", {})
        if set(data) == {"text/plain"} and "step/s]" not in data["text/plain"]:
            assert words(data["text/plain"]) in text
    assert "step/s]" not in text, "the text of a progress bar"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (words(cell.source) in text) == (cell.id != "install")
    folded = article.find_all("details")
    assert len(folded) == markdown(path).count("<details>")
    for details in folded:
        assert not details.has_attr("open")
        assert len(said(details)) > len(said(details.summary)) + 20, "a hint lies outside of its fold"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_below_an_open_exercise_a_page_says_where_to_do_it(path: Path, site: Site) -> None:
    data = [output.get("data", {}) for output in outputs(read(site.notebooks / path.name))]
    is_open = sum(types.get("text/plain", "").startswith("Not answered yet") for types in data)
    lines = [said(line) for line in site.lesson(path).select("article .cell_output p")]
    told = [line for line in lines if line.startswith(f"Do it in the notebook, notebooks/{path.name}")]
    assert len(told) == is_open > 0
    assert "Not answered yet" not in said(site.lesson(path).article)


def test_the_start_says_whose_outputs_these_are(book: Site, run: Site) -> None:
    stored, own = said(book.pages["index.html"].article), said(run.pages["index.html"].article)
    assert "the outputs that are stored with the lessons" in stored
    assert "the outputs of your own run" not in stored
    assert "the outputs of your own run" in own
    assert "stored with the lessons" not in own


def test_where_the_course_is_published_its_book_leads_there(run: Site) -> None:
    there = "someone/silent-bugs/blob/v1.0"
    for path in LESSONS:
        links = {link["href"] for link in run.lesson(path).find_all("a", href=True)}
        assert f"https://colab.research.google.com/github/{there}/notebooks/{path.name}" in links
        assert any(link.startswith("https://mybinder.org/v2/gh/someone/silent-bugs/v1.0?") for link in links)
        for file in re.findall(r"\]\(\.\./([^)]+)\)", markdown(path)):
            assert f"https://github.com/{there}/{file}" in links
    for name, page in run.pages.items():
        foot = {link["href"] for link in page.find(class_="about").find_all("a")}
        assert "https://github.com/someone/silent-bugs" in foot
        assert any(link.startswith("https://github.com/someone/silent-bugs/issues/new?") for link in foot)
        if name not in ("genindex.html", "search.html"):
            picture = page.find("meta", property="og:image")["content"].split("github.io/silent-bugs/")[1]
            assert (run.folder / picture).is_file(), name
            assert len(page.find("meta", attrs={"name": "description"})["content"]) > 60, name
    ways = {said(link) for link in run.pages["index.html"].select(".buttons a")}
    assert ways == {"Try it here", "Begin with lesson 00", "Open in Colab", "Repository"}


# What is looked up


def test_the_cards_are_those_of_the_lessons(book: Site) -> None:
    for lesson, there, here in [
        (2, "Rule card", "The rule card"),
        (3, "Who shifts where?", "Who shifts where"),
    ]:
        theirs, ours = under(book.lesson(LESSONS[lesson]), there), under(book.pages["cards.html"], here)
        assert table_rows(ours) == table_rows(theirs) != []


def test_every_symptom_has_a_lesson_and_every_code_a_symptom(book: Site) -> None:
    page = book.pages["symptoms.html"]
    known = under(page, "All that the audit knows")
    linked = set()
    for section in [title.parent for title in page.article.find_all("h3") if known not in title.parents]:
        assert lessons_of(section), said(section.h3)
        links = section.find_all("a", class_="reference")
        linked |= {said(link) for link in links if link["href"].startswith("#")}
    assert linked == set(FAULTS)


@pytest.mark.parametrize("code", FAULTS)
def test_a_code_is_explained_with_a_link_to_its_lesson(book: Site, code: str) -> None:
    section, fault = book.pages["symptoms.html"].find("section", id=re.sub(r"[._]", "-", code)), FAULTS[code]
    for part in (fault["what"].rstrip("."), fault["symptom"], fault["cause"], fault["fix"]):
        assert words(part) in said(section)
    (link,) = section.find_all("a", class_="reference")
    assert f"lesson {said(link).replace(' · ', ', ')}" == fault["lesson"]


@pytest.mark.parametrize(
    ("shown", "lesson"),
    [
        ("The name of the city of the city of the city", 1),
        ("7, 9, 11", 3),
        ("5, 5, 5", 3),
        ("10.8", 3),
        ("15.6", 3),
        ("14.4", 3),
        ('action "action "action', 4),
    ],
)
def test_what_the_symptoms_quote_is_a_stored_output(book: Site, shown: str, lesson: int) -> None:
    assert shown in said(book.pages["symptoms.html"].article)
    assert shown in said(book.lesson(LESSONS[lesson]).article)


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


def test_every_term_of_the_glossary_is_in_the_lessons_that_it_names(book: Site) -> None:
    text = {path.stem[:2]: said(book.lesson(path).article).lower().replace("_", " ") for path in LESSONS}
    for term in book.pages["glossary.html"].find_all("dt"):
        lessons = lessons_of(term.find_next_sibling("dd"))
        assert lessons, said(term)
        name = said(term).lower().replace("_", " ")
        assert all(name in text[number] for number in lessons), f"{name}: {lessons}"


# What is taught


def test_the_readmes_minutes_are_those_of_the_lessons(book: Site) -> None:
    in_the_guide = [row[1] for row in table_rows(under(book.pages["teaching.html"], "Minutes"))]
    in_the_readme = [row[1] for row in table_rows(under(book.pages["index.html"], "Lessons"))]
    assert in_the_guide == [*in_the_readme, str(sum(map(int, in_the_readme)))]


def test_the_plans_fill_their_time_with_what_the_lessons_have(book: Site) -> None:
    guide = book.pages["teaching.html"]
    short, long = under(guide, "A plan for 90 minutes"), under(guide, "A plan for half a day")
    starts = [int(row[0]) for row in table_rows(short)]
    assert starts == sorted({0, *starts})
    assert starts[-1] < 90
    time = 0
    for start, minutes, *_ in table_rows(long):
        assert start == f"{time // 60}:{time % 60:02}"
        time += int(minutes)
    assert time == 240
    for row in [*short.find_all("tr"), *long.find_all("tr")]:
        lessons = [path for path in LESSONS if path.stem[:2] in [said(link) for link in row.find_all("a")]]
        text = "".join(said(book.lesson(path).article) for path in lessons).lower()
        for chapter in row.find_all("em"):
            assert said(chapter).rstrip(".").lower() in text, said(chapter)
        for number, name in re.findall(r"exercise (\d), ([^,.?]+)", said(row), re.IGNORECASE):
            assert f"exercise {number}: {name}" in text, name


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_misconception_of_a_lesson_has_its_question(path: Path, book: Site) -> None:
    met = markdown(path).split("**Misconceptions met**")[1].split("**Sources:**")[0]
    rows = table_rows(under(book.pages["teaching.html"], title(path)))
    assert len(rows) == met.count("\n- ")
    assert all(said and "?" in question and reply for said, question, reply in rows)


@pytest.mark.parametrize("change", ["a new misconception", "one that is gone"])
def test_a_misconception_and_its_question_cannot_part(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.syspath_prepend(ROOT / "book")
    import sources

    real = sources.misconceptions
    met = {
        "a new misconception": lambda path: real(path) | {"New.": "No."},
        "one that is gone": lambda path: {},
    }
    monkeypatch.setattr(sources, "misconceptions", met[change])
    with pytest.raises(ValueError, match="but not in both"):
        sources.questions_tables()


def test_the_slides_follow_the_plan_for_90_minutes(site: Site) -> None:
    section = under(site.pages["teaching.html"], "A plan for 90 minutes")
    plan = table_rows(section)
    (slides,) = [site.folder / link["href"] for link in section.find_all("a") if "slides/" in link["href"]]
    deck = bs4.BeautifulSoup(slides.read_text(encoding="utf-8"), "html.parser")
    parts = [
        re.match(r"minute (\d+)(?: · lesson (\d\d))? · (\w+)$", said(part)) for part in deck.select(".minute")
    ]
    assert [part.groups("") for part in parts] == [(minute, lesson, how) for minute, lesson, _, how in plan]


# What a person sees, who opens the pages from a disk


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of the browser, on a phone; what it complains about is an error, and so is a look elsewhere."""
    context = browser.new_context(viewport=PHONE, has_touch=True)
    page = context.new_page()
    page.set_default_timeout(15_000)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(f"{request.failure}: {request.url}"))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(("file:", "data:")) else errors.append(asked.url),
    )
    yield page
    context.close()
    # What was still on its way when the page was left is aborted; nothing is wrong with it.
    assert [error for error in errors if not error.startswith("net::ERR_ABORTED")] == []


def test_every_page_opens_without_an_error_fits_a_phone_and_is_light(book: Site, page: Any) -> None:
    """A first visit of any page loads at most 700 kB, as they lie on the disk."""
    loaded = set()
    page.on("request", lambda asked: loaded.add(unquote(urlsplit(asked.url).path)))
    for name in book.pages:
        loaded.clear()
        page.goto((book.folder / name).as_uri(), wait_until="networkidle")
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= PHONE["width"], f"{name} is {width} wide"
        assert 300_000 < sum(Path(path).stat().st_size for path in loaded) < 700_000, (name, loaded)


def test_search_finds_the_attention_mask(book: Site, page: Any) -> None:
    page.goto((book.folder / "index.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("attention mask")
    page.keyboard.press("Enter")
    found = page.locator('#search-results li:has(> a:text("02 · Fix with masks"))').first
    assert "attention mask" in found.locator(".excerpt p").inner_text().lower()
    found.locator(".excerpt a").click()
    page.wait_for_url(f"**/{page_of(LESSONS[2])}#*")
    assert page.locator(f'[id="{page.url.split("#")[1]}"]').count() == 1


def test_search_lists_a_page_once_cuts_no_word_and_shows_no_folded_answer(book: Site, page: Any) -> None:
    for asked in ("never stops", "mask", "nan"):
        page.goto((book.folder / "search.html").as_uri() + f"?q={asked}")
        page.get_by_text("Search finished").wait_for()
        links = page.locator("#search-results li > a")
        found = [link.split("#")[0] for link in links.evaluate_all("all => all.map(link => link.href)")]
        assert len(set(found)) == len(found) > 2
        assert f"found {len(found)} pages" in page.locator(".search-summary").inner_text()
        whole = " ".join(text for *_, text in page.evaluate("unpack(window.SECTIONS)"))
        assert not re.search(r"\b[a-d]\) [✓✗]|<details|card-name", whole)
        for shown in page.locator(".excerpt p").all_inner_texts():
            assert set(words(shown).split()) - {"…"} <= set(whole.split())


@pytest.mark.parametrize(
    ("asked", "found"), [("stops", "It never stops"), ("nan", "My loss is NaN"), ("repeats", "It repeats")]
)
def test_a_box_filters_the_symptoms(book: Site, page: Any, asked: str, found: str) -> None:
    page.goto((book.folder / "symptoms.html").as_uri())
    entries = page.locator("article section section h3")
    before = entries.filter(visible=True).count()
    page.get_by_label("What do you see?").fill(asked)
    shown = entries.filter(visible=True).all_inner_texts()
    assert any(found in heading for heading in shown)
    assert 0 < len(shown) < before / 2


# What is wider than its box and cannot be scrolled there is lost; on paper nothing can be scrolled.
LOST = """paper => [...document.querySelectorAll("article *")].filter(each => {
  const flows = getComputedStyle(each).overflowX, bar = getComputedStyle(each, "::-webkit-scrollbar").height
  const wide = each.clientWidth && each.scrollWidth > each.clientWidth + 1 && flows != "visible"
  return wide && (paper || !["auto", "scroll"].includes(flows) || parseInt(bar) < 8)
}).map(each => each.textContent.slice(0, 60))"""
WRAPS = "div.cell_input pre, table:has(td[data-column])"


@pytest.mark.parametrize("where", ["desktop", "phone", "paper"])
def test_nothing_is_lost_at_the_right_edge(book: Site, page: Any, where: str) -> None:
    page.set_viewport_size({"desktop": {"width": 1400, "height": 900}, "phone": PHONE}.get(where, PAPER))
    page.emulate_media(media="print" if where == "paper" else "screen")
    for name in book.pages:
        page.goto((book.folder / name).as_uri())
        assert page.evaluate(LOST, where == "paper") == [], name
        if where == "phone":
            too_wide = "found => found.filter(each => each.scrollWidth > each.clientWidth + 1).length"
            assert page.locator(WRAPS).evaluate_all(too_wide) == 0, name


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, out of a wheel that is fetched without what it depends on."""
    folder = tmp_path_factory.mktemp("axe")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    command += ["--disable-pip-version-check", "-r", str(Path(__file__).with_name("axe.txt"))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        if "DO NOT MATCH" in done.stderr:
            pytest.fail(done.stderr)
        pytest.skip(f"axe-core cannot be had here: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob("*.whl")
    return (zipfile.Path(wheel) / "axe_playwright_python" / "axe.min.js").read_text(encoding="utf-8")


FOUND = """async () => (await axe.run({preload: false, resultTypes: ["violations"]})).violations.flatMap(
  found => found.nodes.map(node => `${found.id}: ${node.target.join(" ")}`))"""
OF_THE_THEME = {"region: .sidebar-primary-items__start > .sidebar-primary-item:nth-child(1)"}
"""The site's name over the menu stands in no landmark."""


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("index.html", "light"),
        (page_of(LESSONS[1]), "light"),
        (page_of(LESSONS[3]), "dark"),
        ("symptoms.html", "light"),
        (page_of(EVERY[-1]), "dark"),
    ],
)
def test_axe_finds_nothing_but_what_the_theme_brings(
    book: Site, page: Any, axe: str, name: str, scheme: str
) -> None:
    page.set_viewport_size({"width": 1400, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto((book.folder / name).as_uri())
    page.evaluate(axe)
    assert set(page.evaluate(FOUND)) <= OF_THE_THEME


def test_the_slider_answers_to_keys_and_touch(book: Site, page: Any) -> None:
    page.goto((book.folder / "index.html").as_uri())
    slider = page.locator(".slider")
    answer, pads = slider.locator(".answer"), slider.get_by_role("slider")
    pads.focus()
    for key in ("End", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    assert pads.get_attribute("aria-valuetext") == "64 pads"
    assert "The name of the city of the city" in answer.inner_text()
    assert slider.locator(".bars .pad").count() == 64
    slider.get_by_role("checkbox").tap()
    assert answer.inner_text().startswith("The capital of France is Paris.")
    assert "0 % of its attention on the pads" in slider.inner_text()
    slider.get_by_role("radio", name="right").tap()
    assert answer.inner_text().startswith("(nothing)")
    for prompt in slider.locator("option").all_inner_texts():  # no setting lacks its state
        slider.get_by_role("combobox").select_option(prompt)
        slider.get_by_role("checkbox").set_checked(False)
        for side in ("left", "right"):
            slider.get_by_role("radio", name=side).check()
            for count in range(65):
                pads.fill(str(count))
                assert slider.locator(".next li").count() == 5


def test_many_pads_are_folded_until_one_opens_them(book: Site, page: Any) -> None:
    page.goto((book.folder / page_of(LESSONS[1])).as_uri())
    two_rows, masked = page.get_by_role("group", name="Token grid").all()
    for grid, lines in ((two_rows, 1), (masked, 2)):
        button = grid.get_by_role("button", name="64 the same")
        pads, hidden = grid.locator("td", has_text="<|im_end|>"), grid.locator("td[hidden]")
        before = pads.filter(visible=True).count()
        assert hidden.count() == 64 * lines
        button.press("Enter")
        assert hidden.count() == 0
        assert pads.filter(visible=True).count() == before + 64
        widths = grid.locator("tr").evaluate_all("rows => rows.map(row => row.cells.length)")
        assert len(set(widths)) == 1, "a column has slipped"
    masked.get_by_role("button").tap()
    assert masked.locator("td[hidden]").count() == 64 * 2

    page.goto((book.folder / "index.html").as_uri())
    slider = page.locator(".slider")
    slider.locator("summary").first.tap()
    pads = slider.locator(".tokens .pad")
    assert pads.filter(visible=True).count() == 2
    slider.get_by_role("button", name="62 pads").press("Enter")
    assert pads.filter(visible=True).count() == 64
    slider.get_by_role("slider").fill("40")
    assert pads.filter(visible=True).count() == 40, "what is open stays open"
    slider.get_by_role("button", name="38 pads").tap()
    assert pads.filter(visible=True).count() == 2


def test_from_a_disk_the_model_cannot_be_loaded_and_the_page_says_so(book: Site, page: Any) -> None:
    for name in ("index.html", page_of(LESSONS[1]), page_of(LESSONS[2])):
        page.goto((book.folder / name).as_uri())
        own = page.get_by_role("region", name="Your own words")
        assert own.get_by_role("button", name="Load the model (98 MB + 10 MB, once)").is_disabled()
        assert "this page was opened from a disk" in own.get_by_role("status").inner_text()


def test_the_switches_answer_to_keys_and_touch(book: Site, page: Any) -> None:
    page.goto((book.folder / page_of(LESSONS[3])).as_uri())
    switches = page.locator(".shifts")
    data, loss = switches.get_by_role("switch").all()
    told, arrows = switches.get_by_role("status"), switches.locator(".arrows")
    assert told.inner_text().startswith("0 + 0 = 0, never shifted")
    data.focus()
    page.keyboard.press("Space")
    assert told.inner_text().startswith("1 + 0 = 1, right")
    assert '{"action": "weather"' in switches.inner_text()
    assert 'Asked for: position 1, which reads ⏎, for {"' in arrows.get_attribute("aria-label")
    loss.tap()
    assert told.inner_text().startswith("1 + 1 = 2, shifted twice")
    assert "7, 9, 11, 13 ✗" in switches.inner_text()
    assert 'action "action' in switches.inner_text()
    assert "15.6 to" in switches.inner_text()
    assert 'Asked for: position 0, which reads istant, for {"' in arrows.get_attribute("aria-label")
    data.tap()
    assert told.inner_text().startswith("0 + 1 = 1, right")


TOO_LARGE = """() => [...document.querySelectorAll("section.present *")].filter(each => {
  const box = each.getBoundingClientRect(), cut = each.tagName == "PRE" && each.scrollWidth > each.clientWidth
  return box.right > innerWidth || box.bottom > innerHeight || cut
}).map(each => each.textContent.slice(0, 40))"""


def test_every_slide_fits_its_screen(book: Site, page: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto((book.folder / "slides" / "index.html").as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    for number in range(page.evaluate("Reveal.getTotalSlides()")):
        assert page.evaluate(TOO_LARGE) == [], f"slide {number + 1}"
        page.evaluate("while (Reveal.availableFragments().next) Reveal.nextFragment(); Reveal.next()")
    assert page.evaluate("Reveal.isLastSlide()")


def test_a_guess_is_answered_and_remembered_until_one_forgets(book: Site, page: Any) -> None:
    page.goto((book.folder / page_of(LESSONS[1])).as_uri())
    why = page.get_by_role("button", name="c) The tokens that fill a row up")
    page.get_by_role("button", name="b) The rows of a batch").press("Enter")
    why.tap()
    for _ in range(2):
        page.locator("p.reason").nth(1).wait_for()  # a tap comes back before the page has answered it
        assert "✗ The row without its neighbours" in page.locator("ul.options").first.inner_text()
        assert "✓ All the wrong answers have pads" in page.locator("ul.options").first.inner_text()
        assert (
            "2 questions on this page: 1 answered, 0 right at first."
            in page.locator(".score").first.inner_text()
        )
        page.reload()
    page.goto((book.folder / page_of(EVERY[-1])).as_uri())
    page.get_by_role("button", name="c) Five.").tap()
    page.goto((book.folder / "index.html").as_uri())
    progress = page.locator("#progress")
    assert "You have answered 2 of the 26 questions in lessons and quiz, 1 right" in progress.inner_text()
    assert (
        "1 of 2 answered, 0 right at first"
        in page.get_by_role("row", name="01 · Garbled output").inner_text()
    )
    for answer in ("dismiss", "accept"):
        assert "You have answered 2 of" in progress.inner_text()
        page.once("dialog", lambda dialog, answer=answer: getattr(dialog, answer)())
        with page.expect_event("dialog") as asked:
            page.get_by_role("button", name="Forget all").tap()
        assert "on all pages?" in asked.value.message
        page.reload()
    assert progress.inner_text().startswith("Lessons and quiz ask you 26 questions.")


def test_without_scripts_a_picture_stands_there_and_reasons_are_folded(book: Site, browser: Any) -> None:
    page = browser.new_page(java_script_enabled=False, viewport=PHONE)
    page.goto((book.folder / page_of(LESSONS[1])).as_uri())
    assert page.locator(".slider img").is_visible()
    assert page.locator("summary", has_text="Reasons").first.is_visible()
    assert page.locator("[aria-label='Token grid'] tr").first.locator("td").count() == 103
    assert page.locator("td[hidden]").count() == 0
    page.goto((book.folder / page_of(LESSONS[3])).as_uri())
    still = page.locator(".shifts").inner_text()
    assert all(
        said in still for said in ("7, 9, 11, 13", "5, 5, 5, 5", "15.6 to", "14.4 to", 'action "action')
    )
    page.close()
