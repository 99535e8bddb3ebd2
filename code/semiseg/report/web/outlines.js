// Masks as outlines along the edges of their pixels.

// Class and length in turns, row after row, as one class per pixel.
function decode(runs, size) {
  const mask = new Uint8Array(size[0] * size[1]);
  let at = 0;
  for (let i = 0; i < runs.length; i += 2) {
    mask.fill(runs[i], at, at + runs[i + 1]);
    at += runs[i + 1];
  }
  return mask;
}

// The path around one structure (0: around every one), a structure that leaves the picture included.
function outline(mask, [width, height], structure) {
  const at = (x, y) => {
    if (x < 0 || y < 0 || x >= width || y >= height) return 0;
    const found = mask[y * width + x];
    return structure === 0 || found === structure ? found : 0;
  };
  const parts = [];
  const follow = (lines, steps, differs, part) => {
    for (let line = 0; line <= lines; line += 1) {
      let start = -1;
      for (let step = 0; step <= steps; step += 1) {
        const edge = step < steps && differs(line, step);
        if (edge && start < 0) start = step;
        if (!edge && start >= 0) {
          parts.push(part(line, start, step));
          start = -1;
        }
      }
    }
  };
  follow(height, width, (y, x) => at(x, y) !== at(x, y - 1), (y, from, to) => `M${from} ${y}H${to}`);
  follow(width, height, (x, y) => at(x, y) !== at(x - 1, y), (x, from, to) => `M${x} ${from}V${to}`);
  return parts.join("");
}

// A colored line on a broader dark one, so that it shows on any tissue.
function outlined(kind, path) {
  return draw("g", { class: `outline ${kind}` }, draw("path", { class: "edge", d: path }), draw("path", { d: path }));
}
