// A box over the symptoms: shown is what holds most of its words, whatever small words one types beside them.
"use strict"

const SMALL = new Set("a an and always does doesn't doesnt don't dont i is it its itself model my not the to won't wont".split(" "))

document.addEventListener("DOMContentLoaded", () => {
  const label = document.createElement("label"), box = document.createElement("input")
  const told = document.createElement("p")
  box.type = "search"
  box.placeholder = "stops, NaN, repeats …"
  label.className = "filter"
  label.append("What do you see? ", box)
  told.setAttribute("role", "status")
  document.querySelector("article h1").after(label, told)

  const entries = [...document.querySelectorAll("article section section section")]
  const intro = [...label.parentElement.children].slice(3).filter(each => each.tagName != "SECTION")
  const chapters = [...document.querySelectorAll("article > section > section, article section section")]
    .filter(each => each.querySelector(":scope > section"))
  function show() {
    const typed = box.value.toLowerCase().replaceAll("’", "'").split(/\s+/).filter(word => word)
    const large = typed.filter(word => !SMALL.has(word)), words = large.length ? large : typed
    const held = entries.map(entry => words.filter(word => entry.textContent.toLowerCase().includes(word)).length)
    const most = Math.max(...held)
    entries.forEach((entry, i) => { entry.hidden = words.length > 0 && (most == 0 || held[i] < most) })
    for (const chapter of chapters) chapter.hidden = !chapter.querySelector(":scope > section:not([hidden])")
    for (const each of intro) each.hidden = words.length > 0
    const found = entries.filter(entry => !entry.hidden).length
    told.textContent = !words.length ? "" : found ? `${found} of ${entries.length} entries`
      : "No entry has this word. Try another, such as stops or garbage, or clear the box."
  }
  box.addEventListener("input", show)
  addEventListener("hashchange", () => { // a link to an entry that is hidden
    box.value = ""
    show()
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView()
  })
})
