/* A page that is opened from a folder may start no worker, and search runs in one: it runs in a
   hidden frame instead. Over http(s) the browser's own workers are left as they are. */
if (location.protocol === "file:") {
  const scripts = `
    const addScript = (url) => new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = url;
      script.onload = done;
      script.onerror = failed;
      document.body.appendChild(script);
    });
    const importScripts = (...urls) =>
      urls.reduce((before, url) => before.then(() => addScript(url)), Promise.resolve());
    window.importScripts = importScripts;
    window.postMessage = (data) => parent.postMessage(data, "*");
    addEventListener("error", (event) => parent.dispatchEvent(new ErrorEvent("error", event)));`;
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.onerror = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inner = this.frame.contentWindow;
      this.send = inner.postMessage.bind(inner); // the frame's own is given another meaning
      this.heard = (event) => {
        if (event.source !== inner) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      };
      window.addEventListener("message", this.heard);
      inner.document.open();
      inner.document.write(
        `<!doctype html><body><script>${scripts}</` + `script><script src="${url}"></` + `script>`,
      );
      inner.document.close();
    }
    postMessage(data) {
      this.send(data, "*");
    }
    terminate() {
      window.removeEventListener("message", this.heard);
      this.frame.remove();
    }
  };
}
