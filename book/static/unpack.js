// What the scripts of more than one page need: an element with what is in it, and what the build has packed
// (pages.py), as a value.
"use strict"

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0))
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json()
}

// A button for what is folded: it says what, and that it can be opened. `fold` is told whether to hide it, at once.
function foldButton(words, fold, folded = true) {
  const button = element("button", { type: "button", class: "fold" }, words)
  const set = () => { button.setAttribute("aria-expanded", !folded); fold(folded) }
  button.addEventListener("click", () => { folded = !folded; set() })
  set()
  return button
}
