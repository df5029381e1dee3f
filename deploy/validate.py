#!/usr/bin/env python3
"""Checks the Kubernetes manifests: against the API's schemas, and for what the schemas cannot know.

    pip install kubernetes-validate==1.37.0 pyyaml
    python3 deploy/validate.py
"""

import pathlib
import sys

import kubernetes_validate
import yaml

VERSION = "1.37"
FOLDER = pathlib.Path(__file__).parent / "kubernetes"


def check(condition, message):
    if not condition:
        sys.exit(f"error: {message}")


def main():
    documents = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            documents.append((path.name, document))
    found = {document["kind"]: document for _, document in documents}
    for name, document in documents:
        # Kustomizations and custom resources have no schema in the Kubernetes API.
        if document["apiVersion"].split("/")[0] in ("kustomize.config.k8s.io", "monitoring.coreos.com"):
            continue
        kubernetes_validate.validate(document, VERSION, strict=True)
        print(f"{name}: {document['kind']} {document['metadata']['name']} is valid for Kubernetes {VERSION}")

    listed = set(found["Kustomization"]["resources"])
    present = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    check(listed == present, f"kustomization.yaml lists {sorted(listed)}, the folder has {sorted(present)}")

    pod = found["StatefulSet"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        check(container[probe]["httpGet"]["port"] == "admin", f"{probe} is not on the admin port")
    labels = pod["metadata"]["labels"].items()
    services = [document for _, document in documents if document["kind"] == "Service"]
    for service in services:
        check(service["spec"]["selector"].items() <= labels, "a Service selects other pods")
        for port in service["spec"]["ports"]:
            check(port["targetPort"] in ports, f"a Service goes to port {port['targetPort']}, which is not there")
    monitor = found["ServiceMonitor"]["spec"]
    watched = [s for s in services if monitor["selector"]["matchLabels"].items() <= s["metadata"]["labels"].items()]
    check(len(watched) == 1, "the ServiceMonitor selects no Service, or several")
    names = {port["name"] for port in watched[0]["spec"]["ports"]}
    check(all(endpoint["port"] in names for endpoint in monitor["endpoints"]), "the ServiceMonitor's port is not there")
    context, security = pod["spec"]["securityContext"], container["securityContext"]
    restricted = (
        context["runAsNonRoot"]
        and context["seccompProfile"]["type"] == "RuntimeDefault"
        and not security["allowPrivilegeEscalation"]
        and security["readOnlyRootFilesystem"]
        and security["capabilities"]["drop"] == ["ALL"]
    )
    check(restricted, "the pod is not within the restricted Pod Security Standard")
    drain = int(next(e["value"] for e in container["env"] if e["name"] == "BOLTZFLOW_DRAIN_SECONDS"))
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    check(grace >= pre_stop + drain + 10, "the grace period is too short to drain in")
    print("the manifests fit one another")


if __name__ == "__main__":
    main()
