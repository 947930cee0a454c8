# nc_tools with its recipes; docs/scale.md says how to build and run it.
#   BASE    an image with Python 3.11 or later; one that has PyTorch keeps it if it is new enough
#   EXTRAS  extras of pyproject.toml, such as [ray] or [timm,ray]
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG EXTRAS=
ENV PIP_NO_CACHE_DIR=1 MLFLOW_DISABLE_TELEMETRY=true RAY_USAGE_STATS_ENABLED=0
WORKDIR /nc_tools
COPY pyproject.toml README.md LICENSE ./
COPY nc_tools nc_tools
COPY recipes recipes
RUN pip install ".${EXTRAS}"
WORKDIR /work
CMD ["nc-tools", "--help"]
