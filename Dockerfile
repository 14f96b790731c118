# docker build -t registry.example/carl:0.1.0 .
# docker build -t registry.example/carl:0.1.0-cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
# A tag can move; to pin the base to the byte as well: --build-arg BASE=python@sha256:...
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt .
RUN grep -E '^torch==' constraints.txt > torch.txt && pip install --index-url ${TORCH_INDEX} -r torch.txt
COPY pyproject.toml README.md LICENSE ./
COPY carl carl
RUN pip install -c constraints.txt .

FROM ${BASE}
RUN useradd --uid 1000 --create-home carl
COPY --from=build /opt/venv /opt/venv
COPY jobs /opt/carl/jobs
COPY deployments /opt/carl/deployments
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/carl PYTHONUNBUFFERED=1 CARL_LOG=json NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN python -c "import pyseccomp"    # the box needs libseccomp, which Debian's apt brings along
USER 1000
WORKDIR /home/carl
