// The search runs in a worker, and a browser starts none for a page that was opened from a disk.
// There, this class runs the worker's script in a hidden frame, from the first click or key on: it
// keeps the page busy for half a second.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const inner = this.frame.contentWindow
      inner.postMessage = data => {
        const copy = structuredClone(data)
        setTimeout(() => this.report(new MessageEvent("message", { data: copy })))
      }
      const begin = () => {
        removeEventListener("click", begin, true)
        removeEventListener("keydown", begin, true)
        this.begin(inner, address)
      }
      addEventListener("click", begin, true)
      addEventListener("keydown", begin, true)
    }

    begin(inner, address) {
      const script = inner.document.createElement("script")
      script.src = new URL(address, location).href
      script.onload = () => {
        this.waiting.forEach(data => this.deliver(data))
        this.waiting = null
      }
      script.onerror = () => {
        const message = `Cannot load ${address}`
        this.report(new ErrorEvent("error", { cancelable: true, message }))
      }
      inner.document.head.appendChild(script)
    }

    // Messages are copied and arrive later, as those of a worker do: the search relies on both.
    postMessage(data) {
      const copy = this.frame.contentWindow.structuredClone(data)
      if (this.waiting) this.waiting.push(copy)
      else this.deliver(copy)
    }

    deliver(data) {
      const inner = this.frame.contentWindow
      setTimeout(() => inner.dispatchEvent(new inner.MessageEvent("message", { data })))
    }

    report(event) {
      this.dispatchEvent(event)
      const handler = this[`on${event.type}`]
      if (handler) handler.call(this, event)
    }

    terminate() {
      this.frame.remove()
    }
  }
}
