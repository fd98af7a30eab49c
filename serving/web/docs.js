// The OpenAPI document as a page: every operation with its parameters, bodies and answers.

const place = document.querySelector("#operations");

function element(name, content, ...children) {
  const made = document.createElement(name);
  if (content) made.textContent = content;
  made.append(...children);
  return made;
}

// A schema in a few words: {"id": string, "inputs": [object]}.
function words(schema, all, depth = 0) {
  if (!schema) return "";
  if (schema.$ref) return words(all[schema.$ref.split("/").pop()], all, depth);
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.map((choice) => words(choice, all, depth)).join(" or ");
  if (schema.type === "array") return `[${words(schema.items, all, depth + 1)}]`;
  if (schema.properties && depth < 4) {
    const members = Object.entries(schema.properties).map(([name, value]) => `${name}: ${words(value, all, depth + 1)}`);
    return `{ ${members.join(", ")} }`;
  }
  return [schema.type ?? "any", schema.format].filter(Boolean).join(" ");
}

function list(title, rows) {
  if (!rows.length) return [];
  const table = element("table", "", element("caption", title));
  for (const [first, second] of rows) {
    const head = element("th", first);
    head.scope = "row";
    table.append(element("tr", "", head, element("td", second)));
  }
  return [table];
}

function section(method, path, operation, all) {
  const bodies = Object.entries(operation.requestBody?.content ?? {});
  const heading = element("h2", "", element("code", `${method.toUpperCase()} ${path}`));
  return element(
    "section", "", heading, element("p", operation.summary ?? ""), element("p", operation.description ?? ""),
    ...list("Parameters", (operation.parameters ?? []).map((p) => [p.name, `${p.in}; ${p.description ?? words(p.schema, all)}`])),
    ...list("Body", bodies.map(([kind, body]) => [kind, body.schema?.description ?? words(body.schema, all)])),
    ...list("Answers", Object.entries(operation.responses ?? {}).map(([status, answer]) => {
      const [kind, body] = Object.entries(answer.content ?? {})[0] ?? [];
      return [status, [answer.description, kind, words(body?.schema, all)].filter(Boolean).join(" · ")];
    })),
  );
}

try {
  const response = await fetch("schema");
  const { paths, components } = await response.json();
  const sections = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => section(method, path, operation, components?.schemas ?? {})));
  place.replaceChildren(...sections);
} catch (error) {
  place.textContent = `The service does not answer: ${error.message}`;
}
