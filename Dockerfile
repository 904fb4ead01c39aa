# One image for every part of a site; docker-compose.yml runs it once a part.
FROM python:3.13-slim-trixie

ENV PYTHONUNBUFFERED=1 \
    SISOCKDAQ_STATE=/state \
    NUMBA_CACHE_DIR=/opt/numba-cache

WORKDIR /opt/sisockdaq
COPY . .

# bjdata without its compiled part: it needs no compiler, and prints nothing at import.
# The kernels are compiled here, so that no container does it while packets arrive.
RUN useradd --create-home --uid 1000 daq \
    && PYBJDATA_NO_EXTENSION=1 python -m pip install --no-cache-dir --no-binary bjdata "/opt/sisockdaq[router]" \
    && python -m sisockdaq.warm \
    && install -d -o daq -g daq -m 0700 /state \
    && chown -R daq:daq "$NUMBA_CACHE_DIR"

USER 1000
VOLUME /state
ENTRYPOINT ["sisockdaq"]
CMD ["up", "sites/demo"]
