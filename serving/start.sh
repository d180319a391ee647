#!/bin/sh
# Starts Triton: models only by request, gRPC on 8001, metrics on 8002. More options may follow.
# TRITONSERVER is the folder with bin/ and backends/; PROOFLOOP_TRITON_KEY, if set, is asked of who loads models.
# SIGTERM lets running calls finish for PROOFLOOP_LONGEST_CALL_S (7200); Triton alone would give them 30 seconds.
set -eu
if [ -n "${PROOFLOOP_TRITON_KEY:-}" ]; then
    set -- "--grpc-restricted-protocol=model-repository:admin-key=$PROOFLOOP_TRITON_KEY" "$@"
fi
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
# Not by exec: Triton hears SIGTERM once its models are loaded, and as the first process of a container not before.
trap 'kill -TERM "$triton"' TERM INT
# A model whose process died is never started again, and Triton looks healthy all the same: whoever runs it shall start
# it anew. Of a model that is unloaded such a process is gone by the second look.
dead=
while sleep 5; do
    found=$(grep -ls "^[0-9]* (triton_python_b) Z $triton " /proc/[0-9]*/stat || true)
    if [ -n "$found" ] && [ "$found" = "$dead" ]; then
        echo "the process of a model died, which Triton does not start again: ending" >&2
        kill -KILL "$triton"
    fi
    dead=$found
done &
watch=$!
status=0
wait "$triton" || status=$?
while kill -0 "$triton" 2>/dev/null; do # the signal ended the wait, not Triton
    status=0
    wait "$triton" || status=$?
done
kill "$watch" 2>/dev/null || true
exit "$status"
