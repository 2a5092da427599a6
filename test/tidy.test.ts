// The picture of the architecture and the rules of style, as a test. A rule that fails names file, line and what it
// saw.

import { describe, expect, test } from "bun:test";
import { globSync, readFileSync } from "node:fs";
import path from "node:path";
import ts from "typescript";

const root = path.resolve(import.meta.dir, "..");
const file_lines_max = 350;
const function_lines_max = 70;
const line_characters_max = 120;
/** Of SQL, texts and test names, which the formatter does not break. */
const text_characters_max = 130;

type Source = { file: string; text: string; tree: ts.SourceFile };

const sources: Source[] = globSync(["src/**/*.{ts,tsx}", "client/src/**/*.ts", "test/**/*.ts", "drizzle/*.ts"], {
  cwd: root,
})
  .sort()
  .map((file) => {
    const text = readFileSync(path.join(root, file), "utf8");
    return { file, text, tree: ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true) };
  });
const shipped = sources.filter(({ file }) => /^(client\/)?src\//.test(file) && !file.endsWith(".d.ts"));
/** A package has one file that its users import. */
const entry = "client/src/client.ts";
const names = new Set(sources.map(({ file }) => file));

type Import = { from: string; to: string; is_type: boolean; place: string };

const placeOf = ({ file, tree }: Source, node: ts.Node) =>
  `${file}:${tree.getLineAndCharacterOfPosition(node.getStart(tree)).line + 1}`;

/** Every node that `test` accepts, as `file:line text`. */
function find(among: Source[], test: (node: ts.Node, source: Source) => boolean): string[] {
  return among.flatMap((source) => {
    const found: string[] = [];
    const visit = (node: ts.Node): void => {
      if (test(node, source))
        found.push(`${placeOf(source, node)} ${node.getText(source.tree).replaceAll(/\s+/g, " ").slice(0, 60)}`);
      ts.forEachChild(node, visit);
    };
    visit(source.tree);
    return found;
  });
}

/** What a file imports, statically, dynamically, as a type, and as the URL of a worker. */
function importsOf(source: Source): Import[] {
  const found: Import[] = [];
  const add = (node: ts.Node, specifier: ts.Expression | undefined, is_type: boolean) => {
    if (specifier === undefined || !ts.isStringLiteralLike(specifier)) return;
    found.push({ from: source.file, to: specifier.text, is_type, place: placeOf(source, node) });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) add(node, node.moduleSpecifier, node.importClause?.isTypeOnly ?? false);
    else if (ts.isExportDeclaration(node)) add(node, node.moduleSpecifier, node.isTypeOnly);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node, node.arguments[0], false);
    } else if (ts.isNewExpression(node) && node.expression.getText(source.tree) === "URL") {
      const [first] = node.arguments ?? [];
      if (first && ts.isStringLiteralLike(first) && first.text.startsWith(".")) add(node, first, false);
    }
    ts.forEachChild(node, visit);
  };
  visit(source.tree);
  return found;
}

