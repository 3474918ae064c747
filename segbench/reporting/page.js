"use strict";
// Sorting and search for tables that are complete without it; opens what a link points to, and all before printing.
for (const table of document.querySelectorAll("table.sortable")) {
  const search = table.classList.contains("cases") ? "search" : null;
  new DataTable(table, {
    paging: false, info: false, autoWidth: false, order: [],
    layout: { topStart: search, topEnd: null, bottomStart: null, bottomEnd: null },
  });
}
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let node = target; node; node = node.parentElement) { if (node.tagName === "DETAILS") { node.open = true; } }
  if (target) { target.scrollIntoView(); }
}
addEventListener("hashchange", reveal);
reveal();
// Two methods are chosen: rows of other pairs are hidden, and the figure of the pair opens where there is one.
for (const choice of document.querySelectorAll(".compare")) {
  const fold = choice.closest("details");
  choice.hidden = false;
  choice.addEventListener("change", () => {
    const chosen = [...choice.querySelectorAll("select")].map((select) => select.value).filter(Boolean);
    const matches = (pair) => chosen.every((name) => pair.includes(name));
    for (const row of fold.querySelector("table").tBodies[0].rows) {
      row.hidden = !matches([...row.cells].slice(0, 2).map((cell) => cell.textContent));
    }
    for (const pair of fold.querySelectorAll("details.pair")) {
      const matching = matches([pair.dataset.first, pair.dataset.second]);
      pair.hidden = !matching;
      pair.open = matching && chosen.length === 2;
    }
  });
}
// Of details with a name only one can be open: the print style shows those.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open]):not([name])")) { fold.open = true; fold.dataset.opened = ""; }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-opened]")) { fold.open = false; delete fold.dataset.opened; }
});
