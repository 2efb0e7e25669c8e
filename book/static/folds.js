// Token grids: a long run of cells that are alike, such as 66 pads, is folded to its first and its last, with a button
// between them that says how many are hidden and shows them. Without scripts the grid is whole.
"use strict"

const LONG = 10

// The first and the last column of each long run that is one in all of these lines.
function runs(lines) {
  const found = [], count = Math.min(...lines.map(line => line.length))
  const alike = (i, j) => lines.every(line => line[i].textContent == line[j].textContent && line[i].title == line[j].title)
  for (let start = 0, end = 0; start < count; start = end + 1) {
    for (end = start; end + 1 < count && alike(start, end + 1);) end++
    if (end - start >= LONG) found.push([start, end])
  }
  return found
}

// Where every line repeats itself, the columns go, and the words come near.
function foldColumns(lines, start, end) {
  const number = end - start - 1, between = lines.map(line => line.slice(start + 1, end)), told = lines.map(() => element("td"))
  told.forEach((cell, i) => lines[i][end].before(cell))
  told[0].append(foldButton(`… ${number} the same …`, folded => {
    between.flat().forEach(cell => { cell.hidden = folded })
    told.slice(1).forEach(cell => { cell.textContent = folded ? "…" : "" })
  }))
}

// Over the words of another row the columns have to stay: one cell is as wide as those that it stands for.
function foldCells(line, start, end, box) {
  const number = end - start - 1, between = line.slice(start + 1, end)
  const told = element("td", { class: "wide", colspan: number })
  told.append(foldButton(`… ${number} the same …`, folded => {
    between.forEach(cell => { cell.hidden = folded })
    if (!folded) { told.remove(); box.focus() } // no column is left for it
  }))
  line[end].before(told)
}

document.querySelectorAll(".cell_output [aria-label='Token grid']").forEach(box => {
  const rows = [...box.querySelectorAll("tr")], cells = row => [...row.querySelectorAll("td")]
  const lines = rows.map(cells), together = runs(lines)
  for (const [start, end] of together) foldColumns(lines, start, end)
  if (together.length) return
  for (const row of rows.filter(row => row.textContent.startsWith("row "))) { // a mask's line says what each token has
    const line = cells(row)
    for (const [start, end] of runs([line])) foldCells(line, start, end, box)
  }
})
