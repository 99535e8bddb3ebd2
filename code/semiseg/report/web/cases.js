// The viewer: image, reference and two methods' masks of one case after the other, the worst ones first.

const viewer = { benchmark: 0, a: 0, b: 0, metric: 0, structure: 0, place: 0, shown: { reference: true, a: true, b: true } };

const LAYERS = { reference: "Reference", a: "A", b: "B" };

// Cases that both methods were tested on, in the order of the worse of their two scores.
function casesInOrder() {
  const benchmark = DATA.benchmarks[viewer.benchmark];
  const sign = DATA.metrics[viewer.metric].better === "higher" ? 1 : -1;
  const scores = (cell, index) => benchmark.caseScores[cell][viewer.metric][index];
  return benchmark.cases
    .map((name, index) => ({ name, case: index, x: scores(viewer.a, index), y: scores(viewer.b, index) }))
    .filter((point) => point.x !== null && point.y !== null)
    .map((point) => ({ ...point, x: point.x / 100, y: point.y / 100 }))
    .sort((p, q) => Math.min(sign * p.x, sign * p.y) - Math.min(sign * q.x, sign * q.y) || p.case - q.case);
}

function picture(benchmark, point) {
  const found = benchmark.pictures[point.case];
  if (!found) return make("div", { class: "nopicture" }, pictureMissing(benchmark));
  const [width, height] = found.size;
  const masks = { reference: found.reference, a: found.masks[viewer.a], b: found.masks[viewer.b] };
  const seen = Object.keys(LAYERS).filter((layer) => viewer.shown[layer] && masks[layer]);
  const words = `Case ${point.name} with outlines of ${seen.map((layer) => LAYERS[layer]).join(", ") || "nothing"}`;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words, class: "picture" },
    draw("image", { href: found.image, width, height }));
  for (const layer of seen) svg.append(outlined(layer, outline(decode(masks[layer], found.size), found.size, viewer.structure)));
  return svg;
}

// Whose prediction of the case lies beside no run, which would look like one that is empty.
function unseen(benchmark, point) {
  const masks = benchmark.pictures[point.case]?.masks;
  const lacking = masks ? ["a", "b"].filter((layer) => !masks[viewer[layer]]).map((layer) => LAYERS[layer]) : [];
  return lacking.length ? make("p", { class: "remark" }, `No picture of what ${lacking.join(" and ")} predicted was kept.`) : null;
}

function pictureMissing(benchmark) {
  const kept = Object.keys(benchmark.pictures).length;
  return kept ? `No picture of this case: the page holds the ${kept} worst cases whose pictures lie beside the runs.`
    : "No pictures lie beside these runs. “semiseg run” keeps them as examples.npz in the folder of each run (they are "
      + "not in version control), and “semiseg report” then puts them here.";
}

function showCase(focus) {
  const benchmark = DATA.benchmarks[viewer.benchmark];
  const points = casesInOrder();
  viewer.place = Math.max(0, Math.min(viewer.place, points.length - 1));
  const point = points[viewer.place];
  const titles = [viewer.a, viewer.b].map((cell) => `${benchmark.cells[cell].method}, ${benchmark.cells[cell].labels}`);
  const unit = unitOf(viewer.metric, benchmark);
  const open = (index) => { viewer.place = points.findIndex((p) => p.case === index); showCase("point"); };
  const name = DATA.metrics[viewer.metric].title;
  document.getElementById("case").replaceChildren(...(point ? [
    picture(benchmark, point),
    make("p", { class: "case-name", role: "status" }, make("b", {}, point.name), ` ${viewer.place + 1} of ${points.length}; ${name} A ${number(point.x)}, ${withUnit(`B ${number(point.y)}`, unit)}`),
    ...[unseen(benchmark, point)].filter((remark) => remark),
  ] : [make("p", {}, "No case was predicted by both.")]));
  document.getElementById("scatter").replaceChildren(scatter(points, titles, unit ? `${name}, ${unit}` : name, point?.case, open));
  if (focus === "point") document.querySelector("#scatter .current")?.focus({ preventScroll: true });
}

function step(by) {
  viewer.place += by;
  showCase();
}

function viewerControls() {
  const benchmark = DATA.benchmarks[viewer.benchmark];
  const known = measured(benchmark.cells);
  const cells = benchmark.cells.map((cell, index) => [index, `${cell.method}, ${cell.labels}`]);
  const change = (key) => (event) => {
    viewer[key] = Number(event.target.value);
    if (key !== "structure") viewer.place = 0; // the worst case of this choice
    showCase();
  };
  const controls = [
    choice("viewer-data", "Data set", DATA.benchmarks.map((b, i) => [i, b.data]), (event) => startCases(Number(event.target.value))),
    choice("viewer-a", "Method A", cells, change("a")),
    choice("viewer-b", "Method B", cells, change("b")),
    choice("viewer-metric", "Metric", DATA.metrics.map((m, i) => [i, m.title]).filter(([i]) => known[i]), change("metric")),
    choice("viewer-structure", "Outlines of", [[0, "all structures"], ...(benchmark.structures.length > 1 ? benchmark.structures : []).map((s, i) => [i + 1, s])], change("structure")),
  ];
  for (const [place, key] of ["benchmark", "a", "b", "metric", "structure"].entries()) controls[place].select.value = viewer[key];
  return make("div", { class: "controls" }, ...controls.map((control) => control.label));
}

function layerSwitches() {
  return Object.entries(LAYERS).map(([layer, words]) => make("label", { class: `layer ${layer}` },
    make("input", { type: "checkbox", checked: viewer.shown[layer] ? "" : null,
      onchange: (event) => { viewer.shown[layer] = event.target.checked; showCase(); } }), make("span", { class: "swatch" }), words));
}

function startCases(place) {
  const { cells } = DATA.benchmarks[place];
  const known = measured(cells);
  const metric = known[viewer.metric] ? viewer.metric : known.indexOf(true); // another task may have others
  // At first: the lower bound beside the best semi-supervised method with as many labels.
  const labels = cells[0].labels;
  const sign = DATA.metrics[metric].better === "higher" ? 1 : -1;
  const rivals = cells.map((cell, index) => [index, cell]).filter(([, c]) => c.role === "semi-supervised" && c.labels === labels && measured([c])[metric]);
  const best = rivals.sort(([, p], [, q]) => sign * (q.scores[0][metric][0] - p.scores[0][metric][0]))[0]?.[0];
  Object.assign(viewer, { benchmark: place, a: 0, b: best ?? cells.length - 1, metric, structure: 0, place: 0 });
  const section = document.getElementById("cases");
  section.replaceChildren(section.querySelector("h2"), viewerControls(),
    make("div", { class: "viewer" },
      make("div", {},
        make("div", { class: "bar" },
          make("button", { type: "button", id: "previous", onclick: () => step(-1) }, "‹ Worse"),
          make("button", { type: "button", id: "next", onclick: () => step(1) }, "Better ›"), ...layerSwitches()),
        make("div", { id: "case", tabindex: 0, role: "group", "aria-label": "Case; arrow keys step" })),
      make("div", { id: "scatter" })),
    make("p", { class: "remark" }, "Worst cases first, by the lower of the two scores. Arrow keys step from the picture; a point of the plot opens its case. Volumes: the slice that shows most of the reference; scores are of the whole case. Where a method has several trainings, outlines are of the first seed and fold, and scores are means."));
  document.getElementById("case").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
  });
  showCase();
}

startCases(0);
