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
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open])")) { fold.open = true; fold.dataset.opened = ""; }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-opened]")) { fold.open = false; delete fold.dataset.opened; }
});
