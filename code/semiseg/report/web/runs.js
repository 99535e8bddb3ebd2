// The runs behind a row of the leaderboard: how each ended, what it is, and where it was made.

const runsByCell = new Map();
const cellKey = (benchmark, name, labels) => `${DATA.benchmarks.indexOf(benchmark)}/${name}/${labels}`;

for (const benchmark of DATA.benchmarks) {
  for (const row of benchmark.runs) {
    const run = Object.fromEntries(benchmark.columns.map((name, place) => [name, row[place]]));
    const key = cellKey(benchmark, run.method, run.labels);
    if (!runsByCell.has(key)) runsByCell.set(key, []);
    runsByCell.get(key).push(run);
  }
}

const runsOf = (benchmark, cell) => runsByCell.get(cellKey(benchmark, cell.name, cell.labels)) ?? [];

function runTable(benchmark, cell, metric) {
  const runs = runsOf(benchmark, cell);
  const made = [...new Set(runs.map((run) => run.environment).filter((place) => place !== null))];
  const columns = ["Fold", "Seed", DATA.metrics[metric].title, "Seconds", "Identity", "Code", "Made on", "Status"];
  const head = columns.map((name, place) => make("th", { scope: "col", class: place < 4 ? "number" : null }, name));
  const rows = runs.map((run) => runRow(run, metric, made));
  const places = made.map((place, index) =>
    make("p", {}, `${letter(index)}: ${benchmark.environments[place] || "environment not recorded"}`));
  return make("div", { class: "runs scroll" },
    make("table", { "aria-label": `Runs of ${cell.method} at ${cell.labels}` },
      make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)),
    ...places);
}

const letter = (index) => (index < 26 ? String.fromCharCode(65 + index) : String(index + 1));

function runRow(run, metric, made) {
  const status = run.kept ? "kept" : run.status;
  const look = run.kept ? "kept" : status === "finished" ? "finished" : "bad";
  const words = [run.reason, run.kept, ...(run.warnings ?? [])].filter(Boolean).join("; ");
  return make("tr", {},
    make("td", { class: "number" }, run.fold),
    make("td", { class: "number" }, String(run.seed)),
    make("td", { class: "number" }, number(run.scores?.[metric])),
    make("td", { class: "number" }, number(run.seconds, 0)),
    make("td", {}, run.identity ? make("code", {}, run.identity) : "not recorded"),
    make("td", {}, run.commit ? make("code", {}, run.commit) : "not recorded"),
    make("td", {}, run.environment === null ? "–" : letter(made.indexOf(run.environment))),
    make("td", { class: words ? `status-${look} reason` : `status-${look}` }, words ? `${status}: ${words}` : status));
}
