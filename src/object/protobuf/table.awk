# Makes table.txt out of the types.go of Kubernetes' API packages:
#
#   awk -f table.awk {core,events,…,meta}/v1/types.go >table.txt
#
# One line for each message that the roots below lead to: its name, then for each field
# NUMBER:NAME:TYPE. An empty name: the fields of the type stand in the message itself. Types:
# s(tring) b(ool) i(nteger) y (bytes), those with a form of their own, or a message; [] and {} in
# front for lists and maps; * behind a pointer, ! behind what is written even if it is zero.
# By hand: field 3 of core.NodeAllocatableResourceClaimStatus, which 1.36 has and later ones have not.
BEGIN {
    roots = "core.Binding core.ConfigMap core.Endpoints core.Event core.LimitRange core.Namespace" \
        " core.Node core.Pod core.ResourceQuota core.Secret core.Service core.ServiceAccount" \
        " authentication.SelfSubjectReview authentication.TokenRequest authentication.TokenReview" \
        " authorization.LocalSubjectAccessReview authorization.SelfSubjectAccessReview" \
        " authorization.SelfSubjectRulesReview authorization.SubjectAccessReview" \
        " coordination.Lease events.Event policy.Eviction scheduling.PriorityClass" \
        " meta.DeleteOptions"
    alias["types.UID"] = "s"
    alias["types.NodeName"] = "s"
    alias["resource.Quantity"] = "quantity"
    alias["intstr.IntOrString"] = "intstr"
    alias["meta.Time"] = "time"
    alias["meta.MicroTime"] = "micro"
    alias["meta.FieldsV1"] = "raw"
    alias["runtime.RawExtension"] = "raw"
}
FNR == 1 {
    split(FILENAME, path, "/")
    package = path[length(path) - 2]
    inside = ""
}
/^type [A-Za-z0-9]+ struct \{/ { inside = package "." $2; next }
/^}/ { inside = ""; next }
/^type [A-Za-z0-9]+ / && inside == "" {
    alias[package "." $2] = $3 == "[]string" ? "items" : named($3)
    next
}
/^[ \t]*\/\// { next }
inside != "" && /protobuf:"/ {
    match($0, /protobuf:"[^"]*"/)
    split(substr($0, RSTART + 10, RLENGTH - 11), wire, ",")
    match($0, /json:"[^"]*"/)
    json = substr($0, RSTART + 6, RLENGTH - 7)
    optional = json ~ /omitempty|omitzero/
    sub(/,.*/, "", json)
    # An embedded type stands alone before its tags.
    go = $2 ~ /^`/ ? $1 : $2
    type = named(go)
    if (go ~ /^\*/) type = type "*"
    else if (!optional && type ~ /^[sbi]$/) type = type "!"
    fields[inside] = fields[inside] " " wire[2] ":" json ":" type
}
# The type of a Go expression, names with their packages.
function named(go,   rest) {
    sub(/^\*/, "", go)
    if (go == "[]byte") return "y"
    if (go ~ /^\[\]/) return "[]" named(substr(go, 3))
    if (go ~ /^map\[/) { rest = go; sub(/^map\[[^]]*\]/, "", rest); return "{}" named(rest) }
    if (go == "string") return "s"
    if (go == "bool") return "b"
    if (go ~ /^u?int(8|16|32|64)?$/) return "i"
    if (go ~ /^metav1\./) { sub(/^metav1/, "meta", go); return go }
    if (go ~ /^(core|api)?v1\./) { sub(/^(core|api)?v1/, "core", go); return go }
    if (go ~ /\./) return go
    return package "." go
}
# A type with the aliases behind its name followed.
function settled(type,   mark, front) {
    mark = ""; front = ""
    if (type ~ /[*!]$/) { mark = substr(type, length(type)); type = substr(type, 1, length(type) - 1) }
    while (type ~ /^(\[\]|\{\})/ || type in alias) {
        if (type in alias) { type = alias[type]; continue }
        front = front substr(type, 1, 2)
        type = substr(type, 3)
    }
    return front type mark
}
function visit(name,   parts, count, part, n, type, line) {
    if (name in seen || !(name in fields)) return
    seen[name] = 1
    count = split(fields[name], parts, " ")
    line = name
    for (n = 1; n <= count; n++) {
        split(parts[n], part, ":")
        type = settled(part[3])
        line = line " " part[1] ":" part[2] ":" type
        gsub(/[][{}*!]/, "", type)
        below[name, n] = type
    }
    print line
    for (n = 1; n <= count; n++) visit(below[name, n])
}
END {
    count = split(roots, root, " ")
    for (r = 1; r <= count; r++) visit(root[r])
}
