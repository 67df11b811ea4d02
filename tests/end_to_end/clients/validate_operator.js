// Validates objects of the Prometheus Operator by its schemas. In: a file of JSON, a list of objects.
// Out: a line for each, "ok" or "refused"; why is told on stderr.
"use strict";

const fs = require("fs");
const path = require("path");
const { pathToFileURL } = require("url");

// The package is for `import` alone, which does not look at NODE_PATH.
const folder = path.join(process.env.NODE_PATH, "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1");

// The schemas let keys pass that they do not know; the operator would ignore them. So each has to be in one of its types.
const known = new Set(["apiVersion", "kind", "matchLabels"]);
for (const file of fs.readdirSync(folder).filter((name) => name.endsWith(".d.ts"))) {
  const text = fs.readFileSync(path.join(folder, file), "utf8");
  for (const [, name] of text.matchAll(/^ +"(\w+)"\??:/gm)) known.add(name);
}
const free = ["metadata", "matchLabels", "labels", "annotations"];

function check(value) {
  if (typeof value !== "object" || value === null) return;
  for (const [key, inner] of Object.entries(value)) {
    if (!Array.isArray(value) && !known.has(key) && !free.includes(key)) throw new Error(`no such key: ${key}`);
    if (!free.includes(key)) check(inner);
  }
}

async function main() {
  for (const object of JSON.parse(fs.readFileSync(process.argv[2], "utf8"))) {
    const kinds = await import(pathToFileURL(path.join(folder, `${object.kind}.js`)));
    try {
      new kinds[object.kind](object).validate();
      check(object);
      console.log("ok");
    } catch (error) {
      console.error(`${object.kind}: ${error.message}`);
      console.log("refused");
    }
  }
}

main();
