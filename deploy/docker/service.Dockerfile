# syntax=docker/dockerfile:1
# One image per service, from its own workspace member and shared alone:
#
#   docker build -f deploy/docker/service.Dockerfile --build-arg SERVICE=content -t budkavle-content .
#
# The second stage holds an interpreter, the installed packages and nothing to build with. Nothing in it needs a shell.

FROM python:3.11-slim-bookworm AS build
ARG SERVICE
RUN ["pip", "install", "--no-cache-dir", "--disable-pip-version-check", "uv==0.13.9"]
ENV UV_PROJECT_ENVIRONMENT=/opt/budkavle \
    UV_PYTHON=/usr/local/bin/python3.11 \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1
WORKDIR /build

# What others wrote first: it changes seldom, and the layer is kept.
COPY pyproject.toml uv.lock ./
COPY shared/pyproject.toml shared/
COPY services/${SERVICE}/pyproject.toml services/${SERVICE}/
RUN uv sync --frozen --no-dev --no-editable --no-install-workspace --package budkavle-${SERVICE}

COPY shared/src shared/src
COPY services/${SERVICE}/src services/${SERVICE}/src
RUN uv sync --frozen --no-dev --no-editable --package budkavle-${SERVICE}

FROM python:3.11-slim-bookworm
ARG SERVICE
LABEL org.opencontainers.image.title="budkavle-${SERVICE}"
COPY --from=build /opt/budkavle /opt/budkavle
ENV PATH=/opt/budkavle/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BUDKAVLE_LOG_FORMAT=json \
    BUDKAVLE_PORT=8080 \
    BUDKAVLE_SECRETS_DIR=/run/secrets
# A number, so that an orchestrator can see that it is not root; it owns nothing in the image.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
STOPSIGNAL SIGTERM
# Liveness only: starting again does not mend a database that is away. http.client asks no proxy of the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
# The service and what it does are the command: python -m content serve|work|migrate
ENTRYPOINT ["python", "-m"]
