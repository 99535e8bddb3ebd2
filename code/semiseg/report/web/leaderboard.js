// The leaderboard: scores with their intervals, to sort and to filter.

const board = {
  metric: 0, task: null, data: null, labels: null, structure: 0, sort: "score", turned: false, open: new Set(),
};

const allCells = DATA.benchmarks.flatMap((benchmark, place) =>
  benchmark.cells.map((cell, index) => ({ benchmark, cell, id: `${place}-${index}` })));

// Runs that a cell lacks, counted once.
for (const row of allCells) {
  const runs = runsOf(row.benchmark, row.cell);
  row.finished = runs.filter((run) => run.status === "finished").length;
  row.asked = runs.length;
  row.failed = runs.filter((run) => !["finished", "not started"].includes(run.status)).length;
}

// Scores on different data say nothing about each other: each data set has its own ranking.
const place = (row) => DATA.benchmarks.findIndex((benchmark) => benchmark.data === row.benchmark.data);

const scoreOf = (row) => row.cell.scores[board.structure]?.[board.metric] ?? [null, null, null];

const columns = {
  method: { title: "Method", value: (row) => row.cell.method.toLowerCase() },
  data: { title: "Data", value: (row) => row.benchmark.data },
  labels: { title: "Labels", value: (row) => row.benchmark.labels.indexOf(row.cell.labels) },
  score: { title: "Score", value: (row) => scoreOf(row)[0] },
  runs: { title: "Runs", value: (row) => row.finished },
};

