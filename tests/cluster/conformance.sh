# shellcheck shell=bash disable=SC2034,SC2154
# Kubernetes' own tests of a node, as one more story: tests/cluster/run conformance. Source it (run).
#
#   LOWTIDE_E2E         directory with ginkgo and e2e.test of the control plane's version (both are in
#                       kubernetes-test-linux-*.tar.gz), and in images/ the images that the tests ask
#                       for, as archives under their full names: agnhost, busybox, glibc-dns-testing,
#                       nginx, nonewprivs, nonroot, pause
#   LOWTIDE_E2E_FOCUS   a regular expression: these tests instead of all of NodeConformance
#   LOWTIDE_E2E_LOG     directory that keeps the logs
#
# docs/conformance.md says what came out. The node is the only one, and nothing plays kube-proxy,
# cluster DNS or the Internet.

# Tests that are not asked, each with its reason.
not_asked=(
    # Optional features: what lowtide has of them its own tests ask.
    '\[Feature:'
    # Half an hour each: the longest back-off, timed.
    '\[Slow\]'
)

story_conformance() {
    [ -x "${LOWTIDE_E2E:-}/e2e.test" ] || die "LOWTIDE_E2E names no directory with e2e.test"
    local focus=${LOWTIDE_E2E_FOCUS:-'\[NodeConformance\]'} out=${LOWTIDE_E2E_LOG:-$state/log} skip
    skip=$(IFS='|' && echo "${not_asked[*]}")
    mkdir -p "$out"
    cp "$LOWTIDE_E2E"/images/*.tar "$edge/images/"
    local archive
    for archive in "$LOWTIDE_E2E"/images/*.tar; do
        within 120 grep -q "imported $(basename "$archive")" "$state/log/lowtide.log"
    done
    local status=0
    asked --procs=4 --skip="$skip|\[Serial\]" --focus="$focus" >"$out/parallel.log" || status=1
    asked --procs=1 --skip="$skip" --focus="($focus).*\[Serial\]|\[Serial\].*($focus)" >"$out/serial.log" ||
        status=1
    grep -ahE '^(Ran .* Specs|(FAIL|SUCCESS)! --)|^ *\[FAIL\]' "$out"/{parallel,serial}.log >&2 || :
    return "$status"
}
asked() {
    "$LOWTIDE_E2E/ginkgo" --no-color --timeout=2h "$@" "$LOWTIDE_E2E/e2e.test" -- \
        --provider=skeleton --num-nodes=1 --kubeconfig="$KUBECONFIG" 2>&1
}
