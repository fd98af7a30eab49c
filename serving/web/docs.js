// Shows the OpenAPI document as a page.

const place = document.querySelector("#operations");

function element(name, content, ...children) {
  const made = document.createElement(name);
  if (content) made.textContent = content;
  made.append(...children);
  return made;
}

// Returns a schema on one line, such as { id: string, inputs: [object] }.
function typeName(schema, all, depth = 0) {
  if (!schema) return "";
  if (schema.$ref) return typeName(all[schema.$ref.split("/").pop()], all, depth);
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.map((choice) => typeName(choice, all, depth)).join(" or ");
  if (schema.type === "array") return `[${typeName(schema.items, all, depth + 1)}]`;
  if (schema.properties && depth < 4) {
    const members = Object.entries(schema.properties).map(([name, value]) => `${name}: ${typeName(value, all, depth + 1)}`);
    return `{ ${members.join(", ")} }`;
  }
  return [schema.type ?? "any", schema.format].filter(Boolean).join(" ");
}

function table(title, rows) {
  if (!rows.length) return [];
  const made = element("table", "", element("caption", title));
  for (const [first, second] of rows) {
    const head = element("th", first);
    head.scope = "row";
    made.append(element("tr", "", head, element("td", second)));
  }
  return [made];
}

function section(method, path, operation, all) {
  const bodies = Object.entries(operation.requestBody?.content ?? {});
  const heading = element("h2", "", element("code", `${method.toUpperCase()} ${path}`));
  return element(
    "section", "", heading, element("p", operation.summary ?? ""), element("p", operation.description ?? ""),
    ...table("Parameters", (operation.parameters ?? []).map((p) => [p.name, `${p.in}; ${p.description ?? typeName(p.schema, all)}`])),
    ...table("Request body", bodies.map(([kind, body]) => [kind, body.schema?.description ?? typeName(body.schema, all)])),
    ...table("Responses", Object.entries(operation.responses ?? {}).map(([status, response]) => {
      const [kind, body] = Object.entries(response.content ?? {})[0] ?? [];
      return [status, [response.description, kind, typeName(body?.schema, all)].filter(Boolean).join(" · ")];
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
  place.textContent = `The service does not respond: ${error.message}`;
}
