// Shows the OpenAPI document as a page.

const place = document.querySelector("#operations");

// The examples name this service.
for (const code of document.querySelectorAll("#introduction pre code")) {
  code.textContent = code.textContent.replace("SERVICE/", new URL("./", location.href).href);
}

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

function labelled(text, input) {
  return element("p", "", element("label", `${text} `, input));
}

// Returns a form that sends a request of this operation and shows the response.
function trial(method, path, operation) {
  const fields = (operation.parameters ?? []).filter((p) => p.in !== "header").map((p) => {
    const input = element("input");
    input.required = p.in === "path" || p.required === true;
    return { ...p, input };
  });
  const bodies = operation.requestBody?.content ?? {};
  const kind = element("select", "", ...Object.keys(bodies).map((name) => element("option", name)));
  const file = element("input");
  file.type = "file";
  const text = element("textarea", JSON.stringify(bodies["application/json"]?.example ?? {}));
  const result = element("pre");
  result.setAttribute("role", "status");
  const form = element("form", "", ...fields.map((f) => labelled(f.name, f.input)));
  if (kind.options.length) {
    form.append(labelled("Content type", kind));
    if (Object.keys(bodies).some((name) => name !== "application/json")) form.append(labelled("File", file));
    if (bodies["application/json"]) form.append(labelled("JSON", text));
  }
  form.append(element("button", "Send"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const filled = (where) => fields.filter((f) => f.in === where && f.input.value);
    let url = path.slice(1);
    for (const f of filled("path")) url = url.replace(`{${f.name}}`, encodeURIComponent(f.input.value));
    const query = new URLSearchParams(filled("query").map((f) => [f.name, f.input.value]));
    if (query.size) url += `?${query}`;
    const headers = {}, key = document.querySelector("#key").value;
    if (key) headers.authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}`;
    let body;
    if (kind.value === "multipart/form-data") {
      body = new FormData();
      body.append("files", file.files[0] ?? "");
    } else if (kind.value) {
      headers["content-type"] = kind.value;
      body = kind.value === "application/json" ? text.value : file.files[0] ?? "";
    }
    try {
      const response = await fetch(url, { method: method.toUpperCase(), headers, body });
      result.textContent = `${response.status} ${response.statusText}\n${(await response.text()).slice(0, 20000)}`;
    } catch (error) {
      result.textContent = `The service does not respond: ${error.message}`;
    }
  });
  return element("details", "", element("summary", "Try it"), form, result);
}

function section(method, path, operation, all) {
  const bodies = Object.entries(operation.requestBody?.content ?? {});
  const heading = element("h2", "", element("code", `${method.toUpperCase()} ${path}`));
  const made = element(
    "section", "", heading, element("p", operation.summary ?? ""), element("p", operation.description ?? ""),
    ...table("Parameters", (operation.parameters ?? []).map((p) => [p.name, `${p.in}; ${p.description ?? typeName(p.schema, all)}`])),
    ...table("Request body", bodies.map(([kind, body]) => [kind, body.schema?.description ?? typeName(body.schema, all)])),
    ...table("Responses", Object.entries(operation.responses ?? {}).map(([status, response]) => {
      const [kind, body] = Object.entries(response.content ?? {})[0] ?? [];
      return [status, [response.description, kind, typeName(body?.schema, all)].filter(Boolean).join(" · ")];
    })),
    trial(method, path, operation),
  );
  made.id = operation.operationId;
  return made;
}

try {
  const response = await fetch("schema");
  const { paths, components } = await response.json();
  const sections = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => section(method, path, operation, components?.schemas ?? {})));
  place.replaceChildren(...sections);
  document.querySelector("#contents").replaceChildren(...sections.map((each) => {
    const link = element("a", each.querySelector("h2").textContent);
    link.href = `#${each.id}`;
    return element("li", "", link);
  }));
  // The section that the address names was not there yet when the browser looked for it.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
} catch (error) {
  place.textContent = `The service does not respond: ${error.message}`;
}
place.setAttribute("aria-busy", "false");
