// Niceties only: every page works without them.
"use strict";

// One box selects all rows of a table.
for (const all of document.querySelectorAll("input[data-ob-all]")) {
  const boxes = [...all.form.querySelectorAll('input[name="selected"]')];
  const tell = () => {
    const picked = boxes.filter((box) => box.checked).length;
    all.checked = picked > 0 && picked === boxes.length;
    all.indeterminate = picked > 0 && picked < boxes.length;
    for (const place of all.form.querySelectorAll("[data-ob-picked]")) {
      place.textContent = picked ? `${picked} selected` : "Selected";
    }
  };
  all.closest("[hidden]")?.removeAttribute("hidden");
  all.addEventListener("change", () => {
    for (const box of boxes) box.checked = all.checked;
    tell();
  });
  for (const box of boxes) box.addEventListener("change", tell);
  tell();
}

// A second click while the first is on its way sends nothing.
for (const form of document.querySelectorAll('form[method="post"]')) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.obSent) event.preventDefault();
    form.dataset.obSent = "yes";
  });
}
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-ob-sent]")) delete form.dataset.obSent;
});

// What is done in chunks goes on by itself.
document.querySelector("form[data-ob-go-on]")?.requestSubmit();

// The overview follows what happens, unless somebody is reading in it.
const live = document.querySelector("[data-ob-live]");
if (live) {
  setInterval(async () => {
    const isRead = live.querySelector("details[open]") || live.contains(document.activeElement);
    if (document.hidden || isRead) return;
    const answer = await fetch(location.href).catch(() => null);
    if (!answer?.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("[data-ob-live]");
    if (fresh) live.replaceChildren(...fresh.childNodes);
  }, Number(live.dataset.obLive) * 1000);
}
