// The slider: prompt, pads, mask and side, and what the model did with them. It asks no model: all states were
// computed once (tools/states.py) and lie packed in states.js, so that a page from a disk has them too.
"use strict"

const MOST_PADS = 64
const FEW_PADS = 8 // more are folded in the row, until somebody opens them

// Which state answers a setting. With the mask the number of pads changes nothing, on the right from the first on.
function keyOf(prompt, pads, mask, side) {
  if (pads == 0 || (mask && side == "left")) return [prompt, 0, true, "left"].join("\t")
  return [prompt, mask ? 1 : pads, mask, side].join("\t")
}

function build(box, states) {
  const byKey = new Map(states.map(each => [[each.prompt, each.pads, each.mask, each.side].join("\t"), each]))
  const prompts = [...new Set(states.map(each => each.prompt))]
  const prompt = element("select", {}, ...prompts.map(each => element("option", {}, each)))
  const pads = element("input", { type: "range", min: 0, max: MOST_PADS, value: MOST_PADS })
  const count = element("output")
  const mask = element("input", { type: "checkbox" })
  const sides = ["left", "right"].map(side => element("input", { type: "radio", name: "side", value: side }))
  sides[0].checked = true
  const call = element("pre", { class: "call" })
  const answer = element("p", { class: "answer", role: "status" })
  const why = element("p", { class: "why" })
  const share = element("p", { class: "share" })
  const bars = element("div", { class: "bars", role: "img" })
  const next = element("ol", { class: "next" })
  const grid = element("div", { class: "tokens", tabindex: 0, role: "group", "aria-label": "The tokens of the row" })

  let padsFolded = true

  function show() {
    const number = Number(pads.value), side = sides.find(each => each.checked).value
    const state = byKey.get(keyOf(prompt.value, number, mask.checked, side))
    const alone = byKey.get(keyOf(prompt.value, 0, true, "left"))
    count.value = `${number} pad${number == 1 ? "" : "s"}`
    pads.setAttribute("aria-valuetext", count.value)

    call.replaceChildren("model.generate(", element("mark", {}, mask.checked ? "**batch" : 'batch["input_ids"]'), ")")
    call.className = mask.checked ? "call with" : "call"
    const same = state.answer == alone.answer
    answer.className = `answer ${same ? "same" : "other"}`
    answer.replaceChildren(
      element("strong", {}, state.answer),
      element("small", {}, same ? "✓ as without pads" : `✗ changed; without pads: ${alone.answer}`),
    )

    why.textContent = side == "right" && number
      ? "The last column is a pad, and the model goes on after it: to generate, pads belong on the left (lesson 02)." : ""

    const isPad = Array(alone.tokens.length).fill(false), padding = Array(number).fill(true)
    isPad.splice(side == "left" ? 0 : isPad.length, 0, ...padding)
    const tokens = [...alone.tokens]
    tokens.splice(side == "left" ? 0 : tokens.length, 0, ...padding.map(() => "<|im_end|>"))
    // What the mask hides has no weight, and is not stored again for each number of pads.
    const weights = [...state.attention]
    const hidden = Array(tokens.length - weights.length).fill(0)
    weights.splice(side == "left" ? 0 : weights.length, 0, ...hidden)

    const highest = Math.max(100, ...weights)
    bars.replaceChildren(...weights.map((weight, i) => {
      const bar = element("span", { class: isPad[i] ? "pad" : "real", title: `${tokens[i]}: ${weight / 10} %` })
      bar.style.height = `${100 * weight / highest}%`
      return bar
    }))
    const said = `The last token spends ${state.on_pads} % of its attention on the pads.`
    bars.setAttribute("aria-label", `${said} Bars, one for each of ${tokens.length} tokens.`)
    const scale = ` The highest bar is ${Math.max(...weights) / 10} %.`
    share.textContent = (number ? said : "No pads: all attention goes to the prompt.") + scale

    next.replaceChildren(...state.next.map(([token, percent]) => {
      const bar = element("span", { class: "bar" })
      bar.style.width = `${percent}%`
      return element("li", {}, element("code", {}, token), element("span", { class: "percent" }, `${percent} %`), bar)
    }))
    const cells = tokens.map((token, i) => element("span", { class: isPad[i] ? "pad" : "real" },
      element("code", {}, token), element("small", {}, mask.checked ? (isPad[i] ? "0" : "1") : "·")))
    const between = cells.filter((_, i) => isPad[i]).slice(1, -1) // all but the first pad and the last
    if (between.length > FEW_PADS) {
      const button = foldButton(`… ${between.length} pads …`, folded => {
        padsFolded = folded
        between.forEach(cell => { cell.hidden = folded })
      }, padsFolded)
      cells.splice(cells.indexOf(between[0]), 0, button)
    }
    grid.replaceChildren(...cells)
  }

  const controls = element("div", { class: "controls" },
    element("label", {}, "Prompt ", prompt),
    element("label", {}, "Pads ", pads, count),
    element("label", {}, mask, " attention mask"),
    element("fieldset", {}, element("legend", {}, "pads on the"),
      ...sides.map(side => element("label", {}, side, ` ${side.value}`))))
  box.replaceChildren(controls, call, answer, why,
    element("div", { class: "columns" },
      element("div", {}, element("p", { class: "name" }, "Where the last token looks"), share, bars),
      element("div", {}, element("p", { class: "name" }, "The next token"), next)),
    element("details", {}, element("summary", {}, "The row, token for token, and its mask"),
      element("p", {}, "Below each token its mask: 1 is read, 0 is not, · no mask was passed. Pads are written with the end of a turn, as this model has it."), grid))
  controls.addEventListener("input", show)
  show()
}

document.querySelectorAll(".slider").forEach(async (box, i) => {
  if (!window.DecompressionStream) return // the still picture stays
  build(box, await unpack(window.STATES))
  box.dispatchEvent(new Event("built"))
})
