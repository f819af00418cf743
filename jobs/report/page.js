"use strict";
// The page is complete without this script. It adds sorting to tables, and the slider to the pictures.

function numberOf(cell) {
  const text = cell.firstChild ? cell.firstChild.textContent : "";
  return parseFloat(text.replaceAll(",", "").replace("−", "-"));
}

function makeSortable(table) {
  const home = [...table.tBodies].map((body) => [body, [...body.rows]]);
  const sorted = document.createElement("tbody");
  const headings = [...table.tHead.rows[0].cells];

  function restore() {
    sorted.remove();
    for (const [body, rows] of home) {
      body.append(...rows);
      body.hidden = false;
    }
  }

  function sort(column, direction) {
    const rows = home.flatMap(([, rows]) => rows).filter((row) => !row.classList.contains("group"));
    const keyed = rows.map((row) => [numberOf(row.cells[column]), row]);
    keyed.sort(([a], [b]) => (isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) : direction * (a - b)));
    sorted.append(...keyed.map(([, row]) => row));
    for (const [body] of home) body.hidden = true;
    table.append(sorted);
  }

  headings.forEach((heading, column) => {
    if (heading.tagName !== "TH") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    const first = heading.dataset.first === "descending" ? "descending" : "ascending";
    const orders = [null, first, first === "ascending" ? "descending" : "ascending"];
    button.addEventListener("click", () => {
      const next = orders[(orders.indexOf(heading.getAttribute("aria-sort")) + 1) % orders.length];
      for (const other of headings) other.removeAttribute("aria-sort");
      restore();
      if (next) {
        heading.setAttribute("aria-sort", next);
        sort(column, next === "ascending" ? 1 : -1);
      }
      table.classList.toggle("sorted", next !== null);
    });
  });
}

function addOption(select, value, text) {
  const option = document.createElement("option");
  option.value = value;
  option.textContent = text;
  select.append(option);
}

function makeViewer(viewer, gallery) {
  const [under, over] = viewer.querySelectorAll("img");
  const [pairs, results] = viewer.querySelectorAll("select");
  const slider = viewer.querySelector("input[type=range]");
  const errors = viewer.querySelector("input[type=checkbox]");
  const figure = viewer.querySelector("output");
  const bodies = [...gallery.tBodies];
  const labels = [...gallery.tHead.rows[0].cells].map((cell) => cell.textContent);
  const picture = (column) => bodies[pairs.value].rows[1].cells[column].querySelector("img");
  const columnOf = (role) => [...bodies[0].rows[1].cells].findIndex((cell) => cell.dataset.role === role);
  const [input, truth] = [columnOf("input"), columnOf("truth")];

  function show() {
    const result = picture(results.value);
    const position = Number(slider.value); // 0 input, 1 result, 2 truth
    const shown = result ? (errors.checked && result.dataset.error) || result.dataset.picture : "data:,";
    const outer = picture(position < 1 ? input : truth);
    over.src = shown;
    under.src = outer.dataset.picture;
    over.alt = `${labels[results.value]}, ${outer.alt}`;
    under.alt = outer.alt;
    under.width = over.width = 3 * outer.width;
    under.height = over.height = 3 * outer.height;
    under.className = outer.className;
    over.className = `over ${outer.className}`;
    // A wipe: the result gives way to the input from the left, and to the truth from the right.
    const hidden = 100 * Math.abs(position - 1);
    over.style.clipPath = position < 1 ? `inset(0 0 0 ${hidden}%)` : `inset(0 ${hidden}% 0 0)`;
    figure.textContent = result ? result.title : "not filled in time";
  }

  function swapAll() {
    for (const image of gallery.querySelectorAll("img[data-error]"))
      image.src = errors.checked ? image.dataset.error : image.dataset.picture;
    show();
  }

  for (const image of gallery.querySelectorAll("img")) image.dataset.picture = image.getAttribute("src");
  bodies.forEach((body, number) => addOption(pairs, number, body.rows[0].querySelector(".pair").textContent));
  labels.forEach((label, column) => {
    if (bodies.some((body) => body.rows[1].cells[column].dataset.role === "result")) addOption(results, column, label);
  });
  if (!results.length) return;
  const best = [...results.options].find((option) => option.textContent === viewer.dataset.first);
  if (best) best.selected = true;
  gallery.addEventListener("click", (event) => {
    const cell = event.target.closest("td");
    if (!cell || !event.target.closest("img")) return;
    pairs.value = bodies.indexOf(cell.closest("tbody"));
    if (cell.dataset.role === "result") results.value = cell.cellIndex;
    slider.value = { input: 0, truth: 2 }[cell.dataset.role] ?? 1;
    show();
    viewer.scrollIntoView({ block: "nearest" });
  });
  for (const control of [pairs, results, slider]) control.addEventListener("input", show);
  errors.addEventListener("input", swapAll);
  viewer.hidden = false;
  show();
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
const viewer = document.querySelector(".viewer");
if (viewer) makeViewer(viewer, document.querySelector(".gallery table"));
