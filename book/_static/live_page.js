// The landing page's CLIP: one types a sentence, the pictures are ranked, and each word lights up what it points at.

"use strict";

const INKS = ["#d62754", "#146edc", "#108c46", "#8a5a00"]; // as of the lessons' figures
const ACROSS = 6; // positions of a picture

function node(tag, fields = {}, ...children) {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...children);
  return made;
}

const digits = (value) => value.toFixed(2).replace("-", "−");

class LivePage {
  constructor(place, carried) {
    this.clip = new LiveClip(carried);
    this.input = node("input", { id: "live-sentence", type: "text", autocomplete: "off" });
    this.input.value = place.dataset.sentence;
    this.input.oninput = () => this.ask();
    this.words = node("p", { className: "words" });
    this.words.setAttribute("aria-live", "polite");
    this.view = this.canvas(320);
    this.view.frame.onmousemove = (event) => this.point(event);
    this.view.frame.onmouseleave = () => this.point();
    this.told = node("figcaption");
    this.list = node("ol");
    this.pictures = this.clip.pictures.map((picture, i) => this.entry(picture, i));
    const tries = place.dataset.tries.split("; ").map((text) =>
      node("button", { type: "button", onclick: () => this.ask(text) }, text));
    place.replaceChildren(
      node("label", { htmlFor: "live-sentence" }, "A small CLIP, live: find a picture with a sentence"), this.input,
      node("p", { className: "tries" }, "Try ", ...tries), this.words,
      node("div", { className: "pair" }, node("figure", {}, this.view.frame, this.told), this.list));
    Promise.all(this.pictures.map((one) => one.image.decode())).then(() => { this.ready = true; this.draw(); });
    this.ask();
  }

  canvas(size) { // a picture, its veil, and rings on it
    const canvas = node("canvas", { width: size, height: size }), rings = node("span", { className: "rings" });
    return { canvas, rings, frame: node("span", { className: "frame" }, canvas, rings) };
  }

  entry(picture, i) {
    const image = node("img", { src: picture.image });
    const made = { ...picture, name: `picture ${i + 1}`, image, view: this.canvas(112) };
    made.label = node("span", { className: "score" });
    made.button = node("button", { type: "button", onclick: () => this.look(made) }, made.view.frame, made.label);
    made.item = node("li", {}, made.button);
    return made;
  }

  ask(text) { // rank all pictures for what stands in the field, and look at the first
    if (text !== undefined) this.input.value = text;
    const parts = this.clip.split(this.input.value), typing = /[\p{L}\p{N}'’-]$/u.test(this.input.value);
    const known = parts.filter((part) => part.known).map((part) => part.word);
    const unknown = parts.filter((part, i) =>
      !part.known && !(typing && i === parts.length - 1 && this.clip.begins(part.word))).map((part) => part.word);
    this.vector = known.length ? this.clip.encode(known) : null;
    this.phrases = this.clip.phrases(known);
    this.ranked = [...this.pictures];
    for (const one of this.pictures) one.cosine = this.vector && dot(one.embedding, this.vector);
    if (this.vector) this.ranked.sort((a, b) => b.cosine - a.cosine);
    this.list.replaceChildren(...this.ranked.map((one) => one.item));
    this.list.scrollTo(0, 0);
    this.chips = this.phrases.map(({ name }, k) => {
      const chip = node("button", { type: "button", className: "chip" }, name);
      chip.style.setProperty("--ink", INKS[k % INKS.length]);
      chip.onmouseenter = chip.onfocus = () => this.draw(k);
      chip.onmouseleave = chip.onblur = () => this.draw();
      return chip;
    });
    this.words.replaceChildren(...this.chips);
    if (unknown.length) {
      const named = unknown.flatMap((word, i) => [i ? ", " : "", node("em", {}, word)]);
      this.words.append(node("span", { className: "unknown" }, "does not know ", ...named));
    }
    if (!this.vector && !unknown.length) this.words.append("Type something: a thing, a colour, how things stand.");
    this.look(this.ranked[0]);
  }

  look(one) {
    this.seen = one;
    for (const other of this.pictures) other.button.ariaPressed = other === one;
    const rank = this.ranked.indexOf(one) + 1, of = `${this.ranked.length} pictures`;
    this.told.textContent = this.vector
      ? `Number ${rank} of ${of}, cosine ${digits(one.cosine)}; ${one.style}, not trained on.`
      : `One of ${of}; ${one.style}, not trained on.`;
    this.draw();
  }

  draw(only) { // all phrases, or one of them
    const all = this.phrases.map((phrase, k) => ({ ...phrase, k }));
    const shown = all.filter(({ k }) => only === undefined || k === only);
    for (const [rank, one] of this.ranked.entries()) {
      one.label.textContent = this.vector ? digits(one.cosine) : "";
      const score = this.vector ? `, number ${rank + 1}, cosine ${digits(one.cosine)}` : "";
      one.button.ariaLabel = `${one.name}${score}: ${one.caption}`;
      this.paint(one.view, one, shown);
    }
    this.paint(this.view, this.seen, shown);
    this.view.canvas.setAttribute("aria-label", this.seen.caption);
    this.view.canvas.setAttribute("role", "img");
  }

  paint({ canvas, rings }, picture, phrases) { // what no word points at fades; a ring marks the peak of each
    const maps = phrases.map(({ vector, k }) => ({ k, share: this.clip.shares(picture, vector) }));
    rings.replaceChildren(...maps.map(({ k, share }) => {
      const peak = share.indexOf(Math.max(...share)), ring = node("i");
      ring.style.cssText = `left: ${((peak % ACROSS) + 0.5) / ACROSS * 100}%; ` +
        `top: ${(Math.floor(peak / ACROSS) + 0.5) / ACROSS * 100}%; --ink: ${INKS[k % INKS.length]}`;
      return ring;
    }));
    if (!this.ready) return;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(picture.image, 0, 0, canvas.width, canvas.height);
    if (!maps.length) return;
    const veil = new ImageData(ACROSS, ACROSS);
    for (let p = 0; p < ACROSS ** 2; p++) {
      const heat = Math.max(...maps.map(({ share }) => Math.max(share[p], 0) / Math.max(...share, 1e-9)));
      veil.data.set([246, 247, 248, 225 * (1 - heat ** 1.2)], 4 * p);
    }
    const small = node("canvas", { width: ACROSS, height: ACROSS });
    small.getContext("2d").putImageData(veil, 0, 0);
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }

  point(event) { // the other way round: how much each phrase gets from the position under the pointer
    const box = this.view.frame.getBoundingClientRect();
    const cell = (at, from, length) => Math.min(ACROSS - 1, Math.max(0, Math.floor(((at - from) / length) * ACROSS)));
    this.chips.forEach((chip, k) => {
      chip.style.removeProperty("--share");
      if (!event) return;
      const share = this.clip.shares(this.seen, this.phrases[k].vector);
      const p = cell(event.clientY, box.top, box.height) * ACROSS + cell(event.clientX, box.left, box.width);
      const percent = Math.round((100 * Math.max(share[p], 0)) / Math.max(...share, 1e-9));
      chip.style.setProperty("--share", `${percent}%`);
    });
  }
}

document.addEventListener("DOMContentLoaded", () => {
  window.livePage = new LivePage(document.getElementById("live-clip"), window.liveClip);
});
