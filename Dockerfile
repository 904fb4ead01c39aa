# One image for every part of a site; docker-compose.yml runs it once a part.
# Python 3.11, as so3g has no wheels for newer ones. With `--build-arg EXTRAS=router,g3,mysql` the image serves .g3 files.
FROM python:3.11-slim-trixie

ARG EXTRAS=router

ENV PYTHONUNBUFFERED=1 \
    SISOCKDAQ_STATE=/state \
    NUMBA_CACHE_DIR=/opt/numba-cache

WORKDIR /opt/sisockdaq
COPY . .

# bjdata without its compiled part: it needs no compiler, and prints nothing at import.
# The kernels are compiled here, so that no container does it while packets arrive.
RUN useradd --create-home --uid 1000 daq \
    && PYBJDATA_NO_EXTENSION=1 python -m pip install --no-cache-dir --no-binary bjdata "/opt/sisockdaq[${EXTRAS}]" \
    && python -m sisockdaq.warm \
    && install -d -o daq -g daq -m 0700 /state \
    && chown -R daq:daq "$NUMBA_CACHE_DIR"

USER 1000
VOLUME /state
ENTRYPOINT ["sisockdaq"]
CMD ["up", "sites/demo"]
