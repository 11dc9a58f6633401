// A word of a search that no page has is read as the word, one edit away, that most pages have; the page says so.
// Candidates are made of the word itself, not of the index, which holds stems alone (Norvig, "How to write a spelling
// corrector").

"use strict";

function edits(word) { // one letter less, two exchanged, one replaced, one more
  const found = new Set(), letters = "abcdefghijklmnopqrstuvwxyz0123456789_";
  for (let i = 0; i <= word.length; i++) {
    const before = word.slice(0, i), after = word.slice(i);
    if (after) found.add(before + after.slice(1));
    if (after.length > 1) found.add(before + after[1] + after[0] + after.slice(2));
    for (const letter of letters) {
      if (after) found.add(before + letter + after.slice(1));
      found.add(before + letter + after);
    }
  }
  return found;
}

function corrected(query, { terms, titleterms, objects }) { // the query, and which words were read as which
  const stemmer = new Stemmer(), read = [];
  const own = (index, key) => (Object.hasOwn(index, key) ? [index[key]].flat().length : 0);
  const pages = (word) => own(terms, stemmer.stemWord(word)) + own(titleterms, stemmer.stemWord(word));
  const names = Object.entries(objects).flatMap(([prefix, all]) => all.map((one) => `${prefix}.${one[4]}`));
  const inPart = (words, part) => words.some((word) => word.toLowerCase().includes(part)); // which Sphinx finds too
  const stems = [terms, titleterms].flatMap(Object.keys);
  const isThere = (word) => pages(word) || inPart(stems, stemmer.stemWord(word)) || inPart(names, word);
  for (const word of splitQuery(query.toLowerCase())) {
    if (word.length < 4 || stopwords.has(word) || isThere(word)) continue;
    const near = [...edits(word)].map((other) => ({ other, count: pages(other) })).filter(({ count }) => count);
    near.sort((a, b) => b.count - a.count || b.other.length - a.other.length || (a.other < b.other ? -1 : 1));
    if (near.length) read.push([word, near[0].other]);
  }
  const better = read.reduce((text, [word, other]) => text.replace(word, other), query.toLowerCase());
  return { query: read.length ? better : query, read };
}

if (typeof Search !== "undefined") { // on the page of the search alone
  const asWritten = Search.query;
  Search.query = (query) => {
    const better = corrected(query, Search._index);
    if (better.read.length) {
      const note = document.createElement("p");
      note.className = "search-read-as";
      const told = ([word, other]) => `No page has “${word}”; searched for “${other}”.`;
      note.textContent = better.read.map(told).join(" ");
      Search.output.before(note);
    }
    asWritten(better.query);
  };
}
