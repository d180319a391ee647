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
status=0
wait "$triton" || status=$?
while kill -0 "$triton" 2>/dev/null; do # the signal ended the wait, not Triton
    status=0
    wait "$triton" || status=$?
done
exit "$status"
