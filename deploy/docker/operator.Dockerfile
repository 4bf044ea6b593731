# syntax=docker/dockerfile:1
# The operator's command line, `budkavle`: API keys, dead letters, imports. It reaches all three databases and so carries all
# three services' code; it is started by hand and ends (docker compose run --rm operator dead list).

FROM python:3.11-slim-bookworm AS build
RUN ["pip", "install", "--no-cache-dir", "--disable-pip-version-check", "uv==0.13.9"]
ENV UV_PROJECT_ENVIRONMENT=/opt/budkavle \
    UV_PYTHON=/usr/local/bin/python3.11 \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1
WORKDIR /build
COPY pyproject.toml uv.lock ./
COPY shared shared
COPY services services
COPY deploy/standalone deploy/standalone
RUN uv sync --frozen --no-dev --no-editable --package budkavle-standalone

FROM python:3.11-slim-bookworm
COPY --from=build /opt/budkavle /opt/budkavle
ENV PATH=/opt/budkavle/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    BUDKAVLE_SECRETS_DIR=/run/secrets
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["budkavle"]
CMD ["--help"]
