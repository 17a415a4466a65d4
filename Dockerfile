# craik on a CPU: docker build -t craik . && docker run --rm -v "$PWD/runs:/work/runs" craik demo
FROM python:3.12-slim
WORKDIR /craik
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY craik craik
COPY mpc mpc
COPY world_models world_models
COPY envs envs
RUN pip install --no-cache-dir . --constraint constraints.txt
RUN useradd --create-home user && mkdir /work && chown user /work
USER user
WORKDIR /work
ENTRYPOINT ["craik"]
CMD ["--help"]
