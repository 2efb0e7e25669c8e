// Under each result of the search: the section that fits best, as a link, and its words around what was searched for.
// The texts lie packed in sections.js; Sphinx would fetch the pages, which no browser does for a page from a disk.
// A word is found where it begins one: NaN is no part of bananas.
"use strict"

const AROUND = 90

function beginning(...words) {
  const escaped = words.map(word => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
  return new RegExp(`(?<![\\p{L}\\p{N}])(${escaped.join("|")})`, "iu")
}

function fit(words, [, , title, text]) {
  return [words.join(" "), ...words].map(word => beginning(word))
    .reduce((sum, word) => sum + (word.test(title) ? 2 : 0) + (word.test(text) ? 1 : 0), 0)
}

function excerpt(words, text) {
  const paragraph = document.createElement("p")
  // Best where the words stand together as they were typed, else where the first of them stands.
  const place = [words.join(" "), ...words].map(word => text.search(beginning(word))).find(each => each >= 0) ?? 0
  // No word is cut: it begins and ends at a space.
  const start = place > AROUND ? text.indexOf(" ", place - AROUND) + 1 : 0
  const end = start + 3 * AROUND < text.length ? text.lastIndexOf(" ", start + 3 * AROUND) : text.length
  const shown = (start ? "… " : "") + text.slice(start, end) + (end < text.length ? " …" : "")
  for (const [i, part] of shown.split(beginning(...words)).entries()) {
    paragraph.append(i % 2 ? Object.assign(document.createElement("mark"), { textContent: part }) : part)
  }
  return paragraph
}

function explain(item, words, sections) {
  const link = item.querySelector("a")
  if (!link || item.querySelector(".excerpt")) return
  const page = new URL(link.href).pathname.match(/((?:notebooks\/)?[^/]+)\.html$/)?.[1]
  const [best] = sections.filter(each => each[0] == page)
    .map(each => [fit(words, each), each]).filter(([fits]) => fits).sort((a, b) => b[0] - a[0])
  if (!best) return
  const [, [, anchor, title, text]] = best, box = document.createElement("div"), there = document.createElement("a")
  box.className = "excerpt"
  there.href = `${link.href.split("#")[0].split("?")[0]}#${anchor}`
  there.textContent = title
  box.append(there, excerpt(words, text))
  item.append(box)
}

document.addEventListener("DOMContentLoaded", async () => {
  const asked = new URLSearchParams(location.search).get("q") ?? ""
  const words = asked.toLowerCase().split(/\s+/).filter(word => word)
  const results = document.querySelector("#search-results")
  if (!words.length || !results || !window.DecompressionStream) return
  const sections = await unpack(window.SECTIONS)
  function all() {
    // Sphinx also lists a page's headings: a page is one result, and its best section is told under it.
    const pages = new Set(), status = results.querySelector(".search-summary")
    for (const item of results.querySelectorAll("ul.search > li")) {
      const page = item.querySelector("a")?.pathname
      if (pages.has(page)) item.remove()
      else explain(item, words, sections)
      pages.add(page)
    }
    const told = status?.textContent.replace(/\d+(?= pages)/, pages.size)
    if (status && status.textContent != told) status.textContent = told
  }
  new MutationObserver(all).observe(results, { childList: true, subtree: true })
  all()
})
