// Your own words: the shipped model itself, in the page (wllama, which is llama.cpp in WebAssembly). Nothing is
// asked for before the button is pressed. What comes is used only if the build knows its SHA-256 (tools/words.py).
"use strict"

{
  const FILES = JSON.parse(document.currentScript.dataset.files)
  const HERE = new URL(document.documentElement.dataset.content_root, location)
  const FROM = new URL(document.currentScript.dataset.from + "/", HERE)
  const MODEL = Object.keys(FILES).find(name => name.endsWith(".gguf"))
  const BYTES = Object.values(FILES).reduce((sum, file) => sum + file.bytes, 0)
  const SIZE = [FILES[MODEL].bytes, BYTES - FILES[MODEL].bytes].map(each => `${Math.round(each / 1e6)} MB`).join(" + ")
  const NEW_TOKENS = 40
  // Their first token leads by far: 8 bits do not turn it.
  const EXAMPLES = ["What is the plural of mouse?", "What is the capital of Japan?", "Which animal says meow?"]

  // The model's own chat template. The pads before it are read like any other token: that is the batch without its
  // mask. With the mask the model sees none of them: that is no pads.
  const rowOf = (prompt, pads) => "<|im_end|>".repeat(pads) +
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" +
    `<|im_start|>user\n${prompt}<|im_end|>\n<|im_start|>assistant\n`

  // Why the model cannot run in this page, as far as one can know without asking for anything.
  function whyNot() {
    if (location.protocol == "file:")
      return "Not here: this page was opened from a disk, and a browser lets such a page read no other file. " +
        "Where the book is served it works; on your own machine, type “make words” in the course's folder."
    if (!isSecureContext)
      return "Not here: a browser checks files only for pages that it has over https, or from its own machine."
    try {
      new WebAssembly.Memory({ address: "i64", initial: 1n })
    } catch {
      return "Not here: the model needs a browser whose WebAssembly has 64-bit memory, and this one has none."
    }
    return ""
  }

  async function sha256(blob) {
    const digest = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer())
    return Array.from(new Uint8Array(digest), byte => byte.toString(16).padStart(2, "0")).join("")
  }

  async function download(name, onPart) {
    const url = new URL(name, FROM)
    // Kept once, below, not in the browser's other cache too.
    const answer = await fetch(url, { cache: "no-store" }).catch(() => null)
    if (!answer?.ok)
      throw new Error(`${url} ${answer ? `answers ${answer.status}` : "does not answer"}. ` +
        "Either this machine has no network, or this copy of the book was put up without its model.")
    const parts = []
    for (const reader = answer.body.getReader(); ;) {
      const { done, value } = await reader.read()
      if (done) return new Blob(parts)
      parts.push(value)
      onPart(value.length)
    }
  }

  // Returns all files as blobs. Those that the browser keeps are named there by their SHA-256.
  async function fetchAll(onPart) {
    const keyOf = name => new URL(FILES[name].sha256, HERE).href
    const cache = await caches.open("silent-bugs-words")
    const wanted = Object.keys(FILES).map(keyOf)
    for (const { url } of await cache.keys()) if (!wanted.includes(url)) await cache.delete(url)
    const blobs = {}
    for (const name of Object.keys(FILES)) {
      const kept = await cache.match(keyOf(name))
      const blob = kept ? await kept.blob() : await download(name, onPart)
      if (await sha256(blob) != FILES[name].sha256) {
        await cache.delete(keyOf(name))
        throw new Error(`${new URL(name, FROM)} is not the file that this page knows, and was not used.`)
      }
      // A browser that has no room for it fetches it the next time.
      if (!kept) await cache.put(keyOf(name), new Response(blob)).catch(() => {})
      blobs[name] = blob
    }
    return blobs
  }

  async function load(onPart) {
    const blobs = await fetchAll(onPart)
    const addressOf = (name, type) => URL.createObjectURL(new Blob([blobs[name]], { type }))
    const { Wllama, LoggerWithoutDebug } = await import(addressOf("wllama.js", "text/javascript"))
    const program = { default: addressOf("wllama.wasm", "application/wasm") }
    const model = new Wllama(program, { suppressNativeLog: true, logger: LoggerWithoutDebug })
    model.setCompat(null) // what it would load for older browsers comes from an address of its own
    // Small batches, so that Stop need not wait for all pads to be read.
    await model.loadModel([blobs[MODEL]], { n_ctx: 2048, n_batch: 16, n_parallel: 1, n_threads: 1, n_gpu_layers: 0 })
    return model
  }

  function offer(box) {
    const status = element("p", { role: "status" }, whyNot())
    const button = element("button", { type: "button" }, `Load the model (${SIZE}, once)`)
    const bar = element("progress", { max: BYTES, "aria-label": "Loading the model" })
    const section = element("section", { class: "words", "aria-label": "Your own words" },
      element("p", { class: "name" }, "Your own words"),
      element("p", {}, "The answers above are stored. The model itself can run in this page too. It is fetched once ",
        `(${SIZE} of llama.cpp, which runs it) and kept by your browser; what you type stays on your computer. `,
        "It computes with 4 and 8 bits, the lessons with 32: where two tokens are almost equally probable, its ",
        "words can differ from theirs."),
      button, status)
    button.disabled = status.textContent != ""
    button.addEventListener("click", async () => {
      button.disabled = true
      status.textContent = "Loading …"
      bar.value = 0
      button.after(bar)
      try {
        section.append(...questions(await load(bytes => { bar.value += bytes })))
        button.remove()
        status.textContent = ""
        section.querySelector("input").focus()
      } catch (error) {
        button.disabled = false
        status.textContent = `The model could not be loaded. ${error.message}`
      }
      bar.remove()
    })
    box.append(section)
  }

  // What is asked, and the answer, once the model is there.
  function questions(model) {
    const prompt = element("input", { type: "text", maxlength: 400, list: "words-examples", value: EXAMPLES[0] })
    const pads = element("input", { type: "range", min: 0, max: MOST_PADS, value: 0 })
    const count = element("output")
    const ask = element("button", { type: "submit" }, "Ask"), stop = element("button", { type: "button" }, "Stop")
    const form = element("form", { class: "controls" },
      element("label", {}, "Your words ", prompt), element("label", {}, "Pads ", pads, count), ask, stop,
      element("datalist", { id: "words-examples" }, ...EXAMPLES.map(each => element("option", { value: each }))))
    const said = element("strong"), how = element("small")
    const answer = element("p", { class: "answer", role: "status", "aria-atomic": "true" }, said, how)
    const next = element("ol", { class: "next" })
    let stopping

    function show() {
      count.value = `${pads.value} pad${pads.value == 1 ? "" : "s"}`
      pads.setAttribute("aria-valuetext", count.value)
    }

    function running(yes) {
      ask.disabled = yes
      stop.disabled = !yes
      answer.setAttribute("aria-busy", yes) // a screen reader says the answer when it is whole
    }

    async function run() {
      running(true)
      stopping = new AbortController()
      said.textContent = ""
      how.textContent = "Reading the row …"
      next.replaceChildren()
      let tokens = 0, end
      try {
        const chunks = await model.createCompletion({
          prompt: rowOf(prompt.value, pads.value), max_tokens: NEW_TOKENS, temperature: 0, logprobs: 5,
          cache_prompt: false, stream: true, return_progress: true, abortSignal: stopping.signal,
        })
        for await (const { choices, prompt_progress: read } of chunks) {
          if (read) how.textContent = `Reading the row: ${read.processed} of ${read.total} tokens`
          for (const { text, logprobs, finish_reason } of choices) {
            said.append(text)
            end = finish_reason
            if (!logprobs) continue
            how.textContent = `${++tokens} tokens`
            if (tokens == 1) next.replaceChildren(...logprobs.content[0].top_logprobs.map(share))
          }
        }
        how.textContent = end == "stop" ? `${tokens} tokens, then it ended.` : `Cut off after ${tokens} tokens.`
      } catch (error) {
        how.textContent = stopping.signal.aborted ? `Stopped after ${tokens} tokens.` : `No answer: ${error.message}`
      }
      running(false)
    }

    function share({ token, logprob }) {
      const percent = (100 * Math.exp(logprob)).toFixed(1), bar = element("span", { class: "bar" })
      bar.style.width = `${percent}%`
      const shown = token.replaceAll("\n", "⏎").replaceAll(" ", "·") || "(special)" // those have no text here
      return element("li", {}, element("code", {}, shown), element("span", { class: "percent" }, `${percent} %`), bar)
    }

    pads.addEventListener("input", show)
    stop.addEventListener("click", () => stopping.abort())
    form.addEventListener("submit", event => {
      event.preventDefault()
      if (!ask.disabled) run()
    })
    running(false)
    show()
    return [
      element("p", {}, "The pads stand on the left, without a mask. With the mask the model sees none: that is 0 pads. ",
        "Ask with 0, then with 64."),
      form, answer, element("p", { class: "name" }, "The first token of the answer"), next,
      element("p", {}, element("a", { href: new URL("LICENCES.txt", FROM) }, "Licences of model and program")),
    ]
  }

  document.querySelectorAll(".slider").forEach(box => box.addEventListener("built", () => offer(box)))
}
