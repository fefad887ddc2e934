// Search, sort and pages. Whatever comes from the session is put into the page as text, never as markup.
"use strict";
(() => {
  const PAGE = 100;
  const find = (id) => document.getElementById(id);
  const make = (name, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const count = (number) => number.toLocaleString("en-US");

  const data = JSON.parse(find("data").textContent);
  const [ID, TIME, KIND, FAILED, PROTO, PID, COMM, OWNER, LOCAL, REMOTE, DETAILS] = Array(11).keys();
  // By column of the table: what it is sorted by.
  const SORTED_BY = [ID, TIME, KIND, PROTO, PID, COMM, LOCAL, REMOTE, DETAILS];
  const time = (us) => {
    const text = new Date(data.start + Math.floor(us / 1000)).toISOString();
    return text.slice(0, -1).replace("T", " ");
  };

  // What is searched in: made when it is needed, and of owners once.
  const owners = data.owners.map((owner) => owner.map((pair) => pair[1]).join(" ").toLowerCase());
  const texts = new Array(data.rows.length);
  const textOf = (at) => (texts[at] ??= [
    time(data.rows[at][TIME]), data.kinds[data.rows[at][KIND]], data.protos[data.rows[at][PROTO]], data.rows[at][PID],
    data.rows[at][COMM], data.rows[at][LOCAL], data.rows[at][REMOTE], data.rows[at][DETAILS],
  ].join(" ").toLowerCase());

  const table = find("event-table");
  const body = table.tBodies[0];
  const state = { rows: [], column: 0, down: false, page: 0 };

  const select = () => {
    const words = find("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = data.kinds.indexOf(find("kind").value);
    const failed = find("failed").checked;
    state.rows = [];
    data.rows.forEach((row, at) => {
      if (kind >= 0 && row[KIND] !== kind) return;
      if (failed && !row[FAILED]) return;
      if (words.every((word) => textOf(at).includes(word) || owners[row[OWNER]].includes(word))) state.rows.push(at);
    });
    state.page = 0;
    sort();
  };

  const sort = () => {
    const column = SORTED_BY[state.column];
    const sign = state.down ? -1 : 1;
    const order = new Intl.Collator("en", { numeric: true }).compare;
    const compare = typeof data.rows[0]?.[column] === "string" ? order : (a, b) => (a ?? -1) - (b ?? -1);
    state.rows.sort((a, b) => sign * compare(data.rows[a][column], data.rows[b][column]) || a - b);
    [...table.tHead.rows[0].cells].forEach((cell, at) => {
      if (at === state.column) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    show();
  };

  const show = () => {
    const pages = Math.max(1, Math.ceil(state.rows.length / PAGE));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const shown = state.rows.slice(state.page * PAGE, (state.page + 1) * PAGE);
    body.replaceChildren(...shown.map(line));
    const hits = `${count(state.rows.length)} of ${count(data.rows.length)}`;
    find("status").textContent = `${hits}, page ${count(state.page + 1)} of ${count(pages)}`;
    find("first").disabled = find("previous").disabled = state.page === 0;
    find("next").disabled = find("last").disabled = state.page === pages - 1;
  };

  const line = (at) => {
    const row = data.rows[at];
    const tr = make("tr", undefined, row[FAILED] ? "failed" : "");
    const program = make("td");
    const button = make("button", row[COMM]);
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.title = "who this is";
    button.addEventListener("click", () => expand(tr, button, data.owners[row[OWNER]]));
    program.append(button);
    tr.append(
      make("td", row[ID], "n"), make("td", time(row[TIME])), make("td", data.kinds[row[KIND]]), make("td", data.protos[row[PROTO]]),
      make("td", row[PID] ?? "-", "n"), program, make("td", row[LOCAL]), make("td", row[REMOTE]), make("td", row[DETAILS], "words"),
    );
    return tr;
  };

  // A row below with what is known of the owner, or without it again.
  const expand = (tr, button, owner) => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) return tr.nextSibling.remove();
    const cell = make("td");
    cell.colSpan = SORTED_BY.length;
    const list = make("dl");
    for (const [name, value] of owner.length ? owner : [["owner", "unknown"]]) {
      const pair = make("div");
      pair.append(make("dt", name), make("dd", value));
      list.append(pair);
    }
    cell.append(list);
    const below = make("tr", undefined, "owner");
    below.append(cell);
    tr.after(below);
  };

  [...table.tHead.rows[0].cells].forEach((cell, at) => {
    const button = make("button", cell.textContent);
    button.type = "button";
    button.addEventListener("click", () => {
      state.down = at === state.column && !state.down;
      state.column = at;
      state.page = 0;
      sort();
    });
    cell.replaceChildren(button);
  });
  let waiting;
  find("query").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(select, 150);
  });
  find("kind").addEventListener("change", select);
  find("failed").addEventListener("change", select);
  const go = (id, page) => find(id).addEventListener("click", () => { state.page = page(); show(); });
  go("first", () => 0);
  go("previous", () => state.page - 1);
  go("next", () => state.page + 1);
  go("last", () => Infinity);
  find("event-tools").hidden = false;
  select();

  // The listeners are all in the page: those that do not fit are hidden.
  const tools = document.querySelector("[data-filters=listeners]");
  if (tools) {
    const rows = [...find("listeners").tBodies[0].rows];
    const search = tools.querySelector("[data-search]");
    const short = tools.querySelector("[data-short]");
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = (short.checked && !("short" in row.dataset)) || !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      tools.querySelector("[data-status]").textContent = `${count(shown)} of ${count(rows.length)}`;
    };
    search.addEventListener("input", filter);
    short.addEventListener("change", filter);
    tools.hidden = false;
    filter();
  }
})();
