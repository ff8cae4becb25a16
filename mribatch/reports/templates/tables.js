// Sort a table by a click on the name of a column; filter long tables. Without this script, the page says the same.
"use strict";

const NUMBER = /^([<>]\s?)?[-−]?[\d,]*\.?\d+(%|\s[a-zA-Z/]+)?($|\s?[(±]|\sto\s|\sof\s)/;
const names = new Intl.Collator("en", { numeric: true });

function valueOf(row, column) {
  return row.cells[column].textContent.trim();
}

function numberOf(text) {
  const beyond = { "<": -1e-9, ">": 1e-9 }[text[0]] ?? 0;
  return parseFloat(text.replace(/^[<>]\s?/, "").replace("−", "-").replaceAll(",", "")) + beyond;
}

function sort(table, column, descending) {
  const body = table.tBodies[0], known = [], missing = [];
  for (const row of body.rows) {
    const text = valueOf(row, column);
    (text === "" || text === "–" ? missing : known).push([row, text]);
  }
  const isNumber = known.every(([, text]) => NUMBER.test(text));
  known.sort(([, a], [, b]) => (isNumber ? numberOf(a) - numberOf(b) : names.compare(a, b)) * (descending ? -1 : 1));
  body.append(...[...known, ...missing].map(([row]) => row));
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.children.length || !head.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = head.ariaSort === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.ariaSort = descending ? "descending" : "ascending";
      sort(table, column, descending);
    });
  });
}

function makeFilterable(table) {
  const rows = [...table.tBodies[0].rows];
  const label = document.createElement("label"), input = document.createElement("input"), count = document.createElement("output");
  label.className = "filter";
  input.type = "search";
  label.append("Filter ", input, " ", count);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  });
  table.parentElement.before(label);
}

for (const table of document.querySelectorAll(".table:not(.confusion) > table")) {
  if (table.tBodies[0].rows.length > 1) makeSortable(table);
  if (table.parentElement.classList.contains("long") && table.tBodies[0].rows.length > 7) makeFilterable(table);
}
