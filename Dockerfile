# syntax=docker/dockerfile:1
# The server, which also labels and retrains heads; without torch. For NVIDIA: docker build --build-arg EXTRA=gpu .
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
ARG EXTRA=cpu
RUN python -m venv /opt/regraft
COPY pyproject.toml README.md LICENSE /src/
COPY regraft /src/regraft
COPY serving /src/serving
COPY training /src/training
RUN /opt/regraft/bin/pip install --no-cache-dir --disable-pip-version-check "/src[${EXTRA}]"

FROM python:${PYTHON}
COPY --from=build /opt/regraft /opt/regraft
RUN useradd --uid 10001 --create-home regraft && install -d -o regraft /models
USER 10001
ENV PATH=/opt/regraft/bin:$PATH PYTHONUNBUFFERED=1
VOLUME /models
EXPOSE 50051 8002
# Python as PID 1 handles SIGTERM itself: the server drains and exits with the truth.
ENTRYPOINT ["regraft"]
CMD ["serve", "--store", "/models", "--grpc", "0.0.0.0:50051", "--metrics", "0.0.0.0:8002", "--insecure"]
