// Judges ServiceMonitor and HTTPRoute by the schemas of their own projects: JSON documents on standard input, a JSON array on standard output
// with a complaint about each, empty where there is none.
import { readFileSync } from "node:fs";

import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const KINDS = { HTTPRoute, ServiceMonitor };

// The schemas are compiled, and let members pass that they do not know. But a member that a schema knows is one that its validator reads.
function watched(value, unread, path = "$") {
  if (value === null || typeof value !== "object") return value;
  const inside = Object.fromEntries(Object.entries(value).map(([name, each]) => [name, watched(each, unread, `${path}.${name}`)]));
  if (Array.isArray(value)) return Object.values(inside);
  for (const name of Object.keys(value)) unread.add(`${path}.${name}`);
  return new Proxy(inside, {
    get(target, name) {
      unread.delete(`${path}.${String(name)}`);
      return target[name];
    },
  });
}

function complaint(document) {
  const { apiVersion, kind } = KINDS[document.kind];
  if (document.apiVersion !== apiVersion) return `${kind} is ${document.apiVersion}, not ${apiVersion}`;
  const unread = new Set();
  try {
    KINDS[kind].prototype.validate.call(watched(document, unread));
  } catch (error) {
    return `${kind} ${document.metadata.name}: ${error.message}`;
  }
  return unread.size ? `${kind} ${document.metadata.name}: unknown ${[...unread].join(", ")}` : "";
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(complaint)));