const all_imports = sources.flatMap(importsOf);
const isRelative = ({ to }: Import) => to.startsWith(".");
const targetOf = ({ from, to }: Import) => path.posix.join(path.posix.dirname(from), to);
const ours = all_imports.filter((item) => /^(client\/)?src\//.test(item.from) && names.has(targetOf(item)));

/** `src/http/queues.ts` → `http`; `src/log.ts` → `log`; whatever is the client's → `client`. */
const roomOf = (file: string) =>
  file.startsWith("client/")
    ? "client"
    : (path.posix
        .relative("src", file)
        .split("/")[0]
        ?.replace(/\.tsx?$/, "") ?? "");

// The picture in CONTRIBUTING.md: who may import whom. A room may always import itself; what is not listed is a
// leaf.
const leaves = ["errors", "observe", "nearest"];
const may_import: Record<string, string[]> = {
  main: ["commands", "commandLine", "terminal", "config", "dotenv", "log", "version", ...leaves],
  // The command line points to settings, and what is wrong in a `.env` stops the start as a setting does.
  commandLine: ["config", "version", ...leaves],
  // What is printed, and whom it is asked of; the environment is an argument.
  terminal: [],
  dotenv: ["config"],
  commands: [
    "http",
    "dashboard",
    "sqs",
    "web",
    "background",
    "broker",
    "db",
    "connection",
    "config",
    // The doctor reads settings as a server does.
    "dotenv",
    "log",
    "metrics",
    "version",
    "client",
    "commandLine",
    "terminal",
    ...leaves,
  ],
  // A package of its own, which is published without the rest.
  client: [],
  http: ["broker", "web", ...leaves],
  // Its page speaks only the public API.
  dashboard: ["web", ...leaves],
  sqs: ["broker", "web", ...leaves],
  web: leaves,
  background: ["broker", ...leaves],
  broker: ["batcher", "budget", "db", ...leaves],
  db: ["connection", ...leaves],
  config: ["connection", "nearest", "settingKinds"],
  settingKinds: ["connection"],
  connection: ["nearest"],
  batcher: ["budget", "errors"],
  log: ["observe"],
  metrics: ["depthGauges", "histogram", "observe"],
};

/** `src/broker/settle/ack.ts` → `settle`; undefined for what all of the broker shares. */
const brokerRoomOf = (file: string) => /^src\/broker\/(\w+)\//.exec(file)?.[1];
const broker_may_import: Record<string, string[]> = {
  publish: [],
  settle: ["publish"],
  deliver: ["settle", "publish"],
  manage: ["publish", "settle"],
  sweep: ["settle", "manage"],
  observe: ["deliver", "manage"],
};

describe("the rooms", () => {
  test("there are files to look at, and their imports are found", () => {
    expect(shipped.length).toBeGreaterThan(30);
    const seen = ours.map((item) => `${item.from} → ${targetOf(item)}`);
    expect(seen).toContain("src/http/queues.ts → src/broker/broker.ts");
    expect(seen).toContain("src/db/migrate.ts → src/db/importV04.ts");
  });

  test("every import goes one way: main, commands, edges, broker, db; leaves import nothing of ours", () => {
    const wrong = ours.flatMap((item) => {
      const [from, to] = [roomOf(item.from), roomOf(targetOf(item))];
      const is_allowed = from === to || (may_import[from] ?? []).includes(to);
      return is_allowed ? [] : [`${item.place}: ${from} imports ${to}`];
    });
    expect(wrong).toEqual([]);
  });

  test("in the broker, what a message goes through never imports what manages, sweeps or observes", () => {
    const wrong = ours.flatMap(({ from, place, ...item }) => {
      const [own, other] = [brokerRoomOf(from), brokerRoomOf(targetOf({ from, place, ...item }))];
      if (own === undefined || other === undefined || own === other) return [];
      return (broker_may_import[own] ?? []).includes(other) ? [] : [`${place}: ${own} imports ${other}`];
    });
    expect(wrong).toEqual([]);
  });

  test("only main ends the process, and only commands and main read settings", () => {
    const exits = find(
      shipped,
      (node, { tree }) => node.getText(tree) === "process.exit" && !ts.isExpressionStatement(node),
    );
    expect(exits.filter((place) => !/^src\/(main|db\/embedded\/)/.test(place))).toEqual([]);
    const reads = find(shipped, (node, { tree }) => /^(process|Bun)\.env$/.test(node.getText(tree)));
    expect(reads.filter((place) => !/^src\/(main|commands\/)/.test(place))).toEqual([]);
  });

  test("no file imports itself in a circle", () => {
    const graph = Map.groupBy(ours, (item) => item.from);
    const circles: string[] = [];
    const finished = new Set<string>();
    const walk = (file: string, trail: string[]): void => {
      if (trail.includes(file)) circles.push([...trail.slice(trail.indexOf(file)), file].join(" → "));
      if (trail.includes(file) || finished.has(file)) return;
      for (const item of graph.get(file) ?? []) walk(targetOf(item), [...trail, file]);
      finished.add(file);
    };
    for (const file of graph.keys()) walk(file, []);
    expect(circles).toEqual([]);
  });

  test("SQL of our own making stays in the broker and in db", () => {
    const wrong = all_imports.filter(
      (item) => /^(drizzle-orm|postgres$|@electric-sql)/.test(item.to) && !/^src\/(broker|db)\//.test(item.from),
    );
    expect(wrong.filter((item) => item.from.startsWith("src/")).map((item) => `${item.place}: ${item.to}`)).toEqual([]);
    const drivers = all_imports.filter((item) => item.to === "postgres" && item.from.startsWith("src/broker/"));
    expect(drivers.map((item) => item.place)).toEqual([]);
  });
});

describe("the language", () => {
  test("relative imports say the whole file name, and the file exists", () => {
    const wrong = all_imports.filter(
      (item) => isRelative(item) && !(names.has(targetOf(item)) || /\.(json|sql|mjs|css)$/.test(item.to)),
    );
    expect(wrong.map((item) => `${item.place}: ${item.to}`)).toEqual([]);
  });

  test("no enums, no namespaces, no default exports, no barrels", () => {
    const wrong = find(
      shipped,
      (node, { file }) =>
        ts.isEnumDeclaration(node) ||
        ts.isModuleDeclaration(node) ||
        ts.isExportAssignment(node) ||
        (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined && file !== entry) ||
        (node.kind === ts.SyntaxKind.DefaultKeyword && ts.isFunctionLike(node.parent)),
    );
    expect(wrong).toEqual([]);
  });

  test("no `any` outside src/db, no compiler switched off anywhere", () => {
    const outside = shipped.filter(({ file }) => !file.startsWith("src/db/"));
    expect(find(outside, (node) => node.kind === ts.SyntaxKind.AnyKeyword)).toEqual([]);
    expect(
      sources.filter(({ text }) => /@ts-(ignore|nocheck|expect-error)/.test(text.replace(/\/@ts-\(.*/, ""))),
    ).toEqual([]);
  });

  test("raw SQL is a literal, and the driver's unsafe is called in src/db only", () => {
    const isCallOf = (node: ts.Node, name: string): node is ts.CallExpression =>
      ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression) && node.expression.name.text === name;
    const raw = find(
      shipped,
      (node, { tree }) =>
        isCallOf(node, "raw") &&
        node.expression.getText(tree).startsWith("sql.") &&
        !node.arguments.every((argument) => ts.isStringLiteralLike(argument)),
    );
    expect(raw).toEqual([]);
    const outside = shipped.filter(({ file }) => !file.startsWith("src/db/"));
    expect(find(outside, (node) => isCallOf(node, "unsafe"))).toEqual([]);
  });

  test("PostgreSQL tells the time: no Date object comes near a statement", () => {
    const near = shipped.filter(({ file }) => /^src\/(broker|db)\//.test(file));
    const isDate = (node: ts.Node) => ts.isNewExpression(node) && node.expression.getText() === "Date";
    expect(find(near, isDate)).toEqual([]);
    expect(find(shipped, (node) => isDate(node) && ts.isTemplateSpan(node.parent))).toEqual([]);
  });
});

describe("the functions", () => {
  test("none has more than 70 lines of its own: without the functions in it, and without the texts of statements", () => {
    // Lists of what there is: of calls, metrics, routes, statements, and of what a server starts.
    const lists = /^(export )?(async )?(function|const) (createBroker|createMetrics|createTasks|createQueues|serve)\b/;
    const isRoutes = /^\(broker: Broker\) => new Elysia/;
    const linesOf = (node: ts.Node, tree: ts.SourceFile): number => {
      const at = (position: number) => tree.getLineAndCharacterOfPosition(position).line;
      return at(node.end) - at(node.getStart(tree));
    };
    const long = find(shipped, (node, { tree }) => {
      if (!ts.isFunctionLike(node) || !("body" in node) || node.body === undefined) return false;
      let others = 0;
      const visit = (inner: ts.Node): void => {
        if (ts.isFunctionLike(inner) || ts.isTaggedTemplateExpression(inner)) others += linesOf(inner, tree);
        else ts.forEachChild(inner, visit);
      };
      ts.forEachChild(node, visit);
      const text = node.getText(tree).replaceAll(/\s+/g, " ");
      return linesOf(node, tree) + 1 - others > function_lines_max && !lists.test(text) && !isRoutes.test(text);
    });
    expect(long).toEqual([]);
  });

  // Types are part of what an export promises. The schema is read by its tool as well.
  test("a value that is exported is imported somewhere", () => {
    const imported = new Set<string>();
    for (const { tree, file } of sources) {
      const visit = (node: ts.Node): void => {
        if (ts.isImportDeclaration(node) && ts.isStringLiteral(node.moduleSpecifier)) {
          const to = path.posix.join(path.posix.dirname(file), node.moduleSpecifier.text);
          const bindings = node.importClause?.namedBindings;
          if (bindings && ts.isNamedImports(bindings)) {
            for (const { name, propertyName } of bindings.elements)
              imported.add(`${to} ${(propertyName ?? name).text}`);
          } else if (bindings) imported.add(`${to} *`);
        }
        // `(await import("./x.ts")).name` and `const { name } = await import("./x.ts")`.
        const [loaded, names]: [ts.Node | undefined, string[]] = ts.isPropertyAccessExpression(node)
          ? [node.expression, [node.name.text]]
          : ts.isVariableDeclaration(node) && ts.isObjectBindingPattern(node.name)
            ? [node.initializer, node.name.elements.map(({ name }) => name.getText(tree))]
            : [undefined, []];
        const awaited = loaded && ts.isParenthesizedExpression(loaded) ? loaded.expression : loaded;
        const call = awaited && ts.isAwaitExpression(awaited) ? awaited.expression : undefined;
        const target = call && ts.isCallExpression(call) ? call.arguments[0] : undefined;
        if (target && ts.isStringLiteral(target)) {
          const to = path.posix.join(path.posix.dirname(file), target.text);
          for (const name of names) imported.add(`${to} ${name}`);
        }
        if (
          file === entry &&
          ts.isExportDeclaration(node) &&
          node.exportClause &&
          ts.isNamedExports(node.exportClause)
        ) {
          const to = path.posix.join(path.posix.dirname(file), (node.moduleSpecifier as ts.StringLiteral).text);
          for (const { name } of node.exportClause.elements) imported.add(`${to} ${name.text}`);
        }
        ts.forEachChild(node, visit);
      };
      visit(tree);
    }
    const unused = shipped.flatMap(({ file, tree }) =>
      tree.statements.flatMap((statement) => {
        const is_exported =
          ts.canHaveModifiers(statement) &&
          ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);
        const is_type = ts.isTypeAliasDeclaration(statement) || /^src\/db\/\w*[sS]chema\.ts$/.test(file);
        if (!is_exported || is_type || imported.has(`${file} *`)) return [];
        const names = ts.isVariableStatement(statement)
          ? statement.declarationList.declarations.map(({ name }) => name.getText(tree))
          : [(statement as unknown as { name?: ts.Identifier }).name?.text ?? ""];
        return names.filter((name) => !imported.has(`${file} ${name}`)).map((name) => `${file} ${name}`);
      }),
    );
    expect(unused).toEqual([]);
  });
});

describe("the files", () => {
  test("none has more than 350 lines, no line is too wide to read", () => {
    // What is made of the document is as long as that.
    const written = shipped.filter(({ text }) => !text.startsWith("// Made of the OpenAPI document"));
    const long = written.filter(({ text }) => text.split("\n").length > file_lines_max + 1).map(({ file }) => file);
    const isWide = (line: string) => {
      const is_comment = /^\s*(\/\/|\/?\*)/.test(line);
      return line.length > (is_comment ? line_characters_max : text_characters_max);
    };
    const wide = sources.flatMap(({ file, text }) =>
      text.split("\n").flatMap((line, i) => (isWide(line) ? [`${file}:${i + 1}`] : [])),
    );
    expect({ long, wide }).toEqual({ long: [], wide: [] });
  });

  test("every exported function, class and value says what it promises", () => {
    const isExported = (node: ts.Node) =>
      ts.canHaveModifiers(node) && ts.getModifiers(node)?.some((one) => one.kind === ts.SyntaxKind.ExportKeyword);
    // A type makes no promise of its own: those of its members stand beside them.
    const isType = (node: ts.Node) => ts.isTypeAliasDeclaration(node) || ts.isInterfaceDeclaration(node);
    const isDocumented = (node: ts.Node) => ts.getJSDocCommentsAndTags(node).length > 0;
    // One docstring serves the lines below it up to the next empty one: a minimum and its maximum.
    const sharesOne = (node: ts.Node, { tree }: Source): boolean => {
      const above = tree.statements[tree.statements.indexOf(node as ts.Statement) - 1];
      const is_next = above !== undefined && !/\n\s*\n/.test(tree.text.slice(above.end, node.getStart(tree)));
      return is_next && isExported(above) === true && (isDocumented(above) || sharesOne(above, { tree } as Source));
    };
    const silent = find(
      shipped,
      (node, source) => isExported(node) === true && !isType(node) && !isDocumented(node) && !sharesOne(node, source),
    );
    expect(silent).toEqual([]);
  });

  test("a test that may start something has the time for it, however the tests are run", () => {
    // The limit of the test runner is for what computes only, and its own default holds for one file.
    const starts = new Set(all_imports.filter((item) => item.to.startsWith("./")).map(({ from }) => from));
    const tests = all_imports.filter(
      ({ from, to }) => to === "bun:test" && from.endsWith(".test.ts") && starts.has(from),
    );
    const hasTime = (file: string) => sources.find((own) => own.file === file)?.text.includes("\nsetDefaultTimeout(");
    expect(tests.map(({ from }) => from).filter((file) => !hasTime(file))).toEqual([]);
  });

  test("nothing is left for later, and no test is passed over", () => {
    const later = new RegExp(["TO", "DO|FIX", "ME|X", "XX"].join(""));
    expect(sources.filter(({ text }) => later.test(text)).map(({ file }) => file)).toEqual([]);
    const passed = find(
      sources.filter(({ file }) => file.startsWith("test/")),
      (node, { tree }) =>
        ts.isPropertyAccessExpression(node) &&
        /^(test|it|describe)\.(skip|only|todo|skipIf|todoIf|failing)$/.test(node.getText(tree)),
    );
    expect(passed).toEqual([]);
  });
});
