/** The header of a page that is not part of the dashboard: where else one can go. `home`: the dashboard's path. */
export function headerMarkup(home: string | undefined): string {
  const views = home === undefined ? [] : ["", "topics", "tasks", "keys"];
  const names: Record<string, string> = { "": "Queues", topics: "Topics", tasks: "Tasks", keys: "Keys" };
  const links = views.map((view) => `<a href="${home}${view && `/${view}`}">${names[view]}</a>`);
  const brand =
    '<svg viewBox="0 0 20 20" aria-hidden="true"><path d="M3 4h14v3H3zM3 8.5h14v3H3zM3 13h9v3H3z"/></svg>psqlqueue';
  return `<header class="header">
${home === undefined ? `<span class="brand">${brand}</span>` : `<a class="brand" href="${home}">${brand}</a>`}
<nav aria-label="Main">
${[...links, '<span aria-current="page">API</span>'].join("\n")}
</nav>
</header>`;
}
