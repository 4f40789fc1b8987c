# Ingress, router and experts on NVIDIA GPUs, for KubeRay and VM clusters. Build in the repository's root:
#   docker build -f cluster/images/gpu.Dockerfile -t to-router:gpu .
# Based on Ray's own image with vLLM: KubeRay expects its user, paths and tools.
ARG BASE=rayproject/ray-llm:2.60.0-py312-cu130
FROM ${BASE}
USER root
RUN mkdir -p /app /models && chown 1000:100 /app /models
USER 1000:100
WORKDIR /app
# The CPU runtime of the encoder and the graph's other packages, in a layer that rarely changes.
COPY --chown=1000:100 pyproject.toml LICENSE README.md ./
RUN --mount=type=cache,target=/home/ray/.cache/pip,uid=1000,gid=100 \
    pip install --no-cache-dir "openvino>=2026.1" "orjson>=3.10" "prometheus-client>=0.21" "pyarrow>=20" \
    "safetensors>=0.5" "tokenizers>=0.21" "tqdm>=4.67" "httpx>=0.28" "ray[serve]==2.60.0"
# vLLM with its torch, over the older one of Ray's image, whose faults a request can reach. The build fails
# where another version ends up installed.
RUN --mount=type=cache,target=/home/ray/.cache/pip,uid=1000,gid=100 \
    pip install --no-cache-dir "vllm==0.32.0" "ray[serve]==2.60.0" "starlette>=1.0.1" \
    && python -c "from importlib.metadata import version as v; found = v('vllm'), v('ray'); assert found == ('0.32.0', '2.60.0'), found"
COPY --chown=1000:100 router router
COPY --chown=1000:100 deployments deployments
COPY --chown=1000:100 cluster cluster
RUN pip install --no-deps --editable .
# Your own policy: mount it at /app/policies, or `COPY policies policies` in an image on top of this.
ENV TO_ROUTER_ROOT=/app HF_HOME=/models HF_HUB_DISABLE_TELEMETRY=1 PYTHONUNBUFFERED=1 \
    RAY_SERVE_HAPROXY_BINARY_PATH=/app/cluster/haproxy
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=600s --retries=4 \
    CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/-/healthz', timeout=4)" || exit 1
