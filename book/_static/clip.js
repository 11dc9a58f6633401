// CLIP from scratch once more, in plain JavaScript: the tokenizer, the two towers and what each patch adds.
// A sequence is an array of rows, one a token. Names of parameters, shapes and the order of axes are PyTorch's.

"use strict";

// Parameters. Python wrote each tensor as its shape and, in base64, as bytes or as numbers in half precision.

function half(bits) { // 1 bit of sign, 5 of exponent, 10 of fraction
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
}

function tensor({ shape, half: packed, bytes }) { // a number, a vector, an array of rows; bytes stay flat
  const raw = Uint8Array.from(atob(packed ?? bytes), (c) => c.charCodeAt(0));
  if (bytes !== undefined) return raw;
  const flat = Float32Array.from({ length: raw.length / 2 }, (_, i) => half(raw[2 * i] | (raw[2 * i + 1] << 8)));
  if (shape.length < 2) return shape.length ? flat : flat[0];
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

// Tokens.

const WORDS = new RegExp([ // GPT-2's: endings such as 's, letters, digits, other signs, white space
  "'(?:[stmd]|re|ve|ll)", " ?\\p{L}+", " ?\\p{N}+", " ?[^\\p{White_Space}\\p{L}\\p{N}]+",
  "\\p{White_Space}+(?!\\P{White_Space})", "\\p{White_Space}+"].join("|"), "gu");

class Tokenizer { // byte-level BPE, read from the tokenizer.json of the tokenizers library
  constructor({ model, truncation }) {
    this.ids = model.vocab;
    this.length = truncation.max_length;
    this.ranks = new Map(model.merges.map((pair, rank) => [Array.isArray(pair) ? pair.join(" ") : pair, rank]));
    let next = 256; // GPT-2's alphabet: a byte that is no visible character borrows one from above
    const visible = (b) => (b > 32 && b < 127) || (b > 160 && b !== 173);
    this.letters = Array.from({ length: 256 }, (_, b) => String.fromCodePoint(visible(b) ? b : next++));
  }

  words(text) { // in small letters one by one, because JavaScript writes a Σ at the end of a word in another way
    const small = Array.from(text.normalize("NFC"), (letter) => letter.toLowerCase()).join("");
    return text ? (small.startsWith(" ") ? small : " " + small).match(WORDS) : [];
  }

  merge(word) { // of all neighbours the pair that was merged first in training, again and again
    const parts = Array.from(new TextEncoder().encode(word), (b) => this.letters[b]);
    for (;;) {
      const rank = (i) => this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
      let best = 0;
      for (let i = 1; i < parts.length - 1; i++) if (rank(i) < rank(best)) best = i;
      if (rank(best) === Infinity) return parts;
      parts.splice(best, 2, parts[best] + parts[best + 1]);
    }
  }

  encode(text) { // <start> … <end>, without the padding, which a causal tower never sees
    const parts = this.words(text).flatMap((word) => this.merge(word)).slice(0, this.length - 2);
    return ["<start>", ...parts, "<end>"].map((part) => this.ids[part]);
  }
}

// The transformer.

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

function erf(x) { // to 1.5e-7. Source: Abramowitz & Stegun 1964, formula 7.1.26
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

const ACTIVATIONS = {
  gelu: (x) => (x / 2) * (1 + erf(x / Math.SQRT2)),
  quick_gelu: (x) => x / (1 + Math.exp(-1.702 * x)),
};

function attention(x, layer, heads, causal) {
  const [queries, keys, values] = ["query", "key", "value"].map((name) => x.map((row) => linear(row, layer[name])));
  const width = queries[0].length / heads;
  return x.map((_, i) => {
    const mixed = new Float64Array(queries[0].length);
    for (let start = 0; start < mixed.length; start += width) { // a head has its own features, side by side
      const part = (row) => row.subarray(start, start + width);
      const seen = causal ? keys.slice(0, i + 1) : keys;
      const weights = softmax(seen.map((key) => dot(part(queries[i]), part(key)) / Math.sqrt(width)));
      weights.forEach((weight, j) => part(values[j]).forEach((value, k) => { mixed[start + k] += weight * value; }));
    }
    return linear(mixed, layer.output);
  });
}

function tower(x, { transformer, norm }, { num_heads, activation, norm_epsilon, causal = false }) {
  const normed = (rows, layer) => rows.map((row) => layerNorm(row, layer, norm_epsilon));
  for (const block of Object.values(transformer.blocks)) {
    const mixed = attention(normed(x, block.attention_norm), block.attention, num_heads, causal);
    x = x.map((row, i) => add(row, mixed[i]));
    const hidden = normed(x, block.mlp_norm).map((row) => linear(row, block.mlp.expand).map(ACTIVATIONS[activation]));
    x = x.map((row, i) => add(row, linear(hidden[i], block.mlp.contract)));
  }
  return normed(x, norm);
}

// The model.

class CLIP {
  constructor({ config, mean, std, tokenizer, weights }) {
    Object.assign(this, { config, mean, std });
    this.tokenizer = new Tokenizer(tokenizer);
    this.weights = tree(weights);
    this.scale = Math.exp(this.weights.logit_scale);
  }

  patches(pixels) { // bytes (3, height, width) → a row a patch, channel by channel, row by row
    const side = Math.sqrt(pixels.length / 3), size = this.config.image.patch_size, across = side / size, rows = [];
    for (let p = 0; p < across ** 2; p++) {
      const row = [], top = Math.floor(p / across) * size, left = (p % across) * size;
      for (let c = 0; c < 3; c++)
        for (let y = top; y < top + size; y++)
          for (let x = left; x < left + size; x++)
            row.push((pixels[(c * side + y) * side + x] / 255 - this.mean[c]) / this.std[c]);
      rows.push(row);
    }
    return rows;
  }

  encodeImage(pixels) { // each feature is its largest value over the patches, and we remember at which patch
    const { image_encoder: encoder, image_projection: projection } = this.weights, { image } = this.config;
    const { patches, positions } = encoder.embedding;
    let x = this.patches(pixels).map((row, p) => add(linear(row, patches), positions[p]));
    if (image.embedding_norm) x = x.map((row) => layerNorm(row, encoder.embedding_norm, image.norm_epsilon));
    const features = tower(x, encoder, image).map((row) => linear(row, projection));
    const largest = (k) => features.reduce((best, row, p) => (row[k] > features[best][k] ? p : best), 0);
    const places = Array.from(features[0], (_, k) => largest(k));
    return { embedding: unit(Float64Array.from(places, (p, k) => features[p][k])), places, count: features.length };
  }

  encodeText(text) { // read at <end>, the last token
    const { text_encoder: encoder, text_projection: projection } = this.weights, { embedding } = encoder;
    const x = this.tokenizer.encode(text).map((id, i) => add(embedding.tokens.weight[id], embedding.positions[i]));
    return unit(linear(tower(x, encoder, this.config.text).at(-1), projection));
  }

  contributions({ embedding, places, count }, text) { // what each patch adds to the cosine, which is their sum
    const share = new Float64Array(count);
    places.forEach((p, k) => { share[p] += embedding[k] * text[k]; });
    return share;
  }
}
