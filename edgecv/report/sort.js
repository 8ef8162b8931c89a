"use strict";
// Tables sort by a click on a column's head: ascending, descending, as written.
const said = (cell) => {
  if (!cell) return "";
  if (cell.dataset.v !== undefined) return cell.dataset.v;
  const own = [...cell.childNodes].filter((n) => n.nodeName !== "SMALL");
  return own.map((n) => n.textContent).join("").trim() && cell.textContent.trim();
};
const number = (text) => {
  const plain = text.replace(/[,<\s]/g, "").replace("\u2212", "-");
  return /^[-+]?[\d.]/.test(plain) ? parseFloat(plain) : NaN;
};
const compare = (a, b) => {
  const [x, y] = [number(a), number(b)];
  return isNaN(x) || isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
  const homes = rows.map((row) => row.parentNode);
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (rows.length < 2 || !head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = { ascending: "descending", descending: "" };
      const way = order[head.getAttribute("aria-sort")] ?? "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (!way) return rows.forEach((row, i) => homes[i].append(row));
      head.setAttribute("aria-sort", way);
      const values = new Map(rows.map((row) => [row, said(row.cells[column])]));
      const turn = way === "ascending" ? 1 : -1;
      const known = rows.filter((row) => values.get(row));
      known.sort((a, b) => turn * compare(values.get(a), values.get(b)));
      // what has no value stays last, either way
      homes[0].append(...known, ...rows.filter((row) => !values.get(row)));
    });
  });
}
