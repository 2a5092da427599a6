import { useState } from "preact/hooks";
import { root } from "../api.ts";
import { hrefOf, Link } from "../router.tsx";

const themes = ["auto", "light", "dark"] as const;
type Theme = (typeof themes)[number];
const theme_key = "psqlqueue.theme";

function chosenTheme(): Theme {
  const chosen = localStorage.getItem(theme_key);
  return chosen === "light" || chosen === "dark" ? chosen : "auto";
}

function ThemeSwitch() {
  const [theme, setTheme] = useState(chosenTheme);
  const choose = (next: Theme) => {
    if (next === "auto") {
      localStorage.removeItem(theme_key);
      delete document.documentElement.dataset["theme"];
    } else {
      localStorage.setItem(theme_key, next);
      document.documentElement.dataset["theme"] = next;
    }
    setTheme(next);
    // Charts are painted, not styled: they have to be painted again.
    dispatchEvent(new Event("psqlqueue:theme"));
  };
  return (
    <select
      class="theme"
      aria-label="Colours"
      value={theme}
      onChange={(event) => choose(event.currentTarget.value as Theme)}
    >
      {themes.map((own) => (
        <option key={own} value={own}>
          {own === "auto" ? "Auto" : own === "light" ? "Light" : "Dark"}
        </option>
      ))}
    </select>
  );
}

const Brand = () => (
  <Link to={hrefOf([])} class="brand">
    <svg viewBox="0 0 20 20" aria-hidden="true">
      <path d="M3 4h14v3H3zM3 8.5h14v3H3zM3 13h9v3H3z" />
    </svg>
    psqlqueue
  </Link>
);

/** What is above every view. `view` is the first part of its address. */
export const Header = ({ view }: { view: string }) => (
  <header class="header">
    <Brand />
    <nav aria-label="Main">
      <Link to={hrefOf([])} is_current={view === "" || view === "queues" || view === "new"}>
        Queues
      </Link>
      <Link to={hrefOf(["topics"])} is_current={view === "topics"}>
        Topics
      </Link>
      <Link to={hrefOf(["tasks"])} is_current={view === "tasks"}>
        Tasks
      </Link>
      <Link to={hrefOf(["keys"])} is_current={view === "keys"}>
        Keys
      </Link>
      <a href={new URL("v1/swagger/index.html", root).pathname}>API</a>
    </nav>
    <span class="spring" />
    <ThemeSwitch />
  </header>
);
