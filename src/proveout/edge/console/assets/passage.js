// A citation's passage in a dialog, with the quoted words marked. Any element with data-chunk opens it.

const LEAST_RUN = 3; // words: shorter runs in common are chance, not quotation

const dialog = document.getElementById("passage");
const part = (name) => document.getElementById(`passage-${name}`);

/** Opens the passage that `citation` names: {number, title, place, document, quote, chunk}. */
async function open(citation) {
  const text = part("text");
  part("title").textContent = `${citation.number}. ${citation.title || citation.document}`;
  part("place").textContent = citation.place;
  part("document").textContent = citation.document;
  part("note").hidden = true;
  text.replaceChildren("Loading the passage…");
  dialog.showModal();
  try {
    const response = await fetch(`/api/v1/passages/${encodeURIComponent(citation.chunk)}`);
    const passage = await response.json();
    if (!response.ok) throw new Error(passage.error.message);
    text.replaceChildren(...marked(passage.text, citation.quote));
    const mark = text.querySelector("mark");
    mark?.scrollIntoView({ block: "nearest" });
    part("note").hidden = Boolean(mark);
  } catch (error) {
    text.replaceChildren(`The passage cannot be shown. ${error.message}`);
  }
}

/** The passage as text and <mark>: the quote's words, in the longest runs that the passage holds. */
function marked(passage, quote) {
  const words = [...passage.matchAll(/\S+/g)];
  const wanted = quote.match(/\S+/g) ?? [];
  const nodes = [];
  let position = 0;
  for (const [first, last] of runs(words.map(([word]) => word), wanted)) {
    const [start, end] = [words[first].index, words[last].index + words[last][0].length];
    if (start < position) continue;
    nodes.push(passage.slice(position, start), highlight(passage.slice(start, end)));
    position = end;
  }
  return [...nodes, passage.slice(position)];
}

/** The places [first, last] in `words` of the longest runs of `wanted`, in order: a quote may have a gap. */
function runs(words, wanted) {
  const found = [];
  for (let from = 0; from < wanted.length; ) {
    const lengths = words.map((_, at) => {
      let length = 0;
      while (from + length < wanted.length && words[at + length] === wanted[from + length]) length += 1;
      return length;
    });
    const length = Math.max(0, ...lengths);
    if (length >= Math.min(LEAST_RUN, wanted.length)) {
      const first = lengths.indexOf(length);
      let last = first + length - 1;
      while (last > first && !/[\p{L}\p{N}]/u.test(words[last])) last -= 1; // the bullet of a next item
      found.push([first, last]);
    }
    from += Math.max(1, length);
  }
  return found.sort(([a], [b]) => a - b);
}

function highlight(textContent) {
  return Object.assign(document.createElement("mark"), { textContent });
}

document.addEventListener("click", ({ target }) => {
  const opener = target.closest("[data-chunk]");
  if (opener) open({ ...opener.dataset });
  else if (target === dialog || target === part("close")) dialog.close(); // the dialog itself: its backdrop
});
