// Guesses and quiz: each option can be pressed and says why or why not. Options and reasons stand in the notebook,
// as a list and a folded list under it; without scripts they stay that. What was pressed is kept in this browser.
"use strict"

const KEPT = "silent-bugs"

const choices = {
  all() {
    try { return JSON.parse(localStorage.getItem(KEPT)) ?? {} } catch { return {} } // damaged, or not allowed
  },
  of(page) { return this.all()[page] ?? {} },
  add(page, number, letter) {
    const all = this.all(), tried = all[page]?.[number]?.tried ?? ""
    if (tried.includes(letter)) return
    const right = tried ? all[page][number].right : questions[number].reasons.get(letter).right
    all[page] = { ...all[page], [number]: { tried: tried + letter, right } }
    try { localStorage.setItem(KEPT, JSON.stringify(all)) } catch { /* not kept, and all else works */ }
  },
  forget() { try { localStorage.removeItem(KEPT) } catch { /* nothing was kept */ } },
}

// Of each question: its options as buttons, and the reason for or against each letter.
const questions = []

function letterOf(item) { return item.querySelector("strong")?.textContent.match(/^([a-z])\)$/)?.[1] }

function listBefore(details) {
  for (let each = details.previousElementSibling; each; each = each.previousElementSibling) {
    if (each.tagName == "UL" && letterOf(each.firstElementChild)) return each
  }
}

function makeQuestion(details, page) {
  const number = questions.length, reasons = new Map(), buttons = new Map()
  for (const item of details.querySelectorAll("li")) {
    const reason = document.createElement("p")
    reason.className = "reason"
    reason.innerHTML = (item.querySelector("p") ?? item).innerHTML.replace(/^\s*<strong>.*?<\/strong>\s*/, "")
    reasons.set(letterOf(item), { reason, right: reason.textContent.startsWith("✓") })
  }
  const list = listBefore(details)
  list.classList.add("options")
  for (const item of list.children) {
    const letter = letterOf(item), button = document.createElement("button")
    button.type = "button"
    button.setAttribute("aria-pressed", "false")
    button.append(...(item.querySelector("p") ?? item).childNodes)
    const told = document.createElement("div")
    told.setAttribute("role", "status")
    item.replaceChildren(button, told)
    button.addEventListener("click", () => { choices.add(page, number, letter); show(page) })
    buttons.set(letter, { button, told })
  }
  const more = details.querySelectorAll(":scope > p")
  list.after(...more) // such as "Shown in lesson 01"
  details.hidden = true
  return { reasons, buttons }
}

function show(page) {
  const chosen = choices.of(page)
  questions.forEach(({ reasons, buttons }, number) => {
    for (const [letter, { button, told }] of buttons) {
      const tried = Boolean(chosen[number]?.tried.includes(letter)), { reason, right } = reasons.get(letter)
      button.setAttribute("aria-pressed", tried)
      button.className = tried ? (right ? "right" : "wrong") : ""
      if (tried != told.contains(reason)) told.replaceChildren(...(tried ? [reason] : []))
    }
  })
  document.querySelectorAll(".score").forEach(score => tell(score, page))
}

function count(chosen) {
  const answered = Object.values(chosen)
  return { answered: answered.length, right: answered.filter(each => each.right).length }
}

// A button that asks once: it forgets what was answered on every page.
function forgetting(after) {
  const forget = document.createElement("button")
  forget.type = "button"
  forget.textContent = "Forget all"
  forget.addEventListener("click", () => {
    if (!confirm("Forget your answers on all pages? They cannot be brought back.")) return
    choices.forget()
    after()
  })
  return forget
}

function tell(score, page) {
  const { answered, right } = count(choices.of(page))
  const here = `${questions.length} question${questions.length == 1 ? "" : "s"} on this page`
  score.replaceChildren(answered ? `${here}: ${answered} answered, ${right} right at first. ` : `${here}, with answers to press.`)
  if (answered) score.append("Kept in this browser only. ", forgetting(() => show(page)))
}

// On the start page: how far one is, beside each lesson's link in the table.
function showProgress() {
  const box = document.querySelector("#progress")
  if (!box) return
  const numbers = JSON.parse(box.dataset.questions)
  let sum = 0, all = 0, rightly = 0
  for (const [page, number] of Object.entries(numbers)) {
    const { answered, right } = count(choices.of(page))
    sum += answered; all += number; rightly += right
    const link = document.querySelector(`article td a[href$="${page}.html"], article p a[href$="${page}.html"]`)
    link?.parentElement.querySelector(".done")?.remove()
    if (!answered || !link) continue
    const done = document.createElement("span")
    done.className = "done"
    done.textContent = ` ${answered} of ${number} answered, ${right} right at first`
    link.after(done)
  }
  const told = sum ? `You have answered ${sum} of the ${all} questions in lessons and quiz, ${rightly} right at first.`
    : `Lessons and quiz ask you ${all} questions.`
  box.replaceChildren(`${told} ${sum ? "That is" : "What you answer is"} kept in this browser only. `)
  if (sum) box.append(forgetting(showProgress))
}

document.addEventListener("DOMContentLoaded", () => {
  const page = location.pathname.match(/([^/]+)\.html$/)?.[1] ?? "index"
  for (const details of document.querySelectorAll("article details")) {
    if (details.querySelector("summary").textContent == "Reasons") questions.push(makeQuestion(details, page))
  }
  if (questions.length) {
    const last = [...questions.at(-1).buttons.values()].at(-1).button.closest("ul")
    for (const place of [document.querySelector("article h1"), last]) {
      place.after(Object.assign(document.createElement("p"), { className: "score" }))
    }
    show(page)
  }
  showProgress()
})
