# One image, every part: the command says which (`serve`, `listen`, `worker --queue jobs`, `scheduler`, `hl7`, `admin`).
#
#   docker build --target cpu -t pleura:0.1.0 .
#   docker build --target gpu -t pleura:0.1.0-gpu .    # networks in Keras format on an NVIDIA GPU, with TensorFlow
#
# Every package has the version and the digest of config/locked, which .ci/lock writes.
# Research use only. Pleura is not a medical device.

FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY config config
COPY db db
COPY models models
COPY workers workers
COPY node node
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm AS installed-cpu
COPY config/locked/cpu.txt /locked.txt
RUN python -m venv /opt/pleura && /opt/pleura/bin/pip install --no-cache-dir --no-deps --require-hashes -r /locked.txt
COPY --from=wheel /wheels /wheels
RUN /opt/pleura/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.12-slim-bookworm AS installed-gpu
COPY config/locked/gpu.txt /locked.txt
RUN python -m venv /opt/pleura && /opt/pleura/bin/pip install --no-cache-dir --no-deps --require-hashes -r /locked.txt
COPY --from=wheel /wheels /wheels
RUN /opt/pleura/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.12-slim-bookworm AS base
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/pleura pleura
ENV PATH=/opt/pleura/bin:$PATH PYTHONUNBUFFERED=1
USER pleura
WORKDIR /var/lib/pleura
VOLUME /var/lib/pleura
EXPOSE 11112 8080 2575
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["pleura", "doctor", "--no-peers"]
ENTRYPOINT ["pleura"]
CMD ["serve"]

FROM base AS gpu
COPY --from=installed-gpu /opt/pleura /opt/pleura

FROM base AS cpu
COPY --from=installed-cpu /opt/pleura /opt/pleura
