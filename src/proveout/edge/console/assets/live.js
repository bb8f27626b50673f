// Keeps a page fresh: asks for it again and swaps the sections that changed. It rests while the page is hidden, while
// text is selected, and when the button says so.

const REST = 20; // times as long as the server took: a page over much data must not keep the database busy

const button = document.getElementById("live");
const SECONDS = Number(button.dataset.seconds ?? 10);
const status = document.getElementById("fresh");
let timer = 0;

const live = () => button.ariaPressed === "true";

async function refresh() {
  clearTimeout(timer);
  const began = performance.now();
  if (live() && !document.hidden && getSelection().isCollapsed) {
    try {
      const response = await fetch(location.href, { headers: { accept: "text/html" } });
      if (response.ok) swap(new DOMParser().parseFromString(await response.text(), "text/html"));
      say(response.ok ? "" : `Not fresh: the server answered ${response.status}. Reload the page.`);
    } catch {
      say("Not fresh: the server cannot be reached.");
    }
  }
  clearTimeout(timer); // of another one that ran beside this
  timer = setTimeout(refresh, Math.max(SECONDS * 1000, REST * (performance.now() - began)));
}

/** Takes over what changed; focus and opened details stay as they are. */
function swap(fresh) {
  const main = document.querySelector("main");
  const sections = [...main.querySelectorAll("[data-live]")];
  const news = [...fresh.querySelectorAll("main [data-live]")];
  if (sections.map(({ id }) => id).join() !== news.map(({ id }) => id).join()) return location.reload();
  for (const [position, section] of sections.entries()) {
    const next = news[position];
    for (const { id } of section.querySelectorAll("details[open]")) next.querySelector(`#${id}`)?.setAttribute("open", "");
    if (next.outerHTML === section.outerHTML) continue;
    const focused = section.contains(document.activeElement) ? document.activeElement.id : "";
    section.replaceWith(next);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
}

function say(text) {
  if (status.textContent !== text) status.textContent = text;
}

button.hidden = false;
button.addEventListener("click", () => {
  button.ariaPressed = String(!live());
  refresh();
});
document.addEventListener("visibilitychange", refresh);
timer = setTimeout(refresh, SECONDS * 1000);
