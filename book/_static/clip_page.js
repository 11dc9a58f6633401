"use strict";
// What chapter 00 shows of its CLIP: a sentence, a ranking of pictures, the share of each patch, a scene to build.

function node(tag, fields = {}, ...children) {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...children);
  return made;
}

const digits = (value) => value.toFixed(2).replace(/^-(0\.00)?/, (_, zero) => zero ?? "−");
const box = (className, ...children) => node("div", { className }, ...children);
const button = (content, onclick, more = {}) => node("button", { type: "button", onclick, ...more }, content);

function paint(canvas, pixels) { // bytes (3, height, width) of a square picture
  const area = pixels.length / 3, image = new ImageData(Math.sqrt(area), Math.sqrt(area));
  for (let i = 0; i < area; i++)
    for (let c = 0; c < 4; c++) image.data[4 * i + c] = c < 3 ? pixels[c * area + i] : 255;
  canvas.width = canvas.height = image.width;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

class Scenes { // draws objects as the scenes data set does, in the middle of their cells
  constructor({ ground, painted, colours, shapes, textures, sizes }) {
    Object.assign(this, { ground: tensor(ground), painted: tensor(painted), colours, shapes, textures, sizes });
    this.side = Math.sqrt(this.ground.length / 3);
    this.cell = Math.sqrt(this.painted.length / (shapes.length * textures.length * sizes.length));
    this.across = this.side / this.cell;
  }

  name({ size, texture, colour, shape }) {
    return [this.sizes[size], this.textures[texture], Object.keys(this.colours)[colour], this.shapes[shape]].join(" ");
  }

  sprite({ size, texture, shape }) { // how bright each pixel is
    const start = ((shape * this.textures.length + texture) * this.sizes.length + size) * this.cell ** 2;
    return this.painted.subarray(start, start + this.cell ** 2);
  }

  put(pixels, side, object, left, top) { // texture 0 is solid: how much of a pixel the object covers
    const bright = this.sprite(object), cover = this.sprite({ ...object, texture: 0 });
    Object.values(this.colours)[object.colour].forEach((value, c) => bright.forEach((light, i) => {
      const at = (c * side + top + Math.floor(i / this.cell)) * side + left + (i % this.cell);
      pixels[at] = Math.round(pixels[at] * (1 - cover[i] / 255) + light * value);
    }));
    return pixels;
  }

  draw(objects) {
    const pixels = Uint8Array.from(this.ground), place = (n) => n * this.cell;
    objects.forEach((object, n) => object &&
      this.put(pixels, this.side, object, place(n % this.across), place(Math.floor(n / this.across))));
    return pixels;
  }

  icon(canvas, object) {
    paint(canvas, this.put(new Uint8Array(3 * this.cell ** 2).fill(40), this.cell, object, 0, 0));
  }
}

class ClipPage {
  constructor(place, payload) {
    this.clip = new CLIP(payload);
    this.scenes = new Scenes(payload.scenes);
    this.pictures = payload.gallery.map(({ image, caption }, i) =>
      this.picture(`picture ${i + 1}`, caption, tensor(image), payload.objects[i]));
    this.own = this.picture("your scene", "", this.scenes.draw([]), []);
    this.brush = { colour: 0, shape: this.scenes.shapes.length - 1, texture: 0, size: this.scenes.sizes.length - 1 };
    place.replaceChildren(...this.above(payload.examples), ...this.below(payload.sentences));
    this.choose({});
    this.setScene(this.pictures[0].objects);
    this.ask(payload.examples[0]);
  }

  picture(name, caption, pixels, objects) {
    const made = { name, caption, pixels, objects, encoded: this.clip.encodeImage(pixels) };
    made.label = node("span");
    made.canvas = paint(node("canvas"), pixels);
    made.button = button(made.canvas, () => this.look(made));
    made.button.append(made.label);
    made.item = node("li", {}, made.button);
    return made;
  }

  // Above: a sentence, what each patch adds, and the ranking.

  above(examples) {
    this.input = node("textarea", { id: "clip-sentence", rows: 1, oninput: () => this.ask() });
    const tries = examples.map((text) => button(text, () => this.ask(text)));
    this.shown = node("canvas", { role: "img" });
    this.map = box("grid");
    this.caption = node("figcaption");
    const change = button("Change this picture below", () => this.setScene(this.seen.objects));
    this.ranking = node("ol");
    this.heading = node("figcaption");
    return [
      node("label", { htmlFor: "clip-sentence" }, "Type a sentence"), this.input,
      node("p", { className: "tries" }, "or try ", ...tries),
      box("pair",
        node("figure", { className: "view" }, box("picture", this.shown, this.map), this.caption, change),
        node("figure", { className: "ranking" }, this.heading, this.ranking)),
    ];
  }

  ask(text = this.input.value) { // rank all pictures for this sentence, and look at the first
    if (text !== this.input.value) this.input.value = text;
    this.text = this.clip.encodeText(text);
    this.rank();
    this.look(this.ranked[0]);
  }

  rank() {
    const all = [...this.pictures, this.own];
    for (const one of all) one.cosine = dot(one.encoded.embedding, this.text);
    this.ranked = all.sort((a, b) => b.cosine - a.cosine);
    this.ranked.forEach((one, i) => {
      one.label.textContent = digits(one.cosine);
      const what = `${i + 1}. ${one.name}, cosine ${digits(one.cosine)}${one.caption && `: ${one.caption}`}`;
      one.button.title = one.button.ariaLabel = what;
      one.button.classList.toggle("own", one === this.own);
    });
    this.ranking.replaceChildren(...this.ranked.map((one) => one.item));
    this.heading.textContent = `${all.length} pictures that it was not trained on, nearest to the sentence first, ` +
      "with their cosines. The dashed one is your scene.";
  }

  look(one) { // what is dark adds little
    this.seen = one;
    for (const other of this.ranked) other.button.ariaPressed = other === one;
    paint(this.shown, one.pixels);
    const shares = this.clip.contributions(one.encoded, this.text), most = Math.max(...shares, 1e-9);
    this.map.style.gridTemplateColumns = `repeat(${Math.sqrt(shares.length)}, 1fr)`;
    this.map.replaceChildren(...Array.from(shares, (share) => {
      const cell = node("i", {}, node("b", {}, digits(share)));
      cell.style.background = `rgb(0 0 0 / ${(0.75 * (1 - Math.max(share, 0) / most)).toFixed(2)})`;
      return cell;
    }));
    this.shown.ariaLabel = one.caption || one.name;
    const name = one.name[0].toUpperCase() + one.name.slice(1);
    this.caption.textContent = `${name} is number ${this.ranked.indexOf(one) + 1} of ${this.ranked.length}. ` +
      `Its patches add up to the cosine ${digits(one.cosine)}; the bright ones add most.`;
  }

  // Below: a scene to build, and sentences for it.

  below(sentences) {
    this.board = node("canvas", { role: "img", ariaLabel: "your scene" });
    this.cells = Array.from({ length: this.scenes.across ** 2 }, (_, n) => button("", () => this.click(n)));
    const cells = box("grid", ...this.cells);
    cells.style.gridTemplateColumns = `repeat(${this.scenes.across}, 1fr)`;
    this.rows = sentences.map((text) => this.sentence(text));
    const clear = button("Clear the scene", () => this.setScene([]));
    return [
      node("p", { className: "title" }, "Build a scene"),
      box("pair",
        box("builder", box("picture", this.board, cells), box("palette", ...this.tools()), clear),
        box("sentences",
          node("p", {}, "Choose an object and click where it is to stand; a second click takes it away. Which of " +
            "these sentences fits your scene? The percentages are how sure the model is of each, among these. Change " +
            "them as you like."),
          ...this.rows.map((row) => row.item))),
    ];
  }

  click(n) { // put the object there, or take away what is the same
    const there = this.own.objects[n], same = there && this.scenes.name(there) === this.scenes.name(this.brush);
    const objects = Array.from({ length: this.cells.length }, (_, i) => this.own.objects[i]);
    objects[n] = same ? undefined : { ...this.brush };
    this.setScene(objects);
  }

  setScene(objects) {
    this.own.objects = objects;
    this.own.pixels = this.scenes.draw(objects);
    this.own.encoded = this.clip.encodeImage(this.own.pixels);
    for (const canvas of [this.board, this.own.canvas]) paint(canvas, this.own.pixels);
    this.cells.forEach((cell, n) => {
      const where = `row ${Math.floor(n / this.scenes.across) + 1}, column ${(n % this.scenes.across) + 1}`;
      cell.title = cell.ariaLabel = `${where}: ${objects[n] ? this.scenes.name(objects[n]) : "nothing"}`;
    });
    this.score();
    if (!this.text) return;
    this.rank();
    this.look(this.own);
  }

  tools() { // a button for each colour, shape, texture and size
    const { colours, shapes, textures, sizes } = this.scenes;
    const kinds = { colour: Object.keys(colours), shape: shapes, texture: textures, size: sizes };
    this.buttons = Object.entries(kinds).flatMap(([kind, names]) => names.map((name, i) => {
      const canvas = node("canvas"), onclick = () => this.choose({ [kind]: i });
      return { kind, i, canvas, button: button(canvas, onclick, { title: name, ariaLabel: name }) };
    }));
    return Object.keys(kinds).map((kind) => node("div", { role: "group", ariaLabel: kind }, node("span", {}, kind),
      ...this.buttons.filter((one) => one.kind === kind).map((one) => one.button)));
  }

  choose(change) { // the object that a click puts down
    Object.assign(this.brush, change);
    for (const { kind, i, canvas, button } of this.buttons) {
      this.scenes.icon(canvas, { ...this.brush, [kind]: i });
      button.ariaPressed = this.brush[kind] === i;
    }
  }

  sentence(text) {
    const input = node("textarea", { rows: 2, value: text, ariaLabel: "a sentence about your scene" });
    input.oninput = () => this.score();
    const bar = box("bar"), number = node("span"), why = button("show patches", () => {
      this.ask(input.value);
      this.look(this.own);
      this.input.scrollIntoView({ block: "start" });
    });
    return { input, bar, number, item: box("sentence", input, bar, node("div", {}, number, why)) };
  }

  score() {
    const cosines = this.rows.map(({ input }) => dot(this.own.encoded.embedding, this.clip.encodeText(input.value)));
    const bets = softmax(cosines.map((cosine) => this.clip.scale * cosine));
    this.rows.forEach(({ item, bar, number }, i) => {
      bar.style.width = `${(100 * bets[i]).toFixed(1)}%`;
      number.textContent = `cosine ${digits(cosines[i])}, ${(100 * bets[i]).toFixed(0)} %`;
      item.classList.toggle("best", bets[i] === Math.max(...bets));
    });
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("clip-in-page");
  const near = new IntersectionObserver(([{ isIntersecting }]) => { // a page that is not read so far does no work
    if (!isIntersecting) return;
    near.disconnect();
    window.clipPage = new ClipPage(place, window.mmlearnCLIP);
  }, { rootMargin: "600px" });
  near.observe(place);
});
