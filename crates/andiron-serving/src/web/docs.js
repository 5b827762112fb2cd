// Text from the description is only ever set as text.
const make = (name, text, attributes = {}) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

const kind = (schema) => {
  if (schema.anyOf) return schema.anyOf.map(kind).filter(Boolean).join(" or ");
  if (schema.enum) return schema.enum.filter((one) => one !== null).map((one) => JSON.stringify(one)).join(", ");
  const types = [].concat(schema.type ?? "any").filter((one) => one !== "null");
  return types.map((one) => (one === "array" ? `array of ${kind(schema.items ?? {})}` : one)).join(" or ");
};

const fields = (schema) => {
  const table = make("table");
  const head = table.createTHead().insertRow();
  for (const name of ["field", "type", "value"]) head.append(make("th", name, { scope: "col" }));
  const body = table.createTBody();
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const row = body.insertRow();
    const cell = row.insertCell();
    cell.append(make("code", name));
    if ((schema.required ?? []).includes(name)) cell.append(" required");
    row.insertCell().textContent = kind(field);
    row.insertCell().textContent = field.description ?? "";
  }
  return table;
};

const curl = (method, path, example) => {
  const key = secured ? " -H 'Authorization: Bearer KEY'" : "";
  const address = `${location.origin}${path}`;
  if (method === "GET") return `curl -s${key} '${address}'`;
  const body = JSON.stringify(example).replaceAll("'", "'\\''");
  return `curl -s${key} '${address}' \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
};

let secured = false;

const show = (description) => {
  secured = Boolean(description.security);
  document.getElementById("version").textContent = description.info.version;
  document.getElementById("about").textContent = description.info.description;
  const groups = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push([method.toUpperCase(), path, operation]);
    }
  }
  const routes = document.getElementById("routes");
  routes.replaceChildren();
  for (const [tag, operations] of groups) {
    routes.append(make("h2", tag));
    for (const [method, path, operation] of operations) {
      const entry = make("details");
      const head = make("summary");
      head.append(make("span", method, { class: "method" }), make("code", path), make("span", operation.summary, { class: "faint" }));
      const inside = make("div", undefined, { class: "inside" });
      if (operation.description) inside.append(make("p", operation.description));
      const content = operation.requestBody?.content["application/json"];
      if (content) inside.append(fields(content.schema));
      inside.append(make("pre", curl(method, path, content?.example)));
      entry.append(head, inside);
      routes.append(entry);
    }
  }
};

fetch("openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`status ${answer.status}`))))
  .then(show)
  .catch((error) => document.getElementById("routes").replaceChildren(make("p", `openapi.json could not be read: ${error.message}`)));
