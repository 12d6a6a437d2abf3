(() => {
  const make = (tag, given, ...inside) => { const one = Object.assign(document.createElement(tag), given); one.append(...inside); return one; };
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const text = (row, column) => row.cells[column].textContent.trim();
  const value = string => parseFloat(string.replace(/[,+✔✘∅≠ ]/g, "").replace("−", "-"));

  function sortable(table) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      let up = true;
      button.addEventListener("click", () => {
        const rows = [...body.rows].map(row => [row, text(row, column)]);
        const known = rows.filter(([, said]) => said && said !== "–");
        const numbers = known.length && known.every(([, said]) => !isNaN(value(said)) && /^[-+−,.\d]/.test(said));
        const last = said => +(!said || said === "–");  // a gap stays last, whichever way
        const order = numbers ? (a, b) => value(a) - value(b) : compare;
        rows.sort(([, a], [, b]) => last(a) - last(b) || (last(a) ? 0 : order(a, b) * (up ? 1 : -1)));
        body.append(...rows.map(([row]) => row));
        table.querySelectorAll("th[aria-sort]").forEach(th => th.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        up = !up;
      });
    });
  }

  function filterable(table) {
    const rows = [...table.tBodies[0].rows], said = rows.map(row => row.textContent.toLowerCase());
    const shown = make("output", { className: "soft", value: `${rows.length} rows` });
    const field = make("input", { type: "search", placeholder: "filter rows…" });
    field.setAttribute("aria-label", "filter the rows of this table");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      rows.forEach((row, at) => { row.hidden = !words.every(word => said[at].includes(word)); count += !row.hidden; });
      shown.value = words.length ? `${count} of ${rows.length} rows` : `${rows.length} rows`;
    });
    table.closest(".scroll").before(make("div", { className: "filter" }, field, shown));
  }

  document.querySelectorAll("main table").forEach(table => {
    if (table.tBodies[0].rows.length > 1) sortable(table);
    if (table.tBodies[0].rows.length > 24) filterable(table);
  });

  const large = document.getElementById("large"), picture = large.querySelector("img");
  const open = image => { picture.src = image.src; picture.alt = image.alt; large.showModal(); };
  document.querySelectorAll("figure img").forEach(image => {
    image.tabIndex = 0;
    image.setAttribute("role", "button");
    image.setAttribute("aria-haspopup", "dialog");
    image.addEventListener("click", () => open(image));
    image.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();  // a space would scroll the page
      open(image);
    });
  });
  large.addEventListener("click", () => large.close());

  const root = document.documentElement, button = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();

  let folded = [];
  addEventListener("beforeprint", () => { folded = [...document.querySelectorAll("details:not([open])")]; folded.forEach(one => { one.open = true; }); });
  addEventListener("afterprint", () => folded.forEach(one => { one.open = false; }));
})();
