"""What the pages have beside their text: hero, slider, switches, names of cells, head, and a light theme."""

import base64
import gzip
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import combinations
import publish
import states
import words
from docutils import nodes
from lessons import LESSONS, ROOT
from sphinx.application import Sphinx


def slider(to_the_book: str = "") -> str:
    """Return the slider as Markdown: the README's picture, in whose place the script puts the live one."""
    picture = re.search(
        r"!\[(.+?)\]\(book/(pictures/hero.svg)\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    return f'<div class="slider">\n\n![{picture[1]}]({to_the_book}{picture[2]})\n\n</div>'


def shifts() -> str:
    """Return the switches for the labels as Markdown: a still table, in whose place the script puts them."""
    found = combinations.stored()
    heads = ("data + loss", "3, 4, 5 →", "loss of counting", f"{found['asked']} →", "loss of the real model")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for each in found["combinations"].values():
        counting, real = each["counting"], each["real"]
        counted, learned = (f"{run['losses'][0]:.1f} to {run['losses'][-1]:.2f}" for run in (counting, real))
        says = ", ".join(map(str, counting["says"]))
        row = f"{each['data']} + {each['loss']} | {says} | {counted} | `{real['says']}` | {learned}"
        lines.append(f"| {row} |")
    table = "\n".join(lines)
    return f'<div class="slider shifts">\n\n{table}\n\n</div>'


def cards(repository: str, tag: str) -> str:
    """Return the start page's two cards, without the mask and with it, and under them where to go on."""
    asked, pads = states.PROMPTS[0], states.MOST_PADS
    known = states.stored()
    said = known[asked, pads, False, "left"]["answer"], known[asked, 0, True, "left"]["answer"]
    calls = 'model.generate(<mark>batch["input_ids"]</mark>)', "model.generate(<mark>**batch</mark>)"
    names = ("without", "The mask left out"), ("with", "The mask passed")
    shown = "".join(
        f'<div class="card-{kind}"><p class="card-name">{name}</p><pre>{call}</pre>'
        f"<p>“{escape(asked)}”, behind {pads} pads:</p><p><strong>{escape(answer)}</strong></p></div>"
        for (kind, name), call, answer in zip(names, calls, said)
    )
    ways = {"Try it here": "#try-it", "Begin with lesson 00": f"notebooks/{LESSONS[0].stem}.html"}
    if repository:
        ways |= {"Open in Colab": publish.links(repository, tag, publish.FIRST_LESSON)["Colab"]}
        ways |= {"Repository": repository}
    links = "".join(f'<a class="button" href="{escape(link)}">{way}</a>' for way, link in ways.items())
    return f'<div class="cards">{shown}</div><p class="buttons">{links}</p>'


def write_packed(script: Path, name: str, value: Any) -> None:
    """Write a value as a script that a page from a disk can load: packed, since a first visit is slow."""
    told = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    packed = base64.b64encode(gzip.compress(told.encode(), mtime=0)).decode()
    script.write_text(f'window.{name} = "{packed}";\n', encoding="utf-8")


def sections(app: Sphinx) -> list[list[str]]:
    """Return what the search shows and leads to: each section's page, anchor, heading and text."""
    found = []
    for page in sorted(app.env.found_docs):
        for section in app.env.get_doctree(page).findall(nodes.section):
            text = " ".join(" ".join(open_texts(section)).split())
            title = section.next_node(nodes.title).astext()
            found.append([page, section["ids"][0], title, text])
    return found


def open_texts(section: nodes.section) -> Iterator[str]:
    """Yield the texts of a section of its own, without what is folded: it may be an answer."""
    folded = 0
    for child in section.children:
        if isinstance(child, nodes.raw):
            folded += child.astext().count("<details") - child.astext().count("</details>")
        elif not folded and not isinstance(child, nodes.section | nodes.title):
            yield child.astext()


def drop_unused(outdir: Path) -> None:
    """Take out of the theme's styles what is for classes that no page and no script names: three fifths.

    A selector with brackets stays: what is in them may be meant as *not* or as *one of these*.
    The slides, which an earlier build has put there, have styles of their own.
    """
    found = [path for kind in ("*.html", "*.js") for path in outdir.rglob(kind)]
    texts = [path.read_text(encoding="utf-8") for path in found if outdir / "slides" not in path.parents]
    named = {word for text in texts for word in re.findall(r"[\w-]+", text)}

    def used(rule: re.Match[str]) -> str:
        selectors = re.split(r",(?![^(]*\))", rule[1])
        classes = [re.findall(r"\.([a-z_][\w-]*)", re.sub(r"(?s)/\*.*?\*/", "", each)) for each in selectors]
        kept = [each for each, of in zip(selectors, classes) if "(" in each or named.issuperset(of)]
        return f"{','.join(kept)}{{{rule[2]}}}" if kept else ""

    for sheet in (outdir / "_static" / "styles").glob("*.css"):
        rules = sheet.read_text(encoding="utf-8")
        sheet.write_text(re.sub(r"([^{}]+)\{([^{}]*)\}", used, rules), encoding="utf-8")


def finish(app: Sphinx, error: Exception | None) -> None:
    """Write and mend what Sphinx has copied."""
    if not error:
        static = Path(app.outdir) / "_static"
        write_packed(static / "states.js", "STATES", list(states.stored().values()))
        write_packed(static / "combinations.js", "COMBINATIONS", combinations.stored())
        write_packed(static / "sections.js", "SECTIONS", sections(app))
        shutil.copyfile(ROOT / "book" / "pictures" / "readme-figure.png", static / "card.png")
        drop_unused(Path(app.outdir))


def name_cells(body: str) -> str:
    """Tell the cells of wide tables the names of their columns, which a phone shows in place of the head."""

    def named(table: re.Match[str]) -> str:
        names = [plain(head) for head in re.findall(r"(?s)<th\b.*?>(.*?)</th>", table[0])]
        if len(names) < 4 or "dataframe" in table[0] or 'scope="row"' in table[0]:
            return table[0]
        turn = itertools.cycle(names)
        return re.sub(r"<td\b", lambda _: f'<td data-column="{next(turn)}"', table[0])

    body = re.sub(r"(?s)<table\b.*?</table>", named, body)
    return body.replace('<th class="head"><p></p></th>', "<td></td>")  # a corner without a word is no heading


def plain(html: str) -> str:
    """Return a piece of HTML without its tags, in one line."""
    return " ".join(re.sub(r"<[^>]+>", "", html).split())


def description(body: str) -> str:
    """Return the first sentences of a page that say something: not its minutes, nor a heading."""
    found = map(plain, re.findall(r"(?s)<(?:p|li)\b[^>]*>(.*?)</(?:p|li)>", body))
    return next((text for text in found if len(text) > 60 and not re.match(r"\d+ minutes", text)), "")[:200]


def complete(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give a page what its head and its foot say, and the scripts that it needs."""
    repository, tag = publish.read_address()
    body = context["body"] = name_cells(context.get("body", ""))
    # Whoever has no mouse scrolls a wide grid with the keys.
    grid = '<div style="overflow-x: auto"'
    body = context["body"] = body.replace(
        f"{grid}>", f'{grid} tabindex="0" role="group" aria-label="Token grid">'
    )
    body = context["body"] = body.replace("<img ", '<img loading="lazy" ')
    context["about"] = description(body)
    context["repository"] = repository
    if repository:
        owner, name = repository.removeprefix(publish.HOST).split("/")
        site = f"https://{owner}.github.io/{name}".lower()
        picture = re.search(r'<img [^>]*src="(?:\.\./)?(_images/[^"]+\.png)"', body)
        context["picture"] = f"{site}/{picture[1] if picture else '_static/card.png'}"
        told = {
            "title": f"Mistake on “{plain(context.get('title', ''))}”",
            "body": f"Page {page}, {tag}:\n\n",
        }
        context["report"] = f"{repository}/issues/new?{urlencode(told)}"
    scripts = []
    if '<div class="slider">' in body:
        scripts = ["unpack.js", "states.js", "slider.js"]
        app.add_css_file("words.css")
        # Before the slider, which tells it when it is built.
        told = {"data-from": context["words"], "data-files": json.dumps(words.FILES)}
        app.add_js_file("words.js", loading_method="defer", **told)
    elif '<div class="slider shifts">' in body:
        scripts = ["unpack.js", "combinations.js", "shifts.js"]
    elif page == "search":
        scripts = ["unpack.js", "sections.js", "excerpts.js"]
    elif page == "symptoms":
        scripts = ["filter.js"]
    if grid in body:
        scripts += ["unpack.js", "folds.js"]
    for script in dict.fromkeys(scripts):
        app.add_js_file(script, loading_method="defer")


def setup(app: Sphinx) -> None:
    """Connect all of it."""
    app.connect("html-page-context", complete)
    app.connect("build-finished", finish)
