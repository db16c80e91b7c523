FROM python:3.13-slim AS build
RUN python -m venv /opt/outbox
WORKDIR /source
COPY requirements/run.txt requirements/
RUN /opt/outbox/bin/pip install --no-cache-dir --require-hashes --requirement requirements/run.txt
COPY . .
RUN /opt/outbox/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /wheel . \
    && /opt/outbox/bin/pip install --no-cache-dir --no-deps /wheel/*.whl

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home outbox
COPY --from=build /opt/outbox /opt/outbox
ENV PATH=/opt/outbox/bin:$PATH PYTHONUNBUFFERED=1
USER outbox
WORKDIR /home/outbox
ENTRYPOINT ["outbox"]
CMD ["--help"]
