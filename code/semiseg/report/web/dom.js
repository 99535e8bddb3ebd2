// The page's data, and how its elements are made.

const DATA = JSON.parse(document.getElementById("data").textContent);

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && (value !== false || name.startsWith("aria-"))) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// A labelled choice; options are [value, words], and one of a single option is not worth asking.
function choice(id, words, options, change) {
  const select = make("select", { id, onchange: change }, ...options.map(([value, text]) => make("option", { value }, text)));
  return { select, label: make("label", options.length < 2 ? { hidden: "" } : {}, words, select) };
}

const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));

// Which metrics at least one of these methods was measured by.
const measured = (cells) => DATA.metrics.map((_, metric) => cells.some((cell) => cell.scores[0][metric][0] !== null));

const unitOf = (metric, benchmark) => {
  const { distance, number } = DATA.metrics[metric];
  return distance ? benchmark.unit : number ? "" : "%";
};

// A score as it is read, with its unit if it has one.
const withUnit = (words, unit) => (unit ? `${words} ${unit}` : words);
