"""What must be true of the objects that the chart makes, taken together."""

import ipaddress

POD_KINDS = {"Deployment", "StatefulSet", "Job", "Pod"}
COMPONENT = "app.kubernetes.io/component"
# A label's 63 less a hyphen and a hash of ten.
MAX_STATEFUL_NAME = 52
SERVICE_ROLES = {"api", "scheduler", "standalone"}
# Whose program does tasks, and so has a worker's name; whose sends webhooks.
DO_TASKS = {"standalone"}
KEEP_TIME = {"scheduler", "standalone"}
HAVE_WEBHOOKS = {"api", "scheduler", "standalone"}
HTTPS = 443

# Kinds whose schemas no package has: their version, and the fields of their spec that must be there.
FOREIGN = {
    "ScaledObject": ("keda.sh/v1alpha1", {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "triggers"},
                     {"pollingInterval", "cooldownPeriod", "fallback", "advanced"}),
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}, {"podTargetLabels"}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}, set()),
    "GRPCRoute": ("gateway.networking.k8s.io/v1", {"parentRefs", "rules"}, {"hostnames"}),
    "BackendTLSPolicy": ("gateway.networking.k8s.io/v1", {"targetRefs", "validation"}, set()),
}


def foreign_problems(document):
    """Fields of a kind of others."""
    version, needed, allowed = FOREIGN[document["kind"]]
    if document["apiVersion"] != version:
        yield f"apiVersion is {document['apiVersion']}, not {version}"
    fields = set(document["spec"])
    yield from (f"spec lacks {field}" for field in sorted(needed - fields))
    yield from (f"spec.{field} is not known" for field in sorted(fields - needed - allowed))


def pod_of(document):
    """Labels and spec of the pods that an object makes."""
    if document["kind"] == "Pod":
        return document["metadata"]["labels"], document["spec"]
    template = document["spec"]["template"]
    return template["metadata"]["labels"], template["spec"]


def problems(documents):
    """Everything that is wrong with the objects of one release."""
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    yield from (f"{kind} {name} is there twice" for kind, name in sorted({name for name in names if names.count(name) > 1}))
    yield from (f"{kind} {name}: secrets are named, never made" for kind, name in names if kind == "Secret")
    pods = {}
    for document in documents:
        if document["kind"] in POD_KINDS:
            labels, spec = pod_of(document)
            pods[(document["kind"], document["metadata"]["name"])] = labels
            where = f"{document['kind']} {document['metadata']['name']}"
            yield from (f"{where}: {problem}" for problem in pod_problems(labels[COMPONENT], spec))
    for document in documents:
        where = f"{document['kind']} {document['metadata']['name']}"
        yield from (f"{where}: {problem}" for problem in reference_problems(document, pods))
    policies = [document["spec"] for document in documents if document["kind"] == "NetworkPolicy"]
    yield from webhook_problems(documents)
    yield from (f"{kind} {name}: {problem}" for (kind, name), labels in pods.items() for problem in reach_problems(labels, policies))


def pod_problems(component, spec):
    """Rules for every pod: no privileges, nothing to write to, no token, bounded memory, probes, and time to end."""
    if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks") is not False:
        yield "a token or variables of services are mounted"
    security = spec["securityContext"]
    if not (security["runAsNonRoot"] and security["runAsUser"] and security["seccompProfile"]["type"] == "RuntimeDefault"):
        yield "may run as root, or without seccomp"
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    (container,) = spec["containers"]
    own = container["securityContext"]
    if own["allowPrivilegeEscalation"] or not own["readOnlyRootFilesystem"] or own["capabilities"] != {"drop": ["ALL"]}:
        yield "the container has privileges"
    mounts = container.get("volumeMounts", [])
    yield from (f"mounts {mount['name']}, which is no volume" for mount in mounts if mount["name"] not in volumes | {"data", "cache"})
    paths = [mount["mountPath"] for mount in mounts]
    yield from (f"mounts {path} twice" for path in sorted({path for path in paths if paths.count(path) > 1}))
    if not container["resources"].get("requests"):
        yield "requests no resources"
    environment = {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container.get("env", [])}
    if len(environment) != len(container.get("env", [])):
        yield "a variable is set twice"
    if component in SERVICE_ROLES or component.startswith("worker-"):
        yield from service_problems(component, spec, container, environment)


def seconds_to_end(environment):
    """What a program may take from SIGTERM to its end: pause, drain, until a device's process is killed, has ended, and its session is closed, until calls
    are cut, until the last spans are sent.

    serve.rs, `end` (twice drain_grace without such processes); worker.rs, GRACE and KILL_AFTER; supervisor/child.rs, LAST."""
    return int(environment.get("ZKINFER_DRAIN_PAUSE_SECONDS", 0)) + int(environment["ZKINFER_DRAIN_SECONDS"]) + 15 + 5 + 5 + 10 + 5


