# The images of the five services, and of Triton for CPUs. `make images` builds all; one by itself, from the repository's root:
#   docker build --build-arg ROLE=verifier -t proofloop-verifier .
#   docker build --build-arg ROLE=serving --target serving -t proofloop-serving .
# Torch comes from TORCH_INDEX. PyPI's build for x86 needs CUDA, 3 GB: --build-arg TORCH_INDEX=https://pypi.org/simple

ARG PYTHON=docker.io/library/python:3.11.16-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b
ARG ROLE=verifier

FROM ${PYTHON} AS tools
WORKDIR /src
COPY requirements/build.txt requirements/
RUN apt-get update && apt-get install --yes --no-install-recommends binutils \
 && pip install --no-cache-dir --requirement requirements/build.txt \
 && python -m venv --without-pip /opt/proofloop

# Without debug symbols, 45 MB, and without bytecode, 40 MB: the next stage compiles what a service imports.
FROM tools AS light
COPY requirements/light.txt requirements/
RUN pip --python /opt/proofloop/bin/python install --no-cache-dir --no-compile --requirement requirements/light.txt \
 && find /opt/proofloop/lib -name '*.so' ! -path '*.libs/*' -exec strip --strip-unneeded {} +
FROM light AS generator-libraries
FROM light AS verifier-libraries
FROM light AS meta_verifier-libraries
FROM light AS labeler-libraries

# Torch first and alone, so that no other package comes from its index.
FROM tools AS trainer-libraries
COPY requirements/trainer.txt requirements/
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN torch=$(grep '^torch==' requirements/trainer.txt) \
 && pip --python /opt/proofloop/bin/python install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" "$torch" \
 && pip --python /opt/proofloop/bin/python install --no-cache-dir --requirement requirements/trainer.txt

FROM tools AS serving-libraries
COPY requirements/serving.txt requirements/
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN torch=$(grep '^torch==' requirements/serving.txt) \
 && pip --python /opt/proofloop/bin/python install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" "$torch" \
 && pip --python /opt/proofloop/bin/python install --no-cache-dir --requirement requirements/serving.txt

FROM ${ROLE}-libraries AS packages
ARG ROLE
COPY shared shared
COPY serving serving
COPY services services
RUN case "$ROLE" in \
      serving) folders="./shared ./serving" ;; \
      trainer) folders="./shared ./serving ./services/trainer" ;; \
      *) folders="./shared ./services/$ROLE" ;; \
    esac \
 && pip wheel --no-deps --no-build-isolation --wheel-dir wheels $folders \
 && pip --python /opt/proofloop/bin/python install --no-cache-dir --no-deps wheels/*.whl \
# What no service uses: the libraries' own tests, and what compilers and type checkers read. 23 MB, with torch 200 MB.
 && find /opt/proofloop/lib -type d \( -name test -o -name tests -o -name SelfTest -o -name include -o -path '*/numpy/distutils' -o -path '*/numpy/f2py' \) \
      ! -path '*.dist-info/*' -prune -exec rm -r {} + \
 && find /opt/proofloop/lib -type f \( -name '*.a' -o -name '*.c' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.pyx' \) -delete \
 && find /opt/proofloop/lib -path '*/torch/bin/*' ! -name torch_shm_manager -delete

# Start the service and import its parts: a broken image fails here, and Python compiles what it imports.
RUN if [ "$ROLE" != serving ]; then \
      /opt/proofloop/bin/proofloop serve "$ROLE" --check \
      && PROOFLOOP_BROKER=amqp://none /opt/proofloop/bin/python -c "import celery.apps.worker, celery.worker.consumer, \
         proofloop.worker.service, proofloop.store.minio, proofloop.engine.openai.engine, proofloop.engine.triton.engine"; \
    fi

# tritonserver, the Python backend and its stub come with the wheel of nvidia-pytriton. The stub is built for numpy 1.
FROM packages AS triton
RUN pip --python /opt/proofloop/bin/python install --no-cache-dir --no-deps nvidia-pytriton==0.7.0 numpy==1.26.4 \
 && cd /opt/proofloop/lib/python3.11/site-packages/pytriton/tritonserver \
 && cp python_backend_stubs/3.11/triton_python_backend_stub backends/python/ \
 && chmod 755 bin/tritonserver backends/python/triton_python_backend_stub

# Without what installs packages, draws windows and converts Python 2, and without the character sets of C programs: Python has
# its own. About 25 MB.
FROM ${PYTHON} AS python
RUN PYTHONDONTWRITEBYTECODE=1 pip uninstall --yes pip setuptools wheel \
 && cd "$(dirname "$(python -c 'import os; print(os.__file__)')")" \
 && rm -rf ensurepip idlelib lib2to3 pydoc_data tkinter turtledemo /usr/local/include /usr/lib/*/gconv \
 && useradd --uid 10001 --no-create-home --home-dir /tmp proofloop && install -d -o 10001 -g 10001 /data

# What all images share. The root file system may be read-only: processes write only to /data and /tmp.
# In one layer, because an image keeps what a later layer removes.
FROM scratch AS base
COPY --from=python / /
ARG VERSION=0.0.0+local
ARG REVISION=unknown
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/proofloop/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PROOFLOOP_STORE=/data \
    PROOFLOOP_CACHE=/tmp/proofloop
VOLUME /data

FROM base AS serving
COPY --from=triton /opt/proofloop /opt/proofloop
COPY serving/settings /opt/settings
COPY serving/models /opt/models
COPY serving/start.sh /opt/start.sh
COPY services/trainer/proofloop_trainer/nano/base /models/nano-base
LABEL org.opencontainers.image.title="proofloop-serving" \
      org.opencontainers.image.description="Triton with proofloop's model, on CPUs"
ENV LD_LIBRARY_PATH=/usr/local/lib \
    TRITONSERVER=/opt/proofloop/lib/python3.11/site-packages/pytriton/tritonserver \
    OMP_NUM_THREADS=1 \
    PROOFLOOP_MODELS=/opt/models \
    PROOFLOOP_SERVING_SETTINGS=/opt/settings
USER 10001:10001
# Put models that a version names as a folder into /models.
WORKDIR /models
EXPOSE 8001 8002
ENTRYPOINT ["/bin/sh", "/opt/start.sh"]

FROM base AS service
ARG ROLE
COPY --from=packages /opt/proofloop /opt/proofloop
LABEL org.opencontainers.image.title="proofloop ${ROLE}" \
      org.opencontainers.image.description="The service ${ROLE} of proofloop"
ENV PROOFLOOP_IMAGE_ROLE=${ROLE}
USER 10001:10001
WORKDIR /data
# sh fills in the role, and exec makes proofloop the first process, which receives the signals.
ENTRYPOINT ["/bin/sh", "-c", "exec proofloop serve \"$PROOFLOOP_IMAGE_ROLE\" \"$@\"", "proofloop"]
