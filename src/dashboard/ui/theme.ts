// Runs before anything is painted, so that a theme which was chosen does not flash the other one first.
const chosen = localStorage.getItem("psqlqueue.theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset["theme"] = chosen;
