// Two switches for the labels: do the data shift them, does the loss? What the lesson's trainings came to lies in
// combinations.js (tools/combinations.py), so that nothing is trained here.
"use strict"

const VERDICTS = [
  "never shifted: each position is asked for the token that it has just read, and the model learns to repeat",
  "right: each position is asked for the next token",
  "shifted twice: each position is asked for the token after the next, and the model learns to skip",
]
const SVG = "http://www.w3.org/2000/svg"

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

// A row of tokens under their positions, and an arrow from each position to the token that it is asked for. The
// first two tokens are the prompt's: nothing asks for them.
function arrows(tokens, offset) {
  const step = 64, asked = []
  const picture = drawn("svg", { viewBox: `0 0 ${step * tokens.length} 124`, role: "img", class: "arrows" })
  tokens.forEach((token, i) => {
    const x = step * (i + 0.5), to = i + offset, learns = to >= 2 && to < tokens.length
    picture.append(
      drawn("circle", { cx: x, cy: 18, r: 14, class: learns ? "learns" : "idle" }),
      drawn("text", { x, y: 23, class: learns ? "number" : "" }, i),
      drawn("text", { x, y: 114, class: i < 2 ? "prompt" : "token" }, token))
    if (!learns) return
    const end = step * (to + 0.5), across = end - x, down = 62
    picture.append(
      drawn("path", { d: `M${x} 34l${0.9 * across} ${0.9 * down}`, class: "shaft" }),
      drawn("path", { d: "M0 0l-6 -14h12z", class: "head",
        transform: `translate(${end} ${34 + down}) rotate(${-Math.atan(across / down) * 180 / Math.PI})` }))
    asked.push(`position ${i}, which reads ${token}, for ${tokens[to]}`)
  })
  picture.setAttribute("aria-label", `Asked for: ${asked.join("; ")}.`)
  return picture
}

function summary(losses) {
  return `${losses[0].toFixed(1)} to ${losses.at(-1).toFixed(2)} in ${losses.length} steps`
}

// The losses of a training on a logarithmic axis, over those of the right one.
function curve(losses, right) {
  const width = 300, height = 120, lowest = Math.log(0.01), highest = Math.log(20)
  const at = value => height * (highest - Math.log(value)) / (highest - lowest)
  const path = values => values.map((value, i) =>
    `${i ? "L" : "M"}${(width * i / (values.length - 1)).toFixed(1)} ${at(value).toFixed(1)}`).join("")
  const picture = drawn("svg", { viewBox: `-34 -6 ${width + 40} ${height + 12}`, role: "img",
    "aria-label": `Line chart of the loss: ${summary(losses)}.` })
  for (const value of [10, 1, 0.1]) {
    picture.append(drawn("path", { d: `M0 ${at(value)}H${width}`, class: "rule" }),
      drawn("text", { x: -18, y: at(value) + 4 }, value))
  }
  picture.append(drawn("path", { d: path(right), class: "right" }), drawn("path", { d: path(losses), class: "own" }))
  return picture
}

function switches(box, { tokens, asked, combinations }) {
  const all = Object.values(combinations), right = all.find(each => each.data + each.loss == 1)
  const data = element("input", { type: "checkbox", role: "switch" })
  const loss = element("input", { type: "checkbox", role: "switch" })
  const controls = element("div", { class: "controls" },
    element("label", {}, data, " the data shift the labels"), element("label", {}, loss, " the loss shifts them"))
  const verdict = element("p", { class: "answer", role: "status" })
  const way = element("div")
  const results = element("div", { class: "columns" })

  function result(name, prompt, own, theirs, text) {
    const good = text(own.says) == text(theirs.says)
    return element("div", { class: good ? "same" : "other" },
      element("p", { class: "name" }, name),
      element("p", { class: "said" }, `${prompt} → `, element("strong", {}, text(own.says)), good ? " ✓" : " ✗"),
      curve(own.losses, theirs.losses),
      element("p", { class: "share" }, `Loss: ${summary(own.losses)}.`,
        good ? "" : ` Dashed, perhaps beneath it, the right training: ${summary(theirs.losses)}.`))
  }

  function show() {
    const own = all.find(each => each.data == data.checked && each.loss == loss.checked)
    const total = own.data + own.loss
    verdict.className = `answer ${total == 1 ? "same" : "other"}`
    verdict.replaceChildren(element("strong", {}, `${own.data} + ${own.loss} = ${total}`), `, ${VERDICTS[total]}.`)
    way.className = total == 1 ? "same" : "other"
    way.replaceChildren(arrows(tokens, total))
    results.replaceChildren(
      result("A tiny model that learns to count", "3, 4, 5", own.counting, right.counting, says => says.join(", ")),
      result("The real model", asked, own.real, right.real, says => says))
  }

  box.replaceChildren(controls, verdict,
    element("p", { class: "name" }, "Each position is asked for the token that its arrow leads to"), way, results)
  controls.addEventListener("input", show)
  show()
}

document.querySelectorAll(".shifts").forEach(async box => {
  if (!window.DecompressionStream) return // the still table stays
  switches(box, await unpack(window.COMBINATIONS))
})
