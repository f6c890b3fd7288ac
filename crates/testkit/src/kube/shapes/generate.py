#!/usr/bin/env python3
"""Writes fields.txt: the fields of the built-in Kubernetes kinds, read off the struct tags of k8s.io/api.

Usage: generate.py K8S_IO_API_DIR K8S_IO_APIMACHINERY_DIR VERSION > fields.txt
Both folders are what `go mod download -json k8s.io/api@VERSION` and `... k8s.io/apimachinery@VERSION` name as Dir.
"""
import glob
import os
import re
import sys

API, MACHINERY, VERSION = sys.argv[1:4]
# Folder of k8s.io/api -> API group; every kind in them that has metadata is a root.
GROUPS = {
    "core/v1": "", "apps/v1": "apps", "batch/v1": "batch", "autoscaling/v1": "autoscaling",
    "autoscaling/v2": "autoscaling", "networking/v1": "networking.k8s.io", "rbac/v1": "rbac.authorization.k8s.io",
    "policy/v1": "policy", "storage/v1": "storage.k8s.io", "coordination/v1": "coordination.k8s.io",
    "discovery/v1": "discovery.k8s.io", "events/v1": "events.k8s.io", "scheduling/v1": "scheduling.k8s.io",
    "certificates/v1": "certificates.k8s.io", "authentication/v1": "authentication.k8s.io",
    "authorization/v1": "authorization.k8s.io", "admissionregistration/v1": "admissionregistration.k8s.io",
    "node/v1": "node.k8s.io", "flowcontrol/v1": "flowcontrol.apiserver.k8s.io",
}
SPECIAL = {"Time", "MicroTime", "Duration", "Quantity", "IntOrString", "RawExtension", "FieldsV1"}
SCALARS = {"string": "s", "int32": "i", "int64": "i", "uint32": "i", "uint64": "i", "int": "i", "bool": "b",
           "float64": "d", "byte": "y"}

structs, aliases, atomic = {}, {}, set()


def load(folder, package):
    for path in sorted(glob.glob(os.path.join(folder, "*.go"))):
        if path.endswith("_test.go") or "zz_generated" in path or "generated.pb" in path:
            continue
        text = open(path, encoding="utf-8").read()
        lines, comments, i = text.splitlines(), [], 0
        while i < len(lines):
            line = lines[i]
            i += 1
            if line.startswith("//"):
                comments.append(line)
                continue
            opened = re.match(r"type (\w+) struct \{$", line)
            alias = re.match(r"type (\w+) ([\w\[\].*]+)$", line)
            if opened:
                end = lines.index("}", i)
                if any("+structType=atomic" in c for c in comments):
                    atomic.add(f"{package}.{opened[1]}")
                structs[f"{package}.{opened[1]}"] = parse(package, "\n".join(lines[i:end]))
                i = end + 1
            elif alias and alias[1] != alias[2]:
                aliases[f"{package}.{alias[1]}"] = (package, alias[2])
            comments = []


def parse(package, body):
    fields, comments = [], []
    for line in body.splitlines():
        line = line.strip()
        if line.startswith("//"):
            comments.append(line)
            continue
        tag = re.match(r"(?:(\w+)\s+)?([\w.*\[\]]+)\s+`(.*)`", line)
        if not tag:
            comments = [] if not line else comments
            continue
        _, go_type, tags = tag.groups()
        json = re.search(r'json:"([^"]*)"', tags)
        proto = re.search(r'protobuf:"\w+,(\d+),', tags)
        if json and proto:
            notes = "\n".join(comments)
            name, *options = json[1].split(",")
            kind = re.search(r"\+listType=(\w+)", notes)
            fields.append({
                "package": package, "json": name, "inline": "inline" in options or not name, "number": int(proto[1]),
                "type": go_type, "drops": "omitempty" in options and not go_type.startswith("*"),
                "list": kind[1] if kind else "", "keys": re.findall(r"\+listMapKey=(\w+)", notes),
                "atomic": "+structType=atomic" in notes or "+mapType=atomic" in notes,
                "merge": 'patchStrategy:"' in tags and "merge" in re.search(r'patchStrategy:"([^"]*)"', tags)[1],
                "mergekey": (re.search(r'patchMergeKey:"([^"]*)"', tags) or [None, ""])[1],
            })
        comments = []
    return fields


def resolve(package, name):
    """The short kind of a Go type, and the struct it leads to."""
    name = name.lstrip("*")
    if name.startswith("[]byte"):
        return "y", None
    if name.startswith("[]"):
        kind, struct = resolve(package, name[2:])
        return f"[{kind}]", struct
    if name.startswith("map["):
        kind, struct = resolve(package, name[name.index("]") + 1:])
        return f"{{{kind}}}", struct
    if name in SCALARS:
        return SCALARS[name], None
    package, short = (name.split(".") + [None])[:2] if "." in name else (package, name)
    package = {"metav1": "meta/v1", "v1": "core/v1", "resource": "resource", "intstr": "intstr", "runtime": "runtime",
               "types": "types", "corev1": "core/v1", "api": "core/v1", "apiv1": "core/v1",
               "autoscaling": "autoscaling/v1", "networkingv1": "networking/v1"}.get(package, package)
    if short in SPECIAL:
        return short, None
    full = f"{package}.{short}"
    if full in structs:
        return full, full
    if full in aliases:
        return resolve(*aliases[full])
    return "s", None  # named strings of packages that were not read


for folder in GROUPS:
    load(os.path.join(API, folder), folder)
load(os.path.join(MACHINERY, "pkg/apis/meta/v1"), "meta/v1")

todo, seen = [], set()
for folder, group in GROUPS.items():
    for full, fields in structs.items():
        if full.startswith(folder + ".") and any(f["inline"] and f["type"] == "metav1.TypeMeta" for f in fields) \
                or full.startswith(folder + ".") and any(f["type"] == "metav1.ObjectMeta" for f in fields):
            if not full.endswith("List"):
                todo.append(full)
todo += ["meta/v1.DeleteOptions", "meta/v1.ObjectMeta", "autoscaling/v1.Scale", "policy/v1.Eviction"]

lines = []
while todo:
    full = todo.pop()
    if full in seen or full not in structs:
        continue
    seen.add(full)
    out = []
    for field in structs[full]:
        kind, struct = resolve(field["package"], field["type"])
        if struct:
            todo.append(struct)
        text = f"{'*' if field['inline'] else field['json']}={field['number']}:{kind}"
        if field["drops"]:
            text += "?"
        if field["atomic"] or struct in atomic and not kind.startswith(("[", "{")):
            text += "!"
        if field["list"] == "map":
            text += "#" + ",".join(field["keys"])
        elif field["list"] == "set":
            text += "#"
        if field["merge"]:
            text += "~" + field["mergekey"]
        out.append(text)
    lines.append(f"{full} {' '.join(out)}")

print(f"# Fields of the built-in kinds, from the struct tags of k8s.io/api {VERSION} by generate.py. Do not edit.")
print("# TYPE FIELD=NUMBER:KIND with s text, i integer, b truth value, d float, y bytes, [K] list, {K} map, * inlined;")
print("# ? dropped when zero, ! atomic, #KEYS map list (# alone: set) of server-side apply, ~KEY strategic merge.")
print("\n".join(sorted(lines)))
