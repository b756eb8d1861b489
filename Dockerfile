# docker build -t sampler-proxy .
# docker run -p 4317:4317 -p 4318:4318 -v ./config:/etc/sampler-proxy:ro sampler-proxy     # config/sampler-proxy.yaml
#
# Without a file of your own the image runs deploy/sampler-proxy.yaml. Set `admin: {endpoint: 0.0.0.0:8888}` in yours,
# with `auth` or `insecure: true`, to have Prometheus scrape /metrics from outside of the container; another port than 8888 needs a health check of its own.
# A stop takes up to `shutdown_timeout` (30 s) and Docker's patience is 10 s: docker stop -t 40.

FROM python:3.12-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/sampler-proxy
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY sampler_proxy ./sampler_proxy
RUN /opt/sampler-proxy/bin/pip install --no-cache-dir .

FROM python:3.12-slim
COPY --from=build /opt/sampler-proxy /opt/sampler-proxy
COPY deploy/sampler-proxy.yaml /etc/sampler-proxy/sampler-proxy.yaml
ENV PATH=/opt/sampler-proxy/bin:$PATH PYTHONUNBUFFERED=1
# The file destination writes here: a folder that belongs to the user (numeric, so that runAsNonRoot can check it).
WORKDIR /var/lib/sampler-proxy
RUN chown 65532:65532 /var/lib/sampler-proxy
USER 65532:65532
EXPOSE 4317 4318 8888
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8888/healthz', timeout=2)"]
ENTRYPOINT ["sampler-proxy"]
CMD ["run", "--config", "/etc/sampler-proxy/sampler-proxy.yaml"]
