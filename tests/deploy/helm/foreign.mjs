// Judges ServiceMonitor and HTTPRoute by the schemas of their own projects: JSON documents on standard input, complaints on standard output.
import { readFileSync } from "node:fs";

import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const KINDS = { HTTPRoute, ServiceMonitor };
for (const document of JSON.parse(readFileSync(0, "utf8"))) {
  const { apiVersion, kind } = KINDS[document.kind];
  try {
    if (document.apiVersion !== apiVersion || document.kind !== kind) throw new Error(`is ${document.apiVersion}, not ${apiVersion}`);
    new KINDS[document.kind](document).validate();
  } catch (error) {
    console.log(`${document.kind} ${document.metadata.name}: ${error.message}`);
  }
}
