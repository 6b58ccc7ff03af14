# One image, every part: the command says which (`serve`, `listen`, `worker --queue jobs`, `sweep`, `admin`).
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY config config
COPY db db
COPY models models
COPY workers workers
COPY node node
RUN python -m venv /opt/pleura && /opt/pleura/bin/pip install --no-cache-dir .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/pleura pleura
COPY --from=build /opt/pleura /opt/pleura
ENV PATH=/opt/pleura/bin:$PATH PYTHONUNBUFFERED=1
USER pleura
WORKDIR /var/lib/pleura
VOLUME /var/lib/pleura
EXPOSE 11112 8080
ENTRYPOINT ["pleura"]
CMD ["serve"]
