# Three images: `server` (the API and the scheduler, without torch), `worker` (one model on one
# device) and `model` (downloads a model once). `docker compose` builds what it needs.
#
# To pin the very bytes of the base image, append its digest: 3.11.17-slim@sha256:…
ARG PYTHON=3.11.17-slim

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

# What changes seldom comes first: the package itself is a layer of its own, and a small one.
FROM build AS server-dependencies
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt --requirement requirements.txt

# PyPI's torch for Linux brings CUDA's libraries along, so that the host needs no more than a driver
# and NVIDIA's container toolkit. For the CPU: TORCH_INDEX=https://download.pytorch.org/whl/cpu
FROM server-dependencies AS worker-dependencies
ARG TORCH_INDEX=https://pypi.org/simple
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["worker"], sep="\n")' > requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --extra-index-url "$TORCH_INDEX" --constraint constraints.txt --requirement requirements.txt

FROM build AS model-dependencies
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt huggingface_hub

FROM build AS package
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY batch_api batch_api
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:${PYTHON} AS runtime
LABEL org.opencontainers.image.title="batch-api" \
      org.opencontainers.image.description="OpenAI's Files and Batches API, on your own GPUs" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 batch-api \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin batch-api \
    && install --directory --owner 10001 --group 10001 /data /models
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp HF_HOME=/models \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
STOPSIGNAL SIGTERM

FROM runtime AS model
COPY --from=model-dependencies /opt/venv /opt/venv
CMD ["hf", "download", "--help"]

FROM runtime AS worker
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=worker-dependencies /opt/venv /opt/venv
USER root
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --start-interval=5s \
    CMD ["python", "-c", "import json, sys, urllib.request as u; sys.exit(not json.load(u.urlopen('http://127.0.0.1:8000/health', timeout=4))['ready'])"]
ENTRYPOINT ["batch-api"]
CMD ["worker", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS server
COPY --from=server-dependencies /opt/venv /opt/venv
USER root
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl
USER 10001:10001
ENV BATCH_API_HOST=0.0.0.0 BATCH_API_DATA_DIR=/data
EXPOSE 5000
VOLUME /data
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m --start-interval=1s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
ENTRYPOINT ["batch-api"]
CMD ["serve"]
