"use strict";
// Sorting and search for tables that are complete without it; opens what is folded before printing.
for (const table of document.querySelectorAll("table.sortable")) {
  const search = table.classList.contains("cases") ? "search" : null;
  new DataTable(table, {
    paging: false, info: false, autoWidth: false, order: [],
    layout: { topStart: search, topEnd: null, bottomStart: null, bottomEnd: null },
  });
}
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open])")) { fold.open = true; fold.dataset.opened = ""; }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-opened]")) { fold.open = false; delete fold.dataset.opened; }
});
