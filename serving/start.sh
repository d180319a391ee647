#!/bin/sh
# Starts Triton: models only by request, gRPC on 8001, metrics on 8002. More options may follow.
# TRITONSERVER is the folder with bin/ and backends/; PROOFLOOP_TRITON_KEY, if set, is asked of who loads models.
set -eu
if [ -n "${PROOFLOOP_TRITON_KEY:-}" ]; then
    set -- "--grpc-restricted-protocol=model-repository:admin-key=$PROOFLOOP_TRITON_KEY" "$@"
fi
exec "$TRITONSERVER/bin/tritonserver" \
    --model-repository="$PROOFLOOP_MODELS" \
    --backend-directory="$TRITONSERVER/backends" \
    --model-control-mode=explicit \
    --allow-http=false \
    --grpc-port=8001 \
    --metrics-port=8002 \
    "$@"