function shownRows() {
  const better = DATA.metrics[board.metric].better === "higher" ? -1 : 1;
  const { value } = columns[board.sort];
  const direction = (board.sort === "score" ? better : 1) * (board.turned ? -1 : 1);
  return allCells
    .filter((row) => board.task === "all" || row.cell.task === board.task)
    .filter((row) => board.data === "all" || row.benchmark.data === board.data)
    .filter((row) => board.labels === "all" || row.cell.labels === board.labels || row.cell.everywhere)
    .filter((row) => scoreOf(row)[0] !== null)
    .sort((a, b) => (board.sort === "score" ? place(a) - place(b) : 0) || direction * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
}

function interval([mean, low, high], [from, to], words) {
  const x = (value) => `${(100 * (value - from)) / (to - from || 1)}%`;
  const parts = [draw("line", { class: "axis", x1: 0, x2: "100%", y1: "50%", y2: "50%" })];
  if (low !== null) {
    const [start, stop] = [Math.max(low, from), Math.min(high, to)]; // beyond is what no score can be
    parts.push(draw("line", { x1: x(start), x2: x(stop), y1: "50%", y2: "50%" }));
    for (const end of [low, high].filter((end) => end === start || end === stop)) parts.push(draw("line", { class: "whisker", x1: x(end), x2: x(end), y1: "30%", y2: "70%" }));
  }
  parts.push(draw("circle", { cx: x(mean), cy: "50%", r: 4.5 }));
  return draw("svg", { role: "img", "aria-label": words }, draw("title", {}, words), ...parts);
}

function chips(row) {
  const words = [];
  if (row.cell.partial) words.push(["partial", `† ${row.cell.partial}`]);
  if (row.cell.kept) words.push(["kept", "‡ kept runs"]);
  if (row.failed) words.push(["failed", `${row.failed} failed`]);
  return words.map(([kind, text]) => make("span", { class: `chip ${kind}`, title: row.cell.kept || null }, text));
}

function boardRows(row, range, best) {
  const score = scoreOf(row);
  const unit = unitOf(board.metric, row.benchmark);
  const said = score[1] === null ? `${withUnit(number(score[0]), unit)}, too few folds for an interval`
    : `${withUnit(number(score[0]), unit)}, 95 % interval ${number(score[1])} to ${number(score[2])}`;
  const open = board.open.has(row.id);
  const name = make("button", { class: "method", type: "button", "aria-expanded": open, onclick: () => toggle(row.id) }, row.cell.method);
  const cells = [
    make("td", {}, best ? make("b", {}, name) : name, ...chips(row)),
    shown("data") ? make("td", { class: "data" }, row.benchmark.data) : null,
    make("td", { class: "number" }, row.cell.labels),
    make("td", { class: "number" }, best ? make("b", {}, number(score[0])) : number(score[0])),
    make("td", { class: "interval" }, interval(score, range, said)),
    make("td", { class: "number optional" }, row.finished === row.asked ? String(row.asked) : `${row.finished} of ${row.asked}`),
  ];
  const rows = [make("tr", { class: row.cell.role.endsWith("bound") ? "row bound" : "row", id: `row-${row.id}` }, ...cells)];
  if (open) rows.push(make("tr", { class: "detail" }, make("td", { colspan: 6 }, runTable(row.benchmark, row.cell, board.metric))));
  return rows;
}

function toggle(id) {
  if (!board.open.delete(id)) board.open.add(id);
  showBoard();
  document.querySelector(`#row-${id} .method`).focus();
}

// The column of data sets is for several of them.
const shown = (column) => column !== "data" || (board.data === "all" && DATA.benchmarks.length > 1);

function boardHead() {
  const metric = DATA.metrics[board.metric];
  const cells = Object.entries(columns).filter(([name]) => shown(name)).flatMap(([name, column]) => {
    const ascending = name === "score" ? (metric.better === "lower") !== board.turned : !board.turned;
    const sorted = board.sort === name ? (ascending ? "ascending" : "descending") : "none";
    const units = [...new Set(DATA.benchmarks.map((benchmark) => unitOf(board.metric, benchmark)))];
    const unit = units.filter((of) => of).join(" or ");
    const title = name === "score" ? withUnit(metric.title, unit && `(${unit})`) : column.title;
    const kind = name === "method" || name === "data" ? "" : name === "runs" ? "number optional" : "number";
    const cell = make("th", { scope: "col", "aria-sort": sorted, class: kind, "data-column": name },
      make("button", { type: "button", onclick: () => sortBy(name) }, title));
    const drawn = make("th", { scope: "col", class: "interval" }, make("div", { class: "range", id: "range" }));
    return name === "score" ? [cell, drawn] : [cell];
  });
  return make("tr", {}, ...cells);
}

function sortBy(name) {
  board.turned = board.sort === name && !board.turned;
  board.sort = name;
  showBoard();
  document.querySelector(`#board [data-column=${name}] button`).focus();
}

function bestOf(rows) {
  const sign = DATA.metrics[board.metric].better === "higher" ? 1 : -1;
  const best = new Map();
  if (DATA.metrics[board.metric].given) return best;
  for (const row of rows) {
    if (row.cell.role !== "semi-supervised" || row.cell.partial) continue;
    if (board.labels !== "all" && row.cell.labels !== board.labels) continue; // shown beside those with these labels
    const key = `${row.cell.task}/${row.benchmark.data}/${row.cell.labels}`;
    const first = best.get(key)?.[0];
    const ahead = first ? sign * (scoreOf(row)[0] - scoreOf(first)[0]) : Infinity;
    if (ahead > 0) best.set(key, [row]);
    else if (ahead === 0) best.get(key).push(row); // what prints the same is as good
  }
  return new Set([...best.values()].flat());
}

function showBoard() {
  const rows = shownRows();
  const ends = rows.flatMap((row) => scoreOf(row).filter((value) => value !== null));
  // A wide interval of few folds may pass what a score can be.
  const { distance, number: plain } = DATA.metrics[board.metric];
  const most = distance || plain ? Infinity : 100;
  const range = [Math.max(plain ? -Infinity : 0, Math.min(...ends)), Math.min(most, Math.max(...ends))];
  const best = bestOf(rows);
  document.querySelector("#board thead").replaceChildren(boardHead());
  document.querySelector("#board tbody").replaceChildren(...rows.flatMap((row) => boardRows(row, range, best.has(row))));
  document.querySelector("#range").replaceChildren(...(rows.length ? range : []).map((end) => make("span", {}, number(end, 1))));
  document.querySelector("#remarks").replaceChildren(...remarks().map((words) => make("li", {}, words)));
  document.querySelector("#count").textContent = rows.length ? `${rows.length} rows` : "No row is of this choice.";
}

// What the chosen task or data set does not have gives way to what it has: data sets, labels and metrics.
function choose(key, value) {
  board[key] = value;
  const has = (benchmark) => (board.task === "all" || benchmark.cells[0].task === board.task)
    && (board.data === "all" || benchmark.data === board.data);
  if (key === "data" && board.task !== "all" && value !== "all" && !DATA.benchmarks.some(has)) board.task = DATA.benchmarks.find((b) => b.data === value).cells[0].task;
  if (!DATA.benchmarks.some(has)) board.data = DATA.benchmarks.find((b) => b.cells[0].task === board.task).data;
  const told = DATA.benchmarks.filter(has);
  const labels = told.flatMap((benchmark) => benchmark.labels);
  if (board.labels !== "all" && !labels.includes(board.labels)) board.labels = firstLabels(told[0]);
  const known = measured(told.flatMap((benchmark) => benchmark.cells));
  if (!known[board.metric]) board.metric = known.indexOf(true);
  for (const name of ["task", "data", "labels", "metric"]) document.querySelector(`#filter-${name}`).value = board[name];
  showBoard();
}

// As few labels as the lower bound has, or whatever else needs some; a method without any is shown beside all.
function firstLabels({ cells, labels }) {
  const fewest = (of) => labels.find((words) => cells.some((cell) => cell.labels === words && of(cell)));
  return fewest((cell) => cell.role === "lower bound") ?? fewest((cell) => !cell.everywhere) ?? labels[0];
}

// What readers must know before they believe a ranking.
function remarks() {
  const told = DATA.benchmarks.filter((benchmark) => board.data === "all" || benchmark.data === board.data);
  return told.flatMap((benchmark) => benchmark.remarks.map((words) => (told.length > 1 ? `${benchmark.data}: ${words}` : words)));
}

function startBoard() {
  const first = DATA.benchmarks[0];
  const amounts = [...new Set(DATA.benchmarks.flatMap((b) => b.labels))];
  const structures = DATA.benchmarks.length === 1 && first.structures.length > 1 ? first.structures : [];
  const change = (key, read) => (event) => { board[key] = read(event.target.value); showBoard(); };
  const tasks = [...new Set(allCells.map((row) => row.cell.task))].map((name) => [name, name]);
  board.labels = firstLabels(first);
  [[board.task]] = tasks; // scores of several tasks are not to be ranked with each other
  const data = DATA.benchmarks.map((b) => [b.data, b.data]); // no two have the same name
  [[board.data]] = data;
  const controls = [
    choice("filter-task", "Task", tasks.length > 1 ? [...tasks, ["all", "All"]] : tasks, (event) => choose("task", event.target.value)),
    choice("filter-data", "Data set", data.length > 1 ? [...data, ["all", "All"]] : data, (event) => choose("data", event.target.value)),
    choice("filter-labels", "Labels", [...amounts.map((words) => [words, words]), ["all", "All"]], change("labels", String)),
    choice("filter-metric", "Metric", DATA.metrics.map((m, i) => [i, m.title]), change("metric", Number)),
    choice("filter-structure", "Structure", [[0, "Mean"], ...structures.map((name, i) => [i + 1, name])], change("structure", Number)),
  ];
  controls[2].select.value = board.labels;
  document.getElementById("leaderboard").append(
    make("div", { class: "controls" }, ...controls.map((control) => control.label)),
    make("div", { class: "scroll" }, make("table", { id: "board", "aria-label": "Leaderboard" }, make("thead"), make("tbody"))),
    make("p", { class: "soft", role: "status" }, make("span", { id: "count" })),
    make("ul", { class: "notes", id: "remarks" }),
    make("ul", { class: "notes" },
      make("li", {}, "Bars: 95 % interval of the mean over folds (Nadeau and Bengio's variance), from three folds on."),
      make("li", {}, "Bold: best complete semi-supervised method with these labels. Grey: bounds. The upper one and methods without labels are always shown."),
      make("li", {}, "Whether a difference could be chance is told by the tables of differences, not by whether bars overlap."),
      make("li", {}, "A method's name opens its runs, with their identity and environment.")));
  showBoard();
}

startBoard();
