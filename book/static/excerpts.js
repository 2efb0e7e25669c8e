// Under each result of the search: the section that fits best, as a link, and its words around what was searched for.
// The texts lie packed in sections.js; Sphinx would fetch the pages, which no browser does for a page from a disk.
"use strict"

const AROUND = 90

function fit(words, [, , title, text]) {
  const inTitle = title.toLowerCase(), inText = text.toLowerCase()
  return [words.join(" "), ...words].reduce((sum, word) => sum + (inTitle.includes(word) ? 2 : 0) + (inText.includes(word) ? 1 : 0), 0)
}

function excerpt(words, text) {
  const lower = text.toLowerCase(), paragraph = document.createElement("p")
  // Best where the words stand together as they were typed, else where the first of them stands.
  const place = [words.join(" "), ...words].map(each => lower.indexOf(each)).find(each => each >= 0) ?? 0
  const start = Math.max(0, place - AROUND), end = start + 3 * AROUND
  const shown = (start ? "… " : "") + text.slice(start, end) + (end < text.length ? " …" : "")
  const escaped = words.map(word => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
  for (const [i, part] of shown.split(new RegExp(`(${escaped.join("|")})`, "i")).entries()) {
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
  const all = () => results.querySelectorAll("ul.search li").forEach(item => explain(item, words, sections))
  new MutationObserver(all).observe(results, { childList: true, subtree: true })
  all()
})
