"""The chart: values against their schema, objects against Kubernetes' schemas and our rules, wrong values against the messages that refuse them."""

import copy
import json

import jsonschema
import kubernetes_validate
import yaml
from helm_python import HelmError
from helm_python.chart import Chart, lint

import objects
from paths import CHART

# The oldest that Chart.yaml allows, and the newest that the schemas know.
KUBERNETES_VERSIONS = ["1.29", kubernetes_validate.latest_version()]
RELEASE, NAMESPACE = "trial", "zkinfer"

# Values that are refused, over those of ci/default-values.yaml, and what the message says.
REFUSED = [
    ({"database": {"existingSecret": ""}}, "database.existingSecret is empty"),
    ({"artifacts": {"url": ""}}, "artifacts.url is empty"),
    ({"artifacts": {"url": "file:///data"}}, "url"),
    ({"tls": {"existingSecret": ""}}, "tls.existingSecret is empty"),
    ({"tls": {"insecurePlaintext": True}}, "exclude each other"),
    ({"access": {"keys": {"existingSecret": ""}}}, "nobody could call"),
    ({"access": {"tokens": {"existingConfigMap": "tokens"}}}, "issuer and audience"),
    ({"access": {"tokens": {"jwksUrl": "https://login.example/keys"}}}, "issuer and audience"),
    ({"access": {"tokens": {"jwksUrl": "http://login.example/keys"}}}, "jwksUrl"),
    ({"access": {"tokens": {"jwksUrl": "https://login.example/keys", "existingConfigMap": "tokens"}}}, "exclude each other"),
    ({"tls": {"existingSecret": "", "insecurePlaintext": True}, "access": {"certificates": {"existingConfigMap": "c"}}}, "needs TLS in the pods"),
    ({"workers": {"tls": {"clientSecret": ""}}}, "workers.tls"),
    ({"workers": {"pools": [{"name": "a"}, {"name": "a"}]}}, "two pools named a"),
    ({"workers": {"pools": [{"name": "a", "device": "cpu", "gpus": 1}]}}, "device is cpu, but gpus is not 0"),
    ({"workers": {"pools": [{"name": "a", "autoscaling": {"enabled": True}}]}}, "keda.serverAddress is empty"),
    ({"workers": {"pools": [{"name": "a", "gpu": 1}]}}, "gpu"),
    ({"workers": {"pools": [{"name": "Upper"}]}}, "name"),
    ({"ingress": {"enabled": True}}, "ingress.host is empty"),
    ({"gateway": {"enabled": True}}, "gateway.parentRefs is empty"),
    ({"networkPolicy": {"webhooksPorts": []}}, "networkPolicy.webhooksPorts is empty"),
    ({"api": {"uploadsSize": "8Gi"}}, "api.uploadsSize is 8Gi"),
    ({"api": {"uploadsSize": "8589934k"}}, "api.uploadsSize is 8589934k"),
    ({"limits": {"upload_disk_bytes": 10737418240}}, "more than limits.upload_disk_bytes, 10737418240 bytes"),
    ({"api": {"replica": 3}}, "replica"),
    ({"api": {"maxUnavailable": 0}}, "maxUnavailable"),
    ({"limits": {"batch_jobs": "many"}}, "batch_jobs"),
    ({"unknown": 1}, "unknown"),
]

# No webhooks, and as little disk for uploads as may be.
NONE_OUT = {"networkPolicy": {"webhooksPorts": []}, "limits": {"webhooks_per_tenant": 0}, "api": {"uploadsSize": "8589935k"}}
IDENTITY = {"networkPolicy": {"identity": [{"ipBlock": {"cidr": "169.254.170.23/32"}}]}}

# Over ci/default-values.yaml: whether policies let pods of a component out to an address and port.
REACH = [
    ({}, "worker-cpu", "169.254.20.10", 53, True),
    ({}, "api", "169.254.20.10", 53, True),
    ({}, "api", "203.0.113.7", 53, False),
    ({}, "api", "203.0.113.7", 443, True),
    ({}, "api", "169.254.170.23", 80, False),
    (IDENTITY, "api", "169.254.170.23", 80, True),
    (IDENTITY, "scheduler", "169.254.170.23", 80, True),
    (IDENTITY, "api", "169.254.169.254", 80, False),
    (IDENTITY, "worker-cpu", "169.254.170.23", 80, False),
    (IDENTITY, "migrations", "169.254.170.23", 80, False),
    ({"networkPolicy": {"webhooksPorts": [8443]}}, "scheduler", "203.0.113.7", 8443, True),
    (NONE_OUT, "scheduler", "203.0.113.7", 8443, False),
]


def value_sets():
    """The value sets of the folder ci, by name."""
    return {path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text()) for path in sorted(CHART.glob("ci/*-values.yaml"))}


def value_problems():
    """The schema is a schema, and the values are what it says; each option that there is appears in the set of all options."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    validator_class = jsonschema.validators.validator_for(schema)
    validator_class.check_schema(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for name, values in [("values.yaml", defaults), *value_sets().items()]:
        for error in validator_class(schema).iter_errors(values):
            yield f"{name}: {error.json_path}: {error.message}"
    undescribed = set(schema["properties"]) - set(defaults) - {"global"}
    yield from (f"values.yaml lacks {name}, which the schema has" for name in sorted(undescribed))


def render(values):
    """The objects that the chart makes of values, each with the name of its template."""
    with Chart.load(CHART) as chart:
        rendered = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    found = []
    for template, text in rendered.items():
        if template.endswith(".yaml"):
            found += [(template, document) for document in yaml.safe_load_all(text) if document]
    return found


def object_problems():
    """Lints and renders with each set of values, and judges what comes out."""
    skipped = set()
    for name, values in value_sets().items():
        report = lint(CHART, values, strict=True)
        for message in report["messages"]:
            yield f"{name}: lint: {message['error']}"
        rendered = render(values)
        for template, document in rendered:
            where = f"{name}: {template}: {document['kind']} {document['metadata']['name']}"
            yield from (f"{where}: {problem}" for problem in schema_problems(document, skipped))
        yield from (f"{name}: {problem}" for problem in objects.problems([document for _, document in rendered]))
    for kind in sorted(skipped):
        print(f"  {kind} is no kind of Kubernetes itself: its fields are compared with those that the chart is known to use")


def schema_problems(document, skipped):
    """Strictly against the schemas of Kubernetes; kinds of others against a list of fields."""
    if document["kind"] in objects.FOREIGN:
        skipped.add(document["kind"])
        yield from objects.foreign_problems(document)
        return
    for version in KUBERNETES_VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield error.message


def over(base, changes):
    """The values with others over them."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        merged[key] = over(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def refusal_problems():
    """Wrong values are refused with a message that names them."""
    base = value_sets()["default"]
    for changes, expected in REFUSED:
        try:
            render(over(base, changes))
        except HelmError as error:
            if expected not in str(error):
                yield f"{changes} is refused without {expected!r}: {error}"
        else:
            yield f"{changes} is not refused"


def reach_problems():
    """What the policies let out, and what they do not."""
    base = value_sets()["default"]
    for changes, component, address, port, is_let_out in REACH:
        documents = [document for _, document in render(over(base, changes))]
        policies = [document["spec"] for document in documents if document["kind"] == "NetworkPolicy"]
        pods = [objects.pod_of(document)[0] for document in documents if document["kind"] in objects.POD_KINDS]
        found = [objects.lets_out(labels, policies, address, port) for labels in pods if labels[objects.COMPONENT] == component]
        if found != [is_let_out]:
            yield f"{changes}: {component} to {address}:{port}: {found}, not {[is_let_out]}"
