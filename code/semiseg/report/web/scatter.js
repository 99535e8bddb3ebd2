// Every case as a point: one method's score against another's. A point opens its case.

const PLOT = { size: 320, left: 44, bottom: 40, top: 8, right: 8 };

function scatter(points, titles, score, current, open) {
  const { size, left, bottom, top, right } = PLOT;
  const values = points.flatMap((point) => [point.x, point.y]);
  const [from, to] = values.length ? [Math.floor(Math.min(...values)), Math.ceil(Math.max(...values))] : [0, 1];
  const span = to - from || 1;
  const x = (value) => left + ((value - from) / span) * (size - left - right);
  const y = (value) => size - bottom - ((value - from) / span) * (size - top - bottom);
  const middle = (left + size - right) / 2;
  const plot = draw("svg", { viewBox: `0 0 ${size} ${size}`, class: "scatter", role: "group",
    "aria-label": `${titles[1]} against ${titles[0]}, ${points.length} cases; arrow keys go from point to point` },
    draw("rect", { x: left, y: top, width: size - left - right, height: size - top - bottom }),
    draw("line", { x1: x(from), y1: y(from), x2: x(to), y2: y(to) }),
    ...[from, to].flatMap((end, place) => [
      draw("text", { x: x(end), y: size - bottom + 16, "text-anchor": place ? "end" : "start" }, String(end)),
      draw("text", { x: left - 6, y: y(end) + (place ? 10 : 0), "text-anchor": "end" }, String(end)),
    ]),
    draw("text", { x: middle, y: size - 6, "text-anchor": "middle", class: "a" }, `A: ${titles[0]} (${score})`),
    draw("text", { x: 0, y: 0, "text-anchor": "middle", class: "b",
      transform: `translate(14 ${(size - bottom + top) / 2}) rotate(-90)` }, `B: ${titles[1]} (${score})`));
  const dots = points.map((point, place) => draw("circle", {
    cx: x(point.x), cy: y(point.y), r: 4.5, role: "button", tabindex: point.case === current ? 0 : -1,
    class: point.case === current ? "point current" : "point", "data-case": point.case,
    "aria-label": `${point.name}: A ${number(point.x)}, B ${number(point.y)}`,
    onclick: () => open(point.case),
    onkeydown: (event) => pointKey(event, dots, place, () => open(point.case)),
  }, draw("title", {}, `${point.name}: A ${number(point.x)}, B ${number(point.y)}`)));
  // The current one is drawn last, above the others.
  plot.append(...dots.filter((dot) => dot.dataset.case !== String(current)), ...dots.filter((dot) => dot.dataset.case === String(current)));
  return plot;
}

function pointKey(event, dots, place, open) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (step) dots[(place + step + dots.length) % dots.length].focus();
  else if (event.key === "Enter" || event.key === " ") open();
  else return;
  event.preventDefault();
  event.stopPropagation();
}
