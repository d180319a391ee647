#!/bin/sh
# Starts Triton: models are loaded by request only; gRPC on 8001, metrics on 8002. Arguments are passed on to Triton.
# TRITONSERVER is the folder with bin/ and backends/. If PROOFLOOP_TRITON_KEY is set, loading models requires that key.
# After SIGTERM, running calls have PROOFLOOP_LONGEST_CALL_S (7200) seconds to finish; Triton's default is 30.
set -eu
if [ -n "${PROOFLOOP_TRITON_KEY:-}" ]; then
    set -- "--grpc-restricted-protocol=model-repository:admin-key=$PROOFLOOP_TRITON_KEY" "$@"
fi
# gRPC listens on all addresses, but the metrics page on those of one family: the pod's.
case "${PROOFLOOP_POD_IP:-}" in
    *:*) set -- --metrics-address=ipv6::: "$@" ;;
esac
longest_call_s=${PROOFLOOP_LONGEST_CALL_S:-7200}
"$TRITONSERVER/bin/tritonserver" \
    --model-repository="$PROOFLOOP_MODELS" \
    --backend-directory="$TRITONSERVER/backends" \
    --model-control-mode=explicit \
    --allow-http=false \
    --grpc-port=8001 \
    --metrics-port=8002 \
    --exit-timeout-secs="${longest_call_s%.*}" \
    "$@" &
triton=$!
# Not by exec: as the first process of a container, Triton would ignore SIGTERM until its models are loaded.
trap 'kill -TERM "$triton"' TERM INT
# Triton never restarts the process of a model that died, and still reports that it is healthy. This watch ends Triton, so
# that its supervisor restarts it. The process of a model that is being unloaded is gone by the second check.
dead=
while sleep 5; do
    found=$(grep -ls "^[0-9]* (triton_python_b) Z $triton " /proc/[0-9]*/stat || true)
    if [ -n "$found" ] && [ "$found" = "$dead" ]; then
        echo "the process of a model died, and Triton does not restart it: stopping Triton" >&2
        kill -KILL "$triton"
    fi
    dead=$found
done &
watch=$!
status=0
wait "$triton" || status=$?
while kill -0 "$triton" 2>/dev/null; do # a signal ended the wait, but Triton still runs
    status=0
    wait "$triton" || status=$?
done
kill "$watch" 2>/dev/null || true
exit "$status"