def service_problems(component, spec, container, environment):
    """Rules for pods that stay: probes, time to end, and which credentials each kind has."""
    for probe, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        if container[probe]["httpGet"] != {"path": path, "port": "http"}:
            yield f"{probe} does not ask {path}"
    grace = spec["terminationGracePeriodSeconds"]
    if grace <= (needed := seconds_to_end(environment)):
        yield f"is killed after {grace} seconds, but may take {needed} to end"
    is_worker = component.startswith("worker-")
    if is_worker and {"ZKINFER_DATABASE", "ZKINFER_ARTIFACTS"} & set(environment):
        yield "a worker knows the database or the bucket"
    if (is_worker or component in DO_TASKS) and environment.get("ZKINFER_WORKER_NAME") != {"fieldRef": {"fieldPath": "metadata.name"}}:
        yield "does tasks under another name than its pod's"
    device = environment.get("ZKINFER_DEVICE", "cpu")
    gpus = sum(amount for name, amount in container["resources"].get("limits", {}).items() if "/" in name)
    if (device == "cpu") != (gpus == 0) and is_worker:
        yield f"has {gpus} GPUs, but its device is {device}"
    if (device != "cpu") != ("cuda" in container["image"]):
        yield f"has the image {container['image']}, but its device is {device}"


def webhook_problems(documents):
    """Who takes or sends webhooks knows the ports that they are let out to."""
    is_webhooks = lambda document: document["kind"] == "NetworkPolicy" and document["metadata"]["name"].endswith("-webhooks")
    ports = [port["port"] for document in documents if is_webhooks(document) for rule in document["spec"]["egress"] for port in rule["ports"]]
    for document in documents:
        labels, spec = pod_of(document) if document["kind"] in POD_KINDS else ({}, {})
        if labels.get(COMPONENT) in HAVE_WEBHOOKS:
            told = {variable["name"]: variable.get("value") for variable in spec["containers"][0]["env"]}.get("ZKINFER_WEBHOOK_PORTS")
            if told != (",".join(map(str, ports)) or None):
                yield f"{labels[COMPONENT]} takes webhooks with the ports {told}, and those of {ports} are let out"


def reach_problems(labels, policies):
    """Pods that send webhooks and are let out nowhere, where policies forbid what they do not allow."""
    own = [policy for policy in policies if selects(policy["podSelector"], labels)]
    ports = {port["port"] for policy in own for rule in policy.get("egress", []) for port in rule["ports"]}
    if labels[COMPONENT] in KEEP_TIME and own and HTTPS not in ports:
        yield "sends webhooks, and no policy lets them out"


def lets_out(labels, policies, address, port):
    """Whether policies let a pod with these labels out to an address that is no pod's."""
    rules = [rule for policy in policies if selects(policy["podSelector"], labels) for rule in policy.get("egress", [])]
    return any(
        any(allowed["port"] == port for allowed in rule["ports"]) and ("to" not in rule or any(holds(peer, address) for peer in rule["to"]))
        for rule in rules
    )


def holds(peer, address):
    """Whether a peer is a block that has the address."""
    block = peer.get("ipBlock")
    inside = lambda cidr: ipaddress.ip_address(address) in ipaddress.ip_network(cidr)
    return block is not None and inside(block["cidr"]) and not any(inside(cidr) for cidr in block.get("except", []))


def selects(selector, labels):
    """Whether a label selector (or a plain map) fits labels."""
    if not any(key in selector for key in ("matchLabels", "matchExpressions")):
        selector = {"matchLabels": selector}
    if not all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", []))


def reference_problems(document, pods):
    """What an object points at is there."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        target = spec["scaleTargetRef"]
        if (target["kind"], target["name"]) not in pods:
            yield f"scales {target['kind']} {target['name']}, which is not there"
    selector = {"Service": spec.get("selector"), "PodDisruptionBudget": spec.get("selector"), "NetworkPolicy": spec.get("podSelector")}.get(kind)
    if selector is not None and not any(selects(selector, labels) for labels in pods.values()):
        yield f"selects no pod: {selector}"
    if kind == "StatefulSet" and len(document["metadata"]["name"]) > MAX_STATEFUL_NAME:
        yield "its name with a revision's hash is too long for a label"
    if kind in ("Deployment", "StatefulSet") and not selects(spec["selector"], spec["template"]["metadata"]["labels"]):
        yield "does not select its own pods"
    for rule in [*spec.get("ingress", []), *spec.get("egress", [])] if kind == "NetworkPolicy" else []:
        for peer in [*rule.get("from", []), *rule.get("to", [])]:
            own = peer.get("podSelector", {}).get("matchLabels", {})
            if "app.kubernetes.io/instance" in own and not any(selects(own, labels) for labels in pods.values()):
                yield f"lets through a pod that is not there: {own}"
