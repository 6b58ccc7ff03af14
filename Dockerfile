# One image, every part: the command says which (`serve`, `listen`, `worker --queue jobs`, `scheduler`, `hl7`, `admin`).
#
#   docker build --target cpu -t pleura:0.1.0 .
#   docker build --target gpu -t pleura:0.1.0-gpu .    # on an NVIDIA GPU: onnxruntime-gpu, and TensorFlow for networks in Keras format
#
# cpu is for x86-64 and arm64 (docker buildx build --platform linux/amd64,linux/arm64 …), gpu for x86-64.
# Every package has the version and the digest of config/locked, which .ci/lock writes. /opt/pleura/sbom.cdx.json lists what
# is inside (CycloneDX). To pin the base image: --build-arg BASE=python:3.12-slim-bookworm@sha256:…
# Research use only. Pleura is not a medical device.

ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS wheel
WORKDIR /source
COPY config/locked/build.txt /build.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r /build.txt
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY config config
COPY db db
COPY models models
COPY workers workers
COPY node node
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . && \
    python -m venv --without-pip /opt/pleura && \
    pip --python /opt/pleura/bin/python install --no-cache-dir --no-deps --no-index --prefix /code /wheels/*.whl

FROM ${BASE} AS installed-cpu
COPY config/locked/cpu.txt /locked.txt
RUN python -m venv --without-pip /opt/pleura && \
    pip --python /opt/pleura/bin/python install --no-cache-dir --no-deps --require-hashes -r /locked.txt && \
    find /opt/pleura/lib -type d -name tests -prune -exec rm -rf {} +

FROM ${BASE} AS installed-gpu
COPY config/locked/gpu.txt /locked.txt
RUN python -m venv --without-pip /opt/pleura && \
    pip --python /opt/pleura/bin/python install --no-cache-dir --no-deps --require-hashes -r /locked.txt && \
    find /opt/pleura/lib -type d -name tests -prune -exec rm -rf {} +

FROM wheel AS bill
COPY .ci/image-sbom /image-sbom
RUN python /image-sbom config/locked/cpu.cdx.json > /cpu.cdx.json && python /image-sbom config/locked/gpu.cdx.json > /gpu.cdx.json

FROM ${BASE} AS base
ARG BASE
ARG REVISION
LABEL org.opencontainers.image.title=Pleura \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.base.name=${BASE} \
      org.opencontainers.image.description="DICOM node between a PACS and AI for chest radiographs. Research use only; not a medical device." \
      org.opencontainers.image.licenses=MIT
# A numeric user for runAsNonRoot; its group is root's, which may write, for engines that choose the user (OpenShift).
RUN useradd --system --uid 10001 --gid 0 --create-home --home-dir /var/lib/pleura pleura && chmod -R g=u,o= /var/lib/pleura
# A container is reached from outside or not at all: its ports are published by whoever starts it.
ENV PATH=/opt/pleura/bin:$PATH PYTHONUNBUFFERED=1 HOME=/var/lib/pleura PLEURA_STORE__FOLDER=/var/lib/pleura \
    PLEURA_LISTENER__HOST=0.0.0.0 PLEURA_ADMIN__HOST=0.0.0.0 PLEURA_HL7__HOST=0.0.0.0 \
    PLEURA_DICOMWEB__HOST=0.0.0.0
USER 10001:0
WORKDIR /var/lib/pleura
VOLUME /var/lib/pleura
EXPOSE 11112 2762 8043 8080 2575
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["pleura", "probe", "serve"]
ENTRYPOINT ["pleura"]
CMD ["serve"]

# The packages are a layer of their own: a new version of Pleura adds only its own few megabytes.
FROM base AS gpu
COPY --from=installed-gpu /opt/pleura /opt/pleura
COPY --from=wheel /code /opt/pleura
COPY --from=bill /gpu.cdx.json /opt/pleura/sbom.cdx.json

FROM base AS cpu
COPY --from=installed-cpu /opt/pleura /opt/pleura
COPY --from=wheel /code /opt/pleura
COPY --from=bill /cpu.cdx.json /opt/pleura/sbom.cdx.json
