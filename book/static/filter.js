// A box over the symptoms: what does not hold all its words is not shown.
"use strict"

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
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(word => word)
    for (const entry of entries) {
      entry.hidden = !words.every(word => entry.textContent.toLowerCase().includes(word))
    }
    for (const chapter of chapters) chapter.hidden = !chapter.querySelector(":scope > section:not([hidden])")
    for (const each of intro) each.hidden = words.length > 0
    const found = entries.filter(entry => !entry.hidden).length
    told.textContent = words.length ? `${found} of ${entries.length} entries` : ""
  })
})
