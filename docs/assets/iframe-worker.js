// Browsers give pages on disk (file://) no web workers. There the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.answer = (data) => later(() => this.onmessage?.({ data }));
      this.frame.srcdoc = `<script>self.postMessage = (data) => frameElement.answer(data);</script><script src="${url}"></script>`;
      this.frame.onload = () => {
        const messages = this.waiting;
        this.waiting = null;
        messages.forEach((data) => this.postMessage(data));
      };
      document.documentElement.append(this.frame);
    }
    postMessage(data) {
      const copy = structuredClone(data);
      if (this.waiting) this.waiting.push(copy);
      else later(() => this.frame.contentWindow?.onmessage({ data: copy }));
    }
    terminate() {
      this.frame.remove();
    }
  };
  // A worker never answers while its message is being sent.
  const later = (run) => setTimeout(run, 0);
}
