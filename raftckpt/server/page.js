// Keeps the page as it is now: asks for its parts every second and puts in those that changed.
// All text is made safe where it is made, in page.py; nothing here puts text together from data.
"use strict";

const EVERY_MS = 1000;
const CHARTS_EVERY = 5;
const SILENT_MS = 3000; // then it is said that what is seen is old
const shown = new Map();
let heardAt = Date.now();
let rounds = 0;

function take(text) {
  const parts = new DOMParser().parseFromString(text, "text/html");
  for (const part of parts.querySelectorAll("section[id]")) {
    const here = document.getElementById(part.id);
    if (!here || shown.get(part.id) === part.innerHTML) continue;
    const chosen = document.getSelection();
    if (chosen && !chosen.isCollapsed && here.contains(chosen.anchorNode)) continue; // being copied
    shown.set(part.id, part.innerHTML);
    const open = [...here.querySelectorAll("details[open]")].map((each) => each.dataset.is);
    here.replaceChildren(...document.importNode(part, true).childNodes);
    for (const each of here.querySelectorAll("details")) each.open = open.includes(each.dataset.is);
  }
  const title = parts.querySelector("title");
  if (title) document.title = title.textContent;
}

async function ask(path) {
  const ended = AbortSignal.timeout(2 * SILENT_MS);
  const answer = await fetch(path, { cache: "no-store", signal: ended });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text.trim());
  take(text);
}

async function round() {
  if (!document.hidden) {
    try {
      await ask("now");
      if (rounds++ % CHARTS_EVERY === 0) await ask("charts");
      heardAt = Date.now();
    } catch (error) {
      document.getElementById("why").textContent =
        error instanceof TypeError ? "does not answer" : error.message || "does not answer";
    }
    const silent = Date.now() - heardAt;
    const old = silent > SILENT_MS;
    document.body.classList.toggle("old", old);
    document.getElementById("stale").hidden = !old;
    document.getElementById("since").textContent = Math.round(silent / 1000) + " s";
  }
  setTimeout(round, EVERY_MS);
}

document.addEventListener("visibilitychange", () => { heardAt = Date.now(); });
round();
