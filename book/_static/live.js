// The text tower of a small CLIP in plain JavaScript, and pictures that Python has encoded (book/live.py).
// A sequence is an array of rows, one a token. Names of parameters and the order of axes are PyTorch's.

"use strict";

function half(bits) { // 1 bit of sign, 5 of exponent, 10 of fraction
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
}

function tensor({ shape, half: halves, single, byte }) { // a vector, or an array of rows
  const raw = Uint8Array.from(atob(halves ?? single ?? byte), (c) => c.charCodeAt(0));
  if (byte) return raw;
  const flat = single ? new Float32Array(raw.buffer) : Float32Array.from(new Uint16Array(raw.buffer), half);
  if (shape.length < 2) return flat;
  return Array.from({ length: shape[0] }, (_, i) => flat.subarray(i * shape[1], (i + 1) * shape[1]));
}

function tree(named) { // {"blocks.0.mlp.expand.weight": …} → root.blocks[0].mlp.expand.weight
  const root = {};
  for (const [name, value] of Object.entries(named)) {
    const path = name.split("."), last = path.pop();
    path.reduce((node, key) => (node[key] ??= {}), root)[last] = tensor(value);
  }
  return root;
}

const dot = (a, b) => { let sum = 0; for (let i = 0; i < a.length; i++) sum += a[i] * b[i]; return sum; };
const add = (a, b) => a.map((value, i) => value + b[i]);
const linear = (x, { weight, bias }) => Float64Array.from(weight, (row, i) => dot(row, x) + (bias ? bias[i] : 0));
const unit = (x) => { const length = Math.sqrt(dot(x, x)); return x.map((value) => value / length); };

function layerNorm(x, { weight, bias }, epsilon) {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length, centred = x.map((value) => value - mean);
  const deviation = Math.sqrt(dot(centred, centred) / x.length + epsilon);
  return centred.map((value, i) => (value / deviation) * weight[i] + bias[i]);
}

function softmax(scores) {
  const most = Math.max(...scores), powers = scores.map((score) => Math.exp(score - most));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

function gelu(x) { // its erf to 1.5e-7. Source: Abramowitz & Stegun 1964, formula 7.1.26
  const t = 1 / (1 + (0.3275911 * Math.abs(x)) / Math.SQRT2);
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return (x / 2) * (1 + Math.sign(x) * (1 - sum * Math.exp((-x * x) / 2)));
}

function causalAttention(x, layer, heads) {
  const [queries, keys, values] = ["query", "key", "value"].map((name) => x.map((row) => linear(row, layer[name])));
  const width = queries[0].length / heads;
  return x.map((_, i) => {
    const mixed = new Float64Array(queries[0].length);
    for (let start = 0; start < mixed.length; start += width) { // a head has its own features, side by side
      const part = (row) => row.subarray(start, start + width);
      const weights = softmax(keys.slice(0, i + 1).map((key) => dot(part(queries[i]), part(key)) / Math.sqrt(width)));
      weights.forEach((weight, j) => part(values[j]).forEach((value, k) => { mixed[start + k] += weight * value; }));
    }
    return linear(mixed, layer.output);
  });
}

class LiveClip {
  constructor({ weights, words, things, colours, pictures, ...settings }) {
    Object.assign(this, settings, { words: new Map(Object.entries(words)) }, tree(weights));
    this.things = new Set(things);
    this.colours = new Set(colours);
    this.pictures = pictures.map(({ embedding, positions, ...more }) =>
      ({ ...more, embedding: tensor(embedding), positions: tensor(positions) }));
  }

  split(text) { // its words: those that the model knows, and those that captions never had
    const words = text.toLowerCase().match(/[\p{L}\p{N}'’-]+/gu) ?? [];
    return words.map((word) => ({ word, known: this.words.has(word) }));
  }

  begins(word) { // whether one who goes on typing may yet arrive at a word that is known
    return [...this.words.keys()].some((known) => known.startsWith(word));
  }

  encode(words) { // words that are known → a unit vector
    const ids = [this.start, ...words.flatMap((word) => this.words.get(word)).slice(0, this.length - 2), this.end];
    const { embedding, transformer, norm } = this.text_encoder;
    let x = ids.map((id, i) => add(embedding.tokens.weight[id], embedding.positions[i]));
    for (const block of Object.values(transformer.blocks)) {
      const normed = x.map((row) => layerNorm(row, block.attention_norm, this.epsilon));
      const mixed = causalAttention(normed, block.attention, this.heads);
      x = x.map((row, i) => add(row, mixed[i]));
      x = x.map((row) => add(row, linear(
        linear(layerNorm(row, block.mlp_norm, this.epsilon), block.mlp.expand).map(gelu), block.mlp.contract)));
    }
    const at = ids.indexOf(this.read ?? Math.max(...ids));
    return unit(linear(layerNorm(x[at], norm, this.epsilon), this.text_projection));
  }

  phrases(words) { // things with their colours, each with its vector: "a red car above a dog" → red car, dog
    const found = [];
    let phrase = [];
    const close = () => {
      if (phrase.some((word) => word !== "two")) {
        const article = /^[aeiou]/.test(phrase[0]) ? "an" : "a";
        const asked = phrase[0] === "two" ? phrase : [article, ...phrase];
        found.push({ name: phrase.join(" "), vector: this.encode(asked) });
      }
      phrase = [];
    };
    for (const word of words) {
      const thing = this.things.has(word), said = word === "two" || this.colours.has(word);
      if (said && phrase.includes(word)) close();
      if (thing || said) phrase.push(word);
      if (thing || !said) close();
    }
    close();
    return found;
  }

  shares({ embedding, positions }, vector) { // what each position adds to the cosine, which is their sum
    const share = new Float64Array(36);
    positions.forEach((p, k) => { share[p] += embedding[k] * vector[k]; });
    return share;
  }
}
