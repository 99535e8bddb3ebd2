// Light or dark: as the system says, until the reader says otherwise.

const dark = matchMedia("(prefers-color-scheme: dark)");
const memory = {
  // Pages from a disk may have no storage.
  read() { try { return localStorage.getItem("theme"); } catch { return null; } },
  write(value) { try { localStorage.setItem("theme", value); } catch { /* then it lasts as long as the page */ } },
};
const themeButton = make("button", { id: "theme", type: "button", onclick: () => setTheme(nextTheme(), true) });

function nextTheme() {
  return document.documentElement.dataset.theme === "dark" ? "light" : "dark";
}

function setTheme(theme, remember) {
  document.documentElement.dataset.theme = theme;
  document.documentElement.style.colorScheme = theme;
  themeButton.textContent = theme === "dark" ? "☀" : "☾";
  themeButton.setAttribute("aria-label", `Switch to ${nextTheme()} colours`);
  themeButton.title = `Switch to ${nextTheme()} colours`;
  if (remember) memory.write(theme);
}

setTheme(memory.read() ?? (dark.matches ? "dark" : "light"), false);
dark.addEventListener("change", () => memory.read() ?? setTheme(dark.matches ? "dark" : "light", false));
document.body.prepend(themeButton);
