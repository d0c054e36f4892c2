# The service with TensorFlow for the CPU; docs/docker.md tells how to use it.
# The Python that constraints.txt was made with.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2

# Not in the project folder: there the sources would hide the installed package.
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY hpo hpo
# --compile: without byte-code TensorFlow takes 20 seconds to import instead of 7.
RUN pip install --no-cache-dir --compile --constraint constraints.txt '.[cpu,cmaes]'

# A new volume takes its owner from the folder that it covers.
RUN useradd --create-home --uid 1000 hpo \
    && install --directory --owner hpo --group hpo /project /artifacts
ENV HPO_ARTIFACTS=/artifacts

WORKDIR /project
COPY models models
COPY studies studies
RUN python -m compileall -q models

USER hpo
ENTRYPOINT ["hpo"]
CMD ["--help"]
