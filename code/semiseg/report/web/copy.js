// Buttons above each table that copy it as LaTeX, Markdown or CSV.

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", {}, text); // where the browser keeps its clipboard from pages on a disk
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function copyButton(title, format, text) {
  const button = make("button", { type: "button", "aria-label": `Copy ${title} as ${format}` }, format);
  button.addEventListener("click", async () => {
    await copyText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = format), 1500);
  });
  return button;
}

for (const figure of document.querySelectorAll("[data-table]")) {
  const caption = figure.querySelector("figcaption");
  const formats = Object.entries(DATA.tables[figure.dataset.table] ?? {});
  const buttons = formats.map(([format, text]) => copyButton(caption.firstChild.textContent, format, text));
  caption.append(make("span", { class: "copy", role: "group", "aria-label": "Copy this table" }, ...buttons));
}
